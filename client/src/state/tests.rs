//! Two programs with one state file.

use tidings_protocol::Serial;

use super::*;

fn two(path: &Path) -> (State, State) {
    let anchor = format!("acme 1 sha256:{}", "a".repeat(64)).parse().unwrap();
    let watches = State::open(path, &anchor).unwrap();
    (watches, State::open_to_apply(path, &anchor).unwrap())
}

#[test]
fn what_another_program_has_written_is_known_before_anything_is_decided() {
    let directory = tempfile::tempdir().unwrap();
    let (mut watches, mut applies) = two(&directory.path().join("state"));
    applies.save().unwrap();
    let channel: Channel = "acme.os".parse().unwrap();
    watches.change(|view, _| view.note_came_with(&channel, Serial::FIRST));
    watches.save().unwrap();
    // It has nothing to write itself.
    applies.refresh().unwrap();
    let known = applies.view().known(&channel).unwrap();
    assert_eq!(known.came_with, Some(Serial::FIRST));
}

#[test]
fn two_that_begin_at_once_take_turns() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (watches, applies) = two(&path);
    let turn = watches.turn(&path).unwrap();
    let other = fs::File::open(&path).unwrap();
    assert!(file::Lock::of(other, &path).unwrap().is_none());
    // Whoever looks in between finds a whole file.
    assert!(State::look(&path, applies.anchor()).is_ok());
    drop(turn);
    applies.turn(&path).unwrap();
}
