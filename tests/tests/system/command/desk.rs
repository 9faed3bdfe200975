//! What the tests of the command share: a publisher's desk with keys, an origin, and the command.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tidings_client::{Channel, Publisher, Statement, keys};
use tidings_tests::{
    Daemon, Fixture, binary,
    realm::{Realm, key},
};

// How commands end, by the names of `tidings --help`.
pub(crate) const REFUSED: i32 = 3;
pub(crate) const WITHDRAWN: i32 = 5;
pub(crate) const WAITING: i32 = 6;
pub(crate) const NO_BROKER: i32 = 7;
pub(crate) const NOTHING: i32 = 9;

/// One key for each thing.
pub(crate) const ROLES: &[&str] = &[
    "trust * 1 root",
    "release * 1 ann",
    "withdraw * 1 stop",
    "beat * 1 beat",
];
/// The same, without beats.
pub(crate) const NO_BEATS: &[&str] = &["trust * 1 root", "release * 1 ann", "withdraw * 1 stop"];

pub(crate) fn os() -> Channel {
    "test.os.stable".parse().unwrap()
}

pub(crate) struct Desk {
    pub(crate) realm: Realm,
    pub(crate) fixture: Fixture,
    pub(crate) publisher: Publisher,
    daemon: Daemon,
}

/// How a command has ended, and what it has said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn good(&self, says: &str) {
        assert!(
            self.code == 0 && self.text.contains(says),
            "{}: {:?} should say {says:?}",
            self.code,
            self.text
        );
    }

    #[track_caller]
    pub(crate) fn bad(&self, code: i32, says: &str) {
        assert!(
            self.code == code && self.text.contains(says),
            "{}: {:?} should say {says:?}",
            self.code,
            self.text
        );
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            text,
        }
    }
}

impl Desk {
    pub(crate) async fn new(roles: &[&str]) -> Self {
        Self::with(Realm::new(roles, &["root"]), "").await
    }

    pub(crate) async fn with(realm: Realm, configuration: &str) -> Self {
        let mut fixture = Fixture::new().unwrap();
        fixture.anchor = realm.anchor.clone();
        fixture.configure(configuration).unwrap();
        let daemon = fixture.start().unwrap();
        for name in ["root", "ann", "stop", "beat", "cem"] {
            let path = fixture.directory.join(format!("{name}.key"));
            // The fixture has a root of its own.
            let _ = std::fs::remove_file(&path);
            keys::write_private(&path, &key(name), None).unwrap();
        }
        let publisher = Publisher::connect(fixture.source().unwrap()).await.unwrap();
        let mut desk = Self {
            realm,
            fixture,
            publisher,
            daemon,
        };
        let log = desk.realm.log.clone();
        desk.publish(&log).await;
        desk
    }

    /// The broker is started anew, with more in its configuration.
    pub(crate) async fn restart(self, configuration: &str) -> Self {
        self.daemon.signal("TERM").unwrap();
        assert_eq!(
            self.daemon
                .wait(std::time::Duration::from_secs(20))
                .unwrap(),
            Some(0)
        );
        self.fixture.configure(configuration).unwrap();
        let daemon = self.fixture.start().unwrap();
        let publisher = Publisher::connect(self.fixture.source().unwrap())
            .await
            .unwrap();
        Self {
            realm: self.realm,
            fixture: self.fixture,
            publisher,
            daemon,
        }
    }

    pub(crate) async fn publish(&mut self, statements: &[Statement]) {
        for statement in statements {
            self.publisher
                .publish(statement)
                .await
                .unwrap_or_else(|e| panic!("{}: {e}", statement.message_id()));
        }
    }

    /// A chain of releases from the first on, published.
    pub(crate) async fn releases(&mut self, channel: &Channel, count: u32) -> Vec<Statement> {
        let mut all: Vec<Statement> = Vec::new();
        for number in 1..=count {
            all.push(self.realm.release(
                channel,
                all.last().map(Statement::head),
                &number.to_string(),
                &["ann"],
            ));
        }
        self.publish(&all).await;
        all
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.fixture.directory.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The command at this desk, before it is run; it asks these brokers.
    pub(crate) fn command(&self, brokers: &[SocketAddr], arguments: &[&str]) -> Command {
        let urls: Vec<String> = brokers
            .iter()
            .map(|address| format!("nntp://{address}"))
            .collect();
        let mut command = Command::new(binary("tidings"));
        command
            .args(arguments)
            .current_dir(&self.fixture.directory)
            .stdin(Stdio::null());
        command
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("TIDINGS_BROKERS", urls.join(","));
        command.env("TIDINGS_ANCHOR", self.realm.anchor.to_string());
        command
    }

    pub(crate) fn run_at(&self, brokers: &[SocketAddr], arguments: &[&str]) -> Said {
        // A relay of the test's own needs its runtime meanwhile.
        tokio::task::block_in_place(|| self.command(brokers, arguments).output().unwrap().into())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_at(&[self.fixture.address], arguments)
    }

    pub(crate) fn release(&self, more: &[&str]) -> Said {
        self.run(
            &[
                &["release", "test.os.stable", "--key", "ann.key", "--publish"],
                more,
            ]
            .concat(),
        )
    }
}
