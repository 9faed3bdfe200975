//! The release to run: what a device applies, and who can steer it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidings_client::{Device, Error, State, Statement, now};
use tidings_protocol::{
    Requirement,
    statement::{Release, Rollout},
    view::clearance::Profile,
};
use tidings_tests::{
    realm::{ROLES, Realm},
    relay::{self, Act, substitute},
};

use crate::attacks::stage::{
    BOTH, NO_BEATS, ROOTS, Stage, clear, device, os, poll, releases, requirement, serial, source,
    target,
};

const DAY: u64 = 86_400;

fn version(version: &str) -> Release {
    Release {
        version: version.into(),
        ..Release::default()
    }
}

fn properties(properties: &[(&str, &str)]) -> Vec<(String, String)> {
    properties
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A device with properties.
fn device_with(realm: &Realm, stage: &Stage, of: &[(&str, &str)]) -> Device {
    let profile = Profile {
        identity: "machine".into(),
        properties: properties(of).into_iter().collect(),
    };
    let state = State::ephemeral(&realm.anchor);
    Device::with_state(source(realm, &[stage.address()]), ["test.os.stable"], state)
        .unwrap()
        .with_profile(profile)
}

/// Publishes statements, and a beat that names the last of them; the beat.
async fn publish_with_beat(
    stage: &mut Stage,
    realm: &Realm,
    before: Option<&Statement>,
    statements: &[Statement],
) -> Statement {
    stage.publish(statements).await;
    let newest = statements.last().unwrap().head();
    let beat = realm.beat(
        before.map(Statement::head),
        &[(&os(), newest)],
        600,
        &["beat"],
    );
    stage.publish(std::slice::from_ref(&beat)).await;
    beat
}

#[tokio::test]
async fn attack_095_a_withdraw_key_leads_nobody_to_an_older_release() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    // 1 has a hole, 2 is the fix; the thief of the withdraw key withdraws 2.
    let all = releases(&realm, None, 2, BOTH);
    let beat = publish_with_beat(&mut stage, &realm, None, &all).await;
    let mut fixed = device(&realm, &[stage.address()]);
    poll(&mut fixed).await.unwrap();
    fixed
        .apply(&os(), serial(2), async |_| Ok::<_, Error>(()))
        .await
        .unwrap();
    let evil = realm.withdraw(&os(), all[1].head(), all[1].head(), &["stop"]);
    let beat =
        publish_with_beat(&mut stage, &realm, Some(&beat), std::slice::from_ref(&evil)).await;
    for device in [&mut fixed, &mut device(&realm, &[stage.address()])] {
        assert_eq!(target(device).await, Err(Requirement::Withdrawn));
        assert_eq!(clear(device, 1).await, Err(Requirement::Withdrawn));
    }
    // A withdrawal of the other one changes nothing for either.
    let both = realm.withdraw(&os(), evil.head(), all[0].head(), &["stop"]);
    let beat =
        publish_with_beat(&mut stage, &realm, Some(&beat), std::slice::from_ref(&both)).await;
    // The release key alone leads on: the fix is issued anew.
    let anew = realm.release(&os(), Some(both.head()), "1.2", BOTH);
    publish_with_beat(&mut stage, &realm, Some(&beat), &[anew]).await;
    for device in [&mut fixed, &mut device(&realm, &[stage.address()])] {
        assert_eq!(target(device).await, Ok(Some(5)));
    }
}

#[tokio::test]
async fn attack_121_what_is_not_due_hides_no_fix() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let fix = realm.release(&os(), None, "1.1", BOTH);
    let next_month = Release {
        not_before: Some(realm.time.plus(30 * DAY)),
        ..version("2.0")
    };
    let next_month = realm.release_with(&os(), Some(fix.head()), next_month, BOTH);
    let wave = Rollout {
        start: realm.time.plus(7 * DAY),
        seconds: DAY,
        spread: None,
        cohort: None,
    };
    let next_week = Release {
        rollout: Some(wave),
        ..version("1.9")
    };
    let next_week = realm.release_with(&os(), Some(next_month.head()), next_week, BOTH);
    let beat = publish_with_beat(
        &mut stage,
        &realm,
        None,
        &[fix.clone(), next_month, next_week.clone()],
    )
    .await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    // A withdrawal of what is not due gives a thief nothing, and one of the fix gives none.
    let early = realm.withdraw(&os(), next_week.head(), next_week.head(), &["stop"]);
    let beat = publish_with_beat(
        &mut stage,
        &realm,
        Some(&beat),
        std::slice::from_ref(&early),
    )
    .await;
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    let evil = realm.withdraw(&os(), early.head(), fix.head(), &["stop"]);
    publish_with_beat(&mut stage, &realm, Some(&beat), &[evil]).await;
    assert_eq!(target(&mut device).await, Err(Requirement::Withdrawn));
}

#[tokio::test]
async fn attack_121_a_release_that_one_broker_shows_one_device_hides_no_fix_and_is_not_run() {
    // Both release keys are stolen: 3 is validly signed, and no beat covers it.
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    publish_with_beat(&mut stage, &realm, None, &all).await;
    let evil = realm.release(&os(), Some(all[1].head()), "6.6", BOTH);
    let liar = substitute(
        stage.address(),
        "test.os.stable",
        &[all[0].clone(), all[1].clone(), evil],
    )
    .await;
    let mut device = device(&realm, &[liar]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3]);
    assert!(
        device.freshness(&os()).is_current(),
        "the beat names what lies below it on our chain"
    );
    assert_eq!(clear(&mut device, 3).await, Err(Requirement::NoRelease));
    assert_eq!(
        target(&mut device).await,
        Ok(Some(2)),
        "the fix is installed all the same"
    );
}

#[tokio::test]
async fn what_is_for_others_and_what_is_not_understood() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let general = realm.release(&os(), None, "1", BOTH);
    let arm = Release {
        targets: vec![properties(&[("arch", "arm")])],
        ..version("2")
    };
    let arm = realm.release_with(&os(), Some(general.head()), arm, BOTH);
    stage.publish(&[general.clone(), arm.clone()]).await;
    assert_eq!(
        target(&mut device_with(&realm, &stage, &[("arch", "arm")])).await,
        Ok(Some(2))
    );
    assert_eq!(
        target(&mut device_with(&realm, &stage, &[("arch", "x86")])).await,
        Ok(Some(1))
    );
    // The newest has a field that must be understood: none is run, and no older one in its place.
    let draft = realm.release(&os(), Some(arm.head()), "3", &[]);
    let text = String::from_utf8(draft.signed_part().to_vec()).unwrap()
        + "Colour: blue\nCritical: Colour\n";
    let critical = Statement::parse_draft(text.as_bytes()).unwrap();
    let critical = BOTH.iter().fold(critical, |statement, name| {
        statement.sign(&tidings_tests::realm::key(name)).unwrap()
    });
    stage.publish(&[critical]).await;
    for arch in ["arm", "x86"] {
        assert_eq!(
            target(&mut device_with(&realm, &stage, &[("arch", arch)])).await,
            Err(Requirement::Critical)
        );
    }
}

#[tokio::test]
async fn a_release_far_below_the_head_is_found_however_long_the_log_is() {
    let realm = Realm::new(
        &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"],
        &["root1"],
    );
    let mut stage = Stage::new(&realm).await;
    let mut all = vec![realm.release_with(&os(), None, version("everywhere"), &["ann"])];
    for number in 2..=700 {
        let arm = Release {
            targets: vec![properties(&[("arch", "arm")])],
            ..version(&number.to_string())
        };
        all.push(realm.release_with(&os(), all.last().map(Statement::head), arm, &["ann"]));
    }
    stage.publish(&all).await;
    let mut device = device_with(&realm, &stage, &[("arch", "x86")]);
    assert_eq!(target(&mut device).await, Ok(Some(1)));
    device
        .apply(&os(), serial(1), async |_| Ok::<_, Error>(()))
        .await
        .unwrap();
    assert_eq!(target(&mut device).await, Ok(None));
    // One that never had any of it, and for which there is nothing.
    let only_x86 = Release {
        targets: vec![properties(&[("arch", "x86")])],
        ..version("701")
    };
    let last = realm.release_with(&os(), Some(all[699].head()), only_x86, &["ann"]);
    stage.publish(&[last]).await;
    assert_eq!(target(&mut device).await, Ok(Some(701)));
}

/// A relay that counts the statements of the channel that it hands over.
async fn counting(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let brokers = [to];
    let relay = relay::start(&brokers, move |command, answer| {
        let ours = || relay::statement(&answer).is_some_and(|found| *found.channel() == os());
        if command.starts_with("ARTICLE ") && ours() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Act::Send(answer)
    });
    (relay.await.unwrap(), count)
}

#[tokio::test]
async fn a_look_reads_from_what_was_applied_and_not_the_whole_log() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let mut all = releases(&realm, None, 399, BOTH);
    let barrier = Release {
        barrier: Some(serial(20)),
        ..version("2.0")
    };
    all.push(realm.release_with(&os(), Some(all[398].head()), barrier, BOTH));
    stage.publish(&all).await;
    let (relay, count) = counting(stage.address()).await;
    let mut device = device(&realm, &[relay]);
    let news = device.poll().await.unwrap();
    assert_eq!(count.swap(0, Ordering::SeqCst), 400);
    // What was applied, whether it says what is to be run, and how many statements one look reads:
    // all down to the barrier where it lies lower than what is read at first.
    for (applied, run, read) in [
        (None, Some(20), 16 + 48 + 112 + 240 + 381),
        (Some(1), Some(20), 256 + 381),
        (Some(20), Some(400), 256),
        (Some(200), Some(400), 201),
        (Some(399), Some(400), 2),
        (Some(400), None, 1),
    ] {
        if let Some(applied) = applied {
            device.note_applied(&news[applied - 1]).unwrap();
        }
        assert_eq!(target(&mut device).await, Ok(run), "{applied:?}");
        assert_eq!(count.swap(0, Ordering::SeqCst), read, "{applied:?}");
    }
    // A withdrawal lies above what it withdraws, and is met.
    let by = realm.withdraw(&os(), all[399].head(), all[399].head(), &["stop"]);
    stage.publish(&[by]).await;
    assert_eq!(target(&mut device).await, Err(Requirement::Withdrawn));
}

#[tokio::test]
async fn where_the_log_ends_before_one_is_found_none_is_run() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::with(&realm, "").await;
    let x86 = Release {
        targets: vec![properties(&[("arch", "x86")])],
        ..version("1")
    };
    let x86 = realm.release_with(&os(), None, x86, BOTH);
    let arm = Release {
        targets: vec![properties(&[("arch", "arm")])],
        ..version("2")
    };
    let arm = realm.release_with(&os(), Some(x86.head()), arm, BOTH);
    stage.publish(&[x86, arm]).await;
    // The broker says that 1 has expired.
    let cut = relay::start(&[stage.address()], |command, answer| match command {
        "GROUP test.os.stable" => Act::Send(b"211 1 2 2 test.os.stable\r\n".to_vec()),
        _ => Act::Send(answer),
    })
    .await
    .unwrap();
    let mut device = device_with(&realm, &stage, &[("arch", "x86")]);
    device.set_source(source(&realm, &[cut])).unwrap();
    assert_eq!(target(&mut device).await, Err(Requirement::LogEnds));
    device
        .set_source(source(&realm, &[cut, stage.address()]))
        .unwrap();
    assert_eq!(target(&mut device).await, Ok(Some(1)));
}

#[tokio::test]
async fn what_was_begun_may_be_finished_although_another_would_be_chosen_now() {
    // A release every few minutes, and installations that take longer.
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 3, BOTH);
    let mut beat = publish_with_beat(&mut stage, &realm, None, &all[..1]).await;
    let mut device = device(&realm, &[stage.address()]);
    poll(&mut device).await.unwrap();
    device
        .apply(&os(), serial(1), async |cleared| {
            for next in &all[1..] {
                beat =
                    publish_with_beat(&mut stage, &realm, Some(&beat), std::slice::from_ref(next))
                        .await;
                cleared.confirm().await?;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    assert_eq!(target(&mut device).await, Ok(Some(3)));
    assert!(now() >= realm.time);
}

#[tokio::test]
async fn attack_81_a_withdrawal_that_another_program_on_the_machine_has_met_stops_it() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&all).await;
    let path = stage.fixture.directory.join("state");
    let state = State::open_to_apply(&path, &realm.anchor).unwrap();
    let mut device =
        Device::with_state(source(&realm, &[stage.address()]), [os().as_str()], state).unwrap();
    poll(&mut device).await.unwrap();
    let result = device
        .apply(&os(), serial(1), async |cleared| {
            cleared.confirm().await?;
            // The broker that is asked here has nothing of it.
            let withdrawal = realm.withdraw(&os(), all[0].head(), all[0].head(), &["stop"]);
            let mut watches = State::open(&path, &realm.anchor).unwrap();
            watches
                .change(|view, _| view.judge(&os(), vec![all[0].clone(), withdrawal]))
                .unwrap();
            watches.save().unwrap();
            cleared.confirm().await
        })
        .await;
    assert_eq!(requirement(&result.unwrap_err()), Requirement::Withdrawn);
}

#[tokio::test]
async fn a_machine_that_came_with_an_image_gets_nothing_below_it() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 4, BOTH);
    stage.publish(&first[..3]).await;
    let mut device = device(&realm, &[stage.address()]);
    device.note_came_with(&os(), serial(4)).unwrap();
    // The brokers are behind the image, or hide what it came with.
    assert_eq!(target(&mut device).await, Ok(None));
    stage.publish(&first[3..]).await;
    let barrier = Release {
        barrier: Some(serial(4)),
        ..version("2.0")
    };
    stage
        .publish(&[realm.release_with(&os(), Some(first[3].head()), barrier, BOTH)])
        .await;
    assert_eq!(
        target(&mut device).await,
        Ok(Some(5)),
        "the image is at the barrier already"
    );
}
