//! Load: many connections on one thread, and what they cost and how long they take.
//!
//! [`Crowd`] drives the connections; what is said on each is a [`Peer`]. Those of NNTP are in
//! [`nntp`]; a comparison with other servers brings its own. `tidings-bench` and the comparisons of
//! this repository measure with the same generator.

pub mod chart;
mod crowd;
pub mod nntp;
mod process;
mod spread;

pub use crowd::{Crowd, CrowdError, Done, Endpoint, Peer};
pub use process::Process;
pub use spread::Spread;
