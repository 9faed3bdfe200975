//! What happens to a device: what it is given, and what becomes of that by the four functions.

use crate::{
    device::{Device, Place, Refusal},
    facts::{CHANNELS, FUTURE, Id, Ids, Kind, LOST, Moment, NONE, Role, TrustNo},
    rules::{Rule, Setting},
};

impl Device {
    /// The next trust statement comes into force. (That it is signed as it must be is not modelled:
    /// nobody steals roots.)
    pub(crate) fn take_trust(&mut self, s: &Setting, next: TrustNo, now: Moment) {
        let line = self.trust(s).beat_line;
        let running = if self.trust == 0 || !s.has(Rule::TimeRunsOn) {
            0
        } else {
            self.trust_time + (now - self.trust_seen)
        };
        (self.trust, self.trust_seen, self.trust_time) =
            (next, now, running.max(s.book.trust(next).time));
        self.settling &= self.trust(s).beat_line == line;
        let trust = self.trust(s);
        if self.beat != NONE && !trust.meets(&s.book.get(self.beat)) {
            (self.beat, self.beat_time, self.beat_seen, self.beat_came) = (NONE, 0, 0, false);
        }
        for channel in 0..CHANNELS {
            let known = &mut self.channels[channel];
            for kept in [&mut known.withdrawals, &mut known.unread] {
                kept.retain(|id| s.has(Rule::WithdrawalStays) || trust.meets(&s.book.get(id)));
            }
            self.decide(s, channel, now);
        }
    }

    /// The beat that the checkpoint names: its id is the proof.
    pub(crate) fn take_settling(&mut self, s: &Setting, now: Moment) {
        self.settling = true;
        for channel in 0..CHANNELS {
            self.decide(s, channel, now);
        }
    }

    /// S6: of a beat channel the highest proven serial counts, linked or not.
    pub(crate) fn take_beat(&mut self, s: &Setting, id: Id, now: Moment) -> Result<(), Refusal> {
        let (beat, trust) = (s.book.get(id), self.trust(s));
        let Kind::Beat { time, .. } = beat.kind else {
            return Err(Refusal::Channel);
        };
        if !trust.meets(&beat) && s.has(Rule::Signatures) {
            return Err(Refusal::Threshold);
        }
        if beat.under > trust.serial {
            return Err(Refusal::NewerTrust);
        }
        if s.has(Rule::NoFutureBeats)
            && self
                .clock(s, now)
                .is_some_and(|clock| time > clock + FUTURE)
        {
            return Err(Refusal::BeatFuture);
        }
        if beat.serial > s.book.get(self.beat).serial {
            // Time does not fall back: else old beats, shown slowly, would each be live.
            let running = if self.beat == NONE || !s.has(Rule::TimeRunsOn) {
                0
            } else {
                self.beat_time + (now - self.beat_seen)
            };
            (self.beat, self.beat_time, self.beat_seen, self.beat_came) =
                (id, time.max(running), now, true);
        }
        for channel in 0..CHANNELS {
            self.decide(s, channel, now);
        }
        Ok(())
    }

    /// What is seen without reading: on what the chain stands, and that a fork is over.
    fn decide(&mut self, s: &Setting, channel: usize, now: Moment) {
        let trust = self.trust(s);
        let c = self.checkpoint(s, channel).unwrap_or(NONE);
        let serial = |id: Id| s.book.get(id).serial;
        let proven = self.is_head_proven(s, channel) || self.channels[channel].head == c;
        if c != NONE && self.ours(s, channel, serial(c)) == c && proven && s.has(Rule::ChainStands)
        {
            self.channels[channel].standing = c;
        }
        let [ours, theirs] = self.channels[channel].evidence;
        let at = serial(ours).min(serial(theirs));
        let named = self.named(s, channel).filter(|_| self.live(s, now));
        let by_beat = named.is_some_and(|named| {
            serial(named) >= at && self.ours(s, channel, serial(named)) == named
        });
        let by_checkpoint = c != NONE
            && self.channels[channel].standing == c
            && at <= serial(c)
            && s.has(Rule::SettledIsNoFork);
        let by_trust = !trust.meets(&s.book.get(ours)) || !trust.meets(&s.book.get(theirs));
        if by_beat || by_checkpoint || by_trust {
            self.channels[channel].evidence = [NONE; 2];
        }
    }

    /// A run that a broker has sent. What is refused has no effect.
    pub(crate) fn take_run(
        &mut self,
        s: &Setting,
        channel: usize,
        run: &[Id],
        now: Moment,
    ) -> Result<Place, Refusal> {
        self.judge(s, channel, run)?;
        let trust = self.trust(s);
        let place = self.place(s, channel, run, now);
        let checkpoint = self.checkpoint(s, channel).unwrap_or(NONE);
        let (first, last) = (s.book.get(run[0]).serial, run[run.len() - 1]);
        let known = &mut self.channels[channel];
        match place {
            Place::Append => {
                let head = s.book.get(known.head).serial;
                let linked = s.book.at(last, head) == known.head && first <= head + 1;
                known.low = if linked { known.low.min(first) } else { first };
                known.head = last;
            }
            Place::Replace => {
                if !s.has(Rule::WithdrawalsKept) {
                    known.unread = Ids::default();
                    known.withdrawals = run
                        .iter()
                        .copied()
                        .filter(|id| s.book.get(*id).kind.role() == Role::Withdraw)
                        .collect();
                }
                if checkpoint != NONE
                    && (run.contains(&checkpoint) || first > s.book.get(checkpoint).serial)
                {
                    known.standing = checkpoint;
                }
                // What of our chain it is linked to stays.
                let joins = known.low < first
                    && s.book.at(known.head, first - 1) == s.book.get(run[0]).parent;
                known.low = if joins && known.head != NONE {
                    known.low
                } else {
                    first
                };
                let other = known.head != NONE
                    && s.book.at(last, s.book.get(known.head).serial) != known.head;
                known.head = last;
                known.evidence = if other { [NONE; 2] } else { known.evidence };
            }
            Place::Fork(theirs) if known.evidence == [NONE; 2] => {
                known.evidence = [known.head, theirs]
            }
            _ => {}
        }
        let head = s.book.get(known.head).serial;
        known.low = known.low.max((head + 1).saturating_sub(s.links));
        for id in run.iter().filter(|id| {
            matches!(s.book.get(**id).kind, Kind::Withdraw { .. }) && trust.meets(&s.book.get(**id))
        }) {
            known.keep(s, *id, run);
        }
        self.decide(s, channel, now);
        Ok(place)
    }

    /// The machine starts again: what has passed since is not known.
    pub(crate) fn reboot(&mut self, s: &Setting, now: Moment) {
        (self.trust_seen, self.beat_seen, self.beat_came) = (now, now, false);
        self.trust_time = self.trust(s).time;
        self.beat_time = match self.beat(s) {
            Some(Kind::Beat { time, .. }) => time,
            _ => 0,
        };
    }

    /// Whether something is the head or on its chain.
    pub(crate) fn stands_on(&self, s: &Setting, channel: usize, id: Id) -> bool {
        id > LOST
            && s.book
                .at(self.channels[channel].head, s.book.get(id).serial)
                == id
    }
}
