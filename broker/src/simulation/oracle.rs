//! What is true: the one order of each channel, what publishers were told, and what each player may
//! and may not do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidings_client::{Freshness, simulated};
use tidings_protocol::{
    Channel, Head, Serial, Statement, StatementId, View, statement::Body, trust::Trust, view::Now,
};

use super::brokers::{BEAT_LIFE, Broker, Life};
use crate::log::logs::Log;

/// How much later than the end of the beat's life something may still be held back: what clocks
/// round, and how often everything is looked at.
const ROUNDED: u64 = 3;

/// How much has happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) stored: usize,
    pub(super) copied: usize,
    pub(super) acknowledged: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
    pub(super) crashes: usize,
    pub(super) restarts: usize,
    pub(super) polls: usize,
    pub(super) watches: usize,
    /// What watches have brought.
    pub(super) told: usize,
    pub(super) failed_polls: usize,
    pub(super) delivered: usize,
    pub(super) applied: usize,
    pub(super) not_now: usize,
    pub(super) current: usize,
    pub(super) lies: usize,
    /// What retention has removed, as far as it was looked at.
    pub(super) removed: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.stored += other.stored;
        self.copied += other.copied;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.polls += other.polls;
        self.watches += other.watches;
        self.told += other.told;
        self.failed_polls += other.failed_polls;
        self.delivered += other.delivered;
        self.applied += other.applied;
        self.not_now += other.not_now;
        self.current += other.current;
        self.lies += other.lies;
        self.removed += other.removed;
    }
}

/// A statement that some broker has shown.
struct Shown {
    statement: Statement,
    /// When it was seen first.
    at: Duration,
}

#[derive(Default)]
struct Known {
    logs: BTreeMap<Channel, BTreeMap<u32, Shown>>,
    /// What honest players have signed, with their signatures.
    signed: BTreeSet<StatementId>,
    acknowledged: Vec<(Channel, Head)>,
    /// What players say is somewhere, and no broker was seen to show yet.
    claims: Vec<(String, Channel, Head)>,
    trusts: BTreeMap<Serial, Trust>,
    view: Option<View>,
    /// By which statement a release is withdrawn.
    withdrawn: BTreeMap<(Channel, u32), u32>,
    failure: Option<String>,
    counts: Counts,
    digest: u64,
}

pub(super) struct Oracle(Mutex<Known>);

/// What is known of a device beside what it knows itself.
#[derive(Default)]
pub(super) struct Followed {
    pub(super) delivered: BTreeMap<Channel, u32>,
    pub(super) applied: BTreeMap<Channel, u32>,
    /// How many seconds its clock has been behind at most.
    pub(super) behind: u64,
    /// It has begun with the newest, or brokers do not keep all: then it may go back to what a live
    /// beat names below what it has, and what is new is delivered at least once (2-15, 2-18).
    pub(super) may_go_back: bool,
}

fn elapsed() -> Duration {
    simulated::elapsed().unwrap_or_default()
}

impl Oracle {
    pub(super) fn new(view: View) -> Self {
        Self(Mutex::new(Known {
            view: Some(view),
            digest: 0xcbf2_9ce4_8422_2325,
            ..Known::default()
        }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first thing that is wrong is what is reported.
    pub(super) fn fail(&self, why: String) {
        self.known().fail(why);
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.known().failure.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        self.known().counts
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.known().counts);
    }

    /// Everything so far in one number.
    pub(super) fn digest(&self) -> u64 {
        self.known().digest
    }

    /// Something happens.
    pub(super) fn note(&self, what: &str, number: usize) {
        self.known().note(what, number as u64);
    }

    /// A statement is to be published.
    pub(super) fn note_signed(&self, statement: &Statement) {
        self.known().signed.insert(statement.id());
    }

    /// Its publisher was told that it is stored: then it is visible, and stays.
    pub(super) fn note_acknowledged(&self, statement: &Statement) {
        let mut known = self.known();
        let (channel, head) = (statement.channel().clone(), statement.head());
        known.counts.acknowledged += 1;
        known.note("acknowledged", head.serial.number().into());
        known.claim(|| "a publisher was told of".into(), &channel, head);
        known.acknowledged.push((channel, head));
    }

    /// Looks at all that a broker shows which it has not shown before in this life.
    pub(super) fn look(&self, index: usize, is_origin: bool, broker: &mut Broker) {
        let Some(life) = broker.life.clone() else {
            return;
        };
        broker.looks += 1;
        let mut known = self.known();
        let mut logs = life.shared.logs.all();
        logs.sort_by_key(|log| !log.channel.is_trust());
        for log in logs {
            let (channel, marks) = (&log.channel, log.marks());
            let trust = life.shared.namespaces.trust(channel);
            let seen = (marks, trust.map(|trust| trust.serial()));
            let is_known = broker.seen.insert(channel.clone(), seen) == Some(seen);
            if is_known && !broker.looks.is_multiple_of(8) {
                continue;
            }
            let head = marks.head.serial.number();
            known.look_below(index, is_origin, broker.kept, &life, &log);
            let before = broker.checked.get(channel).copied().unwrap_or(0);
            if head < before {
                known.fail(format!("broker {index}: {channel} has gone back to {head}"));
            }
            if head == before {
                continue;
            }
            for number in (before + 1).max(marks.low.number())..=head {
                known.look_at(index, is_origin, &life, channel, number);
            }
            let head = marks.head;
            if known.id(channel, head.serial.number()) != Some(head.id) {
                known.fail(format!("broker {index}: {channel} has another head"));
            }
            broker.checked.insert(channel.clone(), head.serial.number());
        }
    }

    /// Whatever anybody has seen, or was told of, is at the origin for good.
    pub(super) fn look_for_losses(&self, life: &Life) {
        let mut known = self.known();
        let mut lost = None;
        for (channel, log) in &known.logs {
            let there = life.shared.logs.get(channel.as_str());
            let there = there.map_or(0, |log| log.marks().head.serial.number());
            if log.keys().next_back().is_some_and(|last| *last > there) {
                lost = Some(format!(
                    "{channel}: the origin has lost what lies above {there}"
                ));
            }
        }
        for (channel, head) in &known.acknowledged {
            if known.id(channel, head.serial.number()) != Some(head.id) {
                lost = Some(format!("{channel} {head} is acknowledged, and not there"));
            }
        }
        lost.into_iter().for_each(|why| known.fail(why));
    }

    /// At the end everything that was said to be somewhere is there.
    pub(super) fn look_at_claims(&self) {
        let mut known = self.known();
        if let Some((who, channel, head)) = known.claims.pop() {
            known.fail(format!("{who} {channel} {head}, which was never published"));
        }
    }

    /// Judges what a device says of a channel.
    pub(super) fn judge(
        &self,
        device: usize,
        followed: &Followed,
        channel: &Channel,
        head: Option<Head>,
        freshness: Freshness,
    ) {
        let mut known = self.known();
        let serial = head.map_or(0, |head| head.serial.number());
        if let Some(head) = head {
            known.claim(|| format!("device {device} knows"), channel, head);
        }
        if !freshness.is_current() {
            return;
        }
        known.counts.current += 1;
        let next = known
            .logs
            .get(channel)
            .and_then(|log| log.get(&(serial + 1)));
        let allowed = Duration::from_secs(BEAT_LIFE + ROUNDED + followed.behind);
        if let Some(next) = next.filter(|next| elapsed() > next.at + allowed) {
            let since = (elapsed() - next.at).as_secs();
            known.fail(format!(
                "device {device} says {freshness} of {channel}, and {} was held back for {since} s",
                serial + 1
            ));
        }
    }

    /// A device was given something new.
    pub(super) fn note_delivered(
        &self,
        device: usize,
        followed: &mut Followed,
        statement: &Statement,
    ) {
        let mut known = self.known();
        let (channel, serial) = (statement.channel(), statement.serial().number());
        known.counts.delivered += 1;
        known.note("delivered", serial.into());
        let who = || format!("device {device} was given");
        known.claim(who, channel, statement.head());
        let before = followed.delivered.insert(channel.clone(), serial);
        if before.is_some_and(|before| before >= serial) && !followed.may_go_back {
            known.fail(format!(
                "device {device}: {channel} {serial} is delivered after {before:?}"
            ));
        }
    }

    /// A device applies a release at this moment.
    pub(super) fn note_applied(
        &self,
        device: usize,
        followed: &mut Followed,
        head: Option<Head>,
        statement: &Statement,
    ) {
        let mut known = self.known();
        let (channel, serial) = (statement.channel(), statement.serial().number());
        known.counts.applied += 1;
        known.note("applied", serial.into());
        let wrong = |what: String| format!("device {device} applies {channel} {serial} {what}");
        let who = || format!("device {device} applies");
        known.claim(who, channel, statement.head());
        if !matches!(statement.body(), Body::Release(_)) {
            known.fail(wrong("which is no release".into()));
        }
        let before = followed.applied.insert(channel.clone(), serial);
        if before.is_some_and(|before| before > serial) {
            known.fail(wrong(format!("after {before:?}")));
        }
        let by = known.withdrawn.get(&(channel.clone(), serial)).copied();
        let Some(by) = by else { return };
        let allowed = Duration::from_secs(BEAT_LIFE + ROUNDED + followed.behind);
        let seen = known.logs[channel][&by].at;
        if head.is_some_and(|head| head.serial.number() >= by) || elapsed() > seen + allowed {
            known.fail(wrong(format!("which {by} has withdrawn")));
        }
    }

    /// The heads of all channels, and the number of the newest trust.
    pub(super) fn heads(&self) -> BTreeMap<Channel, u32> {
        let known = self.known();
        let last = |(channel, log): (&Channel, &BTreeMap<u32, Shown>)| {
            Some((channel.clone(), *log.keys().next_back()?))
        };
        known.logs.iter().filter_map(last).collect()
    }

    /// All that was ever shown, as a mirror that lies finds it.
    pub(super) fn copy(&self) -> BTreeMap<Channel, BTreeMap<u32, Statement>> {
        let known = self.known();
        let log = |log: &BTreeMap<u32, Shown>| {
            let all = log.iter();
            all.map(|(serial, shown)| (*serial, shown.statement.clone()))
                .collect()
        };
        let logs = known.logs.iter();
        logs.map(|(channel, one)| (channel.clone(), log(one)))
            .collect()
    }
}

impl Known {
    fn fail(&mut self, why: String) {
        tracing::debug!(why, "wrong");
        self.failure.get_or_insert(why);
    }

    fn note(&mut self, what: &str, number: u64) {
        tracing::debug!(number, "{what}");
        let time = u64::try_from(elapsed().as_millis()).unwrap();
        let words = what.bytes().map(u64::from).chain([time, number]);
        for word in words {
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Somebody says that a statement is what stands in its place.
    fn claim(&mut self, who: impl Fn() -> String, channel: &Channel, head: Head) {
        match self.id(channel, head.serial.number()) {
            Some(id) if id == head.id => {}
            Some(_) => self.fail(format!("{} another {channel} {head}", who())),
            None if self.claims.iter().any(|claim| claim.2 == head) => {}
            None => self.claims.push((who(), channel.clone(), head)),
        }
    }

    fn id(&self, channel: &Channel, serial: u32) -> Option<StatementId> {
        Some(self.logs.get(channel)?.get(&serial)?.statement.id())
    }

    /// Retention removes from below, and never what the operator keeps, nor trust, nor what the
    /// trust in force names (4-19).
    fn look_below(
        &mut self,
        index: usize,
        is_origin: bool,
        kept: Option<u32>,
        life: &Life,
        log: &Arc<Log>,
    ) {
        let (channel, marks) = (&log.channel, log.marks());
        let (low, head) = (marks.low.number(), marks.head.serial.number());
        let place = format!("broker {index}: {channel} {low} to {head}");
        let is_there = |serial| matches!(life.shared.store.get(channel, serial), Ok(Some(_)));
        if !is_there(marks.low) {
            self.fail(format!("{place}: the lowest cannot be read"));
        }
        if low == 1 {
            return;
        }
        self.counts.removed += 1;
        // What a mirror has begins where that of its upstream does, at most; of beats the newest is
        // enough.
        let is_enough =
            kept.is_some_and(|kept| low + kept <= head + 1) || !is_origin || channel.is_beat();
        if channel.is_trust() || low > head || !is_enough {
            self.fail(format!("{place}: too much is removed, {kept:?} are kept"));
        }
        let trust = life.shared.namespaces.trust(channel);
        let named = trust.and_then(|trust| match channel.is_beat() {
            true => trust.named_beat(channel),
            false => trust.checkpoint(channel).head(),
        });
        let lacks = |named: &Head| !matches!(log.entry(named.serial), Ok(Some(_)));
        if let Some(named) = named.filter(|named| is_origin && lacks(named)) {
            self.fail(format!("{place}: {named}, which trust names, is removed"));
        }
    }

    /// What one broker has in one place: what all others have there, signed by those who may.
    fn look_at(
        &mut self,
        index: usize,
        is_origin: bool,
        life: &Life,
        channel: &Channel,
        number: u32,
    ) {
        let place = format!("broker {index}: {channel} {number}");
        let serial = Serial::new(number).unwrap();
        let found = life.shared.store.get(channel, serial);
        let Ok(Some(record)) = found else {
            return self.fail(format!("{place} is shown, and cannot be read"));
        };
        let statement = record.statement;
        match is_origin {
            true => self.counts.stored += 1,
            false => self.counts.copied += 1,
        }
        self.note("shown", (index as u64) << 32 | u64::from(number));
        match self.id(channel, number) {
            Some(id) if id == statement.id() => {}
            Some(_) => self.fail(format!("{place} is another statement than elsewhere")),
            None => self.add(&place, channel, statement.clone()),
        }
        // What lies below a head is proven by its links, and what a checkpoint names by that,
        // whatever its own signatures are (2-6).
        let head = life.shared.logs.get(channel.as_str());
        let is_head = head.is_some_and(|log| log.marks().head.serial == serial);
        let mut all = self.trusts.values();
        let is_settled =
            all.any(|trust| trust.checkpoint(channel).head() == Some(statement.head()));
        if !is_origin && (!is_head || is_settled) {
            return;
        }
        if let Err(why) = self.verify(&statement) {
            self.fail(format!("{place} is stored, and does not verify: {why}"));
        }
    }

    /// Something is seen for the first time.
    fn add(&mut self, place: &str, channel: &Channel, statement: Statement) {
        let is_signed = self.signed.contains(&statement.id()) || channel.is_beat();
        if !is_signed {
            self.fail(format!("{place} is stored, and nobody has published it"));
        }
        if channel.is_trust()
            && let Some(view) = &mut self.view
        {
            let now = Now::at(statement.time());
            if let Err((_, why)) = view.take_trust([statement.clone()], &now) {
                self.failure.get_or_insert(format!("{place}: {why}"));
            } else if let Some(trust) = view.trust() {
                self.trusts.insert(trust.serial(), trust.clone());
            }
        }
        let (head, number) = (statement.head(), statement.serial().number());
        let is_here = |claim: &(String, Channel, Head)| claim.1 == *channel && claim.2 == head;
        self.claims.retain(|claim| !is_here(claim));
        if let Some((who, ..)) = self
            .claims
            .iter()
            .find(|claim| claim.1 == *channel && claim.2.serial == head.serial)
        {
            let why = format!("{who} another {channel} {number} than {place}");
            self.failure.get_or_insert(why);
        }
        if let Body::Withdraw(withdraw) = statement.body() {
            let release = withdraw.withdraws.serial.number();
            self.withdrawn.insert((channel.clone(), release), number);
        }
        let shown = Shown {
            statement,
            at: elapsed(),
        };
        let log = self.logs.entry(channel.clone()).or_default();
        log.insert(number, shown);
    }

    fn verify(&self, statement: &Statement) -> Result<(), String> {
        let Some(named) = statement.trust() else {
            return Ok(());
        };
        let trust = self.trusts.get(&named).ok_or("no such trust")?;
        trust.check(statement).map_err(|error| error.to_string())
    }
}
