//! Feeds that break off, and peers that put off what they are offered.

use std::time::Duration;

use tidings_broker::limits::FEED_PAUSE;
use tidings_protocol::{article, nntp::code};
use tidings_tests::{
    realm::ROLES,
    tree::{connect, origin, os, publish, read_all, realm, releases, until, until_head},
};

use super::{ihave, sent, take_these, taker};

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
