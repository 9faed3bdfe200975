//! `tidings slot`, and `tidings apply` of a release that wants a slot.
#![allow(clippy::unwrap_used)]

use std::process::Output;

use tidings_client::{Release, Serial};
use tidings_protocol::slot::SlotName;
use tidings_tests::{
    Fixture,
    slots::GROUPS,
    tree::{origin, os, until},
};

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
}

fn serial(number: u32) -> Serial {
    Serial::new(number).unwrap()
}

fn tidings(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.tidings().args(arguments).output().unwrap()
}

/// `tidings apply` takes a slot, if the release wants one; `tidings slot` is for everything else.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_turns() {
    let roles = ["trust * 1 root", "release * 1 ann", "withdraw * 1 ann"];
    let realm = tidings_tests::realm::Realm::new(&roles, &["root"]);
    let (fixture, _daemon, mut publisher) = origin(&realm, GROUPS).await.unwrap();
    let release = Release {
        version: "2".into(),
        slot: Some("single".into()),
        ..Release::default()
    };
    publisher
        .publish(&realm.release_with(&os(), None, release, &["ann"]))
        .await
        .unwrap();
    let state = fixture.directory.join("state");
    let state = state.to_str().unwrap();
    let apply = |more: &[&str]| {
        let arguments = [&["apply", "test.os.stable", "1", "--state", state], more].concat();
        tidings(&fixture, &arguments)
    };
    let without = apply(&["--", "true"]);
    assert!(
        !without.status.success() && String::from_utf8_lossy(&without.stderr).contains("--node"),
        "{without:?}"
    );
    let token = tidings(&fixture, &["slot", "take", "single", "other", "1"]);
    let token = String::from_utf8(token.stdout).unwrap();
    let list = |group: &str| {
        String::from_utf8(tidings(&fixture, &["slot", "list", group]).stdout).unwrap()
    };
    assert_eq!(list("web"), "group idle 2 600 1\n");
    let waits = apply(&["--node", "me", "--slot-wait", "0", "--", "true"]);
    assert!(
        !waits.status.success()
            && String::from_utf8_lossy(&waits.stderr).contains("1 are before this node"),
        "{waits:?}"
    );
    assert!(
        tidings(&fixture, &["slot", "hold", "single", "other", token.trim()])
            .status
            .success()
    );
    assert!(
        tidings(&fixture, &["slot", "free", "single", "other", token.trim()])
            .status
            .success()
    );
    // A command that fails keeps the slot: nobody else goes down until the machine is well, or has
    // failed.
    assert!(!apply(&["--node", "me", "--", "false"]).status.success());
    let shown = list("single");
    assert!(shown.contains("\nholder me 1 "), "{shown}");
    // Nor does a second try free it that does not even begin: the first one may have failed
    // halfway.
    let again = apply(&["--node", "me", "--", "./is-not-there"]);
    assert!(!again.status.success(), "{again:?}");
    let shown = list("single");
    assert!(shown.contains("\nholder me 1 "), "{shown}");
    assert!(apply(&["--node", "me", "--", "true"]).status.success());
    let shown = list("single");
    assert!(!shown.contains("me"), "{shown}");
    let log = String::from_utf8(tidings(&fixture, &["slot", "log", "single"]).stdout).unwrap();
    assert!(log.trim_end().ends_with("freed me"), "{log}");
    // What reboots keeps its slot until the machine is back.
    let channel: tidings_client::Channel = "test.os.kernel".parse().unwrap();
    let way = Some(tidings_protocol::statement::Apply::Reboot);
    let release = Release {
        version: "3".into(),
        slot: Some("single".into()),
        apply: way,
        ..Release::default()
    };
    publisher
        .publish(&realm.release_with(&channel, None, release, &["ann"]))
        .await
        .unwrap();
    let apply = |more: &[&str]| {
        let arguments = [
            &[
                "apply",
                "test.os.kernel",
                "1",
                "--state",
                state,
                "--node",
                "me",
            ],
            more,
        ]
        .concat();
        tidings(&fixture, &arguments)
    };
    let holds = || list("single").contains("\nholder me 1 ");
    assert!(!apply(&["--", "/nonexistent/command"]).status.success() && !holds());
    let gone = apply(&["--", "true"]);
    assert!(
        gone.status.success()
            && String::from_utf8_lossy(&gone.stderr).contains("--applied --node me"),
        "{gone:?}"
    );
    assert!(holds());
    assert!(apply(&["--applied"]).status.success() && !holds());
    // Without a slot there is nothing to free.
    assert!(apply(&["--applied"]).status.success() && !holds());
}

/// A release that was withdrawn while a machine has waited for its turn is not applied (attack 81).
#[tokio::test(flavor = "multi_thread")]
async fn attack_81_what_is_withdrawn_while_a_machine_waits_is_not_applied() {
    let roles = ["trust * 1 root", "release * 1 ann", "withdraw * 1 ann"];
    let realm = tidings_tests::realm::Realm::new(&roles, &["root"]);
    let (fixture, _daemon, mut publisher) = origin(&realm, GROUPS).await.unwrap();
    let release = Release {
        version: "2".into(),
        slot: Some("web".into()),
        ..Release::default()
    };
    let release = realm.release_with(&os(), None, release, &["ann"]);
    publisher.publish(&release).await.unwrap();
    let web = name("web");
    let mut others = fixture.slots().unwrap();
    let (a, b) = (
        others.take(&web, &name("a"), serial(1)).await.unwrap(),
        others.take(&web, &name("b"), serial(1)).await.unwrap(),
    );
    let ran = fixture.directory.join("ran");
    let waiting = fixture
        .tidings()
        .args([
            "apply",
            "test.os.stable",
            "1",
            "--node",
            "me",
            "--state",
            fixture.directory.join("state").to_str().unwrap(),
            "--",
            "touch",
        ])
        .arg(&ran)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until("it waits", async || {
        let waiting = others.status(&web).await.unwrap().waiting;
        waiting.iter().any(|waiter| waiter.id == "me")
    })
    .await;
    publisher
        .publish(&realm.withdraw(&os(), release.head(), release.head(), &["ann"]))
        .await
        .unwrap();
    for (node, token) in [("a", a.token), ("b", b.token)] {
        others.free(&web, &name(node), token).await.unwrap();
    }
    let output = waiting.wait_with_output().unwrap();
    assert!(
        !output.status.success()
            && String::from_utf8_lossy(&output.stderr).contains("was withdrawn"),
        "{output:?}"
    );
    assert!(!ran.exists());
    // It has not gone down, and gives its turn to others.
    assert!(others.status(&web).await.unwrap().holders.is_empty());
}

/// What has ended well counts as applied, and is not run again, although its lease has run out
/// meanwhile; and it is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_machine_has_applied_what_it_has_applied() {
    let realm = tidings_tests::realm::Realm::new(
        &["trust * 1 root", "release * 1 ann", "withdraw * 1 ann"],
        &["root"],
    );
    let (fixture, _daemon, mut publisher) = origin(&realm, GROUPS).await.unwrap();
    let release = Release {
        version: "2".into(),
        slot: Some("short".into()),
        ..Release::default()
    };
    publisher
        .publish(&realm.release_with(&os(), None, release, &["ann"]))
        .await
        .unwrap();
    let state = fixture.directory.join("state");
    let state = state.to_str().unwrap();
    let late = tidings(
        &fixture,
        &[
            "apply",
            "test.os.stable",
            "1",
            "--state",
            state,
            "--node",
            "me",
            "--",
            "sleep",
            "4",
        ],
    );
    let said = String::from_utf8_lossy(&late.stderr);
    assert!(
        !late.status.success()
            && said.contains("is applied, but the slot could not be freed")
            && said.contains("counts as failed"),
        "{late:?}"
    );
    let status = tidings(
        &fixture,
        &["status", "test.os.stable", "--json", "--state", state],
    );
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["channels"][0]["applied"], 1);
}

/// What a program reads, and how a refusal ends.
#[tokio::test(flavor = "multi_thread")]
async fn slots_as_json_and_refusals_with_their_codes() {
    let (fixture, _daemon, _publisher) =
        origin(&tidings_tests::tree::realm(), GROUPS).await.unwrap();
    let json = |arguments: &[&str]| {
        let output = tidings(&fixture, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let first = text.lines().next().unwrap_or("null");
        let value: serde_json::Value = serde_json::from_str(first).unwrap();
        (output.status.code().unwrap(), value)
    };
    let (code, taken) = json(&["--json", "slot", "take", "web", "a", "3"]);
    assert!(code == 0 && taken["token"].is_string(), "{taken}");
    let (_, group) = json(&["--json", "slot", "list", "web"]);
    assert_eq!(
        (&group["state"], &group["holders"][0]["id"]),
        (&"busy".into(), &"a".into())
    );
    let (_, event) = json(&["--json", "slot", "log", "web"]);
    assert_eq!(event["what"], "taken");
    for (code, arguments) in [
        (3, &["slot", "hold", "web", "a", "1"][..]),
        (3, &["slot", "take", "nobody", "a", "3"]),
        (3, &["slot", "clear", "single", "a"]),
        (
            2,
            &["slot", "list", "web", "--slot-server", "nntp://127.0.0.1"],
        ),
        (2, &["slot", "list", "web", "--slot-bearer-file", "bearer"]),
        (
            7,
            &["slot", "list", "web", "--slot-server", "http://127.0.0.1:1"],
        ),
    ] {
        std::fs::write(fixture.directory.join("bearer"), "secret\n").unwrap();
        let output = tidings(&fixture, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
    }
    assert!(
        tidings(&fixture, &["slot", "clear", "web", "a"])
            .status
            .success()
    );
    let (_, group) = json(&["--json", "slot", "list", "web"]);
    assert_eq!(group["state"], "idle");
}
