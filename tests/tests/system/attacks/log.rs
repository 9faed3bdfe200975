//! Log integrity, and brokers.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use futures_util::StreamExt;
use tidings_client::{Channel, Device, Error, Freshness, Publisher, Start, State, Statement, now};
use tidings_protocol::Requirement;
use tidings_tests::{
    realm::{ROLES, Realm},
    relay::{self, Act, forge, honest, substitute},
};
use tokio::time::timeout;

use crate::attacks::stage::{
    BOTH, NO_BEATS, PATIENCE, ROOTS, Stage, clear, device, os, poll, releases, requirement, serial,
    source, target,
};

#[tokio::test]
async fn attack_26_a_hole_that_hides_a_withdrawal_is_filled_elsewhere_and_never_installed_over() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 2, BOTH);
    let withdrawal = realm.withdraw(&os(), first[1].head(), first[1].head(), &["stop"]);
    let more = realm.release(&os(), Some(withdrawal.head()), "1.4", BOTH);
    stage.publish(&first).await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    stage.publish(&[withdrawal, more]).await;
    let lie = |command: &str, answer: Vec<u8>| match command {
        "GROUP test.os.stable" => Act::Send(b"211 1 4 4 test.os.stable\r\n".to_vec()),
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[stage.address()], lie).await.unwrap();
    // Alone it can hide the withdrawal, but nothing below it can be applied any more.
    let mut alone = Device::with_state(
        source(&realm, &[liar]),
        ["test.os.stable"],
        State::ephemeral(&realm.anchor),
    )
    .unwrap();
    assert_eq!(poll(&mut alone).await.unwrap(), [4]);
    assert_eq!(clear(&mut alone, 2).await, Err(Requirement::NoRelease));
    // With an honest broker beside it, nothing is passed over.
    device
        .set_source(source(&realm, &[liar, stage.address()]))
        .unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [3, 4]);
}

#[tokio::test]
async fn attack_27_events_that_come_late_twice_or_in_another_order_are_put_right() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 6, BOTH);
    stage.publish(&all[..1]).await;
    // The first event is kept until the second has gone out; the third comes twice; the fourth is
    // another statement.
    let kept: Mutex<Vec<u8>> = Mutex::default();
    let forged = realm.release(&os(), Some(all[3].head()), "6.6", &["ann"]);
    let mischief = move |command: &str, answer: Vec<u8>| {
        if command != "XWATCH" || !answer.windows(15).any(|w| w == b"test.os.stable>") {
            return Act::Send(answer);
        }
        match answer.split(|o| *o == b' ').next() {
            Some(b"2") => {
                *kept.lock().unwrap() = answer;
                Act::Send(vec![])
            }
            Some(b"3") => Act::Send([answer, std::mem::take(&mut kept.lock().unwrap())].concat()),
            Some(b"4") => Act::Send([answer.clone(), answer].concat()),
            Some(b"5") => Act::Send(forge(&answer, &forged, None)),
            _ => Act::Late(answer, Duration::from_millis(50)),
        }
    };
    let hostile = relay::start(&[stage.address()], mischief).await.unwrap();
    let mut device = device(&realm, &[hostile]);
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    let mut seen = Vec::new();
    let mut published = 1;
    while seen.len() < 6 {
        match timeout(PATIENCE, watch.next()).await.unwrap().unwrap() {
            Ok(statement) => seen.push(statement.serial().number()),
            Err(error) => assert!(
                matches!(
                    error,
                    Error::Verify { .. } | Error::Unreachable { .. } | Error::Io(_)
                ),
                "{error}"
            ),
        }
        if published < 6 {
            stage.publish(&all[published..(published + 2).min(6)]).await;
            published = (published + 2).min(6);
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}

/// Two brokers that have the same first release, and another second one each.
async fn forked(realm: &Realm) -> (Stage, Stage, Statement, Statement) {
    let (mut one, mut two) = (Stage::new(realm).await, Stage::new(realm).await);
    let first = releases(realm, None, 1, BOTH);
    let ours = realm.release(&os(), Some(first[0].head()), "1.2", BOTH);
    let theirs = realm.release(&os(), Some(first[0].head()), "1.2-other", BOTH);
    one.publish(&[first[0].clone(), ours.clone()]).await;
    two.publish(&[first[0].clone(), theirs.clone()]).await;
    (one, two, ours, theirs)
}

#[tokio::test]
async fn attack_28_a_fork_stops_is_kept_as_evidence_and_is_over_when_a_live_beat_names_our_branch()
{
    let realm = Realm::new(ROLES, ROOTS);
    let (mut one, two, ours, theirs) = forked(&realm).await;
    let path = one.fixture.directory.join("forked.state");
    let open = |brokers: &[SocketAddr]| {
        Device::open(source(&realm, brokers), ["test.os.stable"], &path)
            .unwrap()
            .with_start(Start::Oldest)
    };
    let mut device = open(&[one.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    device.set_source(source(&realm, &[two.address()])).unwrap();
    assert!(matches!(poll(&mut device).await, Err(Error::Fork(_))));
    assert_eq!(device.freshness(&os()), Freshness::Forked);
    drop(device);
    // It is remembered, also beside the honest broker; nothing is installed any more, and reading
    // goes on.
    let more = realm.release(&os(), Some(ours.head()), "1.3", BOTH);
    one.publish(std::slice::from_ref(&more)).await;
    let mut device = open(&[one.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [3]);
    assert_eq!(device.freshness(&os()), Freshness::Forked);
    let fork = device.state().view().fork(&os()).unwrap();
    assert_eq!(
        (fork.ours.id(), fork.theirs.id(), fork.is_lost_race()),
        (ours.id(), theirs.id(), true)
    );
    assert_eq!(target(&mut device).await, Err(Requirement::NotCurrent));
    // Nobody has to fetch the root keys: the beat names our branch.
    one.publish(&[realm.beat(None, &[(&os(), more.head())], 600, &["beat"])])
        .await;
    assert_eq!(target(&mut device).await, Ok(Some(3)));
    assert!(device.freshness(&os()).is_current());
    assert_eq!(device.state().view().fork(&os()), None);
}

#[tokio::test]
async fn attack_28_the_branch_that_a_live_beat_names_replaces_ours() {
    let realm = Realm::new(ROLES, ROOTS);
    let (one, mut two, ours, theirs) = forked(&realm).await;
    let mut device = device(&realm, &[one.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    assert_eq!(device.state().head(&os()), Some(ours.head()));
    two.publish(&[realm.beat(None, &[(&os(), theirs.head())], 600, &["beat"])])
        .await;
    device
        .set_source(source(&realm, &[one.address(), two.address()]))
        .unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    assert_eq!(device.state().head(&os()), Some(theirs.head()));
    assert_eq!(target(&mut device).await, Ok(Some(2)));
}

#[tokio::test]
async fn attack_092_a_broker_that_shows_the_loser_of_a_race_and_no_beats_stops_no_device_that_has_another()
 {
    let realm = Realm::new(ROLES, ROOTS);
    let (mut one, two, ours, _) = forked(&realm).await;
    let mut device = device(&realm, &[one.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    one.publish(&[realm.beat(None, &[(&os(), ours.head())], 600, &["beat"])])
        .await;
    device
        .set_source(source(&realm, &[two.address(), one.address()]))
        .unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    assert!(
        device.freshness(&os()).is_current(),
        "{}",
        device.freshness(&os())
    );
    device
        .set_source(source(&realm, &[two.address(), one.address()]))
        .unwrap();
    assert_eq!(target(&mut device).await, Ok(Some(2)));
}

#[tokio::test]
async fn attack_28_without_beats_a_checkpoint_decides() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let (mut one, mut two, _, theirs) = forked(&realm).await;
    let mut device = device(&realm, &[one.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    device.set_source(source(&realm, &[two.address()])).unwrap();
    assert!(matches!(poll(&mut device).await, Err(Error::Fork(_))));
    device.set_source(source(&realm, &[one.address()])).unwrap();
    assert_eq!(target(&mut device).await, Err(Requirement::Undecided));
    // It names the other branch: the device goes over to it, and only where that is to be had.
    let settled = realm.rotate(NO_BEATS, &[(&os(), theirs.head())], ROOTS);
    two.publish(std::slice::from_ref(&settled)).await;
    one.publish(&[settled]).await;
    assert_eq!(
        poll(&mut device).await.unwrap(),
        [] as [u32; 0],
        "this broker has left the branch, and has no other yet"
    );
    assert!(target(&mut device).await.is_err());
    device
        .set_source(source(&realm, &[one.address(), two.address()]))
        .unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    assert_eq!(device.state().head(&os()), Some(theirs.head()));
    device.set_source(source(&realm, &[two.address()])).unwrap();
    assert_eq!(target(&mut device).await, Ok(Some(2)));
}

#[tokio::test]
async fn attack_28_a_broker_refuses_the_second_statement_keeps_both_and_goes_on() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all).await;
    let later = Realm {
        time: now().plus(600),
        log: realm.log.clone(),
        anchor: realm.anchor.clone(),
        ..realm
    };
    // Two who have raced may be one who has stolen: both are kept, and so is what came ten minutes
    // later.
    let race = realm.release(&os(), Some(all[0].head()), "1.2-race", BOTH);
    let fork = later.release(&os(), Some(all[0].head()), "1.2-fork", BOTH);
    let deep = later.release(&os(), None, "1.1-fork", BOTH);
    for statement in [&race, &fork, &deep, &fork] {
        assert!(
            stage
                .refusal(statement)
                .await
                .contains("the head of the channel is 2")
        );
    }
    let directory = stage.fixture.directory.join("data/forks");
    let files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let mut command = stage.fixture.tidings();
        let output = command
            .arg("verify")
            .arg(&file)
            .env("TIDINGS_ANCHOR", realm.anchor.to_string())
            .output()
            .unwrap();
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("FORK of test.os.stable"),
            "{output:?}"
        );
    }
    stage
        .publish(&[realm.release(&os(), Some(all[1].head()), "1.3", BOTH)])
        .await;
}

#[tokio::test]
async fn attack_29_with_a_quorum_no_single_broker_shows_a_log_of_its_own() {
    // Both release keys are stolen, and one broker is the thief's.
    let realm = Realm::new(NO_BEATS, ROOTS);
    let (mut honest, mut hostile) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let first = releases(&realm, None, 1, BOTH);
    honest.publish(&first).await;
    hostile
        .publish(&[
            first[0].clone(),
            realm.release(&os(), Some(first[0].head()), "6.6", BOTH),
        ])
        .await;
    let mut device = device(&realm, &[hostile.address(), honest.address()]).with_quorum(2);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    let refused = device.may_apply(&os(), serial(2)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Quorum {
                agreed: 1,
                wanted: 2
            }
        ),
        "{refused}"
    );
    // What both have is agreed on as soon as both have the head.
    honest
        .publish(&[realm.release(&os(), Some(first[0].head()), "1.2", BOTH)])
        .await;
    assert!(
        matches!(
            device.may_apply(&os(), serial(2)).await,
            Err(Error::Fork(_))
        ),
        "and now it is plain who lies"
    );
}

#[tokio::test]
async fn attack_29_two_devices_behind_a_split_view_find_out_when_they_meet_the_beat() {
    let realm = Realm::new(ROLES, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let (a, b) = (
        realm.release(&os(), None, "a", BOTH),
        realm.release(&os(), None, "b", BOTH),
    );
    one.publish(&[
        a.clone(),
        realm.beat(None, &[(&os(), a.head())], 600, &["beat"]),
    ])
    .await;
    two.publish(std::slice::from_ref(&b)).await;
    let split = relay::start(&[two.address(), one.address()], honest)
        .await
        .unwrap();
    let mut device = device(&realm, &[split]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(device.state().head(&os()), Some(b.head()));
    assert!(!device.freshness(&os()).is_current());
    device.set_source(source(&realm, &[one.address()])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(device.state().head(&os()), Some(a.head()));
    assert!(device.freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_30_an_origin_that_was_restored_from_a_backup_gets_no_second_statement_for_a_serial()
{
    let realm = Realm::new(NO_BEATS, ROOTS);
    let (mut origin, mut mirror) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let all = releases(&realm, None, 3, BOTH);
    origin.publish(&all[..2]).await;
    mirror.publish(&all).await;
    let mut publisher = Publisher::connect(source(&realm, &[origin.address(), mirror.address()]))
        .await
        .unwrap();
    let error = publisher
        .newest_anywhere(&os())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("has test.os.stable 3 already") && error.contains("restored from a backup"),
        "{error}"
    );
    // The device is as little impressed.
    let mut device = device(&realm, &[mirror.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3]);
    origin
        .publish(&[realm.release(&os(), Some(all[1].head()), "other", BOTH)])
        .await;
    device
        .set_source(source(&realm, &[origin.address()]))
        .unwrap();
    assert!(matches!(poll(&mut device).await, Err(Error::Fork(_))));
}

#[tokio::test]
async fn attack_34_a_statement_of_another_channel_is_not_taken() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let other: Channel = "test.os.testing".parse().unwrap();
    stage
        .publish(&[realm.release(&os(), None, "1", BOTH)])
        .await;
    let liar = substitute(
        stage.address(),
        "test.os.stable",
        &[realm.release(&other, None, "1", BOTH)],
    )
    .await;
    let error = poll(&mut device(&realm, &[liar])).await.unwrap_err();
    assert_eq!(requirement(&error), Requirement::Channel, "{error}");
}

#[tokio::test]
async fn attacks_44_67_who_offers_too_much_that_is_refused_is_cut_off() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let stage = Stage::new(&realm).await;
    let forged = realm.release(&os(), None, "6.6", &["mallory"]);
    let mut connection = stage.fixture.source().unwrap().connect().await.unwrap();
    let mut refused = 0;
    while refused < 2_000 {
        match connection.post(&forged).await {
            Ok(response) if response.code.0 == 441 => refused += 1,
            Ok(response) => {
                assert_eq!(response.code.0, 400, "{response}");
                break;
            }
            Err(_) => break,
        }
    }
    assert_eq!(refused, 1_000);
    // Others are not concerned.
    assert_eq!(
        stage
            .fixture
            .source()
            .unwrap()
            .connect()
            .await
            .unwrap()
            .command("DATE")
            .await
            .unwrap()
            .code
            .0,
        111
    );
}
