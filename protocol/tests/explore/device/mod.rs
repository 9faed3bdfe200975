//! The device: one struct, and the four functions of part 2 of the specification: `judge`, `place`,
//! `freshness` and `clear`. Everything else here only feeds them.

mod clear;

use crate::{
    facts::{CHANNELS, FUTURE, Id, Ids, Kind, LIFE, Moment, NONE, Serial, Trust, TrustNo},
    rules::{Rule, Setting},
};

/// What is known of one channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Known {
    /// The newest statement.
    pub(crate) head: Id,
    /// The lowest serial down to which the links below the head were read and are kept.
    pub(crate) low: Serial,
    /// The checkpoint through which the head was reached.
    pub(crate) standing: Id,
    /// Two statements for one place, ours and theirs, of which nothing has decided.
    pub(crate) evidence: [Id; 2],
    /// Withdrawals that were met, each proven by its own signatures when it was: those of releases
    /// that had been read, and of others, so that inventions push out no others than such.
    pub(crate) withdrawals: Ids,
    pub(crate) unread: Ids,
    /// The release that was applied last.
    pub(crate) applied: Id,
}

impl Known {
    /// S3: those of the releases with the highest serials.
    pub(crate) fn keep(&mut self, s: &Setting, id: Id, run: &[Id]) {
        let Kind::Withdraw { release } = s.book.get(id).kind else {
            return;
        };
        let serial = |id: &Id| match s.book.get(*id).kind {
            Kind::Withdraw { release } => s.book.get(release).serial,
            _ => 0,
        };
        let read = run.contains(&release)
            || serial(&id) >= self.low && s.book.at(self.head, serial(&id)) == release;
        if self.withdrawals.contains(id) {
            return;
        }
        let kept = if read || !s.has(Rule::KeepsWhatWasRead) {
            &mut self.withdrawals
        } else {
            &mut self.unread
        };
        let mut all: Vec<Id> = kept.iter().chain([id]).collect();
        all.sort_by_key(|id| (std::cmp::Reverse(serial(id)), *id));
        *kept = all.into_iter().take(s.kept).collect();
        if read {
            self.unread.retain(|other| other != id);
        }
    }
    pub(crate) fn kept(&self) -> impl Iterator<Item = Id> + '_ {
        self.withdrawals.iter().chain(self.unread.iter())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Device {
    /// The trust in force, what time it was by then, and when it was seen first since the machine
    /// started.
    pub(crate) trust: TrustNo,
    pub(crate) trust_time: Moment,
    pub(crate) trust_seen: Moment,
    /// The newest proven beat, what time it was by then, when it was seen first since the machine
    /// started, and whether it came since then.
    pub(crate) beat: Id,
    pub(crate) beat_time: Moment,
    pub(crate) beat_seen: Moment,
    pub(crate) beat_came: bool,
    /// The beat that the trust's checkpoint names is at hand.
    pub(crate) settling: bool,
    pub(crate) channels: [Known; CHANNELS],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    Link,
    Checkpoint,
    NewerTrust,
    Closed,
    Threshold,
    BeatFuture,
    Channel,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It follows: the head moves.
    Append,
    /// The broker has less than is needed.
    Behind,
    /// It must be read from there.
    ReadFrom(Serial),
    /// It takes the place of ours.
    Replace,
    /// It contradicts ours, and nothing has decided yet.
    Fork(Id),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freshness {
    Forked,
    Behind,
    Current,
    Stale,
}

impl Device {
    // ---- the four functions
    // -------------------------------------------------------------------------------------

    /// Whether a run, oldest first, is proven: from the newest down.
    pub(crate) fn judge(&self, s: &Setting, channel: usize, run: &[Id]) -> Result<(), Refusal> {
        let trust = s.book.trust(self.trust);
        let checkpoint = self.checkpoint(s, channel).ok_or(Refusal::Checkpoint)?;
        let settled = s.book.get(checkpoint);
        if trust.closed[channel] && s.has(Rule::Closed) {
            return Err(Refusal::Closed);
        }
        let mut proven = false;
        for (above, id) in run.iter().rev().enumerate() {
            let statement = s.book.get(*id);
            if statement.channel != channel {
                return Err(Refusal::Channel);
            }
            if above > 0 && s.book.get(run[run.len() - above]).parent != *id {
                return Err(Refusal::Link);
            }
            if checkpoint != NONE && s.has(Rule::CheckpointSettles) {
                let other = statement.serial == settled.serial && *id != checkpoint;
                let after_other =
                    statement.serial == settled.serial + 1 && statement.parent != checkpoint;
                if other || after_other {
                    return Err(Refusal::Checkpoint);
                }
            }
            if statement.under > trust.serial {
                return Err(Refusal::NewerTrust);
            }
            let own = trust.meets(&statement) || !s.has(Rule::Signatures);
            proven |= *id == checkpoint;
            if !own && !proven {
                return Err(Refusal::Threshold);
            }
            proven |= own && (statement.kind.is_release() || !s.has(Rule::WithdrawalProvesItself));
        }
        Ok(())
    }

    /// S5a: the serial from which the channel has to be read before anything else.
    pub(crate) fn restart(&self, s: &Setting, channel: usize) -> Option<Serial> {
        let known = &self.channels[channel];
        let c = self.checkpoint(s, channel)?;
        if known.head == NONE || !s.has(Rule::Restart) {
            return None;
        }
        let proven = self.is_head_proven(s, channel)
            || known.head == c
            || !s.has(Rule::UnprovenHeadRestarts);
        let chained = self.ours(s, channel, s.book.get(c).serial) == c && s.has(Rule::ChainStands);
        let stands = c == NONE || known.standing == c || chained;
        (!proven || !stands).then(|| s.book.get(c).serial.max(1))
    }

    /// Where a proven run stands beside what is known.
    pub(crate) fn place(&self, s: &Setting, channel: usize, run: &[Id], now: Moment) -> Place {
        let serial = |id: Id| s.book.get(id).serial;
        let known = &self.channels[channel];
        let c = self.checkpoint(s, channel).unwrap_or(NONE);
        let (first, last, head) = (
            serial(run[0]),
            serial(run[run.len() - 1]),
            serial(known.head),
        );
        if known.head == NONE {
            return if c != NONE && first > serial(c) && !s.holes {
                Place::ReadFrom(serial(c))
            } else {
                Place::Replace
            };
        }
        let x = run
            .iter()
            .copied()
            .find(|id| self.contradicts(s, channel, *id));
        let named = self.named(s, channel).filter(|_| self.live(s, now));
        if let Some(restart) = self.restart(s, channel) {
            match x {
                None if c == NONE && last > head => return self.append(s, channel, run),
                None if c != NONE && last < serial(c) => return self.append(s, channel, run),
                Some(_) if c != NONE && last < serial(c) => return Place::Behind,
                _ => {}
            }
            let from = restart.min(head + 1);
            if first > from && !s.holes {
                return Place::ReadFrom(from);
            }
            let binds = self.is_head_proven(s, channel) || !s.has(Rule::UnprovenHeadYields);
            let spoken =
                named.is_some_and(|named| run.contains(&named)) && s.has(Rule::BeatEndsRestart);
            return if last < head && binds && !spoken && s.has(Rule::HeadStays) {
                Place::Behind
            } else {
                Place::Replace
            };
        }
        let leads_below = first < head && run.contains(&known.head);
        if let Some(n) = named.filter(|n| self.is_elsewhere(s, channel, *n)) {
            let below = serial(n) <= head
                && !leads_below
                && (x.is_some() || s.has(Rule::BeatDecidesUnlinked));
            if below || x.is_some() && run.contains(&n) {
                let from = if c == NONE {
                    serial(n).min(known.low)
                } else {
                    serial(n).min(known.low).min(serial(c))
                };
                if first > from && !s.holes {
                    return Place::ReadFrom(from);
                }
                if run.contains(&n) {
                    return Place::Replace;
                }
            }
        }
        match x {
            Some(x) if c != NONE && serial(x) <= serial(c) && s.has(Rule::SettledIsNoFork) => {
                Place::Behind
            }
            Some(_) if c != NONE && first > serial(c) && !s.holes => Place::ReadFrom(serial(c)),
            Some(x) => Place::Fork(x),
            None => self.append(s, channel, run),
        }
    }

    fn append(&self, s: &Setting, channel: usize, run: &[Id]) -> Place {
        let head = s.book.get(self.channels[channel].head).serial;
        match () {
            () if s.book.get(run[run.len() - 1]).serial < head => Place::Behind,
            () if s.book.get(run[0]).serial > head + 1 && !s.holes => Place::ReadFrom(head + 1),
            () => Place::Append,
        }
    }

    /// S4: the first that holds.
    pub(crate) fn freshness(&self, s: &Setting, channel: usize, now: Moment) -> Freshness {
        let known = &self.channels[channel];
        let Some(Kind::Beat { trust, .. }) = self.beat(s) else {
            return Freshness::Stale;
        };
        let later_trust = s.book.trust(trust).serial > s.book.trust(self.trust).serial;
        let Some(named) = self.named(s, channel) else {
            return if later_trust {
                Freshness::Behind
            } else {
                Freshness::Stale
            };
        };
        let serial = s.book.get(named).serial;
        let ours = self.ours(s, channel, serial);
        let undecided = known.evidence != [NONE; 2] && !self.live(s, now);
        if ours != NONE && ours != named || undecided {
            return Freshness::Forked;
        }
        if later_trust || serial > s.book.get(known.head).serial {
            return Freshness::Behind;
        }
        let ready = self.restart(s, channel).is_none() || !s.has(Rule::RestartInstallsNothing);
        if self.live(s, now) && ready && (ours == named || !s.has(Rule::BeatNamesChain)) {
            return Freshness::Current;
        }
        Freshness::Stale
    }

    /// S12: the serial above which delivery goes on, after something was delivered: the last of its
    /// chain that is on ours, or the checkpoint.
    pub(crate) fn delivered(&self, s: &Setting, channel: usize, last: Id) -> Serial {
        let head = self.channels[channel].head;
        let shared = s
            .book
            .chain(last)
            .into_iter()
            .find(|id| s.book.at(head, s.book.get(*id).serial) == *id);
        let checkpoint = self.checkpoint(s, channel).unwrap_or(NONE);
        s.book
            .get(shared.unwrap_or(NONE))
            .serial
            .max(s.book.get(checkpoint).serial.min(s.book.get(last).serial))
    }

    // ---- what they ask
    // ------------------------------------------------------------------------------------------

    pub(crate) fn trust(&self, s: &Setting) -> Trust {
        s.book.trust(self.trust)
    }

    /// The newest proven beat, as it was written.
    pub(crate) fn beat(&self, s: &Setting) -> Option<Kind> {
        (self.beat != NONE).then(|| s.book.get(self.beat).kind)
    }

    /// What it names for a channel.
    pub(crate) fn named(&self, s: &Setting, channel: usize) -> Option<Id> {
        let Kind::Beat { heads, .. } = self.beat(s)? else {
            return None;
        };
        Some(heads[channel]).filter(|id| *id != NONE)
    }

    /// S8, and that the beat names the trust in force, by serial and id.
    pub(crate) fn live(&self, s: &Setting, now: Moment) -> bool {
        let Some(Kind::Beat { time, trust, .. }) = self.beat(s) else {
            return false;
        };
        (trust == self.trust || !s.has(Rule::BeatNamesTrust))
            && (self.time(s, now) < time + LIFE || !s.has(Rule::LifeFromTime))
            && (now - self.beat_seen < LIFE || !s.has(Rule::LifeFromSight))
            && (s.clock.is_some() || self.beat_came || !s.has(Rule::SinceStart))
    }

    /// S8: the latest of the clock, the trust in force and the newest proven beat.
    pub(crate) fn time(&self, s: &Setting, now: Moment) -> Moment {
        let ran = |since: Moment| {
            if s.has(Rule::TimeRunsOn) {
                now - since
            } else {
                0
            }
        };
        let trust = if self.trust == 0 {
            0
        } else {
            self.trust_time + ran(self.trust_seen)
        };
        let beat = if self.beat == NONE {
            0
        } else {
            self.beat_time + ran(self.beat_seen)
        };
        self.clock(s, now).unwrap_or(0).max(trust).max(beat)
    }

    /// A clock more than `FUTURE` behind the other two is none.
    pub(crate) fn clock(&self, s: &Setting, now: Moment) -> Option<Moment> {
        let clock = now.saturating_sub(s.clock?);
        let trust = self.trust_time + (now - self.trust_seen);
        let beat = if self.beat == NONE {
            0
        } else {
            self.beat_time + (now - self.beat_seen)
        };
        (clock + FUTURE >= trust.max(beat) || !s.has(Rule::ClockBehindIsNone)).then_some(clock)
    }

    /// The checkpoint of a channel; `NONE` if there is none, and nothing if the beat that names it
    /// is not at hand.
    pub(crate) fn checkpoint(&self, s: &Setting, channel: usize) -> Option<Id> {
        let trust = self.trust(s);
        let by_beat = match s.book.get(trust.beat_line).kind {
            Kind::Beat { heads, .. } => heads[channel],
            _ => NONE,
        };
        match trust.lines[channel] {
            line if line != NONE && (s.has(Rule::OwnLineFirst) || by_beat == NONE) => Some(line),
            line if trust.beat_line == NONE => Some(line),
            _ if self.settling => Some(by_beat),
            _ if !s.has(Rule::BeatAtHand) => Some(NONE),
            _ => None,
        }
    }

    /// Our chain, as far as its links were read, what the head's `Previous` names, and the
    /// checkpoint on which it stands.
    pub(crate) fn ours(&self, s: &Setting, channel: usize, serial: Serial) -> Id {
        let known = &self.channels[channel];
        let head = s.book.get(known.head);
        match () {
            () if serial + 1 == head.serial => head.parent,
            () if known.standing != NONE
                && serial == s.book.get(known.standing).serial
                && serial < known.low =>
            {
                known.standing
            }
            () if serial < known.low => NONE,
            () => s.book.at(known.head, serial),
        }
    }

    /// Whether a statement has another id at a serial of our chain, or another `Previous` just
    /// above.
    fn contradicts(&self, s: &Setting, channel: usize, id: Id) -> bool {
        let statement = s.book.get(id);
        let (place, before) = (
            self.ours(s, channel, statement.serial),
            self.ours(s, channel, statement.serial - 1),
        );
        place != NONE && place != id || before != NONE && before != statement.parent
    }

    /// Whether no links lead from our head down to what a beat names; what a checkpoint on which we
    /// stand has settled, no beat decides anew.
    fn is_elsewhere(&self, s: &Setting, channel: usize, named: Id) -> bool {
        let (known, serial) = (&self.channels[channel], s.book.get(named).serial);
        let linked = self.ours(s, channel, serial) == named;
        let settled = known.standing != NONE && serial <= s.book.get(known.standing).serial;
        !linked && !settled && s.has(Rule::BeatDecides)
    }

    pub(crate) fn is_head_proven(&self, s: &Setting, channel: usize) -> bool {
        self.trust(s)
            .meets(&s.book.get(self.channels[channel].head))
    }
}
