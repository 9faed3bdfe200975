//! Upstreams that lie, disagree, are slow or have less.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tidings_client::{Device, Source, Start, State};
use tidings_protocol::nntp::code;
use tidings_tests::{
    realm::ROLES,
    relay::{self, Act},
    tree::{connect, head, origin, os, publish, read_all, realm, releases, until, until_head},
};
use tokio::time::sleep;

use super::mirror;

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
    // At a desk some of them; `TIDINGS_OCTETS_EACH=1` for all.
    let each = std::env::var("TIDINGS_OCTETS_EACH").map_or(5, |each| each.parse().unwrap());
    for octets in (1..).step_by(each) {
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
        if whole * each > 10 {
            assert!(octets > 2_000, "so few cannot have been all");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_news_server_is_told_on_each_connection_that_it_is_asked() {
    let realm = realm();
    let (origin, _origin, mut publisher) = origin(&realm, "").await.unwrap();
    publish(&realm, &mut publisher, &os(), None, 2, &["ann", "bob"])
        .await
        .unwrap();
    let (told, spoiled) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let counted = told.clone();
    // It cannot tell by itself. Where the first release is asked for it sends no article: then the
    // connection is of no more use.
    let server = relay::start(&[origin.address], move |command, answer| {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if command == "MODE READER" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        let is_release = command.starts_with("ARTICLE") && text.contains("@test.os.stable>");
        Act::Send(match command.split(' ').next() {
            Some("CAPABILITIES") => text.replace("XWATCH\r\n", "").into_bytes(),
            _ if is_release && spoiled.fetch_add(1, Ordering::SeqCst) == 0 => {
                b"220 1 <1@x>\r\nno article\r\n.\r\n".to_vec()
            }
            _ => answer,
        })
    })
    .await
    .unwrap();
    let leaf = origin.mirror_of(&[server], "").unwrap();
    let _leaf = leaf.start().unwrap();
    until("two connections that ask", async || {
        told.load(Ordering::SeqCst) >= 2
    })
    .await;
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
