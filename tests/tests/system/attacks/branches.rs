//! Restarts and branches: what a checkpoint or a live beat decides, and what nobody takes back.

use std::path::Path;

use tidings_client::{Device, Error, Freshness, Start, State, Statement};
use tidings_protocol::{
    Requirement,
    statement::{Beat, Body, Draft, Release},
    view::Refusal,
};
use tidings_tests::{
    realm::{ROLES, Realm, sign},
    relay::substitute,
};

use crate::attacks::stage::{
    BOTH, NO_BEATS, ROOTS, Stage, clear, device, os, poll, releases, serial, source, target,
};

/// A log of three whose last withdraws the second, and a device that has read it.
async fn withdrawn(realm: &Realm) -> (Stage, Vec<Statement>, Device) {
    let mut stage = Stage::new(realm).await;
    let mut all = releases(realm, None, 2, BOTH);
    all.push(realm.withdraw(&os(), all[1].head(), all[1].head(), &["stop"]));
    stage.publish(&all).await;
    let mut device = device(realm, &[stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3]);
    (stage, all, device)
}

#[tokio::test]
async fn attack_117_a_checkpoint_below_the_head_makes_no_device_forget_a_withdrawal() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let (mut stage, all, mut whole) = withdrawn(&realm).await;
    // This one knows no link down to the checkpoint, and has to read the channel anew.
    let mut newest = device(&realm, &[stage.address()]).with_start(Start::Newest);
    assert_eq!(poll(&mut newest).await.unwrap(), [3]);
    // A renewal, nothing stolen: surveyed at 1, and held two days later.
    let renewed = realm.rotate(NO_BEATS, &[(&os(), all[0].head())], ROOTS);
    stage.publish(std::slice::from_ref(&renewed)).await;
    for device in [&mut whole, &mut newest] {
        // The brokers show the renewal, and the log up to the release that was withdrawn.
        for length in [1, 2] {
            let short = substitute(stage.address(), "test.os.stable", &all[..length]).await;
            device.set_source(source(&realm, &[short])).unwrap();
            assert_eq!(poll(device).await.unwrap(), [] as [u32; 0]);
            assert_eq!(device.state().head(&os()), Some(all[2].head()));
            assert!(clear(device, 1).await.is_err() && clear(device, 2).await.is_err());
        }
        device
            .set_source(source(&realm, &[stage.address()]))
            .unwrap();
        assert_eq!(poll(device).await.unwrap(), [] as [u32; 0]);
        assert_eq!(target(device).await, Err(Requirement::Withdrawn));
    }
}

#[tokio::test]
async fn attack_117_a_checkpoint_below_the_head_takes_no_applied_release_back() {
    for (roles, start) in [
        (NO_BEATS, Start::Oldest),
        (NO_BEATS, Start::Newest),
        (ROLES, Start::Oldest),
        (ROLES, Start::Newest),
    ] {
        let mut realm = Realm::new(roles, ROOTS);
        let mut stage = Stage::new(&realm).await;
        let all = releases(&realm, None, 3, BOTH);
        stage.publish(&all).await;
        let first = realm.beat(None, &[(&os(), all[2].head())], 600, &["beat"]);
        if roles == ROLES {
            stage.publish(std::slice::from_ref(&first)).await;
        }
        let mut device = device(&realm, &[stage.address()]).with_start(start);
        poll(&mut device).await.unwrap();
        device
            .apply(&os(), serial(3), async |_| Ok::<_, Error>(()))
            .await
            .unwrap();
        let renewed = realm.rotate(roles, &[(&os(), all[0].head())], ROOTS);
        stage.publish(std::slice::from_ref(&renewed)).await;
        // With beats the thief has the beat key too, and confirms the short log.
        let confirmed = realm.beat(
            Some(first.head()),
            &[(&os(), all[0].head())],
            600,
            &["beat"],
        );
        let short = substitute(stage.address(), "test.os.stable", &all[..1]).await;
        let short = if roles == ROLES {
            substitute(short, "test.beat", &[first, confirmed]).await
        } else {
            short
        };
        device.set_source(source(&realm, &[short])).unwrap();
        // The live beat leads there, and one that knew no link to it hears of it.
        let heard: &[u32] = match (roles == ROLES, start) {
            (true, Start::Newest) => &[1],
            _ => &[],
        };
        assert_eq!(poll(&mut device).await.unwrap(), heard);
        for number in 1..=2 {
            assert!(clear(&mut device, number).await.is_err(), "{number}");
        }
        assert_ne!(target(&mut device).await, Ok(Some(1)));
    }
}

#[tokio::test]
async fn a_withdrawal_counts_on_whatever_branch_it_was_met_and_whatever_becomes_of_its_key() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let (_stage, all, mut device) = withdrawn(&realm).await;
    // The branch with the withdrawal loses, and its key is taken away; what goes on is not for this
    // device.
    let mut other = Stage::new(&realm).await;
    let arm = Release {
        version: "3".into(),
        targets: vec![vec![("arch".into(), "arm".into())]],
        ..Release::default()
    };
    let third = realm.release_with(&os(), Some(all[1].head()), arm, BOTH);
    other
        .publish(&[all[0].clone(), all[1].clone(), third.clone()])
        .await;
    let roles = &[
        "trust * 2 root1 root2 root3",
        "release * 2 ann bob",
        "withdraw * 1 halt",
    ];
    let rotated = realm.rotate(roles, &[(&os(), third.head())], ROOTS);
    other.publish(&[rotated]).await;
    device
        .set_source(source(&realm, &[other.address()]))
        .unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [3]);
    assert_eq!(device.state().head(&os()), Some(third.head()));
    assert_eq!(target(&mut device).await, Err(Requirement::Withdrawn));
    // Issued anew it is another one.
    let anew = realm.release(&os(), Some(third.head()), "1.2", BOTH);
    other.publish(&[anew]).await;
    assert_eq!(target(&mut device).await, Ok(Some(4)));
}

#[tokio::test]
async fn beat_channels_have_no_forks_the_highest_proven_serial_counts() {
    // A signer was restored and has signed its second beat anew; what follows follows that.
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all).await;
    let beat = |after: Option<&Statement>, life, head: &Statement| {
        realm.beat(
            after.map(Statement::head),
            &[(&os(), head.head())],
            life,
            &["beat"],
        )
    };
    let first = beat(None, 600, &all[0]);
    let (seen, anew) = (
        beat(Some(&first), 600, &all[1]),
        beat(Some(&first), 601, &all[1]),
    );
    let third = beat(Some(&anew), 600, &all[1]);
    let before = substitute(stage.address(), "test.beat", &[first.clone(), seen]).await;
    let mut device = device(&realm, &[before]);
    poll(&mut device).await.unwrap();
    assert!(device.freshness(&os()).is_current());
    for beats in [vec![first.clone(), anew.clone()], vec![first, anew, third]] {
        let after = substitute(stage.address(), "test.beat", &beats).await;
        device.set_source(source(&realm, &[after])).unwrap();
        assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
        assert!(device.freshness(&os()).is_current());
        assert_eq!(target(&mut device).await, Ok(Some(2)));
    }
    assert_eq!(
        device
            .state()
            .view()
            .beats()
            .next()
            .unwrap()
            .statement
            .serial(),
        serial(3)
    );
}

#[tokio::test]
async fn what_was_delivered_on_a_branch_that_was_left_is_no_cursor_for_the_other() {
    let realm = Realm::new(ROLES, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let first = releases(&realm, None, 1, BOTH);
    let ours = releases(&realm, Some(first[0].head()), 2, BOTH);
    let mut theirs = vec![realm.release(&os(), Some(first[0].head()), "other", BOTH)];
    theirs.extend(releases(&realm, Some(theirs[0].head()), 3, BOTH));
    one.publish(&first).await;
    one.publish(&ours).await;
    two.publish(&first).await;
    two.publish(&theirs).await;
    let path = one.fixture.directory.join("delivered.state");
    let open = |stage: &Stage| {
        Device::open(
            source(&realm, &[stage.address()]),
            ["test.os.stable"],
            &path,
        )
        .unwrap()
    };
    let mut device = open(&one).with_start(tidings_client::Start::Oldest);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3]);
    drop(device);
    // Everything of the other branch is delivered, from where it parts, and nothing twice.
    two.publish(&[realm.beat(None, &[(&os(), theirs[3].head())], 600, &["beat"])])
        .await;
    let mut device = open(&two);
    let news = device.poll().await.unwrap();
    assert_eq!(
        news.iter().map(|news| news.head()).collect::<Vec<_>>(),
        theirs.iter().map(Statement::head).collect::<Vec<_>>()
    );
    drop(device);
    assert_eq!(poll(&mut open(&two)).await.unwrap(), [] as [u32; 0]);
}

#[tokio::test]
async fn what_was_known_and_not_delivered_when_the_branch_was_left_comes_from_the_other() {
    let realm = Realm::new(ROLES, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let first = releases(&realm, None, 1, BOTH);
    let ours = releases(&realm, Some(first[0].head()), 2, BOTH);
    let theirs = realm.release(&os(), Some(first[0].head()), "other", BOTH);
    one.publish(&first).await;
    two.publish(&[first[0].clone(), theirs.clone()]).await;
    let mut device = device(&realm, &[one.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    one.publish(&ours).await;
    // A look at what may be applied moves what is known, and delivers nothing.
    assert!(target(&mut device).await.is_err());
    assert_eq!(device.state().head(&os()), Some(ours[1].head()));
    two.publish(&[realm.beat(None, &[(&os(), theirs.head())], 600, &["beat"])])
        .await;
    device.set_source(source(&realm, &[two.address()])).unwrap();
    let news = device.poll().await.unwrap();
    assert_eq!(
        news.iter().map(|news| news.head()).collect::<Vec<_>>(),
        [theirs.head()]
    );
}

#[tokio::test]
async fn a_beat_that_names_another_trust_statement_at_the_serial_in_force_makes_forked() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&all).await;
    let another = realm.later(realm.time.plus(1)).trust(ROLES, &[], ROOTS);
    let heads = vec![
        (
            realm.log[0].channel().clone(),
            tidings_client::Head {
                serial: serial(1),
                id: another.id(),
            },
        ),
        (os(), all[0].head()),
    ];
    let body = Body::Beat(Beat {
        expires: realm.time.plus(600),
        heads,
    });
    let draft = Draft {
        channel: "test.beat".parse().unwrap(),
        after: None,
        time: realm.time,
        trust: Some(serial(1)),
        body,
    };
    let beat = sign(&draft, &["beat"]);
    let liar = substitute(stage.address(), "test.beat", &[beat]).await;
    let mut device = Device::with_state(
        source(&realm, &[liar]),
        ["test.os.stable"],
        State::ephemeral(&realm.anchor),
    )
    .unwrap();
    poll(&mut device).await.unwrap();
    assert_eq!(device.freshness(&os()), Freshness::Forked);
    assert_eq!(target(&mut device).await, Err(Requirement::NotCurrent));
}

/// A state that has taken note of a log, or of the fork that it is.
fn learn(state: &mut State, log: &[Statement]) {
    state.change(|view, now| {
        let run = view.judge(&os(), log.to_vec()).unwrap();
        match view.place(&os(), run, false, now) {
            Ok(news) => view.note(&news, now),
            Err(Refusal::Fork(fork)) => view.note_fork(*fork, now),
            Err(refusal) => panic!("{refusal}"),
        }
    });
}

/// A log of three, another statement for its second place, and a state file that knows the first.
fn shared(realm: &Realm, path: &Path) -> (Vec<Statement>, Statement) {
    let all = releases(realm, None, 3, BOTH);
    let other = realm.release(&os(), Some(all[0].head()), "other", BOTH);
    let mut state = State::open(path, &realm.anchor).unwrap();
    state
        .change(|view, now| view.take_trust(realm.log.clone(), now))
        .unwrap();
    learn(&mut state, &all[..1]);
    state.save().unwrap();
    (all, other)
}

#[test]
fn attack_28_no_other_program_on_a_state_file_takes_the_evidence_away() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let directory = tempfile::tempdir().unwrap();
    for (name, read) in [("further", 3), ("as far", 2)] {
        let path = directory.path().join(name);
        let (all, other) = shared(&realm, &path);
        let mut watches = State::open(&path, &realm.anchor).unwrap();
        let mut applies = State::open_to_apply(&path, &realm.anchor).unwrap();
        // One has met both branches, or each of them has met another one.
        let branch = [all[0].clone(), other];
        if read == 3 {
            learn(&mut applies, &all[..2]);
        }
        learn(&mut applies, &branch);
        learn(&mut watches, &all[..read]);
        applies.save().unwrap();
        watches.save().unwrap();
        applies.refresh().unwrap();
        for state in [applies, State::look(&path, &realm.anchor).unwrap()] {
            assert!(state.view().fork(&os()).is_some(), "{name}");
            assert_eq!(state.freshness(&os()), Freshness::Forked);
        }
    }
}

#[test]
fn what_one_program_on_a_state_file_knows_decides_the_fork_of_another() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (all, other) = shared(&realm, &path);
    let mut watches = State::open(&path, &realm.anchor).unwrap();
    let mut applies = State::open_to_apply(&path, &realm.anchor).unwrap();
    let renewed = realm.rotate(NO_BEATS, &[(&os(), all[2].head())], ROOTS);
    learn(&mut watches, &all);
    watches
        .change(|view, now| view.take_trust([renewed], now))
        .unwrap();
    watches.save().unwrap();
    learn(&mut applies, &all[..2]);
    learn(&mut applies, &[all[0].clone(), other]);
    assert!(applies.view().fork(&os()).is_some());
    applies.save().unwrap();
    assert_eq!(applies.view().fork(&os()), None);
    assert_eq!(applies.head(&os()), Some(all[2].head()));
}
