//! What the tests share: a directory of their own, the command in it, and what they put there.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

// How commands end, by the names of `tidings --help`.
pub(crate) const USAGE: i32 = 2;
pub(crate) const REFUSED: i32 = 3;
pub(crate) const NO_BROKER: i32 = 7;
pub(crate) const BAD_FILE: i32 = 8;

/// The command, with nothing of the tester's own around it: what it remembers is kept in the test's
/// directory.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command
        .current_dir(directory)
        .env("XDG_STATE_HOME", directory.join("state"))
        .env("XDG_CONFIG_HOME", directory.join("config"))
        .env_remove("EDITOR")
        .env_remove("VISUAL");
    for name in [
        "TIDINGS_CONTEXT",
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

pub(crate) fn tidings(directory: &Path, arguments: &[&str]) -> Output {
    command(directory).args(arguments).output().unwrap()
}

#[track_caller]
pub(crate) fn good(directory: &Path, arguments: &[&str]) -> String {
    let output = tidings(directory, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(crate) fn bad(directory: &Path, code: i32, arguments: &[&str], expected: &str) {
    let output = tidings(directory, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(expected), "{text:?} should say {expected:?}");
}

/// Keys for some people, in one directory.
pub(crate) fn people(at: &Path, names: &[&str]) {
    names
        .iter()
        .for_each(|name| drop(good(at, &["key", "new", &format!("{name}.key")])));
}

/// A namespace with `tidings init`; gives its anchor.
pub(crate) fn namespace(at: &Path) -> String {
    let anchor = good(at, &["--json", "init", "acme"]);
    serde_json::from_str::<serde_json::Value>(&anchor).unwrap()["anchor"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A signed release for a place that was given, in a file.
pub(crate) fn release(at: &Path, version: &str, file: &str) {
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

/// The outbox of `acme`, and what a test puts into it.
pub(crate) fn outbox(at: &Path, file: &str) -> (std::path::PathBuf, Vec<u8>) {
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
