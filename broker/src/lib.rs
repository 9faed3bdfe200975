//! `tidingsd`: stores, serves and relays the logs of Tidings over NNTP.
//!
//! ```text
//! listener → session → append → logs → store        a statement comes in
//!                        logs → watch → subscriber   and goes out
//! ```
//!
//! [`Broker::bind`] starts one, [`Broker::shutdown`] drains it; the binary and the tests use the
//! same.

mod access;
mod append;
mod beat;
mod beforehand;
mod broker;
mod clock;
mod cluster;
pub mod config;
mod connections;
mod counts;
pub mod demo;
mod failure;
mod feed;
mod forks;
mod http;
mod identity;
pub mod inspect;
pub mod limits;
mod listener;
mod live;
pub mod logging;
mod login;
mod logs;
pub mod manual;
mod mirror;
mod namespaces;
mod origin;
mod repair;
mod restore;
mod session;
mod shared;
#[cfg(test)]
mod simulation;
mod slots;
mod start;
mod store;
mod stream;
mod tls;
mod watch;

#[cfg(feature = "bench")]
pub use append::bench;
pub use broker::{Broker, StartError};
pub use config::{Config, Settings};
#[cfg(feature = "bench")]
pub use slots::turns;
#[cfg(feature = "bench")]
pub use store::bench as store_bench;
