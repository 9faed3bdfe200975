//! `tidings` as its user meets it, without any network.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

fn tidings(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidings")).args(arguments).current_dir(directory).output().unwrap()
}

#[track_caller]
fn good(directory: &Path, arguments: &[&str]) -> String {
    let output = tidings(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn bad(directory: &Path, arguments: &[&str], expected: &str) {
    let output = tidings(directory, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert!(text.contains(expected), "{text:?} should say {expected:?}");
}

use base64ct::{Base64UrlUnpadded, Encoding};
use tidings_protocol::Digest;

#[test]
fn from_keys_to_a_verified_release_without_a_network() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let public = good(at, &["key", "new", "root.key"]);
    assert!(public.starts_with("ed25519:") && public.trim().len() == 51, "{public}");
    assert_eq!(fs::read_to_string(at.join("root.key.pub")).unwrap(), public);
    assert_eq!(fs::metadata(at.join("root.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(good(at, &["key", "show", "root.key"]), public);
    bad(at, &["key", "new", "root.key"], "cannot write the key");
    bad(at, &["key", "show", "missing.key"], "`tidings key new missing.key` makes one");
    for name in ["ann", "bob"] {
        good(at, &["key", "new", &format!("{name}.key")]);
    }
    let roles = ["--role", "trust * 1 root", "--role", "release * 2 ann bob", "--role", "withdraw * 1 ann bob"];
    let keys = ["--key", "root=root.key", "--key", "ann=ann.key.pub", "--key", "bob=bob.key.pub"];
    let anchor = good(at, &[&["trust", "init", "acme", "--sign", "-o", "trust.1"], &keys[..], &roles[..]].concat());
    let anchor = anchor.trim();
    assert!(anchor.starts_with("acme 1 sha256:"));
    assert!(good(at, &["trust", "show", "trust.1"]).contains(&format!("anchor: {anchor}")));
    let shown: serde_json::Value = serde_json::from_str(&good(at, &["trust", "show", "--json", "trust.1"])).unwrap();
    assert_eq!((shown["anchor"].as_str(), &shown["signed_by"]), (Some(anchor), &serde_json::json!(["root"])));

    fs::write(at.join("image"), vec![7; 3_000_000]).unwrap();
    let release = ["release", "acme.os.stable", "--version", "1.0", "--after", "-", "--trust", "1", "--apply", "reboot"];
    let payload = ["--payload", "raw image https://example.org/image result=@image", "-o", "r1", "--key", "ann.key"];
    good(at, &[&release[..], &payload[..]].concat());
    let text = fs::read_to_string(at.join("r1")).unwrap();
    let digest = Digest::of(&vec![7; 3_000_000]);
    let line = text.lines().find(|l| l.starts_with("Payload: ")).unwrap();
    assert_eq!(line, format!("Payload: raw 3000000 {digest} https://example.org/image result={digest}"));

    let verify = ["verify", "--anchor", anchor, "--trust", "trust.1", "r1"];
    bad(at, &verify, "needs 2 signatures of ann, bob by trust 1, found 1 that hold");
    good(at, &["sign", "--key", "bob.key", "r1"]);
    assert!(good(at, &verify).contains("r1: good: 1 "));
    bad(at, &["sign", "--key", "bob.key", "r1"], "has signed this already");
    let json: serde_json::Value = serde_json::from_str(&good(at, &[&verify[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["statement"]["fields"]["Version"], serde_json::json!(["1.0"]));
    assert_eq!(json["statement"]["signed_by"], serde_json::json!(["ann", "bob"]));

    // What was changed afterwards is refused, and a wrong line is named.
    fs::write(at.join("r2"), text.replace("Version: 1.0", "Version: 1.1")).unwrap();
    bad(at, &["verify", "--anchor", anchor, "--trust", "trust.1", "r2"], "needs 2 signatures of ann, bob by trust 1, found 0 that hold");
    fs::write(at.join("r3"), text.replace("Apply: reboot", "Apply: rm -rf /")).unwrap();
    bad(
        at,
        &["verify", "--anchor", anchor, "--trust", "trust.1", "r3"],
        "line 8: Apply: expected reboot, kexec, restart UNIT…, live or none",
    );
    bad(at, &["verify", "--anchor", &anchor.replace("acme", "evil"), "--trust", "trust.1", "r1"], "trust.1 is not accepted");
}

#[test]
fn what_would_break_out_of_its_line_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let release = ["release", "acme.os", "--after", "-", "--trust", "1", "--version", "1"];
    bad(directory.path(), &[&release[..], &["--summary", "a\nPayload: x"]].concat(), "Summary: expected one line, found several");
    bad(directory.path(), &[&release[..], &["--urgency", "soon"]].concat(), "line 8: Urgency: expected routine, security or critical");
    bad(directory.path(), &[&release[..], &["--payload", "raw missing https://x.y/z"]].concat(), "cannot read the payload missing");
    bad(directory.path(), &["release", "acme.os", "--version", "1"], "give --broker and --anchor, or --after and --trust");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    good(directory.path(), &["key", "new", "a.key"]);
    fs::set_permissions(directory.path().join("a.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let init = ["trust", "init", "acme", "--key", "root=a.key.pub", "--sign", "-o", "t"];
    bad(directory.path(), &init, "none of the keys is a private one");
    let draft = ["release", "acme.os", "--after", "-", "--trust", "1", "--version", "1", "-o", "draft"];
    good(directory.path(), &draft);
    bad(directory.path(), &["sign", "--key", "a.key.pub", "draft"], "is it the public half?");
    let release = ["release", "acme.os", "--after", "-", "--trust", "1", "--version", "1", "--key", "a.key"];
    bad(directory.path(), &release, "can be read by others (mode 640)");
}

#[test]
fn it_explains_itself() {
    let directory = tempfile::tempdir().unwrap();
    assert!(good(directory.path(), &["--help"]).contains("Exit codes"));
    assert!(good(directory.path(), &["man"]).to_lowercase().contains(".th tidings"));
    assert!(good(directory.path(), &["man", "release"]).contains("payload"));
    assert!(good(directory.path(), &["man", "trust", "change"]).contains("checkpoint"));
    assert!(good(directory.path(), &["completions", "bash"]).len() > 1000);
    bad(directory.path(), &["man", "frobnicate"], "no command");
}

/// Keys for some people, in one directory.
fn people(at: &Path, names: &[&str]) {
    names.iter().for_each(|name| drop(good(at, &["key", "new", &format!("{name}.key")])));
}

#[test]
fn a_trust_log_goes_round_and_what_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    people(at, &["root", "ann", "bob", "eve"]);
    let init = ["trust", "init", "acme", "--key", "root=root.key", "--key", "ann=ann.key.pub", "--out", "log", "--sign"];
    good(at, &[&init[..], &["--role", "trust * 1 root", "--role", "release * 1 ann", "--role", "withdraw * 1 ann root"]].concat());
    let change = |more: &[&'static str]| [&["trust", "change", "log", "--offline"], more].concat();
    bad(at, &change(&["--out", "x"]), "nothing would change; `tidings trust renew`");
    bad(at, &["trust", "change", "log", "--add-key", "bob=bob.key", "--out", "x"], "give --broker URL, or --offline");
    bad(at, &change(&["--remove-key", "zoe", "--out", "x"]), "there is no key \"zoe\"; there are root, ann");
    bad(at, &change(&["--remove-key", "ann", "--out", "x"]), "the role `release *` needs 1 signatures and has 0 key(s) left");
    bad(at, &change(&["--add-key", "ann=bob.key", "--out", "x"]), "is there already, as name or as key");
    bad(at, &change(&["--add-key", "other=ann.key", "--out", "x"]), "is there already, as name or as key");
    bad(at, &change(&["--remove-role", "release acme.x", "--out", "x"]), "expected `KIND PATTERN` of a role that is there");
    bad(at, &change(&["--checkpoint", "acme.trust 1 x", "--out", "x"]), "id");
    bad(at, &change(&["--role", "release * 3 ann root", "--out", "x"]), "needs 3 signatures and has 2 key(s) left");
    assert!(!at.join("x").exists());

    let moved = ["--remove-key", "root", "--add-key", "bob=bob.key.pub", "--role", "trust * 2 ann bob"];
    let dry = good(at, &change(&[&moved[..], &["--dry-run"]].concat()));
    assert!(dry.contains("- role trust *: 1 of root") && dry.contains("+ role trust *: 2 of ann, bob"), "{dry}");
    good(at, &change(&[&moved[..], &["--out", "new"]].concat()));
    bad(at, &["trust", "change", "new", "--offline", "--remove-role", "withdraw *", "--out", "x"], "still needs signatures");
    let missing = |file: &str| -> serde_json::Value { serde_json::from_str(&good(at, &["trust", "show", "--json", file])).unwrap() };
    assert_eq!(missing("new")["missing"], serde_json::json!(["root", "ann", "bob"]));
    good(at, &["sign", "--key", "ann.key", "new"]);
    assert_eq!(missing("new")["missing"], serde_json::json!(["root", "bob"]));
    bad(at, &["sign", "--key", "ann.key", "new"], "has signed this already");
    good(at, &["sign", "--key", "eve.key", "new"]);
    assert_eq!(missing("new")["enough"], serde_json::json!(false), "a stranger counts for nothing");
    good(at, &["sign", "--key", "bob.key", "new"]);
    good(at, &["sign", "--key", "root.key", "new"]);
    let shown = missing("new");
    assert_eq!(
        (&shown["enough"], &shown["missing"], &shown["serial"]),
        (&serde_json::json!(true), &serde_json::json!([]), &serde_json::json!(2))
    );

    // Alone, or behind another first statement, it is not signed and not called enough.
    let text = fs::read_to_string(at.join("new")).unwrap();
    let second = text.rfind("Tidings: 1 trust").unwrap();
    fs::write(at.join("alone"), &text[second..]).unwrap();
    bad(at, &["sign", "--key", "eve.key", "alone"], "sign it together with its trust log");
    assert_eq!(missing("alone")["enough"], serde_json::json!(false));
    let other = ["trust", "init", "acme", "--key", "eve=eve.key", "--sign", "--out", "other"];
    good(at, &other);
    fs::write(at.join("mixed"), fs::read_to_string(at.join("other")).unwrap() + &text).unwrap();
    bad(at, &["trust", "show", "mixed"], "trust statement 1 in the file is not accepted");
    // A signature that does not hold, a fault with its line in the whole file, and a field that is not known.
    let lines = text.lines().count();
    fs::write(at.join("broken"), text.replace("Role: release", "Role: releases")).unwrap();
    bad(at, &["trust", "show", "broken"], "Role: expected KIND PATTERN THRESHOLD NAME");
    fs::write(at.join("cut"), &text[..text.len() - 1]).unwrap();
    bad(at, &["trust", "show", "cut"], &format!("line {lines}: "));
    let swapped = text[second..].replace("Expires: 20", "Expires: 21");
    fs::write(at.join("swapped"), text[..second].to_owned() + &swapped).unwrap();
    assert_eq!(missing("swapped")["missing"], serde_json::json!(["root", "ann", "bob"]), "what does not hold counts for nothing");
    let end = text[second..].find("Signature: ").unwrap() + second;
    fs::write(at.join("odd"), format!("{}Colour: blue\n", &text[..end])).unwrap();
    assert!(good(at, &["trust", "show", "odd"]).contains("this version does not know what it means: Colour: blue"));
    // A file that is no bundle at all, and one that has no end.
    fs::File::create(at.join("huge")).unwrap().set_len((64 << 20) + 1).unwrap();
    bad(at, &["trust", "show", "huge"], "huge is larger than 67108864 octets");
    // For longer, by those who may now: a broker has to be asked.
    bad(at, &["trust", "renew", "new", "--out", "renewed"], "give --broker URL");
    bad(
        at,
        &["trust", "renew", "new", "--out", "renewed", "--broker", "nntp://127.0.0.1:1"],
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        let output = command.args(arguments).current_dir(at).env("TIDINGS_PASSPHRASE_FILE", file).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, public) = run("right", &["key", "new", "--encrypt", "a.key"]);
    assert_eq!(code, Some(0), "{public}");
    let pem = fs::read_to_string(at.join("a.key")).unwrap();
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{pem}");
    assert_eq!(fs::metadata(at.join("a.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run("right", &["key", "show", "a.key"]), (Some(0), public.clone()));
    let (code, text) = run("wrong", &["key", "show", "a.key"]);
    assert!(code == Some(1) && text.contains("this is not its passphrase"), "{text}");
    let (code, text) = run("missing", &["key", "show", "a.key"]);
    assert!(code == Some(1) && text.contains("its passphrase cannot be asked for"), "{text}");
    let (code, text) = run("empty", &["key", "new", "--encrypt", "b.key"]);
    assert!(code == Some(1) && text.contains("an empty passphrase protects nothing"), "{text}");
    assert!(!at.join("b.key").exists() && !at.join("b.key.pub").exists());
    // OpenSSL reads it too, and has the same public half.
    let openssl = Command::new("openssl")
        .args(["pkey", "-in", "a.key", "-passin", "file:right", "-pubout", "-outform", "DER"])
        .current_dir(at)
        .output();
    let der = openssl.expect("openssl is missing; install it (Debian: openssl)").stdout;
    let key = Base64UrlUnpadded::encode_string(&der[der.len() - 32..]);
    assert_eq!(public.trim(), format!("ed25519:{key}"));
}
