//! What an attacker will try: each test has the number that the attack has in `SECURITY.md`, and runs a real broker and the
//! real client, with a hostile relay between them where the attacker is on the way.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tidings_client::{
    Channel, Device, Error, Freshness, Head, NotNow, Pace, PublishError, Publisher, Serial, Source, Start, State, Statement, Timestamp,
    Verified, now,
};
use tidings_protocol::{statement::Release, verify::VerifyError};
use tidings_tests::{
    Daemon, Fixture,
    realm::{ROLES, Realm},
    relay::{self, Act, forge, honest, substitute},
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const ROOTS: &[&str] = &["root1", "root2"];
const BOTH: &[&str] = &["ann", "bob"];
/// Without beats, where a test is about something else.
const NO_BEATS: &[&str] = &["trust * 2 root1 root2 root3", "release * 2 ann bob", "withdraw * 1 stop"];

fn os() -> Channel {
    "test.os.stable".parse().unwrap()
}

fn serial(number: u32) -> Serial {
    Serial::new(number).unwrap()
}

fn serials(statements: &[Verified<Statement>]) -> Vec<u32> {
    statements.iter().map(|s| s.serial().number()).collect()
}

/// A broker that is provisioned for a realm.
struct Stage {
    fixture: Fixture,
    _daemon: Daemon,
    publisher: Publisher,
}

impl Stage {
    async fn new(realm: &Realm) -> Self {
        Self::with(realm, "").await
    }

    async fn with(realm: &Realm, configuration: &str) -> Self {
        let mut fixture = Fixture::new().unwrap();
        fixture.anchor = realm.anchor.clone();
        fixture.configure(configuration).unwrap();
        let daemon = fixture.start().unwrap();
        let publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
        let mut stage = Self { fixture, _daemon: daemon, publisher };
        stage.publish(&realm.log).await;
        stage
    }

    async fn publish(&mut self, statements: &[Statement]) {
        for statement in statements {
            self.publisher.publish(statement).await.unwrap_or_else(|e| panic!("{}: {e}", statement.message_id()));
        }
    }

    /// What the broker says to a statement that it does not take.
    async fn refusal(&mut self, statement: &Statement) -> String {
        match self.publisher.publish(statement).await {
            Ok(_) => panic!("{} was taken", statement.message_id()),
            Err(PublishError::Refused(response)) => response.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.fixture.address
    }
}

fn source(realm: &Realm, brokers: &[SocketAddr]) -> Source {
    let urls: Vec<String> = brokers.iter().map(|address| format!("nntp://{address}")).collect();
    Source::new(urls.iter().map(String::as_str), &realm.anchor.to_string()).unwrap()
}

fn device(realm: &Realm, brokers: &[SocketAddr]) -> Device {
    Device::with_state(source(realm, brokers), ["test.os.stable"], State::ephemeral(&realm.anchor)).unwrap().with_start(Start::Oldest)
}

async fn poll(device: &mut Device) -> Result<Vec<u32>, Error> {
    timeout(PATIENCE, device.poll()).await.expect("the poll takes too long").map(|news| serials(&news))
}

/// Whether a release may be applied, and if not, why.
async fn clear(device: &mut Device, number: u32) -> Result<(), String> {
    match timeout(PATIENCE, device.may_apply(&os(), serial(number))).await.expect("it takes too long") {
        Ok(()) => Ok(()),
        Err(error) => Err(tidings_client::explain(&error)),
    }
}

/// A chain of releases, each after the one before.
fn releases(realm: &Realm, after: Option<Head>, count: u32, signers: &[&str]) -> Vec<Statement> {
    let mut all: Vec<Statement> = Vec::new();
    for number in 1..=count {
        let head = all.last().map(Statement::head).or(after);
        all.push(realm.release(&os(), head, &format!("1.{number}"), signers));
    }
    all
}

/// A relay that keeps back everything of a channel after a serial; beats too, if it is told to.
async fn withhold(to: SocketAddr, last: u32) -> SocketAddr {
    let selected = Mutex::new(String::new());
    let mischief = move |command: &str, answer: Vec<u8>| {
        if let Some(channel) = command.strip_prefix("GROUP ") {
            channel.clone_into(&mut selected.lock().unwrap());
            let text = String::from_utf8_lossy(&answer).into_owned();
            let marks: Vec<&str> = text.split_whitespace().collect();
            if channel == "test.os.stable" && marks[0] == "211" {
                let high = marks[3].parse::<u32>().unwrap().min(last);
                return Act::Send(format!("211 {high} {} {high} {channel}\r\n", marks[2]).into_bytes());
            }
        }
        let number = command.split(' ').nth(1).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        let hidden = *selected.lock().unwrap() == "test.os.stable" && number > last;
        match command {
            "XWATCH" => Act::Send(if String::from_utf8_lossy(&answer).contains("test.os.stable") { vec![] } else { answer }),
            _ if hidden => Act::Send(b"423 no such article\r\n".to_vec()),
            _ => Act::Send(answer),
        }
    };
    relay::start(&[to], mischief).await.unwrap()
}

// Signatures and keys.

#[tokio::test]
async fn attacks_01_02_04_08_10_66_what_is_not_signed_as_it_must_be_is_taken_by_nobody() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let good = realm.release(&os(), None, "1.0", BOTH);
    let draft = realm.release(&os(), None, "6.6", &[]);
    let by = |names: &[&str]| realm.release(&os(), None, "6.6", names);
    let with = |lines: String| Statement::parse(&[draft.signed_part(), lines.as_bytes()].concat()).unwrap();
    let line = |statement: &Statement, n: usize| {
        let text = String::from_utf8(statement.octets().to_vec()).unwrap();
        text.lines().filter(|l| l.starts_with("Signature: ")).nth(n).unwrap().to_owned() + "\n"
    };
    let elsewhere = realm.release(&"test.os.testing".parse().unwrap(), None, "6.6", BOTH);
    let forgeries = [
        ("01 a stranger's", by(&["mallory"]), "5.2-4"),
        ("02 below the threshold", by(&["ann"]), "5.2-4"),
        ("02 one of the two and a stranger", by(&["ann", "mallory"]), "5.2-4"),
        ("04 a bad one beside a good one", with(line(&by(&["ann"]), 0) + &line(&good, 1)), "5.2-3"),
        ("08 from another statement", with(line(&good, 0) + &line(&good, 1)), "5.2-3"),
        ("08 from another channel", with(line(&elsewhere, 0) + &line(&elsewhere, 1)), "5.2-3"),
        ("10 by the beat key", by(&["beat"]), "5.2-4"),
        ("10 by the withdraw key", by(&["stop"]), "5.2-4"),
        ("10 by trust keys", by(&["root1", "root2", "root3"]), "5.2-4"),
    ];
    for (what, forged, step) in &forgeries {
        let said = stage.refusal(forged).await;
        assert!(said.contains(&format!("(spec {step})")), "{what}: {said}");
        let liar = substitute(stage.address(), "test.os.stable", std::slice::from_ref(forged)).await;
        let mut device = device(&realm, &[liar]);
        let error = poll(&mut device).await.unwrap_err();
        assert!(tidings_client::explain(&error).contains(&format!("(spec {step})")), "{what}: {error}");
        assert_eq!(device.state().head(&os()), None, "{what}");
    }
    // 09: what was signed comes out octet for octet, whoever relayed it.
    stage.publish(std::slice::from_ref(&good)).await;
    let relayed = relay::start(&[stage.address()], honest).await.unwrap();
    let mut device = device(&realm, &[relayed]);
    let news = device.poll().await.unwrap();
    assert_eq!(news[0].octets(), good.octets());
}

#[tokio::test]
async fn attack_03_one_key_under_two_names_is_one_key() {
    let realm = Realm::new(ROLES, ROOTS);
    let text = String::from_utf8(realm.log[0].signed_part().to_vec()).unwrap();
    let ann = text.lines().find(|l| l.starts_with("Key: ") && l.ends_with(" ann")).unwrap();
    let twice = text.replace(ann, &format!("{ann}\n{}", ann.replace(" ann", " ann2")));
    assert!(Statement::parse_draft(twice.as_bytes()).unwrap_err().reason.contains("each key"), "by the grammar");
    // And a signature that stands twice is refused before anybody counts.
    let release = realm.release(&os(), None, "1", &["ann"]);
    let octets = String::from_utf8(release.octets().to_vec()).unwrap();
    let line = octets.lines().last().unwrap().to_owned();
    assert!(Statement::parse(format!("{octets}{line}\n").as_bytes()).unwrap_err().reason.contains("one signature of each key"));
}

#[tokio::test]
async fn attacks_11_16_trust_changes_only_by_the_thresholds_of_both() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let coup = &["trust * 1 mallory", "release * 1 mallory", "withdraw * 1 mallory"];
    let lowered = &["trust * 1 root1", "release * 1 ann", "withdraw * 1 stop"];
    let moved = &["trust * 2 new1 new2", "release * 2 ann bob", "withdraw * 1 stop"];
    let forgeries = [
        ("11 new keys alone", realm.trust(coup, &[], &["mallory"]), "5.2-4"),
        ("11 one old key", realm.trust(moved, &[], &["root1", "new1", "new2"]), "5.2-4"),
        ("11 old keys alone", realm.trust(moved, &[], &["root1", "root2"]), "5.2-4"),
        ("16 by the threshold that it lowers", realm.trust(lowered, &[], &["root1"]), "5.2-4"),
        ("10 by the beat key", realm.trust(coup, &[], &["beat", "mallory"]), "5.2-4"),
    ];
    for (what, forged, step) in &forgeries {
        let said = stage.refusal(forged).await;
        assert!(said.contains(&format!("(spec {step})")), "{what}: {said}");
        let liar = substitute(stage.address(), "test.trust", &[realm.log[0].clone(), forged.clone()]).await;
        let mut device = device(&realm, &[liar]);
        let error = poll(&mut device).await.unwrap_err();
        assert!(tidings_client::explain(&error).contains(&format!("(spec {step})")), "{what}: {error}");
        assert_eq!(device.state().trust().map(|t| t.serial().number()), Some(1), "{what}: the first statement stays walked");
    }
    // Those of both: taken, at once, by broker and device.
    let good = realm.trust(moved, &[], &["root1", "root2", "new1", "new2"]);
    stage.publish(&[good]).await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(device.trust().await.unwrap().serial().number(), 2);
}

#[tokio::test]
async fn attack_13_a_whole_set_of_retired_keys_signs_nothing_new_and_what_it_signed_stays_valid() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let old = releases(&realm, None, 3, BOTH);
    stage.publish(&old).await;
    let head = old[2].head();
    let stale = Realm { log: realm.log.clone(), anchor: realm.anchor.clone(), ..realm };
    let mut before = device(&stale, &[stage.address()]);
    assert_eq!(poll(&mut before).await.unwrap(), [1, 2, 3]);
    // Ann and Bob lose their keys; the checkpoint vouches for what they signed until then.
    let new = &["trust * 2 root1 root2 root3", "release * 2 cem dan", "withdraw * 1 stop"];
    let rotated = realm.rotate(new, &[(&os(), head)], ROOTS);
    stage.publish(&[rotated]).await;
    // The thief signs with the complete old set: on top, under the old trust, and in another place.
    for forged in [
        realm.release(&os(), Some(head), "6.6", BOTH),
        stale.release(&os(), Some(head), "6.6", BOTH),
        stale.release(&os(), Some(old[1].head()), "6.6", BOTH),
    ] {
        let said = stage.refusal(&forged).await;
        assert!(said.contains("(spec 5.2-4)") || said.contains("(spec 5.3-2)") || said.contains("head"), "{said}");
        let mut log = old[..forged.serial().number() as usize - 1].to_vec();
        log.push(forged);
        let liar = substitute(stage.address(), "test.os.stable", &log).await;
        for device in [&mut device(&realm, &[liar]), &mut before] {
            device.set_source(source(&realm, &[liar])).unwrap();
            let result = poll(device).await;
            assert!(result.is_err(), "{result:?}");
        }
    }
    // The old history is as good as ever for a device that comes new, and goes on under the new keys.
    stage.publish(&[realm.release(&os(), Some(head), "2.0", &["cem", "dan"])]).await;
    assert_eq!(poll(&mut device(&realm, &[stage.address()])).await.unwrap(), [1, 2, 3, 4]);
    before.set_source(source(&realm, &[stage.address()])).unwrap();
    assert_eq!(poll(&mut before).await.unwrap(), [4]);
}

#[tokio::test]
async fn attack_14_a_stolen_beat_key_or_one_of_two_release_keys_installs_nothing_and_the_stop_key_works_alone() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all).await;
    let beat = |after: Option<Head>, head: Head| realm.beat(after, &[(&os(), head)], 600, &["beat"]);
    let first = beat(None, all[1].head());
    stage.publish(std::slice::from_ref(&first)).await;
    let mut good = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut good).await.unwrap(), [1, 2]);
    assert!(good.freshness(&os()).is_current());
    clear(&mut good, 2).await.unwrap();

    // The thief of the beat key names a head that was never released, and offers a statement to go with it.
    let forged = realm.release(&os(), Some(all[1].head()), "6.6", &["beat"]);
    let lie = beat(Some(first.head()), forged.head());
    let liar = substitute(stage.address(), "test.os.stable", &[all[0].clone(), all[1].clone(), forged.clone()]).await;
    let liar = substitute(liar, "test.beat", &[first.clone(), lie.clone()]).await;
    let mut deceived = device(&realm, &[liar]);
    assert!(poll(&mut deceived).await.is_err());
    assert!(clear(&mut deceived, 3).await.is_err());
    assert_eq!(deceived.state().head(&os()), None, "not even the good ones below it, in one run");
    // One of two release keys is as little.
    let half = realm.release(&os(), Some(all[1].head()), "6.6", &["ann"]);
    let liar = substitute(stage.address(), "test.os.stable", &[all[0].clone(), all[1].clone(), half]).await;
    assert!(poll(&mut device(&realm, &[liar])).await.is_err());

    // The withdraw key alone stops a rollout, and vouches for no release below it.
    let smuggled = realm.release(&os(), Some(all[1].head()), "6.6", &["stop"]);
    let above = realm.withdraw(&os(), smuggled.head(), serial(1), None, &["stop"]);
    let liar = substitute(stage.address(), "test.os.stable", &[all[0].clone(), all[1].clone(), smuggled, above]).await;
    assert!(poll(&mut device(&realm, &[liar])).await.is_err());
    let withdrawal = realm.withdraw(&os(), all[1].head(), serial(2), Some(serial(1)), &["stop"]);
    stage.publish(&[withdrawal]).await;
    assert_eq!(poll(&mut good).await.unwrap(), [3]);
    assert!(clear(&mut good, 2).await.unwrap_err().contains("withdrawn by 3"));
    clear(&mut good, 1).await.unwrap();
}

#[tokio::test]
async fn attack_15_a_device_that_was_sent_to_the_last_serial_comes_back_by_a_checkpoint() {
    let mut realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let honest = releases(&realm, None, 2, BOTH);
    stage.publish(&honest).await;
    // The thief of both release keys: the broker takes the next serial only; a hostile mirror claims that all below has expired.
    let far = Head { serial: serial(2_147_483_645), id: honest[0].id() };
    let forged = realm.release(&os(), Some(far), "6.6", BOTH);
    assert!(stage.refusal(&forged).await.contains("head of the channel is 2 "));
    let last = forged.clone();
    let lie = move |command: &str, answer: Vec<u8>| match command {
        "GROUP test.os.stable" => Act::Send(b"211 1 2147483646 2147483646 test.os.stable\r\n".to_vec()),
        "ARTICLE 2147483646" => Act::Send(forge(b"220", &last, None)),
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[stage.address()], lie).await.unwrap();
    let mut device = device(&realm, &[liar]);
    assert_eq!(poll(&mut device).await.unwrap(), [2_147_483_646], "the keys are stolen: this is authentic");
    device.set_source(source(&realm, &[stage.address()])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0], "an honest broker looks as if it were behind");
    // The keys are taken away, and the checkpoint says what the log is.
    let new = &["trust * 2 root1 root2 root3", "release * 2 cem dan", "withdraw * 1 stop"];
    let rotated = realm.rotate(new, &[(&os(), honest[1].head())], ROOTS);
    stage.publish(&[rotated]).await;
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    stage.publish(&[realm.release(&os(), Some(honest[1].head()), "2.0", &["cem", "dan"])]).await;
    assert_eq!(poll(&mut device).await.unwrap(), [3]);
}

// Freshness and time.

#[tokio::test]
async fn attacks_17_24_31_a_frozen_device_knows_it_and_asks_elsewhere() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 3, BOTH);
    stage.publish(&all).await;
    let frozen = withhold(stage.address(), 2).await;
    let mut alone = device(&realm, &[frozen]);
    // 31: without a beat a new device is STALE, whatever it is shown.
    assert_eq!(poll(&mut alone).await.unwrap(), [1, 2]);
    assert_eq!(alone.freshness(&os()), Freshness::Stale { since: None });
    assert!(clear(&mut alone, 2).await.unwrap_err().contains("(spec 5.6-2)"));
    // 17: with a beat it knows that it is behind; nothing is installed.
    let beat = realm.beat(None, &[(&os(), all[2].head())], 600, &["beat"]);
    stage.publish(&[beat]).await;
    assert_eq!(poll(&mut alone).await.unwrap(), [] as [u32; 0]);
    assert_eq!(alone.freshness(&os()), Freshness::Behind { head: all[2].head() });
    assert!(clear(&mut alone, 2).await.unwrap_err().contains("BEHIND"));
    // 24: a second, honest upstream is asked at once, in the same poll.
    alone.set_source(source(&realm, &[frozen, stage.address()])).unwrap();
    assert_eq!(poll(&mut alone).await.unwrap(), [3]);
    assert!(alone.freshness(&os()).is_current());
    clear(&mut alone, 3).await.unwrap();
}

#[tokio::test]
async fn attacks_17_25_an_old_beat_is_no_proof_for_long_and_never_again() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all[..1]).await;
    let short = realm.beat(None, &[(&os(), all[0].head())], 3, &["beat"]);
    stage.publish(std::slice::from_ref(&short)).await;
    // Everything stands still behind the relay from here on: news, beats, all.
    let frozen = substitute(stage.address(), "test.os.stable", &all[..1]).await;
    let frozen = substitute(frozen, "test.beat", std::slice::from_ref(&short)).await;
    let mut device = device(&realm, &[frozen]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(device.freshness(&os()).is_current());
    let next = realm.beat(Some(short.head()), &[(&os(), all[1].head())], 600, &["beat"]);
    stage.publish(&[all[1].clone(), next]).await;
    let began = now();
    while device.freshness(&os()).is_current() {
        assert!(now().seconds() < began.seconds() + 10, "the beat never ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    assert!(matches!(device.freshness(&os()), Freshness::Stale { since: Some(_) }));
    // With the newer beat it is current again; the old one, replayed, has no effect.
    device.set_source(source(&realm, &[stage.address()])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    device.set_source(source(&realm, &[frozen])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [] as [u32; 0]);
    assert!(device.freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_18_a_watch_that_only_looks_alive_is_left_when_the_beat_ends() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    let beat = realm.beat(None, &[(&os(), all[0].head())], 3, &["beat"]);
    stage.publish(&[all[0].clone(), beat.clone()]).await;
    // Heartbeats come through, news and beats do not; and the relay has nothing new when it is asked.
    let quiet = substitute(stage.address(), "test.os.stable", &all[..1]).await;
    let quiet = substitute(quiet, "test.beat", std::slice::from_ref(&beat)).await;
    let deaf = |command: &str, answer: Vec<u8>| match command {
        "XWATCH" if answer.starts_with(b"0") => Act::Send(answer),
        "XWATCH" => Act::Send(vec![]),
        _ => Act::Send(answer),
    };
    let quiet = relay::start(&[quiet], deaf).await.unwrap();
    let mut device = device(&realm, &[quiet, stage.address()]);
    let monitor = device.monitor();
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap().serial().number(), 1);
    assert!(monitor.freshness(&os()).is_current());
    let next = realm.beat(Some(beat.head()), &[(&os(), all[1].head())], 600, &["beat"]);
    stage.publish(&[all[1].clone(), next]).await;
    // The audit is an hour away; it is the end of the beat that makes the device ask the other broker.
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap().serial().number(), 2);
    assert!(monitor.freshness(&os()).is_current());
}

#[tokio::test]
async fn attack_19_a_broker_that_drips_is_left_for_another() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    stage.publish(&releases(&realm, None, 3, BOTH)).await;
    let drip = |command: &str, answer: Vec<u8>| match command {
        _ if command.starts_with("ARTICLE") => Act::Drip(answer, Duration::from_millis(50)),
        _ => Act::Send(answer),
    };
    let slow = relay::start(&[stage.address()], drip).await.unwrap();
    let pace = Pace { ask: Duration::from_millis(700), ..Pace::default() };
    let mut device = device(&realm, &[slow, stage.address()]).with_pace(pace);
    let began = std::time::Instant::now();
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// The clock of the tests that have their own.
static CLOCK: AtomicU64 = AtomicU64::new(0);
fn clock() -> Timestamp {
    Timestamp::from_seconds(CLOCK.load(Ordering::Relaxed))
}

#[tokio::test]
async fn attacks_21_22_expiry_stops_installing_and_nothing_else_whatever_the_clock_says() {
    const DAY: u64 = 86_400;
    let mut realm = Realm::at(Timestamp::from_seconds(now().seconds() - 30 * DAY), ROLES, ROOTS);
    realm.log.clear();
    realm.expires = 10 * DAY;
    let first = realm.trust(ROLES, &[], ROOTS);
    realm.anchor.id = first.id();
    realm.log.push(first);
    let mut stage = Stage::new(&realm).await;
    let time = realm.time.seconds();
    let all = releases(&realm, None, 2, BOTH);
    let beat = realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"]);
    stage.publish(&[all[0].clone(), beat.clone()]).await;
    let (path, address) = (stage.fixture.directory.join("clock.state"), stage.address());
    let open = || {
        let state = State::open(&path, &realm.anchor).unwrap().with_clock(clock);
        Device::with_state(source(&realm, &[address]), ["test.os.stable"], state).unwrap()
    };
    // 22: no clock at all: the signed times are enough to be current, and to install.
    CLOCK.store(0, Ordering::Relaxed);
    let mut device = open();
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(device.freshness(&os()).is_current());
    clear(&mut device, 1).await.unwrap();
    // Far ahead: stale and expired, so nothing is installed; reading goes on.
    CLOCK.store(time + 400 * DAY, Ordering::Relaxed);
    assert!(!device.freshness(&os()).is_current());
    assert!(clear(&mut device, 1).await.is_err());
    // 11 days on, by a signed time: the trust has expired for a device that has seen it, and stays so when its clock is set back.
    let mut later =
        Realm { time: Timestamp::from_seconds(time + 11 * DAY), log: realm.log.clone(), anchor: realm.anchor.clone(), expires: 365 * DAY };
    let next = later.release(&os(), Some(all[0].head()), "1.2", BOTH);
    let live = later.beat(Some(beat.head()), &[(&os(), next.head())], 600, &["beat"]);
    stage.publish(&[next.clone(), live.clone()]).await;
    CLOCK.store(0, Ordering::Relaxed);
    assert_eq!(poll(&mut device).await.unwrap(), [2], "expired trust still proves what is read");
    assert!(device.freshness(&os()).is_current());
    assert!(clear(&mut device, 2).await.unwrap_err().contains("(spec 5.6-3)"));
    drop(device);
    let mut device = open();
    assert_eq!(device.state().floor(), later.time, "21: the floor is kept");
    assert!(clear(&mut device, 2).await.unwrap_err().contains("(spec 5.6-3)"));
    // Renewed, it goes on by itself: expired is not bricked.
    let renewed = later.rotate(ROLES, &[], ROOTS);
    let confirmed = later.beat(Some(live.head()), &[(&os(), next.head())], 600, &["beat"]);
    stage.publish(&[renewed, confirmed]).await;
    clear(&mut device, 2).await.unwrap();
}

#[tokio::test]
async fn attack_23_what_is_from_the_future_is_relayed_and_not_applied() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let release = Release { version: "1".into(), not_before: Some(now().plus(3600)), ..Release::default() };
    stage.publish(&[realm.release_with(&os(), None, release, BOTH)]).await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(clear(&mut device, 1).await.unwrap_err().contains("(spec 5.6-6)"));
    let ahead = Realm { time: now().plus(2 * 86_400), ..realm };
    assert!(stage.refusal(&ahead.release(&os(), None, "2", BOTH)).await.contains("after this broker's clock"));
}

#[tokio::test]
async fn attacks_15_21_a_stolen_beat_key_moves_time_and_serials_ahead_only_until_it_is_taken_away() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&all).await;
    let far = Realm { time: "9990-01-01T00:00:00Z".parse().unwrap(), log: realm.log.clone(), anchor: realm.anchor.clone(), ..realm };
    // It has the last serial too, so that no honest beat could ever follow.
    let before = Head { serial: serial(2_147_483_646), id: all[0].id() };
    let poison = far.beat(Some(before), &[(&os(), all[0].head())], 600, &["beat"]);
    assert!(stage.refusal(&poison).await.contains("after this broker's clock"));
    let liar = substitute(stage.address(), "test.beat", &[poison]).await;
    let mut device = device(&realm, &[liar]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert!(clear(&mut device, 1).await.unwrap_err().contains("(spec 5.6-3)"), "the trust seems to have expired");
    let new = &["trust * 2 root1 root2 root3", "release * 2 ann bob", "withdraw * 1 stop", "beat * 1 pulse"];
    let rotated = realm.rotate(new, &[], ROOTS);
    stage.publish(&[rotated]).await;
    device.set_source(source(&realm, &[stage.address()])).unwrap();
    poll(&mut device).await.unwrap();
    assert!(device.state().floor() < now().plus(60), "{}", device.state().floor());
    stage.publish(&[realm.beat(None, &[(&os(), all[0].head())], 600, &["pulse"])]).await;
    poll(&mut device).await.unwrap();
    assert!(device.freshness(&os()).is_current());
    clear(&mut device, 1).await.unwrap();
}

// Log integrity.

#[tokio::test]
async fn attack_26_a_hole_that_hides_a_withdrawal_is_filled_elsewhere_and_never_installed_over() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 2, BOTH);
    let withdrawal = realm.withdraw(&os(), first[1].head(), serial(2), Some(serial(1)), &["stop"]);
    let more = realm.release(&os(), Some(withdrawal.head()), "1.4", BOTH);
    stage.publish(&first).await;
    let mut device = device(&realm, &[stage.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    stage.publish(&[withdrawal, more]).await;
    let lie = |command: &str, answer: Vec<u8>| match command {
        "GROUP test.os.stable" => Act::Send(b"211 1 4 4 test.os.stable\r\n".to_vec()),
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[stage.address()], lie).await.unwrap();
    // Alone it can hide the withdrawal, but nothing below it can be applied any more.
    let mut alone = Device::with_state(source(&realm, &[liar]), ["test.os.stable"], State::ephemeral(&realm.anchor)).unwrap();
    assert_eq!(poll(&mut alone).await.unwrap(), [4]);
    assert!(clear(&mut alone, 2).await.unwrap_err().contains("(spec 5.6-1)"));
    // With an honest broker beside it, nothing is passed over.
    device.set_source(source(&realm, &[liar, stage.address()])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [3, 4]);
}

#[tokio::test]
async fn attack_27_events_that_come_late_twice_or_in_another_order_are_put_right() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 6, BOTH);
    stage.publish(&all[..1]).await;
    // The first event is kept until the second has gone out; the third comes twice; the fourth is another statement.
    let kept: Mutex<Vec<u8>> = Mutex::default();
    let forged = realm.release(&os(), Some(all[3].head()), "6.6", &["ann"]);
    let mischief = move |command: &str, answer: Vec<u8>| {
        if command != "XWATCH" || !answer.windows(15).any(|w| w == b"test.os.stable>") {
            return Act::Send(answer);
        }
        match answer.split(|o| *o == b' ').next() {
            Some(b"2") => {
                *kept.lock().unwrap() = answer;
                Act::Send(vec![])
            }
            Some(b"3") => Act::Send([answer, std::mem::take(&mut kept.lock().unwrap())].concat()),
            Some(b"4") => Act::Send([answer.clone(), answer].concat()),
            Some(b"5") => Act::Send(forge(&answer, &forged, None)),
            _ => Act::Late(answer, Duration::from_millis(50)),
        }
    };
    let hostile = relay::start(&[stage.address()], mischief).await.unwrap();
    let mut device = device(&realm, &[hostile]);
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    let mut seen = Vec::new();
    let mut published = 1;
    while seen.len() < 6 {
        match timeout(PATIENCE, watch.next()).await.unwrap().unwrap() {
            Ok(statement) => seen.push(statement.serial().number()),
            Err(error) => assert!(matches!(error, Error::Verify { .. } | Error::Unreachable { .. } | Error::Io(_)), "{error}"),
        }
        if published < 6 {
            stage.publish(&all[published..(published + 2).min(6)]).await;
            published = (published + 2).min(6);
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn attack_28_a_fork_stops_is_kept_as_evidence_and_ends_by_a_checkpoint() {
    let mut realm = Realm::new(ROLES, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let first = releases(&realm, None, 1, BOTH);
    let ours = realm.release(&os(), Some(first[0].head()), "1.2", BOTH);
    let theirs = realm.release(&os(), Some(first[0].head()), "1.2-other", BOTH);
    one.publish(&[first[0].clone(), ours.clone()]).await;
    two.publish(&[first[0].clone(), theirs.clone()]).await;
    let path = one.fixture.directory.join("forked.state");
    let open = |brokers: &[SocketAddr]| Device::open(source(&realm, brokers), ["test.os.stable"], &path).unwrap().with_start(Start::Oldest);
    let mut device = open(&[one.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    device.set_source(source(&realm, &[two.address()])).unwrap();
    assert!(matches!(poll(&mut device).await, Err(Error::Fork(_))));
    assert_eq!(device.freshness(&os()), Freshness::Forked);
    drop(device);
    // It is remembered, also beside the honest broker, and nothing is installed or taken any more.
    let more = realm.release(&os(), Some(ours.head()), "1.3", BOTH);
    one.publish(std::slice::from_ref(&more)).await;
    let mut device = open(&[one.address()]);
    assert!(matches!(poll(&mut device).await, Err(Error::Fork(_))));
    assert!(clear(&mut device, 1).await.is_err());
    drop(device);
    // Whoever has the anchor can verify the evidence.
    let evidence = one.fixture.directory.join("evidence");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(tidings_tests::binary("tidings"));
        command.args(arguments).env("TIDINGS_ANCHOR", realm.anchor.to_string()).env("TIDINGS_BROKERS", one.fixture.url());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = run(&["evidence", "test.os.stable", "--state", path.to_str().unwrap(), "--out", evidence.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["verify", evidence.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("FORK of test.os.stable at 2") && text.matches("ann, bob").count() >= 2, "{text}");
    let (code, text) = run(&["status", "--state", path.to_str().unwrap(), "--json"]);
    assert!(code == Some(1) && text.contains("\"state\":\"FORKED\""), "{text}");

    // The checkpoint names the other branch: the device goes over to it, and only there.
    let settled = realm.rotate(ROLES, &[(&os(), theirs.head())], ROOTS);
    two.publish(std::slice::from_ref(&settled)).await;
    one.publish(&[settled]).await;
    let open = |brokers: &[SocketAddr]| Device::open(source(&realm, brokers), ["test.os.stable"], &path).unwrap();
    let mut device = open(&[one.address()]);
    let refused = poll(&mut device).await;
    assert!(
        matches!(&refused, Err(Error::Unreachable { source, .. }) if matches!(&**source, Error::Verify { source: VerifyError::Checkpoint { .. }, .. })),
        "{refused:?}"
    );
    device.set_source(source(&realm, &[one.address(), two.address()])).unwrap();
    assert_eq!(poll(&mut device).await.unwrap(), [2]);
    assert_eq!(device.state().head(&os()), Some(theirs.head()));
    let beat = realm.beat(None, &[(&os(), theirs.head())], 600, &["beat"]);
    two.publish(&[beat]).await;
    device.set_source(source(&realm, &[two.address()])).unwrap();
    clear(&mut device, 2).await.unwrap();
}

#[tokio::test]
async fn attack_28_a_broker_refuses_the_second_statement_keeps_both_and_goes_on() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 2, BOTH);
    stage.publish(&all).await;
    let later = Realm { time: now().plus(600), log: realm.log.clone(), anchor: realm.anchor.clone(), ..realm };
    // A lost race is none; another statement ten minutes later is.
    let race = realm.release(&os(), Some(all[0].head()), "1.2-race", BOTH);
    let fork = later.release(&os(), Some(all[0].head()), "1.2-fork", BOTH);
    let deep = later.release(&os(), None, "1.1-fork", BOTH);
    for statement in [&race, &fork, &deep, &fork] {
        assert!(stage.refusal(statement).await.contains("the head of the channel is 2"));
    }
    let directory = stage.fixture.directory.join("data/forks");
    let files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let mut command = std::process::Command::new(tidings_tests::binary("tidings"));
        let output = command.arg("verify").arg(&file).env("TIDINGS_ANCHOR", realm.anchor.to_string()).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("FORK of test.os.stable"), "{output:?}");
    }
    stage.publish(&[realm.release(&os(), Some(all[1].head()), "1.3", BOTH)]).await;
}

#[tokio::test]
async fn attack_29_with_a_quorum_no_single_broker_shows_a_log_of_its_own() {
    // Both release keys are stolen, and one broker is the thief's.
    let realm = Realm::new(NO_BEATS, ROOTS);
    let (mut honest, mut hostile) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let first = releases(&realm, None, 1, BOTH);
    honest.publish(&first).await;
    hostile.publish(&[first[0].clone(), realm.release(&os(), Some(first[0].head()), "6.6", BOTH)]).await;
    let mut device = device(&realm, &[hostile.address(), honest.address()]).with_quorum(2);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2]);
    let refused = device.may_apply(&os(), serial(2)).await.unwrap_err();
    assert!(matches!(refused, Error::Quorum { agreed: 1, wanted: 2 }), "{refused}");
    // What both have is agreed on as soon as both have the head.
    honest.publish(&[realm.release(&os(), Some(first[0].head()), "1.2", BOTH)]).await;
    assert!(matches!(device.may_apply(&os(), serial(2)).await, Err(Error::Fork(_))), "and now it is plain who lies");
}

#[tokio::test]
async fn attack_29_two_devices_behind_a_split_view_find_out_when_they_meet_the_beat() {
    let realm = Realm::new(ROLES, ROOTS);
    let (mut one, mut two) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let (a, b) = (realm.release(&os(), None, "a", BOTH), realm.release(&os(), None, "b", BOTH));
    one.publish(&[a.clone(), realm.beat(None, &[(&os(), a.head())], 600, &["beat"])]).await;
    two.publish(std::slice::from_ref(&b)).await;
    let split = relay::start(&[two.address(), one.address()], honest).await.unwrap();
    let mut device = device(&realm, &[split]);
    assert_eq!(poll(&mut device).await.unwrap(), [1]);
    assert_eq!(device.state().head(&os()), Some(b.head()));
    assert!(!device.freshness(&os()).is_current());
    device.set_source(source(&realm, &[one.address()])).unwrap();
    assert!(matches!(poll(&mut device).await, Err(Error::Fork(_))));
}

#[tokio::test]
async fn attack_30_an_origin_that_was_restored_from_a_backup_gets_no_second_statement_for_a_serial() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let (mut origin, mut mirror) = (Stage::new(&realm).await, Stage::new(&realm).await);
    let all = releases(&realm, None, 3, BOTH);
    origin.publish(&all[..2]).await;
    mirror.publish(&all).await;
    let mut publisher = Publisher::connect(source(&realm, &[origin.address(), mirror.address()])).await.unwrap();
    let error = publisher.newest_anywhere(&os()).await.unwrap_err().to_string();
    assert!(error.contains("has test.os.stable 3 already") && error.contains("restored from a backup"), "{error}");
    // The device is as little impressed.
    let mut device = device(&realm, &[mirror.address()]);
    assert_eq!(poll(&mut device).await.unwrap(), [1, 2, 3]);
    origin.publish(&[realm.release(&os(), Some(all[1].head()), "other", BOTH)]).await;
    device.set_source(source(&realm, &[origin.address()])).unwrap();
    assert!(matches!(poll(&mut device).await, Err(Error::Fork(_))));
}

#[tokio::test]
async fn attack_34_a_statement_of_another_channel_is_not_taken() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let other: Channel = "test.os.testing".parse().unwrap();
    stage.publish(&[realm.release(&os(), None, "1", BOTH)]).await;
    let liar = substitute(stage.address(), "test.os.stable", &[realm.release(&other, None, "1", BOTH)]).await;
    let error = poll(&mut device(&realm, &[liar])).await.unwrap_err();
    assert!(tidings_client::explain(&error).contains("(spec 5.2-1)"), "{error}");
}

#[tokio::test]
async fn attacks_44_67_who_offers_too_much_that_is_refused_is_cut_off() {
    let realm = Realm::new(NO_BEATS, ROOTS);
    let stage = Stage::new(&realm).await;
    let forged = realm.release(&os(), None, "6.6", &["mallory"]);
    let mut connection = stage.fixture.source().unwrap().connect().await.unwrap();
    let mut refused = 0;
    while refused < 2_000 {
        match connection.post(&forged).await {
            Ok(response) if response.code.0 == 441 => refused += 1,
            Ok(response) => {
                assert_eq!(response.code.0, 400, "{response}");
                break;
            }
            Err(_) => break,
        }
    }
    assert_eq!(refused, 1_000);
    // Others are not concerned.
    assert_eq!(stage.fixture.source().unwrap().connect().await.unwrap().command("DATE").await.unwrap().code.0, 111);
}

#[tokio::test]
async fn attack_51_a_downgrade_needs_a_signed_way_back_and_a_barrier_is_one() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 2, BOTH);
    let barrier = Release { version: "2.0".into(), barrier: Some(serial(2)), ..Release::default() };
    let third = realm.release_with(&os(), Some(first[1].head()), barrier, BOTH);
    let beat = realm.beat(None, &[(&os(), third.head())], 600, &["beat"]);
    stage.publish(&first).await;
    stage.publish(&[third.clone(), beat]).await;
    let mut device = device(&realm, &[stage.address()]);
    poll(&mut device).await.unwrap();
    assert!(clear(&mut device, 3).await.unwrap_err().contains("(spec 5.6-8)"));
    for number in [2, 3] {
        device.apply(&os(), serial(number), async |_| Ok::<_, Error>(())).await.unwrap();
    }
    assert!(clear(&mut device, 2).await.unwrap_err().contains("(spec 5.6-7)"));
    stage.publish(&[realm.withdraw(&os(), third.head(), serial(3), Some(serial(2)), &["stop"])]).await;
    assert!(clear(&mut device, 2).await.unwrap_err().contains("(spec 5.6-7)"), "the withdraw key alone sends nobody back");
    let head = device.state().head(&os()).unwrap();
    assert_eq!(head.serial, serial(3));
    poll(&mut device).await.unwrap();
    let head = device.state().head(&os()).unwrap();
    stage.publish(&[realm.withdraw(&os(), head, serial(3), Some(serial(2)), &["stop", "ann", "bob"])]).await;
    clear(&mut device, 2).await.unwrap();
    assert!(clear(&mut device, 1).await.unwrap_err().contains("(spec 5.6-7)"));
}

#[tokio::test]
async fn attack_81_a_withdrawal_that_comes_after_staging_stops_it_before_the_reboot() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage.publish(&[all[0].clone(), realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"])]).await;
    let mut device = device(&realm, &[stage.address()]);
    poll(&mut device).await.unwrap();
    let (fetched, rebooted) = (AtomicBool::new(false), AtomicBool::new(false));
    let result = device
        .apply(&os(), serial(1), async |cleared| {
            fetched.store(true, Ordering::Relaxed);
            let withdrawal = realm.withdraw(&os(), all[0].head(), serial(1), None, &["stop"]);
            stage.publish(&[withdrawal]).await;
            cleared.confirm().await?;
            rebooted.store(true, Ordering::Relaxed);
            Ok::<_, Error>(())
        })
        .await;
    assert!(matches!(&result, Err(Error::NotNow { reason, .. }) if matches!(**reason, NotNow::Withdrawn { .. })), "{result:?}");
    assert!(fetched.into_inner() && !rebooted.into_inner());
    assert_eq!(device.state().view().applied(&os()), None);
    // Withdrawn already, it is not even begun.
    poll(&mut device).await.unwrap();
    let begun = device.apply(&os(), serial(1), async |_| -> Result<(), Error> { panic!("it was begun") }).await;
    assert!(begun.is_err());
}
