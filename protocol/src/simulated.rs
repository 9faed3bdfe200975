//! Faults that are put in on purpose, in this thread alone: they show that the simulation of the
//! whole would find them. Only programs with debug assertions have them: none that is shipped can
//! be told to leave a check out.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    vec::Vec,
};

/// What is left out, or done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Signatures are not counted.
    Signatures,
    /// Links are not compared.
    Links,
    /// A beat is live for a day, whatever it says.
    BeatLife,
    /// What is withdrawn is cleared.
    Withdrawals,
    /// The syncs of the store do nothing.
    StoreSync,
    /// A commit that failed is shown and acknowledged.
    FailedCommit,
    /// A beat names the heads that the one before has named.
    OldHeads,
    /// A state file is not synced.
    StateSync,
    /// What was delivered is not kept.
    Delivered,
    /// Retention keeps one less than it is told to.
    Retention,
    /// An upstream that has failed is not tried again.
    Upstream,
}

std::thread_local! {
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    static CHECKED: RefCell<Option<HashMap<Vec<u8>, bool>>> = const { RefCell::new(None) };
}

/// Begins or ends to remember which signatures hold, in this thread: many machines check the same
/// ones, and half of a simulation's time goes there.
pub fn remember(is_wanted: bool) {
    CHECKED.set(is_wanted.then(HashMap::new));
}

/// What a check says, or has said before of the same octets.
pub(crate) fn remembered(of: &[&[u8]], check: impl FnOnce() -> bool) -> bool {
    CHECKED.with_borrow_mut(|checked| match checked {
        Some(checked) if cfg!(debug_assertions) => {
            *checked.entry(of.concat()).or_insert_with(check)
        }
        _ => check(),
    })
}

/// Puts a fault in, or takes it out; what was there before.
pub fn set(fault: Option<Fault>) -> Option<Fault> {
    FAULT.replace(fault)
}

/// Whether this fault is in.
pub fn has(fault: Fault) -> bool {
    cfg!(debug_assertions) && FAULT.get() == Some(fault)
}
