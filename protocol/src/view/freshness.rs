//! Whether anything is held back: what the beat of a channel says beside what is known.

use core::fmt;

use super::{Moment, Now, View};
use crate::{
    Channel, Head, Statement, Timestamp,
    limits::{BEAT_LIFE_SECONDS, FUTURE_SECONDS},
    statement::{Beat, Body},
    verify::VerifyError,
};

/// What a device can say of a channel at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The live beat names the head, or a statement that the head is known to stand above: nothing
    /// is held back.
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
    /// A beat names another statement at a serial of our chain, or two statements are signed for
    /// one place and no beat decides.
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

/// A beat, and when it was seen.
#[derive(Clone, Debug)]
pub struct SeenBeat {
    /// The newest of its channel.
    pub statement: Statement,
    /// When it was seen first.
    pub seen: Moment,
    /// Whether the trust in force proves it.
    pub(super) proven: bool,
}

impl SeenBeat {
    /// Whether the trust in force proves it.
    pub fn is_proven(&self) -> bool {
        self.proven
    }
    pub(super) fn beat(&self) -> Option<&Beat> {
        match self.statement.body() {
            Body::Beat(beat) => Some(beat),
            _ => None,
        }
    }
    /// Its time, or a later one that was running when it was seen, and runs on.
    pub(super) fn running(&self, now: &Now) -> Timestamp {
        self.seen.running(self.statement.time(), now)
    }
    /// For how long it may be live.
    fn life(&self, beat: &Beat) -> u64 {
        #[cfg(feature = "simulated")]
        if crate::simulated::has(crate::simulated::Fault::BeatLife) {
            return BEAT_LIFE_SECONDS;
        }
        beat.expires
            .seconds()
            .saturating_sub(self.statement.time().seconds())
            .min(BEAT_LIFE_SECONDS)
    }
}

impl View {
    /// Takes a beat, if it is the newest that is proven in its channel: linked or not, the highest
    /// serial counts, and an older one has no effect (attack 25).
    ///
    /// # Errors
    /// If it is not proven, or is of the future and this device has a clock (attack 93).
    pub fn take_beat(&mut self, statement: Statement, now: &Now) -> Result<(), super::Refusal> {
        let serial = statement.serial();
        let refused = |source| super::Refusal::Verify { serial, source };
        let trust = self.trust.clone().ok_or(super::Refusal::NoTrust)?;
        self.signature_checks += trust.signature_checks(&statement) as u64;
        let beat = trust.verify(statement).map_err(refused)?.into_inner();
        if let Some(field) = beat.unknown_critical() {
            return Err(refused(VerifyError::Critical {
                field: field.into(),
            }));
        }
        let clock = self.clock(Some(beat.channel()), now);
        if let Some(clock) = clock.filter(|clock| beat.time() > clock.plus(FUTURE_SECONDS)) {
            return Err(refused(VerifyError::BeatFuture {
                time: beat.time(),
                clock,
            }));
        }
        let known = self.beats.get(beat.channel()).filter(|known| known.proven);
        if known.is_none_or(|known| known.statement.serial() < serial) {
            // Time does not fall back, or old beats shown slowly would each be live.
            let running = known.map(|known| known.running(now));
            let seen = Moment::new(
                running.map_or(beat.time(), |running| running.max(beat.time())),
                clock,
                now,
            );
            self.beats.insert(
                beat.channel().clone(),
                SeenBeat {
                    statement: beat,
                    seen,
                    proven: true,
                },
            );
            self.settle_forks(now);
        }
        Ok(())
    }

    /// The newest beat that is proven and speaks for a channel, live or not.
    pub(super) fn beat_of(&self, channel: &Channel) -> Option<(&SeenBeat, &Beat)> {
        let beats = self.trust()?.beat_channel(channel)?;
        let seen = self.beats.get(&beats).filter(|seen| seen.proven)?;
        Some((seen, seen.beat()?))
    }

    /// What the live beat names for a channel, and until when it is live: up to its `Expires`, for
    /// a day at the longest; without a clock only if it came since the machine started. It names
    /// the trust in force, or it is none.
    pub fn live(&self, channel: &Channel, now: &Now) -> Option<(Head, Timestamp)> {
        let (seen, beat) = self.beat_of(channel)?;
        let (time, life) = (self.time(channel, now), seen.life(beat));
        let left = life
            .checked_sub(seen.seen.elapsed(now))
            .filter(|left| *left > 0)?;
        let until = seen.statement.time().plus(life).min(time.plus(left));
        let counts =
            seen.seen.boot == now.boot || self.clock(Some(seen.statement.channel()), now).is_some();
        let trust = self.trust()?;
        let confirms = beat.head(trust.statement().channel()) == Some(trust.head());
        (counts && confirms && time < until).then_some(())?;
        Some((beat.head(channel)?, until))
    }

    /// The state of a channel: the first that holds of FORKED, BEHIND, CURRENT and STALE.
    pub fn freshness(&self, channel: &Channel, now: &Now) -> Freshness {
        let Some(trust) = self.trust() else {
            return Freshness::Stale { since: None };
        };
        let live = self.live(channel, now);
        let named = self.beat_of(channel).map(|(_, beat)| beat);
        let of = |channel: &Channel| named.and_then(|beat| beat.head(channel));
        if of(channel).is_some_and(|named| {
            self.id_at(channel, named.serial)
                .is_some_and(|id| id != named.id)
        }) {
            return Freshness::Forked;
        }
        let trust_named = of(trust.statement().channel());
        if trust_named
            .is_some_and(|named| named.serial == trust.serial() && named.id != trust.head().id)
        {
            return Freshness::Forked;
        }
        if live.is_none() && self.fork(channel).is_some() {
            return Freshness::Forked;
        }
        if let Some(head) = trust_named.filter(|named| named.serial > trust.serial()) {
            return Freshness::Behind { head };
        }
        if let Some(head) = of(channel).filter(|named| {
            self.head(channel)
                .is_none_or(|ours| named.serial > ours.serial)
        }) {
            return Freshness::Behind { head };
        }
        match live {
            Some((head, until))
                if self.id_at(channel, head.serial) == Some(head.id)
                    && self.restart(channel).is_none() =>
            {
                Freshness::Current { until }
            }
            _ => {
                let ends =
                    |(seen, beat): (&SeenBeat, &Beat)| seen.statement.time().plus(seen.life(beat));
                let named = self
                    .beat_of(channel)
                    .filter(|(_, beat)| beat.head(channel).is_some());
                Freshness::Stale {
                    since: named.map(ends),
                }
            }
        }
    }
}
