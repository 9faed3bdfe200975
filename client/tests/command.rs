//! `tidings` as its user meets it, without any network.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use base64ct::{Base64UrlUnpadded, Encoding};
use tidings_protocol::Digest;

// How commands end, by the names of `tidings --help`.
const USAGE: i32 = 2;
const REFUSED: i32 = 3;
const NO_BROKER: i32 = 7;
const BAD_FILE: i32 = 8;

/// The command, with nothing of the tester's own around it: what it remembers is kept in the test's
/// directory.
fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command
        .current_dir(directory)
        .env("XDG_STATE_HOME", directory.join("state"))
        .env_remove("EDITOR")
        .env_remove("VISUAL");
    for name in [
        "TIDINGS_BROKERS",
        "TIDINGS_ANCHOR",
        "TIDINGS_STATE",
        "TIDINGS_OUTBOX",
        "TIDINGS_PASSPHRASE_FILE",
    ] {
        command.env_remove(name);
    }
    command
}

fn tidings(directory: &Path, arguments: &[&str]) -> Output {
    command(directory).args(arguments).output().unwrap()
}

#[track_caller]
fn good(directory: &Path, arguments: &[&str]) -> String {
    let output = tidings(directory, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn bad(directory: &Path, code: i32, arguments: &[&str], expected: &str) {
    let output = tidings(directory, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(expected), "{text:?} should say {expected:?}");
}

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

#[test]
fn a_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    good(directory.path(), &["key", "new", "a.key"]);
    fs::set_permissions(
        directory.path().join("a.key"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let init = [
        "trust",
        "init",
        "acme",
        "--key",
        "root=a.key.pub",
        "--sign",
        "-o",
        "t",
    ];
    bad(
        directory.path(),
        USAGE,
        &init,
        "none of the keys is a private one",
    );
    let draft = [
        "release",
        "acme.os",
        "--after",
        "-",
        "--trust",
        "1",
        "--version",
        "1",
        "-o",
        "draft",
    ];
    good(directory.path(), &draft);
    bad(
        directory.path(),
        BAD_FILE,
        &["sign", "--key", "a.key.pub", "draft"],
        "is it the public half?",
    );
    let release = [
        "release",
        "acme.os",
        "--after",
        "-",
        "--trust",
        "1",
        "--version",
        "1",
        "--key",
        "a.key",
    ];
    bad(
        directory.path(),
        BAD_FILE,
        &release,
        "can be read by others (mode 640)",
    );
}

#[test]
fn it_explains_itself() {
    let directory = tempfile::tempdir().unwrap();
    assert!(good(directory.path(), &["--help"]).contains("8 bad-file: "));
    assert!(
        good(directory.path(), &["man"])
            .to_lowercase()
            .contains(".th tidings")
    );
    assert!(good(directory.path(), &["man", "release"]).contains("payload"));
    assert!(good(directory.path(), &["man", "trust", "change"]).contains("checkpoint"));
    assert!(good(directory.path(), &["completions", "bash"]).len() > 1000);
    bad(
        directory.path(),
        USAGE,
        &["man", "frobnicate"],
        "no command",
    );
}

/// Keys for some people, in one directory.
fn people(at: &Path, names: &[&str]) {
    names
        .iter()
        .for_each(|name| drop(good(at, &["key", "new", &format!("{name}.key")])));
}

#[test]
fn a_trust_log_goes_round_and_what_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    people(at, &["root", "ann", "bob", "eve"]);
    let init = [
        "trust",
        "init",
        "acme",
        "--key",
        "root=root.key",
        "--key",
        "ann=ann.key.pub",
        "--out",
        "log",
        "--sign",
    ];
    good(
        at,
        &[
            &init[..],
            &[
                "--role",
                "trust * 1 root",
                "--role",
                "release * 1 ann",
                "--role",
                "withdraw * 1 ann root",
            ],
        ]
        .concat(),
    );
    let change = |more: &[&'static str]| [&["trust", "change", "log", "--offline"], more].concat();
    bad(
        at,
        USAGE,
        &change(&["--out", "x"]),
        "`tidings trust renew` to say the same for longer",
    );
    bad(
        at,
        USAGE,
        &[
            "trust",
            "change",
            "log",
            "--add-key",
            "bob=bob.key",
            "--out",
            "x",
        ],
        "give --broker URL, or --offline",
    );
    bad(
        at,
        USAGE,
        &change(&["--remove-key", "zoe", "--out", "x"]),
        "there is no key \"zoe\"; there are root, ann",
    );
    bad(
        at,
        USAGE,
        &change(&["--remove-key", "ann", "--out", "x"]),
        "the role `release *` needs 1 signatures and has 0 key(s) left",
    );
    bad(
        at,
        USAGE,
        &change(&["--add-key", "ann=bob.key", "--out", "x"]),
        "is there already, as name or as key",
    );
    bad(
        at,
        USAGE,
        &change(&["--add-key", "other=ann.key", "--out", "x"]),
        "is there already, as name or as key",
    );
    bad(
        at,
        USAGE,
        &change(&["--remove-role", "release acme.x", "--out", "x"]),
        "expected `KIND PATTERN` of a role that is there",
    );
    bad(
        at,
        USAGE,
        &change(&["--checkpoint", "acme.trust 1 x", "--out", "x"]),
        "id",
    );
    bad(
        at,
        USAGE,
        &change(&["--role", "release * 3 ann root", "--out", "x"]),
        "needs 3 signatures and has 2 key(s) left",
    );
    assert!(!at.join("x").exists());

    let moved = [
        "--remove-key",
        "root",
        "--add-key",
        "bob=bob.key.pub",
        "--role",
        "trust * 2 ann bob",
    ];
    let dry = good(at, &change(&[&moved[..], &["--dry-run"]].concat()));
    assert!(
        dry.contains("- role trust *: 1 of root") && dry.contains("+ role trust *: 2 of ann, bob"),
        "{dry}"
    );
    good(at, &change(&[&moved[..], &["--out", "new"]].concat()));
    bad(
        at,
        REFUSED,
        &[
            "trust",
            "change",
            "new",
            "--offline",
            "--remove-role",
            "withdraw *",
            "--out",
            "x",
        ],
        "still needs signatures",
    );
    let missing = |file: &str| -> serde_json::Value {
        serde_json::from_str(&good(at, &["trust", "show", "--json", file])).unwrap()
    };
    assert_eq!(
        missing("new")["missing"],
        serde_json::json!(["root", "ann", "bob"])
    );
    good(at, &["sign", "--key", "ann.key", "new"]);
    assert_eq!(
        missing("new")["missing"],
        serde_json::json!(["root", "bob"])
    );
    bad(
        at,
        REFUSED,
        &["sign", "--key", "ann.key", "new"],
        "has signed this already",
    );
    good(at, &["sign", "--key", "eve.key", "new"]);
    assert_eq!(
        missing("new")["enough"],
        serde_json::json!(false),
        "a stranger counts for nothing"
    );
    good(at, &["sign", "--key", "bob.key", "new"]);
    good(at, &["sign", "--key", "root.key", "new"]);
    let shown = missing("new");
    assert_eq!(
        (&shown["enough"], &shown["missing"], &shown["serial"]),
        (
            &serde_json::json!(true),
            &serde_json::json!([]),
            &serde_json::json!(2)
        )
    );

    // Alone, or behind another first statement, it is not signed and not called enough.
    let text = fs::read_to_string(at.join("new")).unwrap();
    let second = text.rfind("Tidings: 1 trust").unwrap();
    fs::write(at.join("alone"), &text[second..]).unwrap();
    bad(
        at,
        REFUSED,
        &["sign", "--key", "eve.key", "alone"],
        "sign it together with its trust log",
    );
    assert_eq!(missing("alone")["enough"], serde_json::json!(false));
    let other = [
        "trust",
        "init",
        "acme",
        "--key",
        "eve=eve.key",
        "--sign",
        "--out",
        "other",
    ];
    good(at, &other);
    fs::write(
        at.join("mixed"),
        fs::read_to_string(at.join("other")).unwrap() + &text,
    )
    .unwrap();
    bad(
        at,
        REFUSED,
        &["trust", "show", "mixed"],
        "trust statement 1 in the file is not accepted",
    );
    // A signature that does not hold, a fault with its line in the whole file, and a field that is
    // not known.
    let lines = text.lines().count();
    fs::write(
        at.join("broken"),
        text.replace("Role: release", "Role: releases"),
    )
    .unwrap();
    bad(
        at,
        BAD_FILE,
        &["trust", "show", "broken"],
        "Role: expected KIND PATTERN THRESHOLD NAME",
    );
    fs::write(at.join("cut"), &text[..text.len() - 1]).unwrap();
    bad(
        at,
        BAD_FILE,
        &["trust", "show", "cut"],
        &format!("line {lines}: "),
    );
    let swapped = text[second..].replace("Expires: 20", "Expires: 21");
    fs::write(at.join("swapped"), text[..second].to_owned() + &swapped).unwrap();
    assert_eq!(
        missing("swapped")["missing"],
        serde_json::json!(["root", "ann", "bob"]),
        "what does not hold counts for nothing"
    );
    let end = text[second..].find("Signature: ").unwrap() + second;
    fs::write(at.join("odd"), format!("{}Colour: blue\n", &text[..end])).unwrap();
    assert!(
        good(at, &["trust", "show", "odd"])
            .contains("this version does not know what it means: Colour: blue")
    );
    // A file that is no bundle at all, and one that has no end.
    fs::File::create(at.join("huge"))
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    bad(
        at,
        BAD_FILE,
        &["trust", "show", "huge"],
        "huge is larger than 67108864 octets",
    );
    // For longer, by those who may now: a broker has to be asked.
    bad(
        at,
        USAGE,
        &["trust", "renew", "new", "--out", "renewed"],
        "give --broker URL",
    );
    bad(
        at,
        NO_BROKER,
        &[
            "trust",
            "renew",
            "new",
            "--out",
            "renewed",
            "--broker",
            "nntp://127.0.0.1:1",
        ],
        "no broker could be asked; nothing was signed",
    );
}

#[test]
fn a_key_under_a_passphrase_needs_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::write(at.join("right"), "correct horse battery\n").unwrap();
    fs::write(at.join("wrong"), "incorrect\n").unwrap();
    fs::write(at.join("empty"), "\n").unwrap();
    let run = |file: &str, arguments: &[&str]| {
        let output = command(at)
            .args(arguments)
            .env("TIDINGS_PASSPHRASE_FILE", file)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (code, public) = run("right", &["key", "new", "--encrypt", "a.key"]);
    assert_eq!(code, Some(0), "{public}");
    let pem = fs::read_to_string(at.join("a.key")).unwrap();
    assert!(
        pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
        "{pem}"
    );
    assert_eq!(
        fs::metadata(at.join("a.key")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        run("right", &["key", "show", "a.key"]),
        (Some(0), public.clone())
    );
    let (code, text) = run("wrong", &["key", "show", "a.key"]);
    assert!(
        code == Some(BAD_FILE) && text.contains("this is not its passphrase"),
        "{text}"
    );
    let (code, text) = run("missing", &["key", "show", "a.key"]);
    assert!(
        code == Some(BAD_FILE) && text.contains("its passphrase cannot be asked for"),
        "{text}"
    );
    let (code, text) = run("empty", &["key", "new", "--encrypt", "b.key"]);
    assert!(
        code == Some(USAGE) && text.contains("an empty passphrase protects nothing"),
        "{text}"
    );
    assert!(!at.join("b.key").exists() && !at.join("b.key.pub").exists());
    // OpenSSL reads it too, and has the same public half.
    let openssl = Command::new("openssl")
        .args([
            "pkey",
            "-in",
            "a.key",
            "-passin",
            "file:right",
            "-pubout",
            "-outform",
            "DER",
        ])
        .current_dir(at)
        .output();
    let der = openssl
        .expect("openssl is missing; install it (Debian: openssl)")
        .stdout;
    let key = Base64UrlUnpadded::encode_string(&der[der.len() - 32..]);
    assert_eq!(public.trim(), format!("ed25519:{key}"));
}

/// A namespace with `tidings init`; gives its anchor.
fn namespace(at: &Path) -> String {
    let anchor = good(at, &["--json", "init", "acme"]);
    serde_json::from_str::<serde_json::Value>(&anchor).unwrap()["anchor"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A signed release for a place that was given, in a file.
fn release(at: &Path, version: &str, file: &str) {
    let command = [
        "release",
        "acme.os",
        "--after",
        "-",
        "--trust",
        "1",
        "--key",
        "acme/release.key",
        "--another",
    ];
    good(
        at,
        &[&command[..], &["--version", version, "-o", file]].concat(),
    );
}

#[test]
fn a_namespace_is_begun_in_one_go() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let text = good(at, &["init", "acme", "--host", "news.example.org"]);
    let anchor = fs::read_to_string(at.join("acme/anchor")).unwrap();
    assert!(
        text.starts_with(&anchor) && text.contains("root.key       offline, in a safe"),
        "{text}"
    );
    for (name, mode) in [
        ("root.key", 0o600),
        ("release.key", 0o600),
        ("withdraw.key", 0o600),
        ("beat.key", 0o600),
        ("trust.1", 0o644),
    ] {
        let found = fs::metadata(at.join("acme").join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(found & !0o022, mode & !0o022, "{name}");
    }
    let origin: toml::Table = fs::read_to_string(at.join("acme/tidingsd.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        origin["anchors"].as_array().unwrap()[0].as_str(),
        Some(anchor.trim())
    );
    assert!(
        fs::read_to_string(at.join("acme/device.env"))
            .unwrap()
            .contains("TIDINGS_BROKERS=nntps://news.example.org\n")
    );
    let shown = good(at, &["trust", "show", "acme/trust.1"]);
    assert!(
        shown.contains("by trust 1: 1 needed, signed by root: enough")
            && shown.contains(anchor.trim()),
        "{shown}"
    );
    assert_eq!(good(at, &["anchor", "acme/trust.1"]), anchor);
    bad(
        at,
        BAD_FILE,
        &["init", "acme"],
        "acme exists already; nothing was written",
    );
}

#[test]
fn a_refusal_is_an_object_with_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    release(at, "1", "r1");
    fs::write(
        at.join("r2"),
        fs::read_to_string(at.join("r1"))
            .unwrap()
            .replace("Version: 1", "Version: 2"),
    )
    .unwrap();
    let run = |arguments: &[&str]| {
        let output = tidings(at, arguments);
        let last = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .last()
            .map(|line| serde_json::from_str(line).unwrap());
        (
            output.status.code(),
            last.unwrap_or(serde_json::Value::Null),
        )
    };
    // What the answer has told is told once.
    let (code, answer) = run(&[
        "--json",
        "verify",
        "--anchor",
        &anchor,
        "--trust",
        "acme/trust.1",
        "r2",
    ]);
    assert_eq!(
        (code, answer["good"].as_bool()),
        (Some(REFUSED), Some(false))
    );
    let (code, refusal) = run(&["--json", "sign", "--key", "acme/release.key", "r1"]);
    assert_eq!(
        (code, refusal["exit"].as_str(), refusal["code"].as_i64()),
        (Some(REFUSED), Some("refused"), Some(3))
    );
    let (code, refusal) = run(&["key", "show", "missing", "--json"]);
    assert_eq!(
        (code, refusal["exit"].as_str()),
        (Some(BAD_FILE), Some("bad-file"))
    );
    assert!(
        refusal["error"]
            .as_str()
            .unwrap()
            .contains("cannot read the key missing")
    );
    let (code, refusal) = run(&[
        "--json",
        "fetch",
        "acme.os",
        "--anchor",
        &anchor,
        "--broker",
        "nntp://127.0.0.1:1",
    ]);
    assert_eq!(
        (code, refusal["exit"].as_str()),
        (Some(NO_BROKER), Some("no-broker"))
    );
    let (code, refusal) = run(&["--json", "fetch", "acme.os", "--anchor", "acme"]);
    assert_eq!(
        (code, refusal["exit"].as_str()),
        (Some(USAGE), Some("usage"))
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

#[test]
fn an_anchor_of_a_serial_that_the_log_does_not_have() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    let later = anchor.replace("acme 1 ", "acme 7 ");
    let says = "the anchor names trust 7 of acme, and the log in the file has 1 to 1; use a newer file (`tidings trust log`), or another anchor";
    bad(
        at,
        BAD_FILE,
        &["anchor", "acme/trust.1", "--anchor", &later],
        says,
    );
    release(at, "1", "r1");
    bad(
        at,
        BAD_FILE,
        &[
            "verify",
            "--anchor",
            &later,
            "--trust",
            "acme/trust.1",
            "r1",
        ],
        says,
    );
    bad(
        at,
        USAGE,
        &["anchor", "acme/trust.1", "--anchor", "acme sha256:00"],
        "an anchor is one line, `NAMESPACE SERIAL sha256:`",
    );
}

/// [attack 96] What lies below an anchor is proven by its links, and gives no rights.
#[test]
fn any_trust_statement_is_an_anchor() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    namespace(at);
    good(
        at,
        &["trust", "renew", "acme/trust.1", "--offline", "-o", "log"],
    );
    good(at, &["sign", "--key", "acme/root.key", "log"]);
    let anchor = good(at, &["anchor", "log"]);
    assert!(anchor.starts_with("acme 2 sha256:"));
    release(at, "1", "r1");
    assert!(
        good(
            at,
            &["verify", "--anchor", anchor.trim(), "--trust", "log", "r1"]
        )
        .contains("r1: good: 1 ")
    );
    let other = anchor
        .trim()
        .replace(&anchor.trim()[anchor.trim().len() - 4..], "0000");
    bad(
        at,
        REFUSED,
        &["verify", "--anchor", &other, "--trust", "log", "r1"],
        "the anchor names",
    );
}

/// The outbox of `acme`, and what a test puts into it.
fn outbox(at: &Path, file: &str) -> (std::path::PathBuf, Vec<u8>) {
    let directory = at.join("state/tidings/outbox/acme");
    let outbox = tidings_client::Outbox::open(&directory, &"acme".parse().unwrap()).unwrap();
    let text = fs::read(at.join(file)).unwrap();
    outbox
        .put(&tidings_client::Statement::parse(&text).unwrap())
        .unwrap();
    let path = directory.join("acme.os.statement");
    let octets = fs::read(&path).unwrap();
    (path, octets)
}

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

#[test]
fn the_next_trust_statement_as_text() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    namespace(at);
    good(at, &["key", "new", "new.key"]);
    let editor = |script: &str, out: &str| {
        fs::write(at.join("editor"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(at.join("editor"), fs::Permissions::from_mode(0o755)).unwrap();
        let edit = ["trust", "edit", "acme/trust.1", "--offline", "-o", out];
        let output = command(at)
            .args(edit)
            .env("EDITOR", "./editor")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (code, text) = editor(
        "cp \"$1\" seen; sed -i \"s|^Key: .* release$|Key: $(cat new.key.pub) release|\" \"$1\"; echo 'Closed: acme.old.*' >> \"$1\"",
        "new",
    );
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("- key release ed25519:")
            && text.contains("+ key release ed25519:")
            && text.contains("+ closed acme.old.*"),
        "{text}"
    );
    assert!(
        text.contains("by trust 1: 1 needed, signed by nobody: 1 more of root"),
        "{text}"
    );
    let seen = fs::read_to_string(at.join("seen")).unwrap();
    assert!(
        seen.contains("# The next trust statement")
            && seen.contains("\nRole: beat * 1 beat\n")
            && !seen.contains("\nSerial: "),
        "{seen}"
    );
    // A fault has its line in the text; with nobody to edit again, nothing is written.
    let (code, text) = editor("echo 'Role: releases * 1 root' >> \"$1\"", "bad");
    let line = seen.lines().count() + 1;
    assert!(
        code == Some(REFUSED)
            && text.contains(&format!(
                "line {line}: Role: expected KIND PATTERN THRESHOLD NAME"
            )),
        "{text}"
    );
    let (code, text) = editor("exit 3", "bad");
    assert!(
        code == Some(REFUSED) && text.contains("ended with exit status: 3; nothing was written"),
        "{text}"
    );
    assert!(!at.join("bad").exists());
    // The same text from a file; what is closed stays closed.
    good(at, &["sign", "--key", "acme/root.key", "new"]);
    bad(
        at,
        REFUSED,
        &[
            "trust",
            "edit",
            "new",
            "--offline",
            "--from",
            "seen",
            "-o",
            "open",
        ],
        "`Closed: acme.old.*` is missing: what is closed stays closed",
    );
    fs::write(
        at.join("seen"),
        seen + "Closed: acme.old.*\nClosed: acme.older.* acme.older.kept\n",
    )
    .unwrap();
    let text = good(
        at,
        &[
            "trust",
            "edit",
            "new",
            "--offline",
            "--from",
            "seen",
            "-o",
            "more",
        ],
    );
    assert!(
        text.contains("+ closed acme.older.* acme.older.kept") && !text.contains("- closed"),
        "{text}"
    );
}

/// [cases of other projects] A reader that goes away, and a full disk, end a command without a
/// panic.
#[test]
fn outputs_that_break() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    namespace(at);
    let shell = |script: &str| {
        let script = script.replace("tidings", env!("CARGO_BIN_EXE_tidings"));
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(at)
            .env("XDG_STATE_HOME", at.join("state"))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for command in [
        "completions bash",
        "man",
        "release acme.os --after - --trust 1 --version 1",
    ] {
        assert_eq!(
            shell(&format!("tidings {command} | true; exit 0")).1,
            "",
            "{command}"
        );
        let (code, said) = shell(&format!("tidings {command} > /dev/full"));
        assert!(
            code == Some(1)
                && said.contains("cannot write to standard output: No space left on device"),
            "{command}: {said}"
        );
    }
    let (code, _) = shell("tidings key show missing 2>/dev/full");
    assert_eq!(code, Some(BAD_FILE));
    let (code, _) = shell("exec 3> >(true); sleep 0.2; tidings key show missing 2>&3");
    assert_eq!(code, Some(BAD_FILE));
}

/// [attack 112] What others have written reaches no terminal as more than text.
#[test]
fn text_of_others_is_made_safe() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    let summary = "red \u{1b}[31m, turned \u{202e}round, \u{9b}31m";
    let command = [
        "release",
        "acme.os",
        "--after",
        "-",
        "--trust",
        "1",
        "--version",
        "1",
        "--key",
        "acme/release.key",
        "-o",
        "r1",
    ];
    let output = tidings(at, &[&command[..], &["--summary", summary]].concat());
    let verify = [
        "verify",
        "--anchor",
        &anchor,
        "--trust",
        "acme/trust.1",
        "r1",
    ];
    // Controls are no text of a statement; what turns a line round is, and is shown as a mark.
    assert_eq!(output.status.code(), Some(BAD_FILE), "{output:?}");
    good(
        at,
        &[&command[..], &["--summary", "turned \u{202e}round"]].concat(),
    );
    let text = good(at, &verify);
    assert!(text.contains("turned \u{fffd}round"), "{text}");
    let json = good(at, &[&["--json"], &verify[..]].concat());
    assert!(
        json.contains("turned \\u202eround") && json.is_ascii(),
        "{json}"
    );
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

/// The first process of a container gets only the signals that it asks for; also while it waits for
/// a broker that has greeted and is silent. Otherwise it would end later, and in another way.
#[test]
fn the_first_process_of_a_container_ends_when_it_is_told() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nntp://{}", silent.local_addr().unwrap());
    for (command, code) in [("log", 128 + 15), ("fetch", 128 + 15), ("watch", 0)] {
        let mut outer = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child"])
            .arg(env!("CARGO_BIN_EXE_tidings"))
            .args([command, "acme.os", "--broker", &url, "--anchor", &anchor])
            .spawn()
            .unwrap();
        let (mut connection, _) = silent.accept().unwrap();
        connection.write_all(b"200 hello\r\n").unwrap();
        // It is at work when it has asked for something.
        assert!(connection.read(&mut [0; 64]).unwrap() > 0);
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let inner = fs::read_to_string(children).unwrap();
        let told = Command::new("kill").args(["-TERM", inner.trim()]).status();
        assert!(told.unwrap().success(), "{inner:?}");
        assert_eq!(outer.wait().unwrap().code(), Some(code), "{command}");
    }
}

/// A name server that is silent is not waited for longer than it is said, nor at the end.
#[test]
fn a_name_server_that_is_silent_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    fs::write(
        at.join("resolv"),
        "nameserver 192.0.2.1\noptions timeout:30 attempts:5\n",
    )
    .unwrap();
    fs::write(at.join("nss"), "hosts: files dns\n").unwrap();
    let script = format!(
        "ip link add silent type veth peer name far && ip addr add 192.0.2.2/24 dev silent && ip link set silent up && ip link set far up && ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev silent || exit 99\n\
         mount --bind resolv \"$(readlink -f /etc/resolv.conf)\" && mount --bind nss /etc/nsswitch.conf || exit 98\n\
         exec {} log acme.os --broker nntp://origin --anchor '{anchor}'",
        env!("CARGO_BIN_EXE_tidings")
    );
    let output = Command::new("timeout")
        .args(["100", "unshare", "--mount", "--net", "bash", "-c", &script])
        .current_dir(at)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(NO_BROKER), "{said}");
    assert!(
        said.contains("origin is not found: the name server has not said"),
        "{said}"
    );
}
