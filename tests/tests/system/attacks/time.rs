//! Freshness and time.

use std::time::Duration;

use futures_util::StreamExt;
use tidings_client::{Device, Freshness, Head, Pace, State, Statement, Timestamp, now};
use tidings_protocol::{Requirement, statement::Release};
use tidings_tests::{
    clock::HandClock,
    realm::{ROLES, Realm},
    relay::{self, Act, substitute},
};
use tokio::time::timeout;

use crate::attacks::stage::{
    BOTH, NO_BEATS, PATIENCE, ROOTS, Stage, clear, device, device_at, os, poll, releases, serial,
    source, target, withhold,
};

#[tokio::test]
async fn attacks_17_24_31_a_frozen_device_knows_it_and_asks_elsewhere() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 3, BOTH);
    stage.publish(&all).await;
    let frozen = withhold(stage.address(), 2).await;
    let mut alone = device(&realm, &[frozen]);
    // 31: without a beat a new device is STALE, whatever it is shown.
    assert_eq!(poll(&mut alone).await.unwrap(), [1, 2]);
    assert_eq!(alone.freshness(&os()), Freshness::Stale { since: None });
    assert_eq!(target(&mut alone).await, Err(Requirement::NotCurrent));
    // 17: with a beat it knows that it is behind; nothing is installed.
    let beat = realm.beat(None, &[(&os(), all[2].head())], 600, &["beat"]);
    stage.publish(&[beat]).await;
    assert_eq!(poll(&mut alone).await.unwrap(), [] as [u32; 0]);
    assert_eq!(
        alone.freshness(&os()),
        Freshness::Behind {
            head: all[2].head()
        }
    );
    assert_eq!(target(&mut alone).await, Err(Requirement::NotCurrent));
    // 24: a second, honest upstream is asked at once, in the same poll.
    alone
        .set_source(source(&realm, &[frozen, stage.address()]))
        .unwrap();
    assert_eq!(poll(&mut alone).await.unwrap(), [3]);
    assert!(alone.freshness(&os()).is_current());
    clear(&mut alone, 3).await.unwrap();
}

#[tokio::test]
async fn attacks_17_25_an_old_beat_is_no_proof_for_long_and_never_again() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all[..1]).await;
    let short = realm.beat(None, &[(&os(), all[0].head())], 3, &["beat"]);
    stage.publish(std::slice::from_ref(&short)).await;
    // Everything stands still behind the relay from here on: news, beats, all.
    let frozen = substitute(stage.address(), "test.os.stable", &all[..1]).await;
    let frozen = substitute(frozen, "test.beat", std::slice::from_ref(&short)).await;
    let clock = HandClock::new(Some(realm.time));
    let mut device = device_at(&realm, &[frozen], &clock);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(device.freshness(&os()).is_current());
    let next = realm.beat(
        Some(short.head()),
        &[(&os(), all[1].head())],
        600,
        &["beat"],
    );
    stage.publish(&[all[1].clone(), next]).await;
    clock.pass(2);
    assert!(device.freshness(&os()).is_current());
    clock.pass(1);
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    assert!(matches!(
        device.freshness(&os()),
        Freshness::Stale { since: Some(_) }
    ));
    // With the newer beat it is current again; the old one, replayed, has no effect.
    device
        .set_source(source(&realm, &[stage.address()]))
        .unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    device.set_source(source(&realm, &[frozen])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    assert!(device.freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_18_a_watch_that_only_looks_alive_is_left_when_the_beat_ends() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    let beat = realm.beat(None, &[(&os(), all[0].head())], 3, &["beat"]);
    stage.publish(&[all[0].clone(), beat.clone()]).await;
    // Heartbeats come through, news and beats do not; and the relay has nothing new when it is
    // asked.
    let quiet = substitute(stage.address(), "test.os.stable", &all[..1]).await;
    let quiet = substitute(quiet, "test.beat", std::slice::from_ref(&beat)).await;
    let deaf = |command: &str, answer: Vec<u8>| match command {
        "XWATCH" if answer.starts_with(b"0") => Act::Send(answer),
        "XWATCH" => Act::Send(vec![]),
        _ => Act::Send(answer),
    };
    let quiet = relay::start(&[quiet], deaf).await.unwrap();
    // Its clock stands still: whatever this machine does meanwhile, the beat has three seconds
    // left.
    let clock = HandClock::new(Some(realm.time));
    let mut device = device_at(&realm, &[quiet, stage.address()], &clock);
    let monitor = device.monitor();
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .serial()
            .number(),
        1
    );
    assert!(monitor.freshness(&os()).is_current());
    let next = realm.beat(Some(beat.head()), &[(&os(), all[1].head())], 600, &["beat"]);
    stage.publish(&[all[1].clone(), next]).await;
    // The audit is an hour away; it is the end of the beat that makes the device ask the other
    // broker.
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .serial()
            .number(),
        2
    );
    assert!(monitor.freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_19_a_broker_that_drips_is_left_for_another() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    stage.publish(&releases(&realm, None, 3, BOTH)).await;
    let drip = |command: &str, answer: Vec<u8>| match command {
        _ if command.starts_with("ARTICLE") => Act::Drip(answer, Duration::from_millis(50)),
        _ => Act::Send(answer),
    };
    let slow = relay::start(&[stage.address()], drip).await.unwrap();
    let pace = Pace {
        ask: Duration::from_millis(700),
        ..Pace::default()
    };
    let mut device = device(&realm, &[slow, stage.address()]).with_pace(pace);
    let began = std::time::Instant::now();
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3]);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

const DAY: u64 = 86_400;

#[tokio::test]
async fn attacks_21_22_expiry_stops_installing_and_nothing_else_whatever_the_clock_says() {
    let realm = Realm::expiring(
        Timestamp::from_seconds(now().seconds() - 30 * DAY),
        10 * DAY,
        ROLES,
        ROOTS,
    );
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    let beat = realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"]);
    stage.publish(&[all[0].clone(), beat.clone()]).await;
    let (path, address) = (stage.fixture.directory.join("clock.state"), stage.address());
    // 22, 120: a clock of 1970 is none; the signed times are enough to be current, and to install.
    let clock = HandClock::new(Some(Timestamp::from_seconds(0)));
    let open = || {
        let state = State::open(&path, &realm.anchor)
            .unwrap()
            .with_clock(clock.clock());
        Device::with_state(source(&realm, &[address]), ["test.os.stable"], state).unwrap()
    };
    let mut device = open();
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(device.freshness(&os()).is_current());
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    // Far ahead: stale and expired, so nothing is installed; reading goes on.
    clock.set(Some(realm.time.plus(400 * DAY)));
    assert!(!device.freshness(&os()).is_current());
    assert_eq!(target(&mut device).await, Err(Requirement::Expired));
    // 11 days on, by a signed time: the trust has expired for a device that has seen it, and stays
    // so when the machine starts anew.
    let mut later = Realm {
        expires: 365 * DAY,
        ..realm.later(realm.time.plus(11 * DAY))
    };
    let next = later.release(&os(), Some(all[0].head()), "1.2", BOTH);
    let live = later.beat(Some(beat.head()), &[(&os(), next.head())], 600, &["beat"]);
    stage.publish(&[next.clone(), live.clone()]).await;
    clock.set(Some(Timestamp::from_seconds(0)));
    assert_eq!(
        poll(&mut device).await.unwrap(),
        [2],
        "expired trust still proves what is read"
    );
    assert!(device.freshness(&os()).is_current());
    assert_eq!(target(&mut device).await, Err(Requirement::Expired));
    drop(device);
    clock.restart();
    let mut device = open();
    assert_eq!(
        target(&mut device).await,
        Err(Requirement::Expired),
        "21: what was signed is kept"
    );
    // Renewed, it goes on by itself: expired is not bricked.
    let renewed = later.rotate(ROLES, &[], ROOTS);
    let confirmed = later.beat(Some(live.head()), &[(&os(), next.head())], 600, &["beat"]);
    stage.publish(&[renewed, confirmed]).await;
    assert_eq!(target(&mut device).await, Ok(Some(2)));
}

#[tokio::test]
async fn attack_23_what_is_from_the_future_is_relayed_and_not_applied() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let release = Release {
        version: "1".into(),
        not_before: Some(now().plus(3600)),
        ..Release::default()
    };
    stage
        .publish(&[realm.release_with(&os(), None, release, BOTH)])
        .await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(clear(&mut device, 1).await, Err(Requirement::NoRelease));
    let ahead = realm.later(now().plus(2 * DAY));
    assert!(
        stage
            .refusal(&ahead.release(&os(), None, "2", BOTH))
            .await
            .contains("after this broker's clock")
    );
}

/// What a thief of the beat key signs: dated far ahead, and with the last serial, so that no honest
/// beat could ever follow.
fn poison(realm: &Realm, head: Head) -> Statement {
    let far = realm.later("9990-01-01T00:00:00Z".parse().unwrap());
    far.beat(
        Some(Head {
            serial: serial(2_147_483_646),
            id: head.id,
        }),
        &[(&os(), head)],
        600,
        &["beat"],
    )
}

#[tokio::test]
async fn attacks_15_21_without_a_clock_a_stolen_beat_key_moves_time_and_serials_ahead_only_until_it_is_taken_away()
 {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&all).await;
    let poison = poison(&realm, all[0].head());
    assert!(
        stage
            .refusal(&poison)
            .await
            .contains("after this broker's clock")
    );
    let liar = substitute(stage.address(), "test.beat", &[poison]).await;
    let mut device = device_at(&realm, &[liar], &HandClock::new(None));
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(
        target(&mut device).await,
        Err(Requirement::Expired),
        "the trust seems to have expired"
    );
    let new = &[
        "trust * 2 root1 root2 root3",
        "release * 2 ann bob",
        "withdraw * 1 stop",
        "beat * 1 pulse",
    ];
    let rotated = realm.rotate(new, &[], ROOTS);
    stage.publish(&[rotated]).await;
    device
        .set_source(source(&realm, &[stage.address()]))
        .unwrap();
    poll(&mut device).await.unwrap();
    stage
        .publish(&[realm.beat(None, &[(&os(), all[0].head())], 600, &["pulse"])])
        .await;
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    assert!(device.freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_093_a_device_with_a_clock_takes_no_beat_of_the_future() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    let beat = realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"]);
    stage.publish(&[all[0].clone(), beat.clone()]).await;
    // The last second that counts, and the first that does not.
    for (ahead, taken) in [(DAY, true), (DAY + 1, false)] {
        let far = realm.later(realm.time.plus(ahead));
        let signed = far.beat(
            Some(beat.head()),
            &[(&os(), all[0].head())],
            400 * DAY,
            &["beat"],
        );
        let liar = substitute(stage.address(), "test.beat", std::slice::from_ref(&signed)).await;
        let mut device = device_at(&realm, &[liar], &HandClock::new(Some(realm.time)));
        assert_eq!(poll(&mut device).await.unwrap(), [1]);
        assert_eq!(device.freshness(&os()).is_current(), taken, "{ahead}");
        assert_eq!(
            device.state().view().beats().count(),
            usize::from(taken),
            "{ahead}"
        );
        // Nor does one that was not taken leave anything behind: the honest beat is live.
        let honest = source(&realm, &[stage.address()]);
        device.set_source(honest).unwrap();
        poll(&mut device).await.unwrap();
        assert!(device.freshness(&os()).is_current(), "{ahead}");
    }
}

#[tokio::test]
async fn attack_093_a_beat_lives_for_a_day_from_first_sight_at_most_whatever_it_says() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    let beat = realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"]);
    stage.publish(&[all[0].clone(), beat.clone()]).await;
    // A thief dates it a day ahead and lets it live for 200 days.
    let far = realm.later(realm.time.plus(DAY));
    let signed = far.beat(
        Some(beat.head()),
        &[(&os(), all[0].head())],
        200 * DAY,
        &["beat"],
    );
    let liar = substitute(stage.address(), "test.beat", &[signed]).await;
    let clock = HandClock::new(Some(realm.time));
    let path = stage.fixture.directory.join("first-sight.state");
    let open = || {
        let state = State::open(&path, &realm.anchor)
            .unwrap()
            .with_clock(clock.clock());
        Device::with_state(source(&realm, &[liar]), ["test.os.stable"], state).unwrap()
    };
    let mut device = open();
    poll(&mut device).await.unwrap();
    clock.pass(DAY - 1);
    assert!(device.freshness(&os()).is_current());
    drop(device);
    clock.restart();
    let device = open();
    assert!(
        device.freshness(&os()).is_current(),
        "a new start ends nothing for a device with a clock"
    );
    clock.pass(1);
    assert!(
        !device.freshness(&os()).is_current(),
        "at exactly the end it is not live any more"
    );
}
