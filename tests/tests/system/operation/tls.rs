//! TLS: certificates that are exchanged, sessions, handshakes that do not come.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tidings_client::{Connection, Publisher, Tls};
use tidings_tests::{Fixture, free_address, release};

/// A self-signed certificate for this machine.
fn certificate(fixture: &Fixture) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(fixture.directory.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(fixture.directory.join("key.pem"), key.serialize_pem()).unwrap();
    certificate.pem()
}

#[tokio::test]
async fn sighup_exchanges_certificates_and_a_bad_one_leaves_the_good_one_in_use() {
    let fixture = Fixture::new().unwrap();
    let tls_address = free_address().unwrap();
    let old = certificate(&fixture);
    fixture
        .configure(&tls_configuration(&fixture, tls_address))
        .unwrap();
    let daemon = fixture.start().unwrap();
    let connects = async |pem: &str| {
        let ca = fixture.directory.join("ca.pem");
        fs::write(&ca, pem).unwrap();
        let address = format!("nntps://{tls_address}").parse().unwrap();
        Connection::open(&address, &Tls::from_file(&ca).unwrap())
            .await
            .is_ok()
    };
    assert!(connects(&old).await);
    let new = certificate(&fixture);
    assert!(
        !connects(&new).await && connects(&old).await,
        "nothing changes before it is told"
    );
    daemon.signal("HUP").unwrap();
    let began = Instant::now();
    while !connects(&new).await {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the new certificate is not used"
        );
    }
    fs::write(fixture.directory.join("cert.pem"), "garbage").unwrap();
    daemon.signal("HUP").unwrap();
    let log = || fs::read_to_string(fixture.directory.join("tidingsd.log")).unwrap();
    while !log().contains("the present certificate stays in use") {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", log());
        tokio::task::yield_now().await;
    }
    assert!(connects(&new).await);
}

/// The configuration of a TLS listener with a certificate of its own.
fn tls_configuration(fixture: &Fixture, address: SocketAddr) -> String {
    let files = fixture.directory.display();
    format!(
        "nntps = [\"{address}\"]\n[tls]\ncertificate_file = \"{files}/cert.pem\"\nkey_file = \"{files}/key.pem\"\n"
    )
}

/// Under TLS a connection leaves for the watch loop and comes back with its keys, in both
/// directions and again.
#[test]
fn a_tls_session_goes_on_after_each_watch() {
    let fixture = Fixture::new().unwrap();
    let address = free_address().unwrap();
    let pem = certificate(&fixture);
    fixture
        .configure(&tls_configuration(&fixture, address))
        .unwrap();
    let _daemon = fixture.start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut publisher = runtime
        .block_on(Publisher::connect(fixture.source().unwrap()))
        .unwrap();
    runtime.block_on(publisher.publish(&fixture.trust)).unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connection =
        rustls::ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut client = BufReader::new(rustls::StreamOwned::new(connection, socket));
    let expect = |client: &mut BufReader<rustls::StreamOwned<_, TcpStream>>, start: &str| {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        assert!(
            line.starts_with(start),
            "expected {start:?}, found {line:?}"
        );
    };
    expect(&mut client, "200 ");
    let channel = "test.os.stable".parse().unwrap();
    let mut head = None;
    for serial in 1..=3_u32 {
        client.get_mut().write_all(b"XWATCH test.*\r\n").unwrap();
        expect(&mut client, "290 ");
        let statement =
            release(&channel, head, &serial.to_string(), 1200, &fixture.release).unwrap();
        head = Some(statement.head());
        runtime.block_on(publisher.publish(&statement)).unwrap();
        expect(&mut client, &format!("{serial} <{serial}."));
        (0..19).for_each(|_| expect(&mut client, ""));
        client
            .get_mut()
            .write_all(b"DATE\r\nGROUP test.os.stable\r\n")
            .unwrap();
        expect(&mut client, ".\r\n");
        expect(&mut client, "111 ");
        expect(&mut client, &format!("211 {serial} 1 {serial} "));
    }
    client.get_mut().write_all(b"QUIT\r\n").unwrap();
    expect(&mut client, "205 ");
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0, "closed, and said so");
}

#[test]
fn a_handshake_that_does_not_come_is_not_waited_for() {
    let fixture = Fixture::new().unwrap();
    let tls_address = free_address().unwrap();
    certificate(&fixture);
    fixture
        .configure(&(tls_configuration(&fixture, tls_address) + "[limits]\nhandshake_seconds = 1"))
        .unwrap();
    let _daemon = fixture.start().unwrap();
    let mut socket = TcpStream::connect(tls_address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let began = Instant::now();
    assert!(
        matches!(socket.read(&mut [0; 64]), Ok(0)),
        "the broker closes"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}
