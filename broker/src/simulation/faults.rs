//! Faults that are put in on purpose: the simulation finds them.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tidings_protocol::simulated::{Fault, set};

use super::{DEVICES, FED, FIRST_DEVICE, ORIGIN, simulate, wanted};

const ORIGINS: Range<usize> = ORIGIN..1;
const MIRRORS: Range<usize> = 1..FED;
const OF_FEEDS: Range<usize> = FED..FED + 1;
const OF_DEVICES: Range<usize> = FIRST_DEVICE..FIRST_DEVICE + DEVICES.len();

/// What is put in, and where.
const FAULTS: [(Fault, Range<usize>); 15] = [
    (Fault::Signatures, MIRRORS),
    (Fault::Signatures, OF_DEVICES),
    (Fault::Signatures, OF_FEEDS),
    (Fault::Links, MIRRORS),
    (Fault::Links, OF_DEVICES),
    (Fault::BeatLife, OF_DEVICES),
    (Fault::Withdrawals, OF_DEVICES),
    (Fault::StoreSync, ORIGINS),
    (Fault::StoreSync, OF_FEEDS),
    (Fault::FailedCommit, ORIGINS),
    (Fault::OldHeads, ORIGINS),
    (Fault::StateSync, OF_DEVICES),
    (Fault::Delivered, OF_DEVICES),
    (Fault::Retention, ORIGINS),
    (Fault::Upstream, MIRRORS),
];

/// `TIDINGS_FAULT_SEEDS=1000` looks for longer.
#[test]
fn what_is_put_in_on_purpose_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let most = wanted("TIDINGS_FAULT_SEEDS").unwrap_or(100);
    let mut missed = Vec::new();
    for (fault, nodes) in FAULTS {
        let found = (0..most).find_map(|seed| {
            let broken = Some((nodes.clone(), fault));
            let run = || simulate(seed, directory.path().into(), broken);
            let run = catch_unwind(AssertUnwindSafe(run));
            set(None);
            let why = run
                .unwrap_or_else(|_| Err("it has panicked".into()))
                .err()?;
            Some((seed, why))
        });
        match found {
            Some((seed, why)) => eprintln!("{fault:?} of {nodes:?}: seed {seed}: {why}"),
            None => missed.push((fault, nodes)),
        }
    }
    assert!(missed.is_empty(), "not found with {most} seeds: {missed:?}");
}
