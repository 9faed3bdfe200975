//! What the admin port says of channels, forks and brokers, and to whom.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;
use tidings_client::{Channel, Device, Publisher, State, Statement};
use tidings_tests::{
    Daemon, Fixture, free_address, http,
    realm::Realm,
    schema::Schema,
    tree::{PATIENCE, broker, os, publish_trust, until},
};

const ROLES: &[&str] = &[
    "trust * 1 root",
    "release * 1 ann",
    "withdraw * 1 ann",
    "beat test.os.* 1 beat",
];
/// How often a page is told although there is no news.
const STATUS_HEARTBEAT: Duration = Duration::from_secs(5);
/// Pages that are kept up to date at once (`STATUS_STREAMS`).
const STREAMS: usize = 16;

struct Stage {
    realm: Realm,
    fixture: Fixture,
    publisher: Publisher,
    admin: SocketAddr,
    schema: Schema,
    _daemon: Daemon,
}

impl Stage {
    async fn new(more: &str) -> Self {
        let (realm, admin) = (Realm::new(ROLES, &["root"]), free_address().unwrap());
        let more = format!("[admin]\nlisten = [\"{admin}\"]\n{more}");
        let fixture = broker(&realm, &more).unwrap();
        let daemon = fixture.start().unwrap();
        let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
        publish_trust(&realm, &mut publisher).await.unwrap();
        Self {
            realm,
            fixture,
            publisher,
            admin,
            schema: Schema::read("status"),
            _daemon: daemon,
        }
    }

    async fn publish(&mut self, statements: &[&Statement]) {
        for statement in statements {
            self.publisher.publish(statement).await.unwrap();
        }
    }

    /// `/status`, which has its form.
    fn status(&self, query: &str) -> Value {
        let (status, text) = http::get(self.admin, &format!("/status{query}")).unwrap();
        assert_eq!(status, 200, "{text}");
        let status = serde_json::from_str(&text).unwrap();
        assert_eq!(self.schema.wrong("status", &status), None, "{text}");
        status
    }

    fn channel(&self, channel: &Channel) -> Value {
        let status = self.status("?limit=1000");
        let all = status["channels"].as_array().unwrap();
        let found = all.iter().find(|one| one["channel"] == channel.as_str());
        found.cloned().unwrap_or_default()
    }

    /// Waits until a channel stands so, and a new device says the same.
    async fn until_state(&self, channel: &Channel, state: &str) -> Value {
        let mut found = Value::Null;
        until(&format!("{channel} is {state}"), async || {
            found = self.channel(channel);
            found["state"] == state
        })
        .await;
        let known = State::ephemeral(&self.realm.anchor);
        let source = self.fixture.source().unwrap();
        let mut device = Device::with_state(source, [channel.as_str()], known).unwrap();
        // What is wrong with a channel is what is to be said.
        drop(device.poll().await);
        let device = device.freshness(channel).as_str();
        let same = if state == "UNCONFIRMED" {
            "STALE"
        } else {
            state
        };
        assert_eq!(device, same, "{found}");
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_stands_as_a_device_finds_it() {
    let mut stage = Stage::new("").await;
    let first = stage.realm.release(&os(), None, "1", &["ann"]);
    let second = stage
        .realm
        .release(&os(), Some(first.head()), "2", &["ann"]);
    let lab: Channel = "test.lab".parse().unwrap();
    let alone = stage.realm.release(&lab, None, "1", &["ann"]);
    stage.publish(&[&first, &second, &alone]).await;
    let found = stage.until_state(&os(), "STALE").await;
    assert_eq!(
        (&found["since"], &found["serial"]),
        (&Value::Null, &2.into())
    );
    stage.until_state(&lab, "UNCONFIRMED").await;
    // A beat that ends, one that does not, and two that name what is not there.
    let beats: Channel = "test.os.beat".parse().unwrap();
    let beat = |after: Option<&Statement>, head, life| {
        let after = after.map(Statement::head);
        stage
            .realm
            .beat_in(&beats, after, &[(&os(), head)], life, &["beat"])
    };
    let third = stage
        .realm
        .release(&os(), Some(second.head()), "3", &["ann"]);
    let other = stage
        .realm
        .release(&os(), Some(first.head()), "2-other", &["ann"]);
    let fourth = stage
        .realm
        .release(&os(), Some(third.head()), "4", &["ann"]);
    let one = beat(None, second.head(), 1);
    let two = beat(Some(&one), second.head(), 600);
    let three = beat(Some(&two), fourth.head(), 600);
    let four = beat(Some(&three), other.head(), 600);
    stage.publish(&[&one]).await;
    let mut found = Value::Null;
    until("the beat has ended", async || {
        found = stage.channel(&os());
        found["state"] == "STALE" && found["since"].is_string()
    })
    .await;
    stage.publish(&[&two]).await;
    let found = stage.until_state(&os(), "CURRENT").await;
    assert!(found["until"].is_string(), "{found}");
    // What stands above a statement that a beat names is current too.
    stage.publish(&[&third]).await;
    until("it has a third", async || {
        stage.channel(&os())["serial"] == 3
    })
    .await;
    stage.until_state(&os(), "CURRENT").await;
    stage.publish(&[&three]).await;
    let found = stage.until_state(&os(), "BEHIND").await;
    assert_eq!(found["behind"], 4, "{found}");
    stage.publish(&[&four]).await;
    stage.until_state(&os(), "FORKED").await;
    let states = &stage.status("")["states"];
    assert_eq!(
        (&states["FORKED"], &states["UNCONFIRMED"]),
        (&1.into(), &1.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_come_in_pages_and_by_filter() {
    let mut stage = Stage::new("").await;
    let mut names = BTreeSet::from(["test.trust".to_owned()]);
    for number in 0..7 {
        let name = format!("test.lab.room-{number}");
        let release = stage
            .realm
            .release(&name.parse().unwrap(), None, "1", &["ann"]);
        stage.publish(&[&release]).await;
        names.insert(name);
    }
    until("all are there", async || {
        stage.status("")["channels_matching"] == 8
    })
    .await;
    let (mut seen, mut query) = (BTreeSet::new(), "?limit=3".to_owned());
    loop {
        let status = stage.status(&query);
        let channels = status["channels"].as_array().unwrap();
        assert!(channels.len() <= 3 && status["channels_matching"] == 8);
        for one in channels {
            assert!(seen.insert(one["channel"].as_str().unwrap().to_owned()));
        }
        match status["next"].as_str() {
            Some(next) => query = format!("?limit=3&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, names);
    assert_eq!(stage.status("?filter=ROOM-4")["channels_matching"], 1);
    assert_eq!(stage.status("?state=unconfirmed")["channels_matching"], 8);
    assert_eq!(stage.status("?state=TROUBLE")["channels_matching"], 0);
    for (query, says) in [
        ("?fitler=x", "there are filter, state, after and limit here"),
        ("?limit=5000", "limit is 1 to 1000"),
        ("?state=good", "state is one of CURRENT, BEHIND"),
    ] {
        let (status, text) = http::get(stage.admin, &format!("/status{query}")).unwrap();
        assert!(status == 400 && text.starts_with(says), "{status}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_can_be_had_and_nothing_else() {
    let mut stage = Stage::new("").await;
    let next = |after: &Statement, version: &str| {
        stage
            .realm
            .release(&os(), Some(after.head()), version, &["ann"])
    };
    let first = stage.realm.release(&os(), None, "1", &["ann"]);
    let (second, rival) = (next(&first, "2"), next(&first, "2-other"));
    let (third, fork) = (next(&second, "3"), next(&rival, "3-other"));
    stage.publish(&[&first, &second, &third]).await;
    assert!(stage.publisher.publish(&fork).await.is_err());
    let mut status = Value::Null;
    until("the evidence is offered", async || {
        status = stage.status("");
        status["evidence_files"] == 1 && stage.channel(&os())["state"] == "FORKED"
    })
    .await;
    let evidence = &status["evidence"][0];
    assert_eq!(
        (
            &evidence["kind"],
            &evidence["channel"],
            &status["forked"][0]
        ),
        (
            &"fork".into(),
            &"test.os.stable".into(),
            &"test.os.stable".into()
        )
    );
    let file = evidence["file"].as_str().unwrap();
    let path = stage.fixture.directory.join("data/forks").join(file);
    let (code, text) = http::get(stage.admin, &format!("/forks/{file}")).unwrap();
    assert_eq!((code, text), (200, fs::read_to_string(path).unwrap()));
    for odd in ["00-11.fork", "..%2f..%2ftidingsd.toml", "%2e%2e", "x.lost"] {
        let (code, _) = http::get(stage.admin, &format!("/forks/{odd}")).unwrap();
        assert_eq!(code, 404, "{odd}");
    }
}

/// The headers of an answer, which goes on.
fn begin(admin: SocketAddr, path: &str, host: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    (head, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_115_the_page_runs_nothing_but_its_own_and_answers_to_its_own_names() {
    let stage = Stage::new("").await;
    let (head, _) = begin(stage.admin, "/", "localhost");
    for says in [
        "200 OK",
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "x-content-type-options: nosniff",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(head.contains(says), "{says}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    for path in ["/", "/status", "/events", "/metrics", "/forks/00.fork"] {
        for host in ["rebound.example", "192.0.2.1", "broker.invalid.example"] {
            let (head, mut rest) = begin(stage.admin, path, host);
            assert!(head.starts_with("HTTP/1.1 421 "), "{path} {host}: {head}");
            let mut text = String::new();
            rest.read_line(&mut text).unwrap();
            let says = format!(
                "this broker is not asked as \"{host}\"; ask it as {}",
                stage.admin
            );
            assert!(text.starts_with(&says), "{text}");
        }
    }
    let (head, _) = begin(stage.admin, "/", "broker.invalid:80");
    assert!(head.contains("200 OK"), "{head}");
}

/// The next event of a stream of chunks.
fn event(stream: &mut impl BufRead) -> Value {
    loop {
        let mut line = String::new();
        assert!(
            stream.read_line(&mut line).unwrap() > 0,
            "the events have ended"
        );
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str(data).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_is_new_to_as_many_as_may_listen() {
    let mut stage = Stage::new("").await;
    let (head, mut events) = begin(stage.admin, "/events", "localhost");
    assert!(head.contains("text/event-stream"), "{head}");
    let first = event(&mut events);
    assert_eq!(stage.schema.wrong("status", &first), None);
    // Each comes with one of the next two, without being asked for, and before a heartbeat would
    // tell of it, unless this machine stood still all four times.
    let has = |status: &Value, serial: u64| {
        let all = status["channels"].as_array().unwrap();
        let of = |one: &Value| one["channel"] == "test.os.stable" && one["serial"] == serial;
        all.iter().any(of)
    };
    let (mut before, mut quickest) = (None, STATUS_HEARTBEAT);
    for serial in 1..=4 {
        let version = serial.to_string();
        let release = stage.realm.release(&os(), before, &version, &["ann"]);
        before = Some(release.head());
        stage.publish(&[&release]).await;
        let published = Instant::now();
        assert!(
            has(&event(&mut events), serial) || has(&event(&mut events), serial),
            "{serial} does not come"
        );
        quickest = quickest.min(published.elapsed());
    }
    assert!(quickest < STATUS_HEARTBEAT / 2, "{quickest:?}");
    let mut open = vec![events];
    for _ in 1..STREAMS {
        let (head, mut events) = begin(stage.admin, "/events", "localhost");
        assert!(head.contains("200 OK"), "{head}");
        event(&mut events);
        open.push(events);
    }
    let (head, _) = begin(stage.admin, "/events", "localhost");
    assert!(
        head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 10"),
        "{head}"
    );
    // Who has gone makes room.
    drop(open);
    until("there is room again", async || {
        begin(stage.admin, "/events", "localhost")
            .0
            .contains("200 OK")
    })
    .await;
}
