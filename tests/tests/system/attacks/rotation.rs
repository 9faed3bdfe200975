//! Keys that are taken away or listed later: signatures that count for nothing, anchors,
//! checkpoints, and what a thief leaves.

use std::sync::{Arc, Mutex};

use tidings_client::{Channel, Device, Error, Head, Source, Start, State, Statement};
use tidings_protocol::{Anchor, Requirement, trust::Settled};
use tidings_tests::{
    Fixture,
    realm::{ROLES, Realm},
    relay::{self, Act, forge, substitute},
    tree::{connect, read_all, until_head},
};

use crate::attacks::stage::{
    BOTH, NO_BEATS, ROOTS, Stage, clear, device, os, poll, releases, requirement, serial, source,
    target,
};

const CEM_AND_DAN: &[&str] = &[
    "trust * 2 root1 root2 root3",
    "release * 2 cem dan",
    "withdraw * 1 stop",
    "beat * 1 beat",
];

/// A copy with signatures appended on the way, well formed and worthless: they are over something
/// else.
fn soiled(realm: &Realm, statement: &Statement, names: &[&str]) -> Statement {
    let other = realm.release(&"test.other".parse().unwrap(), None, "0", names);
    let lines: String = String::from_utf8_lossy(other.octets())
        .lines()
        .filter(|l| l.starts_with("Signature: "))
        .map(|l| format!("{l}\n"))
        .collect();
    Statement::parse(&[statement.octets(), lines.as_bytes()].concat()).unwrap()
}

#[tokio::test]
async fn attack_091_a_worthless_signature_by_a_key_that_is_listed_later_is_no_time_bomb() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let mut clean = releases(&realm, None, 2, BOTH);
    clean.push(realm.withdraw(&os(), clean[1].head(), clean[1].head(), &["stop"]));
    let dirty: Vec<Statement> = clean
        .iter()
        .map(|statement| soiled(&realm, statement, &["cem", "eve"]))
        .collect();
    // The broker that takes it from its publisher keeps what counts.
    stage.publish(&dirty).await;
    assert_eq!(read_all(&stage.fixture, &os()).await.unwrap(), clean);
    let first = realm.beat(None, &[(&os(), clean[2].head())], 600, &["beat"]);
    stage.publish(std::slice::from_ref(&first)).await;
    // Everybody behind gets the soiled copies; a mirror keeps what it got.
    let on_the_way = substitute(stage.address(), "test.os.stable", &dirty).await;
    let mirror = stage.fixture.mirror_of(&[on_the_way], "").unwrap();
    let daemon = mirror.start().unwrap();
    until_head(&mirror, &os(), 3).await;
    assert_eq!(read_all(&mirror, &os()).await.unwrap(), dirty);
    let mut before = device(&realm, &[on_the_way]);
    assert_eq!(poll(&mut before).await.unwrap(), [1, 2, 3]);
    assert_eq!(target(&mut before).await, Err(Requirement::Withdrawn));
    // The keys that have signed nothing of it are listed.
    let roles = &[
        "trust * 2 root1 root2 root3",
        "release * 2 ann bob cem eve",
        "withdraw * 1 stop cem eve",
        "beat * 1 beat",
    ];
    let rotated = realm.rotate(roles, &[], ROOTS);
    let confirmed = realm.beat(
        Some(first.head()),
        &[(&os(), clean[2].head())],
        600,
        &["beat"],
    );
    stage.publish(&[rotated, confirmed]).await;
    daemon.kill().unwrap();
    let _daemon = mirror.start().unwrap();
    until_head(&mirror, &realm.log[0].channel().clone(), 2).await;
    until_head(&mirror, &realm.anchor.namespace.beat(), 2).await;
    assert_eq!(read_all(&mirror, &os()).await.unwrap(), dirty);
    for device in [
        &mut before,
        &mut device(&realm, &[on_the_way]),
        &mut device(&realm, &[mirror.address]),
    ] {
        let _ = poll(device).await.unwrap();
        assert_eq!(target(device).await, Err(Requirement::Withdrawn));
    }
}

#[tokio::test]
async fn attack_091_the_evidence_of_a_fork_does_not_vanish_when_a_key_is_listed() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let ours = releases(&realm, None, 2, BOTH);
    let rival = realm.release(&os(), Some(ours[0].head()), "1.2-other", BOTH);
    let theirs = [ours[0].clone(), rival];
    one.publish(&ours).await;
    two.publish(&theirs).await;
    // On the way both get a signature by a key that is not listed yet.
    let mut shown = Vec::new();
    for (stage, log) in [(&one, &ours[..]), (&two, &theirs[..])] {
        let dirty: Vec<Statement> = log
            .iter()
            .map(|statement| soiled(&realm, statement, &["cem"]))
            .collect();
        shown.push(substitute(stage.address(), "test.os.stable", &dirty).await);
    }
    let path = one.fixture.directory.join("evidence.state");
    let open = |broker: std::net::SocketAddr| {
        Device::open(source(&realm, &[broker]), ["test.os.stable"], &path)
            .unwrap()
            .with_start(Start::Oldest)
    };
    let mut device = open(shown[0]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    drop(device);
    let mut device = open(shown[1]);
    assert!(matches!(poll(&mut device).await, Err(Error::Fork(_))));
    drop(device);
    let roles = &[
        "trust * 2 root1 root2 root3",
        "release * 2 ann bob cem",
        "withdraw * 1 stop",
    ];
    let anchor = Realm::clone_of(&realm);
    let listed = realm.rotate(roles, &[], ROOTS);
    one.publish(std::slice::from_ref(&listed)).await;
    let state = || State::open(&path, &anchor.anchor).unwrap();
    for _ in 0..2 {
        let mut device =
            Device::with_state(source(&anchor, &[shown[0]]), ["test.os.stable"], state()).unwrap();
        assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
        assert_eq!(
            device.state().trust().map(|trust| trust.serial()),
            Some(serial(2))
        );
        let fork = device.state().view().fork(&os()).unwrap();
        assert_eq!(
            (fork.ours.id(), fork.theirs.id()),
            (ours[1].id(), theirs[1].id())
        );
    }
}

#[tokio::test]
async fn attack_091_of_sixteen_signatures_one_holds() {
    let realm = Realm::new(
        &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"],
        &["root1"],
    );
    let mut stage = Stage::new(&realm).await;
    let strangers: Vec<String> = (0..16).map(|n| format!("stranger{n}")).collect();
    let strangers: Vec<&str> = strangers.iter().map(String::as_str).collect();
    let clean = realm.release(&os(), None, "1", &["ann"]);
    let unsigned = realm.release(&os(), None, "1", &[]);
    let none = soiled(&realm, &unsigned, &strangers);
    assert!(
        stage
            .refusal(&none)
            .await
            .contains(&Requirement::Threshold.to_string())
    );
    assert_eq!(
        connect(&stage.fixture)
            .await
            .unwrap()
            .group(&os(), None)
            .await
            .unwrap()
            .map(|_| ()),
        None
    );
    let sixteen = soiled(&realm, &clean, &strangers[..15]);
    assert_eq!(sixteen.signatures().len(), 16);
    stage.publish(&[sixteen]).await;
    assert_eq!(read_all(&stage.fixture, &os()).await.unwrap(), [clean]);
}

#[tokio::test]
async fn attack_094_what_was_applied_at_the_last_serial_binds_until_its_keys_are_taken_away() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let honest = releases(&realm, None, 2, BOTH);
    stage.publish(&honest).await;
    let far = Head {
        serial: serial(2_147_483_645),
        id: honest[0].id(),
    };
    let forged = realm.release(&os(), Some(far), "6.6", BOTH);
    let lie = move |command: &str, answer: Vec<u8>| match command {
        "GROUP test.os.stable" => {
            Act::Send(b"211 1 2147483646 2147483646 test.os.stable\r\n".to_vec())
        }
        "ARTICLE 2147483646" => Act::Send(forge(b"220", &forged, None)),
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[stage.address()], lie).await.unwrap();
    let mut device = device(&realm, &[liar]);
    poll(&mut device).await.unwrap();
    device
        .apply(&os(), serial(2_147_483_646), async |_| Ok::<_, Error>(()))
        .await
        .unwrap();
    device
        .set_source(source(&realm, &[stage.address()]))
        .unwrap();
    assert_eq!(target(&mut device).await, Err(Requirement::LogEnds));
    let rotated = realm.rotate(&CEM_AND_DAN[..3], &[(&os(), honest[1].head())], ROOTS);
    stage.publish(&[rotated]).await;
    assert_eq!(
        target(&mut device).await,
        Ok(Some(2)),
        "what was applied is not proven any more"
    );
    stage
        .publish(&[realm.release(&os(), Some(honest[1].head()), "2.0", &["cem", "dan"])])
        .await;
    assert_eq!(target(&mut device).await, Ok(Some(3)));
}

#[tokio::test]
async fn attack_096_retired_root_keys_have_no_power_over_a_device_with_the_newest_anchor() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut coup = Realm::clone_of(&realm);
    let roles = &[
        "trust * 2 new1 new2 new3",
        "release * 2 ann bob",
        "withdraw * 1 stop",
    ];
    realm.rotate(roles, &[], &["root1", "root2", "new1", "new2"]);
    let mut stage = Stage::new(&realm).await;
    let good = realm.release(&os(), None, "1", BOTH);
    stage.publish(std::slice::from_ref(&good)).await;
    // Years later somebody finds the old root keys, and begins another history with them.
    coup.rotate(
        &[
            "trust * 1 mallory",
            "release * 1 mallory",
            "withdraw * 1 mallory",
        ],
        &[],
        &["root1", "root2", "mallory"],
    );
    let evil = coup.release(&os(), None, "6.6", &["mallory"]);
    let liar = substitute(stage.address(), "test.trust", &coup.log).await;
    let liar = substitute(liar, "test.os.stable", std::slice::from_ref(&evil)).await;
    let mut old = device(&realm, &[liar]);
    assert_eq!(
        old.poll().await.unwrap()[0].id(),
        evil.id(),
        "a device with the first anchor is theirs"
    );
    let anchor = Anchor {
        head: realm.log[1].head(),
        ..realm.anchor.clone()
    };
    let open = |brokers: &[String]| {
        let source = Source::new(brokers.iter().map(String::as_str), &anchor.to_string()).unwrap();
        Device::with_state(source, ["test.os.stable"], State::ephemeral(&anchor))
            .unwrap()
            .with_start(Start::Oldest)
    };
    let (liar, honest) = (format!("nntp://{liar}"), stage.fixture.url());
    let mut new = open(std::slice::from_ref(&liar));
    assert_eq!(
        requirement(&poll(&mut new).await.unwrap_err()),
        Requirement::Anchor
    );
    let mut new = open(&[liar, honest]);
    assert_eq!(new.poll().await.unwrap()[0].id(), good.id());
    // A mirror with that anchor copies and serves the trust log from 1, for devices that have
    // slept.
    let mut mirror = Fixture::new().unwrap();
    mirror.anchor = anchor;
    mirror.mirror(&[stage.address()], "").unwrap();
    let _daemon = mirror.start().unwrap();
    until_head(&mirror, &os(), 1).await;
    until_head(&mirror, realm.log[0].channel(), 2).await;
    let mut slept = device(&realm, &[mirror.address]);
    assert_eq!(slept.poll().await.unwrap()[0].id(), good.id());
}

/// A namespace with thirty channels, a release in each, and a beat that names them all; the
/// releases and the beat.
async fn thirty(realm: &Realm, stage: &mut Stage) -> (Vec<Statement>, Statement) {
    let first: Vec<Statement> = (0..30)
        .map(|n| realm.release(&format!("test.c{n}").parse().unwrap(), None, "1", BOTH))
        .collect();
    stage.publish(&first).await;
    let heads: Vec<_> = first
        .iter()
        .map(|release| (release.channel(), release.head()))
        .collect();
    let beat = realm.beat(None, &heads, 600, &["beat"]);
    stage.publish(std::slice::from_ref(&beat)).await;
    (first, beat)
}

#[tokio::test]
async fn attack_099_one_line_settles_all_channels_that_a_beat_names() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let (first, beat) = thirty(&realm, &mut stage).await;
    let open = |realm: &Realm, brokers: &[std::net::SocketAddr]| {
        let state = State::ephemeral(&realm.anchor);
        Device::with_state(source(realm, brokers), ["test.c7"], state)
            .unwrap()
            .with_start(Start::Oldest)
    };
    let mut before = open(&realm, &[stage.address()]);
    assert_eq!(poll(&mut before).await.unwrap(), [1]);
    // Ann and Bob lose their keys; one line settles everything.
    let thief = Realm::clone_of(&realm);
    let rotated = realm.rotate(CEM_AND_DAN, &[(beat.channel(), beat.head())], ROOTS);
    stage.publish(&[rotated]).await;
    let evil = thief.release(first[7].channel(), Some(first[7].head()), "6.6", BOTH);
    assert!(
        stage
            .refusal(&evil)
            .await
            .contains(&Requirement::Threshold.to_string())
    );
    let other = thief.release(first[7].channel(), None, "6.6", BOTH);
    for (forged, why) in [
        (&evil, Requirement::Threshold),
        (&other, Requirement::Checkpoint),
    ] {
        let mut log: Vec<Statement> = first[7..8].to_vec();
        log.truncate(forged.serial().number() as usize - 1);
        log.push(forged.clone());
        let liar = substitute(stage.address(), "test.c7", &log).await;
        assert_eq!(
            requirement(&poll(&mut open(&realm, &[liar])).await.unwrap_err()),
            why
        );
    }
    // It goes on under the new keys, for those who were there and for new ones.
    let next = realm.release(
        first[7].channel(),
        Some(first[7].head()),
        "2",
        &["cem", "dan"],
    );
    stage
        .publish(&[
            next.clone(),
            realm.beat(
                Some(beat.head()),
                &[(first[7].channel(), next.head())],
                600,
                &["beat"],
            ),
        ])
        .await;
    assert_eq!(poll(&mut before).await.unwrap(), [2]);
    assert_eq!(
        poll(&mut open(&realm, &[stage.address()])).await.unwrap(),
        [1, 2]
    );
    assert!(before.freshness(first[7].channel()).is_current());
    // Whoever cannot get that beat installs nothing.
    let id = beat.message_id().to_string();
    let hiding =
        relay::start(
            &[stage.address()],
            move |command: &str, answer: Vec<u8>| match command {
                _ if command.contains(&id)
                    || command == "ARTICLE 1" && answer.windows(10).any(|w| w == b"@test.beat") =>
                {
                    Act::Send(b"430 no such article\r\n".to_vec())
                }
                _ => Act::Send(answer),
            },
        )
        .await
        .unwrap();
    let mut without = open(&realm, &[hiding]);
    let _ = poll(&mut without).await;
    let refused = without.target(first[7].channel()).await.unwrap_err();
    assert_eq!(requirement(&refused), Requirement::Unsettled);
}

#[tokio::test]
async fn of_settled_beats_a_device_reads_that_of_its_own_role_alone() {
    let channels: [Channel; 2] = ["test.a.x", "test.b.x"].map(|name| name.parse().unwrap());
    let beats: [Channel; 2] = ["test.a.beat", "test.b.beat"].map(|name| name.parse().unwrap());
    let of_two = |release| {
        let beats = ["beat test.a.* 1 beat", "beat test.b.* 1 beat"];
        [NO_BEATS[0], release, NO_BEATS[2], beats[0], beats[1]]
    };
    let mut realm = Realm::new(&of_two(NO_BEATS[1]), ROOTS);
    let mut stage = Stage::new(&realm).await;
    let mut settled = Vec::new();
    for (channel, beats) in channels.iter().zip(&beats) {
        let first = realm.release(channel, None, "1", BOTH);
        let beat = realm.beat_in(beats, None, &[(channel, first.head())], 600, &["beat"]);
        stage.publish(&[first, beat.clone()]).await;
        settled.push(beat);
    }
    let fetched = Arc::new(Mutex::new(Vec::new()));
    let noted = fetched.clone();
    let brokers = [stage.address()];
    let relay = relay::start(&brokers, move |command, answer| {
        if let Some(id) = command.strip_prefix("ARTICLE <") {
            noted.lock().unwrap().push(format!("<{id}"));
        }
        Act::Send(answer)
    });
    let relay = relay.await.unwrap();
    let before = Realm::clone_of(&realm);
    let open = |channels: &[Channel]| {
        let state = State::ephemeral(&before.anchor);
        let names = channels.iter().map(Channel::as_str);
        Device::with_state(source(&before, &[relay]), names, state).unwrap()
    };
    let mut one = open(&channels[..1]);
    assert_eq!(poll(&mut one).await.unwrap(), [1]);
    let (new, mut both) = (open(&channels[1..]), open(&channels));
    let named = [
        (&beats[0], settled[0].head()),
        (&beats[1], settled[1].head()),
    ];
    let rotated = realm.rotate(&of_two("release * 2 cem dan"), &named, ROOTS);
    stage.publish(&[rotated]).await;
    assert_eq!(fetched.lock().unwrap().len(), 0);
    let ids: Vec<String> = settled.iter().map(|s| s.message_id().to_string()).collect();
    for (device, ids) in [
        (&mut one, &ids[..1]),
        (&mut { new }, &ids[1..]),
        (&mut both, &ids),
    ] {
        let _ = poll(device).await;
        assert_eq!(std::mem::take(&mut *fetched.lock().unwrap()), ids);
        // What the other beat settles is nothing to it.
        let _ = poll(device).await;
        assert_eq!(fetched.lock().unwrap().len(), 0);
    }
    let trust = one.state().trust().unwrap();
    let at = |channel| matches!(trust.checkpoint(channel), Settled::At(_));
    assert_eq!((at(&channels[0]), at(&channels[1])), (true, false));
}

#[tokio::test]
async fn attack_119_what_a_thief_put_above_the_checkpoint_is_in_nobodys_way_and_is_vouched_for_by_nobody()
 {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let honest = releases(&realm, None, 1, BOTH);
    let evil = releases(&realm, Some(honest[0].head()), 2, BOTH);
    stage.publish(&honest).await;
    stage.publish(&evil).await;
    let mut victim = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut victim).await.unwrap(), [1, 2, 3]);
    victim
        .apply(&os(), serial(3), async |_| Ok::<_, Error>(()))
        .await
        .unwrap();
    let rotated = realm.rotate(&CEM_AND_DAN[..3], &[(&os(), honest[0].head())], ROOTS);
    stage.publish(&[rotated]).await;
    // The places are free, and a publisher extends what is proven.
    let newest = stage.publisher.newest(&os()).await.unwrap().unwrap();
    assert_eq!(newest.head(), honest[0].head());
    let next = realm.release(&os(), Some(newest.head()), "2", &["cem", "dan"]);
    stage.publish(std::slice::from_ref(&next)).await;
    for device in [&mut victim, &mut device(&realm, &[stage.address()])] {
        poll(device).await.unwrap();
        assert_eq!(device.state().head(&os()), Some(next.head()));
        assert_eq!(target(device).await, Ok(Some(2)));
    }
    // One that grafts what is honest onto the thief's is refused.
    let graft = realm.release(&os(), Some(evil[1].head()), "3", &["cem", "dan"]);
    let liar = substitute(
        stage.address(),
        "test.os.stable",
        &[honest[0].clone(), evil[0].clone(), evil[1].clone(), graft],
    )
    .await;
    let mut device = device(&realm, &[liar]);
    let _ = poll(&mut device).await;
    assert!(clear(&mut device, 2).await.is_err() && clear(&mut device, 3).await.is_err());
}
