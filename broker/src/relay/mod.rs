//! Statements on their way from broker to broker, and to subscribers.

pub(crate) mod feed;
pub(crate) mod mirror;
pub(crate) mod repair;
pub(crate) mod watch;
