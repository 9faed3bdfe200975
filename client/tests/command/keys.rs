//! Keys: who may read them, and their passphrases.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::desk::{BAD_FILE, USAGE, bad, command, good};

#[test]
fn a_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    good(directory.path(), &["key", "new", "a.key"]);
    fs::set_permissions(
        directory.path().join("a.key"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let init = [
        "trust",
        "init",
        "acme",
        "--key",
        "root=a.key.pub",
        "--sign",
        "-o",
        "t",
    ];
    bad(
        directory.path(),
        USAGE,
        &init,
        "none of the keys is a private one",
    );
    let draft = [
        "release",
        "acme.os",
        "--after",
        "-",
        "--trust",
        "1",
        "--version",
        "1",
        "-o",
        "draft",
    ];
    good(directory.path(), &draft);
    bad(
        directory.path(),
        BAD_FILE,
        &["sign", "--key", "a.key.pub", "draft"],
        "is it the public half?",
    );
    let release = [
        "release",
        "acme.os",
        "--after",
        "-",
        "--trust",
        "1",
        "--version",
        "1",
        "--key",
        "a.key",
    ];
    bad(
        directory.path(),
        BAD_FILE,
        &release,
        "can be read by others (mode 640)",
    );
}

#[test]
fn a_key_under_a_passphrase_needs_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::write(at.join("right"), "correct horse battery\n").unwrap();
    fs::write(at.join("wrong"), "incorrect\n").unwrap();
    fs::write(at.join("empty"), "\n").unwrap();
    let run = |file: &str, arguments: &[&str]| {
        let output = command(at)
            .args(arguments)
            .env("TIDINGS_PASSPHRASE_FILE", file)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (code, public) = run("right", &["key", "new", "--encrypt", "a.key"]);
    assert_eq!(code, Some(0), "{public}");
    let pem = fs::read_to_string(at.join("a.key")).unwrap();
    assert!(
        pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
        "{pem}"
    );
    assert_eq!(
        fs::metadata(at.join("a.key")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        run("right", &["key", "show", "a.key"]),
        (Some(0), public.clone())
    );
    let (code, text) = run("wrong", &["key", "show", "a.key"]);
    assert!(
        code == Some(BAD_FILE) && text.contains("this is not its passphrase"),
        "{text}"
    );
    let (code, text) = run("missing", &["key", "show", "a.key"]);
    assert!(
        code == Some(BAD_FILE) && text.contains("its passphrase cannot be asked for"),
        "{text}"
    );
    let (code, text) = run("empty", &["key", "new", "--encrypt", "b.key"]);
    assert!(
        code == Some(USAGE) && text.contains("an empty passphrase protects nothing"),
        "{text}"
    );
    assert!(!at.join("b.key").exists() && !at.join("b.key.pub").exists());
    // OpenSSL reads it too, and has the same public half.
    let openssl = Command::new("openssl")
        .args([
            "pkey",
            "-in",
            "a.key",
            "-passin",
            "file:right",
            "-pubout",
            "-outform",
            "DER",
        ])
        .current_dir(at)
        .output();
    let der = openssl
        .expect("openssl is missing; install it (Debian: openssl)")
        .stdout;
    let key = Base64UrlUnpadded::encode_string(&der[der.len() - 32..]);
    assert_eq!(public.trim(), format!("ed25519:{key}"));
}
