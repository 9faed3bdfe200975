//! The whole system: real brokers, devices, publishers and commands, as processes. One program, so
//! that tests that wait do so beside each other; `cargo test --workspace --test system MODULE` runs
//! some of them.

mod attacks;
mod beats;
mod bench;
mod cluster;
mod command;
mod conformance;
mod demo;
mod device;
mod federation;
mod feed;
mod fleetlock;
mod mirror;
mod monitoring;
mod operation;
mod origin;
mod planet;
mod readiness;
mod reload;
mod rolling;
mod session;
mod slot_access;
mod slot_commands;
mod slots;
mod status;
mod vectors;
