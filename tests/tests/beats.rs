//! Beats from their signers to devices: the origin itself, the small daemon, and what people are
//! shown.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tidings_client::{Body, Channel, Device, Freshness, Publisher, Source, State, Statement, keys};
use tidings_tests::{
    Daemon, Fixture,
    realm::{Realm, key},
    relay::substitute,
    tree::head,
};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const ROLES: &[&str] = &[
    "trust * 1 root",
    "release * 1 ann",
    "withdraw * 1 stop",
    "beat * 1 beat",
];

fn os() -> Channel {
    "test.os.stable".parse().unwrap()
}

/// A broker for the realm, with a configuration that may name `beat.key`.
async fn start(realm: &Realm, configuration: &str) -> (Fixture, Daemon, Publisher) {
    let mut fixture = Fixture::new().unwrap();
    fixture.anchor = realm.anchor.clone();
    let file = fixture.directory.join("beat.key");
    keys::write_private(&file, &key("beat"), None).unwrap();
    fixture
        .configure(&configuration.replace("KEY", file.to_str().unwrap()))
        .unwrap();
    let daemon = fixture.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    for statement in &realm.log {
        publisher.publish(statement).await.unwrap();
    }
    (fixture, daemon, publisher)
}

fn source(realm: &Realm, brokers: &[SocketAddr]) -> Source {
    let urls: Vec<String> = brokers
        .iter()
        .map(|address| format!("nntp://{address}"))
        .collect();
    Source::new(urls.iter().map(String::as_str), &realm.anchor.to_string()).unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what} does not happen");
        sleep(Duration::from_millis(100)).await;
    }
}

fn tidings(directory: &Path, realm: &Realm, brokers: &[SocketAddr], arguments: &[&str]) -> Command {
    let urls: Vec<String> = brokers
        .iter()
        .map(|address| format!("nntp://{address}"))
        .collect();
    let mut command = tidings_tests::tidings(directory);
    command
        .args(arguments)
        .env("TIDINGS_BROKERS", urls.join(","))
        .env("TIDINGS_ANCHOR", realm.anchor.to_string());
    command
}

fn json(output: &Output) -> serde_json::Value {
    // What is wrong stands in a line of its own, behind the answer.
    let answers = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .next();
    answers
        .unwrap_or_else(|| panic!("nothing: {output:?}"))
        .unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[tokio::test]
async fn the_origin_signs_and_a_device_is_current_until_it_stops() {
    let realm = Realm::new(ROLES, &["root"]);
    let beat =
        "[[beat]]\nnamespace = \"test\"\nkey_file = \"KEY\"\nevery_seconds = 1\nlife_seconds = 10";
    let (fixture, daemon, mut publisher) = start(&realm, beat).await;
    let release = realm.release(&os(), None, "1", &["ann"]);
    publisher.publish(&release).await.unwrap();
    let state = fixture.directory.join("device.state");
    let mut device = Device::open(
        source(&realm, &[fixture.address]),
        ["test.os.stable"],
        &state,
    )
    .unwrap();
    until("CURRENT", async || {
        device.poll().await.unwrap();
        device.freshness(&os()).is_current()
    })
    .await;
    let monitor = device.monitor();
    let watching = tokio::spawn(async move {
        let watch = device.watch();
        futures_util::pin_mut!(watch);
        while watch.next().await.is_some() {}
    });
    // Beats come by push: it stays current for longer than one of them lives.
    let beats: Channel = "test.beat".parse().unwrap();
    let first = head(&fixture, &beats).await.unwrap();
    until("twelve more beats", async || {
        assert!(
            monitor.freshness(&os()).is_current(),
            "{}",
            monitor.freshness(&os())
        );
        head(&fixture, &beats).await.unwrap() >= first + 12
    })
    .await;
    let status = ["status", "--json"];
    let without = json(
        &tidings(
            &fixture.directory,
            &realm,
            &[fixture.address],
            &["status", "test.os.stable", "--json"],
        )
        .output()
        .unwrap(),
    );
    assert_eq!(
        (
            without["channels"][0]["state"].as_str(),
            without["channels"][0]["beats"].as_bool()
        ),
        (Some("CURRENT"), Some(true)),
        "{without}"
    );
    drop(daemon);
    until("STALE", async || {
        matches!(
            monitor.freshness(&os()),
            Freshness::Stale { since: Some(_) }
        )
    })
    .await;
    watching.abort();
    let _ = watching.await;
    let output = tidings(&fixture.directory, &realm, &[fixture.address], &status)
        .env("TIDINGS_STATE", &state)
        .output()
        .unwrap();
    let value = json(&output);
    assert_eq!(
        (output.status.code(), value["channels"][0]["state"].as_str()),
        (Some(4), Some("STALE")),
        "{value}"
    );
    assert_eq!(value["channels"][0]["serial"].as_u64(), Some(1));
    let table = tidings(&fixture.directory, &realm, &[fixture.address], &["status"])
        .env("TIDINGS_STATE", &state)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        text.contains("test.os.stable\tSTALE since ") && text.contains("trust 1 until "),
        "{text}"
    );
}

const TESTING: &[&str] = &[
    "trust * 1 root",
    "release * 1 ann",
    "release test.testing.* 1 tess",
    "withdraw * 1 stop",
];

/// What the newest beat of a channel names.
async fn named(fixture: &Fixture, beats: &Channel) -> Vec<Channel> {
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    let beat = publisher.newest(beats).await.unwrap();
    match beat.as_ref().map(|beat| beat.body()) {
        Some(Body::Beat(beat)) => beat
            .heads
            .iter()
            .map(|(channel, _)| channel.clone())
            .collect(),
        _ => Vec::new(),
    }
}

/// Channels with names as long as names may be, each begun by a testing key; a beat has room for
/// some three hundred.
async fn flood(realm: &Realm, publisher: &mut Publisher) -> Vec<Channel> {
    let name = |n: u32| -> Channel {
        format!("test.testing.{}{n:03}", "x".repeat(112))
            .parse()
            .unwrap()
    };
    let all: Vec<Channel> = (0..320).map(name).collect();
    for channel in &all {
        publisher
            .publish(&realm.release(channel, None, "1", &["tess"]))
            .await
            .unwrap();
    }
    all
}

#[tokio::test]
async fn attack_098_channels_with_ground_names_push_no_other_out_of_a_beat() {
    let realm = Realm::new(&[TESTING, &["beat * 1 beat"]].concat(), &["root"]);
    let beat =
        "[[beat]]\nnamespace = \"test\"\nkey_file = \"KEY\"\nevery_seconds = 1\nlife_seconds = 60";
    let (fixture, _daemon, mut publisher) = start(&realm, beat).await;
    let beats = "test.beat".parse().unwrap();
    let release = realm.release(&os(), None, "1", &["ann"]);
    publisher.publish(&release).await.unwrap();
    until("the first beat", async || {
        named(&fixture, &beats).await.contains(&os())
    })
    .await;
    let all = flood(&realm, &mut publisher).await;
    let full = async || {
        let named = named(&fixture, &beats).await;
        named.len() > 290 && named.len() < all.len()
    };
    until("a full beat", full).await;
    let named = named(&fixture, &beats).await;
    assert_eq!(
        named[..2],
        [realm.log[0].channel().clone(), os()],
        "in the order in which the signer met them"
    );
    // What came last is not named, and nothing else suffers. A new release of the first channel is
    // named in time.
    let next = realm.release(&os(), Some(release.head()), "2", &["ann"]);
    publisher.publish(&next).await.unwrap();
    let left_out = all.iter().find(|channel| !named.contains(channel)).unwrap();
    let channels = ["test.os.stable", left_out.as_str()];
    let mut device = Device::with_state(
        source(&realm, &[fixture.address]),
        channels,
        State::ephemeral(&realm.anchor),
    )
    .unwrap();
    until("CURRENT", async || {
        device.poll().await.unwrap();
        device.freshness(&os()).is_current()
    })
    .await;
    assert_eq!(device.state().head(&os()), Some(next.head()));
    assert!(
        matches!(device.freshness(left_out), Freshness::Stale { .. }),
        "{}",
        device.freshness(left_out)
    );
    assert!(
        fixture
            .log()
            .contains("a beat has no room for all channels"),
        "{}",
        fixture.log()
    );
}

#[tokio::test]
async fn attack_098_a_beat_role_of_its_own_keeps_testing_channels_out_of_the_others_beats() {
    let realm = Realm::new(
        &[TESTING, &["beat * 1 beat", "beat test.testing.* 1 beat"]].concat(),
        &["root"],
    );
    let beat =
        "[[beat]]\nnamespace = \"test\"\nkey_file = \"KEY\"\nevery_seconds = 1\nlife_seconds = 60";
    let (fixture, _daemon, mut publisher) = start(&realm, beat).await;
    let (wide, narrow) = (
        "test.beat".parse().unwrap(),
        "test.testing.beat".parse().unwrap(),
    );
    let all = flood(&realm, &mut publisher).await;
    publisher
        .publish(&realm.release(&os(), None, "1", &["ann"]))
        .await
        .unwrap();
    until("both beats", async || {
        named(&fixture, &narrow).await.len() > 290 && named(&fixture, &wide).await.contains(&os())
    })
    .await;
    assert_eq!(
        named(&fixture, &wide).await,
        [realm.log[0].channel().clone(), os()]
    );
    let channels = ["test.os.stable", all[0].as_str()];
    let mut device = Device::with_state(
        source(&realm, &[fixture.address]),
        channels,
        State::ephemeral(&realm.anchor),
    )
    .unwrap();
    until("CURRENT", async || {
        device.poll().await.unwrap();
        channels
            .iter()
            .all(|channel| device.freshness(&channel.parse().unwrap()).is_current())
    })
    .await;
}

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
