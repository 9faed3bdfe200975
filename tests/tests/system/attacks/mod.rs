//! What an attacker will try: each test has the number that the attack has in `SECURITY.md`, and
//! runs a real broker and the real client, with a hostile relay between them where the attacker is
//! on the way.
#![allow(clippy::unwrap_used)]

mod applied;
mod bounds;
mod branches;
mod broker;
mod clocks;
mod command;
mod disk;
mod found;
mod kept_back;
mod keys;
mod log;
mod next;
mod outbox;
mod rotation;
mod stage;
mod time;
