//! What is done when a part of the broker cannot go on: the whole broker stops, and says so.

use std::{sync::Arc, thread};

/// What is called when the broker cannot go on.
pub(crate) type OnFailure = Arc<dyn Fn() + Send + Sync>;

/// Calls that if the thread that holds it panics.
pub(crate) struct Sentinel(pub(crate) OnFailure);

impl Drop for Sentinel {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)();
        }
    }
}
