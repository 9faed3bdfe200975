//! What a device knows of its namespace, as a pure function of what it was offered and of the time.
//!
//! Four functions decide everything: [`View::judge`] whether what a broker has sent is proven,
//! [`View::place`] what of it is new, [`View::freshness`] whether anything is held back, and
//! [`View::clear`] which release is to be run.

pub mod clearance;
mod fork;
pub mod freshness;
mod moment;
mod note;
mod place;

use alloc::{boxed::Box, collections::BTreeMap, string::String, sync::Arc, vec::Vec};

pub use fork::Fork;
pub use freshness::SeenBeat;
pub use moment::{Moment, Now};
pub use place::News;

use crate::{
    Anchor, Channel, Head, Requirement, Serial, Statement, Timestamp, Verified,
    limits::FUTURE_SECONDS, statement::Body, trust::Trust, verify::VerifyError,
};

/// A withdrawal that was proven once: it counts on whatever branch it was met, and whatever becomes
/// of its key.
#[derive(Clone, Debug)]
pub struct Withdrawal {
    /// What it withdraws.
    pub release: Head,
    /// The serial of the withdrawal.
    pub by: Serial,
    /// Why.
    pub reason: String,
    /// Whether the release had been read when the withdrawal was met.
    pub read: bool,
}

impl Withdrawal {
    /// What a statement withdraws; none if it is no withdrawal.
    pub fn of(by: &Statement) -> Option<Self> {
        let Body::Withdraw(withdraw) = by.body() else {
            return None;
        };
        Some(Self {
            release: withdraw.withdraws,
            by: by.serial(),
            reason: withdraw.reason.clone(),
            read: false,
        })
    }
}

/// What is known of one channel, as it is kept durably.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The statement at the head.
    pub newest: Option<Statement>,
    /// Statements below it that links have led to, oldest first: at most
    /// [`CHAIN_LINKS`](crate::limits::CHAIN_LINKS).
    pub links: Vec<Head>,
    /// The checkpoint that the head is known to stand on.
    pub settled: Option<Head>,
    /// The evidence of a fork, until a checkpoint or a live beat decides.
    pub fork: Option<Fork>,
    /// Withdrawals: at most [`WITHDRAWALS`](crate::limits::WITHDRAWALS) of releases that were read,
    /// and as many others.
    pub withdrawals: Vec<Withdrawal>,
    /// The release that was applied last.
    pub applied: Option<Statement>,
    /// The serial of the release that the machine's image came with.
    pub came_with: Option<Serial>,
    /// The last statement that the application has dealt with.
    pub delivered: Option<Head>,
}

/// Why what a broker has sent has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no trust yet to judge by.
    #[error("the trust log has to be read first ({})", Requirement::NoTrust)]
    NoTrust,
    /// A statement that may not be said, or is not what its successor names.
    #[error("{serial}: {source}")]
    Verify {
        /// Its serial.
        serial: Serial,
        /// Why.
        source: VerifyError,
    },
    /// Two statements for one place, and nothing that decides for the other one.
    #[error("{} {} is forked: {} and {} are both signed ({})", .0.ours.channel(), .0.serial(), .0.ours.id(), .0.theirs.id(), Requirement::Fork)]
    Fork(Box<Fork>),
    /// A checkpoint or a beat decides which branch is the log: it has to be read from a lower
    /// serial on.
    #[error("the log has to be read from {serial} on ({})", Requirement::ReadFrom)]
    ReadFrom {
        /// From here on.
        serial: Serial,
    },
}

/// What a device knows for certain.
#[derive(Clone, Debug)]
pub struct View {
    anchor: Anchor,
    trust: Option<Arc<Trust>>,
    /// When the trust in force was seen first.
    trust_seen: Option<Moment>,
    beats: BTreeMap<Channel, SeenBeat>,
    channels: BTreeMap<Channel, Known>,
    signature_checks: u64,
}

impl View {
    /// One that knows nothing but its anchor.
    pub fn new(anchor: Anchor) -> Self {
        Self {
            anchor,
            trust: None,
            trust_seen: None,
            beats: BTreeMap::new(),
            channels: BTreeMap::new(),
            signature_checks: 0,
        }
    }

    /// Takes up the trust that was verified in an earlier life and kept where nobody else writes.
    #[must_use]
    pub fn resume(self, trust: Option<Trust>, seen: Option<Moment>) -> Self {
        Self {
            trust: trust.map(Arc::new),
            trust_seen: seen,
            ..self
        }
    }

    /// The same for the newest beat of a channel; it is proven anew.
    pub fn resume_beat(&mut self, statement: Statement, seen: Moment) {
        let proven = self
            .trust()
            .is_some_and(|trust| trust.check(&statement).is_ok());
        self.beats.insert(
            statement.channel().clone(),
            SeenBeat {
                statement,
                seen,
                proven,
            },
        );
    }

    /// The same for one channel.
    pub fn resume_channel(&mut self, channel: Channel, known: Known) {
        self.channels.insert(channel, known);
    }

    /// The same, but of all channels only one.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> Self {
        let channels = self
            .channels
            .get_key_value(channel)
            .map(|(name, known)| (name.clone(), known.clone()))
            .into_iter()
            .collect();
        Self {
            channels,
            anchor: self.anchor.clone(),
            trust: self.trust.clone(),
            beats: self.beats.clone(),
            ..*self
        }
    }

    /// The anchor.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }
    /// The trust in force, once it is known.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_deref()
    }
    /// When it was seen first.
    pub fn trust_seen(&self) -> Option<Moment> {
        self.trust_seen
    }
    /// The newest beat of each beat channel.
    pub fn beats(&self) -> impl Iterator<Item = &SeenBeat> {
        self.beats.values()
    }
    /// What is known of a channel.
    pub fn known(&self, channel: &Channel) -> Option<&Known> {
        self.channels.get(channel)
    }
    /// All channels that something is known of.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.keys()
    }
    /// Signatures that were checked for what was taken since it began or was resumed.
    pub fn signature_checks(&self) -> u64 {
        self.signature_checks
    }
    /// Serial and id of a channel's newest statement.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        Some(self.known(channel)?.newest.as_ref()?.head())
    }
    /// The newest statement of a channel, if the trust in force proves it by its own signatures or
    /// as a checkpoint.
    pub fn newest(&self, channel: &Channel) -> Option<Verified<Statement>> {
        let newest = self.known(channel)?.newest.clone()?;
        self.trust()?
            .verify_run(channel, [newest].into())
            .ok()?
            .statements
            .pop()
    }
    /// The evidence of a fork that nothing has decided.
    pub fn fork(&self, channel: &Channel) -> Option<&Fork> {
        self.known(channel)?.fork.as_ref()
    }
    /// The release that was applied last.
    pub fn applied(&self, channel: &Channel) -> Option<&Statement> {
        self.known(channel)?.applied.as_ref()
    }
    /// Whether the trust in force has a role for the beats of a channel: then nothing is installed
    /// from it without one.
    pub fn promises_beats(&self, channel: &Channel) -> bool {
        self.trust()
            .is_some_and(|trust| trust.beat_channel(channel).is_some())
    }

    /// The latest signed time that concerns a beat channel, running on by the monotonic clock since
    /// it was seen.
    fn signed_time(&self, beats: Option<&Channel>, now: &Now) -> Timestamp {
        let trust = self
            .trust()
            .zip(self.trust_seen)
            .map(|(trust, seen)| seen.running(trust.statement().time(), now));
        let beat = beats
            .and_then(|beats| self.beats.get(beats))
            .filter(|seen| seen.proven)
            .map(|seen| seen.running(now));
        beat.max(trust).unwrap_or(Timestamp::from_seconds(0))
    }

    /// The clock, if it counts for a beat channel: one that is more than a day behind what was
    /// signed does not.
    fn clock(&self, beats: Option<&Channel>, now: &Now) -> Option<Timestamp> {
        let signed = self.signed_time(beats, now);
        now.clock
            .filter(|clock| clock.plus(FUTURE_SECONDS) >= signed)
    }

    /// The time that counts in a channel: the latest of the clock, the time of the trust in force
    /// and that of its newest beat that is proven. The two signed ones run on by the monotonic
    /// clock, from beat to beat; nobody's beats move the time of channels that they do not speak
    /// for.
    pub fn time(&self, channel: &Channel, now: &Now) -> Timestamp {
        let beats = self.trust().and_then(|trust| trust.beat_channel(channel));
        let signed = self.signed_time(beats.as_ref(), now);
        self.clock(beats.as_ref(), now)
            .map_or(signed, |clock| clock.max(signed))
    }

    /// The next statements of the trust log come into force, one after the other.
    ///
    /// # Errors
    /// If one is not the next, or a threshold is not met: its serial and why. Those before it stay
    /// in force.
    pub fn take_trust(
        &mut self,
        statements: impl IntoIterator<Item = Statement>,
        now: &Now,
    ) -> Result<(), (Serial, VerifyError)> {
        let before = self.trust().map(Trust::head);
        let taken = statements.into_iter().try_for_each(|statement| {
            let serial = statement.serial();
            self.step(statement, now).map_err(|error| (serial, error))
        });
        if before != self.trust().map(Trust::head) {
            let trust = self.trust.clone();
            for beat in self.beats.values_mut() {
                beat.proven = trust
                    .as_ref()
                    .is_some_and(|trust| trust.check(&beat.statement).is_ok());
            }
            let channels: Vec<Channel> = self.channels.keys().cloned().collect();
            channels.iter().for_each(|channel| self.stand(channel));
        }
        taken
    }

    fn step(&mut self, statement: Statement, now: &Now) -> Result<(), VerifyError> {
        if self.trust().map(Trust::head) == Some(statement.head()) {
            return Ok(());
        }
        let mut next = match &self.trust {
            None => Trust::first(&self.anchor, statement)?,
            Some(trust) => trust.succeed(statement)?,
        };
        let settled: Vec<Statement> = self
            .trust()
            .map_or(Vec::new(), |trust| trust.settled_beats().cloned().collect());
        for beat in settled {
            next.take_settled_beat(beat);
        }
        let by_the_old = self
            .trust
            .as_ref()
            .map_or(0, |trust| trust.signature_checks(next.statement()));
        self.signature_checks += (by_the_old + next.signature_checks(next.statement())) as u64;
        // Time does not fall back from one to the next, or what was withheld would be new again.
        let time = next.statement().time().max(self.signed_time(None, now));
        self.trust_seen = Some(Moment::new(time, None, now));
        self.trust = Some(Arc::new(next));
        Ok(())
    }

    /// Takes a beat that a checkpoint of the trust in force names: its id is the proof.
    pub fn take_settled_beat(&mut self, statement: Statement) -> bool {
        let taken = self
            .trust
            .as_mut()
            .is_some_and(|trust| Arc::make_mut(trust).take_settled_beat(statement));
        if taken {
            let channels: Vec<Channel> = self.channels.keys().cloned().collect();
            channels.iter().for_each(|channel| self.stand(channel));
        }
        taken
    }

    /// Takes note of a release that was applied.
    pub fn note_applied(&mut self, statement: &Verified<Statement>) {
        self.channels
            .entry(statement.channel().clone())
            .or_default()
            .applied = Some((**statement).clone());
    }

    /// Takes note of the serial of the release that the machine's image came with.
    pub fn note_came_with(&mut self, channel: &Channel, serial: Serial) {
        self.channels.entry(channel.clone()).or_default().came_with = Some(serial);
    }
}
