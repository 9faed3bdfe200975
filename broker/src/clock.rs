//! The one place that reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use tidings_protocol::Timestamp;

/// Now, in whole seconds; 1970 if the clock stands before that.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Timestamp {
    Timestamp::from_seconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    )
}
