//! Attack 98: channels with ground names push no other out of a beat.

use tidings_client::{Body, Channel, Device, Freshness, Publisher, State};
use tidings_tests::{Fixture, realm::Realm};

use super::{os, source, start, until};

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
