//! Attacks on what a broker has: what one connection, one address and one command may cost.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use tidings_client::{Address, Connection, Tls};
use tidings_protocol::nntp::code;
use tidings_tests::{
    free_address, http,
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
