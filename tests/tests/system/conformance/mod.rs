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
