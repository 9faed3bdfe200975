//! The places of time: the clock, read here alone, and the time since the machine was started,
//! which nobody sets.

use std::{
    fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use tidings_protocol::{Digest, Timestamp, view::Now};

/// The one place that reads the clock; 1970 if it stands before that.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    #[cfg(feature = "simulated")]
    if let Some(now) = crate::simulated::now() {
        return now.clock.unwrap_or(Timestamp::from_seconds(0));
    }
    Timestamp::from_seconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    )
}

/// What tells a device the time; handed in, so that a test can hand in its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    /// The clocks of this machine.
    pub fn system() -> Self {
        let boot = boot();
        Self::new(move || {
            #[cfg(feature = "simulated")]
            if let Some(now) = crate::simulated::now() {
                return now;
            }
            Now {
                clock: Some(now()),
                monotonic: since_boot(),
                boot,
            }
        })
    }
    /// Those of a machine that has no clock which tells the date.
    pub fn without_date() -> Self {
        let boot = boot();
        Self::new(move || Now {
            clock: None,
            monotonic: since_boot(),
            boot,
        })
    }
    /// Any other.
    pub fn new(now: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
    /// What it shows.
    pub fn now(&self) -> Now {
        (self.0)()
    }
}

/// Seconds since the machine was started; they go on while it sleeps.
fn since_boot() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

/// Which life of the machine this is; where the kernel does not say, all are one.
fn boot() -> u64 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digest = Digest::of(id.trim().as_bytes());
    digest
        .octets()
        .iter()
        .take(8)
        .fold(0, |number, octet| number << 8 | u64::from(*octet))
}
