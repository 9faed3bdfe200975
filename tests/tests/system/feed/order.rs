//! What comes out of order, above a gap, or late.

use std::time::Duration;

use tidings_client::{Connection, Statement};
use tidings_protocol::nntp::code;
use tidings_tests::{
    realm::{ROLES, Realm},
    tree::{broker, connect, os, read_all, realm, releases, until_head},
};

use super::{PEER, ihave, take_these, taker};

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_trust_statement_in_one_write_is_judged_by_it() {
    let mut realm = realm();
    let (fixture, _daemon) = taker(&realm);
    let first = realm.release(&os(), None, "1", &["ann", "bob"]);
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 cem",
        "withdraw * 1 stop",
    ];
    let rotated = realm.rotate(
        &roles,
        &[(&os(), first.head())],
        &["root1", "root2", "root3"],
    );
    let second = realm.release(&os(), Some(first.head()), "2", &["cem"]);
    let mut peer = connect(&fixture).await.unwrap();
    assert_eq!(
        take_these(&mut peer, &[&realm.log[0], &first, &rotated, &second]).await,
        [239; 4]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_out_of_order_is_kept_hidden_until_the_gap_is_filled() {
    let realm = realm();
    let (fixture, daemon) = taker(&realm);
    let all = releases(&realm, &os(), None, 12, &["ann", "bob"]);
    let mut peer = connect(&fixture).await.unwrap();
    assert_eq!(
        peer.command("MODE STREAM").await.unwrap().code,
        code::STREAMING
    );

    // Without trust nothing can be judged: not now, but not never.
    let id = all[0].message_id();
    assert_eq!(
        peer.command(&format!("CHECK {id}")).await.unwrap().code,
        code::CHECK_LATER
    );
    assert_eq!(ihave(&mut peer, &all[0]).await.code, code::TRANSFER_LATER);
    assert_eq!(
        ihave(&mut peer, &realm.log[0]).await.code,
        code::TRANSFERRED
    );
    let answer = peer.command(&format!("CHECK {id}")).await.unwrap();
    assert_eq!((answer.code, answer.text), (code::WANTED, id.to_string()));

    assert_eq!(take_these(&mut peer, &[&all[0], &all[1]]).await, [239, 239]);
    // 9, 10, 8, 7 hang together: nobody sees them. 12 hangs together with nothing: not now.
    assert_eq!(
        take_these(&mut peer, &[&all[8], &all[9], &all[7], &all[6]]).await,
        [239, 239, 239, 239]
    );
    assert_eq!(ihave(&mut peer, &all[11]).await.code, code::TRANSFER_LATER);
    let marks = |connection: Option<(tidings_client::Group, Option<String>)>| {
        connection.map(|(group, _)| group.high)
    };
    assert_eq!(marks(peer.group(&os(), None).await.unwrap()), Some(2));
    let by_id = peer
        .command(&format!("STAT {}", all[8].message_id()))
        .await
        .unwrap();
    assert_eq!(by_id.code, code::NO_SUCH_ID);

    // It survives a kill, and goes on.
    daemon.kill().unwrap();
    let _daemon = fixture.start().unwrap();
    let mut peer = connect(&fixture).await.unwrap();
    assert_eq!(
        take_these(&mut peer, &[&all[5], &all[10]]).await,
        [239, 239]
    );
    assert_eq!(marks(peer.group(&os(), None).await.unwrap()), Some(2));
    assert_eq!(
        take_these(&mut peer, &[&all[2], &all[3], &all[4]]).await,
        [239, 239, 239]
    );
    assert_eq!(marks(peer.group(&os(), None).await.unwrap()), Some(11));
    assert_eq!(ihave(&mut peer, &all[11]).await.code, code::TRANSFERRED);
    assert_eq!(marks(peer.group(&os(), None).await.unwrap()), Some(12));
    assert_eq!(read_all(&fixture, &os()).await.unwrap(), all);
    // What is here is not wanted again.
    let answer = peer
        .command(&format!("CHECK {}", all[10].message_id()))
        .await
        .unwrap();
    assert_eq!(answer.code, code::CHECK_NOT_WANTED);
    assert_eq!(ihave(&mut peer, &all[3]).await.code, code::NOT_WANTED);
    assert_eq!(take_these(&mut peer, &[&all[3]]).await, [239]);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_by_retired_keys_is_taken_from_the_top_down() {
    let mut realm = realm();
    let old = releases(&realm, &os(), None, 5, &["ann", "bob"]);
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    realm.rotate(&roles, &[], &["root1", "root2"]);
    let new = releases(&realm, &os(), Some(old[4].head()), 2, &["dora"]);
    let (fixture, _daemon) = taker(&realm);
    let mut peer = connect(&fixture).await.unwrap();
    for trust in &realm.log {
        assert_eq!(ihave(&mut peer, trust).await.code, code::TRANSFERRED);
    }
    // From the bottom up nothing proves them.
    assert_eq!(ihave(&mut peer, &old[0]).await.code, code::TRANSFER_REFUSED);
    let down: Vec<&Statement> = new.iter().rev().chain(old.iter().rev()).collect();
    assert_eq!(take_these(&mut peer, &down).await, [239; 7]);
    assert_eq!(head_of(&mut peer).await, 7);
    // And a link vouches for nothing else: another statement in that place.
    let (other, _other) = taker(&realm);
    let mut peer = connect(&other).await.unwrap();
    for trust in &realm.log {
        ihave(&mut peer, trust).await;
    }
    let mut forged = Realm {
        log: vec![realm.log[0].clone()],
        ..self::realm()
    };
    forged.anchor = realm.anchor.clone();
    let forgery = forged.release(&os(), Some(old[3].head()), "6.6", &["ann", "bob"]);
    assert_eq!(
        take_these(&mut peer, &[&new[1], &new[0], &forgery, &old[4]]).await,
        [239, 239, 439, 239]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_ends_in_the_same_log() {
    let realm = realm();
    let all = releases(&realm, &os(), None, 60, &["ann", "bob"]);
    for seed in 1..=6 {
        let (fixture, _daemon) = taker(&realm);
        let mut peer = connect(&fixture).await.unwrap();
        ihave(&mut peer, &realm.log[0]).await;
        let mut random = tidings_tests::Random::new(seed);
        let mut order: Vec<&Statement> = all.iter().collect();
        for last in (1..order.len()).rev() {
            order.swap(
                last,
                usize::try_from(random.below(last as u64 + 1)).unwrap(),
            );
        }
        // Every other one twice.
        let twice: Vec<&Statement> = order
            .iter()
            .enumerate()
            .flat_map(|(at, one)| vec![*one; 1 + at % 2])
            .collect();
        assert!(
            take_these(&mut peer, &twice)
                .await
                .iter()
                .all(|code| *code == 239),
            "seed {seed}"
        );
        assert_eq!(read_all(&fixture, &os()).await.unwrap(), all, "seed {seed}");
    }
}

async fn head_of(connection: &mut Connection) -> u32 {
    connection
        .group(&os(), None)
        .await
        .unwrap()
        .map_or(0, |(group, _)| group.high)
}

const NEW_ROLES: &[&str] = &[
    "trust * 2 root1 root2 root3",
    "release * 1 dora",
    "withdraw * 1 stop",
    "beat * 1 beat",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_above_a_gap_survives_a_change_of_trust() {
    // With the same keys, and with others that vouch for it only later.
    for (roles, signer) in [(ROLES, &["ann", "bob"][..]), (NEW_ROLES, &["dora"][..])] {
        let mut realm = realm();
        let (fixture, daemon) = taker(&realm);
        let old = releases(&realm, &os(), None, 10, &["ann", "bob"]);
        let mut peer = connect(&fixture).await.unwrap();
        ihave(&mut peer, &realm.log[0]).await;
        let sent: Vec<&Statement> = old[..2].iter().chain(&old[4..]).collect();
        assert_eq!(take_these(&mut peer, &sent).await, [239; 8]);
        let rotated = realm.rotate(roles, &[(&os(), old[1].head())], &["root1", "root2"]);
        assert_eq!(ihave(&mut peer, &rotated).await.code, code::TRANSFERRED);
        daemon.kill().unwrap();
        let _daemon = fixture.start().unwrap();
        let mut peer = connect(&fixture).await.unwrap();
        // Whatever vouches for 3 and 4 is there, or comes with what is newest.
        let new = releases(&realm, &os(), Some(old[9].head()), 1, signer);
        take_these(&mut peer, &[&new[0], &old[3], &old[2]]).await;
        assert_eq!(
            read_all(&fixture, &os()).await.unwrap(),
            [&old[..], &new[..]].concat()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_vouches_in_whatever_order_and_after_a_restart() {
    for restart in [false, true] {
        for order in [[4, 3, 2], [3, 4, 2]] {
            let mut realm = realm();
            let mut all = releases(&realm, &os(), None, 2, &["ann", "bob"]);
            // By a key that is retired, and only the checkpoint above vouches for it.
            all.push(realm.withdraw(&os(), all[1].head(), all[0].head(), &["stop"]));
            all.extend(releases(
                &realm,
                &os(),
                Some(all[2].head()),
                2,
                &["ann", "bob"],
            ));
            let roles = [
                "trust * 2 root1 root2 root3",
                "release * 2 ann bob",
                "withdraw * 1 halt",
                "beat * 1 beat",
            ];
            realm.rotate(&roles, &[(&os(), all[4].head())], &["root1", "root2"]);
            let (fixture, daemon) = taker(&realm);
            let mut peer = connect(&fixture).await.unwrap();
            for trust in &realm.log {
                ihave(&mut peer, trust).await;
            }
            let [first, second, last] = order.map(|at: usize| &all[at]);
            assert_eq!(take_these(&mut peer, &[first, second]).await, [239; 2]);
            let _daemon = if restart {
                daemon.kill().unwrap();
                fixture.start().unwrap()
            } else {
                daemon
            };
            let mut peer = connect(&fixture).await.unwrap();
            assert_eq!(
                take_these(&mut peer, &[last, &all[1], &all[0]]).await,
                [239; 3],
                "{order:?}, restart {restart}"
            );
            assert_eq!(head_of(&mut peer).await, 5);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_visible_late_is_news_for_those_who_ask() {
    let realm = realm();
    let (fixture, _daemon) = taker(&realm);
    let all = releases(&realm, &os(), None, 6, &["ann", "bob"]);
    let mut peer = connect(&fixture).await.unwrap();
    ihave(&mut peer, &realm.log[0]).await;
    assert_eq!(
        take_these(&mut peer, &[&all[0], &all[2], &all[3], &all[4], &all[5]]).await,
        [239; 5]
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = peer.command("DATE").await.unwrap().text;
    assert_eq!(take_these(&mut peer, &[&all[1]]).await, [239]);
    let news = peer
        .listing(
            &format!("NEWNEWS test.os.* {} {} GMT", &since[..8], &since[8..]),
            code::NEWNEWS,
        )
        .await
        .unwrap();
    assert_eq!(news.lines().count(), 5, "{news}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_in_its_middle_is_news_too() {
    let realm = realm();
    let fixture = broker(&realm, &format!("[limits]\ngap_seconds = 10\n{PEER}")).unwrap();
    let _daemon = fixture.start().unwrap();
    let all = releases(&realm, &os(), None, 9, &["ann", "bob"]);
    let mut peer = connect(&fixture).await.unwrap();
    ihave(&mut peer, &realm.log[0]).await;
    assert_eq!(take_these(&mut peer, &[&all[4]]).await, [239]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let since = peer.command("DATE").await.unwrap().text;
    until_head(&fixture, &os(), 5).await;
    let news = peer
        .listing(
            &format!("NEWNEWS test.os.* {} {} GMT", &since[..8], &since[8..]),
            code::NEWNEWS,
        )
        .await
        .unwrap();
    assert_eq!(news.trim_end(), all[4].message_id().to_string());
    assert_eq!(
        take_these(&mut peer, &[&all[8], &all[5], &all[6], &all[7]]).await,
        [239; 4]
    );
    assert_eq!(head_of(&mut peer).await, 9);
    // And what comes after all from below is put below.
    assert_eq!(take_these(&mut peer, &[&all[3], &all[2]]).await, [239; 2]);
    assert_eq!(
        peer.group(&os(), None)
            .await
            .unwrap()
            .map(|(group, _)| group.low),
        Some(3)
    );
}
