//! Beats from their signers to devices: the origin itself, the small daemon, and what people are
//! shown.
#![allow(clippy::unwrap_used)]

mod flood;
mod told;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tidings_client::{Channel, Device, Freshness, Publisher, Source, keys};
use tidings_tests::{
    Daemon, Fixture,
    realm::{Realm, key},
    tree::head,
};
use tokio::time::sleep;

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
