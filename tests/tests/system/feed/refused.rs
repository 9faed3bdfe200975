//! What a peer must not or cannot have: proofs, floods, and peers that behave strangely.

use std::time::Duration;

use tidings_client::Statement;
use tidings_protocol::nntp::code;
use tidings_tests::{
    realm::ROLES,
    tree::{broker, connect, origin, os, publish, read_all, realm, releases, until_head},
};

use super::{ihave, sent, take_these, taker};

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
