//! A device that answers the steps of a life (`spec/vectors/README.md`), over the library: shared
//! by the tests and by the driver for the conformance runner.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use tidings_protocol::{
    Anchor, Channel, Head, Requirement, Statement, StatementId, Verified, View,
    trust::Trust,
    verify::VerifyError,
    view::{
        Now, Refusal,
        clearance::{Clear, Profile},
    },
};

/// A device, and what its clocks show.
pub(crate) struct Device {
    view: View,
    now: Now,
    profile: Profile,
    /// What was read, to be applied later.
    read: BTreeMap<StatementId, Verified<Statement>>,
}

fn of(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoTrust => Requirement::NoTrust,
        Refusal::Verify { source, .. } => source.requirement(),
        Refusal::Fork(_) => Requirement::Fork,
        Refusal::ReadFrom { .. } => Requirement::ReadFrom,
    }
    .number()
    .into()
}

impl Device {
    pub(crate) fn new(anchor: &str) -> Self {
        let anchor: Anchor = anchor.parse().unwrap();
        let now = Now {
            clock: None,
            monotonic: 0,
            boot: 0,
        };
        let profile = Profile {
            identity: "device".into(),
            properties: BTreeMap::new(),
        };
        Self {
            view: View::new(anchor),
            now,
            profile,
            read: BTreeMap::new(),
        }
    }

    /// The serial of the trust in force; 0 before there is any.
    pub(crate) fn trust_serial(&self) -> u32 {
        self.view.trust().map_or(0, |trust| trust.serial().number())
    }

    /// Does what a step says; what comes of it, in the words of the step.
    pub(crate) fn answer(&mut self, step: &str, mut statements: Vec<Statement>) -> String {
        let (what, rest) = step.split_once(' ').unwrap_or((step, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        let channel = || -> Channel { words[0].parse().unwrap() };
        match what {
            "clock" => self.now.clock = (rest != "none").then(|| rest.parse().unwrap()),
            "passes" => self.passes(rest.parse().unwrap()),
            "restart" => self.restart(),
            "profile" => self.profile = profile(rest),
            "applied" => {
                let id = statements[0].id();
                self.view.note_applied(&self.read[&id]);
            }
            "delivered" => {
                let head = Head {
                    serial: words[1].parse().unwrap(),
                    id: words[2].parse().unwrap(),
                };
                self.view.note_delivered(&channel(), head);
            }
            "came-with" => self
                .view
                .note_came_with(&channel(), words[1].parse().unwrap()),
            "trust" => return self.trust(statements),
            "beat" => {
                let now = self.now;
                return self.view.take_beat(statements.remove(0), &now).map_or_else(
                    |error| format!("refused {}", of(&error)),
                    |()| "taken".into(),
                );
            }
            "settled-beat" => {
                let taken = self.view.take_settled_beat(statements.remove(0));
                return if taken { "taken" } else { "refused" }.into();
            }
            "read" | "hole" => return self.read(&channel(), statements, what == "hole"),
            "state" => return self.view.freshness(&channel(), &self.now).as_str().into(),
            "run" => return self.run(&channel(), statements),
            "finish" => {
                return self.finish(&channel(), words[1], words.get(2).copied(), statements);
            }
            other => return format!("unknown step {other}"),
        }
        String::new()
    }

    fn passes(&mut self, seconds: u64) {
        self.now.monotonic += seconds;
        self.now.clock = self.now.clock.map(|clock| clock.plus(seconds));
    }

    /// The machine stops and starts: what was kept is taken up again.
    fn restart(&mut self) {
        self.now = Now {
            monotonic: 5,
            boot: self.now.boot + 1,
            ..self.now
        };
        let old = &self.view;
        let trust = old.trust().map(|trust| {
            let mut again =
                Trust::resume(trust.namespace(), trust.statement().clone().into_inner()).unwrap();
            trust
                .settled_beats()
                .for_each(|beat| assert!(again.take_settled_beat(beat.clone())));
            again
        });
        let mut view = View::new(old.anchor().clone()).resume(trust, old.trust_seen());
        old.beats()
            .for_each(|beat| view.resume_beat(beat.statement.clone(), beat.seen));
        old.channels().for_each(|channel| {
            view.resume_channel(channel.clone(), old.known(channel).unwrap().clone())
        });
        self.view = view;
    }

    fn trust(&mut self, statements: Vec<Statement>) -> String {
        match self.view.take_trust(statements, &self.now) {
            Ok(()) => format!("taken {}", self.view.trust().unwrap().serial()),
            Err((serial, error)) => format!(
                "refused {serial} {}",
                VerifyError::requirement(&error).number()
            ),
        }
    }

    fn read(&mut self, channel: &Channel, statements: Vec<Statement>, hole: bool) -> String {
        let first = statements.first().map(Statement::serial);
        let run = match self.view.judge(channel, statements) {
            Ok(run) => run,
            Err(Refusal::Verify { serial, source }) => {
                return format!("refused {serial} {}", source.requirement().number());
            }
            Err(error) => {
                return format!(
                    "refused {} {}",
                    first.map_or(0, |serial| serial.number()),
                    of(&error)
                );
            }
        };
        self.read.extend(
            run.statements
                .iter()
                .map(|statement| (statement.id(), statement.clone())),
        );
        match self.view.place(channel, run, hole, &self.now) {
            Ok(news) => {
                let serials: Vec<String> = news
                    .statements()
                    .iter()
                    .map(|statement| statement.serial().to_string())
                    .collect();
                self.view.note(&news, &self.now);
                if let Some(last) = news.statements().last() {
                    self.view.note_delivered(channel, last.head());
                }
                let how = if news.is_other_branch() {
                    "other"
                } else {
                    "new"
                };
                format!(
                    "{how} {}",
                    if serials.is_empty() {
                        "none".into()
                    } else {
                        serials.join(",")
                    }
                )
            }
            Err(Refusal::Fork(fork)) => {
                self.view.note_fork(*fork, &self.now);
                "fork".into()
            }
            Err(Refusal::ReadFrom { serial }) => format!("from {serial}"),
            Err(error) => refused_by(&error),
        }
    }

    fn judged(
        &mut self,
        channel: &Channel,
        statements: Vec<Statement>,
    ) -> Result<Vec<Verified<Statement>>, String> {
        let log = self
            .view
            .judge(channel, statements)
            .map_err(|error| of(&error))?
            .statements;
        self.read.extend(
            log.iter()
                .map(|statement| (statement.id(), statement.clone())),
        );
        Ok(log)
    }

    fn run(&mut self, channel: &Channel, statements: Vec<Statement>) -> String {
        let log = match self.judged(channel, statements) {
            Ok(log) => log,
            Err(requirement) => return format!("none {requirement}"),
        };
        match self.view.clear(channel, &log, &self.profile, &self.now) {
            Ok(Clear::Apply(release)) => release.serial().to_string(),
            Ok(Clear::Nothing { .. }) => "nothing".into(),
            Err(error) => format!("none {}", error.requirement().number()),
        }
    }

    fn finish(
        &mut self,
        channel: &Channel,
        serial: &str,
        id: Option<&str>,
        statements: Vec<Statement>,
    ) -> String {
        let log = match self.judged(channel, statements) {
            Ok(log) => log,
            Err(requirement) => return format!("no {requirement}"),
        };
        let of_log = |statement: &&Verified<Statement>| {
            statement.channel() == channel && statement.serial().to_string() == serial
        };
        let begun = self.read.values().find(of_log).unwrap().clone();
        let begun = id.map_or(begun, |id| self.read[&id.parse().unwrap()].clone());
        match self.view.may_finish(&begun, &log, &self.now) {
            Ok(()) => "yes".into(),
            Err(error) => format!("no {}", error.requirement().number()),
        }
    }
}

fn refused_by(error: &Refusal) -> String {
    format!("refused {}", of(error))
}

fn profile(text: &str) -> Profile {
    let mut words = text.split(' ');
    let identity = words.next().unwrap().into();
    Profile {
        identity,
        properties: words
            .map(|word| word.split_once('=').unwrap())
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
    }
}

/// The steps of a life: what is done, what must come of it, and the statements that belong to it.
pub(crate) fn steps(text: &str) -> impl Iterator<Item = (&str, &str, Vec<Statement>)> {
    text.split("\n\n").skip(1).map(|block| {
        let (line, rest) = block.split_once('\n').unwrap_or((block, ""));
        let (step, outcome) = line.split_once(" => ").unwrap_or((line, ""));
        let rest = if rest.is_empty() || rest.ends_with('\n') {
            rest.to_owned()
        } else {
            format!("{rest}\n")
        };
        let statements = if rest.is_empty() {
            vec![]
        } else {
            tidings_protocol::bundle::parse(rest.as_bytes()).unwrap()
        };
        (step, outcome, statements)
    })
}

/// The line of a life's head that begins so.
pub(crate) fn head<'a>(text: &'a str, key: &str) -> &'a str {
    let head = text.split("\n\n").next().unwrap();
    head.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        .unwrap()
}
