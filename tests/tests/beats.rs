//! Beats from their signers to devices: the origin itself, the small daemon, shards, and what people are shown.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tidings_client::{Channel, Device, Freshness, Publisher, Source, State, Statement, keys};
use tidings_tests::{
    Daemon, Fixture, binary,
    realm::{Realm, key},
    relay::substitute,
};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const ROLES: &[&str] = &["trust * 1 root", "release * 1 ann", "withdraw * 1 stop", "beat * 1 beat"];

fn os() -> Channel {
    "test.os.stable".parse().unwrap()
}

/// A broker for the realm, with a configuration that may name `beat.key`.
async fn start(realm: &Realm, configuration: &str) -> (Fixture, Daemon, Publisher) {
    let mut fixture = Fixture::new().unwrap();
    fixture.anchor = realm.anchor.clone();
    let file = fixture.directory.join("beat.key");
    keys::write_private(&file, &key("beat"), None).unwrap();
    fixture.configure(&configuration.replace("KEY", file.to_str().unwrap())).unwrap();
    let daemon = fixture.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    for statement in &realm.log {
        publisher.publish(statement).await.unwrap();
    }
    (fixture, daemon, publisher)
}

fn source(realm: &Realm, brokers: &[SocketAddr]) -> Source {
    let urls: Vec<String> = brokers.iter().map(|address| format!("nntp://{address}")).collect();
    Source::new(urls.iter().map(String::as_str), &realm.anchor.to_string()).unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what} does not happen");
        sleep(Duration::from_millis(100)).await;
    }
}

fn tidings(realm: &Realm, brokers: &[SocketAddr], arguments: &[&str]) -> Command {
    let urls: Vec<String> = brokers.iter().map(|address| format!("nntp://{address}")).collect();
    let mut command = Command::new(binary("tidings"));
    command.args(arguments).env("TIDINGS_BROKERS", urls.join(",")).env("TIDINGS_ANCHOR", realm.anchor.to_string());
    command
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[tokio::test]
async fn the_origin_signs_and_a_device_is_current_until_it_stops() {
    let realm = Realm::new(ROLES, &["root"]);
    let beat = "[[beat]]\nnamespace = \"test\"\nkey_file = \"KEY\"\nevery_seconds = 1\nlife_seconds = 3";
    let (fixture, daemon, mut publisher) = start(&realm, beat).await;
    let release = realm.release(&os(), None, "1", &["ann"]);
    publisher.publish(&release).await.unwrap();
    let state = fixture.directory.join("device.state");
    let mut device = Device::open(source(&realm, &[fixture.address]), ["test.os.stable"], &state).unwrap();
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
    for _ in 0..60 {
        sleep(Duration::from_millis(100)).await;
        assert!(monitor.freshness(&os()).is_current(), "{}", monitor.freshness(&os()));
    }
    let status = ["status", "--json"];
    let without = json(&tidings(&realm, &[fixture.address], &["status", "test.os.stable", "--json"]).output().unwrap());
    assert_eq!((without["channels"][0]["state"].as_str(), without["beats"].as_bool()), (Some("CURRENT"), Some(true)), "{without}");
    drop(daemon);
    until("STALE", async || matches!(monitor.freshness(&os()), Freshness::Stale { since: Some(_) })).await;
    watching.abort();
    let _ = watching.await;
    let output = tidings(&realm, &[fixture.address], &status).env("TIDINGS_STATE", &state).output().unwrap();
    let value = json(&output);
    assert_eq!((output.status.code(), value["channels"][0]["state"].as_str()), (Some(1), Some("STALE")), "{value}");
    assert_eq!(value["channels"][0]["serial"].as_u64(), Some(1));
    let table = tidings(&realm, &[fixture.address], &["status"]).env("TIDINGS_STATE", &state).output().unwrap();
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("test.os.stable\tSTALE since ") && text.contains("trust 1 until "), "{text}");
}

#[tokio::test]
async fn a_thousand_channels_are_confirmed_through_shards() {
    let realm = Realm::new(ROLES, &["root"]);
    let beat = "[[beat]]\nnamespace = \"test\"\nkey_file = \"KEY\"\nevery_seconds = 1\nlife_seconds = 60";
    let (fixture, _daemon, mut publisher) = start(&realm, beat).await;
    let name = |n: u32| -> Channel { format!("test.product-{n}.of-some-length.stable").parse().unwrap() };
    for n in 0..1_000 {
        publisher.publish(&realm.release(&name(n), None, "1", &["ann"])).await.unwrap();
    }
    let channels: Vec<String> = [0, 1, 500, 999].map(|n| name(n).to_string()).to_vec();
    let state = State::ephemeral(&realm.anchor);
    let mut device = Device::with_state(source(&realm, &[fixture.address]), channels.iter().map(String::as_str), state).unwrap();
    let all_current = |device: &Device| channels.iter().all(|channel| device.freshness(&channel.parse().unwrap()).is_current());
    until("CURRENT", async || {
        device.poll().await.unwrap();
        all_current(&device)
    })
    .await;
    assert!(device.state().view().channels().any(|channel| channel.as_str().starts_with("test.shard-")), "there are no shards");
    // A release in one of them: one shard is signed anew, and comes by push with the beat that names it.
    let first = name(0);
    let head = device.state().head(&first).unwrap();
    let monitor = device.monitor();
    let next = realm.release(&first, Some(head), "2", &["ann"]);
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    let told = timeout(PATIENCE, async {
        sleep(Duration::from_millis(300)).await;
        publisher.publish(&next).await.unwrap();
        sleep(Duration::from_secs(2)).await;
    });
    let (told, statement) = tokio::join!(told, timeout(PATIENCE, watch.next()));
    told.unwrap();
    assert_eq!(statement.unwrap().unwrap().unwrap().head(), next.head());
    assert!(monitor.freshness(&first).is_current(), "{}", monitor.freshness(&first));
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_reads_all_brokers_and_a_mirror_that_hides_something_cannot_make_it_confirm_less() {
    let realm = Realm::new(ROLES, &["root"]);
    let (fixture, _daemon, mut publisher) = start(&realm, "").await;
    let first = realm.release(&os(), None, "1", &["ann"]);
    let second = realm.release(&os(), Some(first.head()), "2", &["ann"]);
    for statement in [&first, &second] {
        publisher.publish(statement).await.unwrap();
    }
    let hiding = substitute(fixture.address, "test.os.stable", std::slice::from_ref(&first)).await;
    let file = fixture.directory.join("beat.key");
    let run = |brokers: &[SocketAddr], more: &[&str]| {
        let mut command = tidings(&realm, brokers, &["beat", "--key", file.to_str().unwrap()]);
        command.args(more).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let once = run(&[hiding, fixture.address], &["--once"]).output().unwrap();
    assert!(once.status.success(), "{once:?}");
    // The beat names the second release; behind the hiding mirror alone that is to be seen.
    let mut device = Device::with_state(source(&realm, &[hiding]), ["test.os.stable"], State::ephemeral(&realm.anchor)).unwrap();
    device.poll().await.unwrap();
    assert_eq!(device.freshness(&os()), Freshness::Behind { head: second.head() });
    // As a daemon it goes on; a second signer beside it is noticed; a wrong key is refused.
    let running = Running(run(&[fixture.address], &["--every", "1", "--life", "5"]).spawn().unwrap());
    let mut device = Device::with_state(source(&realm, &[fixture.address]), ["test.os.stable"], State::ephemeral(&realm.anchor)).unwrap();
    device.poll().await.unwrap();
    let before = device.state().head(&"test.beat".parse().unwrap()).unwrap().serial;
    until("a third beat", async || {
        device.poll().await.unwrap();
        device.state().head(&"test.beat".parse().unwrap()).unwrap().serial.number() >= before.number() + 2
    })
    .await;
    assert!(device.freshness(&os()).is_current());
    drop(running);
    let wrong = fixture.directory.join("wrong.key");
    keys::write_private(&wrong, &key("mallory"), None).unwrap();
    let with_key = |file: &std::path::Path| {
        let output = tidings(&realm, &[fixture.address], &["beat", "--once", "--key", file.to_str().unwrap()]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (good, text) = with_key(&wrong);
    assert!(!good && text.contains("needs 1 signatures of beat"), "{text}");
    // The key is changed: the new one goes on where the old one has ended, although nothing proves that any more.
    let roles = &["trust * 1 root", "release * 1 ann", "withdraw * 1 stop", "beat * 1 mallory"];
    publisher.publish(&realm.trust(roles, &[], &["root"])).await.unwrap();
    let (good, text) = with_key(&wrong);
    assert!(good, "{text}");
    device.poll().await.unwrap();
    assert!(device.freshness(&os()).is_current(), "{}", device.freshness(&os()));
}

#[tokio::test]
async fn attacks_81_84_a_command_applies_only_what_may_be_applied_and_gets_the_statement_on_standard_input() {
    let realm = Realm::new(ROLES, &["root"]);
    let (fixture, _daemon, mut publisher) = start(&realm, "").await;
    let release = realm.release(&os(), None, "1; rm -rf /".replace(' ', "_").as_str(), &["ann"]);
    let beat = realm.beat(None, &[(&os(), release.head())], 600, &["beat"]);
    for statement in [&release, &beat] {
        publisher.publish(statement).await.unwrap();
    }
    let state = fixture.directory.join("agent.state");
    let run = |arguments: &[&str]| {
        let mut command = tidings(&realm, &[fixture.address], &["apply", "test.os.stable"]);
        command.args(arguments).env("TIDINGS_STATE", &state).current_dir(&fixture.directory).output().unwrap()
    };
    assert!(run(&["1"]).status.success());
    let failed = run(&["1", "--", "false"]);
    assert!(failed.status.code() == Some(1) && String::from_utf8_lossy(&failed.stderr).contains("does not count as applied"), "{failed:?}");
    let applied = run(&["1", "--", "tee", "what"]);
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(std::fs::read(fixture.directory.join("what")).unwrap(), release.octets());
    assert_eq!(State::look(&state, &realm.anchor).unwrap().view().applied(&os()), Some(&release));
    let withdrawal: Statement = realm.withdraw(&os(), release.head(), release.head(), &["stop"]);
    publisher.publish(&withdrawal).await.unwrap();
    let refused = run(&["1", "--", "touch", "never"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && text.contains("it was withdrawn by 2: it does not boot"), "{text}");
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
    let mut device = Device::with_state(source(&realm, &[fixture.address, fixture.address]), ["test.os.stable"], state).unwrap();
    let monitor = device.monitor();
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap().head(), first.head());
    let second = realm.release(&os(), Some(first.head()), "2", &["ann"]);
    let publish = async {
        sleep(Duration::from_millis(500)).await;
        publisher.publish(&second).await.unwrap();
        Instant::now()
    };
    let told = async { (timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap(), Instant::now()) };
    let (published, (told, at)) = tokio::join!(publish, told);
    assert_eq!(told.head(), second.head());
    assert!(at.saturating_duration_since(published) < Duration::from_millis(500), "it was asked for, not told");
    assert!(!monitor.freshness(&os()).is_current());
}
