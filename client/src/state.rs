//! What a device must not forget: its [`View`] of the namespace, in one file.
//!
//! [5.1-1]. One file: a line with a version and a SHA-256, then TOML. It is replaced atomically; one that is damaged is
//! refused with an explanation, and never reset silently (attack 87).

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tidings_protocol::{
    Anchor, Channel, Digest, Head, Serial, Statement, Timestamp, Verified, View, bundle,
    statement::StatementError,
    trust::Trust,
    view::{Fork, Known, News, freshness::Freshness},
};

use crate::{clock::SinceBoot, limits::STATE_OCTETS};

const MAGIC: &str = "tidings-state 2";
/// Read, and written as [`MAGIC`].
const OLDER: &str = "tidings-state 1";

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
    /// A time, and when in the life of the machine that was.
    #[serde(default)]
    passed: Option<String>,
    trust: Option<String>,
    #[serde(default)]
    channel: Vec<FileChannel>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileChannel {
    name: String,
    head: Option<String>,
    statement: Option<String>,
    /// The serial that was applied last.
    applied: Option<String>,
    /// The last serial that was applied of the branch that the head is on.
    passed: Option<String>,
    /// The withdrawal that was met last when something was to be applied.
    stopped: Option<String>,
    /// The withdrawal that has called back what was applied last.
    recalled: Option<String>,
    /// The checkpoint that the head is known to stand on.
    stands_on: Option<String>,
    /// The serials that the present beat and the next one must name.
    #[serde(default)]
    due: Vec<String>,
    /// The other statement of a fork; ours, if it is not the one at the head any more.
    fork: Option<FileFork>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFork {
    ours: String,
    theirs: String,
}

fn text(statement: &Statement) -> String {
    String::from_utf8_lossy(statement.octets()).into_owned()
}

fn head(text: &str) -> Option<Head> {
    let (serial, id) = text.split_once(' ')?;
    Some(Head { serial: serial.parse().ok()?, id: id.parse().ok()? })
}

impl FileChannel {
    fn write(channel: &Channel, known: &Known) -> Self {
        Self {
            name: channel.to_string(),
            head: known.newest.as_ref().map(|statement| statement.head().to_string()),
            statement: known.newest.as_ref().map(text),
            applied: known.applied.map(|serial| serial.to_string()),
            passed: known.passed.map(|serial| serial.to_string()),
            stopped: known.stopped.map(|serial| serial.to_string()),
            recalled: known.recalled.map(|serial| serial.to_string()),
            stands_on: known.stands_on.map(|head| head.to_string()),
            due: [known.due.0, known.due.1].map(|serial| serial.map_or("-".into(), |serial| serial.to_string())).into(),
            fork: known.fork.as_ref().map(|fork| FileFork {
                ours: text(&fork.ours),
                theirs: std::iter::once(&fork.theirs).chain(&fork.above).map(text).collect(),
            }),
        }
    }

    fn read(self) -> Result<(Channel, Known), String> {
        let statement = |text: String| Statement::parse(text.as_bytes()).map_err(|e: StatementError| e.to_string());
        let channel: Channel = self.name.parse().map_err(|_| "its name is no channel")?;
        let newest = self.statement.map(statement).transpose()?;
        let fits = newest.as_ref().is_none_or(|s| *s.channel() == channel) && newest.as_ref().map(|s| s.head().to_string()) == self.head;
        if !fits {
            return Err("its head is not the statement that is kept".into());
        }
        let fork = self.fork.map(|fork| {
            let mut branch = bundle::parse(fork.theirs.as_bytes()).map_err(|e| e.to_string())?;
            let theirs = branch.remove(0);
            Ok::<_, String>(Fork { ours: statement(fork.ours)?, theirs, above: branch })
        });
        let fork = fork.transpose()?;
        let serial = |text: Option<String>| text.map(|text| text.parse::<Serial>().map_err(|e| e.to_string())).transpose();
        let (applied, passed) = (serial(self.applied)?, serial(self.passed)?);
        let (stopped, recalled) = (serial(self.stopped)?, serial(self.recalled)?);
        let stands_on = self.stands_on.map(|text| head(&text).ok_or("its checkpoint is no head")).transpose()?;
        let due = |at: usize| match self.due.get(at).map(String::as_str) {
            None | Some("-") => Ok(None),
            Some(text) => text.parse::<Serial>().map(Some).map_err(|e| e.to_string()),
        };
        let due = (due(0)?, due(1)?);
        Ok((channel, Known { newest, fork, stands_on, due, applied, passed, stopped, recalled }))
    }
}

/// What a device knows for certain, and keeps.
pub struct State {
    path: Option<PathBuf>,
    /// Held as long as the state is in use, so that two devices do not take each other back.
    _lock: Option<fs::File>,
    seen: Seen,
    /// What is durable of channels whose news are not in safe hands yet.
    held: BTreeMap<Channel, Option<Known>>,
    shared: Arc<ArcSwap<Seen>>,
}

/// A view, and what time it is there.
#[derive(Clone)]
struct Seen {
    view: View,
    /// A time, and when that was, so that time goes on from there even where no clock does.
    base: (Timestamp, SinceBoot),
    clock: fn() -> Timestamp,
}

impl Seen {
    /// [5.1-3]: what the clock shows, or the floor and what has passed since it was raised.
    fn now(&self) -> Timestamp {
        (self.clock)().max(self.passed())
    }

    fn passed(&self) -> Timestamp {
        self.base.0.plus(self.base.1.elapsed_seconds())
    }
}

/// Tells how fresh a device's channels are while the device itself is busy watching. Cheap to clone.
#[derive(Clone)]
pub struct Monitor(Arc<ArcSwap<Seen>>);

impl Monitor {
    /// The state of a channel at this moment (spec section 5.5).
    pub fn freshness(&self, channel: &Channel) -> Freshness {
        let seen = self.0.load();
        seen.view.freshness(channel, seen.now())
    }
    /// Serial and id of the newest statement of a channel.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        self.0.load().view.head(channel)
    }
}

impl State {
    fn new(anchor: &Anchor) -> Self {
        let seen = Seen { view: View::new(anchor.clone()), base: (Timestamp::from_seconds(0), SinceBoot::now()), clock: crate::now };
        let shared = Arc::new(ArcSwap::from_pointee(seen.clone()));
        Self { path: None, _lock: None, seen, held: BTreeMap::new(), shared }
    }

    /// A state that ends with the process.
    pub fn ephemeral(anchor: &Anchor) -> Self {
        Self::new(anchor)
    }

    /// The same with another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        self.seen.clock = clock;
        self.share();
        self
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
        let mut state = Self { path: Some(path.clone()), ..Self::new(anchor) };
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
        let known = [MAGIC, OLDER].into_iter().find_map(|magic| first.strip_prefix(magic)?.strip_prefix(' '));
        let Some(sum) = known else {
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
        let floor = file.floor.parse().map_err(|_| damaged("its floor is no time"))?;
        let resume = |text: String| {
            let statement = Statement::parse(text.as_bytes()).map_err(|e| damaged(&format!("trust: {e}")))?;
            Trust::resume(&anchor.namespace, statement).map_err(|e| damaged(&format!("trust: {e}")))
        };
        state.seen.view = state.seen.view.resume(file.trust.map(resume).transpose()?, floor);
        // Time that has passed since, in this life of the machine, has passed.
        let base = |text: String| {
            let (time, moment) = text.split_once(' ')?;
            Some((time.parse().ok()?, SinceBoot::read(moment)?))
        };
        state.seen.base = file.passed.and_then(base).unwrap_or((floor, SinceBoot::now()));
        for channel in file.channel {
            let name = channel.name.clone();
            let (channel, known) = channel.read().map_err(|why| damaged(&format!("{name}: {why}")))?;
            state.seen.view.resume_channel(channel, known);
        }
        state.share();
        Ok(state)
    }

    /// The anchor.
    pub fn anchor(&self) -> &Anchor {
        self.seen.view.anchor()
    }
    /// The trust in force, once it is known.
    pub fn trust(&self) -> Option<&Trust> {
        self.seen.view.trust()
    }
    /// The newest statement of a channel that was verified, as far as the trust in force can prove it.
    pub fn newest(&self, channel: &Channel) -> Option<&Verified<Statement>> {
        self.seen.view.newest(channel)
    }
    /// Serial and id of the newest statement of a channel: the cursor of poll and watch alike.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        self.seen.view.head(channel)
    }
    /// The latest signed time that was seen: it cannot be earlier now (attack 21).
    pub fn floor(&self) -> Timestamp {
        self.seen.view.floor()
    }
    /// All that is known.
    pub fn view(&self) -> &View {
        &self.seen.view
    }
    /// The time that counts here: that of the clock, or the floor and what has passed since (spec section 5.1).
    pub fn now(&self) -> Timestamp {
        self.seen.now()
    }
    /// What the clock shows.
    pub(crate) fn clock(&self) -> Timestamp {
        (self.seen.clock)()
    }
    /// The state of a channel at this moment (spec section 5.5).
    pub fn freshness(&self, channel: &Channel) -> Freshness {
        self.seen.view.freshness(channel, self.now())
    }
    /// Tells the same from anywhere.
    pub fn monitor(&self) -> Monitor {
        Monitor(self.shared.clone())
    }

    fn share(&self) {
        self.shared.store(Arc::new(self.seen.clone()));
    }

    /// Changes what is known, in memory alone until [`State::save`].
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut View) -> T) -> T {
        let (before, trust) = (self.seen.view.floor(), self.seen.view.trust().map(Trust::serial));
        let result = change(&mut self.seen.view);
        // A later time moves it on, an earlier one than has passed does not hold it up; only trust takes it back.
        let floor = self.seen.view.floor();
        if floor < before || floor > self.seen.passed() || trust != self.seen.view.trust().map(Trust::serial) {
            self.seen.base = (floor, SinceBoot::now());
        }
        self.share();
        result
    }

    /// Takes note of a release that was applied, durably; news that are not in safe hands stay so.
    pub(crate) fn note_applied(&mut self, channel: &Channel, serial: Serial) -> Result<(), StateError> {
        self.change(|view| view.note_applied(channel, serial));
        if let Some(Some(held)) = self.held.get_mut(channel) {
            (held.applied, held.passed, held.recalled) = (Some(serial), Some(serial), None);
        }
        self.save_learnt()
    }

    /// Takes note of news, durably; if that fails, nothing has changed.
    pub(crate) fn advance<'a>(&mut self, news: impl IntoIterator<Item = &'a News> + Clone) -> Result<(), StateError> {
        let before = self.seen.clone();
        self.note(news);
        self.save().inspect_err(|_| {
            self.seen = before;
            self.held.clear();
            self.share();
        })
    }

    /// The same in memory alone, until [`State::save`].
    pub(crate) fn note<'a>(&mut self, news: impl IntoIterator<Item = &'a News> + Clone) {
        for news in news.clone() {
            let known = self.seen.view.known(news.channel());
            self.held.entry(news.channel().clone()).or_insert_with(|| known.cloned());
        }
        self.change(|view| news.into_iter().for_each(|news| view.note(news)));
    }

    /// Writes the file, since all news are in safe hands.
    pub(crate) fn save(&mut self) -> Result<(), StateError> {
        let held = std::mem::take(&mut self.held);
        self.save_learnt().inspect_err(|_| self.held = held)
    }

    /// Writes the file, but cursors whose news are not in safe hands stay where they were: a new file beside the old one,
    /// made durable, takes its place.
    pub(crate) fn save_learnt(&self) -> Result<(), StateError> {
        let Some(path) = &self.path else { return Ok(()) };
        let durable = |channel: &Channel| match self.held.get(channel) {
            Some(held) => held.clone(),
            None => self.seen.view.known(channel).cloned(),
        };
        let channels = self.seen.view.channels().filter_map(|channel| Some(FileChannel::write(channel, &durable(channel)?)));
        let file = File {
            anchor: self.seen.view.anchor().to_string(),
            floor: self.seen.view.floor().to_string(),
            passed: Some(format!("{} {}", self.seen.base.0, self.seen.base.1)),
            trust: self.seen.view.trust().map(|trust| text(trust.statement())),
            channel: channels.collect(),
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
