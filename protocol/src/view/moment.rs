//! What time it is for a device: handed in, never read here.

use crate::{Timestamp, limits::FUTURE_SECONDS};

/// What a device's clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The clock that tells the date, if there is one.
    pub clock: Option<Timestamp>,
    /// Seconds of the monotonic clock, which runs until the machine stops.
    pub monotonic: u64,
    /// Which life of the machine this is: another value after each start.
    pub boot: u64,
}

impl Now {
    /// The clock alone, in one life of the machine, in which it has never been set.
    pub fn at(clock: Timestamp) -> Self {
        Self { clock: Some(clock), monotonic: clock.seconds(), boot: 0 }
    }
}

/// When something was seen first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The clock then, if it counted.
    pub clock: Option<Timestamp>,
    /// The monotonic clock then.
    pub monotonic: u64,
    /// In which life of the machine.
    pub boot: u64,
}

impl Moment {
    /// Seconds that have passed since by the monotonic clock; none after the machine has stopped.
    pub(super) fn ran(&self, now: &Now) -> u64 {
        if self.boot == now.boot { now.monotonic.saturating_sub(self.monotonic) } else { 0 }
    }
    /// Seconds that have passed since: by the monotonic clock, or, after another start, by the clock. Unknown without either.
    pub(super) fn elapsed(&self, now: &Now, clock: Option<Timestamp>) -> Option<u64> {
        if self.boot == now.boot {
            return Some(self.ran(now));
        }
        let clock = clock?;
        Some(self.clock.map_or(0, |seen| clock.seconds().saturating_sub(seen.seconds())))
    }
}

/// The clock, unless it is so far behind what was signed that it is none.
pub(super) fn trusted_clock(now: &Now, signed: Timestamp) -> Option<Timestamp> {
    now.clock.filter(|clock| clock.plus(FUTURE_SECONDS) >= signed)
}
