//! Several brokers that are one origin: a real ensemble, real brokers.
#![allow(clippy::unwrap_used)]

mod stage;
mod weather;
mod works;
mod wrong;
