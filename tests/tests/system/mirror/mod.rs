//! Pull mirrors: they copy, they verify all of it, and they serve nothing that they cannot prove.
#![allow(clippy::unwrap_used)]

mod upstreams;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tidings_broker::limits::MIRROR_AUDIT;
use tidings_client::{Channel, Head, Publisher};
use tidings_protocol::{
    nntp::code,
    statement::{Body, Draft},
};
use tidings_tests::{
    Fixture,
    realm::{Realm, rules},
    relay::{self, Act},
    tree::{connect, head, origin, os, publish, read_all, realm, until, until_head},
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
