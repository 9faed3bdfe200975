//! Key files: PKCS#8 PEM, readable by their owner alone, under a passphrase if wanted (PBES2: scrypt, AES-256-CBC);
//! public keys as one line.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding};
pub use tidings_protocol::{PublicKey, SigningKey};
use zeroize::Zeroizing;

use crate::file;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key {path}: {source}; `tidings key new {}` makes one", .path.display())]
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
    #[error("the private key {path} can be read by others (mode {mode:03o}); `chmod 600` it, or replace it if they may have")]
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

/// Draws a key.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn generate() -> io::Result<SigningKey> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(io::Error::other)?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Writes a private key into a new file that its owner alone may read; under a passphrase, if there is one.
///
/// # Errors
/// If the file exists already, or cannot be written.
pub fn write_private(path: &Path, key: &SigningKey, passphrase: Option<&str>) -> Result<(), KeyFileError> {
    let error = |source| KeyFileError::Write { path: path.into(), source };
    // Without the public half the form is PKCS#8 version 1, which OpenSSL reads too.
    let pair = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
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
/// If others may read the file too, the passphrase is another, or it holds no Ed25519 key as PKCS#8 PEM.
pub fn read_private(path: &Path, ask: impl FnOnce() -> io::Result<Zeroizing<String>>) -> Result<SigningKey, KeyFileError> {
    let read = |source| KeyFileError::Read { path: path.into(), source };
    let pem = Zeroizing::new(fs::read_to_string(path).map_err(read)?);
    if !pem.contains("PRIVATE KEY-----") {
        let reason = "it has no PEM block of a private key; is it the public half?".into();
        return Err(KeyFileError::Content { path: path.into(), expected: "private key", reason });
    }
    let mode = fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
    // What systemd hands to a service is nobody else's: its mode shows the mask of an access list, not a group.
    let handed = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| path.starts_with(directory));
    if mode & if handed { 0o037 } else { 0o077 } != 0 {
        return Err(KeyFileError::Exposed { path: path.into(), mode });
    }
    if is_encrypted(&pem) {
        let passphrase = |reason: String| KeyFileError::Passphrase { path: path.into(), reason };
        let given = ask().map_err(|e| passphrase(format!("its passphrase cannot be asked for: {e}")))?;
        return SigningKey::from_pkcs8_encrypted_pem(&pem, given.as_bytes())
            .map_err(|_| passphrase("this is not its passphrase (or the file is damaged)".into()));
    }
    SigningKey::from_pkcs8_pem(&pem).map_err(|e| KeyFileError::Content {
        path: path.into(),
        expected: "Ed25519 private key as PKCS#8 PEM",
        reason: what_it_is(&pem).map_or_else(|| e.to_string(), str::to_owned),
    })
}

/// What a file is that holds no key of ours; none of it is quoted, since it may be secret.
fn what_it_is(text: &str) -> Option<&'static str> {
    let known = [
        ("BEGIN OPENSSH PRIVATE KEY", "it is a key of OpenSSH"),
        ("BEGIN RSA PRIVATE KEY", "it is an RSA key"),
        ("BEGIN EC PRIVATE KEY", "it is a key of another curve"),
        ("BEGIN CERTIFICATE", "it is a certificate"),
        ("BEGIN PUBLIC KEY", "it is a public key as PEM; `tidings key show` of the private half prints the line that is wanted"),
        ("BEGIN PGP", "it is a key of OpenPGP"),
        ("untrusted comment:", "it is a file of minisign or signify"),
        ("ssh-ed25519 ", "it is a public key of OpenSSH"),
    ];
    known.into_iter().find(|(mark, _)| text.contains(mark)).map(|(_, what)| what)
}

fn is_encrypted(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
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
pub fn read_public(path: &Path, ask: impl FnOnce() -> io::Result<Zeroizing<String>>) -> Result<PublicKey, KeyFileError> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|source| KeyFileError::Read { path: path.into(), source })?);
    if text.contains("PRIVATE KEY-----") {
        return read_private(path, ask).map(|key| PublicKey::of(&key));
    }
    let line = text.trim_start_matches('\u{feff}').trim();
    line.parse().map_err(|_| KeyFileError::Content {
        path: path.into(),
        expected: "public key",
        reason: what_it_is(&text).unwrap_or("expected one line, `ed25519:` and 43 characters of unpadded base64url").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let key = generate().unwrap();
        write_private(&path, &key, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_private(&path, no_passphrase).unwrap().to_bytes(), key.to_bytes());
        assert_eq!(read_public(&path, no_passphrase).unwrap(), PublicKey::of(&key));
        assert!(matches!(write_private(&path, &key, None), Err(KeyFileError::Write { .. })));
        let secret = dir.path().join("b.key");
        write_private(&secret, &key, Some("correct horse")).unwrap();
        let answer = |text: &str| Ok(Zeroizing::new(text.to_owned()));
        assert_eq!(read_private(&secret, || answer("correct horse")).unwrap().to_bytes(), key.to_bytes());
        assert!(matches!(read_private(&secret, || answer("wrong")), Err(KeyFileError::Passphrase { .. })));
        assert!(matches!(read_private(&secret, no_passphrase), Err(KeyFileError::Passphrase { .. })));
        // What stands before the block, or is something else, is never quoted.
        let odd = dir.path().join("odd.key");
        let pem = fs::read_to_string(&path).unwrap();
        fs::write(&odd, format!("\u{feff}\nBag Attributes\r\n{pem}")).unwrap();
        fs::set_permissions(&odd, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_public(&odd, no_passphrase).unwrap(), PublicKey::of(&key));
        let secret = "untrusted comment: minisign encrypted secret key\nRWRTY0IyTheSecret\n";
        fs::write(&odd, secret).unwrap();
        let said = read_public(&odd, no_passphrase).unwrap_err().to_string();
        assert!(said.contains("it is a file of minisign") && !said.contains("TheSecret"), "{said}");
        fs::write(&odd, "RWRTY0IyTheSecret\n").unwrap();
        let said = read_public(&odd, no_passphrase).unwrap_err().to_string();
        assert!(said.contains("expected one line") && !said.contains("TheSecret"), "{said}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_private(&path, no_passphrase), Err(KeyFileError::Exposed { mode: 0o644, .. })));
    }
}
