//! Nothing keeps back what it has nothing to do with. Each of these was possible once.

use futures_util::StreamExt;
use tidings_client::{Device, Error, Start, State, Statement};
use tidings_protocol::Requirement;
use tidings_tests::{
    realm::{ROLES, Realm, key},
    relay::{self, Act, substitute},
};
use tokio::time::timeout;

use super::found::old;
use crate::attacks::stage::{
    BOTH, NO_BEATS, PATIENCE, ROOTS, Stage, clear, device, os, poll, releases, serial, source,
};

#[tokio::test]
async fn attack_42_a_trust_statement_that_needs_a_newer_version_keeps_nothing_back() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    stage.publish(&releases(&realm, None, 1, BOTH)).await;
    let next = realm.trust(NO_BEATS, &[], &[]);
    let text = String::from_utf8(next.signed_part().to_vec()).unwrap()
        + "Colour: blue\nCritical: Colour\n";
    let next = Statement::parse_draft(text.as_bytes()).unwrap();
    let next = ROOTS
        .iter()
        .fold(next, |next, name| next.sign(&key(name)).unwrap());
    assert!(
        stage
            .refusal(&next)
            .await
            .contains(&Requirement::Critical.to_string())
    );
    // What is signed under it is not accepted; other channels go on.
    let other = "test.zz.other".parse().unwrap();
    let mut ahead = old(&realm, 1);
    ahead.log.push(next.clone());
    let under = ahead.release(&other, None, "1", BOTH);
    let newer = substitute(stage.address(), "test.trust", &[realm.log[0].clone(), next]).await;
    let newer = substitute(newer, "test.zz.other", &[under]).await;
    let state = State::ephemeral(&realm.anchor);
    let mut device = Device::with_state(
        source(&realm, &[newer]),
        ["test.zz.other", "test.os.stable"],
        state,
    )
    .unwrap();
    assert_eq!(
        poll(&mut device).await.unwrap(),
        [1],
        "the trust before stays in force"
    );
    assert_eq!(device.state().head(&other), None);
    clear(&mut device, 1).await.unwrap();
    // In a watch it comes first of all, each time, and is no reason to end the watch.
    let forged = realm.trust(NO_BEATS, &[], &[]);
    let text = String::from_utf8(forged.signed_part().to_vec()).unwrap()
        + "Colour: blue\nCritical: Colour\n";
    let forged = Statement::parse_draft(text.as_bytes()).unwrap();
    let forged = ROOTS
        .iter()
        .fold(forged, |next, name| next.sign(&key(name)).unwrap());
    let in_front = move |command: &str, answer: Vec<u8>| match command {
        "XWATCH" if answer.starts_with(b"2 ") => {
            Act::Send([relay::forge(&answer, &forged, None), answer].concat())
        }
        _ => Act::Send(answer),
    };
    let newer = relay::start(&[stage.address()], in_front).await.unwrap();
    device.set_source(source(&realm, &[newer])).unwrap();
    stage
        .publish(&releases(&realm, device.state().head(&os()), 1, BOTH))
        .await;
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .serial(),
        serial(2)
    );
}

#[tokio::test]
async fn attack_26_what_is_missing_of_one_channel_keeps_nothing_back_from_another() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    stage.publish(&releases(&realm, None, 3, BOTH)).await;
    let other = "test.zz.other".parse().unwrap();
    stage
        .publish(&[realm.release(&other, None, "1", BOTH)])
        .await;
    let lie = |command: &str, answer: Vec<u8>| match command {
        "ARTICLE 2" => Act::Send(b"423 no such article\r\n".to_vec()),
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[stage.address()], lie).await.unwrap();
    let state = State::ephemeral(&realm.anchor);
    let mut device = Device::with_state(
        source(&realm, &[liar]),
        ["test.os.stable", "test.zz.other"],
        state,
    )
    .unwrap()
    .with_start(Start::Oldest);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(
        device.state().head(&other).map(|head| head.serial),
        Some(serial(1))
    );
    assert!(
        matches!(poll(&mut device).await, Err(Error::Unreachable { .. })),
        "and the other is not forgotten"
    );
}

#[tokio::test]
async fn attack_87_news_that_were_not_saved_come_again_although_beats_and_trust_were() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 5, BOTH);
    stage
        .publish(&[
            all[0].clone(),
            realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"]),
        ])
        .await;
    let path = stage.fixture.directory.join("by-hand.state");
    let broker = source(&realm, &[stage.address()]);
    let open = || {
        Device::open(broker.clone(), ["test.os.stable"], &path)
            .unwrap()
            .with_saving_by_hand()
    };
    let mut device = open();
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    drop(device);
    // Nothing was saved by hand: the trust is known, the release comes again, until it is.
    let mut device = open();
    assert_eq!(
        device.state().trust().map(|trust| trust.serial()),
        Some(serial(1))
    );
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(
        poll(&mut device).await.unwrap(),
        [] as [u32; 0],
        "in one life of the program it comes once"
    );
    device.save().unwrap();
    stage.publish(&all[1..2]).await;
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    drop(device);
    let rotated = realm.rotate(ROLES, &[], ROOTS);
    stage.publish(&[rotated]).await;
    let mut device = Device::open(broker.clone(), ["test.os.stable"], &path).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    assert_eq!(
        device.state().trust().map(|trust| trust.serial()),
        Some(serial(2))
    );
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    // A watch that follows goes on behind what was returned: who asks for more has dealt with that.
    drop(device);
    let mut device = open();
    stage.publish(&all[2..3]).await;
    assert_eq!(poll(&mut device).await.unwrap(), [3]);
    stage.publish(&all[3..]).await;
    {
        let watch = device.watch();
        futures_util::pin_mut!(watch);
        for expected in [4, 5] {
            assert_eq!(
                timeout(PATIENCE, watch.next())
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap()
                    .serial(),
                serial(expected)
            );
        }
    }
    drop(device);
    assert_eq!(
        poll(&mut open()).await.unwrap(),
        [5],
        "what the watch handed out last was not dealt with"
    );
}

#[tokio::test]
async fn attack_26_a_mirror_that_is_behind_does_not_keep_a_device_before_a_hole_that_is_real() {
    for roles in [ROLES, NO_BEATS] {
        let realm = Realm::new(roles, ROOTS);
        let mut stage = Stage::new(&realm).await;
        let all = releases(&realm, None, 6, BOTH);
        stage.publish(&all[..1]).await;
        let behind = substitute(stage.address(), "test.os.stable", &all[..1]).await;
        let mut first = device(&realm, &[stage.address()]);
        assert_eq!(poll(&mut first).await.unwrap(), [1]);
        stage.publish(&all[1..]).await;
        if roles == ROLES {
            stage
                .publish(&[realm.beat(None, &[(&os(), all[5].head())], 600, &["beat"])])
                .await;
        }
        // What lies between has expired at the one that is complete otherwise.
        let expired = |command: &str, answer: Vec<u8>| match command {
            "GROUP test.os.stable" => Act::Send(b"211 2 5 6 test.os.stable\r\n".to_vec()),
            _ => Act::Send(answer),
        };
        let short = relay::start(&[stage.address()], expired).await.unwrap();
        for brokers in [[short, behind], [behind, short]] {
            if roles == NO_BEATS && brokers[0] == behind {
                // Where no beat says that there is more, the first broker that answers is believed
                // to have what there is.
                continue;
            }
            let mut device = device(&realm, &[stage.address()]);
            let one = substitute(stage.address(), "test.os.stable", &all[..1]).await;
            device.set_source(source(&realm, &[one])).unwrap();
            assert_eq!(poll(&mut device).await.unwrap(), [1]);
            device.set_source(source(&realm, &brokers)).unwrap();
            assert_eq!(poll(&mut device).await.unwrap(), [5, 6], "{roles:?}");
        }
    }
}
