//! The TLS side of the listeners: implicit TLS 1.3 alone (RFC 8143), certificates that can be
//! exchanged.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    CommonState, RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::UnixTime;
use tidings_client::{
    pem::{self, PemError, Validity},
    rustls_words,
};

use crate::config::Tls;

/// Why TLS cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be used.
    #[error("tls.{key}: {source}")]
    Pem {
        /// The key of the configuration.
        key: &'static str,
        /// Why.
        source: PemError,
    },
    /// Certificate and key do not go together, or are of no use.
    #[error("tls: the certificate {certificate} and the key {key} cannot be used together: {why}", certificate = .certificate.display(), key = .key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// That of the key.
        key: PathBuf,
        /// Why.
        why: String,
    },
    /// The roots for clients are of no use.
    #[error("tls.client_ca_file: {path} cannot be used: {why}", path = .path.display())]
    Clients {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// TLS cannot be set up at all.
    #[error("TLS cannot be used: {0}")]
    Setup(String),
}

/// What new connections are served with; connections that stand keep what they began with.
pub(crate) struct Certificates {
    files: Tls,
    config: ArcSwap<Loaded>,
}

/// What was read of the files.
struct Loaded {
    config: Arc<ServerConfig>,
    /// Judges clients.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When our own certificate ends, and the last of the roots.
    ends: Vec<(PathBuf, Validity)>,
}

impl Certificates {
    pub(crate) fn load(files: &Tls) -> Result<Self, TlsError> {
        Ok(Self {
            files: files.clone(),
            config: ArcSwap::from_pointee(read(files)?),
        })
    }

    /// Reads the files again; if they cannot be used, the present certificate stays in use.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        self.config.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// When the certificates in the files end.
    pub(crate) fn ends(&self) -> Vec<(PathBuf, Validity)> {
        self.config.load().ends.clone()
    }

    /// The same for HTTP.
    pub(crate) fn for_http(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config.load().config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    pub(crate) fn accept(&self) -> Result<ServerConnection, TlsError> {
        let config = self.config.load().config.clone();
        ServerConnection::new(config).map_err(|error| TlsError::Setup(rustls_words(&error)))
    }

    /// Whether the certificate that a client has shown is good now. A session that is resumed
    /// brings the one with which it began, and that may have ended since (attack 107).
    pub(crate) fn is_good(&self, connection: &CommonState, now: UnixTime) -> bool {
        let Some((first, others)) = connection
            .peer_certificates()
            .and_then(|chain| chain.split_first())
        else {
            return true;
        };
        let loaded = self.config.load();
        loaded
            .clients
            .as_ref()
            .is_some_and(|clients| clients.verify_client_cert(first, others, now).is_ok())
    }
}

fn read(files: &Tls) -> Result<Loaded, TlsError> {
    let error = |key| move |source| TlsError::Pem { key, source };
    let setup = |error: rustls::Error| TlsError::Setup(rustls_words(&error));
    let chain = pem::certificates(&files.certificate_file).map_err(error("certificate_file"))?;
    let key = pem::private_key(&files.key_file).map_err(error("key_file"))?;
    let mut ends: Vec<(PathBuf, Validity)> = chain
        .first()
        .and_then(|first| Validity::of(first))
        .map(|end| (files.certificate_file.clone(), end))
        .into_iter()
        .collect();
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?;
    let mut clients: Option<Arc<dyn ClientCertVerifier>> = None;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let bad = |why: String| TlsError::Clients {
                path: path.clone(),
                why,
            };
            let mut roots = RootCertStore::empty();
            let found = pem::certificates(path).map_err(error("client_ca_file"))?;
            let last = found.iter().filter_map(|root| Validity::of(root));
            ends.extend(
                last.max_by_key(|end| end.until)
                    .map(|end| (path.clone(), end)),
            );
            for root in found {
                roots.add(root).map_err(|e| bad(rustls_words(&e)))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| bad(e.to_string()))?;
            clients = Some(verifier.clone());
            builder.with_client_cert_verifier(verifier)
        }
    };
    let pair = |error: rustls::Error| TlsError::Pair {
        certificate: files.certificate_file.clone(),
        key: files.key_file.clone(),
        why: rustls_words(&error),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![b"nntp".to_vec()];
    // Nothing to read for anybody who does not ask again: one ticket is enough. It holds the
    // session itself: a fleet that comes back costs no memory here.
    config.send_tls13_tickets = 1;
    config.ticketer = ring::Ticketer::new().map_err(setup)?;
    Ok(Loaded {
        config: Arc::new(config),
        clients,
        ends,
    })
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, client::Resumption};
    use rustls_pki_types::PrivateKeyDer;

    use super::*;

    /// Everything that one side has to say, until both have nothing to say any more.
    fn talk(client: &mut ClientConnection, server: &mut ServerConnection) {
        for _ in 0..10 {
            let mut octets = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut octets).unwrap();
            }
            let mut from = &octets[..];
            while !from.is_empty() {
                server.read_tls(&mut from).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut octets = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut octets).unwrap();
            }
            let mut from = &octets[..];
            while !from.is_empty() {
                client.read_tls(&mut from).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        // The ticket comes with the first thing that is said.
        let mut nothing = [0; 1];
        assert!(
            io::Read::read(&mut client.reader(), &mut nothing)
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        );
    }

    #[test]
    fn attack_107_a_certificate_that_has_ended_is_none_for_a_session_that_is_resumed() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut params = CertificateParams::new(vec!["ca".into()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.into()]).unwrap();
            params.not_after = rcgen::date_time_ymd(2500, 1, 1);
            (params.signed_by(&key, &ca).unwrap(), key)
        };
        let ((server, server_key), (client, client_key)) =
            (issue("broker.example"), issue("device.example"));
        let certificates = Certificates::load(&Tls {
            certificate_file: file("server.pem", server.pem()),
            key_file: file("server.key", server_key.serialize_pem()),
            client_ca_file: Some(file("ca.pem", ca.pem())),
        })
        .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(client_key.serialize_der()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = builder
            .with_client_auth_cert(vec![client.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"nntp".to_vec()];
        config.resumption = Resumption::in_memory_sessions(4);
        let config = Arc::new(config);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut device =
                ClientConnection::new(config.clone(), "broker.example".try_into().unwrap())
                    .unwrap();
            let mut broker = certificates.accept().unwrap();
            talk(&mut device, &mut broker);
            assert_eq!(
                (
                    broker.handshake_kind(),
                    broker.peer_certificates().map(<[_]>::len)
                ),
                (Some(kind), Some(1))
            );
            assert!(certificates.is_good(&broker, UnixTime::now()));
            // In the year 2600 it has ended.
            let later = UnixTime::since_unix_epoch(Duration::from_secs(630 * 365 * 86_400));
            assert!(!certificates.is_good(&broker, later));
        }
    }
}
