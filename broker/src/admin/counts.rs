//! What is counted since the start, for operators.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tidings_protocol::Channel;

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
    /// Of each beat channel that is signed here: how much of the room for heads is taken, in
    /// percent, and for how many there was none.
    beat_rooms: Mutex<BTreeMap<Channel, (usize, usize)>>,
}

impl Counts {
    pub(crate) fn beat_rooms(&self) -> MutexGuard<'_, BTreeMap<Channel, (usize, usize)>> {
        self.beat_rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
