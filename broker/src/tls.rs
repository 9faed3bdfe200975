//! The TLS side of the listeners: implicit TLS 1.3 alone (RFC 8143), certificates that can be
//! exchanged.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    CommonState, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};

use crate::config::Tls;

/// Why TLS cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read.
    #[error("cannot read {what} from {path}: {source}")]
    Pem {
        /// Certificate, key, or the roots of clients.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not go together, or are of no use.
    #[error("certificate and key cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// The roots for clients are of no use.
    #[error("tls.client_ca_file cannot be used: {0}")]
    Clients(#[from] VerifierBuilderError),
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

    /// The same for HTTP.
    pub(crate) fn for_http(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config.load().config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    pub(crate) fn accept(&self) -> Result<ServerConnection, TlsError> {
        Ok(ServerConnection::new(self.config.load().config.clone())?)
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
    let pem = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| TlsError::Pem { what, path, source }
    };
    let error = || pem("the certificate", &files.certificate_file);
    let chain = CertificateDer::pem_file_iter(&files.certificate_file)
        .map_err(error())?
        .collect::<Result<Vec<_>, _>>()
        .map_err(error())?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key_file).map_err(pem("the key", &files.key_file))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut clients: Option<Arc<dyn ClientCertVerifier>> = None;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let error = || pem("the roots of clients", path);
            let mut roots = RootCertStore::empty();
            for root in CertificateDer::pem_file_iter(path).map_err(error())? {
                roots.add(root.map_err(error())?)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated();
            let verifier = verifier.build()?;
            clients = Some(verifier.clone());
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"nntp".to_vec()];
    // Nothing to read for anybody who does not ask again: one ticket is enough. It holds the
    // session itself: a fleet that comes back costs no memory here.
    config.send_tls13_tickets = 1;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Loaded {
        config: Arc::new(config),
        clients,
    })
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, client::Resumption};

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
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
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
