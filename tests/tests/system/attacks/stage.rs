//! What the attacks share: a broker for a realm, devices, and relays that keep things back.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use tidings_client::{
    Channel, Clear, Device, Error, Head, PublishError, Publisher, Serial, Source, Start, State,
    Statement, Verified,
};
use tidings_protocol::Requirement;
use tidings_tests::{
    Daemon, Fixture,
    clock::HandClock,
    realm::Realm,
    relay::{self, Act},
};
use tokio::time::timeout;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const ROOTS: &[&str] = &["root1", "root2"];
pub(crate) const BOTH: &[&str] = &["ann", "bob"];
/// Without beats, where a test is about something else.
pub(crate) const NO_BEATS: &[&str] = &[
    "trust * 2 root1 root2 root3",
    "release * 2 ann bob",
    "withdraw * 1 stop",
];

pub(crate) fn os() -> Channel {
    "test.os.stable".parse().unwrap()
}

pub(crate) fn serial(number: u32) -> Serial {
    Serial::new(number).unwrap()
}

pub(crate) fn serials(statements: &[Verified<Statement>]) -> Vec<u32> {
    statements.iter().map(|s| s.serial().number()).collect()
}

/// A broker that is provisioned for a realm.
pub(crate) struct Stage {
    pub(crate) fixture: Fixture,
    daemon: Daemon,
    pub(crate) publisher: Publisher,
}

impl Stage {
    pub(crate) async fn new(realm: &Realm) -> Self {
        Self::with(realm, "").await
    }

    pub(crate) async fn with(realm: &Realm, configuration: &str) -> Self {
        let mut fixture = Fixture::new().unwrap();
        fixture.anchor = realm.anchor.clone();
        fixture.configure(configuration).unwrap();
        let daemon = fixture.start().unwrap();
        let publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
        let mut stage = Self {
            fixture,
            daemon,
            publisher,
        };
        stage.publish(&realm.log).await;
        stage
    }

    pub(crate) async fn publish(&mut self, statements: &[Statement]) {
        for statement in statements {
            self.publisher
                .publish(statement)
                .await
                .unwrap_or_else(|e| panic!("{}: {e}", statement.message_id()));
        }
    }

    /// What the broker says to a statement that it does not take.
    pub(crate) async fn refusal(&mut self, statement: &Statement) -> String {
        match self.publisher.publish(statement).await {
            Ok(_) => panic!("{} was taken", statement.message_id()),
            Err(PublishError::Refused(response)) => response.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// The same broker after `kill -9`.
    pub(crate) async fn restart(self) -> Self {
        let Self {
            fixture, daemon, ..
        } = self;
        daemon.kill().unwrap();
        let daemon = fixture.start().unwrap();
        let publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
        Self {
            fixture,
            daemon,
            publisher,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.fixture.address
    }
}

pub(crate) fn source(realm: &Realm, brokers: &[SocketAddr]) -> Source {
    let urls: Vec<String> = brokers
        .iter()
        .map(|address| format!("nntp://{address}"))
        .collect();
    Source::new(urls.iter().map(String::as_str), &realm.anchor.to_string()).unwrap()
}

pub(crate) fn device(realm: &Realm, brokers: &[SocketAddr]) -> Device {
    Device::with_state(
        source(realm, brokers),
        ["test.os.stable"],
        State::ephemeral(&realm.anchor),
    )
    .unwrap()
    .with_start(Start::Oldest)
}

/// The same with clocks of the test's own.
pub(crate) fn device_at(realm: &Realm, brokers: &[SocketAddr], clock: &HandClock) -> Device {
    let state = State::ephemeral(&realm.anchor).with_clock(clock.clock());
    Device::with_state(source(realm, brokers), ["test.os.stable"], state)
        .unwrap()
        .with_start(Start::Oldest)
}

pub(crate) async fn poll(device: &mut Device) -> Result<Vec<u32>, Error> {
    timeout(PATIENCE, device.poll())
        .await
        .expect("the poll takes too long")
        .map(|news| serials(&news))
}

/// The requirement that something is refused by, however deep it lies.
///
/// # Panics
/// If it is refused for something else.
pub(crate) fn requirement(error: &Error) -> Requirement {
    match error {
        Error::Unreachable { source, .. } => requirement(source),
        Error::Verify { source, .. } => source.requirement(),
        Error::NotNow { reason, .. } => reason.requirement(),
        Error::Fork(_) => Requirement::Fork,
        other => panic!("{other}"),
    }
}

/// Whether a release is the one to run, and if not, by which requirement.
pub(crate) async fn clear(device: &mut Device, number: u32) -> Result<(), Requirement> {
    let cleared = timeout(PATIENCE, device.may_apply(&os(), serial(number)))
        .await
        .expect("it takes too long");
    cleared.map(drop).map_err(|error| requirement(&error))
}

/// The serial of the release to run; none if what was applied is.
pub(crate) async fn target(device: &mut Device) -> Result<Option<u32>, Requirement> {
    match timeout(PATIENCE, device.target(&os()))
        .await
        .expect("it takes too long")
    {
        Ok(Clear::Apply(statement)) => Ok(Some(statement.serial().number())),
        Ok(Clear::Nothing { .. }) => Ok(None),
        Err(error) => Err(requirement(&error)),
    }
}

/// A chain of releases, each after the one before.
pub(crate) fn releases(
    realm: &Realm,
    after: Option<Head>,
    count: u32,
    signers: &[&str],
) -> Vec<Statement> {
    let mut all: Vec<Statement> = Vec::new();
    for number in 1..=count {
        let head = all.last().map(Statement::head).or(after);
        all.push(realm.release(&os(), head, &format!("1.{number}"), signers));
    }
    all
}

/// A relay that keeps back everything of a channel after a serial; beats too, if it is told to.
pub(crate) async fn withhold(to: SocketAddr, last: u32) -> SocketAddr {
    let selected = Mutex::new(String::new());
    let mischief = move |command: &str, answer: Vec<u8>| {
        if let Some(channel) = command.strip_prefix("GROUP ") {
            channel.clone_into(&mut selected.lock().unwrap());
            let text = String::from_utf8_lossy(&answer).into_owned();
            let marks: Vec<&str> = text.split_whitespace().collect();
            if channel == "test.os.stable" && marks[0] == "211" {
                let high = marks[3].parse::<u32>().unwrap().min(last);
                return Act::Send(
                    format!("211 {high} {} {high} {channel}\r\n", marks[2]).into_bytes(),
                );
            }
        }
        let number = command
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse::<u32>().ok())
            .unwrap_or(0);
        let hidden = *selected.lock().unwrap() == "test.os.stable" && number > last;
        match command {
            "XWATCH" => Act::Send(
                if String::from_utf8_lossy(&answer).contains("test.os.stable") {
                    vec![]
                } else {
                    answer
                },
            ),
            _ if hidden => Act::Send(b"423 no such article\r\n".to_vec()),
            _ => Act::Send(answer),
        }
    };
    relay::start(&[to], mischief).await.unwrap()
}
