//! What an origin does with what is published: the same for one broker and for a cluster of three.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tidings_client::{Channel, Head, Statement};
use tidings_tests::{
    Fixture,
    cluster::Site,
    ensemble::Ensemble,
    realm::Realm,
    tree::{broker, connect, os, read_all, realm, releases, until, until_head},
};

const SIGNERS: &[&str] = &["ann", "bob"];

async fn post(broker: &Fixture, statement: &Statement) -> String {
    connect(broker)
        .await
        .unwrap()
        .post(statement)
        .await
        .unwrap()
        .to_string()
}

/// The brokers are one origin, without anything in it; each thing is tried at another one.
async fn an_origin_is_an_origin(brokers: &[Fixture], mut realm: Realm) {
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        &brokers[turn % brokers.len()]
    };
    let trust_log = realm.anchor.namespace.trust_log();
    // Without trust nothing is taken, and a channel begins with its first statement.
    let first = realm.release(&os(), None, "1", SIGNERS);
    until("it says what is missing", async || {
        post(&brokers[0], &first).await.contains("has no trust yet")
    })
    .await;
    until("trust is taken", async || {
        post(&brokers[0], &realm.log[0]).await.starts_with("240")
    })
    .await;
    for broker in brokers {
        until_head(broker, &trust_log, 1).await;
    }
    let later = realm.release(&os(), Some(first.head()), "2", SIGNERS);
    assert!(
        post(next(), &later)
            .await
            .contains("its first has serial 1")
    );
    // Too few have signed, the wrong ones have, or somebody unknown.
    for signers in [&["ann"][..], &["ann", "stop"], &["eve", "mallory"]] {
        let answer = post(next(), &realm.release(&os(), None, "1", signers)).await;
        assert!(answer.starts_with("441"), "{signers:?}: {answer}");
    }
    let beyond = Realm {
        time: realm.time.plus(2 * 86_400),
        ..Realm::clone_of(&realm)
    }
    .release(&os(), None, "1", SIGNERS);
    assert!(
        post(next(), &beyond)
            .await
            .contains("after this broker's clock")
    );
    assert!(post(next(), &first).await.starts_with("240"));
    // Known wherever it is offered again; what stands in its place has lost; what is further ahead
    // has to wait.
    for _ in brokers {
        assert!(post(next(), &first).await.starts_with("240"));
    }
    let rival = realm.release(&os(), None, "rival", SIGNERS);
    let head = format!("441 head {};", first.head());
    assert!(post(next(), &rival).await.starts_with(&head));
    let above = realm.release(&os(), Some(later.head()), "3", SIGNERS);
    assert!(post(next(), &above).await.starts_with(&head));
    assert!(post(next(), &later).await.starts_with("240"));
    assert!(post(next(), &above).await.starts_with("240"));
    // Everybody at once: each place is given once, and everybody gets one in the end.
    let mut publishers = Vec::new();
    for number in 0..8 {
        let (broker, realm, after) = (next().url(), Realm::clone_of(&realm), above.head());
        publishers.push(tokio::spawn(async move {
            eager(&broker, &realm, after, number).await
        }));
    }
    let mut mine: Vec<Head> = Vec::new();
    for publisher in publishers {
        mine.push(publisher.await.unwrap());
    }
    mine.sort_by_key(|head| head.serial);
    let serials: Vec<u32> = mine.iter().map(|head| head.serial.number()).collect();
    assert_eq!(serials, (4..=11).collect::<Vec<u32>>());
    for broker in brokers {
        until_head(broker, &os(), 11).await;
        let log: Vec<Head> = read_all(broker, &os())
            .await
            .unwrap()
            .iter()
            .map(Statement::head)
            .collect();
        assert_eq!(log[3..], mine);
    }
    // A key is taken away: what it has signed before stays, and it signs nothing more, at any
    // broker, from that answer on.
    let head = *mine.last().unwrap();
    let stolen = releases(&realm, &os(), Some(head), 1, SIGNERS).remove(0);
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 2 ann cem",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    let rotation = realm.rotate(&roles, &[(&os(), head)], &["root1", "root2"]);
    assert!(post(next(), &rotation).await.starts_with("240"));
    for _ in brokers {
        let answer = post(next(), &stolen).await;
        assert!(
            answer.starts_with("441") && !answer.contains("head "),
            "{answer}"
        );
    }
    let good = realm.release(&os(), Some(head), "4", &["ann", "cem"]);
    assert!(post(next(), &good).await.starts_with("240"));
    // A trust statement that lost its place is told the head, too.
    let other = Realm {
        log: realm.log[..1].to_vec(),
        ..Realm::clone_of(&realm)
    }
    .trust(&roles, &[], &["root1", "root3"]);
    assert!(
        post(next(), &other)
            .await
            .starts_with(&format!("441 head {};", rotation.head()))
    );
    for broker in brokers {
        until_head(broker, &os(), 12).await;
        until_head(broker, &trust_log, 2).await;
    }
}

/// Signs again until it has a place.
async fn eager(url: &str, realm: &Realm, mut after: Head, number: u32) -> Head {
    let channel: Channel = os();
    let mut connection = tidings_client::Connection::open(
        &url.parse().unwrap(),
        &tidings_client::Tls::system().unwrap(),
    )
    .await
    .unwrap();
    for attempt in 0..200 {
        let statement = realm.release(
            &channel,
            Some(after),
            &format!("{number}.{attempt}"),
            SIGNERS,
        );
        let response = connection.post(&statement).await.unwrap();
        if response.code.0 == 240 {
            return statement.head();
        }
        let lost: tidings_protocol::nntp::LostRace = response
            .text
            .parse()
            .unwrap_or_else(|()| panic!("{response}"));
        after = lost.0;
        tokio::time::sleep(Duration::from_millis(u64::from(number) * 3)).await;
    }
    panic!("no place for {number}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broker() {
    let realm = realm();
    let fixture = broker(&realm, "").unwrap();
    let _daemon = fixture.start().unwrap();
    an_origin_is_an_origin(std::slice::from_ref(&fixture), realm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three() {
    let ensemble = Ensemble::start(3, "").unwrap();
    let site = Site::new(&ensemble, realm());
    let members: Vec<Fixture> = ["a", "b", "c"]
        .iter()
        .map(|name| site.member(name, "", "").unwrap())
        .collect();
    site.init(&members[0]).unwrap();
    let _daemons: Vec<_> = members
        .iter()
        .map(|member| member.start().unwrap())
        .collect();
    an_origin_is_an_origin(&members, Realm::clone_of(&site.realm)).await;
}
