//! Histories of rotations, forks, races, beats, closings, clocks and thefts, lived by the library
//! and by a naive device beside it (spec, parts 1 and 2): they answer every step alike. What must
//! hold whatever happens is looked at besides, and at the end of each history honest publishers and
//! an honest broker bring the device back.
//!
//! `TIDINGS_MODEL_CASES` says how many histories; `TIDINGS_MODEL_SEED` runs one of them alone, and
//! prints it.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout
)]

#[allow(dead_code)]
#[path = "../device/mod.rs"]
mod device;
mod history;
mod naive;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// What fits into ten seconds of two slow processors; CI wants ten times as many.
const CASES: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// The same numbers for the same seed, everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995)
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

#[test]
fn attacks_10_to_31_and_91_to_121_no_history_parts_the_library_from_the_model() {
    if let Some(seed) = number("TIDINGS_MODEL_SEED") {
        let mut history = history::History::new(seed, true);
        history.run();
        return;
    }
    let cases = number("TIDINGS_MODEL_CASES").unwrap_or(CASES);
    let (next, steps, released, healed) = (
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicU64::new(0),
    );
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= cases {
                    return;
                }
                let mut history = history::History::new(seed, false);
                let outcome =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history.run()));
                assert!(outcome.is_ok(), "TIDINGS_MODEL_SEED={seed} goes wrong");
                steps.fetch_add(history.steps, Ordering::Relaxed);
                released.fetch_add(history.released, Ordering::Relaxed);
                healed.fetch_add(history.healed, Ordering::Relaxed);
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
    });
    let [steps, released, healed] = [steps, released, healed].map(AtomicU64::into_inner);
    println!(
        "{cases} histories of {steps} steps; {released} releases were to be run, {healed} devices came back"
    );
    assert!(
        cases < 1_000 || steps > cases * 8 && released > cases / 4 && healed > cases / 4 * 3,
        "{steps} {released} {healed}"
    );
}
