//! What time it is for a device: handed in, never read here.

use crate::Timestamp;

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
        Self {
            clock: Some(clock),
            monotonic: clock.seconds(),
            boot: 0,
        }
    }
}

/// When something that has a time was seen first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The signed time then: that of what was seen, or a later one that was running already.
    pub time: Timestamp,
    /// The clock then, if it counted.
    pub clock: Option<Timestamp>,
    /// The monotonic clock then.
    pub monotonic: u64,
    /// In which life of the machine.
    pub boot: u64,
}

impl Moment {
    pub(super) fn new(time: Timestamp, clock: Option<Timestamp>, now: &Now) -> Self {
        Self {
            time,
            clock,
            monotonic: now.monotonic,
            boot: now.boot,
        }
    }
    /// Seconds that have passed since by the monotonic clock; none after the machine has stopped.
    fn ran(&self, now: &Now) -> Option<u64> {
        (self.boot == now.boot).then(|| now.monotonic.saturating_sub(self.monotonic))
    }
    /// The time that it was then, and runs on by the monotonic clock until the machine stops; then
    /// what was seen has its own time again. The clock has no say in it: it may have been wrong
    /// then and right now, or the other way round, and the difference would stay.
    pub(super) fn running(&self, own: Timestamp, now: &Now) -> Timestamp {
        self.ran(now).map_or(own, |ran| self.time.plus(ran))
    }
    /// Seconds that have passed since: by the monotonic clock, or by the clock after the machine
    /// has stopped.
    pub(super) fn elapsed(&self, now: &Now) -> u64 {
        let by_clock = || Some(now.clock?.seconds().saturating_sub(self.clock?.seconds()));
        self.ran(now).or_else(by_clock).unwrap_or(0)
    }
}
