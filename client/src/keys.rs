//! Key files: PKCS#8 PEM, readable by their owner alone, under a passphrase if wanted (PBES2:
//! scrypt, AES-256-CBC); public keys as one line.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ed25519_dalek::pkcs8::{
    DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding,
};
pub use tidings_protocol::{PublicKey, SigningKey};
use zeroize::Zeroizing;

use crate::{
    file,
    pem::{algorithm, what_it_is},
};

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key {}: {source}{}", .path.display(), hint(.source, .path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the key {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the private key {path} can be read by others (mode {mode:03o}); `chmod 600` it, or replace it if they may have"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is encrypted, and the passphrase is missing or another.
    #[error("the key {path} is encrypted, and {reason}")]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It holds no key.
    #[error("{path} holds no {expected}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
}

fn hint(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("; `tidings key new {}` makes one", path.display()),
        _ => String::new(),
    }
}

/// Draws a key.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn generate() -> io::Result<SigningKey> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(io::Error::other)?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Writes a private key into a new file that its owner alone may read; under a passphrase, if there
/// is one.
///
/// # Errors
/// If the file exists already, or cannot be written.
pub fn write_private(
    path: &Path,
    key: &SigningKey,
    passphrase: Option<&str>,
) -> Result<(), KeyFileError> {
    let error = |source| KeyFileError::Write {
        path: path.into(),
        source,
    };
    // Without the public half the form is PKCS#8 version 1, which OpenSSL reads too.
    let pair = KeypairBytes {
        secret_key: key.to_bytes(),
        public_key: None,
    };
    let pem = match passphrase {
        None => pair.to_pkcs8_pem(LineEnding::LF),
        Some(passphrase) => pair.to_pkcs8_encrypted_pem(passphrase, LineEnding::LF),
    };
    let pem = pem.map_err(|e| error(io::Error::other(e)))?;
    file::create(path, pem.as_bytes(), 0o600).map_err(error)
}

/// Reads a private key; `ask` is called for the passphrase if it has one.
///
/// # Errors
/// If others may read the file too, the passphrase is another, or it holds no Ed25519 key as PKCS#8
/// PEM.
pub fn read_private(
    path: &Path,
    ask: impl FnOnce() -> io::Result<Zeroizing<String>>,
) -> Result<SigningKey, KeyFileError> {
    let read = |source| KeyFileError::Read {
        path: path.into(),
        source,
    };
    let pem = text_of(path).map_err(read)?;
    if !pem.contains("PRIVATE KEY-----") {
        return parse_private(&pem, path, ask);
    }
    let mode = fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
    // With an access list the bits of the group show its mask, and say nothing of a group: as
    // systemd hands out credentials.
    let exposed = if is_own_by_list(path) {
        mode & 0o037
    } else {
        mode & 0o077
    };
    if exposed != 0 {
        return Err(KeyFileError::Exposed {
            path: path.into(),
            mode,
        });
    }
    parse_private(&pem, path, ask)
}

/// The private key in a text that did not come from a file; `path` says in errors where it came
/// from.
///
/// # Errors
/// If the passphrase is another, or it holds no Ed25519 key as PKCS#8 PEM.
pub fn parse_private(
    pem: &str,
    path: &Path,
    ask: impl FnOnce() -> io::Result<Zeroizing<String>>,
) -> Result<SigningKey, KeyFileError> {
    if !pem.contains("PRIVATE KEY-----") {
        let reason = what_it_is(pem).into();
        return Err(KeyFileError::Content {
            path: path.into(),
            expected: "private key",
            reason,
        });
    }
    if is_encrypted(pem) {
        let passphrase = |reason: String| KeyFileError::Passphrase {
            path: path.into(),
            reason,
        };
        let given =
            ask().map_err(|e| passphrase(format!("its passphrase cannot be asked for: {e}")))?;
        return SigningKey::from_pkcs8_encrypted_pem(pem, given.as_bytes())
            .map_err(|_| passphrase("this is not its passphrase (or the file is damaged)".into()));
    }
    SigningKey::from_pkcs8_pem(pem).map_err(|_| KeyFileError::Content {
        path: path.into(),
        expected: "Ed25519 private key as PKCS#8 PEM",
        reason: match algorithm(pem) {
            Some("Ed25519") => "it is damaged".into(),
            Some(other) => format!("{}, for {other}", what_it_is(pem)),
            None => format!("{}, of another kind or damaged", what_it_is(pem)),
        },
    })
}

/// What is no UTF-8 is no key, and is named for what it is.
fn text_of(path: &Path) -> io::Result<Zeroizing<String>> {
    let octets = Zeroizing::new(fs::read(path)?);
    Ok(Zeroizing::new(
        String::from_utf8_lossy(&octets).into_owned(),
    ))
}

fn is_encrypted(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// Whether an access list lets its owner and single users read a file, and neither a group nor the
/// rest.
fn is_own_by_list(path: &Path) -> bool {
    let mut list = [0; 1024];
    let length = rustix::fs::getxattr(path, "system.posix_acl_access", &mut list[..]);
    length.is_ok_and(|length| list.get(..length).is_some_and(no_group_reads))
}

/// The kernel's form: a version, and entries of a tag, permissions and an id.
fn no_group_reads(list: &[u8]) -> bool {
    const VERSION: [u8; 4] = [2, 0, 0, 0];
    const GROUPS_AND_OTHERS: [u8; 3] = [0x04, 0x08, 0x20];
    let Some((version, entries)) = list.split_first_chunk() else {
        return false;
    };
    let closed = |entry: &[u8]| !GROUPS_AND_OTHERS.contains(&entry[0]) || entry[2] & 0x07 == 0;
    *version == VERSION && entries.len() % 8 == 0 && entries.chunks_exact(8).all(closed)
}

/// For callers that have nobody to ask: services, tests.
///
/// # Errors
/// Always.
pub fn no_passphrase() -> io::Result<Zeroizing<String>> {
    Err(io::Error::other("nobody is there who could be asked"))
}

/// Reads a public key: a file with its one line, or the public half of a private key file.
///
/// # Errors
/// If the file holds neither.
pub fn read_public(
    path: &Path,
    ask: impl FnOnce() -> io::Result<Zeroizing<String>>,
) -> Result<PublicKey, KeyFileError> {
    let text = text_of(path).map_err(|source| KeyFileError::Read {
        path: path.into(),
        source,
    })?;
    if text.contains("PRIVATE KEY-----") {
        return read_private(path, ask).map(|key| PublicKey::of(&key));
    }
    let line = text.trim_start_matches('\u{feff}').trim();
    line.parse().map_err(|_| KeyFileError::Content {
        path: path.into(),
        expected: "public key",
        reason: format!(
            "expected one line, `ed25519:` and 43 characters of unpadded base64url, but {}",
            what_it_is(&text)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_list_for_one_user_exposes_nothing() {
        let entry = |tag: u8, permissions: u8, id: u32| {
            [&[tag, 0, permissions, 0][..], &id.to_le_bytes()].concat()
        };
        let none = u32::MAX;
        let list = |group: u8, other: u8| {
            let entries = [
                entry(1, 4, none),
                entry(2, 4, 65_534),
                entry(4, group, none),
                entry(16, 4, none),
                entry(32, other, none),
            ];
            [vec![2, 0, 0, 0], entries.concat()].concat()
        };
        assert!(no_group_reads(&list(0, 0)));
        assert!(!no_group_reads(&list(4, 0)) && !no_group_reads(&list(0, 4)));
        assert!(!no_group_reads(&list(0, 0)[..7]) && !no_group_reads(b""));
    }

    #[test]
    fn keys_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let key = generate().unwrap();
        write_private(&path, &key, None).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            read_private(&path, no_passphrase).unwrap().to_bytes(),
            key.to_bytes()
        );
        assert_eq!(
            read_public(&path, no_passphrase).unwrap(),
            PublicKey::of(&key)
        );
        assert!(matches!(
            write_private(&path, &key, None),
            Err(KeyFileError::Write { .. })
        ));
        let secret = dir.path().join("b.key");
        write_private(&secret, &key, Some("correct horse")).unwrap();
        let answer = |text: &str| Ok(Zeroizing::new(text.to_owned()));
        assert_eq!(
            read_private(&secret, || answer("correct horse"))
                .unwrap()
                .to_bytes(),
            key.to_bytes()
        );
        assert!(matches!(
            read_private(&secret, || answer("wrong")),
            Err(KeyFileError::Passphrase { .. })
        ));
        assert!(matches!(
            read_private(&secret, no_passphrase),
            Err(KeyFileError::Passphrase { .. })
        ));
        // What stands before the block, or is something else, is never quoted.
        let odd = dir.path().join("odd.key");
        let pem = fs::read_to_string(&path).unwrap();
        fs::write(&odd, format!("\u{feff}\nBag Attributes\r\n{pem}")).unwrap();
        fs::set_permissions(&odd, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            read_public(&odd, no_passphrase).unwrap(),
            PublicKey::of(&key)
        );
        let secret = "untrusted comment: minisign encrypted secret key\nRWRTY0IyTheSecret\n";
        fs::write(&odd, secret).unwrap();
        let said = read_public(&odd, no_passphrase).unwrap_err().to_string();
        assert!(
            said.contains("it is a file of minisign") && !said.contains("TheSecret"),
            "{said}"
        );
        fs::write(&odd, "RWRTY0IyTheSecret\n").unwrap();
        let said = read_public(&odd, no_passphrase).unwrap_err().to_string();
        assert!(
            said.contains("expected one line") && !said.contains("TheSecret"),
            "{said}"
        );
        let foreign = rcgen::KeyPair::generate().unwrap().serialize_pem();
        fs::write(&odd, foreign).unwrap();
        let said = read_public(&odd, no_passphrase).unwrap_err().to_string();
        assert!(said.ends_with("it is a private key, for ECDSA"), "{said}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            read_private(&path, no_passphrase),
            Err(KeyFileError::Exposed { mode: 0o644, .. })
        ));
    }
}
