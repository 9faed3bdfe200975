//! Clocks that are wrong, set back or missing, and machines that start anew: time is handed in
//! everywhere.

use tidings_client::{Device, Freshness, State, Statement, Timestamp, now};
use tidings_protocol::Requirement;
use tidings_tests::{
    clock::HandClock,
    realm::{ROLES, Realm},
    relay::substitute,
};

use crate::attacks::stage::{
    BOTH, ROOTS, Stage, device_at, os, poll, releases, serial, source, target,
};

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;

/// A namespace that is thirty days old, so that a test may date statements a month ahead of it.
fn month_old() -> Realm {
    Realm::at(
        Timestamp::from_seconds(now().seconds() - 30 * DAY),
        ROLES,
        ROOTS,
    )
}

/// Beats a quarter of an hour apart, each of which lives for half an hour and names a release of
/// its own.
fn beats(realm: &Realm, releases: &[Statement]) -> Vec<Statement> {
    let mut all: Vec<Statement> = Vec::new();
    for (number, release) in (0_u64..).zip(releases) {
        let then = realm.later(realm.time.plus(15 * MINUTE * number));
        all.push(then.beat(
            all.last().map(Statement::head),
            &[(&os(), release.head())],
            30 * MINUTE,
            &["beat"],
        ));
    }
    all
}

/// A device whose state outlives the machine's restarts, and that knows brokers of a test's own.
fn open(stage: &Stage, realm: &Realm, clock: &HandClock) -> Device {
    let path = stage.fixture.directory.join("clocks.state");
    let state = State::open(path, &realm.anchor)
        .unwrap()
        .with_clock(clock.clock());
    Device::with_state(source(realm, &[stage.address()]), ["test.os.stable"], state).unwrap()
}

#[tokio::test]
async fn attack_097_without_a_clock_a_beat_of_an_earlier_start_is_not_live() {
    let realm = month_old();
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    let beats = beats(&realm, &all);
    stage.publish(&[all[0].clone(), beats[0].clone()]).await;
    let clock = HandClock::new(None);
    let mut device = open(&stage, &realm, &clock);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    // Months later, by a clock that nobody has: the brokers hide what came since, and play the same
    // beat.
    for _ in 0..3 {
        drop(device);
        clock.restart();
        device = open(&stage, &realm, &clock);
        assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
        assert!(!device.freshness(&os()).is_current());
        assert_eq!(target(&mut device).await, Err(Requirement::NotCurrent));
    }
    // A beat that is newer, and came since the machine was started, is live.
    stage.publish(&[all[1].clone(), beats[1].clone()]).await;
    assert_eq!(target(&mut device).await, Ok(Some(2)));
    // What was live in this start is not in the next.
    drop(device);
    clock.restart();
    let device = open(&stage, &realm, &clock);
    assert!(matches!(
        device.freshness(&os()),
        Freshness::Stale { since: Some(_) }
    ));
}

#[tokio::test]
async fn attack_097_without_a_clock_old_beats_in_slow_motion_are_not_live_one_after_the_other() {
    let realm = month_old();
    let mut stage = Stage::new(&realm).await;
    // Long after the trust statement, so that its time says nothing of theirs.
    let later = realm.later(realm.time.plus(20 * DAY));
    let all = releases(&later, None, 4, BOTH);
    let beats = beats(&later, &all);
    stage.publish(&all[..1]).await;
    stage.publish(&beats[..1]).await;
    let clock = HandClock::new(None);
    let mut device = device_at(&realm, &[stage.address()], &clock);
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    // The next beat is a quarter of an hour younger, and is shown an hour later.
    for number in 1..4 {
        clock.pass(60 * MINUTE);
        assert!(!device.freshness(&os()).is_current());
        let held_back = substitute(stage.address(), "test.os.stable", &all[..=number]).await;
        let held_back = substitute(held_back, "test.beat", &beats[..=number]).await;
        device.set_source(source(&realm, &[held_back])).unwrap();
        poll(&mut device).await.unwrap();
        assert_eq!(
            device.state().head(&os()).map(|head| head.serial),
            Some(serial(u32::try_from(number).unwrap() + 1))
        );
        assert!(
            !device.freshness(&os()).is_current(),
            "beat {number} is three quarters of an hour late, and more"
        );
    }
}

#[tokio::test]
async fn attack_097_without_a_clock_time_does_not_stand_still_while_beats_are_withheld() {
    let realm = month_old();
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&all).await;
    stage.publish(&beats(&realm, &all)).await;
    let clock = HandClock::new(None);
    let mut device = device_at(&realm, &[stage.address()], &clock);
    poll(&mut device).await.unwrap();
    clock.pass(30 * MINUTE - 1);
    assert!(device.freshness(&os()).is_current());
    clock.pass(1);
    assert!(!device.freshness(&os()).is_current(), "at exactly the end");
    // And the trust in force expires for it too.
    clock.pass(365 * DAY);
    assert_eq!(target(&mut device).await, Err(Requirement::Expired));
}

#[tokio::test]
async fn attack_120_a_clock_of_1970_bricks_nothing() {
    let realm = month_old();
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    let beats = beats(&realm, &all);
    stage.publish(&[all[0].clone(), beats[0].clone()]).await;
    let clock = HandClock::new(Some(Timestamp::from_seconds(100)));
    let mut device = open(&stage, &realm, &clock);
    assert_eq!(
        poll(&mut device).await.unwrap(),
        [1],
        "trust 1 is of the future, by that clock, and is taken"
    );
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    // It is treated as none: what was live before the machine was started anew is live no more.
    drop(device);
    clock.restart();
    let mut device = open(&stage, &realm, &clock);
    assert!(!device.freshness(&os()).is_current());
    // The network comes, and with it the time.
    clock.set(Some(realm.time.plus(15 * MINUTE)));
    stage.publish(&[all[1].clone(), beats[1].clone()]).await;
    assert_eq!(target(&mut device).await, Ok(Some(2)));
}

#[tokio::test]
async fn attack_120_a_clock_that_is_set_back_hides_no_withdrawal() {
    let realm = month_old();
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    let beat = realm.beat(None, &[(&os(), all[0].head())], 30 * MINUTE, &["beat"]);
    stage.publish(&[all[0].clone(), beat.clone()]).await;
    let clock = HandClock::new(Some(realm.time));
    let mut device = device_at(&realm, &[stage.address()], &clock);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    for back in [3, 2 * DAY, 20 * DAY] {
        clock.set(Some(Timestamp::from_seconds(realm.time.seconds() - back)));
        assert_eq!(
            target(&mut device).await,
            Ok(Some(1)),
            "set back by {back} s, it goes by what was signed"
        );
    }
    let later = realm.later(realm.time.plus(10 * MINUTE));
    let withdrawal = later.withdraw(&os(), all[0].head(), all[0].head(), &["stop"]);
    stage.publish(std::slice::from_ref(&withdrawal)).await;
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    assert_eq!(target(&mut device).await, Err(Requirement::Withdrawn));
}

#[tokio::test]
async fn attack_120_a_clock_a_little_behind_makes_no_device_stale() {
    let realm = month_old();
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&all).await;
    stage.publish(&beats(&realm, &all)).await;
    // Three seconds behind the signer: a job that runs every minute gets the same beat each time.
    let clock = HandClock::new(Some(Timestamp::from_seconds(realm.time.seconds() - 3)));
    for _ in 0..3 {
        let mut device = open(&stage, &realm, &clock);
        poll(&mut device).await.unwrap();
        assert!(device.freshness(&os()).is_current());
        clock.pass(MINUTE);
    }
    // The same over a new start, since this clock counts.
    clock.restart();
    assert!(open(&stage, &realm, &clock).freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_120_a_clock_that_was_wrong_when_the_machine_was_started_leaves_nothing_behind() {
    // Hours behind, as one that shows local time is until the network comes; ahead; and one that
    // was none.
    for wrong in [Some(-10), Some(-23), Some(3), None] {
        let realm = month_old();
        let mut stage = Stage::new(&realm).await;
        let all = releases(&realm, None, 3, BOTH);
        let beats = beats(&realm, &all);
        stage.publish(&[all[0].clone(), beats[0].clone()]).await;
        let shown = wrong.map_or(100, |hours| {
            realm.time.seconds().saturating_add_signed(hours * 3600)
        });
        let clock = HandClock::new(Some(Timestamp::from_seconds(shown)));
        let mut device = open(&stage, &realm, &clock);
        poll(&mut device).await.unwrap();
        drop(device);
        // The clock is right from now on, and a restart is all that happens.
        for number in 1..3 {
            clock.restart();
            clock.set(Some(realm.time.plus(15 * MINUTE * number as u64)));
            stage
                .publish(&[all[number].clone(), beats[number].clone()])
                .await;
            let mut device = open(&stage, &realm, &clock);
            assert_eq!(
                target(&mut device).await,
                Ok(Some(u32::try_from(number).unwrap() + 1)),
                "{wrong:?} hours"
            );
        }
    }
}

#[tokio::test]
async fn attack_120_a_clock_ahead_stops_and_is_over_when_it_is_right_again() {
    let realm = month_old();
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&all).await;
    stage.publish(&beats(&realm, &all)).await;
    let clock = HandClock::new(Some(realm.time.plus(400 * DAY)));
    let mut device = device_at(&realm, &[stage.address()], &clock);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(target(&mut device).await, Err(Requirement::Expired));
    clock.set(Some(realm.time.plus(MINUTE)));
    assert_eq!(target(&mut device).await, Ok(Some(1)));
}

#[tokio::test]
async fn a_beat_that_names_another_trust_statement_than_the_one_in_force_makes_nothing_current() {
    let mut realm = month_old();
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    let under_the_first = realm.beat(None, &[(&os(), all[0].head())], 30 * MINUTE, &["beat"]);
    stage
        .publish(&[all[0].clone(), under_the_first.clone()])
        .await;
    let clock = HandClock::new(Some(realm.time));
    let mut device = device_at(&realm, &[stage.address()], &clock);
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    // A later trust is hidden: the beats that name it are signed under it and have no effect, so
    // that the last one ends.
    let first = realm.log[0].clone();
    let renewed = realm.rotate(ROLES, &[], ROOTS);
    let confirmed = realm.beat(
        Some(under_the_first.head()),
        &[(&os(), all[0].head())],
        30 * MINUTE,
        &["beat"],
    );
    let old_trust = substitute(stage.address(), "test.trust", &[first]).await;
    let hiding = substitute(
        old_trust,
        "test.beat",
        &[under_the_first.clone(), confirmed.clone()],
    )
    .await;
    device.set_source(source(&realm, &[hiding])).unwrap();
    poll(&mut device).await.unwrap();
    clock.pass(30 * MINUTE - 1);
    assert!(device.freshness(&os()).is_current());
    clock.pass(1);
    assert!(!device.freshness(&os()).is_current());
    clock.set(Some(realm.time));
    // And with the trust but an older beat it is STALE.
    stage.publish(std::slice::from_ref(&renewed)).await;
    let mut other = device_at(&realm, &[stage.address()], &clock);
    poll(&mut other).await.unwrap();
    assert!(
        matches!(other.freshness(&os()), Freshness::Stale { .. }),
        "{}",
        other.freshness(&os())
    );
    stage.publish(&[confirmed]).await;
    assert_eq!(target(&mut other).await, Ok(Some(1)));
}
