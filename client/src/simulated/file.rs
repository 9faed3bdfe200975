//! A state file on a disk that may forget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings_protocol::simulated::{Fault, has};

#[derive(Default)]
struct Kept {
    /// What is read.
    seen: Option<Vec<u8>>,
    /// What is there after a crash.
    durable: Option<Vec<u8>>,
}

/// A file that is replaced as a whole.
#[derive(Clone, Default)]
pub struct File(Arc<Mutex<Kept>>);

impl File {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine crashes.
    pub fn crash(&self) {
        let mut kept = self.kept();
        kept.seen = kept.durable.clone();
    }

    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        self.kept().seen.clone()
    }

    pub(crate) fn replace(&self, octets: &[u8]) {
        let mut kept = self.kept();
        kept.seen = Some(octets.to_vec());
        if !has(Fault::StateSync) {
            kept.durable = kept.seen.clone();
        }
    }
}
