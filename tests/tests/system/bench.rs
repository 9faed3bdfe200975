//! `tidings-bench`: every measurement against a real broker, small.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::{Command, Output},
};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tidings_client::keys;
use tidings_tests::{Daemon, Fixture, binary, free_address};

fn tidings(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.tidings().args(arguments).output().unwrap()
}

fn command(fixture: &Fixture) -> Command {
    let mut command = Command::new(binary("tidings-bench"));
    command
        .current_dir(&fixture.directory)
        .env("TIDINGS_BROKERS", fixture.url())
        .env("TIDINGS_ANCHOR", fixture.anchor.to_string());
    command
}

fn bench(fixture: &Fixture, arguments: &[&str]) -> Output {
    command(fixture).args(arguments).output().unwrap()
}

fn started(more: &str) -> (Fixture, Daemon) {
    let fixture = Fixture::new().unwrap();
    fixture.configure(more).unwrap();
    let daemon = fixture.start().unwrap();
    fs::write(fixture.directory.join("trust.1"), fixture.trust.octets()).unwrap();
    assert!(tidings(&fixture, &["publish", "trust.1"]).status.success());
    (fixture, daemon)
}

#[track_caller]
fn measured(fixture: &Fixture, arguments: &[&str]) -> Value {
    let output = bench(fixture, &[arguments, &["--json"]].concat());
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

const PEER: &str =
    "[[peer]]\nname = \"loader\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"test.*\"\n";

#[test]
fn everything_is_measured() {
    let (fixture, daemon) = started(PEER);
    let pid = daemon.pid().to_string();
    let work = ["--channel", "test.load", "--key", "release.key"];
    let count = |report: &Value| report["figures"]["count"]["value"].as_f64().unwrap();

    let posted = measured(
        &fixture,
        &[
            &[
                "publish",
                "--publishers",
                "3",
                "--statements",
                "20",
                "--pid",
                &pid,
            ][..],
            &work,
        ]
        .concat(),
    );
    assert_eq!(
        (posted["bench"].as_str(), count(&posted)),
        (Some("publish"), 60.0)
    );
    assert!(
        posted["figures"]["broker CPU each"]["unit"] == "µs"
            && posted["conditions"]["publishers"] == "3",
        "{posted}"
    );
    let streamed = measured(
        &fixture,
        &[
            &[
                "publish",
                "--publishers",
                "2",
                "--statements",
                "50",
                "--window",
                "8",
            ][..],
            &work,
        ]
        .concat(),
    );
    assert_eq!(count(&streamed), 100.0);
    // The second run has gone on where the first had stopped.
    let output = tidings(&fixture, &["log", "test.load.bench0", "--json"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().lines().count(),
        70
    );

    let fanned = measured(
        &fixture,
        &[
            &[
                "fanout",
                "--subscribers",
                "50",
                "--messages",
                "3",
                "--svg",
                "f.svg",
                "--pid",
                &pid,
            ][..],
            &work,
        ]
        .concat(),
    );
    assert_eq!(
        (count(&fanned), fanned["delays"]["count"].as_u64()),
        (150.0, Some(150))
    );
    let chart = fs::read_to_string(fixture.directory.join("f.svg")).unwrap();
    assert!(
        chart.starts_with("<svg ") && chart.contains("p99.9") && chart.contains("subscribers 50")
    );

    let polled = measured(
        &fixture,
        &[
            "poll",
            "--channel",
            "test.load",
            "--connections",
            "5",
            "--seconds",
            "1",
        ],
    );
    assert!(count(&polled) > 100.0, "{polled}");
    let stormed = measured(
        &fixture,
        &[
            "storm",
            "--channel",
            "test.load",
            "--abreast",
            "4",
            "--seconds",
            "1",
        ],
    );
    assert!(count(&stormed) > 20.0, "{stormed}");
    let caught_up = measured(
        &fixture,
        &[
            "catch-up",
            "--channel",
            "test.load.bench0",
            "--channel",
            "test.load.bench1",
        ],
    );
    assert_eq!(
        (
            count(&caught_up),
            &caught_up["figures"]["signature checks"]["value"]
        ),
        (140.0, &Value::from(2.0))
    );

    let output = bench(
        &fixture,
        &[
            "poll",
            "--channel",
            "test.load",
            "--connections",
            "2",
            "--seconds",
            "1",
        ],
    );
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("connections 2") && table.contains("poll, p99\t"),
        "{table}"
    );
}

/// More octets at once than rustls holds by default; handshakes that resume, and that do not.
#[test]
fn it_measures_over_tls_too() {
    let fixture = Fixture::new().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(fixture.directory.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(fixture.directory.join("key.pem"), key.serialize_pem()).unwrap();
    let (address, files) = (free_address().unwrap(), fixture.directory.display());
    let tls = format!(
        "nntps = [\"{address}\"]\n[tls]\ncertificate_file = \"{files}/cert.pem\"\nkey_file = \"{files}/key.pem\"\n{PEER}"
    );
    fixture.configure(&tls).unwrap();
    let _daemon = fixture.start().unwrap();
    fs::write(fixture.directory.join("trust.1"), fixture.trust.octets()).unwrap();
    assert!(tidings(&fixture, &["publish", "trust.1"]).status.success());
    let broker = format!("nntps://localhost:{}", address.port());
    let to = ["--broker", &broker, "--ca", "cert.pem"];
    let count = |report: &Value| report["figures"]["count"]["value"].as_f64().unwrap();
    let streamed = [
        "publish",
        "--channel",
        "test.load",
        "--key",
        "release.key",
        "--statements",
        "200",
        "--window",
        "150",
    ];
    assert_eq!(
        count(&measured(&fixture, &[&streamed[..], &to].concat())),
        200.0
    );
    for more in [&[][..], &["--no-resumption"]] {
        let storm = [
            "storm",
            "--channel",
            "test.load.bench0",
            "--abreast",
            "4",
            "--seconds",
            "1",
        ];
        assert!(count(&measured(&fixture, &[&storm[..], &to, more].concat())) > 20.0);
    }
}

#[test]
fn a_key_under_a_passphrase_and_a_list_of_brokers_are_taken_as_tidings_takes_them() {
    let (fixture, _daemon) = started("");
    let file = |name| fixture.directory.join(name);
    keys::write_private(&file("locked.key"), &fixture.release, Some("sesame")).unwrap();
    fs::write(file("right"), "sesame\n").unwrap();
    fs::write(file("wrong"), "open\n").unwrap();
    for (passphrase, is_good) in [("right", true), ("wrong", false)] {
        let output = command(&fixture)
            .env("TIDINGS_BROKERS", format!("{}, ,", fixture.url()))
            .env("TIDINGS_PASSPHRASE_FILE", passphrase)
            .args(["publish", "--channel", "test.load", "--key", "locked.key"])
            .args(["--statements", "3"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_good, "{said}");
        assert!(is_good || said.contains("passphrase"), "{said}");
    }
}

#[track_caller]
fn refused(fixture: &Fixture, arguments: &[&str], why: &str) {
    let output = bench(fixture, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains(why),
        "{arguments:?}: {said}"
    );
}

#[test]
fn what_cannot_be_measured_is_said() {
    let (fixture, daemon) = started("");
    let work = ["--channel", "test.load", "--key", "release.key"];
    refused(
        &fixture,
        &[
            &["publish", "--statements", "5", "--window", "4"][..],
            &work,
        ]
        .concat(),
        "480 only peers may offer",
    );
    refused(
        &fixture,
        &["publish", "--channel", "test.load", "--key", "root.key"],
        "the broker answered: 441",
    );
    refused(
        &fixture,
        &["publish", "--channel", "other.load", "--key", "release.key"],
        "not in the namespace",
    );
    refused(&fixture, &["poll", "--channel", "test.nothing"], "411");
    refused(
        &fixture,
        &["catch-up", "--channel", "test.nothing"],
        "the broker has no channel test.nothing",
    );
    refused(
        &fixture,
        &[
            "poll",
            "--channel",
            "test.load",
            "--connections",
            "4000000000",
        ],
        "open files are needed",
    );
    refused(
        &fixture,
        &["poll", "--channel", "test.trust", "--pid", "1000000000"],
        "--pid",
    );
    drop(daemon);
    refused(
        &fixture,
        &["poll", "--channel", "test.trust"],
        "connection 0 to 127.0.0.1",
    );
}
