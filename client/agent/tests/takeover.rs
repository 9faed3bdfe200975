//! An agent that is taken over: it writes what it likes into its directories, and sends what it
//! likes to the socket. The applier behind the socket is the real one, started for each connection
//! as systemd starts it. Nothing is applied that was not signed and due (attacks 49 to 55, 84, 85,
//! 87 and 88).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::symlink, net::UnixListener, net::UnixStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use common::{Machine, Publisher, ROLES, octets, payload, write_program};
use tidings_agent::handler::{Answer, DONE, FAILED, LATER, UNUSABLE};
use tidings_client::{Release, now};
use tidings_protocol::{Digest, statement::Kind};

const IMAGE: usize = 60_000;

/// A machine with an applier behind a socket.
struct Target {
    machine: Machine,
    publisher: Publisher,
    socket: PathBuf,
    image: Vec<u8>,
    _scratch: tempfile::TempDir,
}

impl Target {
    fn new(more: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let publisher = Publisher::new(now());
        let root = scratch.path().join("m");
        let machine = Machine::new(&root, &publisher.anchor, &octets("old", IMAGE), 65_536);
        let text = format!(
            "anchor = \"{0}\"\nbrokers = [\"nntp://127.0.0.1:1\"]\nchannels = [\"acme.os.stable\"]\nidentity = \"m\"\n{more}\n[properties]\nmodel = \"x1\"\n\
             [paths]\nagent = \"{1}/agent\"\napplier = \"{1}/applier\"\nrun = \"{1}/run\"\netc = \"{1}/etc\"\nlib = \"{2}/handlers\"\nboot_id = \"{1}/boots\"\n",
            publisher.anchor,
            root.display(),
            env!("CARGO_MANIFEST_DIR")
        );
        fs::write(root.join("agent.toml"), text).unwrap();
        let socket = root.join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let file = root.join("agent.toml");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-apply"));
                command.arg("--config").arg(&file).stderr(Stdio::null());
                let end = |stream: &UnixStream| {
                    Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone().unwrap()))
                };
                let mut child = command
                    .stdin(end(&stream))
                    .stdout(end(&stream))
                    .spawn()
                    .unwrap();
                drop(stream);
                child.wait().unwrap();
            }
        });
        Self {
            machine,
            publisher,
            socket,
            image: octets("new", IMAGE),
            _scratch: scratch,
        }
    }

    /// A release with the image, handed over as an honest agent does.
    fn release(&mut self, version: &str, more: Release) {
        let payloads = if more.payloads.is_empty() {
            vec![payload("raw", &self.image)]
        } else {
            more.payloads.clone()
        };
        self.publisher.release(Release {
            version: version.into(),
            payloads,
            ..more
        });
        self.hand_over();
    }

    fn hand_over(&self) {
        self.machine.hand_over(&self.publisher.news());
        self.machine.put_payload(&self.image);
    }

    fn send(&self, octets: &[u8]) -> Option<Answer> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        // It may hang up before it has read everything.
        let _ = stream.write_all(octets);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Answer::read(&text)
    }

    fn ask(&self, verb: &str, serial: u32) -> Answer {
        self.send(format!("{verb} acme.os.stable {serial} 0\n").as_bytes())
            .unwrap()
    }

    fn assert_refused(&self, verb: &str, serial: u32, why: &str) {
        let answer = self.ask(verb, serial);
        assert!(
            answer.code != DONE && answer.line.contains(why),
            "{verb} {serial}: {answer:?}, and not {why:?}"
        );
    }

    fn untouched(&self) -> bool {
        let old = octets("old", IMAGE);
        let there = fs::read(self.machine.slot("B")).unwrap();
        fs::read(self.machine.slot("A")).unwrap().starts_with(&old)
            && there.iter().all(|octet| *octet == 0)
            && self.machine.read("env") == "primary=A\nnext=\n"
    }

    fn boot(&self) -> String {
        self.machine
            .boot(&(std::sync::Arc::new(|_: &str| {}) as tidings_agent::journal::Point))
    }
}

#[test]
fn an_honest_agent_gets_what_was_signed_and_is_due() {
    let mut target = Target::new("");
    target.release("2", Release::default());
    for (verb, line) in [
        ("can", "60000"),
        ("state", "none"),
        ("stage", ""),
        ("state", "staged"),
        ("arm", ""),
        ("state", "armed"),
        ("go", "reboot "),
    ] {
        assert_eq!(target.ask(verb, 1), Answer::new(DONE, line), "{verb}");
    }
    assert_eq!(target.boot(), "B");
    for (verb, line) in [
        ("state", "running"),
        ("keep", ""),
        ("state", "kept"),
        ("drop", ""),
        ("state", "kept"),
    ] {
        assert_eq!(target.ask(verb, 1), Answer::new(DONE, line), "{verb}");
    }
}

#[test]
fn attack_85_what_is_no_request_has_no_effect() {
    let mut target = Target::new("");
    target.release("2", Release::default());
    let long = format!("stage acme.os.stable 1 0{}\n", " ".repeat(100_000));
    let lines = [
        "",
        "\n",
        "stage",
        "stage acme.os.stable 1 0",
        "stage acme.os.stable 1 0 0\n",
        "stage acme.os.stable 1 -1\n",
        "stage acme.os.stable 0 0\n",
        "stage ../../etc 1 0\n",
        "stage acme.os.stable/../x 1 0\n",
        "stage acme.trust 1 0\n",
        "stage acme.os.testing 1 0\n",
        "sh acme.os.stable 1 0\n",
        "stage acme.os.stable 1 99999999\n",
        "stage acme.os.stable 1 7\n",
        "stage acme.os.stable 9 0\n",
        "\0\0\0\n",
        long.as_str(),
    ];
    for line in lines {
        let answer = target.send(line.as_bytes());
        assert!(
            answer.is_none_or(|answer| answer.code == FAILED),
            "{line:?}"
        );
    }
    assert!(target.untouched());
}

#[test]
fn attack_01_nothing_is_applied_that_was_not_signed_by_the_role_for_releases() {
    let mut target = Target::new("");
    for signer in ["stop", "beat", "root", "stranger"] {
        target.publisher.log.clear();
        target.publisher.release_by(
            signer,
            Release {
                version: "2".into(),
                payloads: vec![payload("raw", &target.image)],
                ..Release::default()
            },
        );
        target.hand_over();
        target.assert_refused("stage", 1, "not proven here");
        target.assert_refused("arm", 1, "not proven here");
    }
    assert!(target.untouched());
    // Signed, and no live beat speaks for it.
    let mut target = Target::new("");
    target.release("2", Release::default());
    let without = target
        .publisher
        .trust
        .octets()
        .iter()
        .chain(target.publisher.log[0].octets())
        .copied()
        .collect::<Vec<u8>>();
    target.machine.hand_over(&without);
    target.assert_refused("stage", 1, "not now");
    assert!(target.untouched());
}

#[test]
fn attack_49_a_release_for_another_model_is_refused() {
    let mut target = Target::new("");
    target.release(
        "2",
        Release {
            targets: vec![vec![("model".into(), "x2".into())]],
            ..Release::default()
        },
    );
    target.assert_refused("can", 1, "not the release to run");
    target.assert_refused("stage", 1, "not the release to run");
    assert!(target.untouched());
}

#[test]
fn what_is_not_due_is_staged_and_goes_nowhere() {
    let mut target = Target::new("");
    target.release(
        "2",
        Release {
            not_before: Some(now().plus(86_400)),
            ..Release::default()
        },
    );
    assert_eq!(target.ask("stage", 1).code, DONE);
    target.assert_refused("arm", 1, "not the release to run");
    target.assert_refused("go", 1, "not armed");
    target.assert_refused("keep", 1, "never on trial");
    assert_eq!(target.machine.read("env"), "primary=A\nnext=\n");
}

#[test]
fn outside_the_operators_windows_nothing_goes_unless_its_deadline_has_passed() {
    // A window that is open for a minute, twelve hours from now.
    let from = (now().seconds() + 43_200) % 86_400 / 60;
    let window = format!(
        "windows = [\"{:02}:{:02}-{:02}:{:02}\"]",
        from / 60,
        from % 60,
        (from + 1) % 1_440 / 60,
        (from + 1) % 60
    );
    let mut target = Target::new(&window);
    target.release("2", Release::default());
    assert_eq!(target.ask("stage", 1).code, DONE);
    target.assert_refused("arm", 1, "the next window opens at");
    assert_eq!(target.ask("drop", 1).code, DONE);
    let past = tidings_client::Timestamp::from_seconds(now().seconds() - 60);
    target.release(
        "3",
        Release {
            deadline: Some(past),
            ..Release::default()
        },
    );
    assert_eq!(target.ask("stage", 2).code, DONE);
    assert_eq!(target.ask("arm", 2).code, DONE);
}

#[test]
fn attack_54_what_was_verified_is_what_is_applied() {
    let mut target = Target::new("");
    fs::create_dir_all(target.machine.root.join("etc/format.d")).unwrap();
    // A handler that plays the thief: it changes the agent's file, then says what it was given.
    let theirs = target
        .machine
        .config
        .paths
        .agent
        .join("payload")
        .join(tidings_agent::apply::hex(&Digest::of(&target.image)));
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = stage ]; then echo junk > {}; sha256sum < /dev/fd/3; else echo none; fi\n",
        theirs.display()
    );
    write_program(&target.machine.root.join("etc/format.d/probe"), &text);
    target.release(
        "2",
        Release {
            payloads: vec![payload("probe", &target.image)],
            ..Release::default()
        },
    );
    let digest = format!(
        "{}  -",
        tidings_agent::apply::hex(&Digest::of(&target.image))
    );
    assert_eq!(target.ask("stage", 1), Answer::new(DONE, digest));
    // By now the agent's file is junk.
    assert_eq!(target.ask("stage", 1).code, UNUSABLE);
}

#[test]
fn attacks_52_and_55_a_payload_that_is_longer_shorter_or_another_is_refused() {
    let mut target = Target::new("");
    target.release("2", Release::default());
    let path = target
        .machine
        .config
        .paths
        .agent
        .join("payload")
        .join(tidings_agent::apply::hex(&Digest::of(&target.image)));
    let mut longer = target.image.clone();
    longer.push(0);
    let mut other = target.image.clone();
    other[IMAGE - 1] ^= 1;
    for octets in [&longer[..], &target.image[..IMAGE - 1], &other, b""] {
        fs::write(&path, octets).unwrap();
        assert_eq!(
            target.ask("stage", 1),
            Answer::new(UNUSABLE, "the payload is not the one that was signed")
        );
    }
    fs::remove_file(&path).unwrap();
    // A link, a pipe and a device are no files; nobody waits for them.
    for make in [
        (|p: &PathBuf| symlink("/etc/shadow", p).unwrap()) as fn(&PathBuf),
        |p| symlink("/dev/zero", p).unwrap(),
        |p| {
            assert!(Command::new("mkfifo").arg(p).status().unwrap().success());
        },
    ] {
        make(&path);
        assert_eq!(target.ask("stage", 1).code, FAILED);
        fs::remove_file(&path).unwrap();
    }
    assert!(target.untouched());
}

#[test]
fn a_withdrawal_is_not_forgotten_when_an_older_log_is_handed_over() {
    let mut target = Target::new("");
    target.release("2", Release::default());
    let before = target.publisher.news();
    assert_eq!(target.ask("stage", 1).code, DONE);
    target.publisher.withdraw(target.publisher.log[0].head());
    target.hand_over();
    target.assert_refused("arm", 1, "withdrawn");
    target.machine.hand_over(&before);
    target.assert_refused("arm", 1, "not now");
    target.assert_refused("stage", 1, "not now");
    assert_eq!(target.machine.read("env"), "primary=A\nnext=\n");
}

#[test]
fn attack_13_a_key_that_was_taken_away_has_no_say_although_the_old_trust_is_handed_over() {
    let mut target = Target::new("");
    target.release("2", Release::default());
    assert_eq!(target.ask("can", 1).code, DONE);
    let old = (target.publisher.trust.clone(), target.publisher.log.clone());
    let mut roles = ROLES;
    roles[1] = (Kind::Release, "*", "bob");
    target.publisher.rotate(&roles);
    target.publisher.log.clear();
    target.publisher.release_by(
        "bob",
        Release {
            version: "3".into(),
            payloads: vec![payload("raw", &target.image)],
            ..Release::default()
        },
    );
    target.hand_over();
    target.ask("can", 1);
    // The thief has the old key, hides the new trust, and signs another release with it.
    (target.publisher.trust, target.publisher.log) = old;
    target.publisher.older.clear();
    target.release("evil", Release::default());
    target.assert_refused("stage", 2, "");
    target.assert_refused("arm", 2, "");
    assert!(target.untouched());
}

#[test]
fn attack_51_what_is_older_than_what_was_applied_is_refused() {
    let mut target = Target::new("");
    target.release("2", Release::default());
    target.release("3", Release::default());
    for verb in ["stage", "arm", "go"] {
        assert_eq!(target.ask(verb, 2).code, DONE, "{verb}");
    }
    assert_eq!(target.boot(), "B");
    assert_eq!(target.ask("keep", 2).code, DONE);
    for verb in ["can", "stage", "arm"] {
        target.assert_refused(verb, 1, "not the release to run");
    }
    target.assert_refused("go", 1, "not armed");
    assert_eq!(target.machine.read("env"), "primary=B\nnext=\n");
}

#[test]
fn attack_84_nothing_in_a_statement_is_executed() {
    let mut target = Target::new("");
    let evil = format!(
        "$(touch${{IFS}}{0}/evil);`touch${{IFS}}{0}/evil`",
        target.machine.root.display()
    );
    let mut whole = payload("raw", &target.image);
    whole.more = vec![
        ("x".into(), evil.clone()),
        ("result-size".into(), "1;touch".into()),
    ];
    target.release(
        &evil,
        Release {
            payloads: vec![whole, payload("raw", &target.image)],
            ..Release::default()
        },
    );
    for number in [0, 1] {
        for verb in ["can", "stage", "state"] {
            target.send(format!("{verb} acme.os.stable 1 {number}\n").as_bytes());
        }
    }
    assert!(!target.machine.root.join("evil").exists());
}

#[test]
fn attack_88_a_release_is_not_tried_more_often_than_three_times_whoever_asks() {
    let mut target = Target::new("");
    target.release("2", Release::default());
    for _ in 0..3 {
        assert_eq!(target.ask("stage", 1).code, DONE);
        assert_eq!(target.ask("arm", 1).code, DONE);
        assert_eq!(
            target.ask("arm", 1).code,
            DONE,
            "again in the same life of the machine"
        );
        assert_eq!((target.boot(), target.boot()), ("B".into(), "A".into()));
        // To drop it makes nothing forget how often it was tried.
        assert_eq!(target.ask("drop", 1).code, DONE);
    }
    assert_eq!(target.ask("stage", 1).code, DONE);
    target.assert_refused("arm", 1, "was tried 3 times");
    assert_eq!(target.machine.read("env"), "primary=A\nnext=\n");
}

#[test]
fn attack_87_a_state_that_is_damaged_is_not_begun_anew() {
    let mut target = Target::new("");
    target.release("2", Release::default());
    assert_eq!(target.ask("can", 1).code, DONE);
    let path = target.machine.config.paths.applier.join("state");
    let mut octets = fs::read(&path).unwrap();
    let last = octets.len() - 2;
    octets[last] ^= 1;
    fs::write(&path, &octets).unwrap();
    let answer = target.ask("stage", 1);
    assert!(
        answer.code == LATER && answer.line.contains("damaged"),
        "{answer:?}"
    );
    assert!(target.untouched() && fs::read(&path).unwrap() == octets);
}

#[test]
fn a_handler_that_others_can_write_is_not_called() {
    use std::os::unix::fs::PermissionsExt;
    let mut target = Target::new("");
    fs::create_dir_all(target.machine.root.join("etc/format.d")).unwrap();
    let path = target.machine.root.join("etc/format.d/raw");
    write_program(&path, "#!/bin/sh\necho running\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    target.release("2", Release::default());
    target.assert_refused("stage", 1, "can be written by others");
    assert!(target.untouched());
}
