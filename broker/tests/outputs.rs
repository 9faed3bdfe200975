//! `tidingsd` where its output fails or is cut, and what it says of files that are not as they
//! should be.
#![allow(clippy::unwrap_used)]

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);

fn shell(script: &str) -> (Option<i32>, String) {
    let script = script.replace("tidingsd", env!("CARGO_BIN_EXE_tidingsd"));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_reader_that_goes_away_and_a_full_disk_end_a_command_without_a_panic() {
    for command in ["completions bash", "completions fish", "man", "--help"] {
        let (_, said) = shell(&format!("tidingsd {command} | true"));
        assert_eq!(said, "", "{command}");
        let (_, said) = shell(&format!("tidingsd {command} > /dev/full"));
        assert!(!said.contains("panicked"), "{said}");
    }
    let (code, said) = shell("tidingsd man > /dev/full");
    assert!(
        code == Some(1) && said.contains("cannot write to standard output: No space left"),
        "{said}"
    );
    let (code, _) = shell("exec 3> >(true); sleep 0.2; tidingsd --config missing 2>&3");
    assert_eq!(code, Some(1));
}

/// A pipe whose reader has stopped, and that takes nothing any more.
fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
    use rustix::fs::{OFlags, fcntl_setfl};
    let (reader, mut writer) = io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
    while io::Write::write(&mut writer, b"x").is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

fn written(directory: &Path, text: &str) -> std::path::PathBuf {
    let path = directory.join("tidingsd.toml");
    fs::write(&path, text.replace("DIR", &directory.display().to_string())).unwrap();
    path
}

#[test]
fn a_reader_of_the_log_that_has_stopped_stops_no_broker() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody else is at this address. Its port is none that a connection would get: one that is
    // tried again and again would at last be connected to itself.
    let port = u16::try_from(20_000 + std::process::id() % 12_000).unwrap();
    let address = SocketAddr::from(([127, 77, 0, 1], port));
    let config = written(
        directory.path(),
        &format!("data_dir = \"DIR/data\"\n[listen]\nnntp = [\"{address}\"]\n"),
    );
    let (_reader, writer) = full_pipe();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_tidingsd"))
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::from(writer))
        .spawn()
        .unwrap();
    let began = Instant::now();
    let mut served = false;
    while !served && began.elapsed() < PATIENCE {
        served = TcpStream::connect(address).is_ok();
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = loop {
        if let Some(status) = daemon.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > 2 * PATIENCE {
            daemon.kill().unwrap();
            break None;
        }
        std::thread::yield_now();
    };
    assert!(served, "it waits for the reader of its log");
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

/// `script` is a terminal; what is logged before a start fails is enough.
#[test]
fn a_log_has_no_colours_where_none_are_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = written(
        directory.path(),
        &format!("data_dir = \"DIR/data\"\n[listen]\nnntp = [\"{address}\"]\n"),
    );
    let on_a_terminal = |variables: &str| {
        let command = format!(
            "env -u NO_COLOR TERM=xterm {variables} {} --config {}",
            env!("CARGO_BIN_EXE_tidingsd"),
            config.display()
        );
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let plain = on_a_terminal("");
    assert!(plain.contains('\u{1b}'), "{plain}");
    for variable in ["NO_COLOR=1", "TERM=dumb"] {
        let said = on_a_terminal(variable);
        assert!(said.contains("no anchors are configured"), "{said}");
        assert!(!said.contains('\u{1b}'), "{variable}: {said}");
    }
}

fn check(directory: &Path, text: &str) -> (Option<i32>, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_tidingsd"))
        .args(["--check", "--config"])
        .arg(written(directory, text))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn pair(year: i32) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    (params.self_signed(&key).unwrap(), key)
}

/// Each message names the file, what is wrong with it, and the key.
#[test]
fn certificates_and_keys_as_they_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let put = |name: &str, octets: &[u8]| fs::write(at.join(name), octets).unwrap();
    let ((good, key), (old, old_key), (_, other)) = (pair(2500), pair(2021), pair(2500));
    put("good.pem", good.pem().as_bytes());
    put("good.key", key.serialize_pem().as_bytes());
    put("other.key", other.serialize_pem().as_bytes());
    put("old.pem", old.pem().as_bytes());
    put("old.key", old_key.serialize_pem().as_bytes());
    put("binary.der", good.der());
    put("nothing", b"");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    put("locked.key", encrypted.as_bytes());
    let tls = |certificate: &str, key: &str, more: &str| {
        check(
            at,
            &format!(
                "data_dir = \"DIR/data\"\n[listen]\nnntp = []\nnntps = [\"127.0.0.1:0\"]\n[tls]\ncertificate_file = \"DIR/{certificate}\"\nkey_file = \"DIR/{key}\"\n{more}"
            ),
        )
    };
    for (certificate, key, code, expected) in [
        ("good.pem", "good.key", 0, "is good"),
        ("good.pem", "locked.key", 1, "locked.key is encrypted"),
        (
            "good.pem",
            "other.key",
            1,
            "other.key cannot be used together",
        ),
        ("good.key", "good.pem", 1, "good.key: it is a private key"),
        ("good.pem", "good.pem", 1, "good.pem: it is a certificate"),
        ("binary.der", "good.key", 1, "binary.der: it is binary"),
        ("nothing", "good.key", 1, "nothing: it is empty"),
        ("none", "good.key", 1, "tls.certificate_file: cannot read"),
        ("old.pem", "old.key", 0, "old.pem has expired at 2021-01-01"),
    ] {
        let (found, said) = tls(certificate, key, "");
        assert_eq!(found, Some(code), "{certificate} {key}: {said}");
        assert!(said.contains(expected), "{certificate} {key}: {said}");
    }
    let (_, said) = tls("good.pem", "good.key", "client_ca_file = \"DIR/nothing\"\n");
    let expected = "tls.client_ca_file: there is no certificate in";
    assert!(said.contains(expected), "{said}");
}

/// `--check` finds beforehand what a start would find, and changes nothing.
#[test]
fn what_a_start_would_find_is_found_beforehand() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (text, code, expected) in [
        (
            "data_dir = \"DIR/data\"\n[listen]\nnntp = [\"192.0.2.1:4000\"]",
            0,
            "no such address",
        ),
        (
            "data_dir = \"DIR/tidingsd.toml\"\n[listen]\nnntp = [\"127.0.0.1:0\"]",
            0,
            "is no directory",
        ),
        (
            "data_dir = \"DIR/data\"\n[listen]\nnntp = [\"127.0.0.1:4000\"]\n[admin]\nlisten = [\"127.0.0.1:4000\"]",
            1,
            "is named twice",
        ),
    ] {
        let (found, said) = check(at, text);
        assert!(found == Some(code) && said.contains(expected), "{said}");
    }
    assert!(!at.join("data").exists());
}
