//! Certificates and keys in PEM files, as other programs leave them: with CR LF, a byte order mark,
//! text around the blocks, blanks before their lines. What is none is named for what it is, and
//! none of it is quoted, since it may be secret.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tidings_protocol::Timestamp;
use zeroize::Zeroizing;

/// How many days before its end a certificate is pointed out, if it lives for long.
pub const END_WARNING_DAYS: u64 = 14;
/// The last part of its life in which one that lives shorter is pointed out: a fifth.
const END_WARNING_PART: u64 = 5;

/// Why a PEM file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has something else.
    #[error("there is no {expected} in {path}: {found}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// A certificate or a private key.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The key is under a passphrase.
    #[error("the private key in {} is encrypted, and nobody can be asked for its passphrase here; `openssl pkey -in FILE -out NEW` writes it without one", .0.display())]
    Encrypted(PathBuf),
}

fn read(path: &Path) -> Result<Zeroizing<String>, PemError> {
    let octets = fs::read(path).map_err(|source| PemError::Read {
        path: path.into(),
        source,
    });
    let octets = Zeroizing::new(octets?);
    let text = Zeroizing::new(String::from_utf8_lossy(&octets).into_owned());
    // Blanks around lines, and a mark before the first, say nothing.
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let mut clean = Zeroizing::new(String::with_capacity(text.len()));
    lines.for_each(|line| {
        clean.push_str(line);
        clean.push('\n');
    });
    Ok(clean)
}

/// The certificates in a file, one at least.
///
/// # Errors
/// If it cannot be read, or has none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let content = |found| PemError::Content {
        path: path.into(),
        expected: "certificate",
        found,
    };
    match found {
        Ok(found) if found.is_empty() => Err(content(what_it_is(&text))),
        Ok(found) => Ok(found),
        Err(_) => Err(content(DAMAGED)),
    }
}

/// The private key in a file, the first if there are several.
///
/// # Errors
/// If it cannot be read, has none, or one that is encrypted.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let text = read(path)?;
    if is_encrypted(&text) {
        return Err(PemError::Encrypted(path.into()));
    }
    let content = |found| PemError::Content {
        path: path.into(),
        expected: "private key",
        found,
    };
    let found = PrivateKeyDer::pem_slice_iter(text.as_bytes()).next();
    match found {
        None => Err(content(what_it_is(&text))),
        Some(Err(_)) => Err(content(DAMAGED)),
        Some(Ok(key)) => Ok(key),
    }
}

/// Which algorithm a private key is for, by the identifier in its PKCS#8 (RFC 5958, RFC 8410).
pub(crate) fn algorithm(pem: &str) -> Option<&'static str> {
    let known: &[(&[u8], &str)] = &[
        (&[0x2b, 0x65, 0x70], "Ed25519"),
        (&[0x2b, 0x65, 0x71], "Ed448"),
        (&[0x2b, 0x65, 0x6e], "X25519"),
        (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01], "RSA"),
        (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01], "ECDSA"),
        (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "DSA"),
    ];
    let key = PrivateKeyDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    let der = key.secret_der();
    // It stands before the key itself.
    let head = der.get(..der.len().min(32))?;
    let has = |identifier: &[u8]| {
        head.windows(identifier.len())
            .any(|part| part == identifier)
    };
    let found = known.iter().find(|(identifier, _)| has(identifier));
    found.map(|(_, name)| *name)
}

const DAMAGED: &str = "a block of it is damaged";

/// PKCS#8, or the older form of OpenSSL.
fn is_encrypted(text: &str) -> bool {
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// What a file is in which something else was expected.
pub(crate) fn what_it_is(text: &str) -> &'static str {
    let known = [
        ("BEGIN OPENSSH PRIVATE KEY", "it is a key of OpenSSH"),
        ("BEGIN RSA PRIVATE KEY", "it is an RSA private key"),
        ("BEGIN EC PRIVATE KEY", "it is an EC private key"),
        ("BEGIN DSA PRIVATE KEY", "it is a DSA private key"),
        ("PRIVATE KEY-----", "it is a private key"),
        (
            "BEGIN CERTIFICATE REQUEST",
            "it is a request for a certificate, which an authority has to sign",
        ),
        (
            "BEGIN NEW CERTIFICATE REQUEST",
            "it is a request for a certificate, which an authority has to sign",
        ),
        (
            "BEGIN TRUSTED CERTIFICATE",
            "it is a certificate in OpenSSL's own form; `openssl x509 -in FILE -out NEW` writes the usual one",
        ),
        ("BEGIN CERTIFICATE", "it is a certificate"),
        (
            "BEGIN PUBLIC KEY",
            "it is a public key as PEM; `tidings key show` of the private half prints the line that Tidings uses",
        ),
        ("BEGIN X509 CRL", "it is a list of revoked certificates"),
        (
            "BEGIN PKCS7",
            "it is PKCS#7; `openssl pkcs7 -print_certs` writes the certificates in it",
        ),
        ("BEGIN PGP", "it is a key of OpenPGP"),
        ("untrusted comment:", "it is a file of minisign or signify"),
        ("ssh-ed25519 ", "it is a public key of OpenSSH"),
        ("ssh-rsa ", "it is a public key of OpenSSH"),
        (
            "ed25519:",
            "it is a public key of Tidings; is it the public half?",
        ),
        ("-----BEGIN ", "it is PEM of another kind"),
    ];
    if let Some((_, what)) = known.iter().find(|(mark, _)| text.contains(mark)) {
        return what;
    }
    match text.trim() {
        "" => "it is empty",
        // The octet with which DER, and so PKCS#12, begins.
        text if text.starts_with('0') && text.contains(char::REPLACEMENT_CHARACTER) => {
            "it is binary, DER or PKCS#12, where PEM is expected; `openssl x509 -inform der` or `openssl pkcs12 -nodes` writes that"
        }
        text if text.contains('\0') => "it is UTF-16, or no text at all, where PEM is expected",
        _ => "it is no PEM: no line begins with -----BEGIN",
    }
}

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

impl Validity {
    /// What a certificate says of it (RFC 5280 section 4.1); none if it cannot be read.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = element(certificate)? else {
            return None;
        };
        let (SEQUENCE, mut fields, _) = element(certificate)? else {
            return None;
        };
        // A version, if it is not the first; then serial, algorithm, issuer.
        if element(fields)?.0 == VERSION {
            fields = element(fields)?.2;
        }
        for _ in 0..3 {
            fields = element(fields)?.2;
        }
        let (SEQUENCE, validity, _) = element(fields)? else {
            return None;
        };
        let (kind, from, rest) = element(validity)?;
        let (other, until, _) = element(rest)?;
        Some(Self {
            from: time(kind, from)?,
            until: time(other, until)?,
        })
    }

    /// What an operator should know of it at a time.
    pub fn trouble(&self, now: Timestamp) -> Option<String> {
        let Self { from, until } = self;
        if now < *from {
            return Some(format!("is not good before {from}"));
        }
        if now > *until {
            return Some(format!("has expired at {until}"));
        }
        let left = until.seconds() - now.seconds();
        let life = until.seconds() - from.seconds();
        let soon = (END_WARNING_DAYS * 86_400).min(life / END_WARNING_PART);
        (left < soon).then(|| format!("expires at {until}, in {} hours", left / 3_600))
    }
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element of DER: its tag, what is in it, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = octets
                .iter()
                .fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
            (length, rest)
        }
        _ => return None,
    };
    let (within, after) = rest.split_at_checked(length)?;
    Some((tag, within, after))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn time(kind: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match kind {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let (date, clock) = (
        [part(0, 4)?, part(4, 6)?, part(6, 8)?].join("-"),
        [part(8, 10)?, part(10, 12)?, part(12, 14)?].join(":"),
    );
    format!("{date}T{clock}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    fn pair() -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        (params.self_signed(&key).unwrap(), key)
    }

    #[test]
    fn files_as_they_are_found() {
        let (certificate, key) = pair();
        let (pem, secret) = (certificate.pem(), key.serialize_pem());
        for text in [
            pem.clone(),
            pem.replace('\n', "\r\n"),
            format!("\u{feff}{pem}"),
            format!("Bag Attributes\n  x: y\n{secret}\n{pem}"),
            pem.lines().map(|line| format!("  {line} \n")).collect(),
        ] {
            let found = certificates(written(text.as_bytes()).path()).unwrap();
            assert_eq!(found, [certificate.der().clone()], "{text}");
        }
        for text in [
            secret.clone(),
            format!("\u{feff}{}", secret.replace('\n', "\r\n")),
            format!("{pem}{secret}"),
        ] {
            assert!(
                private_key(written(text.as_bytes()).path()).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_something_else_is_named_and_never_quoted() {
        let (certificate, key) = pair();
        let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n";
        let said = |error: PemError| error.to_string();
        for (text, expected) in [
            (key.serialize_pem().into_bytes(), "it is a private key"),
            (Vec::new(), "it is empty"),
            (certificate.der().to_vec(), "it is binary, DER"),
            (b"hello secret\n".to_vec(), "no line begins with"),
            (
                b"-----BEGIN CERTIFICATE-----\n!secret!\n-----END CERTIFICATE-----\n".to_vec(),
                "damaged",
            ),
        ] {
            let file = written(&text);
            let error = said(certificates(file.path()).unwrap_err());
            let name = file.path().display().to_string();
            assert!(error.contains(expected) && error.contains(&name), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = said(private_key(written(encrypted.as_bytes()).path()).unwrap_err());
        assert!(
            error.contains("is encrypted") && !error.contains("c2Vj"),
            "{error}"
        );
        let error = said(private_key(written(certificate.pem().as_bytes()).path()).unwrap_err());
        assert!(error.contains("no private key in") && error.contains("it is a certificate"));
    }

    #[test]
    fn a_certificate_that_is_about_to_end_is_pointed_out() {
        let validity = Validity::of(pair().0.der()).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(validity.from, at("2026-01-01T00:00:00Z"));
        assert_eq!(validity.until, at("2026-04-01T00:00:00Z"));
        assert_eq!(validity.trouble(at("2026-02-01T00:00:00Z")), None);
        for (time, expected) in [
            ("2025-12-31T00:00:00Z", "is not good before 2026-01-01"),
            (
                "2026-03-30T00:00:00Z",
                "expires at 2026-04-01T00:00:00Z, in 48 hours",
            ),
            ("2026-04-02T00:00:00Z", "has expired at 2026-04-01"),
        ] {
            let trouble = validity.trouble(at(time)).unwrap();
            assert!(trouble.starts_with(expected), "{trouble}");
        }
        assert_eq!(Validity::of(b""), None);
        assert_eq!(Validity::of(&pair().0.der()[..40]), None);
        assert_eq!(
            time(UTC_TIME, b"490101000000Z"),
            Some(at("2049-01-01T00:00:00Z"))
        );
        assert_eq!(
            time(GENERALIZED_TIME, b"20500101000000Z"),
            Some(at("2050-01-01T00:00:00Z"))
        );
    }
}
