//! The outbox: a signed statement is durable here before it leaves the machine, and is offered
//! first when a program runs again.
//!
//! So a publisher whose connection is cut, or that crashes, never signs two statements for one
//! place (attack 92). One statement of a channel is in it at most; it leaves when the log has it,
//! or proven another in its place, or trust cannot take it any more.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tidings_protocol::{
    Channel, Digest, Namespace, Serial, Statement, log, log::Place, trust::Trust,
};
use tokio::time::{Instant, sleep};

use crate::{PublishError, Publisher, file, limits::OUTBOX_LOCK};

/// How often a lock that another program holds is looked at.
const LOCK_AGAIN: Duration = Duration::from_millis(50);

const MAGIC: &str = "tidings-outbox 1";

/// Why an outbox cannot be used. Its files are left as they are.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The directory or a file cannot be read or written.
    #[error("cannot {what} {path} of the outbox: {source}")]
    Io {
        /// Read, write or remove.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not as it was written.
    #[error(
        "{path} of the outbox is damaged ({reason}); the statement in it may have been published: look at the log (`tidings log CHANNEL`), and remove the file if its serial stands there"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file belongs to another machine.
    #[error(
        "{path} of the outbox was made on another machine; two machines that offer it may sign twice for one place: publish from the other one, or remove the file there and here, and sign anew"
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
    },
    /// A file belongs to another namespace or channel.
    #[error(
        "{path} of the outbox holds a statement of {found}, which is not of {expected}; use an outbox for each namespace (--outbox DIR)"
    )]
    OtherNamespace {
        /// The file.
        path: PathBuf,
        /// The namespace, or the channel that the file is named for.
        expected: String,
        /// The channel of the statement.
        found: Channel,
    },
    /// Something is waiting already.
    #[error(
        "{0} in the outbox waits to be published; nothing else is signed for {1} before (`tidings outbox` shows it)"
    )]
    Waiting(Serial, Channel),
    /// Another program publishes to the channel.
    #[error("another program on this machine publishes to {0} and has not finished")]
    InUse(Channel),
}

/// What became of the statement that was waiting for a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The log has it.
    Published(Statement),
    /// Another statement has its place, or trust cannot take it any more: it was dropped. What the
    /// broker said.
    Dropped(Statement, String),
}

/// Makes a directory that its owner alone may look into.
pub(crate) fn make(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Held while a program publishes to a channel.
pub struct OutboxLock {
    _file: fs::File,
}

/// A directory of signed statements that have not been acknowledged yet.
#[derive(Clone, Debug)]
pub struct Outbox {
    directory: PathBuf,
    namespace: Namespace,
    machine: String,
}

impl Outbox {
    /// The outbox in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(directory: impl Into<PathBuf>, namespace: &Namespace) -> Result<Self, OutboxError> {
        let directory = directory.into();
        make(&directory).map_err(|source| OutboxError::Io {
            what: "make",
            path: directory.clone(),
            source,
        })?;
        let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let machine = Digest::of(format!("tidings outbox\n{}", id.trim()).as_bytes()).to_string();
        Ok(Self {
            directory,
            namespace: namespace.clone(),
            machine,
        })
    }

    /// The same as if it were on another machine; for tests.
    #[must_use]
    pub fn on_machine(self, machine: &str) -> Self {
        Self {
            machine: machine.into(),
            ..self
        }
    }

    fn path(&self, channel: &Channel) -> PathBuf {
        self.directory.join(format!("{channel}.statement"))
    }

    /// Keeps a signed statement durably, before it leaves the machine.
    ///
    /// # Errors
    /// If another one waits for the same channel, or it cannot be written.
    pub fn put(&self, statement: &Statement) -> Result<(), OutboxError> {
        let channel = statement.channel();
        if let Some(waiting) = self
            .waiting(channel)?
            .filter(|waiting| waiting.id() != statement.id())
        {
            return Err(OutboxError::Waiting(waiting.serial(), channel.clone()));
        }
        let path = self.path(channel);
        let error = |source| OutboxError::Io {
            what: "write",
            path: path.clone(),
            source,
        };
        let mut octets = format!(
            "{MAGIC} {} {}\n",
            self.machine,
            Digest::of(statement.octets())
        )
        .into_bytes();
        octets.extend_from_slice(statement.octets());
        file::replace(&path, &octets, 0o600).map_err(error)
    }

    /// Keeps other programs of this machine from publishing to a channel until the lock is dropped;
    /// waits for one that does.
    ///
    /// # Errors
    /// If another one does not finish.
    pub async fn lock(&self, channel: &Channel) -> Result<OutboxLock, OutboxError> {
        let path = self.directory.join(format!("{channel}.lock"));
        let error = |source| OutboxError::Io {
            what: "lock",
            path: path.clone(),
            source,
        };
        let lock = fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(error)?;
        let until = Instant::now() + OUTBOX_LOCK;
        loop {
            if file::try_lock(&lock, &path, false).map_err(error)? {
                return Ok(OutboxLock { _file: lock });
            }
            if Instant::now() >= until {
                return Err(OutboxError::InUse(channel.clone()));
            }
            sleep(LOCK_AGAIN).await;
        }
    }

    fn sync(&self, path: &Path) -> Result<(), OutboxError> {
        let error = |source| OutboxError::Io {
            what: "write",
            path: path.into(),
            source,
        };
        file::sync_directory(&self.directory).map_err(error)
    }

    /// The statement that waits for a channel.
    ///
    /// # Errors
    /// If its file cannot be read, is damaged, or is of another machine, namespace or channel.
    pub fn waiting(&self, channel: &Channel) -> Result<Option<Statement>, OutboxError> {
        let path = self.path(channel);
        match fs::read(&path) {
            Ok(octets) => self.read(path, &octets, channel).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OutboxError::Io {
                what: "read",
                path,
                source,
            }),
        }
    }

    fn read(
        &self,
        path: PathBuf,
        octets: &[u8],
        channel: &Channel,
    ) -> Result<Statement, OutboxError> {
        let damaged = |reason: &str| OutboxError::Damaged {
            path: path.clone(),
            reason: reason.into(),
        };
        let end = octets
            .iter()
            .position(|&octet| octet == b'\n')
            .ok_or_else(|| damaged("it has no first line"))?;
        let first =
            str::from_utf8(&octets[..end]).map_err(|_| damaged("its first line is not text"))?;
        let rest = first
            .strip_prefix(MAGIC)
            .ok_or_else(|| damaged("its first line is not that of an outbox"))?;
        let (machine, digest) = rest
            .trim_start()
            .split_once(' ')
            .ok_or_else(|| damaged("its first line is cut off"))?;
        let text = &octets[end + 1..];
        if Digest::of(text).to_string() != digest {
            return Err(damaged("its SHA-256 is not the one in its first line"));
        }
        let statement = Statement::parse(text).map_err(|error| damaged(&error.to_string()))?;
        if machine != self.machine {
            return Err(OutboxError::OtherMachine { path });
        }
        if statement.channel() != channel || !self.namespace.contains(channel) {
            let expected = if self.namespace.contains(statement.channel()) {
                channel.to_string()
            } else {
                self.namespace.to_string()
            };
            return Err(OutboxError::OtherNamespace {
                path,
                expected,
                found: statement.channel().clone(),
            });
        }
        Ok(statement)
    }

    /// The channels for which a statement waits.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn channels(&self) -> Result<Vec<Channel>, OutboxError> {
        let error = |source| OutboxError::Io {
            what: "read",
            path: self.directory.clone(),
            source,
        };
        let mut channels = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            channels.extend(
                name.to_str()
                    .and_then(|name| name.strip_suffix(".statement")?.parse::<Channel>().ok()),
            );
        }
        channels.sort();
        Ok(channels)
    }

    /// Removes the statement that waits for a channel: it is settled, or has never left the
    /// machine.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, channel: &Channel) -> Result<(), OutboxError> {
        let path = self.path(channel);
        match fs::remove_file(&path) {
            Ok(()) => self.sync(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(OutboxError::Io {
                what: "remove",
                path,
                source,
            }),
        }
    }
}

impl Publisher {
    /// Offers what waits in the outbox for a channel; nothing else is to be signed for it before.
    ///
    /// # Errors
    /// If it is not known yet what becomes of it: it stays.
    pub async fn settle(
        &mut self,
        outbox: &Outbox,
        channel: &Channel,
    ) -> Result<Option<Settled>, PublishError> {
        let Some(statement) = outbox.waiting(channel)? else {
            return Ok(None);
        };
        let why = match self.publish(&statement).await {
            Ok(_) => {
                outbox.remove(channel)?;
                return Ok(Some(Settled::Published(statement)));
            }
            Err(PublishError::LostRace(_)) if self.is_overtaken(&statement).await? => {
                "another statement has its place".to_owned()
            }
            Err(PublishError::Refused(response))
                if self
                    .trust()
                    .is_some_and(|trust| trust.check(&statement).is_err()) =>
            {
                response.to_string()
            }
            Err(error) => return Err(error),
        };
        outbox.remove(channel)?;
        Ok(Some(Settled::Dropped(statement, why)))
    }

    /// Keeps a signed statement in the outbox, publishes it, and takes it out when that is settled.
    ///
    /// # Errors
    /// As [`Publisher::publish`]. After a failed connection it stays in the outbox and is offered
    /// first in the next run.
    pub async fn publish_by(
        &mut self,
        outbox: &Outbox,
        statement: &Statement,
    ) -> Result<crate::Published, PublishError> {
        outbox.put(statement)?;
        let published = self.publish(statement).await;
        let settled = match &published {
            Ok(_) => true,
            Err(PublishError::LostRace(_)) => self.is_overtaken(statement).await?,
            Err(PublishError::Refused(_)) => self
                .trust()
                .is_some_and(|trust| trust.check(statement).is_err()),
            Err(_) => false,
        };
        if settled {
            outbox.remove(statement.channel())?;
        }
        published
    }

    /// Whether the log has another statement in the place of one, and that one is proven: what a
    /// broker says alone empties no outbox.
    async fn is_overtaken(&mut self, statement: &Statement) -> Result<bool, PublishError> {
        if statement.channel().is_trust() {
            return Ok(self
                .trust()
                .is_some_and(|trust| log::place(Some(trust.head()), statement) != Place::Next));
        }
        let newest = self.newest(statement.channel()).await?;
        let Some(newest) = newest else {
            return Ok(false);
        };
        let Some(before) = statement.predecessor() else {
            return Ok(true);
        };
        // What it follows was filed away under a later trust: its place is free again, and it can
        // never be taken.
        let later_trust = statement.trust() < self.trust().map(Trust::serial);
        let filed_away = newest.serial() < before.serial && later_trust;
        Ok(newest.serial() >= statement.serial()
            || newest.serial() == before.serial && newest.id() != before.id
            || filed_away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_protocol::{
        SigningKey, Timestamp,
        statement::{Body, Draft, Release},
    };

    fn statement(version: &str) -> Statement {
        let release = Release {
            version: version.into(),
            ..Release::default()
        };
        let (channel, time) = (
            "acme.os".parse().unwrap(),
            Timestamp::from_seconds(1_800_000_000),
        );
        let draft = Draft {
            channel,
            after: None,
            time,
            trust: Some(tidings_protocol::Serial::FIRST),
            body: Body::Release(release),
        };
        draft
            .write()
            .unwrap()
            .sign(&SigningKey::from_bytes(&[1; 32]))
            .unwrap()
    }

    #[test]
    fn attack_092_one_statement_waits_for_a_channel() {
        let directory = tempfile::tempdir().unwrap();
        let namespace = "acme".parse().unwrap();
        let (one, channel) = (statement("1"), "acme.os".parse().unwrap());
        let outbox = Outbox::open(directory.path().join("outbox"), &namespace).unwrap();
        assert_eq!(outbox.waiting(&channel).unwrap(), None);
        outbox.put(&one).unwrap();
        outbox.put(&one).unwrap();
        assert_eq!(outbox.waiting(&channel).unwrap().as_ref(), Some(&one));
        assert!(matches!(
            outbox.put(&statement("2")),
            Err(OutboxError::Waiting(..))
        ));
        assert_eq!(outbox.channels().unwrap(), std::slice::from_ref(&channel));
        outbox.remove(&channel).unwrap();
        outbox.put(&statement("2")).unwrap();
    }

    #[test]
    fn what_is_damaged_or_of_others_is_said_and_left() {
        let directory = tempfile::tempdir().unwrap();
        let (namespace, channel): (Namespace, Channel) =
            ("acme".parse().unwrap(), "acme.os".parse().unwrap());
        let outbox = Outbox::open(directory.path(), &namespace).unwrap();
        outbox.put(&statement("1")).unwrap();
        let path = directory.path().join("acme.os.statement");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(outbox.waiting(&channel).is_err(), "octet {at}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        fs::write(&path, &good).unwrap();
        let elsewhere = outbox.clone().on_machine("another");
        assert!(matches!(
            elsewhere.waiting(&channel),
            Err(OutboxError::OtherMachine { .. })
        ));
        let other = Outbox::open(directory.path(), &"other".parse().unwrap()).unwrap();
        assert!(matches!(
            other.waiting(&channel),
            Err(OutboxError::OtherNamespace { .. })
        ));
        fs::rename(&path, directory.path().join("acme.web.statement")).unwrap();
        assert!(matches!(
            outbox.waiting(&"acme.web".parse().unwrap()),
            Err(OutboxError::OtherNamespace { .. })
        ));
    }
}
