//! Feeds between brokers: IHAVE, CHECK and TAKETHIS, offered and taken; what comes out of order,
//! twice, or in a ring.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tidings_broker::limits::FEED_PAUSE;
use tidings_client::{Connection, Statement};
use tidings_protocol::{
    article,
    nntp::{Response, code},
};
use tidings_tests::{
    Daemon, Fixture,
    realm::{ROLES, Realm},
    tree::{
        broker, connect, origin, os, publish, publish_trust, read_all, realm, releases, until,
        until_head,
    },
};

/// Takes what anybody on this machine offers.
const PEER: &str =
    "[[peer]]\nname = \"neighbour\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"test.*\"\n";

fn named(fixture: &Fixture, name: &str, more: &str) {
    fixture.configure(more).unwrap();
    let text = std::fs::read_to_string(fixture.config())
        .unwrap()
        .replace("broker.invalid", name);
    std::fs::write(fixture.config(), text).unwrap();
}

/// A broker that only takes.
fn taker(realm: &Realm) -> (Fixture, Daemon) {
    let fixture = broker(realm, PEER).unwrap();
    let daemon = fixture.start().unwrap();
    (fixture, daemon)
}

fn sent(statement: &Statement, path: &str) -> Vec<u8> {
    [article::render(statement, path).octets, b".\r\n".to_vec()].concat()
}

async fn ihave(connection: &mut Connection, statement: &Statement) -> Response {
    let answer = connection
        .command(&format!("IHAVE {}", statement.message_id()))
        .await
        .unwrap();
    if answer.code != code::SEND_IT {
        return answer;
    }
    connection
        .send_raw(&sent(statement, "x!not-for-mail"))
        .await
        .unwrap();
    connection.answer().await.unwrap()
}

async fn take_these(connection: &mut Connection, statements: &[&Statement]) -> Vec<u16> {
    let mut octets = Vec::new();
    for statement in statements {
        octets.extend_from_slice(format!("TAKETHIS {}\r\n", statement.message_id()).as_bytes());
        octets.extend_from_slice(&sent(statement, "x!not-for-mail"));
    }
    connection.send_raw(&octets).await.unwrap();
    let mut codes = Vec::new();
    for _ in statements {
        codes.push(connection.answer().await.unwrap().code.0);
    }
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_37_63_a_ring_of_three_and_what_is_published_goes_round_once() {
    let realm = realm();
    let ring: Vec<Fixture> = (0..3).map(|_| broker(&realm, "").unwrap()).collect();
    for (index, fixture) in ring.iter().enumerate() {
        // Twice to the next, and once back: loops and duplicate links.
        let (next, before) = (&ring[(index + 1) % 3], &ring[(index + 2) % 3]);
        let feed = |name: &str, to: &Fixture| {
            format!("[[feed]]\nname = \"{name}\"\nto = \"{}\"\n", to.url())
        };
        named(
            fixture,
            &format!("n{index}.invalid"),
            &format!(
                "{PEER}{}{}{}",
                feed("a", next),
                feed("b", next),
                feed("c", before)
            ),
        );
    }
    let _daemons: Vec<Daemon> = ring
        .iter()
        .map(|fixture| fixture.start().unwrap())
        .collect();
    let mut publisher = tidings_client::Publisher::connect(ring[0].source().unwrap())
        .await
        .unwrap();
    publish_trust(&realm, &mut publisher).await.unwrap();
    let head = publish(&realm, &mut publisher, &os(), None, 40, &["ann", "bob"])
        .await
        .unwrap();
    for fixture in &ring {
        until_head(fixture, &os(), 40).await;
        assert_eq!(read_all(fixture, &os()).await.unwrap().len(), 40);
    }
    // What comes last has gone round behind everything else.
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
    for fixture in &ring {
        until_head(fixture, &os(), 41).await;
        // While its neighbours start they refuse connections.
        let log = fixture
            .log()
            .replace("Connection refused", "")
            .replace("refused=0", "");
        assert!(!log.contains("fork") && !log.contains("refused"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_trust_statement_in_one_write_is_judged_by_it() {
    let mut realm = realm();
    let (fixture, _daemon) = taker(&realm);
    let first = realm.release(&os(), None, "1", &["ann", "bob"]);
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 cem",
        "withdraw * 1 stop",
    ];
    let rotated = realm.rotate(
        &roles,
        &[(&os(), first.head())],
        &["root1", "root2", "root3"],
    );
    let second = realm.release(&os(), Some(first.head()), "2", &["cem"]);
    let mut peer = connect(&fixture).await.unwrap();
    assert_eq!(
        take_these(&mut peer, &[&realm.log[0], &first, &rotated, &second]).await,
        [239; 4]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_out_of_order_is_kept_hidden_until_the_gap_is_filled() {
    let realm = realm();
    let (fixture, daemon) = taker(&realm);
    let all = releases(&realm, &os(), None, 12, &["ann", "bob"]);
    let mut peer = connect(&fixture).await.unwrap();
    assert_eq!(
        peer.command("MODE STREAM").await.unwrap().code,
        code::STREAMING
    );

    // Without trust nothing can be judged: not now, but not never.
    let id = all[0].message_id();
    assert_eq!(
        peer.command(&format!("CHECK {id}")).await.unwrap().code,
        code::CHECK_LATER
    );
    assert_eq!(ihave(&mut peer, &all[0]).await.code, code::TRANSFER_LATER);
    assert_eq!(
        ihave(&mut peer, &realm.log[0]).await.code,
        code::TRANSFERRED
    );
    let answer = peer.command(&format!("CHECK {id}")).await.unwrap();
    assert_eq!((answer.code, answer.text), (code::WANTED, id.to_string()));

    assert_eq!(take_these(&mut peer, &[&all[0], &all[1]]).await, [239, 239]);
    // 9, 10, 8, 7 hang together: nobody sees them. 12 hangs together with nothing: not now.
    assert_eq!(
        take_these(&mut peer, &[&all[8], &all[9], &all[7], &all[6]]).await,
        [239, 239, 239, 239]
    );
    assert_eq!(ihave(&mut peer, &all[11]).await.code, code::TRANSFER_LATER);
    let marks = |connection: Option<(tidings_client::Group, Option<String>)>| {
        connection.map(|(group, _)| group.high)
    };
    assert_eq!(marks(peer.group(&os(), None).await.unwrap()), Some(2));
    let by_id = peer
        .command(&format!("STAT {}", all[8].message_id()))
        .await
        .unwrap();
    assert_eq!(by_id.code, code::NO_SUCH_ID);

    // It survives a kill, and goes on.
    daemon.kill().unwrap();
    let _daemon = fixture.start().unwrap();
    let mut peer = connect(&fixture).await.unwrap();
    assert_eq!(
        take_these(&mut peer, &[&all[5], &all[10]]).await,
        [239, 239]
    );
    assert_eq!(marks(peer.group(&os(), None).await.unwrap()), Some(2));
    assert_eq!(
        take_these(&mut peer, &[&all[2], &all[3], &all[4]]).await,
        [239, 239, 239]
    );
    assert_eq!(marks(peer.group(&os(), None).await.unwrap()), Some(11));
    assert_eq!(ihave(&mut peer, &all[11]).await.code, code::TRANSFERRED);
    assert_eq!(marks(peer.group(&os(), None).await.unwrap()), Some(12));
    assert_eq!(read_all(&fixture, &os()).await.unwrap(), all);
    // What is here is not wanted again.
    let answer = peer
        .command(&format!("CHECK {}", all[10].message_id()))
        .await
        .unwrap();
    assert_eq!(answer.code, code::CHECK_NOT_WANTED);
    assert_eq!(ihave(&mut peer, &all[3]).await.code, code::NOT_WANTED);
    assert_eq!(take_these(&mut peer, &[&all[3]]).await, [239]);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_by_retired_keys_is_taken_from_the_top_down() {
    let mut realm = realm();
    let old = releases(&realm, &os(), None, 5, &["ann", "bob"]);
    let roles = [
        "trust * 2 root1 root2 root3",
        "release * 1 dora",
        "withdraw * 1 stop",
        "beat * 1 beat",
    ];
    realm.rotate(&roles, &[], &["root1", "root2"]);
    let new = releases(&realm, &os(), Some(old[4].head()), 2, &["dora"]);
    let (fixture, _daemon) = taker(&realm);
    let mut peer = connect(&fixture).await.unwrap();
    for trust in &realm.log {
        assert_eq!(ihave(&mut peer, trust).await.code, code::TRANSFERRED);
    }
    // From the bottom up nothing proves them.
    assert_eq!(ihave(&mut peer, &old[0]).await.code, code::TRANSFER_REFUSED);
    let down: Vec<&Statement> = new.iter().rev().chain(old.iter().rev()).collect();
    assert_eq!(take_these(&mut peer, &down).await, [239; 7]);
    assert_eq!(head_of(&mut peer).await, 7);
    // And a link vouches for nothing else: another statement in that place.
    let (other, _other) = taker(&realm);
    let mut peer = connect(&other).await.unwrap();
    for trust in &realm.log {
        ihave(&mut peer, trust).await;
    }
    let mut forged = Realm {
        log: vec![realm.log[0].clone()],
        ..self::realm()
    };
    forged.anchor = realm.anchor.clone();
    let forgery = forged.release(&os(), Some(old[3].head()), "6.6", &["ann", "bob"]);
    assert_eq!(
        take_these(&mut peer, &[&new[1], &new[0], &forgery, &old[4]]).await,
        [239, 239, 439, 239]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_ends_in_the_same_log() {
    let realm = realm();
    let all = releases(&realm, &os(), None, 60, &["ann", "bob"]);
    for seed in 1..=6 {
        let (fixture, _daemon) = taker(&realm);
        let mut peer = connect(&fixture).await.unwrap();
        ihave(&mut peer, &realm.log[0]).await;
        let mut random = tidings_tests::Random::new(seed);
        let mut order: Vec<&Statement> = all.iter().collect();
        for last in (1..order.len()).rev() {
            order.swap(
                last,
                usize::try_from(random.below(last as u64 + 1)).unwrap(),
            );
        }
        // Every other one twice.
        let twice: Vec<&Statement> = order
            .iter()
            .enumerate()
            .flat_map(|(at, one)| vec![*one; 1 + at % 2])
            .collect();
        assert!(
            take_these(&mut peer, &twice)
                .await
                .iter()
                .all(|code| *code == 239),
            "seed {seed}"
        );
        assert_eq!(read_all(&fixture, &os()).await.unwrap(), all, "seed {seed}");
    }
}

async fn head_of(connection: &mut Connection) -> u32 {
    connection
        .group(&os(), None)
        .await
        .unwrap()
        .map_or(0, |(group, _)| group.high)
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_35_36_67_what_is_not_proven_leaves_no_trace_and_only_peers_may_offer() {
    let realm = realm();
    let (fixture, _daemon) = taker(&realm);
    let all = releases(&realm, &os(), None, 3, &["ann", "bob"]);
    let mut peer = connect(&fixture).await.unwrap();
    ihave(&mut peer, &realm.log[0]).await;
    // The real id with another body, unsigned, by somebody else: refused, and the real one is taken
    // afterwards.
    let unsigned = releases(&realm, &os(), None, 1, &[]).remove(0);
    let by_others = releases(&realm, &os(), None, 1, &["eve", "mallory"]).remove(0);
    let mut squat = format!("TAKETHIS {}\r\n", all[0].message_id()).into_bytes();
    squat.extend_from_slice(b"Path: x\r\nMessage-ID: ");
    squat.extend_from_slice(all[0].message_id().to_string().as_bytes());
    squat.extend_from_slice(b"\r\nNewsgroups: test.os.stable\r\n\r\nnonsense\r\n.\r\n");
    peer.send_raw(&squat).await.unwrap();
    assert_eq!(peer.answer().await.unwrap().code, code::TAKE_REFUSED);
    assert_eq!(
        take_these(&mut peer, &[&unsigned, &by_others, &all[0]]).await,
        [439, 439, 239]
    );
    // Not a statement's id, another namespace, a control message.
    for id in [
        "<1@example.org>",
        "<x",
        &format!("<1.{}@other.os>", "0".repeat(64)),
    ] {
        assert_eq!(
            peer.command(&format!("CHECK {id}")).await.unwrap().code,
            code::CHECK_NOT_WANTED,
            "{id}"
        );
        assert_eq!(
            peer.command(&format!("IHAVE {id}")).await.unwrap().code,
            code::NOT_WANTED,
            "{id}"
        );
    }
    assert_eq!(peer.command("TAKETHIS").await.unwrap().code, code::SYNTAX);

    let stranger = broker(&realm, "").unwrap();
    let _stranger = stranger.start().unwrap();
    let mut peer = connect(&stranger).await.unwrap();
    assert_eq!(
        ihave(&mut peer, &realm.log[0]).await.code,
        code::WHO_ARE_YOU
    );
    assert_eq!(take_these(&mut peer, &[&realm.log[0]]).await, [480]);
    assert!(
        !peer.is_capable("STREAMING").await.unwrap() && !peer.is_capable("IHAVE").await.unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_goes_on_where_it_was_when_the_peer_was_away() {
    let realm = realm();
    let (taker, daemon) = taker(&realm);
    let feed = format!("[[feed]]\nname = \"t\"\nto = \"{}\"\n", taker.url());
    let (origin, _origin, mut publisher) = origin(&realm, &feed).await.unwrap();
    let head = publish(&realm, &mut publisher, &os(), None, 20, &["ann", "bob"])
        .await
        .unwrap();
    until_head(&taker, &os(), 20).await;
    daemon.kill().unwrap();
    let head = publish(
        &realm,
        &mut publisher,
        &os(),
        Some(head),
        300,
        &["ann", "bob"],
    )
    .await
    .unwrap();
    let _daemon = taker.start().unwrap();
    until_head(&taker, &os(), 320).await;
    assert_eq!(
        read_all(&taker, &os()).await.unwrap(),
        read_all(&origin, &os()).await.unwrap()
    );
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
    until_head(&taker, &os(), 321).await;
    // The feed has a cursor, and no more: what was taken is not offered again.
    until("its end is told", async || {
        origin.log().contains("feeding this peer")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_may_close_at_every_octet() {
    let realm = realm();
    let (fixture, _daemon) = taker(&realm);
    let all = releases(&realm, &os(), None, 2, &["ann", "bob"]);
    let mut dialogue = Vec::new();
    for statement in realm.log.iter().chain(&all) {
        dialogue.extend_from_slice(
            format!("CHECK {0}\r\nTAKETHIS {0}\r\n", statement.message_id()).as_bytes(),
        );
        dialogue.extend_from_slice(&sent(statement, "x!not-for-mail"));
    }
    dialogue.extend_from_slice(format!("IHAVE {}\r\n", all[1].message_id()).as_bytes());
    let address = fixture.address;
    // From the longest beginning that is not the whole of the first article on: nothing of it may
    // be there.
    let first = dialogue
        .windows(5)
        .position(|window| window == b"\r\n.\r\n")
        .unwrap()
        + 5;
    let cut = |end: usize, dialogue: &[u8]| {
        let part = dialogue[..end].to_vec();
        tokio::task::spawn_blocking(move || {
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            std::io::Write::write_all(&mut socket, &part).unwrap();
        })
    };
    for end in 0..first {
        cut(end, &dialogue).await.unwrap();
    }
    let mut peer = connect(&fixture).await.unwrap();
    assert_eq!(peer.listing("LIST ACTIVE", code::LIST).await.unwrap(), "");
    for end in first..dialogue.len() {
        cut(end, &dialogue).await.unwrap();
    }
    until_head(&fixture, &os(), 2).await;
    assert_eq!(read_all(&fixture, &os()).await.unwrap(), all);
    assert!(!fixture.log().contains("ERROR"), "{}", fixture.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_67_a_flood_by_a_peer_ends_and_others_go_on() {
    let realm = realm();
    let (fixture, _daemon) = taker(&realm);
    let mut good = connect(&fixture).await.unwrap();
    ihave(&mut good, &realm.log[0]).await;
    let junk = releases(&realm, &os(), None, 1_200, &["eve"]);
    let mut octets = Vec::new();
    for statement in &junk {
        octets.extend_from_slice(format!("TAKETHIS {}\r\n", statement.message_id()).as_bytes());
        octets.extend_from_slice(&sent(statement, "x!not-for-mail"));
    }
    let mut peer = connect(&fixture).await.unwrap();
    // It may be cut off before all of it is sent.
    let _ = peer.send_raw(&octets).await;
    let mut refused = 0;
    let last = loop {
        match peer.answer().await {
            Ok(answer) if answer.code == code::TAKE_REFUSED => refused += 1,
            other => break other,
        }
    };
    assert!(
        refused <= 1_000
            && last
                .as_ref()
                .map_or(true, |answer| answer.code == code::UNAVAILABLE),
        "{refused}, then {last:?}"
    );
    assert!(
        fixture
            .log()
            .contains("a connection is closed that offered too much that was refused"),
        "{}",
        fixture.log()
    );
    assert_eq!(
        good.listing("LIST ACTIVE", code::LIST)
            .await
            .unwrap()
            .lines()
            .count(),
        1
    );
    let real = releases(&realm, &os(), None, 1, &["ann", "bob"]);
    assert_eq!(take_these(&mut good, &[&real[0]]).await, [239]);
}

/// A news server that behaves worse each time that it is connected to, and well in the end.
async fn strange_peer(
    taken: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
) -> std::net::SocketAddr {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((socket, _)) = listener.accept().await {
            number += 1;
            let taken = taken.clone();
            tokio::spawn(async move {
                let (from, mut to) = socket.into_split();
                let mut lines = BufReader::new(from).lines();
                let greeting: &[u8] = match number {
                    1 => b"502 you have no permission to talk\r\n",
                    2 => &[b'x'; 100_000],
                    _ => b"200 welcome\r\n",
                };
                to.write_all(greeting).await?;
                if number <= 2 {
                    return Ok(());
                }
                let mut offers = 0;
                while let Some(line) = lines.next_line().await? {
                    let answer = match (number, line.split(' ').next().unwrap_or_default()) {
                        // It knows no streaming: IHAVE then.
                        (_, "MODE") => "500 what?".to_owned(),
                        (3, _) => "299 something that is no answer".to_owned(),
                        (4, _) => "400 not today".to_owned(),
                        (_, "IHAVE") => {
                            offers += 1;
                            let id = line.split(' ').nth(1).unwrap_or_default().to_owned();
                            if number == 5 && offers == 2 {
                                "436 later".to_owned()
                            } else {
                                to.write_all(b"335 send it\r\n").await?;
                                let mut article = String::new();
                                while let Some(line) =
                                    lines.next_line().await?.filter(|line| line != ".")
                                {
                                    article.push_str(&line);
                                    article.push('\n');
                                }
                                if number == 5 && offers == 3 {
                                    return Ok(());
                                }
                                taken.lock().unwrap().push(id);
                                "235 taken".to_owned()
                            }
                        }
                        _ => "205 bye".to_owned(),
                    };
                    to.write_all(format!("{answer}\r\n").as_bytes()).await?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strange_peer_is_named_in_the_log_and_gets_everything_when_it_behaves() {
    let realm = realm();
    let taken = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let peer = strange_peer(taken.clone()).await;
    let (taker, _taker) = taker(&realm);
    let feeds = format!(
        "[[feed]]\nname = \"strange\"\nto = \"nntp://{peer}\"\n[[feed]]\nname = \"good\"\nto = \"{}\"\n",
        taker.url()
    );
    let (origin, _origin, mut publisher) = origin(&realm, &feeds).await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 5, &["ann", "bob"])
        .await
        .unwrap();
    // Others are not held up.
    until_head(&taker, &os(), 5).await;
    let all = read_all(&origin, &os()).await.unwrap();
    let mut expected: Vec<String> = realm
        .log
        .iter()
        .chain(&all)
        .map(|statement| statement.message_id().to_string())
        .collect();
    expected.sort();
    let began = std::time::Instant::now();
    loop {
        let mut got = taken.lock().unwrap().clone();
        got.sort();
        got.dedup();
        if got == expected {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{got:?} of {expected:?}: {}",
            origin.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        origin.log().matches("feed=\"strange\"").count() >= 5,
        "{}",
        origin.log()
    );
}

const NEW_ROLES: &[&str] = &[
    "trust * 2 root1 root2 root3",
    "release * 1 dora",
    "withdraw * 1 stop",
    "beat * 1 beat",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_above_a_gap_survives_a_change_of_trust() {
    // With the same keys, and with others that vouch for it only later.
    for (roles, signer) in [(ROLES, &["ann", "bob"][..]), (NEW_ROLES, &["dora"][..])] {
        let mut realm = realm();
        let (fixture, daemon) = taker(&realm);
        let old = releases(&realm, &os(), None, 10, &["ann", "bob"]);
        let mut peer = connect(&fixture).await.unwrap();
        ihave(&mut peer, &realm.log[0]).await;
        let sent: Vec<&Statement> = old[..2].iter().chain(&old[4..]).collect();
        assert_eq!(take_these(&mut peer, &sent).await, [239; 8]);
        let rotated = realm.rotate(roles, &[(&os(), old[1].head())], &["root1", "root2"]);
        assert_eq!(ihave(&mut peer, &rotated).await.code, code::TRANSFERRED);
        daemon.kill().unwrap();
        let _daemon = fixture.start().unwrap();
        let mut peer = connect(&fixture).await.unwrap();
        // Whatever vouches for 3 and 4 is there, or comes with what is newest.
        let new = releases(&realm, &os(), Some(old[9].head()), 1, signer);
        take_these(&mut peer, &[&new[0], &old[3], &old[2]]).await;
        assert_eq!(
            read_all(&fixture, &os()).await.unwrap(),
            [&old[..], &new[..]].concat()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_is_not_stored() {
    let mut realm = realm();
    let (fixture, _daemon) = taker(&realm);
    let all = releases(&realm, &os(), None, 9, &["ann", "bob"]);
    let mut peer = connect(&fixture).await.unwrap();
    ihave(&mut peer, &realm.log[0]).await;
    assert_eq!(
        take_these(&mut peer, &[&all[0], &all[8], &all[7], &all[6]]).await,
        [239; 4]
    );
    // In a place that is taken, hidden: by nobody, and by those who may.
    let forged = realm.release(&os(), Some(all[6].head()), "6.6", &["eve"]);
    realm.time = realm.time.plus(60);
    let forked = realm.release(&os(), Some(all[6].head()), "7.7", &["ann", "bob"]);
    assert_eq!(
        take_these(&mut peer, &[&forged, &forked, &all[7]]).await,
        [439, 439, 239]
    );
    let forks = fixture.directory.join("data/forks");
    assert_eq!(std::fs::read_dir(forks).unwrap().count(), 1);
    // Visible.
    let forged = realm.release(&os(), None, "6.6", &["eve"]);
    assert_eq!(take_these(&mut peer, &[&forged]).await, [439]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_vouches_in_whatever_order_and_after_a_restart() {
    for restart in [false, true] {
        for order in [[4, 3, 2], [3, 4, 2]] {
            let mut realm = realm();
            let mut all = releases(&realm, &os(), None, 2, &["ann", "bob"]);
            // By a key that is retired, and only the checkpoint above vouches for it.
            all.push(realm.withdraw(&os(), all[1].head(), all[0].head(), &["stop"]));
            all.extend(releases(
                &realm,
                &os(),
                Some(all[2].head()),
                2,
                &["ann", "bob"],
            ));
            let roles = [
                "trust * 2 root1 root2 root3",
                "release * 2 ann bob",
                "withdraw * 1 halt",
                "beat * 1 beat",
            ];
            realm.rotate(&roles, &[(&os(), all[4].head())], &["root1", "root2"]);
            let (fixture, daemon) = taker(&realm);
            let mut peer = connect(&fixture).await.unwrap();
            for trust in &realm.log {
                ihave(&mut peer, trust).await;
            }
            let [first, second, last] = order.map(|at: usize| &all[at]);
            assert_eq!(take_these(&mut peer, &[first, second]).await, [239; 2]);
            let _daemon = if restart {
                daemon.kill().unwrap();
                fixture.start().unwrap()
            } else {
                daemon
            };
            let mut peer = connect(&fixture).await.unwrap();
            assert_eq!(
                take_these(&mut peer, &[last, &all[1], &all[0]]).await,
                [239; 3],
                "{order:?}, restart {restart}"
            );
            assert_eq!(head_of(&mut peer).await, 5);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_visible_late_is_news_for_those_who_ask() {
    let realm = realm();
    let (fixture, _daemon) = taker(&realm);
    let all = releases(&realm, &os(), None, 6, &["ann", "bob"]);
    let mut peer = connect(&fixture).await.unwrap();
    ihave(&mut peer, &realm.log[0]).await;
    assert_eq!(
        take_these(&mut peer, &[&all[0], &all[2], &all[3], &all[4], &all[5]]).await,
        [239; 5]
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = peer.command("DATE").await.unwrap().text;
    assert_eq!(take_these(&mut peer, &[&all[1]]).await, [239]);
    let news = peer
        .listing(
            &format!("NEWNEWS test.os.* {} {} GMT", &since[..8], &since[8..]),
            code::NEWNEWS,
        )
        .await
        .unwrap();
    assert_eq!(news.lines().count(), 5, "{news}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_a_peer_puts_off_keeps_no_other_back() {
    let mut realm = realm();
    let (taker, _taker) = taker(&realm);
    let mut peer = connect(&taker).await.unwrap();
    ihave(&mut peer, &realm.log[0]).await;
    // The feed lacks the trust log, so that the peer never learns of the second trust.
    let feed = format!(
        "[[feed]]\nname = \"t\"\nto = \"{}\"\nchannels = \"test.aaa,test.os.*\"\n",
        taker.url()
    );
    let (_fixture, _origin, mut publisher) = origin(&realm, &feed).await.unwrap();
    let rotated = realm.rotate(ROLES, &[], &["root1", "root2"]);
    publisher.publish(&rotated).await.unwrap();
    let newer = realm.release(&"test.aaa".parse().unwrap(), None, "1", &["ann", "bob"]);
    publisher.publish(&newer).await.unwrap();
    realm.log.pop();
    let mut head = None;
    for number in 1..=4 {
        head = Some(
            publish(&realm, &mut publisher, &os(), head, 1, &["ann", "bob"])
                .await
                .unwrap(),
        );
        let began = std::time::Instant::now();
        until_head(&taker, &os(), number).await;
        assert!(began.elapsed() < FEED_PAUSE / 2, "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_trust_has_decided_against_is_hidden_and_in_nobodys_way() {
    let mut realm = realm();
    let all = releases(&realm, &os(), None, 6, &["ann", "bob"]);
    realm.time = realm.time.plus(60);
    let wrong = realm.release(&os(), Some(all[3].head()), "6.6", &["ann", "bob"]);
    let (fixture, _daemon) = taker(&realm);
    let mut peer = connect(&fixture).await.unwrap();
    ihave(&mut peer, &realm.log[0]).await;
    assert_eq!(take_these(&mut peer, &[&wrong]).await, [239]);
    let settled = realm.rotate(ROLES, &[(&os(), all[4].head())], &["root1", "root2"]);
    assert_eq!(ihave(&mut peer, &settled).await.code, code::TRANSFERRED);
    let sent: Vec<&Statement> = all.iter().collect();
    assert_eq!(take_these(&mut peer, &sent).await, [239; 6]);
    assert_eq!(read_all(&fixture, &os()).await.unwrap(), all);
    assert_eq!(
        std::fs::read_dir(fixture.directory.join("data/forks"))
            .unwrap()
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_in_its_middle_is_news_too() {
    let realm = realm();
    let fixture = broker(&realm, &format!("[limits]\ngap_seconds = 10\n{PEER}")).unwrap();
    let _daemon = fixture.start().unwrap();
    let all = releases(&realm, &os(), None, 9, &["ann", "bob"]);
    let mut peer = connect(&fixture).await.unwrap();
    ihave(&mut peer, &realm.log[0]).await;
    assert_eq!(take_these(&mut peer, &[&all[4]]).await, [239]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let since = peer.command("DATE").await.unwrap().text;
    until_head(&fixture, &os(), 5).await;
    let news = peer
        .listing(
            &format!("NEWNEWS test.os.* {} {} GMT", &since[..8], &since[8..]),
            code::NEWNEWS,
        )
        .await
        .unwrap();
    assert_eq!(news.trim_end(), all[4].message_id().to_string());
    assert_eq!(
        take_these(&mut peer, &[&all[8], &all[5], &all[6], &all[7]]).await,
        [239; 4]
    );
    assert_eq!(head_of(&mut peer).await, 9);
    // And what comes after all from below is put below.
    assert_eq!(take_these(&mut peer, &[&all[3], &all[2]]).await, [239; 2]);
    assert_eq!(
        peer.group(&os(), None)
            .await
            .unwrap()
            .map(|(group, _)| group.low),
        Some(3)
    );
}

/// A news server without streaming that puts everything off once, and counts what it cannot make
/// sense of.
async fn putting_off(taken: std::sync::Arc<std::sync::Mutex<Vec<String>>>) -> std::net::SocketAddr {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (taken, asked) = (taken.clone(), asked.clone());
            tokio::spawn(async move {
                let (from, mut to) = socket.into_split();
                let mut lines = BufReader::new(from).lines();
                to.write_all(b"200 welcome\r\n").await?;
                while let Some(line) = lines.next_line().await? {
                    let Some(id) = line.strip_prefix("IHAVE ") else {
                        to.write_all(b"500 what?\r\n").await?;
                        continue;
                    };
                    if asked.lock().unwrap().insert(id.to_owned()) {
                        to.write_all(b"436 later\r\n").await?;
                        continue;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    to.write_all(b"335 send it\r\n").await?;
                    let mut article = String::new();
                    while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                        article.push_str(&line);
                        article.push('\n');
                    }
                    let whole = article::parse(article.as_bytes())
                        .is_ok_and(|incoming| incoming.statement.message_id().to_string() == id);
                    taken.lock().unwrap().push(if whole {
                        id.to_owned()
                    } else {
                        format!("nonsense for {id}")
                    });
                    to.write_all(b"235 taken\r\n").await?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_without_streaming_puts_off_comes_whole_and_one_by_one() {
    let realm = realm();
    let taken = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let peer = putting_off(taken.clone()).await;
    let feed =
        format!("[[feed]]\nname = \"old\"\nto = \"nntp://{peer}\"\nchannels = \"test.os.*\"\n");
    let (_fixture, _origin, mut publisher) = origin(&realm, &feed).await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 6, &["ann", "bob"])
        .await
        .unwrap();
    until("all six have come", async || {
        taken.lock().unwrap().len() >= 6
    })
    .await;
    let taken = taken.lock().unwrap();
    assert!(taken.iter().all(|id| id.starts_with('<')), "{taken:?}");
}
