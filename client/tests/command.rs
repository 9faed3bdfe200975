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
    assert!(anchor.starts_with("acme sha256:"));
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
    bad(at, &verify, "needs 2 signatures of ann, bob by trust 1, found 1");
    good(at, &["sign", "--key", "bob.key", "r1"]);
    assert!(good(at, &verify).contains("r1: good: 1 "));
    bad(at, &["sign", "--key", "bob.key", "r1"], "expected one signature of each key");
    let json: serde_json::Value = serde_json::from_str(&good(at, &[&verify[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["statement"]["fields"]["Version"], serde_json::json!(["1.0"]));
    assert_eq!(json["statement"]["signed_by"], serde_json::json!(["ann", "bob"]));

    // What was changed afterwards is refused, and a wrong line is named.
    fs::write(at.join("r2"), text.replace("Version: 1.0", "Version: 1.1")).unwrap();
    bad(at, &["verify", "--anchor", anchor, "--trust", "trust.1", "r2"], "the signature by \"ann\" is wrong");
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
    assert!(good(directory.path(), &["completions", "bash"]).len() > 1000);
    bad(directory.path(), &["man", "frobnicate"], "no command");
}
