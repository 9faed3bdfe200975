//! Found by people who attacked the code: each was possible once.

use std::{process::Command, sync::Mutex, time::Duration};

use futures_util::StreamExt;
use tidings_client::{Device, Error, Freshness, Head, Lookout, Source, Start, State, Statement, keys, survey};
use tidings_protocol::statement::Release;
use tidings_tests::{
    binary,
    realm::{ROLES, Realm, key},
    relay::{self, Act, honest, substitute},
};
use tokio::time::timeout;

use crate::stage::{BOTH, NO_BEATS, PATIENCE, ROOTS, Stage, clear, device, os, poll, releases, serial, source};

const CEM_AND_DAN: &[&str] = &["trust * 2 root1 root2 root3", "release * 2 cem dan", "withdraw * 1 stop", "beat * 1 beat"];

fn old(realm: &Realm, length: usize) -> Realm {
    Realm { log: realm.log[..length].to_vec(), anchor: realm.anchor.clone(), ..*realm }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_13_no_ceremony_vouches_for_what_a_broker_with_an_old_trust_log_shows() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 1, BOTH);
    stage.publish(&first).await;
    let rotated = realm.rotate(CEM_AND_DAN, &[(&os(), first[0].head())], ROOTS);
    stage.publish(&[rotated]).await;
    // One broker shows the first trust statement alone, and a second release by the keys that were taken away.
    let before = old(&realm, 1);
    let evil = before.release(&os(), Some(first[0].head()), "6.6", BOTH);
    let liar = substitute(stage.address(), "test.trust", &realm.log[..1]).await;
    let liar = substitute(liar, "test.os.stable", &[first[0].clone(), evil.clone()]).await;
    let both = source(&realm, &[liar, stage.address()]);
    let seen = survey(&both, &[]).await;
    assert_eq!(seen.newest(&os()).unwrap().map(|s| s.head()), Some(first[0].head()));
    assert!(seen.0[0].failed.iter().any(|(channel, _)| *channel == os()), "it is not accepted there");
    // By the command, as a person would: neither a renewal nor a change takes it up.
    let directory = &stage.fixture.directory;
    let urls = format!("nntp://{liar},nntp://{}", stage.address());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary("tidings"));
        command.args(arguments).current_dir(directory).env("TIDINGS_BROKERS", &urls).env("TIDINGS_ANCHOR", realm.anchor.to_string());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let log: Vec<u8> = realm.log.iter().flat_map(|s| s.octets().to_vec()).collect();
    std::fs::write(directory.join("log"), log).unwrap();
    let (good, text) = run(&["trust", "renew", "log", "--out", "renewed"]);
    assert!(good && !text.contains("+ checkpoint") && text.contains("is not accepted now already"), "{text}");
    let (good, text) = run(&["trust", "change", "log", "--out", "changed", "--remove-key", "cem", "--role", "release * 1 dan"]);
    assert!(!good && text.contains("brokers disagree about the head of test.os.stable"), "{text}");
    // With the honest one alone the checkpoint is at its head.
    let (good, text) = run(&[
        "trust",
        "change",
        "log",
        "--out",
        "changed",
        "--remove-key",
        "cem",
        "--role",
        "release * 1 dan",
        "--broker",
        &stage.fixture.url(),
    ]);
    assert!(good && !text.contains(&evil.id().to_string()), "{text}");
}

#[tokio::test]
async fn attack_14_after_an_evil_release_was_withdrawn_and_its_key_taken_away_devices_still_catch_up() {
    // Its signers have lost their key, the withdrawal above has not: the change gives a checkpoint all the same.
    let roles = &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"];
    let realm = Realm::new(roles, &["root1"]);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, &["ann"]);
    let withdrawal = realm.withdraw(&os(), all[1].head(), serial(2), None, &["stop"]);
    stage.publish(&all).await;
    let mut behind = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut behind).await.unwrap(), [1, 2]);
    stage.publish(std::slice::from_ref(&withdrawal)).await;
    let directory = stage.fixture.directory.clone();
    std::fs::write(directory.join("log"), realm.log[0].octets()).unwrap();
    for name in ["root1", "cem"] {
        keys::write_private(&directory.join(format!("{name}.key")), &key(name), None).unwrap();
    }
    for arguments in [
        &["trust", "change", "log", "--out", "new", "--remove-key", "ann", "--add-key", "cem=cem.key", "--role", "release * 1 cem"][..],
        &["sign", "--key", "root1.key", "new"],
        &["publish", "new"],
    ] {
        let mut command = Command::new(binary("tidings"));
        command
            .args(arguments)
            .current_dir(&directory)
            .env("TIDINGS_BROKERS", stage.fixture.url())
            .env("TIDINGS_ANCHOR", realm.anchor.to_string());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(poll(&mut behind).await.unwrap(), [3]);
    assert_eq!(poll(&mut device(&realm, &[stage.address()])).await.unwrap(), [1, 2, 3]);
    assert!(clear(&mut behind, 2).await.unwrap_err().contains("withdrawn by 3"));
    clear(&mut behind, 1).await.unwrap();
}

#[tokio::test]
async fn attack_14_who_runs_ahead_of_the_log_with_a_stolen_withdraw_key_is_found_out_by_beats() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all).await;
    let mut ahead = all.clone();
    for _ in 0..4 {
        let head = ahead.last().map(Statement::head).unwrap();
        ahead.push(realm.withdraw(&os(), head, serial(1), None, &["stop"]));
    }
    let liar = substitute(stage.address(), "test.os.stable", &ahead).await;
    let mut device = device(&realm, &[liar]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3, 4, 5, 6]);
    // The honest log withdraws 2; beats name that, and never come to where the device has been led.
    let withdrawal = realm.withdraw(&os(), all[1].head(), serial(2), None, &["stop"]);
    stage.publish(std::slice::from_ref(&withdrawal)).await;
    let mut last = None;
    for _ in 0..3 {
        let beat = realm.beat(last, &[(&os(), withdrawal.head())], 600, &["beat"]);
        last = Some(beat.head());
        stage.publish(&[beat]).await;
        assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    }
    assert_eq!(device.freshness(&os()), Freshness::Stale { since: None });
    assert!(clear(&mut device, 2).await.unwrap_err().contains("(spec 5.6-2)"));
    // A new stop key and a checkpoint bring it back.
    let mut realm = realm;
    let roles = &["trust * 2 root1 root2 root3", "release * 2 ann bob", "withdraw * 1 halt", "beat * 1 beat"];
    let rotated = realm.rotate(roles, &[(&os(), withdrawal.head())], ROOTS);
    stage.publish(&[rotated, realm.beat(last, &[(&os(), withdrawal.head())], 600, &["beat"])]).await;
    device.set_source(source(&realm, &[stage.address()])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [3]);
    assert!(device.freshness(&os()).is_current());
    assert!(clear(&mut device, 2).await.unwrap_err().contains("withdrawn by 3"));
}

#[tokio::test]
async fn attack_13_what_one_broker_proves_by_an_old_trust_is_not_returned_when_another_has_a_newer_one() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 1, BOTH);
    stage.publish(&first).await;
    let rotated = realm.rotate(CEM_AND_DAN, &[(&os(), first[0].head())], ROOTS);
    stage.publish(&[rotated, realm.beat(None, &[(&os(), first[0].head())], 600, &["beat"])]).await;
    let evil = old(&realm, 1).release(&os(), Some(first[0].head()), "6.6", BOTH);
    let liar = substitute(stage.address(), "test.trust", &realm.log[..1]).await;
    let liar = substitute(liar, "test.os.stable", &[first[0].clone(), evil]).await;
    let mut device = device(&realm, &[liar, stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(device.state().head(&os()), Some(first[0].head()));
    assert!(device.freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_17_a_signer_of_beats_that_starts_above_a_checkpoint_goes_on_and_leaves_out_what_nobody_shows() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 1, BOTH);
    stage.publish(&first).await;
    let rotated = realm.rotate(ROLES, &[(&os(), first[0].head())], ROOTS);
    stage.publish(&[rotated]).await;
    let more = releases(&realm, Some(first[0].head()), 3, BOTH);
    stage.publish(&more[..2]).await;
    let mut lookout = Lookout::new(&source(&realm, &[stage.address()]));
    assert_eq!(lookout.look(&[]).await.newest(&os()).unwrap().map(|s| s.serial()), Some(serial(3)));
    stage.publish(&more[2..]).await;
    let seen = lookout.look(&[]).await;
    assert_eq!((seen.newest(&os()).unwrap().map(|s| s.serial()), seen.is_confirmed(&os())), (Some(serial(4)), true));
    // A broker that shows less than before: what it had is known, and not confirmed.
    let shorter = Mutex::new(false);
    let switch = move |command: &str, answer: Vec<u8>| match command {
        "LIST ACTIVE test.*" if std::mem::replace(&mut *shorter.lock().unwrap(), true) => {
            Act::Send(b"215 list follows\r\ntest.os.stable 0000000003 0000000001 y\r\n.\r\n".to_vec())
        }
        _ => Act::Send(answer),
    };
    let relay = relay::start(&[stage.address()], switch).await.unwrap();
    let mut lookout = Lookout::new(&source(&realm, &[relay]));
    assert!(lookout.look(&[]).await.is_confirmed(&os()));
    let seen = lookout.look(&[]).await;
    assert_eq!((seen.newest(&os()).unwrap().map(|s| s.serial()), seen.is_confirmed(&os())), (Some(serial(4)), false));
}

#[tokio::test]
async fn attack_20_beats_that_nobody_asked_for_are_not_kept() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&[all[0].clone(), realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"])]).await;
    // In front of the second release come a hundred unsigned shards.
    let shard = |n: u32| {
        let text = format!(
            "Tidings: 1 beat\nChannel: test.flood-{n}.beat\nSerial: 1\nPrevious: -\nTime: 2026-11-01T00:00:00Z\nTrust: 1\nExpires: 2026-11-02T00:00:00Z\n"
        );
        Statement::parse_draft(text.as_bytes()).unwrap().sign(&key("mallory")).unwrap()
    };
    let shards: Vec<Statement> = (0..100).map(shard).collect();
    let flood = move |command: &str, answer: Vec<u8>| match command {
        "XWATCH" if answer.starts_with(b"2 ") => {
            let mut all: Vec<u8> = shards.iter().flat_map(|s| relay::forge(&answer, s, None)).collect();
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
        assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap().serial(), serial(1));
        stage.publish(&all[1..]).await;
        let next = timeout(PATIENCE, watch.next()).await;
        assert_eq!(next.unwrap().unwrap().unwrap().serial(), serial(2));
    }
    assert!(!device.state().view().channels().any(|channel| channel.as_str().contains("flood")));
    assert_eq!(device.unproven_shards(), 0);
}

#[tokio::test]
async fn attack_42_a_trust_statement_that_needs_a_newer_version_keeps_nothing_back() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    stage.publish(&releases(&realm, None, 1, BOTH)).await;
    let next = realm.trust(NO_BEATS, &[], &[]);
    let text = String::from_utf8(next.signed_part().to_vec()).unwrap() + "Colour: blue\nCritical: Colour\n";
    let next = Statement::parse_draft(text.as_bytes()).unwrap();
    let next = ROOTS.iter().fold(next, |next, name| next.sign(&key(name)).unwrap());
    assert!(stage.refusal(&next).await.contains("(spec 3.3-1)"));
    // What is signed under it is not accepted; other channels go on.
    let other = "test.zz.other".parse().unwrap();
    let mut ahead = old(&realm, 1);
    ahead.log.push(next.clone());
    let under = ahead.release(&other, None, "1", BOTH);
    let newer = substitute(stage.address(), "test.trust", &[realm.log[0].clone(), next]).await;
    let newer = substitute(newer, "test.zz.other", &[under]).await;
    let state = State::ephemeral(&realm.anchor);
    let mut device = Device::with_state(source(&realm, &[newer]), ["test.zz.other", "test.os.stable"], state).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [1], "the trust before stays in force");
    assert_eq!(device.state().head(&other), None);
    clear(&mut device, 1).await.unwrap();
}

#[tokio::test]
async fn attack_26_what_is_missing_of_one_channel_keeps_nothing_back_from_another() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    stage.publish(&releases(&realm, None, 3, BOTH)).await;
    let other = "test.zz.other".parse().unwrap();
    stage.publish(&[realm.release(&other, None, "1", BOTH)]).await;
    let lie = |command: &str, answer: Vec<u8>| match command {
        "ARTICLE 2" => Act::Send(b"423 no such article\r\n".to_vec()),
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[stage.address()], lie).await.unwrap();
    let state = State::ephemeral(&realm.anchor);
    let mut device =
        Device::with_state(source(&realm, &[liar]), ["test.os.stable", "test.zz.other"], state).unwrap().with_start(Start::Oldest);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(device.state().head(&other).map(|head| head.serial), Some(serial(1)));
    assert!(matches!(poll(&mut device).await, Err(Error::Unreachable { .. })), "and the other is not forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_32_a_broker_that_only_says_that_others_were_first_gets_one_signature_for_a_place() {
    let realm = Realm::new(&["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"], &["root1"]);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 1, &["ann"]);
    stage.publish(&first).await;
    let posts = std::sync::Arc::new(Mutex::new(0));
    let count = posts.clone();
    let id = first[0].id();
    let lie = move |command: &str, answer: Vec<u8>| match command {
        "POST" if answer.starts_with(b"240") || answer.starts_with(b"441") => {
            *count.lock().unwrap() += 1;
            Act::Send(format!("441 head 2 {id}; another statement is there already\r\n").into_bytes())
        }
        _ => Act::Send(answer),
    };
    // The relay swallows what was stored, so that the head stays where it was.
    let behind = substitute(stage.address(), "test.os.stable", &first).await;
    let liar = relay::start(&[behind], lie).await.unwrap();
    let directory = &stage.fixture.directory;
    keys::write_private(&directory.join("ann.key"), &key("ann"), None).unwrap();
    let mut command = Command::new(binary("tidings"));
    command.args(["release", "test.os.stable", "--version", "2", "--key", "ann.key", "--publish"]).current_dir(directory);
    command.env("TIDINGS_BROKERS", format!("nntp://{liar}")).env("TIDINGS_ANCHOR", realm.anchor.to_string());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("nothing more is signed"), "{text}");
    assert_eq!(*posts.lock().unwrap(), 1);
}

#[tokio::test]
async fn attacks_13_28_verify_calls_nothing_good_that_is_not_now_and_proves_forks_by_their_links() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 1, BOTH);
    let ours = realm.release(&os(), Some(first[0].head()), "1.2", BOTH);
    // The other branch is signed at its upper end alone.
    let theirs = realm.release(&os(), Some(first[0].head()), "1.2-other", &["mallory"]);
    let above = realm.release(&os(), Some(theirs.head()), "1.3-other", BOTH);
    let liar = substitute(stage.address(), "test.os.stable", &[first[0].clone(), theirs.clone(), above.clone()]).await;
    let good = substitute(stage.address(), "test.os.stable", &[first[0].clone(), ours.clone()]).await;
    let path = stage.fixture.directory.join("links.state");
    let mut device = Device::open(source(&realm, &[good]), ["test.os.stable"], &path).unwrap();
    poll(&mut device).await.unwrap();
    device.set_source(source(&realm, &[liar])).unwrap();
    let Err(Error::Fork(fork)) = poll(&mut device).await else { panic!("no fork") };
    assert_eq!((fork.theirs.id(), fork.above.len()), (theirs.id(), 1));
    drop(device);
    let kept = State::look(&path, &realm.anchor).unwrap();
    assert_eq!(kept.view().fork(&os()), Some(&*fork), "it is kept with what proves it");
    let (directory, anchor) = (&stage.fixture.directory, realm.anchor.to_string());
    let write = |name: &str, statements: &[&Statement]| {
        std::fs::write(directory.join(name), statements.iter().flat_map(|s| s.octets().to_vec()).collect::<Vec<u8>>()).unwrap();
    };
    let verify = |name: &str| {
        let mut command = Command::new(binary("tidings"));
        let output = command.args(["verify", name]).current_dir(directory).env("TIDINGS_ANCHOR", &anchor).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    write("evidence", &[&realm.log[0], &fork.ours, &fork.theirs, &fork.above[0]]);
    let (code, text) = verify("evidence");
    assert!(code == Some(1) && text.contains("FORK of test.os.stable at 2") && !text.contains("BAD"), "{text}");
    // The same after a rotation: evidence still, and nothing of it is good any more.
    let roles = &["trust * 2 root1 root2 root3", "release * 2 cem dan", "withdraw * 1 stop"];
    realm.rotate(roles, &[(&os(), ours.head())], ROOTS);
    write("evidence", &[&realm.log[0], &realm.log[1], &fork.ours, &fork.theirs, &fork.above[0]]);
    let (code, text) = verify("evidence");
    assert!(code == Some(1) && text.contains("FORK") && text.contains("settled by trust 2") && text.matches("BAD").count() == 2, "{text}");
    write("revoked", &[&realm.log[0], &realm.log[1], &above]);
    let (code, text) = verify("revoked");
    assert!(code == Some(1) && text.contains("trust 1 proved it, trust 2, which is in force, does not"), "{text}");
}

#[tokio::test]
async fn attack_87_news_that_were_not_saved_come_again_although_beats_and_trust_were() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&[all[0].clone(), realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"])]).await;
    let path = stage.fixture.directory.join("by-hand.state");
    let open = || Device::open(source(&realm, &[stage.fixture.address]), ["test.os.stable"], &path).unwrap().with_saving_by_hand();
    let mut device = open();
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    drop(device);
    // Nothing was saved by hand: the trust is known, the release comes again.
    let mut device = open();
    assert_eq!(device.state().trust().map(|trust| trust.serial()), Some(serial(1)));
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    device.save().unwrap();
    stage.publish(&all[1..]).await;
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    let rotated = realm.rotate(ROLES, &[], ROOTS);
    stage.publish(&[rotated]).await;
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0], "this has written the new trust");
    drop(device);
    let mut device = Device::open(source(&realm, &[stage.fixture.address]), ["test.os.stable"], &path).unwrap();
    assert_eq!(device.state().trust().map(|trust| trust.serial()), Some(serial(2)));
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
}

#[tokio::test]
async fn attack_33_retention_keeps_what_a_checkpoint_names() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::with(&realm, "[[retention]]\nchannels = \"*\"\ncount = 1").await;
    let all = releases(&realm, None, 3, BOTH);
    stage.publish(&all).await;
    let rotated = realm.rotate(NO_BEATS, &[(&os(), all[2].head())], ROOTS);
    stage.publish(&[rotated]).await;
    stage.publish(&releases(&realm, Some(all[2].head()), 3, BOTH)).await;
    // Sweeps come every minute, and one at the start.
    let stage = stage.restart().await;
    let mut connection = stage.fixture.source().unwrap().connect().await.unwrap();
    let began = std::time::Instant::now();
    let group = loop {
        let group = connection.command("GROUP test.os.stable").await.unwrap().to_string();
        if group.contains(" 3 6 ") || began.elapsed() > PATIENCE {
            break group;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(group.starts_with("211 4 3 6 "), "{group}");
    assert_eq!(poll(&mut device(&realm, &[stage.address()])).await.unwrap(), [3, 4, 5, 6]);
}

#[tokio::test]
async fn attack_51_a_branch_that_lost_is_no_measure_and_no_excuse() {
    // Below the fork nothing becomes new again.
    {
        let mut realm = Realm::new(NO_BEATS, ROOTS);
        let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
        let all = releases(&realm, None, 3, BOTH);
        let other = realm.release(&os(), Some(all[1].head()), "other", BOTH);
        one.publish(&all).await;
        two.publish(&[all[0].clone(), all[1].clone(), other.clone()]).await;
        let mut device = device(&realm, &[one.address()]);
        poll(&mut device).await.unwrap();
        device.note_applied(&os(), serial(3)).unwrap();
        let settled = realm.rotate(NO_BEATS, &[(&os(), other.head())], ROOTS);
        two.publish(&[settled]).await;
        device.set_source(source(&realm, &[two.address()])).unwrap();
        assert_eq!(poll(&mut device).await.unwrap(), [3]);
        assert_eq!(device.state().view().applied(&os()), Some(serial(3)));
        assert!(clear(&mut device, 1).await.unwrap_err().contains("(spec 5.6-7)"));
        clear(&mut device, 3).await.unwrap();
    }

    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let a = realm.release(&os(), None, "a", BOTH);
    let b = realm.release(&os(), None, "b", BOTH);
    let next =
        realm.release_with(&os(), Some(b.head()), Release { version: "c".into(), barrier: Some(serial(1)), ..Release::default() }, BOTH);
    one.publish(&[a]).await;
    two.publish(&[b, next.clone()]).await;
    let mut device = device(&realm, &[one.address()]);
    poll(&mut device).await.unwrap();
    device.note_applied(&os(), serial(1)).unwrap();
    let settled = realm.rotate(NO_BEATS, &[(&os(), next.head())], ROOTS);
    two.publish(&[settled]).await;
    device.set_source(source(&realm, &[two.address()])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2], "the whole of the other branch");
    assert!(clear(&mut device, 2).await.unwrap_err().contains("(spec 5.6-8)"));
}

#[tokio::test]
async fn the_relay_of_these_tests_is_no_obstacle_by_itself() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let relay = relay::start(&[stage.address()], honest).await.unwrap();
    let all = releases(&realm, None, 3, BOTH);
    let mut publisher = tidings_client::Publisher::connect(source(&realm, &[relay])).await.unwrap();
    publisher.publish(&all[0]).await.unwrap();
    let mut device = device(&realm, &[relay]);
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    for release in &all {
        assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap().head(), release.head());
        let after: Option<Head> = Some(release.head());
        if let Some(next) = all.iter().find(|s| s.predecessor() == after) {
            stage.publish(std::slice::from_ref(next)).await;
        }
    }
    let _: Source = source(&realm, &[relay]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tired_person_would_do_wrong_in_a_ceremony_is_noticed() {
    let roles = &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop", "beat * 1 beat"];
    let realm = Realm::new(roles, &["root1"]);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, &["ann"]);
    stage.publish(&all[..1]).await;
    let directory = stage.fixture.directory.clone();
    std::fs::write(directory.join("log"), realm.log[0].octets()).unwrap();
    for name in ["root1", "cem", "stop"] {
        keys::write_private(&directory.join(format!("{name}.key")), &key(name), None).unwrap();
    }
    let url = stage.fixture.url();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary("tidings"));
        command.args(arguments).current_dir(&directory).env("TIDINGS_BROKERS", &url).env("TIDINGS_ANCHOR", realm.anchor.to_string());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    // A checkpoint that nobody has.
    let nowhere = format!("test.os.stable 1 {}", all[1].id());
    let (good, text) = run(&["trust", "change", "log", "--out", "x", "--checkpoint", &nowhere]);
    assert!(!good && text.contains("no broker that was asked has test.os.stable 1"), "{text}");
    // The last who may confirm.
    let (good, text) = run(&["trust", "change", "log", "--dry-run", "--remove-role", "beat *"]);
    assert!(good && text.contains("nobody may sign a beat any more"), "{text}");
    // A key that counts for nothing, and then the right one.
    let change =
        ["trust", "change", "log", "--out", "new", "--remove-key", "ann", "--add-key", "cem=cem.key.pub", "--role", "release * 1 cem"];
    std::fs::write(directory.join("cem.key.pub"), tidings_client::keys::PublicKey::of(&key("cem")).to_string()).unwrap();
    let (good, text) = run(&change);
    assert!(good && text.contains("withdraw first what should not be there"), "{text}");
    let (good, text) = run(&["sign", "--key", "cem.key", "new"]);
    assert!(good && text.contains("its signature counts for nothing"), "{text}");
    assert!(run(&["sign", "--key", "root1.key", "new"]).0);
    // Meanwhile the old key has published.
    stage.publish(&all[1..]).await;
    let (good, text) = run(&["publish", "new"]);
    assert!(!good && text.contains("test.os.stable is at 2 now") && text.contains("Nothing was published"), "{text}");
    assert_eq!(poll(&mut device(&realm, &[stage.address()])).await.unwrap(), [1, 2]);
    // A fallback by those who may only stop; and an image that is running although it was withdrawn.
    let state = ["--state", "agent.state"];
    stage.publish(&[realm.beat(None, &[(&os(), all[1].head())], 600, &["beat"])]).await;
    assert!(run(&[&["apply", "test.os.stable", "2"], &state[..], &["--", "true"]].concat()).0);
    let withdraw = ["withdraw", "test.os.stable", "2", "--reason", "bad", "--fallback", "1", "--key", "stop.key", "--publish"];
    let (good, text) = run(&withdraw);
    assert!(good && text.contains("the fallback is advice only"), "{text}");
    assert!(run(&[&["fetch", "test.os.stable"], &state[..]].concat()).0);
    let (good, text) = run(&[&["status"], &state[..]].concat());
    assert!(!good && text.contains("2, WITHDRAWN by 3"), "{text}");
    let (good, text) = run(&[&["apply", "test.os.stable", "9"], &state[..]].concat());
    assert!(!good && text.contains("there is no 9: the head that is known is 3"), "{text}");
    let (good, text) = run(&[&["apply", "test.os.stable", "1", "--quorum", "2"], &state[..]].concat());
    assert!(!good, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_32_many_publishers_by_the_command_all_come_to_their_turn() {
    let realm = Realm::new(&["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"], &["root1"]);
    let mut stage = Stage::new(&realm).await;
    stage.publish(&releases(&realm, None, 1, &["ann"])).await;
    let directory = stage.fixture.directory.clone();
    keys::write_private(&directory.join("ann.key"), &key("ann"), None).unwrap();
    let publish = |number: u32| {
        let mut command = Command::new(binary("tidings"));
        command.args(["release", "test.os.stable", "--key", "ann.key", "--publish", "--version"]).arg(number.to_string());
        command.current_dir(&directory).env("TIDINGS_BROKERS", stage.fixture.url()).env("TIDINGS_ANCHOR", realm.anchor.to_string());
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    for round in 0..4 {
        let tasks: Vec<_> = (0..8).map(|number| publish(round * 8 + number)).collect();
        for task in tasks {
            let output = task.await.unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
    assert_eq!(poll(&mut device(&realm, &[stage.address()])).await.unwrap(), (1..=33).collect::<Vec<_>>());
}

#[tokio::test]
async fn attack_21_a_publishers_clock_that_is_ahead_makes_no_beat_look_old() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let ahead = Realm { time: tidings_client::now().plus(6 * 3600), log: realm.log.clone(), anchor: realm.anchor.clone(), ..realm };
    let release = ahead.release(&os(), None, "1", BOTH);
    stage.publish(&[release.clone(), realm.beat(None, &[(&os(), release.head())], 600, &["beat"])]).await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(device.freshness(&os()).is_current(), "{}", device.freshness(&os()));
    clear(&mut device, 1).await.unwrap();
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
            stage.publish(&[realm.beat(None, &[(&os(), all[5].head())], 600, &["beat"])]).await;
        }
        // What lies between has expired at the one that is complete otherwise.
        let expired = |command: &str, answer: Vec<u8>| match command {
            "GROUP test.os.stable" => Act::Send(b"211 2 5 6 test.os.stable\r\n".to_vec()),
            _ => Act::Send(answer),
        };
        let short = relay::start(&[stage.address()], expired).await.unwrap();
        for brokers in [[short, behind], [behind, short]] {
            if roles == NO_BEATS && brokers[0] == behind {
                // Where no beat says that there is more, the first broker that answers is believed to have what there is.
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
