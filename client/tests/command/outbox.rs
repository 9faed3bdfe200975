//! What was signed and not published yet.

use std::fs;

use crate::desk::{BAD_FILE, REFUSED, bad, command, good, namespace, outbox, release};

#[test]
fn what_is_wrong_with_an_outbox_is_said_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    namespace(at);
    release(at, "1", "r1");
    let (path, octets) = outbox(at, "r1");
    let show = ["outbox", "--namespace", "acme"];
    assert!(good(at, &show).starts_with("acme.os\t1\trelease\tsha256:"));
    let check = |octets: &[u8], says: &str| {
        fs::write(&path, octets).unwrap();
        bad(at, BAD_FILE, &show, says);
        bad(
            at,
            BAD_FILE,
            &[
                "outbox",
                "--namespace",
                "acme",
                "--drop",
                "acme.os",
                "--yes",
            ],
            says,
        );
        assert_eq!(fs::read(&path).unwrap(), octets);
    };
    let mut damaged = octets.clone();
    damaged.pop();
    check(
        &damaged,
        "of the outbox is damaged (its SHA-256 is not the one in its first line)",
    );
    check(b"", "of the outbox is damaged (it has no first line)");
    // A copy on a second machine, with what another one would have written.
    let text = String::from_utf8(octets.clone()).unwrap();
    let machine = text.split(' ').nth(2).unwrap();
    let copied = text.replacen(machine, &format!("sha256:{}", "0".repeat(64)), 1);
    check(
        copied.as_bytes(),
        "of the outbox was made on another machine; two machines that offer it may sign twice for one place",
    );
    fs::write(&path, &octets).unwrap();
    let elsewhere = [
        "outbox",
        "--namespace",
        "other",
        "--outbox",
        path.parent().unwrap().to_str().unwrap(),
    ];
    bad(
        at,
        BAD_FILE,
        &elsewhere,
        "holds a statement of acme.os, which is not of other; use an outbox for each namespace (--outbox DIR)",
    );
    assert_eq!(fs::read(&path).unwrap(), octets);
    // What never left may be dropped, after a question.
    let mut drop = command(at);
    drop.args(["outbox", "--namespace", "acme", "--drop", "acme.os"])
        .stdin(std::process::Stdio::null());
    let output = drop.output().unwrap();
    assert_eq!(output.status.code(), Some(REFUSED), "{output:?}");
    assert!(path.exists());
    good(
        at,
        &[
            "outbox",
            "--namespace",
            "acme",
            "--drop",
            "acme.os",
            "--yes",
        ],
    );
    assert!(!path.exists());
    bad(
        at,
        9,
        &[
            "outbox",
            "--namespace",
            "acme",
            "--drop",
            "acme.os",
            "--yes",
        ],
        "nothing waits in the outbox for acme.os",
    );
}

#[test]
fn no_machine_signs_twice_for_one_place_unless_told() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    namespace(at);
    let draft = |version: &str, file: &str| {
        good(
            at,
            &[
                "release",
                "acme.os",
                "--after",
                "-",
                "--trust",
                "1",
                "--version",
                version,
                "-o",
                file,
            ],
        );
    };
    draft("1", "d1");
    draft("2", "d2");
    let unsigned = fs::read(at.join("d2")).unwrap();
    good(at, &["sign", "--key", "acme/release.key", "d1"]);
    good(at, &["sign", "--key", "acme/withdraw.key", "d1"]);
    let says = "this machine has signed another statement for acme.os 1: sha256:";
    bad(
        at,
        REFUSED,
        &["sign", "--key", "acme/release.key", "d2"],
        says,
    );
    let offline = [
        "release",
        "acme.os",
        "--after",
        "-",
        "--trust",
        "1",
        "--version",
        "3",
        "--key",
        "acme/release.key",
        "-o",
        "d3",
    ];
    bad(at, REFUSED, &offline, says);
    assert!(!at.join("d3").exists());
    assert_eq!(fs::read(at.join("d2")).unwrap(), unsigned);
    good(
        at,
        &["sign", "--key", "acme/release.key", "d2", "--another"],
    );
    good(
        at,
        &["trust", "renew", "acme/trust.1", "--offline", "-o", "t2"],
    );
    good(
        at,
        &[
            "trust",
            "renew",
            "acme/trust.1",
            "--offline",
            "-o",
            "t2b",
            "--expires",
            "30",
        ],
    );
    good(at, &["sign", "--key", "acme/root.key", "t2"]);
    bad(
        at,
        REFUSED,
        &["sign", "--key", "acme/root.key", "t2b"],
        "this machine has signed another statement for acme.trust 2",
    );
}
