//! Pull mirrors: they copy, they verify all of it, and they serve nothing that they cannot prove.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tidings_broker::limits::MIRROR_AUDIT;
use tidings_client::{Channel, Device, Head, Publisher, Source, Start, State};
use tidings_protocol::{
    nntp::code,
    statement::{Body, Draft},
};
use tidings_tests::{
    Fixture,
    realm::{ROLES, Realm, rules},
    relay::{self, Act},
    tree::{connect, head, origin, os, publish, read_all, realm, releases, until, until_head},
};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_a_mirror_has_everything_and_tells_of_what_is_new() {
    let mut realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    // The history was signed by keys that are retired: only what came later vouches for it.
    let old = publish(&realm, &mut publisher, &os(), None, 300, &["ann", "bob"])
        .await
        .unwrap();
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    let rotated = realm.rotate(&roles, &[(&os(), old)], &["root1", "root2"]);
    publisher.publish(&rotated).await.unwrap();
    let head_of_300 = publish(&realm, &mut publisher, &os(), Some(old), 5, &["dora"])
        .await
        .unwrap();

    let region = origin.mirror_of(&[origin.address], "").unwrap();
    let _region = region.start().unwrap();
    let leaf = origin.mirror_of(&[region.address], "").unwrap();
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 305).await;
    let copied = read_all(&leaf, &os()).await.unwrap();
    assert_eq!(copied.len(), 305);
    assert_eq!(copied, read_all(&origin, &os()).await.unwrap());

    // What is new comes within moments, and a channel of the future comes by itself.
    let began = Instant::now();
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(head_of_300),
        1,
        &["dora"],
    )
    .await
    .unwrap();
    until_head(&leaf, &os(), 306).await;
    assert!(began.elapsed() < MIRROR_AUDIT / 2, "{:?}", began.elapsed());
    let new: Channel = "test.new.channel".parse().unwrap();
    publish(&realm, &mut publisher, &new, None, 3, &["dora"])
        .await
        .unwrap();
    until_head(&leaf, &new, 3).await;

    // The way that it came can be seen.
    let mut connection = connect(&leaf).await.unwrap();
    connection.group(&os(), None).await.unwrap();
    let headers = connection.listing("HEAD 306", code::HEAD).await.unwrap();
    assert!(
        headers.starts_with("Path: broker.invalid!broker.invalid!broker.invalid!not-for-mail\n"),
        "{headers}"
    );

    // A mirror begins nothing itself.
    let next = realm.release(
        &new,
        Some(read_all(&leaf, &new).await.unwrap()[2].head()),
        "2",
        &["dora"],
    );
    let refused = connect(&leaf).await.unwrap().post(&next).await.unwrap();
    assert_eq!(
        (refused.code, refused.text.contains("origin")),
        (code::POST_FAILED, true),
        "{refused}"
    );
}

/// A mirror of several upstreams, not started yet.
fn mirror(origin: &Fixture, upstreams: &[SocketAddr]) -> Fixture {
    origin.mirror_of(upstreams, "").unwrap()
}

/// What a mirror asks while an upstream answers nothing before it has so many questions in hand.
#[derive(Default)]
struct Look {
    selected: String,
    held: Vec<u8>,
    /// Questions that are held, and those that were answered.
    lines: usize,
    done: usize,
    trips: usize,
    after: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_hundred_logs_takes_two_round_trips_and_misses_nothing() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    let channels: Vec<Channel> = (0..100)
        .map(|number| format!("test.c{number:02}").parse().unwrap())
        .collect();
    for channel in &channels {
        publish(&realm, &mut publisher, channel, None, 1, &["ann", "bob"])
            .await
            .unwrap();
    }
    let leaf = mirror(&origin, &[origin.address]);
    let daemon = leaf.start().unwrap();
    for channel in &channels {
        until_head(&leaf, channel, 1).await;
    }
    daemon.kill().unwrap();
    // GROUP and STAT of each, and of the trust log.
    let (all, most) = (
        2 * (channels.len() + 1),
        2 * tidings_client::limits::PIPELINE,
    );
    let look = Arc::new(Mutex::new(Look::default()));
    let shared = look.clone();
    let relay = relay::start(&[origin.address], move |command, answer| {
        let mut look = shared.lock().unwrap();
        let look = &mut *look;
        if let Some(channel) = command.strip_prefix("GROUP ") {
            channel.clone_into(&mut look.selected);
            if look.done == all {
                look.after.push(channel.into());
            }
        }
        if look.done == all || !(command.starts_with("GROUP ") || command.starts_with("STAT ")) {
            return Act::Send(answer);
        }
        // In one channel it claims another statement, which has to be looked into.
        if command == "STAT 1" && look.selected == "test.c57" {
            let id = channels[57].as_str();
            look.held
                .extend(format!("223 1 <1.{}@{id}>\r\n", "0".repeat(64)).bytes());
        } else {
            look.held.extend(answer);
        }
        look.lines += 1;
        if look.lines < most.min(all - look.done) {
            return Act::Send(vec![]);
        }
        (look.done, look.trips) = (look.done + look.lines, look.trips + 1);
        look.lines = 0;
        Act::Send(std::mem::take(&mut look.held))
    })
    .await
    .unwrap();
    leaf.mirror(&[relay], "").unwrap();
    let _daemon = leaf.start().unwrap();
    until("the look is over", async || {
        !look.lock().unwrap().after.is_empty()
    })
    .await;
    let look = look.lock().unwrap();
    assert_eq!((look.done, look.trips), (all, 2));
    assert_eq!(look.after[0], "test.c57");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_was_interrupted_goes_on_where_it_was() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 1_000, &["ann", "bob"])
        .await
        .unwrap();
    let (asked, allowed) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(600)),
    );
    let relay = {
        let (asked, allowed) = (asked.clone(), allowed.clone());
        relay::start(&[origin.address], move |command, answer| {
            if command.starts_with("ARTICLE")
                && asked.fetch_add(1, Ordering::SeqCst) >= allowed.load(Ordering::SeqCst)
            {
                return Act::Late(answer, Duration::from_secs(600));
            }
            Act::Send(answer)
        })
        .await
        .unwrap()
    };
    let leaf = mirror(&origin, &[relay]);
    let daemon = leaf.start().unwrap();
    until("the upstream stalls", async || {
        asked.load(Ordering::SeqCst) > 600
    })
    .await;
    // Two chunks are stored, and nobody sees them.
    assert_eq!(head(&leaf, &os()).await.unwrap(), 0);
    daemon.kill().unwrap();
    allowed.store(usize::MAX, Ordering::SeqCst);
    let before = asked.load(Ordering::SeqCst);
    let _daemon = leaf.start().unwrap();
    until_head(&leaf, &os(), 1_000).await;
    let again = asked.load(Ordering::SeqCst) - before;
    assert!(again < 600, "{again} statements were read again");
    assert_eq!(read_all(&leaf, &os()).await.unwrap().len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_26_27_48_a_lying_upstream_is_named_and_avoided_and_the_honest_one_wins() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 10, &["ann", "bob"])
        .await
        .unwrap();
    let real = read_all(&origin, &os()).await.unwrap();
    // In the middle, another release that nobody has signed; headers, ids and numbers fit.
    let forgery = realm.release(&os(), Some(real[3].head()), "6.6", &["eve"]);
    let liar = relay::substitute(
        origin.address,
        "test.os.stable",
        &[real[0].clone(), forgery, real[9].clone()],
    )
    .await;
    // One that claims what cannot be, and one that has it and does not send it.
    let to = [origin.address];
    let boaster = relay::start(&to, |command, answer| {
        let text = String::from_utf8_lossy(&answer).into_owned();
        Act::Send(match command.split(' ').next() {
            Some("LIST") => text
                .replace(
                    "test.os.stable 10 1",
                    "test.os.stable 9223372036854775807 1",
                )
                .into_bytes(),
            Some("GROUP") if text.contains("test.os.stable") => {
                b"211 2147483647 1 2147483647 test.os.stable\r\n".to_vec()
            }
            _ => answer,
        })
    });
    let miser = relay::start(&to, |command, answer| match command {
        "ARTICLE 7" => Act::Send(b"423 no such article\r\n".to_vec()),
        _ => Act::Send(answer),
    });
    let (boaster, miser) = (boaster.await.unwrap(), miser.await.unwrap());
    for liar in [liar, boaster, miser] {
        let leaf = mirror(&origin, &[liar]);
        let _daemon = leaf.start().unwrap();
        let named = format!("upstream=nntp://{liar}");
        until("the lie is told of", async || {
            leaf.log()
                .lines()
                .any(|line| line.contains("WARN") && line.contains(&named))
        })
        .await;
        assert_eq!(head(&leaf, &os()).await.unwrap(), 0, "{}", leaf.log());
    }
    let leaf = mirror(&origin, &[liar, boaster, miser, origin.address]);
    let _daemon = leaf.start().unwrap();
    until_head(&leaf, &os(), 10).await;
    assert_eq!(read_all(&leaf, &os()).await.unwrap(), real);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_28_a_fork_between_upstreams_is_evidence_until_a_checkpoint_settles_it() {
    let mut realm = realm();
    let (one, _one, mut publisher) = origin(&realm, "").await.unwrap();
    let (two, _two, mut second) = origin(&realm, "").await.unwrap();
    let common = releases(&realm, &os(), None, 2, &["ann", "bob"]);
    for statement in &common {
        publisher.publish(statement).await.unwrap();
        second.publish(statement).await.unwrap();
    }
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(common[1].head()),
        2,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    let leaf = mirror(&one, &[one.address, two.address]);
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 4).await;
    // The other origin was restored from a backup, and signs another 3, 4 and 5.
    realm.time = realm.time.plus(60);
    let mut other = Vec::new();
    let mut after = common[1].head();
    for version in ["2.3", "2.4", "2.5"] {
        let statement = realm.release(&os(), Some(after), version, &["ann", "bob"]);
        second.publish(&statement).await.unwrap();
        after = statement.head();
        other.push(statement);
    }
    let forks = leaf.directory.join("data/forks");
    until("the evidence is kept", async || {
        std::fs::read_dir(&forks).is_ok_and(|files| files.count() > 0)
    })
    .await;
    assert_eq!(head(&leaf, &os()).await.unwrap(), 4);
    // Trust decides for the other branch: the mirror leaves its own.
    let settled = realm.rotate(ROLES, &[(&os(), other[2].head())], &["root1", "root2"]);
    publisher.publish(&settled).await.unwrap();
    second.publish(&settled).await.unwrap();
    until_head(&leaf, &os(), 5).await;
    assert_eq!(read_all(&leaf, &os()).await.unwrap()[2..], other[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_19_45_a_silent_upstream_and_one_that_closes_anywhere_hold_nobody_up() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    let head = publish(&realm, &mut publisher, &os(), None, 20, &["ann", "bob"])
        .await
        .unwrap();
    let silent = relay::start(&[origin.address], |_, answer| {
        Act::Late(answer, Duration::from_secs(600))
    })
    .await
    .unwrap();
    // Each connection is closed one answer later than the one before.
    let answers = Arc::new(AtomicUsize::new(0));
    let closing = {
        let answers = answers.clone();
        relay::start(&[origin.address], move |_, answer| {
            let half = answer.len() / 2;
            if answers.fetch_add(1, Ordering::SeqCst) % 7 == 6 {
                Act::Last(answer[..half].to_vec())
            } else {
                Act::Send(answer)
            }
        })
        .await
        .unwrap()
    };
    let alone = mirror(&origin, &[closing]);
    let _alone = alone.start().unwrap();
    let admin = tidings_tests::free_address().unwrap();
    let leaf = origin
        .mirror_of(
            &[silent, closing, origin.address],
            &format!("[admin]\nlisten = [\"{admin}\"]\n"),
        )
        .unwrap();
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 20).await;
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(head),
        1,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    until_head(&leaf, &os(), 21).await;
    let (_, status) = tidings_tests::http::get(admin, "/status").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let upstreams = status["upstreams"].as_array().unwrap();
    assert!(
        upstreams
            .iter()
            .any(|one| one["address"] == origin.url() && one["state"] == "tells"),
        "{status}"
    );
    // Nothing that was cut off was taken for whole.
    for (statement, copied) in read_all(&origin, &os())
        .await
        .unwrap()
        .iter()
        .zip(read_all(&alone, &os()).await.unwrap_or_default())
    {
        assert_eq!(*statement, copied);
    }
}

/// Passes octets on, and closes after so many from the broker.
async fn cutting(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, allowed) = (
        listener.local_addr().unwrap(),
        Arc::new(AtomicUsize::new(0)),
    );
    let limit = allowed.clone();
    tokio::spawn(async move {
        while let Ok((mut device, _)) = listener.accept().await {
            let mut left = limit.load(Ordering::SeqCst);
            tokio::spawn(async move {
                let mut broker = tokio::net::TcpStream::connect(to).await?;
                let (mut up, mut down) = (vec![0; 4096], vec![0; 4096]);
                while left > 0 {
                    tokio::select! {
                        n = device.read(&mut up) => match n? {
                            0 => break,
                            n => broker.write_all(&up[..n]).await?,
                        },
                        n = broker.read(&mut down) => {
                            let n = n?.min(left);
                            device.write_all(&down[..n]).await?;
                            left -= n;
                        }
                    }
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    (address, allowed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_may_close_after_every_octet() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 2, &["ann", "bob"])
        .await
        .unwrap();
    let all = read_all(&origin, &os()).await.unwrap();
    let (cut, allowed) = cutting(origin.address).await;
    let mut whole = 0;
    for octets in 1.. {
        allowed.store(octets, Ordering::SeqCst);
        let source = Source::new(
            [format!("nntp://{cut}").as_str()],
            &realm.anchor.to_string(),
        )
        .unwrap();
        let state = State::ephemeral(&realm.anchor);
        let mut device = Device::with_state(source, ["test.os.stable"], state)
            .unwrap()
            .with_start(Start::Oldest);
        match device.poll().await {
            // Everything or nothing of a channel, and what comes is what was signed.
            Ok(news) => {
                assert!(
                    news.is_empty() || news.iter().map(|statement| &**statement).eq(&all),
                    "after {octets} octets"
                );
                whole += usize::from(!news.is_empty());
            }
            Err(error) => assert!(
                whole == 0,
                "after {octets} octets {error}, and with fewer all was well"
            ),
        }
        if whole > 10 {
            assert!(octets > 2_000, "so few cannot have been all");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_missed_more_than_it_keeps_goes_on_behind_it() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    let keeps = "[[retention]]\nchannels = \"test.os.*\"\ncount = 5\n";
    let leaf = origin.mirror_of(&[origin.address], keeps).unwrap();
    let daemon = leaf.start().unwrap();
    let before = publish(&realm, &mut publisher, &os(), None, 3, &["ann", "bob"])
        .await
        .unwrap();
    until_head(&leaf, &os(), 3).await;
    daemon.kill().unwrap();
    let beats = beats(&realm, &mut publisher, None, 30).await;
    let after = publish(
        &realm,
        &mut publisher,
        &os(),
        Some(before),
        20,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    let daemon = leaf.start().unwrap();
    until_head(&leaf, &os(), 23).await;
    until_head(&leaf, &"test.beat".parse().unwrap(), 30).await;
    // And it goes on being told, and rests in between.
    let (cpu, began) = (daemon.cpu_seconds().unwrap(), Instant::now());
    sleep(Duration::from_secs(2)).await;
    assert!(daemon.cpu_seconds().unwrap() - cpu < 0.2 * began.elapsed().as_secs_f64());
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(after),
        1,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    self::beats(&realm, &mut publisher, Some(beats), 1).await;
    until_head(&leaf, &os(), 24).await;
    until_head(&leaf, &"test.beat".parse().unwrap(), 31).await;
}

async fn beats(realm: &Realm, publisher: &mut Publisher, after: Option<Head>, count: u32) -> Head {
    let mut head = after;
    for _ in 0..count {
        let beat = realm.beat(head, &[], 600, &["beat"]);
        publisher.publish(&beat).await.unwrap();
        head = Some(beat.head());
    }
    head.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_upstream_shortens_a_log_that_another_has() {
    let realm = realm();
    let (origin, daemon, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 20, &["ann", "bob"])
        .await
        .unwrap();
    // An honest mirror that keeps two, and one that claims to have nothing but what cannot be.
    let boaster = relay::start(&[origin.address], |command, answer| {
        let text = String::from_utf8_lossy(&answer).into_owned();
        Act::Send(match command.split(' ').next() {
            Some("LIST") => text
                .replace(
                    "test.os.stable 30 1",
                    "test.os.stable 2147483647 2147483647",
                )
                .into_bytes(),
            Some("GROUP") if text.contains("test.os.stable") => {
                b"211 1 2147483647 2147483647 test.os.stable\r\n".to_vec()
            }
            _ => answer,
        })
    })
    .await
    .unwrap();
    let leaf = origin.mirror_of(&[origin.address], "").unwrap();
    let leaf_daemon = leaf.start().unwrap();
    until_head(&leaf, &os(), 20).await;
    leaf_daemon.kill().unwrap();
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(read_all(&origin, &os()).await.unwrap()[19].head()),
        10,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    let short = origin
        .mirror_of(
            &[origin.address],
            "[[retention]]\nchannels = \"test.os.*\"\ncount = 2\n",
        )
        .unwrap();
    let _short = short.start().unwrap();
    until_head(&short, &os(), 30).await;
    assert_eq!(read_all(&short, &os()).await.unwrap().len(), 2);
    daemon.kill().unwrap();
    // The origin is away: the others have less of the log, and it stays as it is.
    leaf.mirror(&[origin.address, short.address, boaster], "")
        .unwrap();
    let _leaf = leaf.start().unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(head(&leaf, &os()).await.unwrap(), 20);
    let _origin = origin.start().unwrap();
    until_head(&leaf, &os(), 30).await;
    assert_eq!(read_all(&leaf, &os()).await.unwrap().len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_says_nothing_about_another_namespace() {
    let (realm, evil) = (realm(), "evil");
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 3, &["ann", "bob"])
        .await
        .unwrap();
    // Another namespace on the same mirror; its trust names our channel.
    let key = tidings_tests::realm::key("evil");
    let make = |after: Option<Head>, checkpoints: &[(&Channel, Head)]| {
        let body = Body::Trust(rules(
            &["trust * 1 evil", "release * 1 evil"],
            tidings_client::now().plus(86_400),
            checkpoints,
        ));
        let channel = format!("{evil}.trust").parse().unwrap();
        Draft {
            channel,
            after,
            time: tidings_client::now(),
            trust: None,
            body,
        }
        .write()
        .unwrap()
        .sign(&key)
        .unwrap()
    };
    let first = make(None, &[]);
    let other = Head {
        serial: tidings_client::Serial::new(2).unwrap(),
        id: first.id(),
    };
    let second = make(Some(first.head()), &[(&os(), other)]);
    let anchor = tidings_client::Anchor {
        namespace: evil.parse().unwrap(),
        head: first.head(),
    };
    let leaf = origin
        .mirror_of(
            &[origin.address],
            "[[peer]]\nname = \"x\"\nnetworks = [\"127.0.0.1\"]\nfeeds = \"*\"\n",
        )
        .unwrap();
    let text = std::fs::read_to_string(leaf.config()).unwrap();
    let text = text.replace(
        &format!("\"{}\"]", realm.anchor),
        &format!("\"{}\", \"{anchor}\"]", realm.anchor),
    );
    std::fs::write(leaf.config(), text).unwrap();
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 3).await;
    let mut peer = connect(&leaf).await.unwrap();
    for statement in [first, second] {
        peer.command(&format!("IHAVE {}", statement.message_id()))
            .await
            .unwrap();
        let octets = [
            tidings_protocol::article::render(&statement, "x").octets,
            b".\r\n".to_vec(),
        ]
        .concat();
        peer.send_raw(&octets).await.unwrap();
        assert_eq!(peer.answer().await.unwrap().code, code::TRANSFERRED);
    }
    assert_eq!(head(&leaf, &os()).await.unwrap(), 3);
    assert!(!leaf.log().contains("settled"), "{}", leaf.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_19_an_upstream_that_dribbles_holds_no_other_up() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 20, &["ann", "bob"])
        .await
        .unwrap();
    let dribbles = relay::start(&[origin.address], |command, answer| {
        match command.split(' ').next() {
            Some("ARTICLE") => Act::Drip(answer, Duration::from_millis(200)),
            _ => Act::Send(answer),
        }
    })
    .await
    .unwrap();
    let leaf = mirror(&origin, &[dribbles, origin.address]);
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_has_less_than_is_half_filled_gives_what_it_has() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 10, &["ann", "bob"])
        .await
        .unwrap();
    let all = read_all(&origin, &os()).await.unwrap();
    let far = releases(&realm, &os(), Some(all[9].head()), 10, &["ann", "bob"]);
    let leaf = origin
        .mirror_of(
            &[origin.address],
            "[[peer]]\nname = \"x\"\nnetworks = [\"127.0.0.1\"]\nfeeds = \"*\"\n",
        )
        .unwrap();
    let daemon = leaf.start().unwrap();
    until_head(&leaf, &os(), 10).await;
    let mut peer = connect(&leaf).await.unwrap();
    let id = far[9].message_id();
    let octets = [
        format!("TAKETHIS {id}\r\n").into_bytes(),
        tidings_protocol::article::render(&far[9], "x").octets,
        b".\r\n".to_vec(),
    ];
    peer.send_raw(&octets.concat()).await.unwrap();
    assert_eq!(peer.answer().await.unwrap().code, code::TAKEN);
    daemon.kill().unwrap();
    for statement in &far[..3] {
        publisher.publish(statement).await.unwrap();
    }
    let daemon = leaf.start().unwrap();
    until_head(&leaf, &os(), 13).await;
    let (cpu, began) = (daemon.cpu_seconds().unwrap(), Instant::now());
    sleep(Duration::from_secs(2)).await;
    assert!(daemon.cpu_seconds().unwrap() - cpu < 0.2 * began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_kept_blocks_no_beginning() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 40, &["ann", "bob"])
        .await
        .unwrap();
    let keeps = "[[retention]]\nchannels = \"test.os.*\"\ncount = 21\n";
    let short = origin.mirror_of(&[origin.address], keeps).unwrap();
    let _short = short.start().unwrap();
    until_head(&short, &os(), 40).await;
    let boaster = relay::start(&[origin.address], |command, answer| {
        match command.split(' ').next() {
            Some("ARTICLE" | "XWATCH") => Act::Send(b"423 no such article\r\n".to_vec()),
            _ => Act::Send(answer),
        }
    })
    .await
    .unwrap();
    let leaf = mirror(&origin, &[boaster, short.address]);
    let _leaf = leaf.start().unwrap();
    until_head(&leaf, &os(), 40).await;
    assert_eq!(read_all(&leaf, &os()).await.unwrap().len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_has_gone_below_what_is_kept_meanwhile_is_whole() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    let head = publish(&realm, &mut publisher, &os(), None, 500, &["ann", "bob"])
        .await
        .unwrap();
    let stalled = Arc::new(AtomicUsize::new(0));
    let relay = {
        let stalled = stalled.clone();
        relay::start(&[origin.address], move |command, answer| {
            if command.starts_with("ARTICLE") && stalled.fetch_add(1, Ordering::SeqCst) >= 270 {
                return Act::Late(answer, Duration::from_secs(600));
            }
            Act::Send(answer)
        })
        .await
        .unwrap()
    };
    let keeps = "[[retention]]\nchannels = \"test.os.*\"\ncount = 300\n";
    let leaf = origin.mirror_of(&[relay], keeps).unwrap();
    let daemon = leaf.start().unwrap();
    until("the upstream stalls", async || {
        stalled.load(Ordering::SeqCst) > 270
    })
    .await;
    sleep(Duration::from_millis(500)).await;
    daemon.kill().unwrap();
    publish(
        &realm,
        &mut publisher,
        &os(),
        Some(head),
        60,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    leaf.mirror(&[origin.address], keeps).unwrap();
    let _daemon = leaf.start().unwrap();
    until_head(&leaf, &os(), 560).await;
    assert!(read_all(&leaf, &os()).await.unwrap().len() >= 300);
}
