//! `tidings` as its user meets it, without any network.
#![allow(clippy::unwrap_used)]

mod answers;
mod contexts;
mod desk;
mod keys;
mod outbox;
mod pipelines;
mod statements;
mod trust;
