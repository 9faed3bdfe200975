//! What operators do, and what happens to them: the commands end to end, certificates exchanged, a
//! full disk.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tidings_client::{Body, Connection, Publisher, Release, Tls, now};
use tidings_protocol::{
    Channel, Head, Serial, SigningKey, Statement, nntp::code, statement::Draft,
};
use tidings_tests::{Fixture, binary, free_address, release};

fn tidings(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.tidings().args(arguments).output().unwrap()
}

#[track_caller]
fn good(fixture: &Fixture, arguments: &[&str]) -> String {
    let output = tidings(fixture, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn publish_fetch_watch_log_from_the_command_line() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    fs::write(fixture.directory.join("trust.1"), fixture.trust.octets()).unwrap();
    fs::write(fixture.directory.join("image"), "an image").unwrap();
    assert!(good(&fixture, &["publish", "trust.1"]).starts_with("published <1."));
    let release = [
        "release",
        "test.os.stable",
        "--key",
        "release.key",
        "--publish",
        "--payload",
        "raw image https://x.example/image",
    ];
    good(
        &fixture,
        &[&release[..], &["--version", "1.0", "--new-channel"]].concat(),
    );
    good(&fixture, &[&release[..], &["--version", "1.1"]].concat());
    let published = good(
        &fixture,
        &[
            "withdraw",
            "test.os.stable",
            "2",
            "--reason",
            "bad",
            "--key",
            "release.key",
            "--publish",
            "--json",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&published).unwrap();
    assert_eq!(
        (json["kind"].as_str(), json["serial"].as_u64()),
        (Some("withdraw"), Some(3))
    );

    let log = good(&fixture, &["log", "test.os.stable"]);
    assert_eq!(log.lines().count(), 3, "{log}");
    assert!(
        log.lines()
            .nth(2)
            .unwrap()
            .contains("withdraw withdraws 2 sha256:"),
        "{log}"
    );
    assert_eq!(
        good(
            &fixture,
            &["log", "test.os.stable", "--last", "1", "--json"]
        )
        .lines()
        .count(),
        1
    );

    let fetch = [
        "fetch",
        "test.os.stable",
        "--state",
        "device.state",
        "--json",
    ];
    let fetched: serde_json::Value = serde_json::from_str(&good(&fixture, &fetch)).unwrap();
    assert_eq!(
        (fetched["serial"].as_u64(), fetched["signed_by"][0].as_str()),
        (Some(3), Some("release"))
    );
    assert_eq!(good(&fixture, &fetch), "", "the cursor has moved");
    let text = good(&fixture, &["fetch", "test.os.stable", "--all"]);
    assert_eq!(text.matches("Tidings: 1 ").count(), 3, "{text}");
    let watched = good(
        &fixture,
        &["watch", "test.os.stable", "--all", "--count", "3", "--json"],
    );
    assert_eq!(watched.lines().count(), 3);

    // What could not be shown is not lost, and a name that is wrong is not taken for silence.
    let full = Command::new("sh")
        .args([
            "-c",
            &format!(
                "{} fetch test.os.stable --state full.state > /dev/full",
                binary("tidings").display()
            ),
        ])
        .current_dir(&fixture.directory)
        .env("TIDINGS_BROKERS", fixture.url())
        .env("TIDINGS_ANCHOR", fixture.anchor.to_string())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    assert!(
        good(
            &fixture,
            &["fetch", "test.os.stable", "--state", "full.state"]
        )
        .contains("Withdraws: 2")
    );
    let typo = tidings(&fixture, &["fetch", "test.os.stabel"]);
    assert!(
        String::from_utf8_lossy(&typo.stderr).contains("there is no channel test.os.stabel yet"),
        "{typo:?}"
    );
    let foreign = tidings(&fixture, &["release", "other.os", "--version", "1"]);
    assert!(
        String::from_utf8_lossy(&foreign.stderr)
            .contains("other.os is not in the namespace of the anchor"),
        "{foreign:?}"
    );

    // A draft without a signature, a lost race, and a stranger.
    good(
        &fixture,
        &[
            "release",
            "test.os.stable",
            "--version",
            "1.2",
            "-o",
            "draft",
        ],
    );
    let unsigned = tidings(&fixture, &["publish", "draft"]);
    assert!(
        String::from_utf8_lossy(&unsigned.stderr)
            .contains("draft is not signed; `tidings sign` adds a signature")
    );
    good(&fixture, &["sign", "--key", "release.key", "draft"]);
    good(&fixture, &[&release[..], &["--version", "1.3"]].concat());
    let late = tidings(&fixture, &["publish", "draft"]);
    assert!(
        String::from_utf8_lossy(&late.stderr).contains("the head of the channel is 4 sha256:"),
        "{late:?}"
    );
    good(&fixture, &["key", "new", "stranger.key"]);
    let stranger = tidings(
        &fixture,
        &[
            "release",
            "test.os.stable",
            "--version",
            "6",
            "--key",
            "stranger.key",
            "--publish",
        ],
    );
    assert_eq!(stranger.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&stranger.stderr)
            .contains("needs 1 signatures of release by trust 1, found 0")
    );
    assert_eq!(
        good(&fixture, &["log", "test.os.stable"]).lines().count(),
        4
    );
}

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
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
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
fn sighup_reads_the_log_level_again() {
    let fixture = Fixture::new().unwrap();
    fixture.configure("[log]\nlevel = \"error\"").unwrap();
    let daemon = fixture.start().unwrap();
    let log = || fs::read_to_string(fixture.directory.join("tidingsd.log")).unwrap();
    assert!(!log().contains("listening"), "{}", log());
    fixture.configure("[log]\nlevel = \"info\"").unwrap();
    daemon.signal("HUP").unwrap();
    let began = Instant::now();
    // Said at `info`, and so only seen if it is true.
    while !log().contains("log level read again") {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", log());
        std::thread::yield_now();
    }
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

/// A file system of its own that is too small.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, mebibytes: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(at)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "a small file system cannot be mounted; run the tests as root, or in `unshare --user --map-root-user --mount`"
        );
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // A mount that stays is visible, and harmless.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn attack_69_on_a_full_disk_publishing_is_refused_and_reading_goes_on() {
    let fixture = Fixture::new().unwrap();
    let data = fixture.directory.join("data");
    fixture
        .configure(
            "[[retention]]\nchannels = \"test.os.*\"\ncount = 100\n[limits]\ngap_seconds = 40",
        )
        .unwrap();
    // Two segments of 64 MiB, and what is made ahead next has no room.
    let _disk = SmallDisk::mount(&data, 224);
    let daemon = fixture.start().unwrap();
    let channel = "test.os.stable".parse().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    publisher.publish(&fixture.trust).await.unwrap();
    let mut connection = fixture.source().unwrap().connect().await.unwrap();
    let filler = data.join("filler");
    fs::write(&filler, vec![1; 70 << 20]).unwrap();

    // Retention is applied every forty seconds: until then the disk is full.
    let mut head = None;
    let (mut refused, mut published) = (None, 0);
    while refused.is_none() {
        let summary = big_release(&channel, head, published, &fixture.release);
        let response = connection.post(&summary).await.unwrap();
        match response.code {
            code::POSTED => (head, published) = (Some(summary.head()), published + 1),
            _ => refused = Some(response.to_string()),
        }
        assert!(published < 10_000, "the disk has never been full");
    }
    let refused = refused.unwrap();
    assert!(
        refused.contains("the broker's disk is full, ")
            && refused.contains("octets are missing; nothing was stored"),
        "{refused}"
    );
    assert_eq!(
        publisher.newest(&channel).await.unwrap().unwrap().head(),
        head.unwrap(),
        "reading goes on"
    );
    assert!(
        fixture.log().contains("the disk is full"),
        "{}",
        fixture.log()
    );

    // Retention frees what is dead, and publishing goes on without a restart.
    let began = Instant::now();
    let next = loop {
        let next = big_release(&channel, head, published, &fixture.release);
        if connection.post(&next).await.unwrap().code == code::POSTED {
            break next;
        }
        assert!(
            began.elapsed() < Duration::from_secs(100),
            "retention has freed nothing"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    drop(publisher);
    daemon.kill().unwrap();
    let _daemon = fixture.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    assert_eq!(
        publisher.newest(&channel).await.unwrap().unwrap().id(),
        next.id()
    );
}

/// A release of some 60 KiB.
fn big_release(channel: &Channel, after: Option<Head>, number: u32, key: &SigningKey) -> Statement {
    let release = Release {
        version: number.to_string(),
        ..Release::default()
    };
    let draft = Draft {
        channel: channel.clone(),
        after,
        time: now(),
        trust: Some(Serial::FIRST),
        body: Body::Release(release),
    };
    let filler = format!("Filler: {}\n", "x".repeat(850)).repeat(70);
    Statement::parse_draft(&[draft.write().unwrap().octets(), filler.as_bytes()].concat())
        .unwrap()
        .sign(key)
        .unwrap()
}

/// Everything that a store has of what was published, in order.
fn segment(fixture: &Fixture) -> std::path::PathBuf {
    fixture.directory.join("data/store/00000001.log")
}

/// Changes one octet of what stands in a file, behind everybody's back.
fn flip(file: &Path, what: &str) {
    let mut octets = fs::read(file).unwrap();
    let at = octets
        .windows(what.len())
        .position(|window| window == what.as_bytes())
        .unwrap();
    octets[at] ^= 1;
    fs::write(file, octets).unwrap();
}

fn tidingsd(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary("tidingsd"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A broker that has been stopped, with a log of ten releases.
async fn ten_releases(fixture: &Fixture) -> Vec<Statement> {
    let daemon = fixture.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    publisher.publish(&fixture.trust).await.unwrap();
    let mut log: Vec<Statement> = Vec::new();
    for number in 0..10 {
        let head = log.last().map(Statement::head);
        let next = release(
            &"test.os.stable".parse().unwrap(),
            head,
            &format!("version-{number}"),
            0,
            &fixture.release,
        )
        .unwrap();
        publisher.publish(&next).await.unwrap();
        log.push(next);
    }
    daemon.signal("TERM").unwrap();
    assert_eq!(daemon.wait(Duration::from_secs(30)).unwrap(), Some(0));
    log
}

#[tokio::test]
async fn a_store_is_checked_and_what_can_be_read_is_exported() {
    let fixture = Fixture::new().unwrap();
    let log = ten_releases(&fixture).await;
    let (data, anchor) = (
        fixture.directory.join("data").display().to_string(),
        fixture.anchor.to_string(),
    );
    let check = ["check", &data, "--anchor", &anchor];
    let (code, _, said) = tidingsd(&check);
    assert!(
        code == Some(0) && said.contains("11 statements, 2 channels, 1 segments: whole and proven"),
        "{said}"
    );
    let (code, batch, said) = tidingsd(&["export", &data]);
    assert!(code == Some(0) && said.contains("exported"), "{said}");
    let exported = tidings_protocol::batch::read(batch.as_bytes()).unwrap();
    assert_eq!(exported.iter().map(Statement::id).collect::<Vec<_>>(), {
        std::iter::once(&fixture.trust)
            .chain(&log)
            .map(Statement::id)
            .collect::<Vec<_>>()
    });

    flip(&segment(&fixture), "version-4");
    let before = fs::read(segment(&fixture)).unwrap();
    let (code, _, said) = tidingsd(&check);
    assert!(
        code == Some(3)
            && said.contains("store/00000001.log octet ")
            && said.contains("(test.os.stable 5)"),
        "{said}"
    );
    let (code, batch, said) = tidingsd(&["export", &data]);
    assert!(code == Some(3) && said.contains("10 statements"), "{said}");
    assert_eq!(
        tidings_protocol::batch::read(batch.as_bytes())
            .unwrap()
            .len(),
        10
    );
    assert!(
        fs::read(segment(&fixture)).unwrap() == before,
        "nothing is changed"
    );

    // Another anchor proves nothing.
    let other = anchor.replace(&anchor[anchor.len() - 8..], "00000000");
    let (code, _, said) = tidingsd(&["check", &data, "--anchor", &other]);
    assert!(
        code == Some(3) && said.contains("test.trust 1 is not proven"),
        "{said}"
    );
    let _daemon = fixture.start().unwrap();
    let (code, _, said) = tidingsd(&check);
    assert!(code == Some(1) && said.contains("is in use"), "{said}");
    let (code, _, said) = tidingsd(&["check", "/nowhere", "--anchor", &anchor]);
    assert!(code == Some(1) && said.contains("/nowhere"), "{said}");
}

#[tokio::test]
async fn a_damaged_statement_is_one_403_and_is_fetched_again() {
    let fixture = Fixture::new().unwrap();
    let log = ten_releases(&fixture).await;
    flip(&segment(&fixture), "version-4");
    let daemon = fixture.start().unwrap();
    let mut connection = fixture.source().unwrap().connect().await.unwrap();
    let os: Channel = "test.os.stable".parse().unwrap();
    assert_eq!(
        connection.group(&os, None).await.unwrap().unwrap().0.high,
        10
    );
    for serial in 1..=10 {
        let response = connection.command(&format!("STAT {serial}")).await.unwrap();
        assert_eq!(
            response.code,
            if serial == 5 {
                code::INTERNAL
            } else {
                code::STAT
            },
            "{response}"
        );
    }
    assert!(
        fixture.log().contains("(test.os.stable 5)"),
        "{}",
        fixture.log()
    );
    drop(daemon);

    // One that has it: this one feeds it, and asks it.
    let other = fixture.mirror_of(&[], "").unwrap();
    other.configure("").unwrap();
    let _other = other.start().unwrap();
    let mut publisher = Publisher::connect(other.source().unwrap()).await.unwrap();
    publisher.publish(&fixture.trust).await.unwrap();
    for statement in &log {
        publisher.publish(statement).await.unwrap();
    }
    fixture
        .configure(&format!(
            "[[feed]]\nname = \"other\"\nto = \"{}\"\nchannels = \"*\"",
            other.url()
        ))
        .unwrap();
    let _daemon = fixture.start().unwrap();
    let mut connection = fixture.source().unwrap().connect().await.unwrap();
    let began = Instant::now();
    loop {
        connection.group(&os, None).await.unwrap().unwrap();
        if connection.command("STAT 5").await.unwrap().code == code::STAT {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{}",
            fixture.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let all = connection.articles(&os, 1..=10, usize::MAX).await.unwrap();
    assert_eq!(all[4].octets(), log[4].octets());
    assert!(
        fixture.log().contains("a damaged statement is whole again"),
        "{}",
        fixture.log()
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
    for entry in entries {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn attack_116_a_restored_origin_takes_what_others_have_more_before_it_takes_anything() {
    let fixture = Fixture::new().unwrap();
    let log = ten_releases(&fixture).await;
    let (data, backup) = (
        fixture.directory.join("data"),
        fixture.directory.join("backup"),
    );
    copy(&data, &backup);
    let os: Channel = "test.os.stable".parse().unwrap();
    let daemon = fixture.start().unwrap();
    let mirror = fixture.mirror_of(&[fixture.address], "").unwrap();
    let mirroring = mirror.start().unwrap();
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    let mut head = log[9].head();
    for number in 10..15 {
        let next = release(
            &os,
            Some(head),
            &format!("version-{number}"),
            0,
            &fixture.release,
        )
        .unwrap();
        publisher.publish(&next).await.unwrap();
        head = next.head();
    }
    let reached = async |fixture: &Fixture, high: u32| {
        let began = Instant::now();
        loop {
            if let Ok(mut connection) = fixture.source().unwrap().connect().await
                && connection
                    .group(&os, None)
                    .await
                    .is_ok_and(|found| found.is_some_and(|(group, _)| group.high >= high))
            {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{}",
                fixture.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    reached(&mirror, 15).await;
    drop((publisher, daemon, mirroring));

    // Five statements are lost. While the mirror is away nothing is taken, and then they come
    // first.
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    fixture.restore_from(&mirror).unwrap();
    let _daemon = fixture.start().unwrap();
    let mut connection = fixture.source().unwrap().connect().await.unwrap();
    let forked = release(
        &os,
        Some(log[9].head()),
        "version-10-again",
        0,
        &fixture.release,
    )
    .unwrap();
    let refused = connection.post(&forked).await.unwrap();
    assert!(
        refused
            .text
            .contains("looks first whether others have more"),
        "{refused}"
    );
    let _mirroring = mirror.start().unwrap();
    reached(&fixture, 15).await;
    let next = release(&os, Some(head), "version-15", 0, &fixture.release).unwrap();
    let began = Instant::now();
    while connection.post(&next).await.unwrap().code != code::POSTED {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{}",
            fixture.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lost = connection.post(&forked).await.unwrap();
    assert!(
        lost.code == code::POST_FAILED && !lost.text.contains("looks first"),
        "{lost}"
    );
}
