//! Freshness and time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::StreamExt;
use tidings_client::{Device, Freshness, Head, Pace, State, Timestamp, now};
use tidings_protocol::statement::Release;
use tidings_tests::{
    realm::{ROLES, Realm},
    relay::{self, Act, substitute},
};
use tokio::time::timeout;

use crate::stage::{BOTH, NO_BEATS, PATIENCE, ROOTS, Stage, clear, device, os, poll, releases, serial, source, withhold};

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
    assert!(clear(&mut alone, 2).await.unwrap_err().contains("(spec 5.6-2)"));
    // 17: with a beat it knows that it is behind; nothing is installed.
    let beat = realm.beat(None, &[(&os(), all[2].head())], 600, &["beat"]);
    stage.publish(&[beat]).await;
    assert_eq!(poll(&mut alone).await.unwrap(), [] as [u32; 0]);
    assert_eq!(alone.freshness(&os()), Freshness::Behind { head: all[2].head() });
    assert!(clear(&mut alone, 2).await.unwrap_err().contains("BEHIND"));
    // 24: a second, honest upstream is asked at once, in the same poll.
    alone.set_source(source(&realm, &[frozen, stage.address()])).unwrap();
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
    let mut device = device(&realm, &[frozen]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(device.freshness(&os()).is_current());
    let next = realm.beat(Some(short.head()), &[(&os(), all[1].head())], 600, &["beat"]);
    stage.publish(&[all[1].clone(), next]).await;
    let began = now();
    while device.freshness(&os()).is_current() {
        assert!(now().seconds() < began.seconds() + 10, "the beat never ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    assert!(matches!(device.freshness(&os()), Freshness::Stale { since: Some(_) }));
    // With the newer beat it is current again; the old one, replayed, has no effect.
    device.set_source(source(&realm, &[stage.address()])).unwrap();
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
    // Heartbeats come through, news and beats do not; and the relay has nothing new when it is asked.
    let quiet = substitute(stage.address(), "test.os.stable", &all[..1]).await;
    let quiet = substitute(quiet, "test.beat", std::slice::from_ref(&beat)).await;
    let deaf = |command: &str, answer: Vec<u8>| match command {
        "XWATCH" if answer.starts_with(b"0") => Act::Send(answer),
        "XWATCH" => Act::Send(vec![]),
        _ => Act::Send(answer),
    };
    let quiet = relay::start(&[quiet], deaf).await.unwrap();
    let mut device = device(&realm, &[quiet, stage.address()]);
    let monitor = device.monitor();
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap().serial().number(), 1);
    assert!(monitor.freshness(&os()).is_current());
    let next = realm.beat(Some(beat.head()), &[(&os(), all[1].head())], 600, &["beat"]);
    stage.publish(&[all[1].clone(), next]).await;
    // The audit is an hour away; it is the end of the beat that makes the device ask the other broker.
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap().serial().number(), 2);
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
    let pace = Pace { ask: Duration::from_millis(700), ..Pace::default() };
    let mut device = device(&realm, &[slow, stage.address()]).with_pace(pace);
    let began = std::time::Instant::now();
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// The clock of the tests that have their own.
static CLOCK: AtomicU64 = AtomicU64::new(0);
fn clock() -> Timestamp {
    Timestamp::from_seconds(CLOCK.load(Ordering::Relaxed))
}

#[tokio::test]
async fn attacks_21_22_expiry_stops_installing_and_nothing_else_whatever_the_clock_says() {
    const DAY: u64 = 86_400;
    let mut realm = Realm::at(Timestamp::from_seconds(now().seconds() - 30 * DAY), ROLES, ROOTS);
    realm.log.clear();
    realm.expires = 10 * DAY;
    let first = realm.trust(ROLES, &[], ROOTS);
    realm.anchor.id = first.id();
    realm.log.push(first);
    let mut stage = Stage::new(&realm).await;
    let time = realm.time.seconds();
    let all = releases(&realm, None, 2, BOTH);
    let beat = realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"]);
    stage.publish(&[all[0].clone(), beat.clone()]).await;
    let (path, address) = (stage.fixture.directory.join("clock.state"), stage.address());
    let open = || {
        let state = State::open(&path, &realm.anchor).unwrap().with_clock(clock);
        Device::with_state(source(&realm, &[address]), ["test.os.stable"], state).unwrap()
    };
    // 22: no clock at all: the signed times are enough to be current, and to install.
    CLOCK.store(0, Ordering::Relaxed);
    let mut device = open();
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(device.freshness(&os()).is_current());
    clear(&mut device, 1).await.unwrap();
    // Far ahead: stale and expired, so nothing is installed; reading goes on.
    CLOCK.store(time + 400 * DAY, Ordering::Relaxed);
    assert!(!device.freshness(&os()).is_current());
    assert!(clear(&mut device, 1).await.is_err());
    // 11 days on, by a signed time: the trust has expired for a device that has seen it, and stays so when its clock is set back.
    let mut later =
        Realm { time: Timestamp::from_seconds(time + 11 * DAY), log: realm.log.clone(), anchor: realm.anchor.clone(), expires: 365 * DAY };
    let next = later.release(&os(), Some(all[0].head()), "1.2", BOTH);
    let live = later.beat(Some(beat.head()), &[(&os(), next.head())], 600, &["beat"]);
    stage.publish(&[next.clone(), live.clone()]).await;
    CLOCK.store(0, Ordering::Relaxed);
    assert_eq!(poll(&mut device).await.unwrap(), [2], "expired trust still proves what is read");
    assert!(device.freshness(&os()).is_current());
    assert!(clear(&mut device, 2).await.unwrap_err().contains("(spec 5.6-3)"));
    drop(device);
    let mut device = open();
    assert_eq!(device.state().floor(), later.time, "21: the floor is kept");
    assert!(clear(&mut device, 2).await.unwrap_err().contains("(spec 5.6-3)"));
    // Renewed, it goes on by itself: expired is not bricked.
    let renewed = later.rotate(ROLES, &[], ROOTS);
    let confirmed = later.beat(Some(live.head()), &[(&os(), next.head())], 600, &["beat"]);
    stage.publish(&[renewed, confirmed]).await;
    clear(&mut device, 2).await.unwrap();
}

#[tokio::test]
async fn attack_23_what_is_from_the_future_is_relayed_and_not_applied() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let release = Release { version: "1".into(), not_before: Some(now().plus(3600)), ..Release::default() };
    stage.publish(&[realm.release_with(&os(), None, release, BOTH)]).await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(clear(&mut device, 1).await.unwrap_err().contains("(spec 5.6-6)"));
    let ahead = Realm { time: now().plus(2 * 86_400), ..realm };
    assert!(stage.refusal(&ahead.release(&os(), None, "2", BOTH)).await.contains("after this broker's clock"));
}

#[tokio::test]
async fn attacks_15_21_a_stolen_beat_key_moves_time_and_serials_ahead_only_until_it_is_taken_away() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&all).await;
    let far = Realm { time: "9990-01-01T00:00:00Z".parse().unwrap(), log: realm.log.clone(), anchor: realm.anchor.clone(), ..realm };
    // It has the last serial too, so that no honest beat could ever follow.
    let before = Head { serial: serial(2_147_483_646), id: all[0].id() };
    let poison = far.beat(Some(before), &[(&os(), all[0].head())], 600, &["beat"]);
    assert!(stage.refusal(&poison).await.contains("after this broker's clock"));
    let liar = substitute(stage.address(), "test.beat", &[poison]).await;
    let mut device = device(&realm, &[liar]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(clear(&mut device, 1).await.unwrap_err().contains("(spec 5.6-3)"), "the trust seems to have expired");
    let new = &["trust * 2 root1 root2 root3", "release * 2 ann bob", "withdraw * 1 stop", "beat * 1 pulse"];
    let rotated = realm.rotate(new, &[], ROOTS);
    stage.publish(&[rotated]).await;
    device.set_source(source(&realm, &[stage.address()])).unwrap();
    poll(&mut device).await.unwrap();
    assert!(device.state().floor() < now().plus(60), "{}", device.state().floor());
    stage.publish(&[realm.beat(None, &[(&os(), all[0].head())], 600, &["pulse"])]).await;
    poll(&mut device).await.unwrap();
    assert!(device.freshness(&os()).is_current());
    clear(&mut device, 1).await.unwrap();
}
