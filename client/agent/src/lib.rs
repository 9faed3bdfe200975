//! The node agent: from an announcement to a machine that runs it.
//!
//! ```text
//! broker → daemon → fetch → hand over → applier → handler → loader
//!             round: what is intended, what is, the one next step
//! ```
//!
//! `config` and `windows` are what the operator wants; `want` says which release it is about,
//! `round` what to do next, `turn` whether the machine may go; `journal` remembers, `world` does
//! what was decided, with `here` for this machine; `apply` is the part that is root, `link` the way
//! to it, `handler` calls what it may call; `status` is what is seen from outside.
//! `contract` tests anybody's handler, `restarts` finds who runs what is not there any more.

pub mod apply;
pub mod config;
pub mod contract;
pub mod daemon;
pub mod fetch;
pub mod handler;
mod health;
mod here;
pub mod journal;
mod link;
pub mod manual;
pub mod restarts;
pub mod round;
pub mod status;
pub mod turn;
pub mod want;
pub mod windows;
pub mod world;
