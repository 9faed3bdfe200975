//! TLS towards brokers: whom to believe, who we are, and what went wrong in words of ours.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as Rustls, RootCertStore,
    crypto::{
        CryptoProvider, ring,
        ring::cipher_suite::{
            TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
        },
    },
};
use tidings_protocol::Timestamp;

use crate::{
    Address,
    pem::{self, PemError, Validity},
};

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file with certificates or a key cannot be used.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate and a key cannot be used together.
    #[error("the certificate {certificate} and the key {key} cannot be used together: {why}", certificate = .certificate.display(), key = .key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// That of the key.
        key: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate cannot be a root.
    #[error("a certificate in {path} cannot be used: {why}", path = .path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The other side speaks no TLS, or is not the one that was meant.
    #[error("no TLS with {address}: {why}")]
    Handshake {
        /// The broker.
        address: Address,
        /// Why.
        why: String,
    },
    /// TLS cannot be set up at all.
    #[error("TLS cannot be used: {0}")]
    Setup(String),
    /// The host is no name that a certificate could be for.
    #[error("{0:?} is no host name")]
    Host(String),
}

/// Whom to believe that a broker is the one that was meant. The statements do not depend on it.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    ends: Vec<(PathBuf, Validity)>,
}

impl Tls {
    /// The roots that the operating system trusts.
    ///
    /// # Errors
    /// If TLS cannot be set up at all.
    pub fn system() -> Result<Self, TlsError> {
        Self::new(None, None)
    }

    /// The roots in a PEM file, and no others.
    ///
    /// # Errors
    /// If the file cannot be read, or has no usable certificate.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        Self::new(Some(path.as_ref()), None)
    }

    /// The roots in a PEM file, or those of the system, and a certificate of our own with its key,
    /// for those who ask.
    ///
    /// # Errors
    /// If a file cannot be read, or has nothing of use.
    pub fn new(roots: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let (mut store, mut ends) = (RootCertStore::empty(), Vec::new());
        match roots {
            // There is no TLS in a simulation, and to read them takes time.
            #[cfg(feature = "simulated")]
            None if crate::simulated::elapsed().is_some() => {}
            // Those that cannot be read are left out, as every other program here does.
            None => drop(
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
            ),
            Some(path) => {
                for certificate in pem::certificates(path)? {
                    ends.extend(Validity::of(&certificate).map(|end| (path.to_owned(), end)));
                    store.add(certificate).map_err(|error| TlsError::Root {
                        path: path.into(),
                        why: rustls_words(&error),
                    })?;
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Setup(rustls_words(&error)))?
            .with_root_certificates(store);
        let config = match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let (chain, private) = (pem::certificates(certificate)?, pem::private_key(key)?);
                let end = chain.first().and_then(|first| Validity::of(first));
                ends.extend(end.map(|end| (certificate.to_owned(), end)));
                config
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| TlsError::Pair {
                        certificate: certificate.into(),
                        key: key.into(),
                        why: rustls_words(&error),
                    })?
            }
        };
        Ok(Self {
            config: Arc::new(config),
            ends: latest(ends),
        })
    }

    /// As rustls wants it.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// When the certificates in the files end: our own, and the last of the roots.
    pub fn ends(&self) -> &[(PathBuf, Validity)] {
        &self.ends
    }

    /// What an operator should know of them, a line each.
    pub fn trouble(&self, now: Timestamp) -> Vec<String> {
        let line = |(path, end): &(PathBuf, Validity)| {
            Some(format!("{} {}", path.display(), end.trouble(now)?))
        };
        self.ends.iter().filter_map(line).collect()
    }
}

/// A file of roots is of use as long as one of them is.
fn latest(ends: Vec<(PathBuf, Validity)>) -> Vec<(PathBuf, Validity)> {
    let mut all: Vec<(PathBuf, Validity)> = Vec::new();
    for (path, end) in ends {
        match all.iter_mut().find(|(known, _)| *known == path) {
            Some((_, known)) if known.until < end.until => *known = end,
            Some(_) => {}
            None => all.push((path, end)),
        }
    }
    all
}

/// AES-128 and SHA-256 first: what is public anyhow needs no more, and a handshake takes a tenth
/// less of everybody's time than with SHA-384.
fn provider() -> CryptoProvider {
    let suites = [
        TLS13_AES_128_GCM_SHA256,
        TLS13_CHACHA20_POLY1305_SHA256,
        TLS13_AES_256_GCM_SHA384,
    ];
    CryptoProvider {
        cipher_suites: suites.into(),
        ..ring::default_provider()
    }
}

/// What has gone wrong on a connection, for people.
pub fn io_words(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Rustls>());
    match inner {
        Some(error) => rustls_words(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() => {
            "the other side has closed it".into()
        }
        None => match error.to_string() {
            text if text.contains("tls handshake eof") => {
                "the other side has closed it; is it the port for nntps://?".into()
            }
            text => text,
        },
    }
}

/// What rustls says, for people: what to look at, and the option or key for it.
pub fn rustls_words(error: &Rustls) -> String {
    match error {
        Rustls::InvalidMessage(_) => {
            "no TLS is spoken there; is it the port for clear text (nntp://)?".into()
        }
        Rustls::InvalidCertificate(error) => certificate_words(error),
        Rustls::InconsistentKeys(_) => "the key is not that of the certificate".into(),
        Rustls::PeerIncompatible(_) => "the other side does not speak TLS 1.3".into(),
        Rustls::NoCertificatesPresented => "a certificate is asked for, and there is none".into(),
        Rustls::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "the other side wants a certificate of ours (--certificate; certificate_file of the login)".into()
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => {
                "the other side does not accept our certificate (--certificate; certificate_file of the login)".into()
            }
            AlertDescription::CertificateExpired => "our certificate has expired".into(),
            AlertDescription::CertificateRevoked => "our certificate was revoked".into(),
            AlertDescription::ProtocolVersion => "the other side does not speak TLS 1.3".into(),
            AlertDescription::UnrecognisedName => {
                "the other side does not know the name under which it is asked".into()
            }
            AlertDescription::NoApplicationProtocol => {
                "the other side speaks another protocol than NNTP there".into()
            }
            alert => format!("the other side has refused ({alert:?})"),
        },
        Rustls::General(text) => text.clone(),
        error => {
            // The first words of the library; what it shows of its insides helps nobody.
            let text = error.to_string();
            text.split(['{', '[']).next().unwrap_or_default().trim().into()
        }
    }
}

fn certificate_words(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::Expired => "its certificate has expired".into(),
        E::ExpiredContext { not_after, .. } => format!(
            "its certificate has expired at {}",
            Timestamp::from_seconds(not_after.as_secs())
        ),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "its certificate is not good yet; is the clock here right?".into()
        }
        E::UnknownIssuer => {
            "nobody who is trusted here has signed its certificate; --ca (ca_file) names a file with its issuer".into()
        }
        E::NotValidForName => "its certificate is for another name".into(),
        E::NotValidForNameContext {
            expected,
            presented,
        } => {
            // As the library shows them: `DnsName("a.example")`.
            let name = |shown: &String| shown.split('"').nth(1).unwrap_or(shown).to_owned();
            let names = match presented.is_empty() {
                true => "nobody".to_owned(),
                false => presented.iter().map(name).collect::<Vec<_>>().join(", "),
            };
            format!("its certificate is for {names}, not for {}", expected.to_str())
        }
        E::Revoked => "its certificate was revoked".into(),
        E::BadSignature => {
            "its certificate is not signed by the issuer of this name that is trusted here; --ca (ca_file) names a file with the right one".into()
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "its certificate is not for this purpose (server or client)".into()
        }
        E::BadEncoding => "its certificate cannot be read".into(),
        E::UnhandledCriticalExtension => {
            "its certificate has a critical extension that is not known here".into()
        }
        // The two that rustls has deprecated, and their successors.
        error if format!("{error:?}").starts_with("UnsupportedSignatureAlgorithm") => {
            "its certificate is signed with an algorithm, or by a key, that is not used any more (SHA-1, RSA below 2048 bits, or another curve)".into()
        }
        error => match format!("{error:?}").split([' ', '(', '{']).next() {
            Some("Other") | None => "its certificate is not accepted: it is an authority's, or not of version 3".into(),
            Some(word) => format!("its certificate is not accepted ({word})"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_insides_of_the_library_are_shown() {
        let io = |error| io_words(&io::Error::other(error));
        let text = io(Rustls::InvalidCertificate(CertificateError::UnknownIssuer));
        assert!(text.contains("--ca"), "{text}");
        let text = io(Rustls::InvalidMessage(
            rustls::InvalidMessage::InvalidContentType,
        ));
        assert!(text.contains("no TLS is spoken there"), "{text}");
        let context = CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![1, 2],
            public_key_algorithm_id: vec![3],
        };
        let text = io(Rustls::InvalidCertificate(context));
        assert!(
            text.contains("algorithm") && !text.contains(['{', '[']),
            "{text}"
        );
        let text = io(Rustls::AlertReceived(AlertDescription::CertificateRequired));
        assert!(text.contains("--certificate"), "{text}");
        assert_eq!(
            io_words(&io::ErrorKind::UnexpectedEof.into()),
            "the other side has closed it"
        );
    }
}
