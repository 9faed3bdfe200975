//! What tests of several brokers share: an origin for a realm, and looking at what others have of
//! it.

use std::time::{Duration, Instant};

use tidings_client::{
    Channel, Connection, Device, Head, Publisher, Source, Start, State, Statement, Tls,
};
use tokio::time::sleep;

use crate::{
    Daemon, Fixture,
    realm::{ROLES, Realm},
};

/// How long something may take that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The channel of most tests.
///
/// # Panics
/// Never.
pub fn os() -> Channel {
    "test.os.stable"
        .parse()
        .unwrap_or_else(|_| panic!("no channel"))
}

/// The realm of most tests.
pub fn realm() -> Realm {
    Realm::new(ROLES, &["root1", "root2"])
}

/// A connection to a broker.
///
/// # Errors
/// If it cannot be reached.
pub async fn connect(fixture: &Fixture) -> anyhow::Result<Connection> {
    Ok(Connection::open(&fixture.url().parse()?, &Tls::system()?).await?)
}

/// The highest serial of a channel; 0 where it is not.
///
/// # Errors
/// If the broker cannot be asked.
pub async fn head(fixture: &Fixture, channel: &Channel) -> anyhow::Result<u32> {
    Ok(connect(fixture)
        .await?
        .group(channel, None)
        .await?
        .map_or(0, |(group, _)| group.high))
}

/// Waits until something holds.
///
/// # Panics
/// If it never does.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}: this does not happen");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a broker has so many statements of a channel.
///
/// # Panics
/// If it never has.
pub async fn until_head(fixture: &Fixture, channel: &Channel, serial: u32) {
    let began = Instant::now();
    loop {
        let there = head(fixture, channel).await.unwrap_or(0);
        if there == serial {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{channel} {serial} does not come; there is {there}; its log: {}",
            fixture.log()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// A broker for a realm, not started yet.
///
/// # Errors
/// If files cannot be written.
pub fn broker(realm: &Realm, more: &str) -> anyhow::Result<Fixture> {
    let fixture = Fixture {
        anchor: realm.anchor.clone(),
        ..Fixture::new()?
    };
    fixture.configure(more)?;
    Ok(fixture)
}

/// An origin for a realm, with its trust log published.
///
/// # Errors
/// If it does not start.
pub async fn origin(realm: &Realm, more: &str) -> anyhow::Result<(Fixture, Daemon, Publisher)> {
    let fixture = broker(realm, more)?;
    let daemon = fixture.start()?;
    let mut publisher = Publisher::connect(fixture.source()?).await?;
    publish_trust(realm, &mut publisher).await?;
    Ok((fixture, daemon, publisher))
}

/// Publishes the trust log, as soon as the broker has compared itself with others and takes
/// something.
///
/// # Errors
/// If it is refused for something else, or it takes too long.
pub async fn publish_trust(realm: &Realm, publisher: &mut Publisher) -> anyhow::Result<()> {
    let began = Instant::now();
    for statement in &realm.log {
        while let Err(error) = publisher.publish(statement).await {
            let waits = error
                .to_string()
                .contains("this broker looks first whether others have more");
            anyhow::ensure!(waits && began.elapsed() < PATIENCE, "{error}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Releases that follow a head.
pub fn releases(
    realm: &Realm,
    channel: &Channel,
    after: Option<Head>,
    count: u32,
    by: &[&str],
) -> Vec<Statement> {
    let mut head = after;
    let next = |_| {
        let version = format!("1.{}", head.map_or(1, |head| head.serial.number() + 1));
        let statement = realm.release(channel, head, &version, by);
        head = Some(statement.head());
        statement
    };
    (0..count).map(next).collect()
}

/// Publishes releases that follow a head; the new head.
///
/// # Errors
/// If one is refused.
pub async fn publish(
    realm: &Realm,
    publisher: &mut Publisher,
    channel: &Channel,
    after: Option<Head>,
    count: u32,
    by: &[&str],
) -> anyhow::Result<Head> {
    let mut head = after;
    for statement in releases(realm, channel, after, count, by) {
        publisher.publish(&statement).await?;
        head = Some(statement.head());
    }
    head.ok_or_else(|| anyhow::anyhow!("nothing was published"))
}

/// Everything that a device reads of a channel, from the oldest statement on.
///
/// # Errors
/// If it cannot verify it.
pub async fn read_all(fixture: &Fixture, channel: &Channel) -> anyhow::Result<Vec<Statement>> {
    let source: Source = fixture.source()?;
    let state = State::ephemeral(source.anchor());
    let mut device =
        Device::with_state(source, [channel.as_str()], state)?.with_start(Start::Oldest);
    Ok(device
        .poll()
        .await?
        .into_iter()
        .map(|statement| statement.into_inner())
        .collect())
}
