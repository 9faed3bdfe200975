//! Publishing: channels that are begun, what is withdrawn, what falls out, and beats.

use std::time::{Duration, Instant};

use tidings_protocol::StatementId;
use tidings_tests::{realm::Realm, relay::substitute};

use crate::command::desk::{Desk, NO_BEATS, NO_BROKER, REFUSED, ROLES, WITHDRAWN, os};

#[tokio::test(flavor = "multi_thread")]
async fn attack_100_a_channel_is_begun_on_purpose_only() {
    let desk = Desk::new(NO_BEATS).await;
    desk.release(&["--version", "1"]).bad(
        REFUSED,
        "there is no channel test.os.stable yet; --new-channel begins it, and for good",
    );
    desk.release(&["--version", "1", "--new-channel"])
        .good("published <1.");
    let typo = [
        "release",
        "test.os.stabel",
        "--key",
        "ann.key",
        "--publish",
        "--version",
        "1",
    ];
    desk.run(&typo).bad(
        REFUSED,
        "there is no channel test.os.stabel yet; did you mean test.os.stable?",
    );
    desk.release(&["--version", "2", "--new-channel"])
        .good("test.os.stable has 1 already; --new-channel begins nothing");
    // A file that begins one needs it too; a draft is none yet.
    desk.run(&[
        "release",
        "test.web",
        "--after",
        "-",
        "--trust",
        "1",
        "--version",
        "1",
        "--key",
        "ann.key",
        "-o",
        "web",
    ])
    .good("");
    desk.run(&["publish", "web"])
        .bad(REFUSED, "there is no channel test.web yet");
    desk.run(&["publish", "web", "--new-channel"])
        .good("published <1.");
    assert!(
        !desk
            .run(&["log", "test.os.stabel"])
            .text
            .contains("release")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_names_a_release_that_there_is_once() {
    let mut desk = Desk::new(NO_BEATS).await;
    let all = desk.releases(&os(), 2).await;
    let withdraw = |serial: &str| {
        desk.run(&[
            "withdraw",
            "test.os.stable",
            serial,
            "--reason",
            "bad",
            "--key",
            "stop.key",
            "--publish",
        ])
    };
    withdraw("9").bad(
        REFUSED,
        "there is no test.os.stable 9; `tidings log test.os.stable` shows what there is",
    );
    withdraw("2").good("published <3.");
    assert!(
        desk.run(&["log", "test.os.stable"])
            .text
            .contains(&format!("withdraws 2 {}", all[1].id()))
    );
    withdraw("2").bad(WITHDRAWN, "test.os.stable 2 is withdrawn already, by 3");
    withdraw("3").bad(
        REFUSED,
        "test.os.stable 3 is a withdraw, and only a release can be withdrawn",
    );
    // What cannot count is not published, and leaves nothing behind.
    let wrong = [
        "withdraw",
        "test.os.stable",
        "1",
        "--reason",
        "bad",
        "--key",
        "ann.key",
        "--publish",
    ];
    desk.run(&wrong).bad(
        REFUSED,
        "nothing was published: a withdraw in test.os.stable needs 1 signatures of stop by trust 1",
    );
    desk.run(&["outbox"]).good("");
    assert_eq!(desk.run(&["outbox"]).text, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_123_the_newest_release_for_some_machines_is_published_again_before_it_falls_out() {
    let desk = Desk::new(NO_BEATS).await;
    desk.release(&["--version", "1", "--new-channel", "--target", "machine=new"])
        .good("published <1.");
    desk.release(&["--version", "2", "--target", "machine=old"])
        .good("published <2.");
    for version in ["3", "4", "5"] {
        let said = desk.release(&["--version", version, "--target", "machine=new"]);
        said.good("published");
        assert!(
            !said.text.contains("fall out"),
            "nothing is known of what is kept: {}",
            said.text
        );
    }
    // The first sweep comes with the start.
    let mut desk = desk
        .restart("[[retention]]\nchannels = \"test.os.*\"\ncount = 4\n")
        .await;
    let began = Instant::now();
    while desk.publisher.low(&os()).await.unwrap() != Some(2) {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "nothing has fallen out"
        );
        tokio::task::yield_now().await;
    }
    let says = "test.os.stable 2, the newest release for machine=old, is about to fall out of what the origin keeps (its log begins at 2): `tidings release test.os.stable --again 2` publishes it once more";
    desk.release(&["--version", "6", "--target", "machine=new"])
        .good(says);
    // The one that is published takes its place.
    let same = desk.release(&["--version", "7", "--target", "machine=old"]);
    assert!(
        same.code == 0 && !same.text.contains("fall out"),
        "{}",
        same.text
    );
    let old = desk.run(&[
        "release",
        "test.os.stable",
        "--again",
        "9999",
        "--key",
        "ann.key",
        "--publish",
    ]);
    old.bad(
        REFUSED,
        "--again: the origin has no test.os.stable 9999; its log begins at",
    );
    desk.run(&[
        "release",
        "test.os.stable",
        "--again",
        "2",
        "--key",
        "ann.key",
        "--publish",
    ])
    .good("published <8.");
    let log = desk
        .run(&["--json", "log", "test.os.stable", "--last", "1"])
        .text;
    let again: serde_json::Value = serde_json::from_str(log.trim()).unwrap();
    assert_eq!(again["fields"]["Version"], serde_json::json!(["2"]));
    assert_eq!(
        again["fields"]["Target"],
        serde_json::json!(["machine=old"])
    );
    // Retention itself waits for no `Target`: what has nobody to publish it again goes.
    let mut desk = desk
        .restart("[[retention]]\nchannels = \"test.os.*\"\ncount = 1\n")
        .await;
    let began = Instant::now();
    while desk.publisher.low(&os()).await.unwrap() != Some(8) {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "nothing more has fallen out"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_with_credentials_or_a_ca_nothing_is_posted_in_clear_text() {
    let mut desk = Desk::new(NO_BEATS).await;
    desk.releases(&os(), 1).await;
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(desk.path("ca.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(desk.path("password"), "secret\n").unwrap();
    let says = "credentials or a CA were given, so that statements are posted over TLS only; use nntps:// instead of nntp://127.0.0.1:";
    desk.release(&["--version", "2", "--ca", "ca.pem"])
        .bad(2, says);
    desk.release(&[
        "--version",
        "2",
        "--user",
        "ann",
        "--password-file",
        "password",
    ])
    .bad(2, says);
    // Reading needs no secret, and whoever is asked is not believed anyhow.
    desk.run(&["log", "test.os.stable", "--ca", "ca.pem"])
        .good("release 1");
    assert_eq!(desk.run(&["log", "test.os.stable"]).text.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn s04_a_signer_of_beats_names_what_the_origin_has_and_never_another_statement_at_a_serial() {
    let mut desk = Desk::new(ROLES).await;
    let all = desk.releases(&os(), 2).await;
    let web = "test.web.stable".parse().unwrap();
    let first = desk.realm.release(&web, None, "1", &["ann"]);
    desk.publish(&[first]).await;
    // A beat of before has named another statement in that place.
    let other = tidings_client::Head {
        serial: all[1].serial(),
        id: StatementId::of(b"another"),
    };
    let before = desk.realm.beat(None, &[(&os(), other)], 600, &["beat"]);
    desk.publish(&[before]).await;
    let beat = desk.run(&["beat", "--key", "beat.key", "--once"]);
    beat.good(
        "test.os.stable is left out: a beat has named another statement at 2 than the origin has",
    );
    let beats = desk.run(&["--json", "log", "test.beat"]).text;
    let named = beats.lines().last().unwrap();
    assert!(
        named.contains("test.web.stable 1 sha256:") && !named.contains("test.os.stable"),
        "{named}"
    );
    desk.run(&["beat", "--key", "ann.key", "--once"])
        .bad(REFUSED, "has no beat role in trust 1");
    // What only a mirror has is left out, too: the origin may have been restored from a backup.
    let second = Desk::with(Realm::clone_of(&desk.realm), "").await;
    let mut ahead = second;
    let mut chain = all.clone();
    chain.push(
        desk.realm
            .release(&os(), Some(all[1].head()), "3", &["ann"]),
    );
    ahead.publish(&chain).await;
    let both = [desk.fixture.address, ahead.fixture.address];
    let beat = desk.run_at(&both, &["beat", "--key", "beat.key", "--once"]);
    beat.good("test.os.stable is left out: another broker has 3, which the origin does not have");
}

/// Of a broker's head, nothing is made that follows what is not proven.
#[tokio::test(flavor = "multi_thread")]
async fn attack_119_a_publisher_extends_only_a_proven_head() {
    let mut desk = Desk::new(NO_BEATS).await;
    let first = desk.releases(&os(), 1).await;
    let evil = desk
        .realm
        .release(&os(), Some(first[0].head()), "evil", &["stop"]);
    let broker = substitute(
        desk.fixture.address,
        "test.os.stable",
        &[first[0].clone(), evil],
    )
    .await;
    let said = desk.run_at(
        &[broker],
        &[
            "release",
            "test.os.stable",
            "--key",
            "ann.key",
            "--publish",
            "--version",
            "2",
        ],
    );
    said.bad(
        REFUSED,
        "a release in test.os.stable needs 1 signatures of ann by trust 1, found 0 that hold",
    );
    assert_eq!(desk.run(&["outbox"]).text, "", "nothing was signed");
}

/// An anchor that the log of a broker does not reach yet, and one whose log begins there.
#[tokio::test(flavor = "multi_thread")]
async fn s10_an_anchor_of_a_serial_that_the_log_does_not_have() {
    let mut desk = Desk::new(NO_BEATS).await;
    let next = desk.realm.trust(NO_BEATS, &[], &["root"]);
    let ahead = format!("test {}", next.head());
    desk.run(&["--anchor", &ahead, "log", "test.os.stable"])
        .bad(2, "");
    let log = ["log", "test.os.stable", "--anchor", &ahead];
    desk.run(&log).bad(
        NO_BROKER,
        "the anchor names trust 2, and the broker has test.trust up to 1 only: it is behind, or the anchor is of another log",
    );
    // An origin that is provisioned with it takes the log from there on.
    let mut fixture = tidings_tests::Fixture::new().unwrap();
    fixture.anchor = ahead.parse().unwrap();
    fixture.configure("").unwrap();
    let _daemon = fixture.start().unwrap();
    std::fs::write(
        desk.path("whole"),
        [desk.realm.log[0].octets(), next.octets()].concat(),
    )
    .unwrap();
    let said = desk.run_at(
        &[fixture.address],
        &["publish", "whole", "--anchor", &ahead],
    );
    said.good("1 statement(s) below the anchor are not published; `tidings import` brings them");
    assert!(said.text.contains("published <2."), "{}", said.text);
    desk.publish(&[next]).await;
    desk.run(&log)
        .good("there is nothing in test.os.stable from 1 on");
}

/// [S4] A new head is named early, and not again and again.
#[tokio::test(flavor = "multi_thread")]
async fn attack_101_a_beat_comes_early_for_a_new_head_within_bounds() {
    let mut desk = Desk::new(ROLES).await;
    let first = desk.releases(&os(), 1).await;
    let mut command = desk.command(
        &[desk.fixture.address],
        &[
            "beat", "--key", "beat.key", "--every", "60", "--life", "120",
        ],
    );
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    let beats = async |desk: &mut Desk, count: usize| {
        loop {
            let (log, _) = desk
                .publisher
                .log(&"test.beat".parse().unwrap(), tidings_client::Serial::FIRST)
                .await
                .unwrap();
            if log.len() >= count {
                return log;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{} beats have come",
                log.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    beats(&mut desk, 1).await;
    let second = desk
        .realm
        .release(&os(), Some(first[0].head()), "2", &["ann"]);
    desk.publish(std::slice::from_ref(&second)).await;
    let log = beats(&mut desk, 2).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let tidings_client::Body::Beat(beat) = log[1].body() else {
        panic!("no beat")
    };
    assert_eq!(beat.head(&os()), Some(second.head()));
    let between = log[1].time().seconds() - log[0].time().seconds();
    assert!((6..60).contains(&between), "{between} s after the first");
}
