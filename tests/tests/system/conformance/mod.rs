//! The conformance runner against devices and a broker that keep to the specification, and against
//! such as break one rule each.
#![allow(clippy::unwrap_used)]

mod broker;
mod device;

fn wrong(printed: &str) -> Vec<&str> {
    printed
        .lines()
        .filter(|line| line.starts_with("WRONG"))
        .collect()
}

/// The same, but for what a machine that is busy gets wrong too.
fn wrong_by_itself(printed: &str) -> Vec<&str> {
    let is_late = |line: &&str| line.contains("does not answer") || line.contains("no answer");
    let wrong = wrong(printed).into_iter();
    wrong.filter(|line| !is_late(line)).collect()
}
