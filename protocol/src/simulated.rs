//! Faults that are put in on purpose, in this thread alone: they show that the simulation of the
//! whole would find them. Only programs with debug assertions have them: none that is shipped can
//! be told to leave a check out.

use std::cell::Cell;

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
}

/// Puts a fault in, or takes it out; what was there before.
pub fn set(fault: Option<Fault>) -> Option<Fault> {
    FAULT.replace(fault)
}

/// Whether this fault is in.
pub fn has(fault: Fault) -> bool {
    cfg!(debug_assertions) && FAULT.get() == Some(fault)
}
