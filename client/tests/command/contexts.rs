//! Contexts: where brokers, anchor and the rest come from, and which files are refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::desk::{BAD_FILE, NO_BROKER, USAGE, bad, command, good, namespace};

/// A broker that nobody is, of a number that tells where it came from.
fn broker(number: u8) -> String {
    format!("nntp://127.0.0.1:{number}")
}

fn json(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The command where `/etc/tidings/client.toml` is a file of the test's: in a mount namespace.
fn with_system_file(at: &Path, file: &str) -> Command {
    let inner = command(at);
    let mut outer = Command::new("unshare");
    let script = "mount -t tmpfs none /etc && mkdir /etc/tidings && \
        cat \"$1\" >/etc/tidings/client.toml && shift && exec \"$@\"";
    outer
        .args(["--map-root-user", "--mount", "sh", "-euc", script, "sh"])
        .arg(at.join(file))
        .arg(inner.get_program())
        .current_dir(at);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

#[test]
fn an_option_comes_before_the_environment_the_context_and_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    let system = format!("brokers = [\"{}\"]\nanchor = \"{anchor}\"\n", broker(1));
    fs::write(at.join("system.toml"), system).unwrap();
    let add = |name: &str, number: u8| {
        let url = broker(number);
        good(
            at,
            &[
                "context", "add", name, "--broker", &url, "--anchor", &anchor,
            ],
        );
    };
    add("two", 2);
    add("three", 3);
    // Each time one more place says it, and that is the one that counts.
    let log = |variables: &[(&str, &str)], options: &[&str]| {
        let mut command = with_system_file(at, "system.toml");
        command.envs(variables.iter().copied());
        command.args(["log", "acme.os"]).args(options);
        let output = command
            .output()
            .expect("unshare is missing: install util-linux");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(NO_BROKER), "{text}");
        text
    };
    let says = |text: String, number: u8| {
        let url = format!("{}: ", broker(number));
        assert!(text.contains(&url), "{text} should say {url}");
    };
    says(log(&[], &[]), 1);
    good(at, &["context", "use", "two"]);
    says(log(&[], &[]), 2);
    says(log(&[("TIDINGS_CONTEXT", "three")], &[]), 3);
    says(
        log(&[("TIDINGS_CONTEXT", "three")], &["--context", "two"]),
        2,
    );
    let variables = [
        ("TIDINGS_CONTEXT", "three"),
        ("TIDINGS_BROKERS", "nntp://127.0.0.1:4"),
    ];
    says(log(&variables, &[]), 4);
    says(log(&variables, &["--context", "two"]), 4);
    says(log(&variables, &["--broker", &broker(5)]), 5);
    // A variable that is empty is none.
    says(log(&[("TIDINGS_BROKERS", "")], &[]), 2);
    good(at, &["context", "use"]);
    says(log(&[], &[]), 1);
    let help = good(at, &["--help"]);
    let order = "come from options, else from the environment, else from the context";
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains(order), "{help}");
}

#[test]
fn a_file_that_others_may_write_is_refused_by_name_and_so_is_what_stands_wrong_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let url = broker(2);
    let add = ["context", "add", "prod", "--broker", &url, "--use"];
    good(at, &add);
    bad(at, BAD_FILE, &add, "there is a context prod already");
    let file = at.join("config/tidings/contexts/prod.toml");
    let look = ["log", "acme.os"];
    bad(at, USAGE, &look, "what proves it?");
    for (path, mode) in [
        (file.clone(), 0o622),
        (file.parent().unwrap().to_owned(), 0o777),
    ] {
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let says = format!("{} can be written by others", path.display());
        bad(at, BAD_FILE, &look, &says);
        fs::set_permissions(&path, before).unwrap();
    }
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.clone() + "pasword = \"hush\"\n").unwrap();
    let says = format!("{}: there is no key \"pasword\"", file.display());
    bad(at, BAD_FILE, &look, &says);
    fs::write(&file, text.clone() + "password = \"hush\"\n").unwrap();
    bad(
        at,
        BAD_FILE,
        &look,
        "secrets do not stand here: password_file",
    );
    let output = command(at).args(look).output().unwrap();
    assert!(!said(&output).contains("hush"));
    // A command that needs no broker is not kept by it.
    good(at, &["key", "new", "a.key"]);
    bad(
        at,
        USAGE,
        &["log", "acme.os", "--context", "../x"],
        "a context's name has",
    );
    bad(
        at,
        USAGE,
        &["log", "acme.os", "--context", "typo"],
        "there are prod",
    );
    bad(
        at,
        USAGE,
        &["key", "show", "a.key.pub", "--context", "typo"],
        "there is no context",
    );
}

#[test]
fn contexts_are_listed_shown_used_edited_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    let url = broker(2);
    let add = [
        "context", "add", "prod", "--broker", &url, "--anchor", &anchor,
    ];
    let more = [
        "--state-dir",
        "states",
        "--ca",
        "ca.pem",
        "--use",
        "--description",
        "ours",
    ];
    good(at, &[&add[..], &more[..]].concat());
    good(at, &["context", "add", "lab"]);
    let list = json(&good(at, &["context", "list", "--json"]));
    let names: Vec<_> = list
        .iter()
        .map(|one| (one["context"].as_str(), one["in_use"].as_bool()))
        .collect();
    assert_eq!(
        names,
        [(Some("lab"), Some(false)), (Some("prod"), Some(true))]
    );
    assert!(good(at, &["context", "list"]).contains("*\tprod\tacme\tnntp://127.0.0.1:2\tours"));
    let ca = at.canonicalize().unwrap().join("ca.pem");
    assert!(good(at, &["context", "show"]).contains(&format!("ca = \"{}\"", ca.display())));
    // What is signed here is remembered where the context says.
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
    let key = ["--key", "acme/release.key", "--out", "r1"];
    good(at, &[&release[..], &key[..]].concat());
    assert!(at.join("states/acme.outbox").is_dir());
    assert!(!at.join("state").exists());
    // And verified by its anchor.
    good(at, &["verify", "r1", "--trust", "acme/trust.1"]);
    let edit = |script: &str| {
        let mut command = command(at);
        command.args(["context", "edit", "prod"]);
        command
            .env("EDITOR", format!("sed -i {script}"))
            .output()
            .unwrap()
    };
    let output = edit("s/^brokers.*/broker=1/");
    assert_eq!(output.status.code(), Some(BAD_FILE));
    assert!(said(&output).contains("nothing was changed"));
    assert_eq!(edit("s/:2/:3/").status.code(), Some(0));
    let shown = json(&good(at, &["context", "show", "prod", "--json"]));
    assert_eq!(shown[0]["settings"]["brokers"][0], broker(3));
    good(at, &["context", "remove", "prod"]);
    bad(
        at,
        USAGE,
        &["verify", "r1", "--trust", "acme/trust.1"],
        "--anchor",
    );
    let list = json(&good(at, &["context", "list", "--json"]));
    assert_eq!(list.len(), 1);
    assert!(good(at, &["cheat"]).contains("tidings context use prod"));
}

#[test]
fn a_context_of_somebody_else_is_said_and_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let anchor = namespace(at);
    let one = ["context", "add", "one", "--broker", &broker(1), "--use"];
    good(at, &one);
    let pointer = at.join("config/tidings/context");
    fs::set_permissions(&pointer, fs::Permissions::from_mode(0o0)).unwrap();
    let inner = command(at);
    let mut outer = Command::new("unshare");
    // Whoever is root here may not read everything either.
    outer.args(["--map-root-user", "setpriv", "--bounding-set"]);
    outer.arg("-dac_override,-dac_read_search");
    outer.arg(inner.get_program()).current_dir(at);
    outer.envs(
        inner
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    outer.args([
        "log",
        "acme.os",
        "--broker",
        &broker(2),
        "--anchor",
        &anchor,
    ]);
    let output = outer
        .output()
        .expect("unshare and setpriv are missing: install util-linux");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(NO_BROKER), "{text}");
    assert!(
        text.contains("context cannot be read: no context is in use"),
        "{text}"
    );
    assert!(
        text.contains(&broker(2)) && !text.contains(&broker(1)),
        "{text}"
    );
}
