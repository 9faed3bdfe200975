//! The places of time: the clock, read here alone, and the time since the machine was started, which nobody sets.

use std::{
    fmt, fs,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use tidings_protocol::Timestamp;

/// The one place that reads the clock; 1970 if it stands before that.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    Timestamp::from_seconds(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// A moment in one life of the machine; goes on while it sleeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SinceBoot(u64);

impl SinceBoot {
    pub(crate) fn now() -> Self {
        Self(u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0))
    }
    pub(crate) fn elapsed_seconds(self) -> u64 {
        Self::now().0.saturating_sub(self.0)
    }
    /// A moment that another process has written down, if the machine was not started anew since.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (seconds, boot) = text.split_once(' ')?;
        let moment = Self(seconds.parse().ok()?);
        (boot == boot_id() && moment.0 <= Self::now().0).then_some(moment)
    }
}

impl fmt::Display for SinceBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, boot_id())
    }
}

/// Which life of the machine this is; empty where the kernel does not say.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
