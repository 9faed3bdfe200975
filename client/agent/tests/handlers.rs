//! Handlers that do not behave: they hang, print without end, print what is no text, leave others
//! behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use common::write_program;
use tidings_agent::handler::{Answer, Call, Handlers, UNUSABLE};
use tokio::time::Instant;

fn call(text: &str) -> (anyhow::Result<Answer>, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("format.d");
    fs::create_dir_all(&directory).unwrap();
    if !text.is_empty() {
        write_program(&directory.join("x"), text);
    }
    let mut handlers = Handlers::new(scratch.path(), Path::new("/nonexistent"));
    handlers.limits = [Duration::from_millis(200), Duration::from_secs(20)];
    let verb = if text.contains("sleep") {
        "state"
    } else {
        "stage"
    };
    let statement = scratch.path().join("statement");
    fs::write(&statement, "the statement\n").unwrap();
    let call = Call {
        folder: "format.d",
        name: "x",
        verb,
        environment: &[],
        work: scratch.path(),
        statement: &statement,
        payload: None,
    };
    (handlers.call(&call), scratch)
}

#[test]
fn its_code_and_its_first_line_are_its_answer() {
    let answer =
        call("#!/bin/sh\nread -r line\necho \"$line, $PATH, $HOME\"\necho more\nexit 75\n")
            .0
            .unwrap();
    assert_eq!(
        answer,
        Answer::new(
            75,
            "the statement, /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin, "
        )
    );
    assert_eq!(call("").0.unwrap().code, UNUSABLE);
}

#[test]
fn what_it_prints_is_made_safe_to_show() {
    let answer = call("#!/bin/sh\nprintf '\\033[2J\\000\\377 x\\n'\n")
        .0
        .unwrap();
    assert_eq!(answer.line, "?[2J?\u{fffd} x");
}

#[test]
fn one_that_hangs_or_prints_without_end_is_ended() {
    let error = call("#!/bin/sh\nsleep 1000\n").0.unwrap_err();
    assert!(
        format!("{error:#}").contains("ended by the agent"),
        "{error:#}"
    );
    let error = call("#!/bin/sh\nexec cat /dev/zero\n").0.unwrap_err();
    assert!(format!("{error:#}").contains("65536 octets"), "{error:#}");
    let error = call("#!/bin/sh\nkill -9 $$\n").0.unwrap_err();
    assert!(format!("{error:#}").contains("killed"), "{error:#}");
}

#[test]
fn what_it_leaves_behind_is_ended_with_it() {
    let (answer, scratch) =
        call("#!/bin/sh\n(trap '' HUP TERM; exec sleep 1000) & echo $! > pid\necho done\n");
    assert!(answer.is_ok() || format!("{:#}", answer.unwrap_err()).contains("ended by the agent"));
    let pid = fs::read_to_string(scratch.path().join("pid")).unwrap();
    // It has been told; how soon the kernel ends it is the kernel's affair.
    let lives = || {
        fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
            .is_ok_and(|state| !state.contains(") Z "))
    };
    let began = Instant::now();
    while lives() {
        assert!(began.elapsed() < Duration::from_secs(20), "it lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A loader of the operator's own goes before one that is shipped, unless others may write it.
#[test]
fn the_loader_is_the_operators_or_the_shipped_one() {
    let scratch = tempfile::tempdir().unwrap();
    let etc = scratch.path();
    let own = etc.join("loader.d/mine");
    fs::create_dir(etc.join("loader.d")).unwrap();
    write_program(&own, "#!/bin/sh\necho \"mine $1\"\n");
    let asked = |loader: &str| {
        fs::write(etc.join("loader.conf"), format!("LOADER={loader}\n")).unwrap();
        let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("handlers");
        let mut command = Command::new(lib.join("loader"));
        command.arg("get").env("T_ETC", etc).env("T_LIB", lib);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    assert_eq!(asked("mine"), (Some(0), "mine get\n".into()));
    // The shipped one wants its own settings.
    let (code, text) = asked("file");
    assert!(code != Some(0) && text.contains("LOADER_ENV"), "{text}");
    fs::rename(&own, etc.join("loader.d/file")).unwrap();
    assert_eq!(asked("file"), (Some(0), "mine get\n".into()));
    let (code, text) = asked("none");
    assert!(
        code == Some(1) && text.starts_with("there is no loader none in "),
        "{text}"
    );
    let own = etc.join("loader.d/file");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o757)).unwrap();
    let (code, text) = asked("file");
    assert!(
        code == Some(1) && text.starts_with("others may write "),
        "{text}"
    );
}
