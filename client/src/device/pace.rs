//! How often a device asks, and how long it waits.

use std::time::Duration;

use crate::{
    chance,
    limits::{ASK, AUDIT, POLL},
};

/// How often a device asks; each pause is drawn from half of it to the whole.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Where it cannot be told.
    pub poll: Duration,
    /// Although it is being told, so that a connection that only looks alive hides nothing for
    /// long.
    pub audit: Duration,
    /// How long asking one broker for everything may take, before the next one is tried (attack
    /// 19).
    pub ask: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: POLL,
            audit: AUDIT,
            ask: ASK,
        }
    }
}

/// From half of a time to the whole, so that a fleet spreads.
pub(super) fn jitter(time: Duration) -> Duration {
    // Without randomness the time is the whole: later, but not wrong.
    chance::draw().map_or(time, |drawn| jitter_from(time, drawn))
}

/// The same from a number that was drawn: in simulated time it can be drawn again.
pub fn jitter_from(time: Duration, drawn: u64) -> Duration {
    time.mul_f64(0.5 + (drawn >> 11) as f64 / (1_u64 << 54) as f64)
}
