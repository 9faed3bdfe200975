//! More than one broker: dead, silent, behind, or with a lie on the way.

use std::{net::SocketAddr, time::Duration};

use futures_util::StreamExt;
use tidings_client::{Device, Error, Pace, Publisher, Source, Start, State, StateError};
use tidings_tests::{Fixture, free_address};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{CHANNEL, Lie, PATIENCE, channel, publish, relay, serials};

#[tokio::test]
async fn a_watch_survives_the_death_of_its_broker() {
    let fixture = Fixture::new().unwrap();
    let daemon = fixture.start().unwrap();
    let head = publish(&fixture, None, 1).await;
    let mut device = Device::open(
        fixture.source().unwrap(),
        [CHANNEL],
        fixture.directory.join("state"),
    )
    .unwrap();
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .serial()
            .number(),
        1
    );
    daemon.kill().unwrap();
    // While it is down the stream says so, and tries again by itself.
    while !matches!(
        timeout(PATIENCE, watch.next()).await.unwrap().unwrap(),
        Err(Error::Unreachable { .. })
    ) {}
    let _daemon = fixture.start().unwrap();
    publish(&fixture, head, 1).await;
    loop {
        match timeout(PATIENCE, watch.next()).await.unwrap().unwrap() {
            Ok(statement) => break assert_eq!(statement.serial().number(), 2),
            Err(error) => assert!(
                matches!(error, Error::Unreachable { .. } | Error::Io(_)),
                "{error}"
            ),
        }
    }
}

#[tokio::test]
async fn another_broker_is_tried_when_the_first_is_dead_or_lies() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    publish(&fixture, None, 2).await;
    let dead = free_address().unwrap();
    let liar = relay(fixture.address, Lie::Replace("Version: 1", "Version: 6")).await;
    for first in [dead, liar] {
        let brokers = [format!("nntp://{first}"), fixture.url()];
        let source = Source::new(
            brokers.iter().map(String::as_str),
            &fixture.anchor.to_string(),
        )
        .unwrap();
        let state = State::ephemeral(source.anchor());
        let mut device = Device::with_state(source, [CHANNEL], state).unwrap();
        assert_eq!(serials(&device.poll().await.unwrap()), [2], "{first}");
    }
}

#[tokio::test]
async fn attacks_20_26_27_what_is_changed_on_the_way_has_no_effect() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    publish(&fixture, None, 4).await;
    for lie in [
        Lie::Replace("Version: 1", "Version: 6"),
        Lie::Replace("Serial: 3", "Serial: 2"),
        Lie::Replace("Previous: sha256:", "Previous: sha256:0"),
        Lie::Hide("220 3 "),
        Lie::Swap("ARTICLE 3", "ARTICLE 2"),
        Lie::Endless,
        Lie::Truncate,
    ] {
        let address = relay(fixture.address, lie).await;
        let source = Source::new(
            [format!("nntp://{address}").as_str()],
            &fixture.anchor.to_string(),
        )
        .unwrap();
        let path = fixture.directory.join(format!("state-{}", address.port()));
        let mut device = Device::open(source, [CHANNEL], &path)
            .unwrap()
            .with_start(Start::Oldest);
        let error = timeout(PATIENCE, device.poll())
            .await
            .unwrap()
            .expect_err("the lie was believed");
        assert!(
            matches!(error, Error::Unreachable { .. }),
            "{lie:?}: {error}"
        );
        assert_eq!(device.state().head(&channel()), None, "{lie:?}");
        // The same state goes on with an honest broker as if nothing had been.
        drop(device);
        let mut device = Device::open(fixture.source().unwrap(), [CHANNEL], &path)
            .unwrap()
            .with_start(Start::Oldest);
        assert_eq!(
            serials(&device.poll().await.unwrap()),
            [1, 2, 3, 4],
            "{lie:?}"
        );
    }
}

#[tokio::test]
async fn what_two_brokers_have_comes_once() {
    // No beat ends the round of questions, since this namespace promises some and has none.
    let realm = tidings_tests::realm::Realm::new(
        &[
            "trust * 1 root",
            "release * 1 ann",
            "withdraw * 1 ann",
            "beat * 1 beat",
        ],
        &["root"],
    );
    let (fixture, _daemon, mut publisher) = tidings_tests::tree::origin(&realm, "").await.unwrap();
    let all = tidings_tests::tree::releases(&realm, &channel(), None, 3, &["ann"]);
    for release in &all {
        publisher.publish(release).await.unwrap();
    }
    let urls = [fixture.url(), fixture.url()];
    let source = Source::new(urls.iter().map(String::as_str), &realm.anchor.to_string()).unwrap();
    let mut device = Device::with_state(source, [CHANNEL], State::ephemeral(&realm.anchor))
        .unwrap()
        .with_start(Start::Oldest);
    assert_eq!(serials(&device.poll().await.unwrap()), [1, 2, 3]);
    assert!(serials(&device.poll().await.unwrap()).is_empty());
}

#[tokio::test]
async fn it_asks_where_it_cannot_be_told() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    let head = publish(&fixture, None, 1).await;
    let address = relay(fixture.address, Lie::NoWatch).await;
    let source = Source::new(
        [format!("nntp://{address}").as_str()],
        &fixture.anchor.to_string(),
    )
    .unwrap();
    let state = State::ephemeral(source.anchor());
    let pace = Pace {
        poll: Duration::from_millis(100),
        ..Pace::default()
    };
    let mut device = Device::with_state(source, [CHANNEL], state)
        .unwrap()
        .with_pace(pace);
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .serial()
            .number(),
        1
    );
    publish(&fixture, head, 1).await;
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .serial()
            .number(),
        2
    );
}

#[tokio::test]
async fn attack_18_it_asks_although_it_is_told() {
    // A broker that promises a line within 300 seconds and then says nothing at all, in front of
    // one with news.
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    let head = publish(&fixture, None, 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (listener.local_addr().unwrap(), fixture.address);
    tokio::spawn(async move {
        while let Ok((device, _)) = listener.accept().await {
            tokio::spawn(black_hole(device, to));
        }
    });
    let source = Source::new(
        [format!("nntp://{address}").as_str()],
        &fixture.anchor.to_string(),
    )
    .unwrap();
    let state = State::ephemeral(source.anchor());
    let pace = Pace {
        audit: Duration::from_millis(500),
        ..Pace::default()
    };
    let mut device = Device::with_state(source, [CHANNEL], state)
        .unwrap()
        .with_pace(pace);
    let watch = device.watch();
    futures_util::pin_mut!(watch);
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .serial()
            .number(),
        1
    );
    publish(&fixture, head, 1).await;
    assert_eq!(
        timeout(PATIENCE, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .serial()
            .number(),
        2
    );
}

/// Passes everything on, but answers XWATCH itself and then says nothing more.
async fn black_hole(device: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let (from_device, mut to_device) = device.into_split();
    let (mut from_broker, mut to_broker) = TcpStream::connect(to).await?.into_split();
    let mut commands = BufReader::new(from_device);
    let mut line = String::new();
    let mut buffer = vec![0; 65536];
    loop {
        tokio::select! {
            n = commands.read_line(&mut line) => {
                if n? == 0 {
                    return Ok(());
                }
                if line.starts_with("XWATCH") {
                    to_device.write_all(b"290 300 watching\r\n").await?;
                    std::future::pending::<()>().await;
                }
                to_broker.write_all(line.as_bytes()).await?;
                line.clear();
            }
            n = from_broker.read(&mut buffer) => to_device.write_all(&buffer[..n?]).await?,
        }
    }
}

#[tokio::test]
async fn attack_24_a_broker_that_is_behind_is_no_error_and_no_rollback() {
    let (one, mut two) = (Fixture::new().unwrap(), Fixture::new().unwrap());
    two.anchor = one.anchor.clone();
    two.trust = one.trust.clone();
    two.configure("").unwrap();
    let (_first, _second) = (one.start().unwrap(), two.start().unwrap());
    publish(&one, None, 2).await;
    let mut publisher = Publisher::connect(two.source().unwrap()).await.unwrap();
    publisher.publish(&two.trust).await.unwrap();
    let mut ahead = Device::open(
        one.source().unwrap(),
        [CHANNEL],
        one.directory.join("state"),
    )
    .unwrap();
    assert_eq!(serials(&ahead.poll().await.unwrap()), [2]);
    drop(ahead);
    let mut ahead = Device::open(
        two.source().unwrap(),
        [CHANNEL],
        one.directory.join("state"),
    )
    .unwrap();
    assert!(serials(&ahead.poll().await.unwrap()).is_empty());
    assert_eq!(ahead.state().head(&channel()).unwrap().serial.number(), 2);
}

#[tokio::test]
async fn attack_65_a_broker_that_claims_too_much_is_left_for_another() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    publish(&fixture, None, 4).await;
    for lie in [
        Lie::Replace("211 4 1 4 test.os", "211 4 1 2147483647 test.os"),
        Lie::Replace("211 4 1 4 test.os", "211 4 1 4294967295 test.os"),
        Lie::Replace("211 4 1 4 test.os", "211 4 0 4 test.os"),
        Lie::Replace("211 4 1 4 test.os", "211 9223372036854775808 x test.os"),
        Lie::Replace("211 1 1 1 test.trust", "211 1 1 2147483647 test.trust"),
    ] {
        let liar = relay(fixture.address, lie).await;
        let brokers = [format!("nntp://{liar}"), fixture.url()];
        let source = Source::new(
            brokers.iter().map(String::as_str),
            &fixture.anchor.to_string(),
        )
        .unwrap();
        let state = State::ephemeral(source.anchor());
        let mut device = Device::with_state(source, [CHANNEL], state)
            .unwrap()
            .with_start(Start::Oldest);
        assert_eq!(
            serials(&timeout(PATIENCE, device.poll()).await.unwrap().unwrap()),
            [1, 2, 3, 4],
            "{lie:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let fixture = Fixture::new().unwrap();
    let daemon = fixture.start().unwrap();
    let head = publish(&fixture, None, 1).await;
    let mut device = Device::open(
        fixture.source().unwrap(),
        [CHANNEL],
        fixture.directory.join("state"),
    )
    .unwrap();
    assert_eq!(serials(&device.poll().await.unwrap()), [1]);
    daemon.kill().unwrap();
    let _daemon = fixture.start().unwrap();
    publish(&fixture, head, 1).await;
    assert_eq!(serials(&device.poll().await.unwrap()), [2]);
    // Two devices do not share one state.
    let second = Device::open(
        fixture.source().unwrap(),
        [CHANNEL],
        fixture.directory.join("state"),
    );
    assert!(matches!(
        second.err().unwrap(),
        Error::State(StateError::InUse(..))
    ));
}
