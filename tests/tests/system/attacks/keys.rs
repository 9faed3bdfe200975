//! Signatures and keys.

use tidings_client::{Head, Statement};
use tidings_protocol::Requirement;
use tidings_tests::{
    realm::{ROLES, Realm},
    relay::{self, Act, forge, honest, substitute},
};

use crate::attacks::stage::{
    BOTH, NO_BEATS, ROOTS, Stage, clear, device, os, poll, releases, requirement, serial, source,
};

#[tokio::test]
async fn attacks_01_02_04_08_10_66_what_is_not_signed_as_it_must_be_is_taken_by_nobody() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let good = realm.release(&os(), None, "1.0", BOTH);
    let draft = realm.release(&os(), None, "6.6", &[]);
    let by = |names: &[&str]| realm.release(&os(), None, "6.6", names);
    let with = |lines: String| {
        Statement::parse(&[draft.signed_part(), lines.as_bytes()].concat()).unwrap()
    };
    let line = |statement: &Statement, n: usize| {
        let text = String::from_utf8(statement.octets().to_vec()).unwrap();
        text.lines()
            .filter(|l| l.starts_with("Signature: "))
            .nth(n)
            .unwrap()
            .to_owned()
            + "\n"
    };
    let elsewhere = realm.release(&"test.os.testing".parse().unwrap(), None, "6.6", BOTH);
    let forgeries = [
        ("01 a stranger's", by(&["mallory"])),
        ("02 below the threshold", by(&["ann"])),
        ("02 one of the two and a stranger", by(&["ann", "mallory"])),
        (
            "04 a bad one beside a good one",
            with(line(&by(&["ann"]), 0) + &line(&good, 1)),
        ),
        (
            "08 from another statement",
            with(line(&good, 0) + &line(&good, 1)),
        ),
        (
            "08 from another channel",
            with(line(&elsewhere, 0) + &line(&elsewhere, 1)),
        ),
        ("10 by the beat key", by(&["beat"])),
        ("10 by the withdraw key", by(&["stop"])),
        ("10 by trust keys", by(&["root1", "root2", "root3"])),
    ];
    for (what, forged) in &forgeries {
        let said = stage.refusal(forged).await;
        assert!(
            said.contains(&format!("({})", Requirement::Threshold)),
            "{what}: {said}"
        );
        let liar = substitute(
            stage.address(),
            "test.os.stable",
            std::slice::from_ref(forged),
        )
        .await;
        let mut device = device(&realm, &[liar]);
        let error = poll(&mut device).await.unwrap_err();
        assert_eq!(
            requirement(&error),
            Requirement::Threshold,
            "{what}: {error}"
        );
        assert_eq!(device.state().head(&os()), None, "{what}");
    }
    // 09: what was signed comes out octet for octet, whoever relayed it.
    stage.publish(std::slice::from_ref(&good)).await;
    let relayed = relay::start(&[stage.address()], honest).await.unwrap();
    let mut device = device(&realm, &[relayed]);
    let news = device.poll().await.unwrap();
    assert_eq!(news[0].octets(), good.octets());
}

#[tokio::test]
async fn attack_03_one_key_under_two_names_is_one_key() {
    let realm = Realm::new(ROLES, ROOTS);
    let text = String::from_utf8(realm.log[0].signed_part().to_vec()).unwrap();
    let ann = text
        .lines()
        .find(|l| l.starts_with("Key: ") && l.ends_with(" ann"))
        .unwrap();
    let twice = text.replace(ann, &format!("{ann}\n{}", ann.replace(" ann", " ann2")));
    assert!(
        Statement::parse_draft(twice.as_bytes())
            .unwrap_err()
            .reason
            .contains("each key"),
        "by the grammar"
    );
    // And a signature that stands twice is refused before anybody counts.
    let release = realm.release(&os(), None, "1", &["ann"]);
    let octets = String::from_utf8(release.octets().to_vec()).unwrap();
    let line = octets.lines().last().unwrap().to_owned();
    assert!(
        Statement::parse(format!("{octets}{line}\n").as_bytes())
            .unwrap_err()
            .reason
            .contains("one signature of each key")
    );
}

#[tokio::test]
async fn attacks_11_16_trust_changes_only_by_the_thresholds_of_both() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let coup = &[
        "trust * 1 mallory",
        "release * 1 mallory",
        "withdraw * 1 mallory",
    ];
    let lowered = &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"];
    let moved = &[
        "trust * 2 new1 new2",
        "release * 2 ann bob",
        "withdraw * 1 stop",
    ];
    let forgeries = [
        ("11 new keys alone", realm.trust(coup, &[], &["mallory"])),
        (
            "11 one old key",
            realm.trust(moved, &[], &["root1", "new1", "new2"]),
        ),
        (
            "11 old keys alone",
            realm.trust(moved, &[], &["root1", "root2"]),
        ),
        (
            "16 by the threshold that it lowers",
            realm.trust(lowered, &[], &["root1"]),
        ),
        (
            "10 by the beat key",
            realm.trust(coup, &[], &["beat", "mallory"]),
        ),
    ];
    for (what, forged) in &forgeries {
        let said = stage.refusal(forged).await;
        assert!(
            said.contains(&format!("({})", Requirement::Threshold)),
            "{what}: {said}"
        );
        let liar = substitute(
            stage.address(),
            "test.trust",
            &[realm.log[0].clone(), forged.clone()],
        )
        .await;
        let mut device = device(&realm, &[liar]);
        let error = poll(&mut device).await.unwrap_err();
        assert_eq!(
            requirement(&error),
            Requirement::Threshold,
            "{what}: {error}"
        );
        assert_eq!(
            device.state().trust().map(|t| t.serial().number()),
            Some(1),
            "{what}: the first statement stays walked"
        );
    }
    // Those of both: taken, at once, by broker and device.
    let good = realm.trust(moved, &[], &["root1", "root2", "new1", "new2"]);
    stage.publish(&[good]).await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(device.trust().await.unwrap().serial().number(), 2);
}

#[tokio::test]
async fn attack_13_a_whole_set_of_retired_keys_signs_nothing_new_and_what_it_signed_stays_valid() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let old = releases(&realm, None, 3, BOTH);
    stage.publish(&old).await;
    let head = old[2].head();
    let stale = Realm {
        log: realm.log.clone(),
        anchor: realm.anchor.clone(),
        ..realm
    };
    let mut before = device(&stale, &[stage.address()]);
    assert_eq!(poll(&mut before).await.unwrap(), [1, 2, 3]);
    // Ann and Bob lose their keys; the checkpoint vouches for what they signed until then.
    let new = &[
        "trust * 2 root1 root2 root3",
        "release * 2 cem dan",
        "withdraw * 1 stop",
    ];
    let rotated = realm.rotate(new, &[(&os(), head)], ROOTS);
    stage.publish(&[rotated]).await;
    // The thief signs with the complete old set: on top, under the old trust, and in another place.
    for forged in [
        realm.release(&os(), Some(head), "6.6", BOTH),
        stale.release(&os(), Some(head), "6.6", BOTH),
        stale.release(&os(), Some(old[1].head()), "6.6", BOTH),
    ] {
        let said = stage.refusal(&forged).await;
        let why = [Requirement::Threshold, Requirement::Checkpoint]
            .map(|requirement| requirement.to_string());
        assert!(why.iter().any(|why| said.contains(why)), "{said}");
        let mut log = old[..forged.serial().number() as usize - 1].to_vec();
        log.push(forged);
        let liar = substitute(stage.address(), "test.os.stable", &log).await;
        for device in [&mut device(&realm, &[liar]), &mut before] {
            device.set_source(source(&realm, &[liar])).unwrap();
            let result = poll(device).await;
            assert!(result.is_err(), "{result:?}");
        }
    }
    // The old history is as good as ever for a device that comes new, and goes on under the new
    // keys.
    stage
        .publish(&[realm.release(&os(), Some(head), "2.0", &["cem", "dan"])])
        .await;
    assert_eq!(
        poll(&mut device(&realm, &[stage.address()])).await.unwrap(),
        [1, 2, 3, 4]
    );
    before
        .set_source(source(&realm, &[stage.address()]))
        .unwrap();
    assert_eq!(poll(&mut before).await.unwrap(), [4]);
}

#[tokio::test]
async fn attack_14_a_stolen_beat_key_or_one_of_two_release_keys_installs_nothing_and_the_stop_key_works_alone()
 {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all).await;
    let beat =
        |after: Option<Head>, head: Head| realm.beat(after, &[(&os(), head)], 600, &["beat"]);
    let first = beat(None, all[1].head());
    stage.publish(std::slice::from_ref(&first)).await;
    let mut good = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut good).await.unwrap(), [1, 2]);
    assert!(good.freshness(&os()).is_current());
    clear(&mut good, 2).await.unwrap();

    // The thief of the beat key names a head that was never released, and offers a statement to go
    // with it.
    let forged = realm.release(&os(), Some(all[1].head()), "6.6", &["beat"]);
    let lie = beat(Some(first.head()), forged.head());
    let liar = substitute(
        stage.address(),
        "test.os.stable",
        &[all[0].clone(), all[1].clone(), forged.clone()],
    )
    .await;
    let liar = substitute(liar, "test.beat", &[first.clone(), lie.clone()]).await;
    let mut deceived = device(&realm, &[liar]);
    assert!(poll(&mut deceived).await.is_err());
    assert!(clear(&mut deceived, 3).await.is_err());
    assert_eq!(
        deceived.state().head(&os()),
        None,
        "not even the good ones below it, in one run"
    );
    // One of two release keys is as little.
    let half = realm.release(&os(), Some(all[1].head()), "6.6", &["ann"]);
    let liar = substitute(
        stage.address(),
        "test.os.stable",
        &[all[0].clone(), all[1].clone(), half],
    )
    .await;
    assert!(poll(&mut device(&realm, &[liar])).await.is_err());

    // The withdraw key alone stops a rollout, and vouches for no release below it.
    let smuggled = realm.release(&os(), Some(all[1].head()), "6.6", &["stop"]);
    let above = realm.withdraw(&os(), smuggled.head(), all[0].head(), &["stop"]);
    let liar = substitute(
        stage.address(),
        "test.os.stable",
        &[all[0].clone(), all[1].clone(), smuggled, above],
    )
    .await;
    assert!(poll(&mut device(&realm, &[liar])).await.is_err());
    let withdrawal = realm.withdraw(&os(), all[1].head(), all[1].head(), &["stop"]);
    stage.publish(&[withdrawal]).await;
    assert_eq!(poll(&mut good).await.unwrap(), [3]);
    // 95: and it leads nobody to the older one instead.
    assert_eq!(clear(&mut good, 2).await, Err(Requirement::Withdrawn));
    assert_eq!(clear(&mut good, 1).await, Err(Requirement::Withdrawn));
}

#[tokio::test]
async fn attack_15_a_device_that_was_sent_to_the_last_serial_comes_back_by_a_checkpoint() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let honest = releases(&realm, None, 2, BOTH);
    stage.publish(&honest).await;
    // The thief of both release keys: the broker takes the next serial only; a hostile mirror
    // claims that all below has expired.
    let far = Head {
        serial: serial(2_147_483_645),
        id: honest[0].id(),
    };
    let forged = realm.release(&os(), Some(far), "6.6", BOTH);
    assert!(
        stage
            .refusal(&forged)
            .await
            .contains("head of the channel is 2 ")
    );
    let last = forged.clone();
    let lie = move |command: &str, answer: Vec<u8>| match command {
        "GROUP test.os.stable" => {
            Act::Send(b"211 1 2147483646 2147483646 test.os.stable\r\n".to_vec())
        }
        "ARTICLE 2147483646" => Act::Send(forge(b"220", &last, None)),
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[stage.address()], lie).await.unwrap();
    let mut device = device(&realm, &[liar]);
    assert_eq!(
        poll(&mut device).await.unwrap(),
        [2_147_483_646],
        "the keys are stolen: this is authentic"
    );
    device
        .set_source(source(&realm, &[stage.address()]))
        .unwrap();
    assert_eq!(
        poll(&mut device).await.unwrap(),
        [] as [u32; 0],
        "an honest broker looks as if it were behind"
    );
    // The keys are taken away, and the checkpoint says what the log is.
    let new = &[
        "trust * 2 root1 root2 root3",
        "release * 2 cem dan",
        "withdraw * 1 stop",
    ];
    let rotated = realm.rotate(new, &[(&os(), honest[1].head())], ROOTS);
    stage.publish(&[rotated]).await;
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    stage
        .publish(&[realm.release(&os(), Some(honest[1].head()), "2.0", &["cem", "dan"])])
        .await;
    assert_eq!(poll(&mut device).await.unwrap(), [3]);
}
