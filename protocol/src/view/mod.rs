//! What a device knows of a namespace for certain, and how it learns (spec section 5).
//!
//! A [`View`] is a pure function of what was offered to it and of the times that it was told: no clock, no file, no
//! socket. [`View::take_trust`] walks the trust log, [`View::examine`] judges what brokers have sent, [`View::note`]
//! moves the cursor, [`freshness`] says whether anything is held back, [`clearance`] whether a release may be applied now.

pub mod clearance;
pub mod freshness;

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};

use crate::{
    Anchor, Channel, Head, Serial, Statement, Timestamp, Verified,
    log::{self, Place},
    statement::Body,
    trust::{Run, Trust},
    verify::VerifyError,
};

/// Two statements that contradict each other: both signed, for one place of one log (attack 28).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The one that was known.
    pub ours: Statement,
    /// The one that came later: of the same serial, or the next one with another `Previous`.
    pub theirs: Statement,
    /// Where theirs is not signed by those who may say such a thing now, but hash-linked below a statement that they
    /// signed: what lies between, oldest first.
    pub above: Vec<Statement>,
}

/// Statements that are kept to prove a branch which is not signed at its lower end.
const ABOVE: usize = 64;

impl Fork {
    /// Of the run in which it was found as much as proves it.
    fn new(trust: &Trust, ours: &Statement, run: &[Verified<Statement>]) -> Self {
        let run: Vec<Statement> = run.iter().take(ABOVE + 1).map(|statement| (**statement).clone()).collect();
        let proves = |count: &usize| trust.verify_run(ours.channel(), run[..*count].to_vec()).is_ok();
        let count = (1..=run.len()).find(proves).unwrap_or(run.len());
        Self { ours: ours.clone(), theirs: run[0].clone(), above: run[1..count].to_vec() }
    }
    /// The place where the branches part: the serial of ours.
    pub fn serial(&self) -> Serial {
        self.ours.serial()
    }
}

/// What is known of one channel, as it is kept durably ([5.1-1]).
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The statement at the head.
    pub newest: Option<Statement>,
    /// The evidence of a fork, as long as no checkpoint has settled it.
    pub fork: Option<Fork>,
    /// The checkpoint that the head is known to stand on.
    pub stands_on: Option<Head>,
    /// What the present beat must name, and what the next one must: the heads when the beats before them were taken.
    pub due: (Option<Serial>, Option<Serial>),
    /// The release that was applied last: nothing older follows it.
    pub applied: Option<Serial>,
    /// The last one that was applied of the branch that the head is on: barriers are measured by it.
    pub passed: Option<Serial>,
    /// The newest withdrawal that was met when something was to be applied: whoever shows less is behind.
    pub stopped: Option<Serial>,
    /// The withdrawal that has called back what was applied last.
    pub recalled: Option<Serial>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    known: Known,
    /// The newest statement, as far as the trust in force can still prove it; the cursor stays without that.
    proven: Option<Verified<Statement>>,
}

/// What [`View::examine`] has found to be new in a channel: verified, and following what was known.
#[derive(Clone, Debug)]
pub struct News {
    channel: Channel,
    statements: Vec<Verified<Statement>>,
    /// Whether the run had the checkpoint of its channel in it.
    settled: bool,
    /// Whether it takes the place of the branch that was known.
    other_branch: bool,
    /// The trust by which it was verified.
    trust: Option<Serial>,
    signature_checks: usize,
}

impl News {
    /// One statement that needs no place: a beat.
    fn only(statement: Verified<Statement>, trust: Option<Serial>, signature_checks: usize) -> Self {
        let channel = statement.channel().clone();
        Self { channel, statements: [statement].into(), settled: false, other_branch: false, trust, signature_checks }
    }
    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
    /// Oldest first.
    pub fn statements(&self) -> &[Verified<Statement>] {
        &self.statements
    }
    /// Whether there is nothing to take note of.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty() && !self.settled
    }
    /// The same, one by one, for somebody who takes note of each when it was dealt with.
    pub fn each(self) -> impl Iterator<Item = Self> {
        let Self { channel, statements, settled, mut other_branch, trust, mut signature_checks } = self;
        statements.into_iter().map(move |statement| {
            let (signature_checks, other_branch) = (core::mem::take(&mut signature_checks), core::mem::take(&mut other_branch));
            Self { channel: channel.clone(), statements: [statement].into(), settled, other_branch, trust, signature_checks }
        })
    }
    /// The statements alone.
    pub fn into_statements(self) -> Vec<Verified<Statement>> {
        self.statements
    }
}

/// Why what a broker has sent has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no trust yet to judge by.
    #[error("the trust log has to be read first (spec 5.4-1)")]
    NoTrust,
    /// A statement that may not be said, or is not what its successor names.
    #[error("{serial}: {source}")]
    Verify {
        /// Its serial.
        serial: Serial,
        /// Why.
        source: VerifyError,
    },
    /// Two statements for one place. Neither is taken.
    #[error("{} {} is forked: {} and {} are both signed (spec 6-1)", .0.ours.channel(), .0.serial(), .0.ours.id(), .0.theirs.id())]
    Fork(Box<Fork>),
    /// A checkpoint decides which branch is the log: it has to be read from there.
    #[error("a checkpoint decides: the log has to be read from {0} on (spec 6-5)")]
    ReadFrom(Serial),
}

/// By its own signatures, or by a checkpoint.
fn prove(trust: Option<&Trust>, statement: &Statement) -> Option<Verified<Statement>> {
    trust?.verify_run(statement.channel(), [statement.clone()].into()).ok()?.statements.pop()
}

/// What a device knows for certain.
#[derive(Clone, Debug)]
pub struct View {
    anchor: Anchor,
    trust: Option<Arc<Trust>>,
    floor: Timestamp,
    channels: BTreeMap<Channel, Entry>,
    signature_checks: u64,
}

impl View {
    /// One that knows nothing but its anchor.
    pub fn new(anchor: Anchor) -> Self {
        Self { anchor, trust: None, floor: Timestamp::from_seconds(0), channels: BTreeMap::new(), signature_checks: 0 }
    }

    /// Takes up what was verified in an earlier life and kept where nobody else writes.
    #[must_use]
    pub fn resume(self, trust: Option<Trust>, floor: Timestamp) -> Self {
        Self { trust: trust.map(Arc::new), floor, ..self }
    }

    /// The same, but of all channels only one and those of the beats: what is needed to look ahead there.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> Self {
        let kept = self.channels.iter().filter(|(name, _)| *name == channel || name.is_beat());
        let channels = kept.map(|(name, entry)| (name.clone(), entry.clone())).collect();
        Self { channels, anchor: self.anchor.clone(), trust: self.trust.clone(), ..*self }
    }

    /// The same for one channel. Its newest statement is proven anew; its place counts in any case.
    pub fn resume_channel(&mut self, channel: Channel, known: Known) {
        let proven = known.newest.as_ref().and_then(|statement| prove(self.trust(), statement));
        self.channels.insert(channel, Entry { known, proven });
    }

    /// What is known of a channel.
    pub fn known(&self, channel: &Channel) -> Option<&Known> {
        Some(&self.channels.get(channel)?.known)
    }

    /// The anchor.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }
    /// The trust in force, once it is known.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_deref()
    }
    /// Signatures that were checked for what was taken since it began or was resumed.
    pub fn signature_checks(&self) -> u64 {
        self.signature_checks
    }
    /// [5.1-2]: the latest time that the trust in force, or a beat that it proves, was signed at: it cannot be earlier now
    /// (attack 21). What only a key that was taken away has signed does not count any more. Where there are no beats, other
    /// statements count; where there are, a publisher's clock that is ahead makes nobody else's beats look old.
    pub fn floor(&self) -> Timestamp {
        self.floor
    }
    /// All channels that something is known of.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.keys()
    }
    /// Serial and id of a channel's newest statement: the cursor.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        Some(self.known(channel)?.newest.as_ref()?.head())
    }
    /// The newest statement of a channel, as far as the trust in force proves it.
    pub fn newest(&self, channel: &Channel) -> Option<&Verified<Statement>> {
        self.channels.get(channel)?.proven.as_ref()
    }
    /// The evidence of a fork that no checkpoint has settled.
    pub fn fork(&self, channel: &Channel) -> Option<&Fork> {
        self.known(channel)?.fork.as_ref()
    }
    /// The release that was applied last.
    pub fn applied(&self, channel: &Channel) -> Option<Serial> {
        self.known(channel)?.applied
    }

    /// [5.4-1], [5.4-2]: the next statements of the trust log come into force, one after the other.
    ///
    /// # Errors
    /// If one is not the next, or a threshold is not met: its serial and why. Those before it stay in force.
    pub fn take_trust(&mut self, statements: impl IntoIterator<Item = Statement>) -> Result<(), (Serial, VerifyError)> {
        let before = self.trust.clone();
        let taken = statements.into_iter().try_for_each(|statement| {
            let serial = statement.serial();
            self.step(statement).map_err(|error| (serial, error))
        });
        let unchanged = before.map(|trust| trust.head()) == self.trust().map(Trust::head);
        if let Some(trust) = self.trust.clone().filter(|_| !unchanged) {
            self.floor = trust.statement().time();
            let beats_alone = self.promises_beats();
            for (channel, entry) in &mut self.channels {
                // Whoever has stopped it may have lost that right.
                entry.known.stopped = None;
                entry.proven = entry.known.newest.as_ref().and_then(|newest| prove(Some(&trust), newest));
                let counts = entry.proven.as_ref().filter(|_| channel.is_beat() || !beats_alone);
                self.floor = counts.map_or(self.floor, |statement| self.floor.max(statement.time()));
            }
        }
        taken
    }

    fn step(&mut self, statement: Statement) -> Result<(), VerifyError> {
        if self.trust().map(Trust::head) == Some(statement.head()) {
            return Ok(());
        }
        let next = match &self.trust {
            None => Trust::first(&self.anchor, statement)?,
            Some(trust) => trust.succeed(statement)?,
        };
        let by_the_old = self.trust.as_ref().map_or(0, |trust| trust.signature_checks(next.statement()));
        self.signature_checks += (by_the_old + next.signature_checks(next.statement())) as u64;
        self.trust = Some(Arc::new(next));
        Ok(())
    }

    /// The checkpoint that the newest statement has still to be shown to stand on.
    fn doubt(&self, channel: &Channel) -> Option<Head> {
        let checkpoint = self.trust.as_ref()?.checkpoint(channel)?;
        let (known, head) = (self.known(channel)?, self.head(channel)?);
        let shown = checkpoint == head || known.stands_on == Some(checkpoint);
        (!shown && checkpoint.serial <= head.serial).then_some(checkpoint)
    }

    /// Whether a checkpoint decides about a fork that is known.
    fn decided(&self, channel: &Channel) -> Option<Head> {
        let fork = self.fork(channel)?;
        let trust = self.trust()?;
        let proves = |run: Vec<Statement>| trust.verify_run(channel, run).is_ok();
        let both = || {
            let theirs = core::iter::once(&fork.theirs).chain(&fork.above).cloned().collect();
            proves([fork.ours.clone()].into()) && proves(theirs)
        };
        // Where a side is nobody's any more who may sign now, there are not two that contradict each other.
        trust.checkpoint(channel).filter(|checkpoint| checkpoint.serial >= fork.serial() || !both())
    }

    /// The serial from which a channel has to be read on: after the head, or from a checkpoint that may decide against
    /// it ([6-5]); none if nothing is known of the channel.
    pub fn read_from(&self, channel: &Channel) -> Option<Serial> {
        let head = self.head(channel)?;
        let decides = self.doubt(channel).or_else(|| self.decided(channel));
        Some(match decides {
            Some(checkpoint) => checkpoint.serial.min(head.serial),
            None => head.serial.next().unwrap_or(head.serial),
        })
    }

    /// [5.3-1], [6-1], [6-5]: judges consecutive statements of a channel, oldest first, all or nothing. It changes nothing;
    /// [`View::note`] does.
    ///
    /// The run begins at [`View::read_from`] or below, or later where everything between has expired at the broker.
    ///
    /// # Errors
    /// Which statement is refused and why, a fork, or from where the log must be read instead.
    pub fn examine(&self, channel: &Channel, run: Vec<Statement>) -> Result<News, Refusal> {
        let trust = self.trust.as_ref().ok_or(Refusal::NoTrust)?;
        let verified = trust.verify_run(channel, run).map_err(|(serial, source)| Refusal::Verify { serial, source })?;
        let Run { statements: mut run, signature_checks } = verified;
        let checkpoint = trust.checkpoint(channel);
        let settled = checkpoint.is_some_and(|checkpoint| run.iter().any(|statement| statement.head() == checkpoint));
        let trust_serial = Some(trust.serial());
        let news =
            |statements| News { channel: channel.clone(), statements, settled, other_branch: false, trust: trust_serial, signature_checks };
        // The branch through the checkpoint is the log: ours was not.
        let other_branch = |statements| News { other_branch: true, ..news(statements) };
        let Some(newest) = self.known(channel).and_then(|known| known.newest.as_ref()) else { return Ok(news(run)) };
        let head = newest.head();
        let starts_above = |c: Head| run.first().is_some_and(|first| first.serial() > c.serial);
        let contradiction = run.iter().position(|statement| log::place(Some(head), statement) == Place::Fork);
        if let Some(checkpoint) = self.doubt(channel).or_else(|| self.decided(channel)) {
            let ends_below = run.last().is_none_or(|last| last.serial() < head.serial);
            return match () {
                () if !settled && starts_above(checkpoint) => Err(Refusal::ReadFrom(checkpoint.serial)),
                () if settled && contradiction.is_some() => Ok(other_branch(run)),
                // Nor was a head further on that nobody may have signed who may now (attack 15).
                () if settled && ends_below && self.newest(channel).is_none() => Ok(other_branch(run)),
                // A broker that is behind says nothing about our head.
                () if !settled || ends_below => Ok(News { settled: false, ..news(Vec::new()) }),
                () => {
                    run.retain(|statement| statement.serial() > head.serial);
                    Ok(news(run))
                }
            };
        }
        if let Some(fork) = self.fork(channel) {
            return Err(Refusal::Fork(Box::new(fork.clone())));
        }
        let Some(at) = contradiction else {
            // What was known drops out; a run that ends below the head is that of a broker that is behind (attack 24).
            run.retain(|statement| statement.serial() > head.serial);
            return Ok(news(run));
        };
        match checkpoint {
            Some(checkpoint) if settled && checkpoint.serial > head.serial => return Ok(other_branch(run)),
            // Whether that branch leaves the log above the checkpoint, and so is a fork, or was settled against, is seen there.
            Some(checkpoint) if checkpoint.serial <= head.serial && starts_above(checkpoint) => {
                return Err(Refusal::ReadFrom(checkpoint.serial));
            }
            _ => {}
        }
        Err(Refusal::Fork(Box::new(Fork::new(trust, newest, &run[at..]))))
    }

    /// Takes note of news: the cursor moves to the last; a fork that a checkpoint has decided is over then.
    pub fn note(&mut self, news: &News) {
        let channel = &news.channel;
        self.signature_checks += news.signature_checks as u64;
        let checkpoint = self.trust().and_then(|trust| trust.checkpoint(channel));
        let over = news.settled && self.decided(channel).is_some();
        let head = self.head(channel);
        let follows = news.statements.first().is_none_or(|first| first.predecessor() == head);
        let settled = news.settled || (follows && head.is_some() && head == checkpoint);
        let beats_alone = self.promises_beats();
        let Entry { known, proven } = self.channels.entry(channel.clone()).or_default();
        if over {
            known.fork = None;
        }
        if !follows && !news.settled {
            known.stands_on = None;
        }
        if news.other_branch {
            // What was applied from the old branch is no step of the new one; that nothing older follows it stays true.
            let below = news.statements.first().and_then(|first| Serial::new(first.serial().number() - 1));
            known.passed = known.passed.min(below);
            (known.stopped, known.recalled, known.due) = (None, None, (None, None));
        }
        for statement in &news.statements {
            if let Body::Withdraw(withdraw) = statement.body()
                && Some(withdraw.withdraws) == known.applied
            {
                known.recalled = Some(statement.serial());
            }
        }
        if let Some(newest) = news.statements.last() {
            known.newest = Some((**newest).clone());
            let still_in_force = news.trust == self.trust.as_ref().map(|trust| trust.serial());
            *proven = if still_in_force { Some(newest.clone()) } else { prove(self.trust.as_deref(), newest) };
            if let Some(proven) = proven.as_ref().filter(|_| channel.is_beat() || !beats_alone) {
                self.floor = self.floor.max(proven.time());
            }
        }
        let below = |checkpoint: &Head| known.newest.as_ref().is_some_and(|newest| checkpoint.serial <= newest.serial());
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| settled && below(checkpoint)) {
            known.stands_on = Some(checkpoint);
        }
    }

    /// Keeps the evidence of a fork: the channel stops here until a checkpoint settles it (attack 28).
    pub fn note_fork(&mut self, fork: Fork) {
        self.channels.entry(fork.ours.channel().clone()).or_default().known.fork.get_or_insert(fork);
    }

    /// Takes note of a withdrawal that has kept a release from being applied, so that nobody can hide it again.
    pub fn note_stopped(&mut self, channel: &Channel, by: Serial) {
        let known = &mut self.channels.entry(channel.clone()).or_default().known;
        known.stopped = known.stopped.max(Some(by));
    }

    /// Takes note of a release that was applied; [`clearance`] measures others by it.
    pub fn note_applied(&mut self, channel: &Channel, serial: Serial) {
        let known = &mut self.channels.entry(channel.clone()).or_default().known;
        (known.applied, known.passed, known.recalled) = (Some(serial), Some(serial), None);
    }
}
