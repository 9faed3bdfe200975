//! What is counted since the start, for operators.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct Counts {
    /// Statements that became visible, copies among them.
    pub(crate) stored: Counter,
    /// Statements that were taken by POST.
    pub(crate) published: Counter,
    /// Statements that were refused after POST.
    pub(crate) refused: Counter,
}
