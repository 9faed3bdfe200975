//! What attackers and tired people try against the command.

use std::net::SocketAddr;

use tidings_client::{Device, Error, State, Statement, keys};
use tidings_protocol::Requirement;
use tidings_tests::{
    realm::{Realm, key},
    relay::substitute,
};

use crate::attacks::stage::{
    BOTH, NO_BEATS, ROOTS, Stage, device, os, poll, releases, source, target,
};

#[tokio::test]
async fn attack_14_after_an_evil_release_was_withdrawn_and_its_key_taken_away_devices_still_catch_up()
 {
    // Its signers have lost their key, the withdrawal above has not: the change gives a checkpoint
    // all the same.
    let roles = &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"];
    let realm = Realm::new(roles, &["root1"]);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, &["ann"]);
    let withdrawal = realm.withdraw(&os(), all[1].head(), all[1].head(), &["stop"]);
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
        &[
            "trust",
            "change",
            "log",
            "--out",
            "new",
            "--remove-key",
            "ann",
            "--add-key",
            "cem=cem.key",
            "--role",
            "release * 1 cem",
        ][..],
        &["sign", "--key", "root1.key", "new"],
        &["publish", "new"],
    ] {
        let mut command = tidings_tests::tidings(&directory);
        command
            .args(arguments)
            .current_dir(&directory)
            .env("TIDINGS_BROKERS", stage.fixture.url())
            .env("TIDINGS_ANCHOR", realm.anchor.to_string());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(poll(&mut behind).await.unwrap(), [3]);
    assert_eq!(
        poll(&mut device(&realm, &[stage.address()])).await.unwrap(),
        [1, 2, 3]
    );
    assert_eq!(target(&mut behind).await, Err(Requirement::Withdrawn));
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
    let liar = substitute(
        stage.address(),
        "test.os.stable",
        &[first[0].clone(), theirs.clone(), above.clone()],
    )
    .await;
    let good = substitute(
        stage.address(),
        "test.os.stable",
        &[first[0].clone(), ours.clone()],
    )
    .await;
    let path = stage.fixture.directory.join("links.state");
    let mut device = Device::open(source(&realm, &[good]), ["test.os.stable"], &path).unwrap();
    poll(&mut device).await.unwrap();
    device.set_source(source(&realm, &[liar])).unwrap();
    let Err(Error::Fork(fork)) = poll(&mut device).await else {
        panic!("no fork")
    };
    assert_eq!((fork.theirs.id(), fork.above.len()), (theirs.id(), 1));
    drop(device);
    let kept = State::look(&path, &realm.anchor).unwrap();
    assert_eq!(
        kept.view().fork(&os()),
        Some(&*fork),
        "it is kept with what proves it"
    );
    let (directory, anchor) = (&stage.fixture.directory, realm.anchor.to_string());
    let write = |name: &str, statements: &[&Statement]| {
        std::fs::write(
            directory.join(name),
            statements
                .iter()
                .flat_map(|s| s.octets().to_vec())
                .collect::<Vec<u8>>(),
        )
        .unwrap();
    };
    let verify = |name: &str| {
        let mut command = tidings_tests::tidings(directory);
        let output = command
            .args(["verify", name])
            .current_dir(directory)
            .env("TIDINGS_ANCHOR", &anchor)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    write(
        "evidence",
        &[&realm.log[0], &fork.ours, &fork.theirs, &fork.above[0]],
    );
    let (code, text) = verify("evidence");
    assert!(
        code == Some(3) && text.contains("FORK of test.os.stable at 2") && !text.contains("BAD"),
        "{text}"
    );
    // The same after a rotation: evidence still, and nothing of it is good any more.
    let roles = &[
        "trust * 2 root1 root2 root3",
        "release * 2 cem dan",
        "withdraw * 1 stop",
    ];
    realm.rotate(roles, &[(&os(), ours.head())], ROOTS);
    write(
        "evidence",
        &[
            &realm.log[0],
            &realm.log[1],
            &fork.ours,
            &fork.theirs,
            &fork.above[0],
        ],
    );
    let (code, text) = verify("evidence");
    assert!(
        code == Some(3)
            && text.contains("FORK")
            && text.contains("settled by trust 2")
            && text.matches("BAD").count() == 2,
        "{text}"
    );
    write("revoked", &[&realm.log[0], &realm.log[1], &above]);
    let (code, text) = verify("revoked");
    assert!(
        code == Some(3) && text.contains("trust 1 proved it, trust 2, which is in force, does not"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tired_person_would_do_wrong_in_a_ceremony_is_noticed() {
    let roles = &[
        "trust * 1 root1",
        "release * 1 ann",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
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
        let mut command = tidings_tests::tidings(&directory);
        command
            .args(arguments)
            .current_dir(&directory)
            .env("TIDINGS_BROKERS", &url)
            .env("TIDINGS_ANCHOR", realm.anchor.to_string());
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    // A checkpoint that nobody has.
    let nowhere = format!("test.os.stable 1 {}", all[1].id());
    let (good, text) = run(&[
        "trust",
        "change",
        "log",
        "--out",
        "x",
        "--checkpoint",
        &nowhere,
    ]);
    assert!(
        !good && text.contains("no broker that was asked has test.os.stable 1"),
        "{text}"
    );
    // The last who may confirm.
    let (good, text) = run(&[
        "trust",
        "change",
        "log",
        "--dry-run",
        "--remove-role",
        "beat *",
    ]);
    assert!(
        good && text.contains("nobody may sign a beat any more"),
        "{text}"
    );
    // A key that counts for nothing, and then the right one.
    let change = [
        "trust",
        "change",
        "log",
        "--out",
        "new",
        "--remove-key",
        "ann",
        "--add-key",
        "cem=cem.key.pub",
        "--role",
        "release * 1 cem",
    ];
    std::fs::write(
        directory.join("cem.key.pub"),
        tidings_client::keys::PublicKey::of(&key("cem")).to_string(),
    )
    .unwrap();
    let (good, text) = run(&change);
    assert!(
        good && text.contains("withdraw first what should not be there"),
        "{text}"
    );
    let (good, text) = run(&["sign", "--key", "cem.key", "new"]);
    assert!(
        good && text.contains("its signature counts for nothing"),
        "{text}"
    );
    assert!(run(&["sign", "--key", "root1.key", "new"]).0);
    // Meanwhile the old key has published.
    stage.publish(&all[1..]).await;
    let (good, text) = run(&["publish", "new"]);
    assert!(
        !good
            && text.contains("test.os.stable is at 2 now")
            && text.contains("Nothing was published"),
        "{text}"
    );
    assert_eq!(
        poll(&mut device(&realm, &[stage.address()])).await.unwrap(),
        [1, 2]
    );
    // An image that is running although it was withdrawn.
    let state = ["--state", "agent.state"];
    stage
        .publish(&[realm.beat(None, &[(&os(), all[1].head())], 600, &["beat"])])
        .await;
    assert!(
        run(&[
            &["apply", "test.os.stable", "2"],
            &state[..],
            &["--", "true"]
        ]
        .concat())
        .0
    );
    let withdraw = [
        "withdraw",
        "test.os.stable",
        "2",
        "--reason",
        "bad",
        "--key",
        "stop.key",
        "--publish",
    ];
    let (good, text) = run(&withdraw);
    assert!(good, "{text}");
    assert!(run(&[&["fetch", "test.os.stable"], &state[..]].concat()).0);
    let (good, text) = run(&[&["status"], &state[..]].concat());
    assert!(!good && text.contains("2, WITHDRAWN by 3"), "{text}");
    let (good, text) = run(&[&["apply", "test.os.stable", "9"], &state[..]].concat());
    assert!(
        !good && text.contains("2 was withdrawn by 3: bad"),
        "{text}"
    );
    let (good, text) = run(&[
        &["apply", "test.os.stable", "1", "--quorum", "2"],
        &state[..],
    ]
    .concat());
    assert!(!good, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_32_many_publishers_by_the_command_all_come_to_their_turn() {
    let realm = Realm::new(
        &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"],
        &["root1"],
    );
    let mut stage = Stage::new(&realm).await;
    stage.publish(&releases(&realm, None, 1, &["ann"])).await;
    let directory = stage.fixture.directory.clone();
    keys::write_private(&directory.join("ann.key"), &key("ann"), None).unwrap();
    let publish = |number: u32| {
        let mut command = tidings_tests::tidings(&directory);
        command
            .args([
                "release",
                "test.os.stable",
                "--key",
                "ann.key",
                "--publish",
                "--version",
            ])
            .arg(number.to_string());
        command
            .current_dir(&directory)
            .env("TIDINGS_BROKERS", stage.fixture.url())
            .env("TIDINGS_ANCHOR", realm.anchor.to_string());
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    for round in 0..4 {
        let tasks: Vec<_> = (0..8).map(|number| publish(round * 8 + number)).collect();
        for task in tasks {
            let output = task.await.unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
    assert_eq!(
        poll(&mut device(&realm, &[stage.address()])).await.unwrap(),
        (1..=33).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn attack_30_a_serial_of_the_trust_log_that_some_broker_has_is_not_signed_again() {
    let mut realm = Realm::new(
        &["trust * 1 root", "release * 1 ann", "withdraw * 1 stop"],
        &["root"],
    );
    let (stage, mut ahead) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let roles = &["trust * 1 root", "release * 1 bob", "withdraw * 1 stop"];
    let taken = realm.trust(roles, &[], &["root"]);
    let pending = realm.trust(
        &["trust * 1 root", "release * 1 eve", "withdraw * 1 stop"],
        &[],
        &[],
    );
    ahead.publish(&[taken]).await;
    let directory = &stage.fixture.directory;
    tidings_client::keys::write_private(
        &directory.join("root1.key"),
        &tidings_tests::realm::key("root"),
        None,
    )
    .unwrap();
    std::fs::write(directory.join("log"), realm.log[0].octets()).unwrap();
    std::fs::write(
        directory.join("pending"),
        [realm.log[0].octets(), pending.octets()].concat(),
    )
    .unwrap();
    let run = |brokers: &[SocketAddr], arguments: &[&str]| {
        let urls: Vec<String> = brokers
            .iter()
            .map(|address| format!("nntp://{address}"))
            .collect();
        let mut command = tidings_tests::tidings(directory);
        command
            .args(arguments)
            .current_dir(directory)
            .env("TIDINGS_BROKERS", urls.join(","));
        let output = command
            .env("TIDINGS_ANCHOR", realm.anchor.to_string())
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (one, both) = ([stage.address()], [stage.address(), ahead.address()]);
    let before = std::fs::read(directory.join("pending")).unwrap();
    for arguments in [
        &["sign", "--key", "root1.key", "pending"][..],
        &["trust", "renew", "log", "--out", "renewed"],
    ] {
        let (good, text) = run(&both, arguments);
        assert!(
            !good && text.contains("has test.trust 2 already: 2 must not be signed again"),
            "{text}"
        );
    }
    assert_eq!(
        std::fs::read(directory.join("pending")).unwrap(),
        before,
        "nothing was signed"
    );
    let (good, text) = run(&one, &["sign", "--key", "root1.key", "pending"]);
    assert!(good, "{text}");
    // The log of the other broker is a fork of that now, and is not taken for the same.
    let (good, text) = run(&[ahead.address()], &["publish", "pending"]);
    assert!(
        !good && text.contains("the broker has another trust statement 2"),
        "{text}"
    );
    realm.log.push(pending);
}
