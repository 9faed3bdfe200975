//! Several brokers that are one origin: a real ensemble, real brokers.
#![allow(clippy::unwrap_used)]

mod batches;
mod damage;
mod refused;
mod stage;
mod weather;
mod wire;
mod works;
mod wrong;
