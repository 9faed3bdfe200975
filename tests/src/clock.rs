//! Clocks that a test sets: a device's, and that of a broker's process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidings_client::{Clock, Now, Timestamp};

/// Clocks that stand still until a test moves them. Cheap to clone; all clones are the same clocks.
#[derive(Clone)]
pub struct HandClock(Arc<Mutex<Now>>);

impl HandClock {
    /// A machine that was started a minute ago; its clock, if it has one, shows this.
    pub fn new(clock: Option<Timestamp>) -> Self {
        Self(Arc::new(Mutex::new(Now {
            clock,
            monotonic: 60,
            boot: 1,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As a device takes it.
    pub fn clock(&self) -> Clock {
        let here = self.clone();
        Clock::new(move || *here.lock())
    }

    /// Sets the clock that tells the date, as an operator, a hostile NTP server or an empty battery
    /// does.
    pub fn set(&self, clock: Option<Timestamp>) {
        self.lock().clock = clock;
    }

    /// Time passes, for all clocks.
    pub fn pass(&self, seconds: u64) {
        let mut now = self.lock();
        now.clock = now.clock.map(|clock| clock.plus(seconds));
        now.monotonic += seconds;
    }

    /// The machine is started anew.
    pub fn restart(&self) {
        let mut now = self.lock();
        (now.boot, now.monotonic) = (now.boot + 1, 1);
    }
}

/// The library that takes the place of a process's clock.
///
/// # Panics
/// If it is not installed.
pub fn faketime() -> PathBuf {
    ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1").into())
        .into_iter()
        .find(|path: &PathBuf| Path::exists(path))
        .unwrap_or_else(|| panic!("libfaketime is missing: install Debian's package `libfaketime`"))
}
