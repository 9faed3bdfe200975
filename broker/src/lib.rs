//! `tidingsd`: stores, serves and relays the logs of Tidings over NNTP.
//!
//! ```text
//! net → session → log → relay
//!
//! net::listener → session → log::append → log::logs → log::store      a statement comes in
//!                                         log::logs → relay::watch    and goes out
//! ```
//!
//! [`Broker::bind`] starts one, [`Broker::shutdown`] drains it; the binary and the tests use the
//! same.

mod admin;
mod beforehand;
mod broker;
mod clock;
mod cluster;
pub mod config;
mod failure;
pub mod limits;
mod log;
pub mod logging;
mod net;
mod origin;
mod relay;
mod session;
mod shared;
#[cfg(test)]
mod simulation;
mod slots;
mod start;

pub use admin::{inspect, manual};
pub use broker::{Broker, StartError};
pub use config::{Config, Settings};
#[cfg(feature = "bench")]
pub use log::{append::bench, store::bench as store_bench};
#[cfg(feature = "bench")]
pub use slots::turns;
