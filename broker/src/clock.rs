//! The one place that reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use tidings_protocol::Timestamp;

/// Now, in whole seconds; 1970 if the clock stands before that.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    #[cfg(test)]
    if let Some(now) = tidings_client::simulated::now().and_then(|now| now.clock) {
        return now;
    }
    Timestamp::from_seconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    )
}

/// Time that a simulation hands in: this thread's clock goes with that of its runtime.
#[cfg(test)]
pub(crate) mod simulated {
    use std::{cell::Cell, time::Duration};

    use tidings_protocol::Timestamp;
    use tokio::time::Instant;

    thread_local! {
        static BEGAN: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
    }

    /// It shows so many seconds now; none: it is the real one again.
    pub(crate) fn set(seconds: Option<u64>) {
        BEGAN.set(seconds.map(|seconds| (Instant::now(), seconds)));
    }

    /// How long it has gone.
    pub(crate) fn elapsed() -> Option<Duration> {
        Some(BEGAN.get()?.0.elapsed())
    }

    pub(super) fn now() -> Option<Timestamp> {
        let (began, seconds) = BEGAN.get()?;
        Some(Timestamp::from_seconds(seconds + began.elapsed().as_secs()))
    }
}
