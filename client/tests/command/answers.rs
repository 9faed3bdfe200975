//! How the command answers, refuses and ends.

use std::{fs, process::Command};

use crate::desk::{BAD_FILE, NO_BROKER, REFUSED, USAGE, bad, good, namespace, release, tidings};

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
