//! Attacks on what a broker has: what one connection, one address and one command may cost.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tidings_client::{Address, Connection, Tls};
use tidings_protocol::nntp::code;
use tidings_tests::{
    clock::faketime,
    free_address, http,
    relay::{self, Act},
    tree::{broker, connect, origin, os, publish, realm, until},
};
use tokio::task::JoinSet;

const SIGNERS: &[&str] = &["ann", "bob"];

#[tokio::test(flavor = "multi_thread")]
async fn attacks_102_103_a_wildmat_has_16_patterns_and_a_watch_64_targets() {
    let realm = realm();
    let (fixture, _daemon, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 2, SIGNERS)
        .await
        .unwrap();
    let mut reader = connect(&fixture).await.unwrap();
    let patterns = |count: usize| vec!["test.*"; count].join(",");
    assert_eq!(
        reader
            .listing(&format!("LIST ACTIVE {}", patterns(16)), code::LIST)
            .await
            .unwrap()
            .lines()
            .count(),
        2
    );
    for command in [
        format!("LIST ACTIVE {}", patterns(17)),
        format!("NEWNEWS {} 20200101 000000 GMT", patterns(17)),
    ] {
        assert_eq!(
            reader.command(&command).await.unwrap().code,
            code::SYNTAX,
            "{command}"
        );
    }
    for (targets, expected) in [
        (patterns(17), code::WATCH_REFUSED),
        (vec!["test.os.stable:1"; 65].join(" "), code::WATCH_REFUSED),
        (vec!["test.os.stable:1"; 64].join(" "), code::WATCHING),
    ] {
        let mut watcher = connect(&fixture).await.unwrap();
        assert_eq!(
            watcher
                .command(&format!("XWATCH {targets}"))
                .await
                .unwrap()
                .code,
            expected
        );
    }
    // STAT says what is there without a copy of it; what is not there is said as ever.
    reader.command("GROUP test.os.stable").await.unwrap();
    assert_eq!(reader.command("STAT 1").await.unwrap().code, code::STAT);
    assert_eq!(reader.command("NEXT").await.unwrap().code, code::STAT);
    assert_eq!(
        reader.command("STAT 9").await.unwrap().code,
        code::NO_SUCH_NUMBER
    );
}

/// Sends octets, and reads until the broker closes, or has nothing more to say.
pub(crate) fn until_closed(address: SocketAddr, octets: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut answer = [0; 512];
    // The greeting.
    let _ = socket.read(&mut answer).unwrap();
    // The broker may close before it has all of it.
    let _ = socket.write_all(octets);
    let mut text = Vec::new();
    let _ = socket.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_104_a_line_without_an_end_is_refused_at_its_limit() {
    let (fixture, _daemon, _publisher) = origin(&realm(), "").await.unwrap();
    let address = fixture.address;
    for beginning in ["", "POST\r\n"] {
        let octets = [beginning.as_bytes(), &vec![b'a'; 5_000][..]].concat();
        // It is refused while more of the line may come: nobody closes here but the broker.
        let said = tokio::task::spawn_blocking(move || until_closed(address, &octets))
            .await
            .unwrap();
        assert!(said.contains("501 a line of more than"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_106_no_answer_makes_a_client_send_a_password_in_clear_text() {
    let (fixture, _daemon, _publisher) = origin(&realm(), "").await.unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let thief = {
        let heard = heard.clone();
        move |command: &str, _: Vec<u8>| {
            *heard.lock().unwrap() += &format!("{command}\n");
            // A referral of the first version, and what would ask for the password.
            match command {
                "DATE" => Act::Send(b"400 nntp://127.0.0.1:1 has room\r\n".to_vec()),
                _ => Act::Send(b"381 and the password?\r\n".to_vec()),
            }
        }
    };
    let thief = relay::start(&[fixture.address], thief).await.unwrap();
    let url: Address = format!("nntp://{thief}").parse().unwrap();
    let mut connection = Connection::open(&url, &Tls::system().unwrap())
        .await
        .unwrap();
    let refused = connection.login("ann", "secret").await.unwrap_err();
    assert!(refused.to_string().contains("over TLS only"), "{refused}");
    assert_eq!(connection.command("DATE").await.unwrap().code.0, 400);
    assert!(connection.login("ann", "secret").await.is_err());
    assert_eq!(*heard.lock().unwrap(), "DATE\n");
}

/// A certificate of a test's own authority, which holds until then; it and its key as files.
fn issue(
    ca: &CertifiedIssuer<'_, KeyPair>,
    directory: &Path,
    name: &str,
    until: Option<u64>,
) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if let Some(until) = until {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(until);
    }
    let file = |kind: &str| {
        directory
            .join(format!("{name}.{kind}"))
            .display()
            .to_string()
    };
    let files = [file("pem"), file("key")];
    std::fs::write(&files[0], params.signed_by(&key, ca).unwrap().pem()).unwrap();
    std::fs::write(&files[1], key.serialize_pem()).unwrap();
    files
}

/// A handshake as such, and whether the broker greets then.
fn greeted(config: &Arc<ClientConfig>, address: SocketAddr) -> (Option<HandshakeKind>, bool) {
    let name = "broker.example".try_into().unwrap();
    let mut tls = ClientConnection::new(config.clone(), name).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    let mut text = Vec::new();
    // The ticket for the next time comes before the greeting; QUIT makes the broker close.
    let _ = stream.write_all(b"QUIT\r\n");
    let _ = stream.read_to_end(&mut text);
    (tls.handshake_kind(), text.starts_with(b"200 "))
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_107_a_session_is_not_resumed_when_its_certificate_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(vec!["ca".into()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let roots = directory.path().join("ca.pem");
    std::fs::write(&roots, ca.pem()).unwrap();
    let [broker_pem, broker_key] = issue(&ca, directory.path(), "broker.example", None);
    let in_an_hour = tidings_client::now().seconds() + 3_600;
    let [device_pem, device_key] = issue(&ca, directory.path(), "device.example", Some(in_an_hour));
    let address = free_address().unwrap();
    let mut fixture = broker(
        &realm(),
        &format!(
            "nntps = [\"{address}\"]\n[tls]\ncertificate_file = \"{broker_pem}\"\nkey_file = \"{broker_key}\"\nclient_ca_file = \"{}\"\n",
            roots.display()
        ),
    )
    .unwrap();
    // The broker's clock is moved while it runs.
    let time = directory.path().join("time");
    std::fs::write(&time, "+0s").unwrap();
    fixture.launcher = vec![
        "env".into(),
        format!("LD_PRELOAD={}", faketime().display()),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        "FAKETIME_NO_CACHE=1".into(),
        format!("FAKETIME_TIMESTAMP_FILE={}", time.display()),
    ];
    let _daemon = fixture.start().unwrap();
    let mut trusted = RootCertStore::empty();
    trusted.add(ca.der().clone()).unwrap();
    let client = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(trusted.clone())
    };
    let device = client()
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&device_pem).unwrap()],
            PrivateKeyDer::from_pem_file(&device_key).unwrap(),
        )
        .unwrap();
    let (device, anybody) = (Arc::new(device), Arc::new(client().with_no_client_auth()));
    tokio::task::block_in_place(|| {
        assert_eq!(greeted(&device, address), (Some(HandshakeKind::Full), true));
        assert_eq!(
            greeted(&device, address),
            (Some(HandshakeKind::Resumed), true)
        );
        std::fs::write(&time, "+2h").unwrap();
        assert_eq!(
            greeted(&device, address),
            (Some(HandshakeKind::Resumed), false)
        );
        assert!(greeted(&anybody, address).1, "others are served");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_108_small_requests_make_no_large_log() {
    let realm = realm();
    let (fixture, _daemon, _publisher) = origin(&realm, "").await.unwrap();
    let before = fixture.log().len();
    let address = fixture.address;
    let octets = b"POST\r\n.\r\n".repeat(900);
    let sent = octets.len();
    let said = tokio::task::spawn_blocking(move || {
        until_closed(address, &[&octets[..], b"QUIT\r\n"].concat())
    })
    .await
    .unwrap();
    assert_eq!(
        said.matches("\n441 ").count() + usize::from(said.starts_with("441")),
        900
    );
    until("the connection is told of", async || {
        fixture.log().contains("refused=900")
    })
    .await;
    let grown = fixture.log().len() - before;
    assert!(grown < sent / 4, "{grown} octets of log for {sent} octets");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_115_nobody_keeps_operators_from_the_admin_port() {
    let admin = free_address().unwrap();
    let (_fixture, _daemon, _publisher) =
        origin(&realm(), &format!("[admin]\nlisten = [\"{admin}\"]\n"))
            .await
            .unwrap();
    let idle: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(admin).unwrap())
        .collect();
    let (status, body) = tokio::task::spawn_blocking(move || http::get(admin, "/healthz").unwrap())
        .await
        .unwrap();
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    drop(idle);
    let forged = "GET /status HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n";
    let (status, _) = tokio::task::spawn_blocking(move || http::request(admin, forged).unwrap())
        .await
        .unwrap();
    assert_eq!(status, 421);
}

/// `secret`, by `openssl passwd -6`.
const SECRET: &str = "$6$tidings$QSEpYZ5hzqsRYIUOIQDqhrvWxaKRWJlwVPwSnb7Ddv9rrhlWC6cZHn3vkt8Cx/F0ybTA0Y0Ak5rgHSgY.yxfs1";

#[tokio::test(flavor = "multi_thread")]
async fn attack_115_guesses_on_many_connections_of_one_address_at_once_are_as_few_as_on_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("broker.pem"), own.cert.pem()).unwrap();
    std::fs::write(path("broker.key"), own.signing_key.serialize_pem()).unwrap();
    let address = free_address().unwrap();
    let fixture = broker(
        &realm(),
        &format!(
            "nntps = [\"{address}\"]\n[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n[[peer]]\nname = \"ann\"\npassword = \"{SECRET}\"\n",
            path("broker.pem"),
            path("broker.key")
        ),
    )
    .unwrap();
    let _daemon = fixture.start().unwrap();
    let (url, tls): (Address, _) = (
        format!("nntps://{address}").parse().unwrap(),
        Tls::from_file(path("broker.pem")).unwrap(),
    );
    let mut known = Connection::open(&url, &tls).await.unwrap();
    known.login("ann", "secret").await.unwrap();
    let mut guessers = Vec::new();
    for _ in 0..60 {
        guessers.push(Connection::open(&url, &tls).await.unwrap());
    }
    let mut guesses = JoinSet::new();
    for (number, mut guesser) in guessers.into_iter().enumerate() {
        guesses.spawn(async move { guesser.login("ann", &number.to_string()).await });
    }
    let said: Vec<String> = guesses
        .join_all()
        .await
        .into_iter()
        .map(|answer| answer.unwrap_err().to_string())
        .collect();
    let (tried, refused) = (
        said.iter().filter(|said| said.contains("481")).count(),
        said.iter()
            .filter(|said| said.contains("too many logins have failed from your address"))
            .count(),
    );
    assert_eq!((tried, refused), (20, 40), "{said:?}");
}
