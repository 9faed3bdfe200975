//! Whether anything is held back: what a live beat says beside what is known (spec section 5.5).

use alloc::vec::Vec;
use core::fmt;

use super::View;
use crate::{
    Channel, Head, Statement, Timestamp, Verified,
    limits::BEAT_LIFE_SECONDS,
    statement::{Beat, Body},
};

/// What a device can say of a channel at a time; the four words of [5.5-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// A live beat names the head, or the last but one, which it came after: nothing is held back.
    Current {
        /// Until when that is so without a further beat.
        until: Timestamp,
    },
    /// A beat names something later, of this channel or of the trust log.
    Behind {
        /// What it names.
        head: Head,
    },
    /// No live beat speaks for the channel: somebody, or the network, may be holding news back.
    Stale {
        /// When the last beat that did ended, if there was one.
        since: Option<Timestamp>,
    },
    /// Two statements were signed for one place, or a beat names another statement at the head's place.
    Forked,
}

impl Freshness {
    /// The word alone.
    pub fn as_str(self) -> &'static str {
        match self {
            Freshness::Current { .. } => "CURRENT",
            Freshness::Behind { .. } => "BEHIND",
            Freshness::Stale { .. } => "STALE",
            Freshness::Forked => "FORKED",
        }
    }
    /// Whether a live beat names the head.
    pub fn is_current(self) -> bool {
        matches!(self, Freshness::Current { .. })
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Freshness::Current { until } => write!(f, " until {until}"),
            Freshness::Behind { head } => write!(f, ": there is {}", head.serial),
            Freshness::Stale { since: Some(since) } => write!(f, " since {since}"),
            Freshness::Stale { since: None } => f.write_str(": no beat speaks for it"),
            Freshness::Forked => Ok(()),
        }
    }
}

fn said(statement: &Verified<Statement>) -> Option<&Beat> {
    match statement.body() {
        Body::Beat(beat) => Some(beat),
        _ => None,
    }
}

impl View {
    /// [5.5-2]: judges the newest statement of a beat channel. Only the newest of these counts; what lies between is not
    /// asked for, and an older one than is known has no effect (attack 25); one by a key that was taken away is not known.
    ///
    /// # Errors
    /// As [`View::examine`].
    pub fn take_beat(&mut self, statement: Statement) -> Result<(), super::Refusal> {
        let serial = statement.serial();
        let trust = self.trust().ok_or(super::Refusal::NoTrust)?;
        let (under, signature_checks) = (Some(trust.serial()), trust.signature_checks(&statement));
        let refused = |source| super::Refusal::Verify { serial, source };
        let beat = trust.verify(statement).map_err(refused)?;
        if let Some(field) = beat.unknown_critical() {
            return Err(refused(crate::verify::VerifyError::Critical(field.into())));
        }
        let channel = beat.channel().clone();
        if channel.is_beat() && self.newest(&channel).is_none_or(|known| known.serial() < serial) {
            let named: Vec<Channel> = said(&beat).into_iter().flat_map(|beat| beat.heads.iter().map(|(named, _)| named.clone())).collect();
            self.note(&super::News::only(beat, under, signature_checks));
            if channel == self.anchor().namespace.beat() {
                // Shards that it does not name any more are of no use: nobody makes us keep ever more of them.
                self.channels.retain(|known, _| !known.is_beat() || *known == channel || named.contains(known));
                // [5.5-4]: what is known now must be named by the beat after the next at the latest.
                for entry in self.channels.values_mut() {
                    let head = entry.known.newest.as_ref().map(Statement::serial);
                    entry.known.due = (entry.known.due.1, head);
                }
            }
        }
        Ok(())
    }

    /// The namespace's beat, if the trust in force proves it.
    fn beat(&self) -> Option<(&Verified<Statement>, &Beat)> {
        let statement = self.newest(&self.anchor().namespace.beat())?;
        Some((statement, said(statement)?))
    }

    /// The shard that has to be read before anything can be said about a channel, if it is not known yet.
    pub fn missing_shard(&self, channel: &Channel) -> Option<(Channel, Head)> {
        let (_, beat) = self.beat()?;
        if beat.head(channel).is_some() {
            return None;
        }
        let (shard, head) = beat.shard(channel)?;
        (self.head(shard) != Some(head)).then(|| (shard.clone(), head))
    }

    /// [5.5-3]: takes a shard that the namespace's beat names; its id is the proof, so that a later one is not taken.
    pub fn take_shard(&mut self, statement: Statement) {
        let channel = statement.channel().clone();
        let (named, under) = (self.beat().and_then(|(_, beat)| beat.head(&channel)), self.trust().map(crate::trust::Trust::serial));
        if channel.is_beat() && named == Some(statement.head()) && statement.unknown_critical().is_none() {
            self.note(&super::News::only(Verified::new(statement), under, 0));
        }
    }

    /// The head that beats name for a channel.
    pub(super) fn named(&self, channel: &Channel) -> Option<Head> {
        let (_, beat) = self.beat()?;
        beat.head(channel).or_else(|| {
            let (shard, head) = beat.shard(channel)?;
            said(self.newest(shard).filter(|statement| statement.head() == head)?)?.head(channel)
        })
    }

    /// When the namespace's beat ends: at its `Expires`, and after a day at the latest.
    fn beat_ends(&self) -> Option<Timestamp> {
        let (statement, beat) = self.beat()?;
        Some(beat.expires.min(statement.time().plus(BEAT_LIFE_SECONDS)))
    }

    /// Whether the trust in force has a role for the namespace's beat: then nothing is installed without one (5.6-4).
    pub fn promises_beats(&self) -> bool {
        let beat = self.anchor().namespace.beat();
        self.trust().is_some_and(|trust| trust.role(crate::statement::Kind::Beat, &beat).is_some())
    }

    /// [5.1-3]: the time that counts: the later one of the clock and the floor.
    pub fn time(&self, clock: Timestamp) -> Timestamp {
        clock.max(self.floor())
    }

    /// [5.5-1]: the state of a channel when the clock shows this.
    pub fn freshness(&self, channel: &Channel, clock: Timestamp) -> Freshness {
        if self.fork(channel).is_some() {
            return Freshness::Forked;
        }
        let trust_log = self.anchor().namespace.trust_log();
        let trust = self.trust().map(crate::trust::Trust::head);
        for (named, ours) in [(self.named(&trust_log), trust), (self.named(channel), self.head(channel))] {
            match (named, ours) {
                (Some(head), None) => return Freshness::Behind { head },
                (Some(head), Some(ours)) if head.serial > ours.serial => return Freshness::Behind { head },
                (Some(head), Some(ours)) if head.serial == ours.serial && head.id != ours.id => return Freshness::Forked,
                _ => {}
            }
        }
        let named = self.named(channel);
        let before = self.known(channel).and_then(|known| known.newest.as_ref()?.predecessor());
        if named.zip(before).is_some_and(|(named, before)| named.serial == before.serial && named.id != before.id) {
            return Freshness::Forked;
        }
        // A beat that is silent about trust proves nothing about who may sign.
        let until = self.beat_ends().filter(|_| self.named(&trust_log).is_some());
        let live = until.filter(|until| self.time(clock) < *until);
        let due = self.known(channel).and_then(|known| known.due.0);
        match (live, named) {
            // What beats do not name in time is not on the log that they speak of, and what is not known to stand on a
            // checkpoint is not known to be on it.
            (Some(until), Some(named)) if self.doubt(channel).is_none() && Some(named.serial) >= due => Freshness::Current { until },
            (None, Some(_)) => Freshness::Stale { since: until },
            _ => Freshness::Stale { since: None },
        }
    }
}
