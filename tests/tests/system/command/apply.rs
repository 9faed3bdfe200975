//! The release to run: shown, applied, and what ends a command that applies one.

use std::time::{Duration, Instant};

use tidings_client::now;
use tidings_protocol::statement::Release;

use crate::command::desk::{Desk, NO_BEATS, NOTHING, REFUSED, ROLES, WAITING, WITHDRAWN, os};

const STATE: [&str; 2] = ["--state", "device.state"];

fn next(desk: &Desk, more: &[&str]) -> crate::command::desk::Said {
    desk.run(&[&["next", "test.os.stable"], &STATE[..], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn s09_the_release_to_run_on_this_machine() {
    let mut desk = Desk::new(NO_BEATS).await;
    next(&desk, &[]).bad(4, "nothing of test.os.stable may be applied now");
    let target = |value: &str| vec![vec![("machine".to_owned(), value.to_owned())]];
    let one = desk.realm.release(&os(), None, "1", &["ann"]);
    let for_old = Release {
        version: "2".into(),
        targets: target("old"),
        ..Release::default()
    };
    let two = desk
        .realm
        .release_with(&os(), Some(one.head()), for_old, &["ann"]);
    let later = Release {
        version: "3".into(),
        not_before: Some(now().plus(86_400)),
        ..Release::default()
    };
    let three = desk
        .realm
        .release_with(&os(), Some(two.head()), later, &["ann"]);
    desk.publish(&[one, two.clone(), three]).await;
    next(&desk, &[]).good("1 ");
    let old = ["--property", "machine=old"];
    next(&desk, &old).good("release 2 (by ann)");
    let json = next(&desk, &["--json"]).text;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["serial"],
        1
    );
    assert!(
        !desk.path("device.state").exists(),
        "who looks leaves nothing behind"
    );
    next(&desk, &["--property", "machine"])
        .bad(2, "--property: expected KEY=VALUE, found \"machine\"");
    // Nothing but the release to run is applied.
    let apply =
        |more: &[&str]| desk.run(&[&["apply", "test.os.stable"], &STATE[..], more].concat());
    apply(&["2", "--", "true"]).bad(REFUSED, "2 is not the release to run now");
    apply(&["--", "sh", "-c", "cat > got"]).good("");
    assert!(desk.read("got").contains("\nVersion: 1\n"));
    next(&desk, &[]).bad(
        WAITING,
        "nothing of test.os.stable is to be run now: 3 is due at ",
    );
    apply(&["--", "true"]).bad(WAITING, "3 is due at ");
    // A command that fails is not applied, and its own code is the answer.
    apply(&["--property", "machine=old", "--", "sh", "-c", "exit 42"]).bad(
        42,
        "ended with exit status: 42; test.os.stable 2 does not count as applied",
    );
    next(&desk, &old).good("release 2 (by ann)");
    apply(&["--property", "machine=old", "--", "true"]).good("");
    let by = desk.realm.release(&os(), None, "1", &["ann"]);
    drop(by);
    assert_eq!(
        next(&desk, &["--json", "--property", "machine=old"]).code,
        WAITING
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_withdrawn_is_not_run_and_status_says_so() {
    let mut desk = Desk::new(ROLES).await;
    let all = desk.releases(&os(), 1).await;
    let beat = desk
        .realm
        .beat(None, &[(&os(), all[0].head())], 600, &["beat"]);
    desk.publish(std::slice::from_ref(&beat)).await;
    desk.run(&[&["apply", "test.os.stable"], &STATE[..], &["--", "true"]].concat())
        .good("");
    next(&desk, &[]).bad(NOTHING, "nothing of test.os.stable is to be run: 1 is applied, and there is nothing newer for this machine");
    let by = desk
        .realm
        .withdraw(&os(), all[0].head(), all[0].head(), &["stop"]);
    let beat = desk
        .realm
        .beat(Some(beat.head()), &[(&os(), by.head())], 600, &["beat"]);
    desk.publish(&[by, beat]).await;
    next(&desk, &[]).bad(
        WITHDRAWN,
        "1 was withdrawn by 2: it does not boot (spec 2-33)",
    );
    let refused = next(&desk, &["--json"]).text;
    let refusal: serde_json::Value = serde_json::from_str(refused.lines().next().unwrap()).unwrap();
    assert_eq!(
        (refusal["exit"].as_str(), refusal["requirement"].as_str()),
        (Some("withdrawn"), Some("2-33"))
    );
    desk.run(&[&["fetch", "test.os.stable"], &STATE[..]].concat())
        .good("Withdraws: 1 sha256:");
    // Who looks changes nothing, whoever works with the file at the time.
    let before = std::fs::read(desk.path("device.state")).unwrap();
    let held = tidings_client::State::open(desk.path("device.state"), &desk.realm.anchor).unwrap();
    let status = desk.run(&[&["status"], &STATE[..]].concat());
    status.bad(WITHDRAWN, "1, WITHDRAWN by 2");
    desk.run(&[&["fetch", "test.os.stable"], &STATE[..]].concat())
        .bad(WAITING, "is in use by another program");
    drop(held);
    assert_eq!(std::fs::read(desk.path("device.state")).unwrap(), before);
}

/// A wrapper that is told to end tells its command, and waits for it: no second one is
/// begun beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_told_to_end_and_waited_for() {
    let mut desk = Desk::new(NO_BEATS).await;
    desk.releases(&os(), 1).await;
    let script =
        "trap 'echo told > told; exit 7' TERM; echo begun > begun; while :; do sleep 0.05; done";
    let arguments = [
        &["apply", "test.os.stable"],
        &STATE[..],
        &["--", "sh", "-c", script],
    ]
    .concat();
    let mut child = desk
        .command(&[desk.fixture.address], &arguments)
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !desk.path("begun").exists() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the command has not begun"
        );
        tokio::task::yield_now().await;
    }
    desk.run(&[&["apply", "test.os.stable"], &STATE[..], &["--", "true"]].concat())
        .bad(WAITING, "is in use by another program");
    let status = std::process::Command::new("kill")
        .arg("-TERM")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
    let status = tokio::task::block_in_place(|| child.wait().unwrap());
    assert_eq!((status.code(), desk.read("told").trim()), (Some(7), "told"));
    next(&desk, &[]).good("1 ");
}
