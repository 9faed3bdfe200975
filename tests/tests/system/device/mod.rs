//! Devices with real brokers: one cursor for poll and watch, failover, lies on the way, and the
//! state file.
#![allow(clippy::unwrap_used)]

mod failover;

use std::{fs, net::SocketAddr, time::Duration};

use futures_util::StreamExt;
use tidings_client::{
    Channel, Device, Error, Freshness, Head, PublishError, Publisher, Source, Start, State,
    StateError, Statement,
};
use tidings_protocol::{SigningKey, verify::VerifyError};
use tidings_tests::{Fixture, release};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const CHANNEL: &str = "test.os.stable";
const PATIENCE: Duration = Duration::from_secs(20);

fn channel() -> Channel {
    CHANNEL.parse().unwrap()
}

/// Publishes so many releases after a head; the new head.
async fn publish(fixture: &Fixture, after: Option<Head>, count: u32) -> Option<Head> {
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    if publisher.trust().is_none() {
        publisher.publish(&fixture.trust).await.unwrap();
    }
    let mut head = after;
    for _ in 0..count {
        let statement = release(&channel(), head, "1", 0, &fixture.release).unwrap();
        publisher.publish(&statement).await.unwrap();
        head = Some(statement.head());
    }
    head
}

fn serials(statements: &[tidings_client::Verified<Statement>]) -> Vec<u32> {
    statements.iter().map(|s| s.serial().number()).collect()
}

#[tokio::test]
async fn poll_and_watch_share_one_cursor_and_survive_restarts() {
    let fixture = Fixture::new().unwrap();
    let daemon = fixture.start().unwrap();
    let head = publish(&fixture, None, 3).await;
    let state = fixture.directory.join("state");
    let open = || Device::open(fixture.source().unwrap(), [CHANNEL], &state).unwrap();

    // A new device wants what is newest, no more.
    let mut device = open();
    assert_eq!(serials(&device.poll().await.unwrap()), [3]);
    assert!(serials(&device.poll().await.unwrap()).is_empty());
    drop(device);

    let head = publish(&fixture, head, 2).await;
    let mut device = open();
    assert_eq!(device.state().head(&channel()).unwrap().serial.number(), 3);
    {
        let watch = device.watch();
        futures_util::pin_mut!(watch);
        for expected in [4, 5] {
            assert_eq!(
                timeout(PATIENCE, watch.next())
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap()
                    .serial()
                    .number(),
                expected
            );
        }
        let head = publish(&fixture, head, 1).await;
        assert_eq!(
            timeout(PATIENCE, watch.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
                .head(),
            head.unwrap()
        );
    }
    assert!(serials(&device.poll().await.unwrap()).is_empty());
    assert_eq!(
        device.state().newest(&channel()).unwrap().serial().number(),
        6
    );

    let ephemeral = State::ephemeral(fixture.source().unwrap().anchor());
    let mut all = Device::with_state(fixture.source().unwrap(), [CHANNEL], ephemeral)
        .unwrap()
        .with_start(Start::Oldest);
    assert_eq!(serials(&all.poll().await.unwrap()), [1, 2, 3, 4, 5, 6]);
    drop(daemon);
}

/// What a relay does to what a broker answers.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Changes the text of articles.
    Replace(&'static str, &'static str),
    /// Claims that this article is not there.
    Hide(&'static str),
    /// Answers with the article of another serial.
    Swap(&'static str, &'static str),
    /// Does not know XWATCH.
    NoWatch,
    /// Sends lines without an end.
    Endless,
    /// Closes in the middle of an article.
    Truncate,
}

async fn relay(to: SocketAddr, lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((device, _)) = listener.accept().await {
            tokio::spawn(deceive(device, to, lie));
        }
    });
    address
}

async fn deceive(device: TcpStream, to: SocketAddr, lie: Lie) -> std::io::Result<()> {
    let (from_device, mut to_device) = device.into_split();
    let (from_broker, mut to_broker) = TcpStream::connect(to).await?.into_split();
    tokio::spawn(async move {
        let mut commands = BufReader::new(from_device).lines();
        while let Some(mut line) = commands.next_line().await? {
            if let Lie::Swap(asked, given) = lie {
                line = if line == asked { given.into() } else { line };
            }
            to_broker
                .write_all(format!("{line}\r\n").as_bytes())
                .await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut lines = BufReader::new(from_broker);
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        match lie {
            Lie::Replace(old, new) => line = line.replace(old, new),
            Lie::NoWatch if line == "XWATCH\r\n" => line.clear(),
            Lie::Endless if line.starts_with("Tidings:") => loop {
                to_device.write_all(&[b'x'; 4096]).await?;
            },
            Lie::Truncate if line.starts_with("Version") => return Ok(()),
            Lie::Hide(start) if line.starts_with(start) => {
                let mut rest = String::new();
                while !rest.ends_with("\r\n.\r\n") && lines.read_line(&mut rest).await? > 0 {}
                line = "423 no such article number in this channel\r\n".into();
            }
            _ => {}
        }
        to_device.write_all(line.as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

#[tokio::test]
async fn attack_28_a_fork_is_kept_as_evidence_and_stops_the_channel() {
    // Two brokers of one namespace, whose publisher has signed two different first releases.
    let (one, mut two) = (Fixture::new().unwrap(), Fixture::new().unwrap());
    two.anchor = one.anchor.clone();
    two.trust = one.trust.clone();
    two.release = one.release.clone();
    two.configure("").unwrap();
    let (_first, _second) = (one.start().unwrap(), two.start().unwrap());
    let state = one.directory.join("state");
    publish(&one, None, 1).await;
    Device::open(one.source().unwrap(), [CHANNEL], &state)
        .unwrap()
        .poll()
        .await
        .unwrap();

    let mut publisher = Publisher::connect(two.source().unwrap()).await.unwrap();
    publisher.publish(&two.trust).await.unwrap();
    let other = release(&channel(), None, "2", 0, &two.release).unwrap();
    publisher.publish(&other).await.unwrap();
    for extra in [
        None,
        Some(release(&channel(), Some(other.head()), "3", 0, &two.release).unwrap()),
    ] {
        if let Some(next) = extra {
            publisher.publish(&next).await.unwrap();
        }
        let mut device = Device::open(two.source().unwrap(), [CHANNEL], &state).unwrap();
        match device.poll().await.unwrap_err() {
            Error::Fork(fork) => {
                assert!(fork.theirs.id() == other.id() && fork.ours.id() != other.id())
            }
            error => panic!("{error}"),
        }
        assert_eq!(
            device.state().head(&channel()).unwrap().id,
            device.state().view().fork(&channel()).unwrap().ours.id()
        );
        assert_eq!(
            device.freshness(&channel()),
            Freshness::Forked,
            "it stays so after a restart"
        );
    }
}

#[tokio::test]
async fn attacks_01_and_31_another_anchor_believes_nothing() {
    let (fixture, other) = (Fixture::new().unwrap(), Fixture::new().unwrap());
    let _daemon = fixture.start().unwrap();
    publish(&fixture, None, 1).await;
    let source = Source::new([fixture.url().as_str()], &other.anchor.to_string()).unwrap();
    let state = State::ephemeral(source.anchor());
    let mut device = Device::with_state(source, [CHANNEL], state).unwrap();
    let Error::Unreachable { source, .. } = device.poll().await.unwrap_err() else {
        panic!("another error")
    };
    assert!(
        matches!(
            *source,
            Error::Verify {
                source: VerifyError::Anchor { .. },
                ..
            }
        ),
        "{source}"
    );
}

#[tokio::test]
async fn attack_87_a_damaged_state_file_is_refused_and_left_alone() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    publish(&fixture, None, 1).await;
    let path = fixture.directory.join("state");
    Device::open(fixture.source().unwrap(), [CHANNEL], &path)
        .unwrap()
        .poll()
        .await
        .unwrap();
    let good = fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let anchor = fixture.source().unwrap().anchor().clone();
    let damages: Vec<Vec<u8>> = vec![
        vec![],
        good[..good.len() / 2].to_vec(),
        text.replace("Version: 1", "Version: 2").into_bytes(),
        text.replacen("tidings-state 3", "tidings-stave 3", 1)
            .into_bytes(),
        vec![0xff; 100],
        [good.clone(), b"x".to_vec()].concat(),
    ];
    for damaged in damages {
        fs::write(&path, &damaged).unwrap();
        let error = State::open(&path, &anchor).err().unwrap();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("not reset by itself"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    fs::write(
        &path,
        text.replacen("tidings-state 3", "tidings-state 4", 1),
    )
    .unwrap();
    assert!(matches!(
        State::open(&path, &anchor),
        Err(StateError::Newer(_))
    ));
    fs::write(
        &path,
        text.replacen("tidings-state 3", "tidings-state 2", 1),
    )
    .unwrap();
    assert!(matches!(
        State::open(&path, &anchor),
        Err(StateError::Older(_))
    ));
    fs::write(&path, &good).unwrap();
    let other = Fixture::new().unwrap();
    assert!(matches!(
        State::open(&path, &other.anchor),
        Err(StateError::OtherAnchor { .. })
    ));
    assert_eq!(
        State::open(&path, &anchor)
            .unwrap()
            .head(&channel())
            .unwrap()
            .serial
            .number(),
        1
    );
}

#[tokio::test]
async fn attack_32_of_many_publishers_exactly_one_gets_each_serial() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    let head = publish(&fixture, None, 1).await;
    let race = |name: u32, key: SigningKey, source: Source| async move {
        let mut publisher = Publisher::connect(source).await.unwrap();
        let mut head = head;
        let mut won = 0;
        while won < 20 {
            let statement = release(&channel(), head, &format!("{name}.{won}"), 0, &key).unwrap();
            head = match publisher.publish(&statement).await {
                Ok(_) => {
                    won += 1;
                    Some(statement.head())
                }
                Err(PublishError::LostRace(head)) => head,
                Err(error) => panic!("{error}"),
            };
        }
    };
    let tasks: Vec<_> = (0..4)
        .map(|name| {
            tokio::spawn(race(
                name,
                fixture.release.clone(),
                fixture.source().unwrap(),
            ))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let state = State::ephemeral(fixture.source().unwrap().anchor());
    let mut device = Device::with_state(fixture.source().unwrap(), [CHANNEL], state)
        .unwrap()
        .with_start(Start::Oldest);
    assert_eq!(
        serials(&device.poll().await.unwrap()),
        (1..=81).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_is_wrong_with_one_channel_keeps_nothing_back_from_another() {
    let fixture = Fixture::new().unwrap();
    let _daemon = fixture.start().unwrap();
    publish(&fixture, None, 2).await;
    let mut publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
    let other: Channel = "test.zz.last".parse().unwrap();
    publisher
        .publish(&release(&other, None, "other", 0, &fixture.release).unwrap())
        .await
        .unwrap();
    let liar = relay(
        fixture.address,
        Lie::Replace("Version: other", "Version: evil"),
    )
    .await;
    let open = |brokers: &[String], name: &str| {
        let source = Source::new(
            brokers.iter().map(String::as_str),
            &fixture.anchor.to_string(),
        )
        .unwrap();
        Device::open(
            source,
            [CHANNEL, other.as_str()],
            fixture.directory.join(name),
        )
        .unwrap()
    };
    // With an honest broker behind the liar, both arrive; with the liar alone, what is good does,
    // and then the error.
    let mut device = open(&[format!("nntp://{liar}"), fixture.url()], "both");
    assert_eq!(serials(&device.poll().await.unwrap()), [2, 1]);
    let mut device = open(&[format!("nntp://{liar}")], "one");
    assert_eq!(serials(&device.poll().await.unwrap()), [2]);
    assert!(matches!(
        device.poll().await,
        Err(Error::Unreachable { .. })
    ));
    assert_eq!(device.state().head(&other), None);
}
