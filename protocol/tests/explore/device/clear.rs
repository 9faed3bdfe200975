//! What may be applied.

use super::{Device, Freshness};
use crate::{
    facts::{Id, Kind, Moment, NONE, Serial},
    rules::{Rule, Setting},
};

impl Device {
    /// S9: the release to run, if there is one, with the log at hand from a serial on.
    pub(crate) fn clear(
        &self,
        s: &Setting,
        channel: usize,
        from: Serial,
        now: Moment,
    ) -> Option<Id> {
        let (known, trust) = (&self.channels[channel], s.book.trust(self.trust));
        let closed = trust.closed[channel] && s.has(Rule::Closed);
        self.checkpoint(s, channel)?;
        if known.head == NONE || closed || self.time(s, now) >= trust.expires {
            return None;
        }
        let covered = if trust.has_beats() {
            if s.has(Rule::CurrentOnly) && self.freshness(s, channel, now) != Freshness::Current {
                return None;
            }
            if s.has(Rule::Covered) {
                self.named(s, channel)?
            } else {
                known.head
            }
        } else {
            let undecided = known.evidence != [NONE; 2] && s.has(Rule::EvidenceStops);
            if undecided
                || self.restart(s, channel).is_some() && s.has(Rule::RestartInstallsNothing)
            {
                return None;
            }
            known.head
        };
        let at_hand = s.book.run(known.head, from);
        self.judge(s, channel, &at_hand).ok()?;
        let runs = |id: Id| {
            let statement = s.book.get(id);
            let Kind::Release {
                not_before,
                matches,
                ..
            } = statement.kind
            else {
                return false;
            };
            let due = !s.has(Rule::DueOnly) || not_before <= self.time(s, now);
            matches && due
        };
        let applied = self.applied(s, channel, &at_hand);
        let mut below = s.book.get(covered).serial;
        loop {
            let candidate = *at_hand
                .iter()
                .rev()
                .find(|id| s.book.get(**id).serial <= below && runs(**id))?;
            let statement = s.book.get(candidate);
            let Kind::Release {
                barrier,
                not_before,
                critical,
                ..
            } = statement.kind
            else {
                return None;
            };
            if self.withdrawn(s, channel, candidate, &at_hand) {
                if s.has(Rule::NoneIfWithdrawn) {
                    return None;
                }
                below = statement.serial - 1;
                continue;
            }
            if critical && s.has(Rule::NoneIfCritical) || not_before > self.time(s, now) {
                return None;
            }
            if s.has(Rule::BarrierFirst) && applied < barrier {
                // The release at the barrier, by the same rule: that serial and no other.
                let at = s.book.at(known.head, barrier);
                if !at_hand.contains(&at) || !runs(at) {
                    return None;
                }
                below = barrier;
                continue;
            }
            return (statement.serial >= applied || !s.has(Rule::NotBelowApplied))
                .then_some(candidate);
        }
    }

    /// S9: what was begun may be finished while the channel is as it must be and nothing withdraws
    /// it.
    pub(crate) fn may_finish(&self, s: &Setting, channel: usize, id: Id, now: Moment) -> bool {
        let at_hand = s
            .book
            .run(self.channels[channel].head, s.book.get(id).serial);
        let current =
            !self.trust(s).has_beats() || self.freshness(s, channel, now) == Freshness::Current;
        current && at_hand.contains(&id) && !self.withdrawn(s, channel, id, &at_hand)
    }

    /// S3: whether a withdrawal counts against a release: one of the log at hand, or one that is
    /// kept while it is proven.
    fn withdrawn(&self, s: &Setting, channel: usize, release: Id, at_hand: &[Id]) -> bool {
        let trust = self.trust(s);
        let proven = |id: &Id| s.has(Rule::WithdrawalStays) || trust.meets(&s.book.get(*id));
        let kept = self.channels[channel];
        let against = |id: Id| match s.book.get(id).kind {
            Kind::Withdraw { release: named } if s.has(Rule::WithdrawalById) => named == release,
            Kind::Withdraw { release: named } => {
                s.book.get(named).serial == s.book.get(release).serial
            }
            _ => false,
        };
        at_hand
            .iter()
            .copied()
            .chain(kept.kept().filter(proven))
            .any(against)
    }

    /// S9: the serial of the release applied last, while it is proven.
    pub(crate) fn applied(&self, s: &Setting, channel: usize, at_hand: &[Id]) -> Serial {
        let applied = self.channels[channel].applied;
        let statement = s.book.get(applied);
        let proven = at_hand.contains(&applied)
            || self.trust(s).meets(&statement)
            || self.checkpoint(s, channel) == Some(applied)
            || !s.has(Rule::AppliedProven);
        if applied != NONE && proven {
            statement.serial
        } else {
            0
        }
    }
}
