//! `tidingsd` as its operator meets it: what it says of bad configurations, addresses, disks and
//! clocks.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

const ANCHOR: &str =
    "test 1 sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn tidingsd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidingsd"))
        .args(arguments)
        .output()
        .unwrap()
}

fn write(directory: &Path, text: &str) -> String {
    let path = directory.join("tidingsd.toml");
    fs::write(&path, text.replace("DIR", &directory.display().to_string())).unwrap();
    path.display().to_string()
}

#[track_caller]
fn fails(output: &Output, code: i32, expected: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in expected {
        assert!(text.contains(part), "{text:?} should say {part:?}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn it_explains_itself() {
    let help = tidingsd(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(
        help.status.success()
            && text.contains("SIGHUP")
            && text.contains("demo")
            && text.contains("Exit codes"),
        "{text}"
    );
    assert!(
        String::from_utf8_lossy(&tidingsd(&["man"]).stdout)
            .to_lowercase()
            .contains(".th tidingsd")
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            tidingsd(&["completions", shell]).stdout.len() > 500,
            "{shell}"
        );
    }
    assert_eq!(tidingsd(&["--frobnicate"]).status.code(), Some(2));
}

#[test]
fn a_configuration_can_be_checked() {
    let directory = tempfile::tempdir().unwrap();
    let good = write(
        directory.path(),
        &format!(
            "data_dir = \"DIR/data\"\nanchors = [\"{ANCHOR}\"]\n[listen]\nnntp = [\"127.0.0.1:0\"]"
        ),
    );
    let output = tidingsd(&["--check", "--config", &good]);
    assert!(output.status.success());
    assert!(
        !directory.path().join("data").exists(),
        "--check changes nothing"
    );
    let bad = write(
        directory.path(),
        "data_dir = \"DIR/data\"\n[limits]\nconections = 3",
    );
    fails(
        &tidingsd(&["--check", "--config", &bad]),
        1,
        &["line 3: unknown key `conections`; did you mean `connections`?"],
    );
    let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tidingsd.toml");
    assert!(
        tidingsd(&["--check", "--config", documented])
            .status
            .success(),
        "the documented configuration is good"
    );
    fails(
        &tidingsd(&["--check", "--config", "/nowhere.toml"]),
        1,
        &["cannot read /nowhere.toml"],
    );
}

#[test]
fn a_port_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = write(
        directory.path(),
        &format!("data_dir = \"DIR/data\"\n[listen]\nnntp = [\"{address}\"]"),
    );
    fails(
        &tidingsd(&["--config", &config]),
        1,
        &[
            &format!("cannot listen on {address}"),
            "another program listens there",
        ],
    );
}

#[test]
fn missing_certificates_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(
        directory.path(),
        "data_dir = \"DIR/data\"\n[listen]\nnntps = [\"127.0.0.1:0\"]\n[tls]\ncertificate_file = \"DIR/c.pem\"\nkey_file = \"DIR/k.pem\"",
    );
    fails(
        &tidingsd(&["--config", &config]),
        1,
        &["tls.certificate_file: cannot read", "c.pem"],
    );
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let config = write(
        directory.path(),
        "data_dir = \"DIR/file/data\"\n[listen]\nnntp = [\"127.0.0.1:0\"]",
    );
    fails(
        &tidingsd(&["--config", &config]),
        1,
        &["cannot use the data directory", "file/data"],
    );
}

/// A data directory with a store that a broker has made, and the configuration.
fn made() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let config = write(
        directory.path(),
        "data_dir = \"DIR/data\"\n[listen]\nnntp = [\"127.0.0.1:0\"]",
    );
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_tidingsd"))
        .args(["--config", &config])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("listening"))
    );
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    (directory, config)
}

/// All files of a store with their octets.
fn files(store: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(store).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn what_is_no_store_of_ours_is_refused_and_left_alone() {
    #[track_caller]
    fn refused(change: impl FnOnce(&Path), expected: &[&str]) {
        let (directory, config) = made();
        let store = directory.path().join("data/store");
        change(&store);
        let before = files(&store);
        fails(&tidingsd(&["--config", &config]), 1, expected);
        assert!(files(&store) == before, "nothing was changed");
    }
    let change_octet = |name: &'static str, at: usize, to: u8| {
        move |store: &Path| {
            let mut octets = fs::read(store.join(name)).unwrap();
            octets[at] = to;
            fs::write(store.join(name), octets).unwrap();
        }
    };
    refused(
        change_octet("00000001.log", 3, 4),
        &[
            "has layout 4",
            "00000001.log",
            "start the newer one; nothing was changed",
        ],
    );
    refused(
        change_octet("00000001.log", 20, 255),
        &[
            "damaged at store/00000001.log octet 0",
            "tidingsd check",
            "nothing was changed",
        ],
    );
    refused(
        |store| fs::write(store.join("notes"), "").unwrap(),
        &[
            "store/notes is not a file of the store",
            "nothing was changed",
        ],
    );
    refused(
        |store| fs::remove_file(store.join("00000001.log")).unwrap(),
        &["lacks", "store/00000001.log", "copied in part"],
    );
    // The names of their files are what earlier layouts are known by.
    refused(
        |store| {
            ["conf", "db"]
                .map(|name| fs::write(store.join(name), "").unwrap())
                .into_iter()
                .collect()
        },
        &["has layout 1"],
    );
    refused(
        |store| fs::write(store.join("0.jnl"), "").unwrap(),
        &["has layout 2", "tidings export", "nothing was changed"],
    );
    refused(
        |store| std::os::unix::fs::chown(store, Some(12_345), None).unwrap(),
        &["belongs to user 12345", "chown -R 0"],
    );
}

#[test]
fn a_store_in_use_or_that_cannot_be_written_is_refused() {
    let (directory, config) = made();
    let data = directory.path().join("data");
    let held = fs::File::open(&data).unwrap();
    held.lock().unwrap();
    fails(
        &tidingsd(&["--config", &config]),
        1,
        &["is in use; is another tidingsd running on it?"],
    );
    drop(held);
    let mode = fs::metadata(data.join("store"))
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    let files_mode = fs::metadata(data.join("store/00000001.log"))
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert_eq!((mode, files_mode), (0o700, 0o600));
    let at = data.display().to_string();
    let mount = |options: &[&str]| {
        Command::new("mount")
            .args(options)
            .status()
            .unwrap()
            .success()
    };
    assert!(
        mount(&["--bind", &at, &at]) && mount(&["-o", "remount,ro,bind", &at]),
        "these tests mount, and run as root"
    );
    let output = tidingsd(&["--config", &config]);
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
    fails(
        &output,
        1,
        &[
            "cannot use",
            "store",
            "the file system is read-only: mount it for writing; nothing was changed",
        ],
    );
}

#[test]
fn a_disk_without_room_for_a_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("data").display().to_string();
    fs::create_dir(&at).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs", &at])
        .status()
        .unwrap()
        .success();
    assert!(mounted, "these tests mount, and run as root");
    let config = write(
        directory.path(),
        "data_dir = \"DIR/data\"\n[listen]\nnntp = [\"127.0.0.1:0\"]",
    );
    let output = tidingsd(&["--config", &config]);
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
    fails(&output, 1, &["the disk is full", "octets more are needed"]);
}

#[test]
fn a_demonstration_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("precious"), "").unwrap();
    fails(
        &tidingsd(&["demo", "--keep", &directory.path().display().to_string()]),
        1,
        &["is not empty"],
    );
    fails(&tidingsd(&["demo", "--releases", "3"]), 2, &["--keep"]);
}

/// The clock is set back by libfaketime, which takes the place of the clock in the process alone.
#[test]
fn a_clock_before_2026_is_refused() {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ];
    let library = library.iter().find(|path| Path::new(path).exists());
    let library = library.expect("libfaketime is missing; install Debian's package `libfaketime`");
    let directory = tempfile::tempdir().unwrap();
    let config = write(
        directory.path(),
        "data_dir = \"DIR/data\"\n[listen]\nnntp = [\"127.0.0.1:0\"]",
    );
    let output = Command::new(env!("CARGO_BIN_EXE_tidingsd"))
        .args(["--config", &config])
        .env("LD_PRELOAD", library)
        .env("FAKETIME", "@2019-05-01 00:00:00")
        .output()
        .unwrap();
    fails(
        &output,
        1,
        &["the clock says 2019-0", "before 2026", "set it"],
    );
    assert!(
        !directory.path().join("data").exists(),
        "nothing is changed"
    );
}

/// Every unit that is started at boot is tried again for as long as it takes, and confined.
#[test]
fn every_unit_is_confined_and_tried_again() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut units = Vec::new();
    for directory in ["docs/units", "client/agent/units"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "service") {
                units.push((path.clone(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(units.len() >= 4, "{units:?}");
    for (path, text) in units {
        let mut wanted = vec![
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "ProtectClock=yes",
            "ProtectKernelLogs=yes",
            "LockPersonality=yes",
            "RestrictRealtime=yes",
            "SystemCallArchitectures=native",
            "RestrictAddressFamilies=",
        ];
        // What a socket starts runs once, as root, to change the machine.
        if text.contains("WantedBy=") {
            wanted.extend([
                "RestartSec=",
                "StartLimitIntervalSec=0",
                "ProtectSystem=strict",
                "PrivateDevices=yes",
                "ProtectKernelModules=yes",
                "ProtectKernelTunables=yes",
                "ProtectControlGroups=yes",
                "MemoryDenyWriteExecute=yes",
                "RestrictNamespaces=yes",
                "RestrictSUIDSGID=yes",
                "SystemCallFilter=@system-service",
                "SystemCallErrorNumber=EPERM",
            ]);
        }
        for line in wanted {
            let has = text.lines().any(|known| known.starts_with(line));
            assert!(has, "{} lacks {line}", path.display());
        }
    }
}
