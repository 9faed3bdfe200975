//! What a device knows of its namespace, as a pure function of what it was offered and of the time.
//!
//! Four functions decide everything: [`View::judge`] whether what a broker has sent is proven, [`View::place`] what of it is new,
//! [`View::freshness`] whether anything is held back, and [`View::clear`] which release is to be run.

pub mod clearance;
mod fork;
pub mod freshness;
mod moment;

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};

pub use fork::Fork;
pub use freshness::SeenBeat;
pub use moment::{Moment, Now};

use crate::{
    Anchor, Channel, Head, Requirement, Serial, Statement, StatementId, Timestamp, Verified,
    limits::{CHAIN_LINKS, WITHDRAWALS},
    log::{self, Place},
    trust::{Run, Settled, Trust},
    verify::VerifyError,
};

/// A withdrawal that was met, on whatever branch.
#[derive(Clone, Debug)]
pub struct Withdrawal {
    /// What it withdraws.
    pub release: Head,
    /// The withdrawal.
    pub by: Statement,
    /// The trust under which links have proven it; without that it counts as long as its own signatures do.
    pub linked_under: Option<Serial>,
}

impl Withdrawal {
    /// What a statement withdraws; none if it is no withdrawal.
    pub fn of(by: Statement, linked_under: Option<Serial>) -> Option<Self> {
        Some(Self { release: clearance::withdrawn(&by)?, by, linked_under })
    }
}

/// What is known of one channel, as it is kept durably.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The statement at the head.
    pub newest: Option<Statement>,
    /// Statements below it that links have led to, oldest first: at most [`CHAIN_LINKS`].
    pub links: Vec<Head>,
    /// The checkpoint that the head is known to stand on.
    pub settled: Option<Head>,
    /// The evidence of a fork, until a checkpoint or a live beat decides.
    pub fork: Option<Fork>,
    /// Withdrawals, those of the releases with the highest serials last: at most [`WITHDRAWALS`].
    pub withdrawals: Vec<Withdrawal>,
    /// The release that was applied last.
    pub applied: Option<Statement>,
    /// The last statement that the application has dealt with.
    pub delivered: Option<Head>,
}

/// What [`View::place`] has found to be new in a channel: proven, and following what was known.
#[derive(Clone, Debug)]
pub struct News {
    channel: Channel,
    /// Oldest first; those up to the head are known, and not delivered yet.
    statements: Vec<Verified<Statement>>,
    /// What links lead to from the head that is known.
    below: Vec<Head>,
    /// The checkpoint that it is known to stand on now.
    settled: Option<Head>,
    /// Whether it takes the place of the branch that was known.
    other_branch: bool,
    /// The trust by which it was verified.
    trust: Serial,
}

impl News {
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
        self.statements.is_empty() && self.settled.is_none() && self.below.is_empty()
    }
    /// Whether the log that was known has been left for another branch.
    pub fn is_other_branch(&self) -> bool {
        self.other_branch
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
    /// A checkpoint or a beat decides which branch is the log: it has to be read from a lower serial on.
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
        Self { anchor, trust: None, trust_seen: None, beats: BTreeMap::new(), channels: BTreeMap::new(), signature_checks: 0 }
    }

    /// Takes up the trust that was verified in an earlier life and kept where nobody else writes.
    #[must_use]
    pub fn resume(self, trust: Option<Trust>, seen: Option<Moment>) -> Self {
        Self { trust: trust.map(Arc::new), trust_seen: seen, ..self }
    }

    /// The same for the newest beat of a channel; it is proven anew.
    pub fn resume_beat(&mut self, statement: Statement, seen: Moment) {
        let proven = self.trust().is_some_and(|trust| trust.check(&statement).is_ok());
        self.beats.insert(statement.channel().clone(), SeenBeat { statement, seen, proven });
    }

    /// The same for one channel.
    pub fn resume_channel(&mut self, channel: Channel, known: Known) {
        self.channels.insert(channel, known);
    }

    /// The same, but of all channels only one.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> Self {
        let channels = self.channels.get_key_value(channel).map(|(name, known)| (name.clone(), known.clone())).into_iter().collect();
        Self { channels, anchor: self.anchor.clone(), trust: self.trust.clone(), beats: self.beats.clone(), ..*self }
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
    /// The newest statement of a channel, if the trust in force proves it by its own signatures or as a checkpoint.
    pub fn newest(&self, channel: &Channel) -> Option<Verified<Statement>> {
        let newest = self.known(channel)?.newest.clone()?;
        self.trust()?.verify_run(channel, [newest].into()).ok()?.statements.pop()
    }
    /// The evidence of a fork that nothing has decided.
    pub fn fork(&self, channel: &Channel) -> Option<&Fork> {
        self.known(channel)?.fork.as_ref()
    }
    /// The release that was applied last.
    pub fn applied(&self, channel: &Channel) -> Option<&Statement> {
        self.known(channel)?.applied.as_ref()
    }
    /// Whether the trust in force has a role for the beats of a channel: then nothing is installed from it without one.
    pub fn promises_beats(&self, channel: &Channel) -> bool {
        self.trust().is_some_and(|trust| trust.beat_channel(channel).is_some())
    }

    /// The latest signed time, running on by the monotonic clock since it was seen.
    fn signed_time(&self, now: &Now) -> Timestamp {
        let trust = self.trust().map(|trust| {
            let ran = self.trust_seen.map_or(0, |seen| seen.ran(now));
            trust.statement().time().plus(ran)
        });
        let beats = self.beats.values().filter(|seen| seen.proven).map(|seen| seen.statement.time().plus(seen.seen.ran(now)));
        beats.chain(trust).max().unwrap_or(Timestamp::from_seconds(0))
    }

    /// The time that counts: the latest of the clock, the time of the trust in force and that of the newest beat that is proven,
    /// which run on by the monotonic clock. A clock that is more than a day behind the other two is none.
    pub fn time(&self, now: &Now) -> Timestamp {
        let signed = self.signed_time(now);
        moment::trusted_clock(now, signed).map_or(signed, |clock| clock.max(signed))
    }

    fn moment(&self, now: &Now) -> Moment {
        Moment { time: self.time(now), monotonic: now.monotonic, boot: now.boot }
    }

    /// The next statements of the trust log come into force, one after the other.
    ///
    /// # Errors
    /// If one is not the next, or a threshold is not met: its serial and why. Those before it stay in force.
    pub fn take_trust(&mut self, statements: impl IntoIterator<Item = Statement>, now: &Now) -> Result<(), (Serial, VerifyError)> {
        let before = self.trust().map(Trust::head);
        let taken = statements.into_iter().try_for_each(|statement| {
            let serial = statement.serial();
            self.step(statement).map_err(|error| (serial, error))
        });
        if before != self.trust().map(Trust::head) {
            self.trust_seen = Some(self.moment(now));
            let trust = self.trust.clone();
            for beat in self.beats.values_mut() {
                beat.proven = trust.as_ref().is_some_and(|trust| trust.check(&beat.statement).is_ok());
            }
            let channels: Vec<Channel> = self.channels.keys().cloned().collect();
            channels.iter().for_each(|channel| self.stand(channel));
        }
        taken
    }

    fn step(&mut self, statement: Statement) -> Result<(), VerifyError> {
        if self.trust().map(Trust::head) == Some(statement.head()) {
            return Ok(());
        }
        let mut next = match &self.trust {
            None => Trust::first(&self.anchor, statement)?,
            Some(trust) => trust.succeed(statement)?,
        };
        let settled: Vec<Statement> = self.trust().map_or(Vec::new(), |trust| trust.settled_beats().cloned().collect());
        for beat in settled {
            next.take_settled_beat(beat);
        }
        let by_the_old = self.trust.as_ref().map_or(0, |trust| trust.signature_checks(next.statement()));
        self.signature_checks += (by_the_old + next.signature_checks(next.statement())) as u64;
        self.trust = Some(Arc::new(next));
        Ok(())
    }

    /// Takes a beat that a checkpoint of the trust in force names: its id is the proof.
    pub fn take_settled_beat(&mut self, statement: Statement) -> bool {
        let taken = self.trust.as_mut().is_some_and(|trust| Arc::make_mut(trust).take_settled_beat(statement));
        if taken {
            let channels: Vec<Channel> = self.channels.keys().cloned().collect();
            channels.iter().for_each(|channel| self.stand(channel));
        }
        taken
    }

    /// Notes that the head stands on the checkpoint, where that is seen without reading; what links proved under an earlier trust
    /// is proven below a checkpoint still, and a fork below it is over.
    fn stand(&mut self, channel: &Channel) {
        let Some(trust) = self.trust.clone() else { return };
        let Settled::At(checkpoint) = trust.checkpoint(channel) else { return };
        let on_chain = self.id_at(channel, checkpoint.serial) == Some(checkpoint.id);
        let proven = self.newest(channel).is_some();
        let Some(known) = self.channels.get_mut(channel) else { return };
        if on_chain && proven {
            known.settled = Some(checkpoint);
            let (newest, links) = (known.newest.as_ref().map(Statement::head), &known.links);
            let on_chain = |head: Head| newest == Some(head) || links.contains(&head);
            for kept in &mut known.withdrawals {
                if kept.by.serial() <= checkpoint.serial && kept.linked_under.is_some() && on_chain(kept.by.head()) {
                    kept.linked_under = Some(trust.serial());
                }
            }
        }
        if known.settled == Some(checkpoint) && known.fork.as_ref().is_some_and(|fork| fork.serial() <= checkpoint.serial) {
            known.fork = None;
        }
        let both = |fork: &Fork| fork.is_proven(&trust);
        if known.fork.as_ref().is_some_and(|fork| !both(fork)) && known.settled == Some(checkpoint) {
            known.fork = None;
        }
    }

    /// The id of our chain at a serial, as far as links have led there.
    fn id_at(&self, channel: &Channel, serial: Serial) -> Option<StatementId> {
        let known = self.known(channel)?;
        let newest = known.newest.as_ref()?;
        let all = known.links.iter().copied().chain([newest.head()]).chain(newest.predecessor());
        all.into_iter().find(|head| head.serial == serial).map(|head| head.id)
    }

    /// Whether our head stands on a checkpoint at or above a serial.
    fn is_settled_above(&self, channel: &Channel, serial: Serial) -> bool {
        let Some(trust) = self.trust() else { return false };
        let settled = self.known(channel).and_then(|known| known.settled);
        matches!(trust.checkpoint(channel), Settled::At(head) if head.serial >= serial && settled == Some(head))
    }

    /// The checkpoint that the channel has still to be read from.
    pub fn restart(&self, channel: &Channel) -> Option<Head> {
        let Settled::At(checkpoint) = self.trust()?.checkpoint(channel) else { return None };
        let known = self.known(channel)?;
        (known.newest.is_some() && known.settled != Some(checkpoint)).then_some(checkpoint)
    }

    /// What the live beat names, if links that were read do not lead there from our head: then the branch of that statement is
    /// the log. What a checkpoint has settled no beat decides anew, and what lies below the links that are kept says nothing.
    fn named_elsewhere(&self, channel: &Channel, now: &Now) -> Option<Head> {
        let (named, _) = self.live(channel, now)?;
        let (head, links) = (self.head(channel)?, &self.known(channel)?.links);
        let forgotten = links.len() == CHAIN_LINKS && links.first().is_some_and(|lowest| named.serial < lowest.serial);
        let linked = self.id_at(channel, named.serial) == Some(named.id);
        let settled = self.is_settled_above(channel, named.serial);
        (named.serial <= head.serial && !linked && !forgotten && !settled).then_some(named)
    }

    /// The serial from which a channel has to be read: after the head, after what was delivered, or from where a checkpoint or a
    /// live beat decides for another branch; none if nothing is known of the channel.
    pub fn read_from(&self, channel: &Channel, now: &Now) -> Option<Serial> {
        let head = self.head(channel)?;
        let known = self.known(channel)?;
        let after = |head: Head| head.serial.next().unwrap_or(head.serial);
        let mut from = after(head);
        from = from.min(known.delivered.map_or(Serial::FIRST, after));
        if let Some(checkpoint) = self.restart(channel) {
            from = from.min(checkpoint.serial);
        }
        if let Some(named) = self.named_elsewhere(channel, now) {
            from = from.min(known.links.first().map_or(head.serial, |lowest| lowest.serial)).min(named.serial);
        }
        Some(from)
    }

    /// Proves consecutive statements of a channel, oldest first, all or nothing, and remembers the withdrawals among them.
    ///
    /// # Errors
    /// Which statement is refused, and why.
    pub fn judge(&mut self, channel: &Channel, run: Vec<Statement>) -> Result<Run, Refusal> {
        let trust = self.trust.clone().ok_or(Refusal::NoTrust)?;
        let run = trust.verify_run(channel, run).map_err(|(serial, source)| Refusal::Verify { serial, source })?;
        self.signature_checks += run.signature_checks as u64;
        for by in &run.statements {
            if let Some(new) = Withdrawal::of((**by).clone(), Some(trust.serial())) {
                self.keep_withdrawal(channel, new);
            }
        }
        Ok(run)
    }

    /// One for each release; those of the releases with the highest serials stay.
    fn keep_withdrawal(&mut self, channel: &Channel, new: Withdrawal) {
        let kept: &[Withdrawal] = self.known(channel).map_or(&[], |known| &known.withdrawals);
        let place = |w: &Withdrawal| (w.release.serial, *w.release.id.octets());
        let at = kept.partition_point(|old| place(old) < place(&new));
        let same = kept.get(at).filter(|old| old.release == new.release);
        if same.is_some_and(|old| self.counts(old)) {
            return;
        }
        let replaces = same.is_some();
        let kept = &mut self.channels.entry(channel.clone()).or_default().withdrawals;
        if replaces {
            kept[at] = new;
        } else {
            kept.insert(at, new);
        }
        if kept.len() > WITHDRAWALS {
            kept.remove(0);
        }
    }

    /// What of a proven run is new, and where it belongs. It changes nothing; [`View::note`] does.
    ///
    /// The run begins at [`View::read_from`] or below. It begins later only where nobody who can be asked has anything below: then
    /// `gap` is accepted, as a signed discontinuity.
    ///
    /// # Errors
    /// A fork, or from where the log must be read instead.
    pub fn place(&self, channel: &Channel, run: Run, gap: bool, now: &Now) -> Result<News, Refusal> {
        let trust = self.trust().ok_or(Refusal::NoTrust)?;
        let run = run.statements;
        let checkpoint = match trust.checkpoint(channel) {
            Settled::At(head) => Some(head),
            _ => None,
        };
        let above = |checkpoint: &Head| run.first().is_some_and(|first| first.serial() > checkpoint.serial);
        let reached = |checkpoint: &Head| run.iter().any(|statement| statement.head() == *checkpoint) || gap && above(checkpoint);
        let through = checkpoint.filter(reached);
        let below = match run.iter().position(|statement| Some(statement.head()) == self.head(channel)) {
            Some(at) => run[..at].iter().map(|statement| statement.head()).collect(),
            None => Vec::new(),
        };
        let news = |statements, settled, other_branch| {
            Ok(News { channel: channel.clone(), statements, below: below.clone(), settled, other_branch, trust: trust.serial() })
        };
        let Some(head) = self.head(channel) else {
            return match checkpoint.filter(|checkpoint| through.is_none() && above(checkpoint)) {
                Some(checkpoint) => Err(Refusal::ReadFrom { serial: checkpoint.serial }),
                None => news(run, through, false),
            };
        };
        let first = run.first().map(|first| first.serial());
        let last = run.last().map(|last| last.serial());
        let contradiction = run.iter().position(|statement| self.contradicts(channel, head, statement));
        if let Some(checkpoint) = self.restart(channel) {
            let proven = self.newest(channel).is_some();
            return match through {
                None if above(&checkpoint) => Err(Refusal::ReadFrom { serial: checkpoint.serial.min(head.serial) }),
                // Below the checkpoint the log goes on as ever.
                None if contradiction.is_none() => news(self.undelivered(channel, head, run), None, false),
                None => news(Vec::new(), None, false),
                Some(_) if contradiction.is_none() && last >= Some(head.serial) => {
                    news(self.undelivered(channel, head, run), through, false)
                }
                Some(_) if last >= Some(head.serial) || !proven => news(run, through, true),
                // A broker that is behind says nothing about our head.
                Some(_) => news(Vec::new(), None, false),
            };
        }
        if let Some(named) = self.named_elsewhere(channel, now).filter(|_| below.is_empty() && !run.is_empty()) {
            let lowest = self.known(channel).and_then(|known| known.links.first()).map_or(head.serial, |lowest| lowest.serial);
            let lowest = checkpoint.map_or(lowest, |checkpoint| lowest.min(checkpoint.serial)).min(named.serial);
            if !gap && first > Some(lowest) {
                return Err(Refusal::ReadFrom { serial: lowest });
            }
            if run.iter().any(|statement| statement.head() == named) {
                return news(run, through, true);
            }
        }
        let Some(at) = contradiction else {
            return news(self.undelivered(channel, head, run), through, false);
        };
        if self.is_settled_above(channel, run[at].serial()) {
            return news(Vec::new(), None, false);
        }
        match self.known(channel).and_then(|known| known.newest.as_ref()) {
            Some(newest) => Err(Refusal::Fork(Box::new(Fork::new(trust, newest, &run[at..])))),
            None => news(Vec::new(), None, false),
        }
    }

    fn contradicts(&self, channel: &Channel, head: Head, statement: &Statement) -> bool {
        let other = |there: Head| self.id_at(channel, there.serial).is_some_and(|id| id != there.id);
        log::place(Some(head), statement) == Place::Fork || other(statement.head())
    }

    /// What lies above what was delivered; all of it is above the head, or on our chain.
    fn undelivered(&self, channel: &Channel, head: Head, mut run: Vec<Verified<Statement>>) -> Vec<Verified<Statement>> {
        let delivered = self.known(channel).and_then(|known| known.delivered);
        if run.last().is_some_and(|last| last.serial() < head.serial) {
            // A broker that is behind (attack 24).
            return Vec::new();
        }
        run.retain(|statement| delivered.is_none_or(|delivered| statement.serial() > delivered.serial.min(head.serial)));
        run
    }

    /// Takes note of news: the head moves to the last, and whatever was decided is decided.
    pub fn note(&mut self, news: &News, now: &Now) {
        let in_force = self.trust().map(Trust::serial) == Some(news.trust);
        let known = self.channels.entry(news.channel.clone()).or_default();
        let joins = news.statements.first().and_then(|first| first.predecessor());
        if known.newest.is_none() {
            // Where a device begins, what lies below is delivered as far as it is concerned.
            known.delivered = known.delivered.or(joins);
        }
        if news.other_branch {
            // The chain goes on where the branches part; what was delivered of ours above is no step of the other.
            let shared = |head: &Head| news.statements.iter().any(|s| s.head() == *head) || joins == Some(*head);
            let parted = known.links.iter().rposition(shared);
            known.links.truncate(parted.map_or(0, |at| at + 1));
            known.delivered = known.delivered.filter(|delivered| known.links.contains(delivered)).or(known.links.last().copied());
            known.fork = None;
            known.newest = None;
        }
        for statement in &news.statements {
            let above = known.newest.as_ref().is_none_or(|newest| statement.serial() > newest.serial());
            if !above {
                continue;
            }
            if let Some(newest) = known.newest.replace((**statement).clone()) {
                if statement.predecessor() == Some(newest.head()) {
                    if known.links.last().is_none_or(|last| last.serial < newest.serial()) {
                        known.links.push(newest.head());
                    }
                } else {
                    known.links.clear();
                    known.settled = None;
                }
            }
        }
        if !news.other_branch {
            let lowest = known.links.first().copied();
            let lower = news.below.iter().filter(|head| lowest.is_none_or(|lowest| head.serial < lowest.serial)).copied();
            known.links.splice(0..0, lower);
        }
        let surplus = known.links.len().saturating_sub(CHAIN_LINKS);
        known.links.drain(..surplus);
        if news.settled.is_some() && in_force {
            known.settled = news.settled;
        }
        self.stand(&news.channel);
        self.settle_forks(now);
    }

    /// Takes note that the application has dealt with everything up to a statement of a channel.
    pub fn note_delivered(&mut self, channel: &Channel, head: Head) {
        self.channels.entry(channel.clone()).or_default().delivered = Some(head);
    }

    /// Keeps the evidence of a fork, unless the live beat has decided already (attack 28).
    pub fn note_fork(&mut self, fork: Fork, now: &Now) {
        let channel = fork.ours.channel().clone();
        self.channels.entry(channel).or_default().fork.get_or_insert(fork);
        self.settle_forks(now);
    }

    /// A fork is over when the live beat names a statement of our chain at its place or above.
    fn settle_forks(&mut self, now: &Now) {
        let over = |channel: &Channel| {
            let at = self.fork(channel)?.serial();
            let (named, _) = self.live(channel, now)?;
            (named.serial >= at && self.id_at(channel, named.serial) == Some(named.id)).then(|| channel.clone())
        };
        let over: Vec<Channel> = self.channels.keys().filter_map(over).collect();
        for channel in over {
            if let Some(known) = self.channels.get_mut(&channel) {
                known.fork = None;
            }
        }
    }

    /// Takes note of a release that was applied.
    pub fn note_applied(&mut self, statement: &Verified<Statement>) {
        self.channels.entry(statement.channel().clone()).or_default().applied = Some((**statement).clone());
    }
}
