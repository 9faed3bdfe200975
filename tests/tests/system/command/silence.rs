//! What would be a silence says something: names that are written wrong, times that have passed,
//! nothing that is new, brokers that are passed over.

use crate::command::desk::{Desk, NO_BEATS, os};
use tidings_tests::{free_address, realm::Realm};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_wrong_is_said() {
    let groups = "[[slot]]\ngroup = \"web\"\n[fleetlock]\nlisten = [\"FREE-ADDRESS\"]\n";
    let mut desk = Desk::with(Realm::new(NO_BEATS, &["root"]), groups).await;
    desk.releases(&os(), 2).await;
    let fetch = ["fetch", "test.os.stable", "--state", "s"];
    desk.run(&fetch).good("Serial: 2");
    desk.run(&fetch)
        .good("nothing is new in test.os.stable: 2 is known");
    desk.run(&["fetch", "test.os.stabel"])
        .good("there is no channel test.os.stabel yet");
    for command in [
        &["status", "test.os.stabel"][..],
        &["next", "test.os.stabel", "--state", "s"],
        &["apply", "test.os.stabel", "1", "--state", "s"],
    ] {
        let said = desk.run(command).text;
        assert!(said.contains("no channel test.os.stabel yet"), "{said}");
    }
    desk.release(&["--version", "3", "--deadline", "2026-01-01T00:00:00Z"])
        .good("the deadline 2026-01-01T00:00:00Z has passed already");
    let server = format!("http://{}", desk.fixture.slot_address().unwrap());
    let (slot, at) = (
        ["--slot", "wbe", "--apply", "reboot"],
        ["--slot-server", &server],
    );
    desk.release(&[&["--version", "4"], &slot[..], &at].concat())
        .good("the slot server has no group wbe");
    // A channel that may begin later is waited for, but not in silence.
    let mut child = desk
        .command(&[desk.fixture.address], &["watch", "test.os.stabel"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let stderr = child.stderr.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stderr), &mut said).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.contains("no channel test.os.stabel yet"), "{said}");
}

/// Every command that reads goes on to the next broker, and says which it has passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_passed_over_is_named() {
    let mut desk = Desk::new(NO_BEATS).await;
    desk.releases(&os(), 1).await;
    let dead = free_address().unwrap();
    for command in [
        &["log", "test.os.stable"][..],
        &["export", "test.os.stable", "--out", "batch"],
        &["trust", "log", "--out", "trust.log"],
        &["next", "test.os.stable", "--state", "s"],
        &["apply", "test.os.stable", "1", "--applied", "--state", "s"],
    ] {
        let said = desk.run_at(&[dead, desk.fixture.address], command);
        said.good(&dead.to_string());
    }
}

/// One program watches, another one applies: what either learns, both have.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_and_an_apply_use_one_state() {
    use tidings_client::State;
    let mut desk = Desk::new(NO_BEATS).await;
    desk.releases(&os(), 2).await;
    desk.run(&["fetch", "test.os.stable", "--state", "s"])
        .good("Serial: 2");
    let anchor = desk.realm.anchor.clone();
    let mut watching = State::open(desk.path("s"), &anchor).unwrap();
    desk.run(&["apply", "test.os.stable", "2", "--state", "s", "--", "cat"])
        .good("Serial: 2");
    let serial = |state: &State| state.view().applied(&os()).map(|of| of.serial().number());
    assert_eq!(serial(&watching), None, "it has not looked since");
    let other = "test.other".parse().unwrap();
    watching.change(|view, _| view.note_came_with(&other, tidings_client::Serial::FIRST));
    watching.save().unwrap();
    assert_eq!(serial(&watching), Some(2));
    let both = State::look(desk.path("s"), &anchor).unwrap();
    assert_eq!(serial(&both), Some(2));
    assert!(both.view().known(&other).is_some());
}
