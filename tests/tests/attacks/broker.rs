//! Attacks on brokers: what they have to keep, to refuse, to put off, and to pay for.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use tidings_client::{Channel, Connection, Head, Publisher, Statement, keys};
use tidings_protocol::{
    article,
    nntp::code,
    statement::{Body, Closed, Release},
};
use tidings_tests::{
    Fixture, free_address, http,
    realm::{ROLES, Realm, key, rules},
    tree::{broker, connect, head, origin, os, publish, read_all, realm, until, until_head},
};

const SIGNERS: &[&str] = &["ann", "bob"];
const ROOTS: &[&str] = &["root1", "root2"];

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn peer(name: &str) -> String {
    format!("[[peer]]\nname = \"{name}\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"*\"\n")
}

async fn ihave(connection: &mut Connection, statement: &Statement) -> u16 {
    let answer = connection
        .command(&format!("IHAVE {}", statement.message_id()))
        .await
        .unwrap();
    if answer.code != code::SEND_IT {
        return answer.code.0;
    }
    connection
        .send_raw(
            &[
                article::render(statement, "x!not-for-mail").octets,
                b".\r\n".to_vec(),
            ]
            .concat(),
        )
        .await
        .unwrap();
    connection.answer().await.unwrap().code.0
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_091_a_worthless_signature_that_was_appended_is_not_kept_and_replaces_nothing() {
    let realm = realm();
    let (fixture, _daemon, mut publisher) = origin(&realm, "").await.unwrap();
    let clean = realm.release(&os(), None, "1", SIGNERS);
    // A key that is listed for something else, and may be listed for this one day.
    let grafted = clean.sign(&key("beat")).unwrap();
    publisher.publish(&grafted).await.unwrap();
    assert_eq!(
        read_all(&fixture, &os()).await.unwrap(),
        std::slice::from_ref(&clean)
    );
    // The clean copy is the same statement.
    publisher.publish(&clean).await.unwrap();
    // A mirror keeps it as it came, and never replaces it.
    let far = broker(&realm, &peer("x")).unwrap();
    let _far = far.start().unwrap();
    let mut neighbour = connect(&far).await.unwrap();
    for statement in [&realm.log[0], &grafted, &clean] {
        ihave(&mut neighbour, statement).await;
    }
    assert_eq!(read_all(&far, &os()).await.unwrap(), [grafted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_100_one_key_uses_up_the_channels_of_its_namespace_alone() {
    let realm = realm();
    let (_fixture, _daemon, mut publisher) =
        origin(&realm, "[quota]\nchannels = 4\n").await.unwrap();
    let mut refused = None;
    for number in 0..5 {
        let statement = realm.release(&channel(&format!("test.c{number}")), None, "1", SIGNERS);
        refused = publisher.publish(&statement).await.err().or(refused);
    }
    let refused = refused.unwrap().to_string();
    assert!(
        refused.contains("keeps 4 channels of test") && refused.contains("quota.channels"),
        "{refused}"
    );
    // What is there goes on.
    let first = realm.release(&channel("test.c0"), None, "1", SIGNERS);
    publisher
        .publish(&realm.release(&channel("test.c0"), Some(first.head()), "2", SIGNERS))
        .await
        .unwrap();
}

/// An origin that signs beats with this period.
async fn signing(
    realm: &Realm,
    directory: &std::path::Path,
    every: u64,
) -> (Fixture, tidings_tests::Daemon, Publisher) {
    let file = directory.join("beat.key");
    keys::write_private(&file, &key("beat"), None).unwrap();
    let beat = format!(
        "[[beat]]\nnamespace = \"test\"\nkey_file = \"{}\"\nevery_seconds = {every}\nlife_seconds = {}\n",
        file.display(),
        every * 2
    );
    origin(realm, &beat).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_101_new_heads_bring_beats_early_and_at_most_every_tenth_of_a_period() {
    let (realm, directory) = (realm(), tempfile::tempdir().unwrap());
    let (fixture, _daemon, mut publisher) = signing(&realm, directory.path(), 30).await;
    let beats = channel("test.beat");
    until_head(&fixture, &beats, 1).await;
    let began = Instant::now();
    for number in 0..40 {
        publisher
            .publish(&realm.release(&channel(&format!("test.c{number}")), None, "1", SIGNERS))
            .await
            .unwrap();
    }
    // The next one comes soon, and names all of them.
    until("a beat comes early", async || {
        head(&fixture, &beats).await.unwrap() > 1
    })
    .await;
    let newest = head(&fixture, &beats).await.unwrap();
    let took = began.elapsed().as_secs_f64();
    assert!(took < 15.0, "{took}");
    assert!(
        f64::from(newest - 1) <= took / 3.0 + 1.0,
        "{newest} beats in {took} s"
    );
}

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

#[tokio::test(flavor = "multi_thread")]
async fn attack_102_a_train_of_cheap_commands_keeps_nobody_waiting() {
    let realm = realm();
    let (fixture, _daemon, mut publisher) = origin(&realm, "").await.unwrap();
    let mut after: Option<Head> = None;
    for number in 0..2 {
        let payloads = Release {
            version: format!("{number}"),
            summary: Some("x".repeat(800)),
            ..Release::default()
        };
        let large = realm.release_with(&os(), after, payloads, SIGNERS);
        publisher.publish(&large).await.unwrap();
        after = Some(large.head());
    }
    let address = fixture.address;
    let trains: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.write_all(b"GROUP test.os.stable\r\n").unwrap();
                let train = [
                    b"STAT 1\r\n".repeat(3_000),
                    b"LIST ACTIVE *,*,*,*,*,*,*,*,*,*,*,*,*,*,*,*\r\n".repeat(500),
                ]
                .concat();
                socket
                    .write_all(&[&train[..], b"QUIT\r\n"].concat())
                    .unwrap();
                let mut answers = Vec::new();
                socket.read_to_end(&mut answers).unwrap();
                answers.windows(4).filter(|four| four == b"\n223").count()
            })
        })
        .collect();
    let mut reader = connect(&fixture).await.unwrap();
    let mut longest = Duration::ZERO;
    while !trains.iter().all(|train| train.is_finished()) {
        let began = Instant::now();
        assert_eq!(reader.command("DATE").await.unwrap().code, code::DATE);
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    for train in trains {
        assert_eq!(train.join().unwrap(), 3_000);
    }
}

/// Sends octets, and reads until the broker closes.
fn until_closed(address: SocketAddr, octets: &[u8]) -> (String, Duration) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut answer = [0; 512];
    // The greeting.
    let _ = socket.read(&mut answer).unwrap();
    // The broker may close before it has all of it.
    let began = Instant::now();
    let _ = socket.write_all(octets);
    let mut text = Vec::new();
    let _ = socket.read_to_end(&mut text);
    (String::from_utf8_lossy(&text).into_owned(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_104_a_line_without_an_end_is_refused_at_its_limit() {
    let (fixture, _daemon, _publisher) = origin(&realm(), "").await.unwrap();
    let address = fixture.address;
    for beginning in ["", "POST\r\n"] {
        let octets = [beginning.as_bytes(), &vec![b'a'; 5_000][..]].concat();
        let (said, took) = tokio::task::spawn_blocking(move || until_closed(address, &octets))
            .await
            .unwrap();
        assert!(said.contains("501 a line of more than"), "{said}");
        assert!(took < Duration::from_secs(10), "{took:?}");
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
    let (said, _) = tokio::task::spawn_blocking(move || {
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
async fn attack_110_a_statement_of_the_future_is_put_off_by_feeds_too() {
    let realm = realm();
    let (fixture, _daemon, _publisher) = origin(&realm, &peer("x")).await.unwrap();
    let far = realm
        .later(realm.time.plus(300 * 86_400))
        .release(&os(), None, "1", SIGNERS);
    let mut neighbour = connect(&fixture).await.unwrap();
    assert_eq!(ihave(&mut neighbour, &far).await, 436);
    assert_eq!(head(&fixture, &os()).await.unwrap(), 0);
    assert_eq!(
        ihave(&mut neighbour, &realm.release(&os(), None, "1", SIGNERS)).await,
        235
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_111_a_mirror_fills_below_what_an_upstream_that_comes_later_has() {
    let realm = realm();
    let (origin, daemon, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 600, SIGNERS)
        .await
        .unwrap();
    let short = origin
        .mirror_of(
            &[origin.address],
            "[[retention]]\nchannels = \"test.os.*\"\ncount = 3\n",
        )
        .unwrap();
    let _short = short.start().unwrap();
    until_head(&short, &os(), 600).await;
    daemon.kill().unwrap();
    let leaf = origin
        .mirror_of(&[short.address, origin.address], "")
        .unwrap();
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 600).await;
    assert_eq!(read_all(&leaf, &os()).await.unwrap().len(), 3);
    let _daemon = origin.start().unwrap();
    until("the rest comes from the other", async || {
        read_all(&leaf, &os()).await.unwrap().len() == 600
    })
    .await;
    assert_eq!(
        read_all(&leaf, &os()).await.unwrap(),
        read_all(&origin, &os()).await.unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_113_what_is_hidden_is_told_by_no_answer() {
    let realm = realm();
    let hidden = "[[peer]]\nname = \"ops\"\nnetworks = [\"192.0.2.1\"]\n[[peer]]\nname = \"x\"\nnetworks = [\"127.0.0.1\"]\nfeeds = \"test.os.*\"\n[[access]]\nchannels = \"test.*\"\nreaders = [\"ops\"]\n";
    let (fixture, daemon, _publisher) = origin(&realm, "").await.unwrap();
    daemon.kill().unwrap();
    fixture.configure(hidden).unwrap();
    let _daemon = fixture.start().unwrap();
    let mut stranger = connect(&fixture).await.unwrap();
    // The same words for a namespace that is not there and for one that is hidden.
    // The same keys an hour ago: another log of the same name.
    let other = Realm::at(
        tidings_client::Timestamp::from_seconds(tidings_client::now().seconds() - 3600),
        ROLES,
        ROOTS,
    );
    let forged = |name: &str| realm.release(&channel(name), None, "1", &["eve"]);
    let said = |text: String, name: &str| text.replace(name, "NAME");
    let (there, nowhere) = (forged("test.os.stable"), forged("nowhere.os.stable"));
    let answers = [
        said(
            stranger.post(&there).await.unwrap().to_string(),
            "test.os.stable",
        ),
        said(
            stranger.post(&nowhere).await.unwrap().to_string(),
            "nowhere.os.stable",
        ),
    ];
    assert_eq!(answers[0], answers[1]);
    let second = other.trust(ROLES, &[], ROOTS);
    let answer = stranger.post(&second).await.unwrap().to_string();
    assert!(
        !answer.contains("head") && answer.contains("no namespace of this broker"),
        "{answer}"
    );
    let check = |name: &str| format!("CHECK <1.{}@{name}>", "0".repeat(64));
    for command in [check("test.trust"), check("nowhere.trust")] {
        let answer = stranger.command(&command).await.unwrap();
        assert_eq!(answer.code, code::CHECK_NOT_WANTED);
        assert!(answer.text.ends_with("not wanted from you"), "{answer}");
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn attack_119_a_thiefs_releases_above_the_checkpoint_are_in_nobodys_way() {
    let mut realm = realm();
    let (fixture, _daemon, mut publisher) = origin(&realm, "").await.unwrap();
    let mirror = fixture.mirror_of(&[fixture.address], "").unwrap();
    let _mirror = mirror.start().unwrap();
    let honest = publish(&realm, &mut publisher, &os(), None, 2, SIGNERS)
        .await
        .unwrap();
    publish(&realm, &mut publisher, &os(), Some(honest), 3, SIGNERS)
        .await
        .unwrap();
    until_head(&mirror, &os(), 5).await;
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    publisher
        .publish(&realm.rotate(&roles, &[(&os(), honest)], ROOTS))
        .await
        .unwrap();
    until_head(&fixture, &os(), 2).await;
    let next = realm.release(&os(), Some(honest), "2", &["dora"]);
    publisher.publish(&next).await.unwrap();
    let began = Instant::now();
    while !read_all(&mirror, &os())
        .await
        .is_ok_and(|log| log.last() == Some(&next))
    {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{}",
            mirror.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        read_all(&mirror, &os()).await.unwrap(),
        read_all(&fixture, &os()).await.unwrap()
    );
    for fixture in [&fixture, &mirror] {
        let lost = std::fs::read_dir(fixture.directory.join("data/forks")).unwrap();
        assert_eq!(
            lost.filter(|file| file
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|kind| kind == "lost"))
                .count(),
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_122_closed_channels_take_nothing_and_trust_and_beats_go_on() {
    let mut realm = realm();
    let (fixture, _daemon, mut publisher) = origin(&realm, &peer("x")).await.unwrap();
    let first = publish(&realm, &mut publisher, &os(), None, 1, SIGNERS)
        .await
        .unwrap();
    let mut closing = rules(ROLES, realm.time.plus(86_400), &[]);
    closing.closed = vec![Closed {
        pattern: "*".parse().unwrap(),
        except: vec![],
    }];
    let statement = realm.trust_of(closing, ROOTS);
    publisher.publish(&statement).await.unwrap();
    realm.log.push(statement);
    let refused = publisher
        .publish(&realm.release(&os(), Some(first), "2", SIGNERS))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("closed for good"), "{refused}");
    let mut neighbour = connect(&fixture).await.unwrap();
    assert_eq!(
        ihave(
            &mut neighbour,
            &realm.release(&channel("test.new"), None, "1", SIGNERS)
        )
        .await,
        437
    );
    publisher
        .publish(&realm.beat(None, &[], 600, &["beat"]))
        .await
        .unwrap();
    // It cannot be opened again.
    let opening = realm.trust(ROLES, &[], ROOTS);
    assert!(matches!(opening.body(), Body::Trust(_)));
    let refused = publisher.publish(&opening).await.unwrap_err();
    assert!(
        refused.to_string().contains("what is closed stays closed"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_sends_history_that_only_later_statements_prove_from_the_newest_down() {
    let mut realm = realm();
    let far = broker(&realm, &peer("x")).unwrap();
    let feed = format!("[[feed]]\nname = \"far\"\nto = \"{}\"\n", far.url());
    let (fixture, _daemon, mut publisher) = origin(&realm, &feed).await.unwrap();
    let old = publish(&realm, &mut publisher, &os(), None, 300, SIGNERS)
        .await
        .unwrap();
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    publisher
        .publish(&realm.rotate(&roles, &[], ROOTS))
        .await
        .unwrap();
    publish(&realm, &mut publisher, &os(), Some(old), 2, &["dora"])
        .await
        .unwrap();
    let _far = far.start().unwrap();
    until_head(&far, &os(), 302).await;
    assert_eq!(
        read_all(&far, &os()).await.unwrap(),
        read_all(&fixture, &os()).await.unwrap()
    );
}
