//! Pull mirrors: they copy, they verify all of it, and they serve nothing that they cannot prove.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use tidings_client::{Channel, Connection, Device, Head, Publisher, Serial, Source, Start, State, Statement, Tls};
use tidings_protocol::nntp::code;
use tidings_tests::{
    Daemon, Fixture,
    realm::{ROLES, Realm},
};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(30);

fn os() -> Channel {
    "test.os.stable".parse().unwrap()
}

async fn connect(fixture: &Fixture) -> Connection {
    Connection::open(&fixture.url().parse().unwrap(), &Tls::system().unwrap()).await.unwrap()
}

/// The highest serial of a channel; 0 where it is not.
async fn head(fixture: &Fixture, channel: &Channel) -> u32 {
    let mut connection = connect(fixture).await;
    connection.group(channel, None).await.unwrap().map_or(0, |(group, _)| group.high)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what} does not happen");
        sleep(Duration::from_millis(50)).await;
    }
}

/// An origin for a realm.
async fn origin(realm: &Realm) -> (Fixture, Daemon, Publisher) {
    let mut fixture = Fixture::new().unwrap();
    fixture.anchor = realm.anchor.clone();
    fixture.configure("").unwrap();
    let daemon = fixture.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    for statement in &realm.log {
        publisher.publish(statement).await.unwrap();
    }
    (fixture, daemon, publisher)
}

fn realm() -> Realm {
    Realm::new(ROLES, &["root1", "root2"])
}

async fn publish(realm: &Realm, publisher: &mut Publisher, channel: &Channel, after: Option<Head>, count: u32, by: &[&str]) -> Head {
    let mut head = after;
    for _ in 0..count {
        let version = format!("1.{}", head.map_or(1, |head| head.serial.number() + 1));
        let statement = realm.release(channel, head, &version, by);
        publisher.publish(&statement).await.unwrap();
        head = Some(statement.head());
    }
    head.unwrap()
}

/// Everything that a device reads of a channel, from the first statement on.
async fn all(fixture: &Fixture, channel: &Channel) -> Vec<Statement> {
    let source: Source = fixture.source().unwrap();
    let state = State::ephemeral(source.anchor());
    let mut device = Device::with_state(source, [channel.as_str()], state).unwrap().with_start(Start::Oldest);
    device.poll().await.unwrap().into_iter().map(|statement| statement.into_inner()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_a_mirror_has_everything_and_tells_of_what_is_new() {
    let mut realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm).await;
    // The history was signed by keys that are retired: only what came later vouches for it.
    let old = publish(&realm, &mut publisher, &os(), None, 300, &["ann", "bob"]).await;
    let roles = ["trust * 2 root1 root2 root3", "release * 1 dora", "withdraw * 1 stop", "beat * 1 beat"];
    let rotated = realm.rotate(&roles, &[(&os(), old)], &["root1", "root2"]);
    publisher.publish(&rotated).await.unwrap();
    let head_of_300 = publish(&realm, &mut publisher, &os(), Some(old), 5, &["dora"]).await;

    let region = origin.mirror_of(&[origin.address], "").unwrap();
    let _region = region.start().unwrap();
    let leaf = origin.mirror_of(&[region.address], "").unwrap();
    let _leaf = leaf.start().unwrap();
    until("the leaf has everything", async || head(&leaf, &os()).await == 305).await;
    let copied = all(&leaf, &os()).await;
    assert_eq!(copied.len(), 305);
    assert_eq!(copied, all(&origin, &os()).await);

    // What is new comes within moments, and a channel of the future comes by itself.
    let began = Instant::now();
    publish(&realm, &mut publisher, &os(), Some(head_of_300), 1, &["dora"]).await;
    until("the leaf is told", async || head(&leaf, &os()).await == 306).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let new: Channel = "test.new.channel".parse().unwrap();
    publish(&realm, &mut publisher, &new, None, 3, &["dora"]).await;
    until("the new channel is there", async || head(&leaf, &new).await == 3).await;

    // The way that it came can be seen.
    let path = connect(&leaf).await.listing("HEAD <0@x>", code::HEAD).await.is_err();
    assert!(path);
    let mut connection = connect(&leaf).await;
    connection.group(&os(), None).await.unwrap();
    let headers = connection.listing("HEAD 306", code::HEAD).await.unwrap();
    assert!(headers.starts_with("Path: broker.invalid!broker.invalid!broker.invalid!not-for-mail\n"), "{headers}");

    // A mirror begins nothing itself.
    let next = realm.release(&new, Some(all(&leaf, &new).await[2].head()), "2", &["dora"]);
    let refused = connect(&leaf).await.post(&next).await.unwrap();
    assert_eq!((refused.code, refused.text.contains("origin")), (code::POST_FAILED, true), "{refused}");
    let _ = Serial::FIRST;
}
