//! Publishers whose connection is cut, who crash, or who come second: one signature for a place.

use std::net::SocketAddr;

use tidings_client::{Outbox, OutboxError, PublishError, Publisher, Statement};
use tidings_protocol::Requirement;
use tidings_tests::{
    realm::Realm,
    relay::{self, Act, substitute},
    tree::read_all,
};

use crate::attacks::stage::{Stage, device, os, poll, releases, source};

const ROLES: &[&str] = &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"];

/// An origin with one release, and the outbox of a publisher.
async fn setup(realm: &Realm) -> (Stage, Outbox, Statement) {
    let mut stage = Stage::new(realm).await;
    let first = releases(realm, None, 1, &["ann"]).remove(0);
    stage.publish(std::slice::from_ref(&first)).await;
    let outbox = Outbox::open(
        stage.fixture.directory.join("outbox"),
        &realm.anchor.namespace,
    )
    .unwrap();
    (stage, outbox, first)
}

async fn publisher(realm: &Realm, at: SocketAddr) -> Publisher {
    Publisher::connect(source(realm, &[at])).await.unwrap()
}

/// A relay that cuts the connection when the broker has answered POST with this.
async fn cutting(to: SocketAddr, code: &'static str) -> SocketAddr {
    let cut = move |command: &str, answer: Vec<u8>| match command {
        "POST" if answer.starts_with(code.as_bytes()) => Act::Last(Vec::new()),
        _ => Act::Send(answer),
    };
    relay::start(&[to], cut).await.unwrap()
}

#[tokio::test]
async fn attack_092_a_post_that_is_cut_off_is_offered_again_and_never_signed_anew() {
    // Before the statement has left, and after it was stored.
    for cut in ["340", "240"] {
        let realm = Realm::new(ROLES, &["root1"]);
        let (stage, outbox, first) = setup(&realm).await;
        let second = realm.release(&os(), Some(first.head()), "2", &["ann"]);
        let mut cut_off = publisher(&realm, cutting(stage.address(), cut).await).await;
        let error = cut_off.publish_by(&outbox, &second).await.unwrap_err();
        assert!(matches!(error, PublishError::Client(_)), "{error}");
        // The next run: nothing else is signed for the place.
        let outbox = Outbox::open(
            stage.fixture.directory.join("outbox"),
            &realm.anchor.namespace,
        )
        .unwrap();
        let mut again = publisher(&realm, stage.address()).await;
        let anew = realm.release(&os(), Some(first.head()), "2-anew", &["ann"]);
        let refused = again.publish_by(&outbox, &anew).await.unwrap_err();
        assert!(
            matches!(refused, PublishError::Outbox(OutboxError::Waiting(..))),
            "{refused}"
        );
        let settled = again.settle(&outbox, &os()).await.unwrap();
        assert!(
            matches!(&settled, Some(tidings_client::Settled::Published(statement)) if *statement == second),
            "{settled:?}"
        );
        assert_eq!(
            read_all(&stage.fixture, &os()).await.unwrap(),
            [first, second.clone()]
        );
        assert_eq!(outbox.channels().unwrap(), []);
        again
            .publish_by(
                &outbox,
                &realm.release(&os(), Some(second.head()), "3", &["ann"]),
            )
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn attack_092_what_was_stored_and_followed_by_others_is_published() {
    let realm = Realm::new(ROLES, &["root1"]);
    let (mut stage, outbox, first) = setup(&realm).await;
    let second = realm.release(&os(), Some(first.head()), "2", &["ann"]);
    let mut cut_off = publisher(&realm, cutting(stage.address(), "240").await).await;
    cut_off.publish_by(&outbox, &second).await.unwrap_err();
    stage
        .publish(&releases(&realm, Some(second.head()), 3, &["ann"]))
        .await;
    let settled = publisher(&realm, stage.address())
        .await
        .settle(&outbox, &os())
        .await
        .unwrap();
    assert!(
        matches!(settled, Some(tidings_client::Settled::Published(_))),
        "{settled:?}"
    );
    assert_eq!(outbox.channels().unwrap(), []);
}

#[tokio::test]
async fn attack_092_what_has_lost_its_place_leaves_the_outbox_when_the_other_one_is_proven() {
    let realm = Realm::new(ROLES, &["root1"]);
    let (mut stage, outbox, first) = setup(&realm).await;
    let ours = realm.release(&os(), Some(first.head()), "2", &["ann"]);
    let theirs = realm.release(&os(), Some(first.head()), "2-other", &["ann"]);
    outbox.put(&ours).unwrap();
    // A broker's word that another was first is not enough.
    let id = theirs.id();
    let lie = move |command: &str, answer: Vec<u8>| match command {
        "POST" if answer.starts_with(b"240") || answer.starts_with(b"441") => Act::Send(
            format!("441 head 2 {id}; another statement is there already\r\n").into_bytes(),
        ),
        _ => Act::Send(answer),
    };
    let unproven = realm.release(&os(), Some(first.head()), "2-other", &["mallory"]);
    for shown in [vec![first.clone()], vec![first.clone(), unproven]] {
        // It swallows the POST, and shows what it likes.
        let deaf = relay::start(
            &[stage.address()],
            |command: &str, answer: Vec<u8>| match command {
                "POST" => Act::Send(b"440 not here\r\n".to_vec()),
                _ => Act::Send(answer),
            },
        )
        .await
        .unwrap();
        let behind = substitute(deaf, "test.os.stable", &shown).await;
        let liar = relay::start(&[behind], lie).await.unwrap();
        assert!(
            publisher(&realm, liar)
                .await
                .settle(&outbox, &os())
                .await
                .is_err()
        );
        assert_eq!(
            outbox.waiting(&os()).unwrap().as_ref(),
            Some(&ours),
            "it stays"
        );
    }
    stage.publish(&[theirs]).await;
    let settled = publisher(&realm, stage.address())
        .await
        .settle(&outbox, &os())
        .await
        .unwrap();
    assert!(
        matches!(&settled, Some(tidings_client::Settled::Dropped(statement, _)) if *statement == ours),
        "{settled:?}"
    );
    assert_eq!(
        poll(&mut device(&realm, &[stage.address()])).await.unwrap(),
        [1, 2]
    );
}

#[tokio::test]
async fn what_trust_cannot_take_any_more_leaves_the_outbox() {
    let mut realm = Realm::new(ROLES, &["root1"]);
    let (mut stage, outbox, first) = setup(&realm).await;
    let ours = realm.release(&os(), Some(first.head()), "2", &["ann"]);
    outbox.put(&ours).unwrap();
    let rotated = realm.rotate(
        &["trust * 1 root1", "release * 1 bob", "withdraw * 1 stop"],
        &[(&os(), first.head())],
        &["root1"],
    );
    stage.publish(&[rotated]).await;
    let settled = publisher(&realm, stage.address())
        .await
        .settle(&outbox, &os())
        .await
        .unwrap();
    let Some(tidings_client::Settled::Dropped(_, why)) = settled else {
        panic!("{settled:?}")
    };
    assert!(why.contains(&Requirement::Threshold.to_string()), "{why}");
    assert_eq!(outbox.channels().unwrap(), []);
}

#[tokio::test]
async fn what_stands_on_a_statement_that_was_filed_away_leaves_the_outbox() {
    // The thief of a release key was first; an honest release stands on that, and was not sent when
    // the key was taken away.
    let mut realm = Realm::new(
        &[
            "trust * 1 root1",
            "release * 1 ann bob",
            "withdraw * 1 stop",
        ],
        &["root1"],
    );
    let (mut stage, outbox, first) = setup(&realm).await;
    let evil = realm.release(&os(), Some(first.head()), "6.6", &["bob"]);
    stage.publish(std::slice::from_ref(&evil)).await;
    let ours = realm.release(&os(), Some(evil.head()), "3", &["ann"]);
    outbox.put(&ours).unwrap();
    let rotated = realm.rotate(ROLES, &[(&os(), first.head())], &["root1"]);
    stage.publish(&[rotated]).await;
    let mut publisher = publisher(&realm, stage.address()).await;
    let settled = publisher.settle(&outbox, &os()).await.unwrap();
    assert!(
        matches!(settled, Some(tidings_client::Settled::Dropped(..))),
        "{settled:?}"
    );
    let newest = publisher.newest(&os()).await.unwrap().unwrap();
    publisher
        .publish_by(
            &outbox,
            &realm.release(&os(), Some(newest.head()), "3", &["ann"]),
        )
        .await
        .unwrap();
}
