//! Keys that are in no file of their own: standard input, the environment, an ssh-agent.

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tokio::time::Instant;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};

use crate::desk::{BAD_FILE, USAGE, bad, command, good};

const RELEASE: [&str; 9] = [
    "release",
    "acme.os",
    "--after",
    "-",
    "--trust",
    "1",
    "--another",
    "--version",
    "1",
];

/// Of a namespace that is nowhere.
const ANCHOR: &str =
    "acme 1 sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn with_input(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_key_comes_by_a_pipe_or_a_variable_and_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let public = good(at, &["key", "new", "a.key"]);
    let pem = fs::read_to_string(at.join("a.key")).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    fs::remove_file(at.join("a.key")).unwrap();
    let run = |keys: &[&str], input: &str| {
        let mut command = command(at);
        command
            .args(RELEASE)
            .env("RELEASE_KEY", &pem)
            .env("EMPTY", "");
        for key in keys {
            command.args(["--key", key]);
        }
        let output = with_input(command, input);
        let said = text(&output);
        assert!(!said.contains(secret), "{said}");
        (output.status.code(), said)
    };
    let signed = format!("Signature: {}", public.trim());
    for (key, input) in [("-", &pem[..]), ("env:RELEASE_KEY", "")] {
        let (code, said) = run(&[key], input);
        assert!(code == Some(0) && said.contains(&signed), "{key}: {said}");
    }
    for (keys, input, says) in [
        (&["-", "-"][..], &pem[..], "standard input has one key"),
        (
            &["env:EMPTY"],
            "",
            "there is no such variable, or it is empty",
        ),
        (
            &["env:MISSING"],
            "",
            "there is no such variable, or it is empty",
        ),
        (
            &[&format!("env:{secret}=")],
            "",
            "expected the name of a variable",
        ),
    ] {
        let (code, said) = run(keys, input);
        assert!(
            code == Some(USAGE) && said.contains(says),
            "{keys:?}: {said}"
        );
    }
    let (code, said) = run(&["-"], public.as_str());
    assert!(
        code == Some(BAD_FILE) && said.contains("standard input holds no private key"),
        "{said}"
    );
    let (code, said) = run(&["-"], &pem.replace(secret, &secret[8..]));
    assert!(
        code == Some(BAD_FILE) && said.contains("it is damaged"),
        "{said}"
    );
    // A file of that name is a file.
    fs::write(at.join("-"), public.as_str()).unwrap();
    assert_eq!(good(at, &["key", "show", "./-"]), public);
    // Who types it would show it.
    let tidings = env!("CARGO_BIN_EXE_tidings");
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{tidings} key show -"), "/dev/null"]);
    let output = script
        .output()
        .expect("script is missing: install bsdutils");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(USAGE), "{said}");
    assert!(said.contains("standard input is a terminal"), "{said}");
}

/// OpenSSH's agent, for as long as this lives.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let mut agent = Command::new("ssh-agent");
        let agent = agent.arg("-D").arg("-a").arg(socket).stdout(Stdio::null());
        let agent = Self(
            agent
                .spawn()
                .expect("ssh-agent is missing: install openssh-client"),
        );
        let until = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < until, "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A key as OpenSSH makes it; its public half as Tidings writes it.
fn ssh_key(at: &Path, socket: &Path, kind: &str, name: &str) -> String {
    let make = ["-q", "-t", kind, "-N", "", "-C", name, "-f", name];
    let made = Command::new("ssh-keygen")
        .args(make)
        .current_dir(at)
        .status();
    assert!(
        made.expect("ssh-keygen is missing: install openssh-client")
            .success()
    );
    let added = Command::new("ssh-add")
        .args(["-q", name])
        .current_dir(at)
        .env("SSH_AUTH_SOCK", socket)
        .status();
    assert!(added.unwrap().success());
    let line = fs::read_to_string(at.join(format!("{name}.pub"))).unwrap();
    let blob = Base64::decode_vec(line.split(' ').nth(1).unwrap()).unwrap();
    let key = Base64UrlUnpadded::encode_string(&blob[blob.len() - 32..]);
    format!("ed25519:{key}")
}

#[test]
fn an_ssh_agent_signs() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let socket = at.join("agent");
    let _agent = Agent::start(&socket);
    let run = |arguments: &[&str]| {
        let mut command = command(at);
        let output = command
            .args(arguments)
            .env("SSH_AUTH_SOCK", &socket)
            .output()
            .unwrap();
        (output.status.code(), text(&output))
    };
    let (code, said) = run(&["key", "show", "agent:"]);
    assert!(
        code == Some(BAD_FILE) && said.contains("it has none"),
        "{said}"
    );
    ssh_key(at, &socket, "ecdsa", "another kind");
    let public = ssh_key(at, &socket, "ed25519", "release");
    assert_eq!(
        run(&["key", "show", "agent:"]),
        (Some(0), format!("{public}\n"))
    );
    // A namespace whose one key is the agent's: trust and release are signed by it.
    let init = [
        "trust",
        "init",
        "acme",
        "--key",
        "all=agent:release",
        "--sign",
        "-o",
        "trust.1",
    ];
    let (code, anchor) = run(&init);
    assert_eq!(code, Some(0), "{anchor}");
    let release = [&RELEASE[..], &["--key", "agent:", "--out", "r1"]].concat();
    let (code, said) = run(&release);
    assert_eq!(code, Some(0), "{said}");
    let verify = [
        "verify",
        "r1",
        "--trust",
        "trust.1",
        "--anchor",
        anchor.trim(),
    ];
    good(at, &verify);
}

#[test]
fn a_key_of_an_agent_has_to_be_named_where_there_are_two() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let socket = at.join("agent");
    let agent = Agent::start(&socket);
    let run = |arguments: &[&str]| {
        let mut command = command(at);
        let output = command
            .args(arguments)
            .env("SSH_AUTH_SOCK", &socket)
            .output()
            .unwrap();
        (output.status.code(), text(&output))
    };
    let public = ssh_key(at, &socket, "ed25519", "release");
    let second = ssh_key(at, &socket, "ed25519", "second");
    let (code, said) = run(&["key", "show", "agent:"]);
    assert!(code == Some(USAGE) && said.contains(&second), "{said}");
    assert_eq!(run(&["key", "show", "agent:second"]).1.trim(), second);
    assert_eq!(
        run(&["key", "show", &format!("agent:{public}")]).1.trim(),
        public
    );
    let (code, said) = run(&["key", "show", "agent:third"]);
    assert!(
        code == Some(BAD_FILE) && said.contains("no Ed25519 key \"third\""),
        "{said}"
    );
    // What signs by itself asks no agent, and without one that is said.
    let beat = [
        "beat",
        "--key",
        "agent:",
        "--broker",
        "nntp://127.0.0.1:1",
        "--anchor",
        ANCHOR,
    ];
    let (code, said) = run(&beat);
    assert!(
        code == Some(USAGE) && said.contains("asks no agent"),
        "{said}"
    );
    drop(agent);
    let (code, said) = run(&["key", "show", "agent:"]);
    assert!(
        code == Some(BAD_FILE) && said.contains("SSH_AUTH_SOCK"),
        "{said}"
    );
    let mut none = command(at);
    let output = none
        .args(["key", "show", "agent:"])
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(USAGE));
    bad(
        at,
        USAGE,
        &["key", "show", "env:"],
        "expected the name of a variable",
    );
}
