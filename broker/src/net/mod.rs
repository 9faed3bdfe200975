//! Connections: accepted, counted, under TLS or in clear text; who is at the other end, and how
//! this broker makes itself known to others.

pub(crate) mod access;
pub(crate) mod connections;
pub(crate) mod identity;
pub(crate) mod listener;
pub(crate) mod login;
pub(crate) mod stream;
pub(crate) mod tls;
