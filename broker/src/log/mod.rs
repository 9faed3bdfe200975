//! The logs: one writer decides and stores, everybody reads.

pub(crate) mod append;
pub(crate) mod forks;
pub(crate) mod live;
pub(crate) mod logs;
pub(crate) mod namespaces;
pub(crate) mod store;
