//! `tidings` against running brokers: what is published, what is refused, and what goes wrong on
//! the way.
#![allow(clippy::unwrap_used)]

mod answers;
mod apply;
mod ceremony;
mod check;
mod desk;
mod json;
mod outbox;
mod payload;
mod publish;
mod silence;
