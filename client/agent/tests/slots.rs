//! What the handlers of two slots guard, each by itself: what boots, what is on trial, what was
//! changed since.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{fs, os::unix::fs::FileExt, sync::Arc};

use common::{Machine, Publisher, octets};
use tidings_agent::{
    apply::hex,
    handler::{Answer, Call, FAILED, Handlers, LATER},
    journal::Point,
};
use tidings_protocol::Digest;

const IMAGE: usize = 60_000;

struct Slots {
    machine: Machine,
    scratch: tempfile::TempDir,
}

impl Slots {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let publisher = Publisher::new(common::time());
        let machine = Machine::new(
            &scratch.path().join("m"),
            &publisher.anchor,
            &octets("old", IMAGE),
            65_536,
        );
        Self { machine, scratch }
    }

    /// The handler `raw`, with an image of this name.
    fn call(&self, verb: &str, image: &str) -> Answer {
        let work = self.scratch.path().join(format!("work-{image}"));
        fs::create_dir_all(&work).unwrap();
        let (path, statement) = (
            self.scratch.path().join(image),
            self.scratch.path().join("statement"),
        );
        fs::write(&path, octets(image, IMAGE)).unwrap();
        fs::write(&statement, "").unwrap();
        let pair = |key: &str, value: String| (key.to_owned(), value);
        let digest = hex(&Digest::of(&octets(image, IMAGE)));
        let environment = [
            pair("T_FORMAT", "raw".into()),
            pair("T_SIZE", IMAGE.to_string()),
            pair("T_DIGEST", digest),
        ];
        let file = fs::File::open(&path).unwrap();
        let handlers = Handlers::new(
            &self.machine.config.paths.etc,
            &self.machine.config.paths.lib,
        );
        let payload = (verb == "stage").then_some(&file);
        let call = Call {
            folder: "format.d",
            name: "raw",
            verb,
            environment: &environment,
            work: &work,
            statement: &statement,
            payload,
        };
        handlers.call(&call).unwrap()
    }

    fn done(&self, verb: &str, image: &str) -> String {
        let answer = self.call(verb, image);
        assert!(answer.is_done(), "{verb} {image}: {answer:?}");
        answer.line
    }

    fn boot(&self) -> String {
        let silent: Point = Arc::new(|_| {});
        self.machine.boot(&silent)
    }
}

#[test]
fn what_was_armed_and_dropped_is_not_booted() {
    let slots = Slots::new();
    for verb in ["stage", "arm", "drop"] {
        slots.done(verb, "new");
    }
    assert_eq!(
        (
            slots.machine.variable("next").as_str(),
            slots.boot().as_str()
        ),
        ("", "A")
    );
}

#[test]
fn nothing_is_written_over_the_way_back_while_a_release_is_on_trial() {
    let slots = Slots::new();
    for verb in ["stage", "arm"] {
        slots.done(verb, "new");
    }
    assert_eq!(slots.boot(), "B");
    let answer = slots.call("stage", "newer");
    assert!(
        answer.code == LATER && answer.line.contains("is on trial"),
        "{answer:?}"
    );
    assert!(
        fs::read(slots.machine.slot("A"))
            .unwrap()
            .starts_with(&octets("old", IMAGE))
    );
    assert_eq!(slots.boot(), "A");
}

#[test]
fn what_has_changed_since_it_was_staged_is_not_armed() {
    let slots = Slots::new();
    slots.done("stage", "new");
    let slot = fs::File::options()
        .write(true)
        .open(slots.machine.slot("B"))
        .unwrap();
    slot.write_all_at(b"x", 30_000).unwrap();
    assert_eq!(slots.done("state", "new"), "partial");
    assert_eq!(slots.call("arm", "new").code, FAILED);
    assert_eq!(slots.machine.variable("next"), "");
    slots.done("stage", "new");
    assert_eq!(slots.done("state", "new"), "staged");
}

#[test]
fn another_release_takes_the_slot_of_one_that_was_armed_and_not_its_turn() {
    let slots = Slots::new();
    for verb in ["stage", "arm"] {
        slots.done(verb, "new");
    }
    slots.done("stage", "newer");
    assert_eq!(
        (
            slots.machine.variable("next").as_str(),
            slots.done("state", "new").as_str()
        ),
        ("", "partial")
    );
    assert_eq!(slots.done("state", "newer"), "staged");
}
