//! Found by people who attacked the code: each was possible once.

use std::{sync::Mutex, time::Duration};

use futures_util::StreamExt;
use tidings_client::{Error, Freshness, Head, Lookout, Source, Statement, survey};
use tidings_protocol::{Requirement, statement::Release};
use tidings_tests::{
    realm::{ROLES, Realm, key},
    relay::{self, Act, honest, substitute},
};
use tokio::time::timeout;

use crate::attacks::stage::{
    BOTH, NO_BEATS, PATIENCE, ROOTS, Stage, clear, device, os, poll, releases, serial, source,
    target,
};

const CEM_AND_DAN: &[&str] = &[
    "trust * 2 root1 root2 root3",
    "release * 2 cem dan",
    "withdraw * 1 stop",
    "beat * 1 beat",
];

pub(super) fn old(realm: &Realm, length: usize) -> Realm {
    Realm {
        log: realm.log[..length].to_vec(),
        anchor: realm.anchor.clone(),
        ..*realm
    }
}

#[tokio::test]
async fn attack_13_a_survey_takes_up_nothing_that_a_broker_with_an_old_trust_log_shows() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 1, BOTH);
    stage.publish(&first).await;
    let rotated = realm.rotate(CEM_AND_DAN, &[(&os(), first[0].head())], ROOTS);
    stage.publish(&[rotated]).await;
    // One broker shows the first trust statement alone, and a second release by the keys that were
    // taken away.
    let before = old(&realm, 1);
    let evil = before.release(&os(), Some(first[0].head()), "6.6", BOTH);
    let liar = substitute(stage.address(), "test.trust", &realm.log[..1]).await;
    let liar = substitute(liar, "test.os.stable", &[first[0].clone(), evil.clone()]).await;
    let both = source(&realm, &[liar, stage.address()]);
    let seen = survey(&both, &[]).await;
    assert_eq!(
        seen.newest(&os()).unwrap().map(|s| s.head()),
        Some(first[0].head())
    );
    assert!(
        seen.0[0].failed.iter().any(|(channel, _)| *channel == os()),
        "it is not accepted there"
    );
}

#[tokio::test]
async fn attack_14_who_runs_ahead_of_the_log_with_a_stolen_withdraw_key_is_left_when_a_beat_names_another_branch()
 {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all).await;
    let mut ahead = all.clone();
    for _ in 0..4 {
        let head = ahead.last().map(Statement::head).unwrap();
        ahead.push(realm.withdraw(&os(), head, all[0].head(), &["stop"]));
    }
    let liar = substitute(stage.address(), "test.os.stable", &ahead).await;
    let mut device = device(&realm, &[liar]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3, 4, 5, 6]);
    // The honest log withdraws 2; the beat names that, and so another branch than the one where the
    // device was led.
    let withdrawal = realm.withdraw(&os(), all[1].head(), all[1].head(), &["stop"]);
    stage
        .publish(&[
            withdrawal.clone(),
            realm.beat(None, &[(&os(), withdrawal.head())], 600, &["beat"]),
        ])
        .await;
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    assert_eq!(device.freshness(&os()), Freshness::Forked);
    assert_eq!(target(&mut device).await, Err(Requirement::NotCurrent));
    // No root key is needed to bring it back: an honest broker is enough.
    device
        .set_source(source(&realm, &[liar, stage.address()]))
        .unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [3]);
    assert!(device.freshness(&os()).is_current());
    assert_eq!(target(&mut device).await, Err(Requirement::Withdrawn));
    // The thief has stopped 1 as well, for good: a stolen withdraw key stops, and steers nobody.
    let fixed = realm.release(&os(), Some(withdrawal.head()), "1.3", BOTH);
    let last = device
        .state()
        .view()
        .beats()
        .next()
        .unwrap()
        .statement
        .head();
    stage
        .publish(&[
            fixed.clone(),
            realm.beat(Some(last), &[(&os(), fixed.head())], 600, &["beat"]),
        ])
        .await;
    assert_eq!(target(&mut device).await, Ok(Some(4)));
}

#[tokio::test]
async fn attack_13_what_one_broker_proves_by_an_old_trust_is_not_returned_when_another_has_a_newer_one()
 {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 1, BOTH);
    stage.publish(&first).await;
    let rotated = realm.rotate(CEM_AND_DAN, &[(&os(), first[0].head())], ROOTS);
    stage
        .publish(&[
            rotated,
            realm.beat(None, &[(&os(), first[0].head())], 600, &["beat"]),
        ])
        .await;
    let evil = old(&realm, 1).release(&os(), Some(first[0].head()), "6.6", BOTH);
    let liar = substitute(stage.address(), "test.trust", &realm.log[..1]).await;
    let liar = substitute(liar, "test.os.stable", &[first[0].clone(), evil]).await;
    let mut device = device(&realm, &[liar, stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(device.state().head(&os()), Some(first[0].head()));
    assert!(device.freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_17_a_signer_of_beats_that_starts_above_a_checkpoint_goes_on_and_leaves_out_what_nobody_shows()
 {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 1, BOTH);
    stage.publish(&first).await;
    let rotated = realm.rotate(ROLES, &[(&os(), first[0].head())], ROOTS);
    stage.publish(&[rotated]).await;
    let more = releases(&realm, Some(first[0].head()), 3, BOTH);
    stage.publish(&more[..2]).await;
    let mut lookout = Lookout::new(&source(&realm, &[stage.address()]));
    assert_eq!(
        lookout
            .look(&[])
            .await
            .newest(&os())
            .unwrap()
            .map(|s| s.serial()),
        Some(serial(3))
    );
    stage.publish(&more[2..]).await;
    let seen = lookout.look(&[]).await;
    assert_eq!(
        (
            seen.newest(&os()).unwrap().map(|s| s.serial()),
            seen.is_confirmed(&os())
        ),
        (Some(serial(4)), true)
    );
    // A broker that shows less than before: what it had is known, and not confirmed.
    let shorter = Mutex::new(false);
    let switch = move |command: &str, answer: Vec<u8>| match command {
        "LIST ACTIVE test.*" if std::mem::replace(&mut *shorter.lock().unwrap(), true) => {
            Act::Send(
                b"215 list follows\r\ntest.os.stable 0000000003 0000000001 y\r\n.\r\n".to_vec(),
            )
        }
        _ => Act::Send(answer),
    };
    let relay = relay::start(&[stage.address()], switch).await.unwrap();
    let mut lookout = Lookout::new(&source(&realm, &[relay]));
    assert!(lookout.look(&[]).await.is_confirmed(&os()));
    let seen = lookout.look(&[]).await;
    assert_eq!(
        (
            seen.newest(&os()).unwrap().map(|s| s.serial()),
            seen.is_confirmed(&os())
        ),
        (Some(serial(4)), false)
    );
}

#[tokio::test]
async fn attack_20_beats_that_nobody_asked_for_are_not_kept() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage
        .publish(&[
            all[0].clone(),
            realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"]),
        ])
        .await;
    // In front of the second release come a hundred beats by a stranger.
    let stray = |n: u32| {
        let text = format!(
            "Tidings: 1 beat\nChannel: test.flood-{n}.beat\nSerial: 1\nPrevious: -\nTime: 2026-11-01T00:00:00Z\nTrust: 1\nExpires: 2026-11-02T00:00:00Z\n"
        );
        Statement::parse_draft(text.as_bytes())
            .unwrap()
            .sign(&key("mallory"))
            .unwrap()
    };
    let strays: Vec<Statement> = (0..100).map(stray).collect();
    let flood = move |command: &str, answer: Vec<u8>| match command {
        "XWATCH" if answer.starts_with(b"2 ") => {
            let mut all: Vec<u8> = strays
                .iter()
                .flat_map(|s| relay::forge(&answer, s, None))
                .collect();
            all.extend(answer);
            Act::Send(all)
        }
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[stage.address()], flood).await.unwrap();
    let mut device = device(&realm, &[liar]);
    {
        let watch = device.watch();
        futures_util::pin_mut!(watch);
        assert_eq!(
            timeout(PATIENCE, watch.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
                .serial(),
            serial(1)
        );
        stage.publish(&all[1..]).await;
        let next = timeout(PATIENCE, watch.next()).await;
        assert_eq!(next.unwrap().unwrap().unwrap().serial(), serial(2));
    }
    let view = device.state().view();
    assert!(
        !view
            .channels()
            .any(|channel| channel.as_str().contains("flood"))
    );
    assert_eq!(
        view.beats()
            .map(|beat| beat.statement.channel().to_string())
            .collect::<Vec<_>>(),
        ["test.beat"]
    );
}

#[tokio::test]
async fn attack_33_retention_keeps_what_a_checkpoint_names() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::with(&realm, "[[retention]]\nchannels = \"*\"\ncount = 1").await;
    let all = releases(&realm, None, 3, BOTH);
    stage.publish(&all).await;
    let rotated = realm.rotate(NO_BEATS, &[(&os(), all[2].head())], ROOTS);
    stage.publish(&[rotated]).await;
    stage
        .publish(&releases(&realm, Some(all[2].head()), 3, BOTH))
        .await;
    // Sweeps come every minute, and one at the start.
    let stage = stage.restart().await;
    let mut connection = stage.fixture.source().unwrap().connect().await.unwrap();
    let began = std::time::Instant::now();
    let group = loop {
        let group = connection
            .command("GROUP test.os.stable")
            .await
            .unwrap()
            .to_string();
        if group.contains(" 6 6 ") || began.elapsed() > PATIENCE {
            break group;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(group.starts_with("211 1 6 6 "), "{group}");
    let checkpoint = connection.fetch([all[2].message_id()]).await.unwrap();
    assert_eq!(
        checkpoint[0].as_ref().map(|incoming| &incoming.statement),
        Some(&all[2])
    );
    assert_eq!(
        poll(&mut device(&realm, &[stage.address()])).await.unwrap(),
        [6]
    );
    // With it a device that stands on another branch goes on above the hole, and without it does
    // not.
    let ours = old(&realm, 1).release(&os(), Some(all[1].head()), "lost", BOTH);
    let branch = substitute(
        stage.address(),
        "test.os.stable",
        &[all[0].clone(), all[1].clone(), ours],
    )
    .await;
    let branch = substitute(branch, "test.trust", &realm.log[..1]).await;
    let mut lost = device(&realm, &[branch]);
    assert_eq!(poll(&mut lost).await.unwrap(), [1, 2, 3]);
    let id = all[2].message_id().to_string();
    let hiding = move |command: &str, answer: Vec<u8>| match command {
        _ if command.contains(&id) => Act::Send(b"430 no such article\r\n".to_vec()),
        _ => Act::Send(answer),
    };
    let hiding = relay::start(&[stage.address()], hiding).await.unwrap();
    lost.set_source(source(&realm, &[hiding])).unwrap();
    let _ = poll(&mut lost).await;
    assert_eq!(target(&mut lost).await, Err(Requirement::Restart));
    lost.set_source(source(&realm, &[stage.address()])).unwrap();
    assert_eq!(poll(&mut lost).await.unwrap(), [6]);
    assert_eq!(target(&mut lost).await, Ok(Some(6)));
}

#[tokio::test]
async fn attack_51_a_checkpoint_on_the_other_branch_is_no_excuse_to_go_back() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let all = releases(&realm, None, 3, BOTH);
    let other = realm.release(&os(), Some(all[1].head()), "other", BOTH);
    one.publish(&all).await;
    two.publish(&[all[0].clone(), all[1].clone(), other.clone()])
        .await;
    let mut device = device(&realm, &[one.address()]);
    poll(&mut device).await.unwrap();
    device
        .apply(&os(), serial(3), async |_| Ok::<_, Error>(()))
        .await
        .unwrap();
    // What was applied lies on the branch that has lost; its keys are listed still, so that it
    // binds.
    let settled = realm.rotate(NO_BEATS, &[(&os(), other.head())], ROOTS);
    two.publish(&[settled]).await;
    device.set_source(source(&realm, &[two.address()])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [3]);
    assert_eq!(clear(&mut device, 1).await, Err(Requirement::NoRelease));
    assert_eq!(clear(&mut device, 2).await, Err(Requirement::NoRelease));
    assert_eq!(
        target(&mut device).await,
        Ok(Some(3)),
        "the other release of that serial"
    );
}

#[tokio::test]
async fn attack_51_a_barrier_is_met_by_what_was_applied_on_a_branch_that_has_lost() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let (a, b) = (
        realm.release(&os(), None, "a", BOTH),
        realm.release(&os(), None, "b", BOTH),
    );
    let barrier = Release {
        version: "c".into(),
        barrier: Some(serial(1)),
        ..Release::default()
    };
    let next = realm.release_with(&os(), Some(b.head()), barrier, BOTH);
    one.publish(&[a]).await;
    two.publish(&[b, next.clone()]).await;
    let mut device = device(&realm, &[one.address()]);
    poll(&mut device).await.unwrap();
    device
        .apply(&os(), serial(1), async |_| Ok::<_, Error>(()))
        .await
        .unwrap();
    let settled = realm.rotate(NO_BEATS, &[(&os(), next.head())], ROOTS);
    two.publish(&[settled]).await;
    device.set_source(source(&realm, &[two.address()])).unwrap();
    assert_eq!(
        poll(&mut device).await.unwrap(),
        [1, 2],
        "the whole of the other branch"
    );
    assert_eq!(target(&mut device).await, Ok(Some(2)));
}

#[tokio::test]
async fn the_relay_of_these_tests_is_no_obstacle_by_itself() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let relay = relay::start(&[stage.address()], honest).await.unwrap();
    let all = releases(&realm, None, 3, BOTH);
    let mut publisher = tidings_client::Publisher::connect(source(&realm, &[relay]))
        .await
        .unwrap();
    publisher.publish(&all[0]).await.unwrap();
    let mut device = device(&realm, &[relay]);
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    for release in &all {
        assert_eq!(
            timeout(PATIENCE, watch.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
                .head(),
            release.head()
        );
        let after: Option<Head> = Some(release.head());
        if let Some(next) = all.iter().find(|s| s.predecessor() == after) {
            stage.publish(std::slice::from_ref(next)).await;
        }
    }
    let _: Source = source(&realm, &[relay]);
}

#[tokio::test]
async fn attack_21_a_publishers_clock_that_is_ahead_makes_no_beat_look_old() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let ahead = Realm {
        time: tidings_client::now().plus(6 * 3600),
        log: realm.log.clone(),
        anchor: realm.anchor.clone(),
        ..realm
    };
    let release = ahead.release(&os(), None, "1", BOTH);
    stage
        .publish(&[
            release.clone(),
            realm.beat(None, &[(&os(), release.head())], 600, &["beat"]),
        ])
        .await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(
        device.freshness(&os()).is_current(),
        "{}",
        device.freshness(&os())
    );
    clear(&mut device, 1).await.unwrap();
}
