//! What operators do, and what happens to them: the commands end to end, certificates exchanged, a
//! full disk.
#![allow(clippy::unwrap_used)]

mod store;
mod tls;

use std::{
    fs,
    process::{Command, Output},
    time::{Duration, Instant},
};

use tidings_tests::{Fixture, binary};

fn tidings(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.tidings().args(arguments).output().unwrap()
}

#[track_caller]
fn good(fixture: &Fixture, arguments: &[&str]) -> String {
    let output = tidings(fixture, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn publish_fetch_watch_log_from_the_command_line() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    fs::write(fixture.directory.join("trust.1"), fixture.trust.octets()).unwrap();
    fs::write(fixture.directory.join("image"), "an image").unwrap();
    assert!(good(&fixture, &["publish", "trust.1"]).starts_with("published <1."));
    let release = [
        "release",
        "test.os.stable",
        "--key",
        "release.key",
        "--publish",
        "--payload",
        "raw image https://x.example/image",
    ];
    good(
        &fixture,
        &[&release[..], &["--version", "1.0", "--new-channel"]].concat(),
    );
    good(&fixture, &[&release[..], &["--version", "1.1"]].concat());
    let published = good(
        &fixture,
        &[
            "withdraw",
            "test.os.stable",
            "2",
            "--reason",
            "bad",
            "--key",
            "release.key",
            "--publish",
            "--json",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&published).unwrap();
    assert_eq!(
        (json["kind"].as_str(), json["serial"].as_u64()),
        (Some("withdraw"), Some(3))
    );

    let log = good(&fixture, &["log", "test.os.stable"]);
    assert_eq!(log.lines().count(), 3, "{log}");
    assert!(
        log.lines()
            .nth(2)
            .unwrap()
            .contains("withdraw withdraws 2 sha256:"),
        "{log}"
    );
    assert_eq!(
        good(
            &fixture,
            &["log", "test.os.stable", "--last", "1", "--json"]
        )
        .lines()
        .count(),
        1
    );

    let fetch = [
        "fetch",
        "test.os.stable",
        "--state",
        "device.state",
        "--json",
    ];
    let fetched: serde_json::Value = serde_json::from_str(&good(&fixture, &fetch)).unwrap();
    assert_eq!(
        (fetched["serial"].as_u64(), fetched["signed_by"][0].as_str()),
        (Some(3), Some("release"))
    );
    assert_eq!(good(&fixture, &fetch), "", "the cursor has moved");
    let text = good(&fixture, &["fetch", "test.os.stable", "--all"]);
    assert_eq!(text.matches("Tidings: 1 ").count(), 3, "{text}");
    let watched = good(
        &fixture,
        &["watch", "test.os.stable", "--all", "--count", "3", "--json"],
    );
    assert_eq!(watched.lines().count(), 3);

    // What could not be shown is not lost, and a name that is wrong is not taken for silence.
    let full = Command::new("sh")
        .args([
            "-c",
            &format!(
                "{} fetch test.os.stable --state full.state > /dev/full",
                binary("tidings").display()
            ),
        ])
        .current_dir(&fixture.directory)
        .env("TIDINGS_BROKERS", fixture.url())
        .env("TIDINGS_ANCHOR", fixture.anchor.to_string())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    assert!(
        good(
            &fixture,
            &["fetch", "test.os.stable", "--state", "full.state"]
        )
        .contains("Withdraws: 2")
    );
    let typo = tidings(&fixture, &["fetch", "test.os.stabel"]);
    assert!(
        String::from_utf8_lossy(&typo.stderr).contains("there is no channel test.os.stabel yet"),
        "{typo:?}"
    );
    let foreign = tidings(&fixture, &["release", "other.os", "--version", "1"]);
    assert!(
        String::from_utf8_lossy(&foreign.stderr)
            .contains("other.os is not in the namespace of the anchor"),
        "{foreign:?}"
    );

    // A draft without a signature, a lost race, and a stranger.
    good(
        &fixture,
        &[
            "release",
            "test.os.stable",
            "--version",
            "1.2",
            "-o",
            "draft",
        ],
    );
    let unsigned = tidings(&fixture, &["publish", "draft"]);
    assert!(
        String::from_utf8_lossy(&unsigned.stderr)
            .contains("draft is not signed; `tidings sign` adds a signature")
    );
    good(&fixture, &["sign", "--key", "release.key", "draft"]);
    good(&fixture, &[&release[..], &["--version", "1.3"]].concat());
    let late = tidings(&fixture, &["publish", "draft"]);
    assert!(
        String::from_utf8_lossy(&late.stderr).contains("the head of the channel is 4 sha256:"),
        "{late:?}"
    );
    good(&fixture, &["key", "new", "stranger.key"]);
    let stranger = tidings(
        &fixture,
        &[
            "release",
            "test.os.stable",
            "--version",
            "6",
            "--key",
            "stranger.key",
            "--publish",
        ],
    );
    assert_eq!(stranger.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&stranger.stderr)
            .contains("needs 1 signatures of release by trust 1, found 0")
    );
    assert_eq!(
        good(&fixture, &["log", "test.os.stable"]).lines().count(),
        4
    );
}

#[test]
fn sighup_reads_the_log_level_again() {
    let fixture = Fixture::new().unwrap();
    fixture.configure("[log]\nlevel = \"error\"").unwrap();
    let daemon = fixture.start().unwrap();
    let log = || fs::read_to_string(fixture.directory.join("tidingsd.log")).unwrap();
    assert!(!log().contains("listening"), "{}", log());
    fixture.configure("[log]\nlevel = \"info\"").unwrap();
    daemon.signal("HUP").unwrap();
    let began = Instant::now();
    // Said at `info`, and so only seen if it is true.
    while !log().contains("log level read again") {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", log());
        std::thread::yield_now();
    }
}
