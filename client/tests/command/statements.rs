//! Releases and files with statements, from keys to what is verified.

use std::{fs, os::unix::fs::PermissionsExt};

use tidings_protocol::Digest;

use crate::desk::{BAD_FILE, REFUSED, USAGE, bad, good, namespace, release, tidings};

#[test]
fn from_keys_to_a_verified_release_without_a_network() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let public = good(at, &["key", "new", "root.key"]);
    assert!(
        public.starts_with("ed25519:") && public.trim().len() == 51,
        "{public}"
    );
    assert_eq!(fs::read_to_string(at.join("root.key.pub")).unwrap(), public);
    assert_eq!(
        fs::metadata(at.join("root.key"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert_eq!(good(at, &["key", "show", "root.key"]), public);
    bad(
        at,
        BAD_FILE,
        &["key", "new", "root.key"],
        "cannot write the key",
    );
    bad(
        at,
        BAD_FILE,
        &["key", "show", "missing.key"],
        "`tidings key new missing.key` makes one",
    );
    for name in ["ann", "bob"] {
        good(at, &["key", "new", &format!("{name}.key")]);
    }
    let roles = [
        "--role",
        "trust * 1 root",
        "--role",
        "release * 2 ann bob",
        "--role",
        "withdraw * 1 ann bob",
    ];
    let keys = [
        "--key",
        "root=root.key",
        "--key",
        "ann=ann.key.pub",
        "--key",
        "bob=bob.key.pub",
    ];
    let anchor = good(
        at,
        &[
            &["trust", "init", "acme", "--sign", "-o", "trust.1"],
            &keys[..],
            &roles[..],
        ]
        .concat(),
    );
    let anchor = anchor.trim();
    assert!(anchor.starts_with("acme 1 sha256:"));
    assert!(good(at, &["trust", "show", "trust.1"]).contains(&format!("anchor: {anchor}")));
    let shown: serde_json::Value =
        serde_json::from_str(&good(at, &["trust", "show", "--json", "trust.1"])).unwrap();
    assert_eq!(
        (shown["anchor"].as_str(), &shown["signed_by"]),
        (Some(anchor), &serde_json::json!(["root"]))
    );

    fs::write(at.join("image"), vec![7; 3_000_000]).unwrap();
    let release = [
        "release",
        "acme.os.stable",
        "--version",
        "1.0",
        "--after",
        "-",
        "--trust",
        "1",
        "--apply",
        "reboot",
    ];
    let payload = [
        "--payload",
        "raw image https://example.org/image result=@image",
        "-o",
        "r1",
        "--key",
        "ann.key",
    ];
    good(at, &[&release[..], &payload[..]].concat());
    let text = fs::read_to_string(at.join("r1")).unwrap();
    let digest = Digest::of(&vec![7; 3_000_000]);
    let line = text.lines().find(|l| l.starts_with("Payload: ")).unwrap();
    assert_eq!(
        line,
        format!("Payload: raw 3000000 {digest} https://example.org/image result={digest}")
    );

    let verify = ["verify", "--anchor", anchor, "--trust", "trust.1", "r1"];
    bad(
        at,
        REFUSED,
        &verify,
        "needs 2 signatures of ann, bob by trust 1, found 1 that hold",
    );
    good(at, &["sign", "--key", "bob.key", "r1"]);
    assert!(good(at, &verify).contains("r1: good: 1 "));
    bad(
        at,
        REFUSED,
        &["sign", "--key", "bob.key", "r1"],
        "has signed this already",
    );
    let json: serde_json::Value =
        serde_json::from_str(&good(at, &[&verify[..], &["--json"]].concat())).unwrap();
    assert_eq!(
        json["statement"]["fields"]["Version"],
        serde_json::json!(["1.0"])
    );
    assert_eq!(
        json["statement"]["signed_by"],
        serde_json::json!(["ann", "bob"])
    );

    // What was changed afterwards is refused, and a wrong line is named.
    fs::write(at.join("r2"), text.replace("Version: 1.0", "Version: 1.1")).unwrap();
    bad(
        at,
        REFUSED,
        &["verify", "--anchor", anchor, "--trust", "trust.1", "r2"],
        "needs 2 signatures of ann, bob by trust 1, found 0 that hold",
    );
    fs::write(
        at.join("r3"),
        text.replace("Apply: reboot", "Apply: rm -rf /"),
    )
    .unwrap();
    bad(
        at,
        REFUSED,
        &["verify", "--anchor", anchor, "--trust", "trust.1", "r3"],
        "line 8: Apply: expected reboot, kexec, restart UNIT…, live or none",
    );
    bad(
        at,
        REFUSED,
        &[
            "verify",
            "--anchor",
            &anchor.replace("acme", "evil"),
            "--trust",
            "trust.1",
            "r1",
        ],
        "trust.1 is not accepted",
    );
}

#[test]
fn what_would_break_out_of_its_line_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let release = [
        "release",
        "acme.os",
        "--after",
        "-",
        "--trust",
        "1",
        "--version",
        "1",
    ];
    bad(
        directory.path(),
        USAGE,
        &[&release[..], &["--summary", "a\nPayload: x"]].concat(),
        "Summary: expected one line, found several",
    );
    bad(
        directory.path(),
        BAD_FILE,
        &[&release[..], &["--urgency", "soon"]].concat(),
        "line 8: Urgency: expected routine, security or critical",
    );
    bad(
        directory.path(),
        BAD_FILE,
        &[&release[..], &["--payload", "raw missing https://x.y/z"]].concat(),
        "cannot read the payload missing",
    );
    bad(
        directory.path(),
        USAGE,
        &["release", "acme.os", "--version", "1"],
        "give --broker and --anchor, or --after and --trust",
    );
}

/// [attack 91] Lines that do not hold have no effect, and whoever signs is told.
#[test]
fn a_statement_with_16_signatures_of_which_one_holds() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    release(at, "1", "r1");
    let text = fs::read_to_string(at.join("r1")).unwrap();
    let worthless: String = (0..15)
        .map(|n| {
            good(at, &["key", "new", &format!("s{n}.key")]);
            let key = fs::read_to_string(at.join(format!("s{n}.key.pub"))).unwrap();
            format!("Signature: {} {}\n", key.trim(), "A".repeat(86))
        })
        .collect();
    fs::write(at.join("r16"), text.clone() + &worthless).unwrap();
    let verify = [
        "verify",
        "--anchor",
        &anchor,
        "--trust",
        "acme/trust.1",
        "r16",
    ];
    assert!(good(at, &verify).contains("r16: good: 1 "));
    // There is room for another, since what does not hold is left out; the good one stays.
    let output = tidings(
        at,
        &["sign", "--key", "acme/withdraw.key", "r16", "--another"],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success()
            && said
                .contains("15 of 16 signatures do not hold, count for nothing, and are left out"),
        "{said}"
    );
    assert_eq!(
        fs::read_to_string(at.join("r16"))
            .unwrap()
            .matches("Signature: ")
            .count(),
        2
    );
    assert!(good(at, &verify).contains("r16: good: 1 "));
}

#[test]
fn a_bundle_with_two_copies_of_one_statement_is_refused_and_left() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    release(at, "1", "r1");
    let text = fs::read_to_string(at.join("r1")).unwrap();
    let unsigned = text
        .lines()
        .filter(|line| !line.starts_with("Signature"))
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    let twice = text + &unsigned;
    fs::write(at.join("twice"), &twice).unwrap();
    let says = "there are two copies of acme.os 1; remove the one with fewer signatures";
    let broker = ["--broker", "nntp://127.0.0.1:1", "--anchor", &anchor];
    bad(
        at,
        BAD_FILE,
        &["sign", "--key", "acme/release.key", "twice"],
        says,
    );
    bad(
        at,
        BAD_FILE,
        &[&["publish", "twice"], &broker[..]].concat(),
        says,
    );
    bad(
        at,
        BAD_FILE,
        &[&["publish", "r1", "r1"], &broker[..]].concat(),
        says,
    );
    bad(
        at,
        REFUSED,
        &[
            "verify",
            "--anchor",
            &anchor,
            "--trust",
            "acme/trust.1",
            "twice",
        ],
        says,
    );
    assert_eq!(fs::read_to_string(at.join("twice")).unwrap(), twice);
}

/// Batches as news servers, mail and hands leave them: what they are is named.
#[test]
fn a_batch_that_is_none_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    for (octets, expected) in [
        (&b"\x1f\x8b\x08\0"[..], "gunzip it first"),
        (b"BZh91AY", "bunzip2 it first"),
        (b"#! cunbatch\n\x1f\x8b", "it is a compressed batch"),
        (b"#! rnews 10\r\nhello\r\n", "CR LF"),
        (b"Tidings: 1 release\n", "`tidings publish` takes it"),
        (b"", "is empty"),
    ] {
        fs::write(at.join("batch"), octets).unwrap();
        let output = tidings(at, &["import", "--check", "batch", "--anchor", &anchor]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(expected),
            "{said}"
        );
    }
}
