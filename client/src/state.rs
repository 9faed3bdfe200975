//! What a device must not forget: the trust in force, the head of each channel, the latest signed time.
//!
//! [5.1-1]. One file: a line with a version and a SHA-256, then TOML. It is replaced atomically; one that is damaged is
//! refused with an explanation, and never reset silently (attack 87).

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tidings_protocol::{Anchor, Channel, Digest, Head, Statement, Timestamp, Verified, trust::Trust};

use crate::limits::STATE_OCTETS;

const MAGIC: &str = "tidings-state 1";

/// Why a state file cannot be used. It is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read or written.
    #[error("cannot {what} the state file {path}: {source}")]
    Io {
        /// Read, write or replace.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not as it was written.
    #[error(
        "the state file {path} is damaged ({reason}); it is not reset by itself, since it guards against old releases: \
         restore it, or remove it on purpose to start anew from the anchor"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was written by a newer version.
    #[error("the state file {0} was written by a newer version of Tidings; use that one")]
    Newer(PathBuf),
    /// Another device works with it.
    #[error("the state file {0} is in use by another program; each device needs its own")]
    InUse(PathBuf),
    /// It belongs to another anchor.
    #[error("the state file {path} belongs to the anchor `{found}`, not to `{expected}`; use another file for another namespace")]
    OtherAnchor {
        /// The file.
        path: PathBuf,
        /// The anchor of the device.
        expected: Anchor,
        /// The anchor in the file.
        found: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    anchor: String,
    /// The latest signed time that was seen.
    floor: String,
    trust: Option<String>,
    #[serde(default)]
    channel: Vec<FileChannel>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileChannel {
    name: String,
    head: String,
    statement: String,
}

/// What a device knows for certain, and keeps.
pub struct State {
    path: Option<PathBuf>,
    /// Held as long as the state is in use, so that two devices do not take each other back.
    _lock: Option<fs::File>,
    anchor: Anchor,
    pub(crate) trust: Option<Trust>,
    floor: Timestamp,
    channels: Vec<Known>,
}

/// What is known of a channel.
#[derive(Clone)]
pub(crate) struct Known {
    channel: Channel,
    head: Head,
    /// The statement at the head. After a restart it is proven anew by the trust in force; a retired key proves nothing
    /// new, so that it may be missing, while the head stays.
    newest: Option<Verified<Statement>>,
    text: String,
}

impl State {
    /// A state that ends with the process.
    pub fn ephemeral(anchor: &Anchor) -> Self {
        Self { path: None, _lock: None, anchor: anchor.clone(), trust: None, floor: Timestamp::from_seconds(0), channels: Vec::new() }
    }

    /// The state in a file, or a new one if there is no such file.
    ///
    /// # Errors
    /// If the file is damaged, newer, or of another anchor. It is left as it is.
    pub fn open(path: impl Into<PathBuf>, anchor: &Anchor) -> Result<Self, StateError> {
        let path = path.into();
        let mut name = path.clone().into_os_string();
        name.push(".lock");
        let error = |source| StateError::Io { what: "lock", path: path.clone(), source };
        let lock = fs::File::options().create(true).append(true).open(name).map_err(error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StateError::InUse(path)),
            Err(fs::TryLockError::Error(source)) => return Err(error(source)),
        }
        Ok(Self { _lock: Some(lock), ..Self::look(path, anchor)? })
    }

    /// The state in a file as it is now, for somebody who changes nothing.
    ///
    /// # Errors
    /// As [`State::open`], but that it may be in use.
    pub fn look(path: impl Into<PathBuf>, anchor: &Anchor) -> Result<Self, StateError> {
        let path = path.into();
        let mut state = Self { path: Some(path.clone()), ..Self::ephemeral(anchor) };
        let mut text = String::new();
        let read = fs::File::open(&path).and_then(|file| file.take(STATE_OCTETS).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StateError::Damaged { path, reason: "it is not UTF-8".into() });
            }
            Err(source) => return Err(StateError::Io { what: "read", path, source }),
            Ok(_) => {}
        }
        let damaged = |reason: &str| StateError::Damaged { path: path.clone(), reason: reason.into() };
        let (first, rest) = text.split_once('\n').ok_or_else(|| damaged("it has no first line"))?;
        let Some(sum) = first.strip_prefix(MAGIC).and_then(|f| f.strip_prefix(' ')) else {
            let newer = first.starts_with("tidings-state ");
            return Err(if newer { StateError::Newer(path) } else { damaged("its first line is not that of a state file") });
        };
        if sum != Digest::of(rest.as_bytes()).to_string() {
            return Err(damaged("its SHA-256 is not the one in its first line"));
        }
        let file: File = toml::from_str(rest).map_err(|e| damaged(e.message()))?;
        if file.anchor != anchor.to_string() {
            return Err(StateError::OtherAnchor { path, expected: anchor.clone(), found: file.anchor });
        }
        state.floor = file.floor.parse().map_err(|_| damaged("its floor is no time"))?;
        if let Some(text) = file.trust {
            let statement = Statement::parse(text.as_bytes()).map_err(|e| damaged(&format!("trust: {e}")))?;
            state.trust = Some(Trust::resume(&anchor.namespace, statement).map_err(|e| damaged(&format!("trust: {e}")))?);
        }
        for channel in file.channel {
            let wrong = |why: &str| damaged(&format!("{}: {why}", channel.name));
            let statement = Statement::parse(channel.statement.as_bytes()).map_err(|e| wrong(&e.to_string()))?;
            if statement.channel().as_str() != channel.name || statement.head().to_string() != channel.head {
                return Err(wrong("its head is not the statement that is kept"));
            }
            let newest = state.trust.as_ref().and_then(|trust| trust.verify(statement.clone()).ok());
            let (head, channel_name) = (statement.head(), statement.channel().clone());
            state.channels.push(Known { channel: channel_name, head, newest, text: channel.statement });
        }
        Ok(state)
    }

    /// The anchor.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }
    /// The trust in force, once it is known.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }
    /// The newest statement of a channel that was verified, as far as the trust in force can prove it.
    pub fn newest(&self, channel: &Channel) -> Option<&Verified<Statement>> {
        self.channels.iter().find(|k| k.channel == *channel)?.newest.as_ref()
    }
    /// Serial and id of the newest statement of a channel: the cursor of poll and watch alike.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        self.channels.iter().find(|k| k.channel == *channel).map(|k| k.head)
    }
    /// The latest signed time that was seen: it cannot be earlier now (attack 21).
    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    pub(crate) fn set_trust(&mut self, trust: Trust) {
        self.floor = self.floor.max(trust.statement().time());
        self.trust = Some(trust);
    }

    /// Takes note of the newest statements of some channels, durably; if that fails, nothing has changed.
    pub(crate) fn advance<'a>(&mut self, newest: impl IntoIterator<Item = &'a Verified<Statement>>) -> Result<(), StateError> {
        let before = (self.floor, self.channels.clone());
        self.note(newest);
        self.save().inspect_err(|_| (self.floor, self.channels) = before)
    }

    /// The same in memory alone, until [`State::save`].
    pub(crate) fn note<'a>(&mut self, newest: impl IntoIterator<Item = &'a Verified<Statement>>) {
        newest.into_iter().for_each(|statement| self.set_newest(statement));
    }

    fn set_newest(&mut self, statement: &Verified<Statement>) {
        self.floor = self.floor.max(statement.time());
        self.channels.retain(|k| k.channel != *statement.channel());
        let text = String::from_utf8_lossy(statement.octets()).into_owned();
        self.channels.push(Known { channel: statement.channel().clone(), head: statement.head(), newest: Some(statement.clone()), text });
    }

    /// Writes the file: a new one beside it, made durable, takes its place.
    pub(crate) fn save(&self) -> Result<(), StateError> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = File {
            anchor: self.anchor.to_string(),
            floor: self.floor.to_string(),
            trust: self.trust.as_ref().map(|t| String::from_utf8_lossy(t.statement().octets()).into_owned()),
            channel: self
                .channels
                .iter()
                .map(|k| FileChannel { name: k.channel.to_string(), head: k.head.to_string(), statement: k.text.clone() })
                .collect(),
        };
        let error = |what| move |source| StateError::Io { what, path: path.clone(), source };
        let rest = toml::to_string(&file).map_err(|e| error("write")(io::Error::other(e)))?;
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(directory).map_err(error("write"))?;
        write!(new, "{MAGIC} {}\n{rest}", Digest::of(rest.as_bytes())).map_err(error("write"))?;
        new.as_file().sync_all().map_err(error("write"))?;
        new.persist(path).map_err(|e| error("replace")(e.error))?;
        fs::File::open(directory).and_then(|d| d.sync_all()).map_err(error("replace"))
    }
}
