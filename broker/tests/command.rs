//! `tidingsd` as its operator meets it: what it says of bad configurations, addresses, disks and clocks.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

const ANCHOR: &str = "test sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn tidingsd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidingsd")).args(arguments).output().unwrap()
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
    assert!(help.status.success() && text.contains("SIGHUP") && text.contains("demo") && text.contains("Exit codes"), "{text}");
    assert!(String::from_utf8_lossy(&tidingsd(&["man"]).stdout).to_lowercase().contains(".th tidingsd"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(tidingsd(&["completions", shell]).stdout.len() > 500, "{shell}");
    }
    assert_eq!(tidingsd(&["--frobnicate"]).status.code(), Some(2));
}

#[test]
fn a_configuration_can_be_checked() {
    let directory = tempfile::tempdir().unwrap();
    let good = write(directory.path(), &format!("data_dir = \"DIR/data\"\nanchors = [\"{ANCHOR}\"]\n[listen]\nnntp = [\"127.0.0.1:0\"]"));
    let output = tidingsd(&["--check", "--config", &good]);
    assert!(output.status.success());
    assert!(!directory.path().join("data").exists(), "--check changes nothing");
    let bad = write(directory.path(), "data_dir = \"DIR/data\"\n[limits]\nconections = 3");
    fails(&tidingsd(&["--check", "--config", &bad]), 1, &["line 3: unknown key `conections`; did you mean `connections`?"]);
    let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tidingsd.toml");
    assert!(tidingsd(&["--check", "--config", documented]).status.success(), "the documented configuration is good");
    fails(&tidingsd(&["--check", "--config", "/nowhere.toml"]), 1, &["cannot read /nowhere.toml"]);
}

#[test]
fn a_port_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = write(directory.path(), &format!("data_dir = \"DIR/data\"\n[listen]\nnntp = [\"{address}\"]"));
    fails(&tidingsd(&["--config", &config]), 1, &[&format!("cannot listen on {address}"), "another program listens there"]);
}

#[test]
fn missing_certificates_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(
        directory.path(),
        "data_dir = \"DIR/data\"\n[listen]\nnntps = [\"127.0.0.1:0\"]\n[tls]\ncertificate_file = \"DIR/c.pem\"\nkey_file = \"DIR/k.pem\"",
    );
    fails(&tidingsd(&["--config", &config]), 1, &["cannot read the certificate from", "c.pem"]);
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let config = write(directory.path(), "data_dir = \"DIR/file/data\"\n[listen]\nnntp = [\"127.0.0.1:0\"]");
    fails(&tidingsd(&["--config", &config]), 1, &["cannot use the data directory", "file/data"]);
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("data/store");
    fs::create_dir_all(&store).unwrap();
    let open = || {
        let db = fjall::Database::builder(&store).open().unwrap();
        (db.keyspace("tidings", Default::default).unwrap(), db)
    };
    let (all, db) = open();
    all.insert(b"v", 9_u32.to_be_bytes()).unwrap();
    drop((all, db));
    let config = write(directory.path(), "data_dir = \"DIR/data\"\n[listen]\nnntp = [\"127.0.0.1:0\"]");
    fails(&tidingsd(&["--config", &config]), 1, &["has layout 9", "start the newer one, nothing was changed"]);
    assert_eq!(&*open().0.get(b"v").unwrap().unwrap(), &9_u32.to_be_bytes());
}

#[test]
fn a_store_of_the_first_layout_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("data/store");
    fs::create_dir_all(&store).unwrap();
    // The names of its files are what it is known by.
    fs::write(store.join("conf"), "").unwrap();
    fs::write(store.join("db"), "").unwrap();
    let config = write(directory.path(), "data_dir = \"DIR/data\"\n[listen]\nnntp = [\"127.0.0.1:0\"]");
    fails(&tidingsd(&["--config", &config]), 1, &["has layout 1", "mirror anew", "nothing was changed"]);
    assert_eq!(fs::read_dir(&store).unwrap().count(), 2);
}

#[test]
fn a_demonstration_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("precious"), "").unwrap();
    fails(&tidingsd(&["demo", "--keep", &directory.path().display().to_string()]), 1, &["is not empty"]);
    fails(&tidingsd(&["demo", "--releases", "3"]), 2, &["--keep"]);
}

/// The clock is set back by libfaketime, which takes the place of the clock in the process alone.
#[test]
fn a_clock_before_2026_is_refused() {
    let library = ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];
    let library = library.iter().find(|path| Path::new(path).exists());
    let library = library.expect("libfaketime is missing; install Debian's package `libfaketime`");
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "data_dir = \"DIR/data\"\n[listen]\nnntp = [\"127.0.0.1:0\"]");
    let output = Command::new(env!("CARGO_BIN_EXE_tidingsd"))
        .args(["--config", &config])
        .env("LD_PRELOAD", library)
        .env("FAKETIME", "@2019-05-01 00:00:00")
        .output()
        .unwrap();
    fails(&output, 1, &["the clock says 2019-0", "before 2026", "set it"]);
    assert!(!directory.path().join("data").exists(), "nothing is changed");
}
