//! `tidings check`: what a monitoring system reads.

use tidings_client::Publisher;
use tidings_tests::{
    clock::faketime,
    monitoring::promtool,
    tree::{until, until_head},
};

use crate::command::desk::{Desk, ROLES, Said, os};

// What a plugin ends with.
const OK: i32 = 0;
const WARNING: i32 = 1;
const CRITICAL: i32 = 2;
const UNKNOWN: i32 = 3;

/// One line that begins as it should; what stands behind the bar.
#[track_caller]
fn line(said: &Said, code: i32, begins: &str) -> String {
    assert_eq!(said.text.lines().count(), 1, "{}", said.text);
    assert!(
        said.code == code && said.text.starts_with(begins),
        "{}: {:?} should begin {begins:?}",
        said.code,
        said.text
    );
    let (_, figures) = said.text.split_once(" | ").unwrap_or_default();
    figures.trim_end().to_owned()
}

/// `LABEL=VALUE[UNIT];[WARNING];[CRITICAL];[LEAST];[MOST]`.
#[track_caller]
fn is_performance_data(figures: &str) {
    for one in figures.split(' ') {
        let (label, values) = one.split_once('=').unwrap();
        let mut values = values.split(';');
        let first = values.next().unwrap().trim_end_matches('s');
        let is_range = |text: &str| {
            text.trim_end_matches(':')
                .chars()
                .all(|c| c.is_ascii_digit())
        };
        assert!(
            !label.is_empty() && first.parse::<u64>().is_ok() && values.all(is_range),
            "{one}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_current_behind_stale_missing_or_forked() {
    let mut desk = Desk::new(ROLES).await;
    let releases = desk.releases(&os(), 2).await;
    let (first, second) = (releases[0].head(), releases[1].head());
    let channel = ["check", "test.os.stable"];
    // No beat has come yet.
    let said = desk.run(&channel);
    line(
        &said,
        CRITICAL,
        "TIDINGS CRITICAL - test.os.stable is STALE",
    );
    let one = desk.realm.beat(None, &[(&os(), second)], 600, &["beat"]);
    desk.publish(std::slice::from_ref(&one)).await;
    let figures = line(&desk.run(&channel), OK, "TIDINGS OK - all is current | ");
    is_performance_data(&figures);
    assert!(
        figures.starts_with("brokers=1;1:;1:;0;1 channels=1;;;0 not_current=0;;0;0 "),
        "{figures}"
    );
    // All channels of the namespace are meant where none is named.
    line(&desk.run(&["check"]), OK, "TIDINGS OK");
    let said = desk.run(&["check", "test.os.stabel"]);
    line(
        &said,
        CRITICAL,
        "TIDINGS CRITICAL - test.os.stabel is MISSING",
    );
    // Ages of beats: it was signed now, and lives for ten minutes.
    let said = desk.run(&["check", "--beat-critical", "0"]);
    line(
        &said,
        CRITICAL,
        "TIDINGS CRITICAL - the beat of test.beat is ",
    );
    let said = desk.run(&["check", "--beat-warning", "0"]);
    line(
        &said,
        WARNING,
        "TIDINGS WARNING - the beat of test.beat is ",
    );
    // Trust ends in a year.
    let said = desk.run(&["check", "--trust-warning", "366"]);
    line(&said, WARNING, "TIDINGS WARNING - trust ends at ");
    let said = desk.run(&["check", "--trust-critical", "366"]);
    line(&said, CRITICAL, "TIDINGS CRITICAL - trust ends at ");
    // A beat names what is not there.
    let third = desk.realm.release(&os(), Some(second), "3", &["ann"]);
    let two = desk
        .realm
        .beat(Some(one.head()), &[(&os(), third.head())], 600, &["beat"]);
    desk.publish(std::slice::from_ref(&two)).await;
    let said = desk.run(&channel);
    line(
        &said,
        CRITICAL,
        "TIDINGS CRITICAL - test.os.stable is BEHIND",
    );
    // And another statement in the place of ours.
    let other = desk.realm.release(&os(), Some(first), "2-other", &["ann"]);
    let three = desk
        .realm
        .beat(Some(two.head()), &[(&os(), other.head())], 600, &["beat"]);
    desk.publish(&[three]).await;
    let said = desk.run(&channel);
    line(
        &said,
        CRITICAL,
        "TIDINGS CRITICAL - test.os.stable is FORKED",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_that_has_ended_is_told() {
    let desk = Desk::new(ROLES).await;
    let mut later = desk.command(&[desk.fixture.address], &["check"]);
    later.env("LD_PRELOAD", faketime()).env("FAKETIME", "+400d");
    let said: Said = tokio::task::block_in_place(|| later.output().unwrap().into());
    line(&said, CRITICAL, "TIDINGS CRITICAL - trust has expired at ");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_do_not_answer_or_differ_are_told() {
    let mut desk = Desk::new(ROLES).await;
    let releases = desk.releases(&os(), 2).await;
    let mirror = desk.fixture.mirror_of(&[desk.fixture.address], "").unwrap();
    let daemon = mirror.start().unwrap();
    until_head(&mirror, &os(), 2).await;
    let heads = [(&os(), releases[1].head())];
    let beat = desk.realm.beat(None, &heads, 600, &["beat"]);
    desk.publish(&[beat]).await;
    let both = [desk.fixture.address, mirror.address];
    until("the mirror is current", async || {
        let said = desk.run_at(&both, &["check"]);
        said.code == OK && said.text.contains("brokers=2;2:;1:;0;2 channels=2;")
    })
    .await;
    daemon.kill().unwrap();
    let said = desk.run_at(&both, &["check"]);
    let figures = line(
        &said,
        WARNING,
        &format!("TIDINGS WARNING - nntp://{}: ", mirror.address),
    );
    is_performance_data(&figures);
    let said = desk.run_at(&[mirror.address], &["check"]);
    line(&said, CRITICAL, "TIDINGS CRITICAL - nntp://");
    // A broker that has taken another statement for the second place.
    let mut other = tidings_tests::Fixture::new().unwrap();
    other.anchor = desk.realm.anchor.clone();
    other.configure("").unwrap();
    let _other = other.start().unwrap();
    let mut publisher = Publisher::connect(other.source().unwrap()).await.unwrap();
    let rival = desk
        .realm
        .release(&os(), Some(releases[0].head()), "2-other", &["ann"]);
    for statement in [&desk.realm.log[0], &releases[0], &rival] {
        publisher.publish(statement).await.unwrap();
    }
    let split = [desk.fixture.address, other.address];
    let said = desk.run_at(&split, &["check"]);
    line(&said, CRITICAL, "TIDINGS CRITICAL - ");
    assert!(
        said.text.contains("test.os.stable 2 is forked: "),
        "{}",
        said.text
    );
    // A broker that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let said = desk.run_at(&[silent], &["check", "--timeout", "1"]);
    line(&said, CRITICAL, "TIDINGS CRITICAL - ");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_unknown() {
    let desk = Desk::new(ROLES).await;
    for arguments in [
        &["check", "--frobnicate"][..],
        &["check", "no channel"],
        &["check", "--timeout", "soon"],
        &["-v", "check", "--anchor", "x"],
        &["check", "other.channel"],
        &["check", "--state", "missing/state"],
        &["--context", "nowhere", "check"],
        &["--context", "nowhere", "-v", "check", "test.os.stable"],
    ] {
        let said = desk.run(arguments);
        // Standard error may say more; the line is the first, on standard output.
        assert_eq!(said.code, UNKNOWN, "{arguments:?}: {}", said.text);
        assert!(said.text.starts_with("TIDINGS UNKNOWN - "), "{}", said.text);
    }
    // Whoever asks for help asks for help.
    desk.run(&["check", "--help"]).good("3 UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_textfile_has_it_as_metrics() {
    let mut desk = Desk::new(ROLES).await;
    let releases = desk.releases(&os(), 1).await;
    let beat = desk
        .realm
        .beat(None, &[(&os(), releases[0].head())], 600, &["beat"]);
    desk.publish(&[beat]).await;
    let check = ["check", "test.os.stable", "--textfile", "tidings.prom"];
    line(&desk.run(&check), OK, "TIDINGS OK");
    let text = desk.read("tidings.prom");
    assert_eq!(
        promtool(&["check", "metrics"], &text).unwrap(),
        "",
        "{text}"
    );
    let broker = desk.fixture.url();
    for sample in [
        "tidings_check_status 0".to_owned(),
        format!("tidings_check_broker_up{{broker=\"{broker}\"}} 1"),
        format!(
            "tidings_check_channel_current{{broker=\"{broker}\",channel=\"test.os.stable\"}} 1"
        ),
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample}: {text}");
    }
    // Nothing else is left beside it.
    let beside = std::fs::read_dir(&desk.fixture.directory).unwrap();
    let odd = beside
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("tmp"));
    assert_eq!(odd.count(), 0);
    // That nobody answers stands there too, and what stood there does not stay.
    let nobody = "127.0.0.1:1".parse().unwrap();
    let said = desk.run_at(&[nobody], &check);
    line(&said, CRITICAL, "TIDINGS CRITICAL");
    let text = desk.read("tidings.prom");
    assert!(text.contains("tidings_check_status 2\n"), "{text}");
    assert!(!text.contains("channel_current"), "{text}");
    // A place that cannot be written to is not passed over.
    let said = desk.run(&["check", "--textfile", "missing/tidings.prom"]);
    line(
        &said,
        UNKNOWN,
        "TIDINGS UNKNOWN - cannot write missing/tidings.prom",
    );
}
