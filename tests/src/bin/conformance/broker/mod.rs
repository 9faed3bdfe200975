//! Speaks with a broker as publishers, readers and thieves do, and judges what it answers.

mod publish;
mod read;
mod trust;
mod watch;

use tidings_protocol::{Head, Statement};

use crate::{
    namespace,
    report::{Outcome, Report},
    wire::Wire,
};

/// The channel that most of it is about.
const CHANNEL: &str = "conformance.os";
/// The serial of the first beat.
const BEAT_FIRST: u32 = 5;

/// A broker, and what it has taken so far.
struct Broker<'a> {
    address: &'a str,
    wire: Wire,
    report: &'a mut Report,
    /// The trust log, as it was taken.
    trust: Vec<Statement>,
    /// The log of [`CHANNEL`], as it must be served.
    log: Vec<Statement>,
}

/// Good if an answer begins with one of these.
fn expect(answer: &str, good: &[&str]) -> Outcome {
    if good.iter().any(|good| answer.starts_with(good)) {
        Outcome::Good
    } else {
        Outcome::Wrong(format!("expected {}, found {answer:?}", good.join(" or ")))
    }
}

/// Good if something is as it must be.
fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Outcome {
    if found == expected {
        Outcome::Good
    } else {
        Outcome::Wrong(format!("expected {expected:?}, found {found:?}"))
    }
}

impl Broker<'_> {
    /// A check. One that could not be made because the connection broke is wrong, and the next has
    /// a new connection.
    fn check(
        &mut self,
        requirement: &str,
        what: &str,
        check: impl FnOnce(&mut Self) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<()> {
        let outcome = match check(self) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.wire = Wire::open(self.address)?;
                Outcome::Wrong(format!("{error:#}"))
            }
        };
        self.report.note(requirement, what, outcome);
        Ok(())
    }

    fn post(&mut self, statement: &Statement) -> anyhow::Result<String> {
        self.wire.post(&namespace::article(statement)?)
    }

    /// A statement that must not be taken, and changes nothing.
    fn refuses(
        &mut self,
        requirement: &str,
        what: &str,
        statement: anyhow::Result<Statement>,
    ) -> anyhow::Result<()> {
        let statement = statement?;
        self.check(requirement, what, |broker| {
            let channel = statement.channel().to_string();
            let before = broker.wire.ask(&format!("GROUP {channel}"))?;
            let answer = broker.post(&statement)?;
            let after = broker.wire.ask(&format!("GROUP {channel}"))?;
            Ok(match expect(&answer, &["441"]) {
                Outcome::Good => same(&after, &before),
                wrong => wrong,
            })
        })
    }

    /// A statement that must be taken.
    fn takes(
        &mut self,
        requirement: &str,
        what: &str,
        statement: &Statement,
    ) -> anyhow::Result<()> {
        self.check(requirement, what, |broker| {
            Ok(expect(&broker.post(statement)?, &["240"]))
        })
    }

    /// The next release of the channel, which is taken.
    fn release(
        &mut self,
        requirement: &str,
        what: &str,
        fields: &str,
        signers: &[u8],
    ) -> anyhow::Result<()> {
        let statement = namespace::release(CHANNEL, self.head(), self.under(), fields, signers)?;
        self.takes(requirement, what, &statement)?;
        self.log.push(statement);
        Ok(())
    }

    fn head(&self) -> Option<Head> {
        self.log.last().map(Statement::head)
    }
    fn under(&self) -> u32 {
        self.trust.last().map_or(1, |trust| trust.serial().number())
    }
}

/// All checks, in an order in which each finds what it needs.
pub(crate) fn run(address: &str, report: &mut Report) -> anyhow::Result<()> {
    let wire = Wire::open(address)?;
    let greeting = expect(&wire.greeting, &["200", "201"]);
    report.note("1-26", "it greets with 200 or 201", greeting);
    let mut broker = Broker {
        address,
        wire,
        report,
        trust: vec![],
        log: vec![],
    };
    broker.begin()?;
    broker.publishing()?;
    broker.articles()?;
    broker.reading()?;
    broker.commands()?;
    broker.watching()?;
    broker.beats()?;
    broker.trusting()?;
    broker.restarting()?;
    broker.feeding()
}
