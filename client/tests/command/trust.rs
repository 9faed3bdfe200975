//! Trust: its beginning, its log, its anchors, and the next statement as text.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::desk::{
    BAD_FILE, NO_BROKER, REFUSED, USAGE, bad, command, good, namespace, people, release,
};

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

#[test]
fn the_next_trust_statement_as_text() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    namespace(at);
    good(at, &["key", "new", "new.key"]);
    let editor = |script: &str, out: &str| {
        fs::write(at.join("text"), format!("#!/bin/sh\n{script}\n")).unwrap();
        // Another process writes what is run: no thread of this one has it open then.
        let mut install = std::process::Command::new("install");
        let install = install.args(["-m", "755", "text", "editor"]);
        assert!(install.current_dir(at).status().unwrap().success());
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
