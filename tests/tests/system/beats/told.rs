//! What programs and people are told of beats.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use futures_util::StreamExt;
use tidings_client::{Channel, Device, Freshness, State, Statement, keys};
use tidings_tests::{
    realm::{Realm, key},
    relay::substitute,
    tree::head,
};
use tokio::time::{sleep, timeout};

use super::{PATIENCE, ROLES, os, source, start, tidings, until};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_reads_all_brokers_and_a_mirror_that_hides_something_cannot_make_it_confirm_less()
 {
    let realm = Realm::new(ROLES, &["root"]);
    let (fixture, _daemon, mut publisher) = start(&realm, "").await;
    let first = realm.release(&os(), None, "1", &["ann"]);
    let second = realm.release(&os(), Some(first.head()), "2", &["ann"]);
    for statement in [&first, &second] {
        publisher.publish(statement).await.unwrap();
    }
    let hiding = substitute(
        fixture.address,
        "test.os.stable",
        std::slice::from_ref(&first),
    )
    .await;
    let file = fixture.directory.join("beat.key");
    let run = |brokers: &[SocketAddr], more: &[&str]| {
        let mut command = tidings(
            &fixture.directory,
            &realm,
            brokers,
            &["beat", "--key", file.to_str().unwrap()],
        );
        command
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    };
    let behind = async || {
        let mut device = Device::with_state(
            source(&realm, &[hiding]),
            ["test.os.stable"],
            State::ephemeral(&realm.anchor),
        )
        .unwrap();
        device.poll().await.unwrap();
        device.freshness(&os())
    };
    // An origin that has less than a mirror is not confirmed: it may have been restored from a
    // backup.
    let once = run(&[hiding, fixture.address], &["--once"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&once.stderr).into_owned();
    assert!(
        once.status.success() && text.contains("test.os.stable is left out: another broker has 2"),
        "{text}"
    );
    assert_eq!(behind().await, Freshness::Stale { since: None });
    // The beat names the second release; behind the hiding mirror alone that is to be seen.
    let once = run(&[fixture.address, hiding], &["--once"])
        .output()
        .unwrap();
    assert!(once.status.success(), "{once:?}");
    assert_eq!(
        behind().await,
        Freshness::Behind {
            head: second.head()
        }
    );
    // As a daemon it goes on; a second signer beside it is noticed; a wrong key is refused.
    let running = Running(
        run(&[fixture.address], &["--every", "1", "--life", "5"])
            .spawn()
            .unwrap(),
    );
    let mut device = Device::with_state(
        source(&realm, &[fixture.address]),
        ["test.os.stable"],
        State::ephemeral(&realm.anchor),
    )
    .unwrap();
    device.poll().await.unwrap();
    let beats: Channel = "test.beat".parse().unwrap();
    let before = head(&fixture, &beats).await.unwrap();
    until("three more beats", async || {
        head(&fixture, &beats).await.unwrap() >= before + 3
    })
    .await;
    device.poll().await.unwrap();
    assert!(device.freshness(&os()).is_current());
    drop(running);
    let wrong = fixture.directory.join("wrong.key");
    keys::write_private(&wrong, &key("mallory"), None).unwrap();
    let with_key = |file: &std::path::Path| {
        let output = tidings(
            &fixture.directory,
            &realm,
            &[fixture.address],
            &["beat", "--once", "--key", file.to_str().unwrap()],
        )
        .output()
        .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (good, text) = with_key(&wrong);
    assert!(
        !good && text.contains("has no beat role in trust 1"),
        "{text}"
    );
    // The key is changed: the new one goes on where the old one has ended, although nothing proves
    // that any more.
    let roles = &[
        "trust * 1 root",
        "release * 1 ann",
        "withdraw * 1 stop",
        "beat * 1 mallory",
    ];
    publisher
        .publish(&realm.trust(roles, &[], &["root"]))
        .await
        .unwrap();
    let (good, text) = with_key(&wrong);
    assert!(good, "{text}");
    device.poll().await.unwrap();
    assert!(
        device.freshness(&os()).is_current(),
        "{}",
        device.freshness(&os())
    );
}

#[tokio::test]
async fn attacks_81_84_a_command_applies_only_what_may_be_applied_and_gets_the_statement_on_standard_input()
 {
    let realm = Realm::new(ROLES, &["root"]);
    let (fixture, _daemon, mut publisher) = start(&realm, "").await;
    let release = realm.release(
        &os(),
        None,
        "1; rm -rf /".replace(' ', "_").as_str(),
        &["ann"],
    );
    let beat = realm.beat(None, &[(&os(), release.head())], 600, &["beat"]);
    for statement in [&release, &beat] {
        publisher.publish(statement).await.unwrap();
    }
    let state = fixture.directory.join("agent.state");
    let run = |arguments: &[&str]| {
        let mut command = tidings(
            &fixture.directory,
            &realm,
            &[fixture.address],
            &["apply", "test.os.stable"],
        );
        command
            .args(arguments)
            .env("TIDINGS_STATE", &state)
            .current_dir(&fixture.directory)
            .output()
            .unwrap()
    };
    assert!(run(&["1"]).status.success());
    let failed = run(&["1", "--", "false"]);
    assert!(
        failed.status.code() == Some(1)
            && String::from_utf8_lossy(&failed.stderr).contains("does not count as applied"),
        "{failed:?}"
    );
    let applied = run(&["1", "--", "tee", "what"]);
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(
        std::fs::read(fixture.directory.join("what")).unwrap(),
        release.octets()
    );
    assert_eq!(
        State::look(&state, &realm.anchor)
            .unwrap()
            .view()
            .applied(&os()),
        Some(&release)
    );
    let withdrawal: Statement = realm.withdraw(&os(), release.head(), release.head(), &["stop"]);
    publisher.publish(&withdrawal).await.unwrap();
    let refused = run(&["1", "--", "touch", "never"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(5) && text.contains("1 was withdrawn by 2: it does not boot"),
        "{text}"
    );
    assert!(!fixture.directory.join("never").exists());
}

#[tokio::test]
async fn a_device_that_is_stale_is_told_all_the_same() {
    let realm = Realm::new(ROLES, &["root"]);
    let (fixture, _daemon, mut publisher) = start(&realm, "").await;
    let first = realm.release(&os(), None, "1", &["ann"]);
    publisher.publish(&first).await.unwrap();
    let state = State::ephemeral(&realm.anchor);
    // Twice the same broker: as far as the device knows there are two, and none has a beat.
    let mut device = Device::with_state(
        source(&realm, &[fixture.address, fixture.address]),
        ["test.os.stable"],
        state,
    )
    .unwrap();
    let monitor = device.monitor();
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .head(),
        first.head()
    );
    let second = realm.release(&os(), Some(first.head()), "2", &["ann"]);
    let publish = async {
        sleep(Duration::from_millis(500)).await;
        publisher.publish(&second).await.unwrap();
    };
    let told = async { timeout(PATIENCE, watch.next()).await.unwrap() };
    let ((), told) = tokio::join!(publish, told);
    assert_eq!(told.unwrap().unwrap().head(), second.head());
    assert!(!monitor.freshness(&os()).is_current());
}
