//! Which seeds are asked for, and what is shown of one: for both simulations.

use std::time::Duration;

use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

/// Prints what happens, and when, by the time that is simulated.
pub(crate) fn show(elapsed: fn() -> Option<Duration>) {
    struct Clock(fn() -> Option<Duration>);
    impl FormatTime for Clock {
        fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
            let elapsed = (self.0)().unwrap_or_default();
            write!(to, "{:.3}", elapsed.as_secs_f64())
        }
    }
    let shown = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_timer(Clock(elapsed))
        .with_test_writer();
    drop(shown.try_init());
}

/// A number of the environment.
pub(crate) fn wanted(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
