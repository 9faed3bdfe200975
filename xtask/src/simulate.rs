//! The simulation of the whole, with as many seeds as are wanted.

use super::{cargo, run};

const TEST: &str = "simulation::whatever_happens_nobody_is_deceived_and_everything_comes_through";

/// Seeds from 0 on, or one whose trace is shown; ends with the digest of all that has happened.
pub(super) fn simulate(seeds: u64, seed: Option<u64>) -> anyhow::Result<()> {
    let mut command = cargo("test --quiet --package tidings-broker --all-features --lib --");
    command.args(["--exact", TEST, "--nocapture"]);
    match seed {
        Some(seed) => command.env("TIDINGS_SEED", seed.to_string()),
        None => command.env("TIDINGS_SEEDS", seeds.to_string()),
    };
    run(&mut command)
}
