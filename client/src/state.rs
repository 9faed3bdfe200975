//! What a device must not forget: its [`View`] of the namespace, in one file.
//!
//! One file: a line with a version and a SHA-256, then TOML. It is replaced atomically; one that is
//! damaged is refused with an explanation, and never reset silently (attack 87).

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tidings_protocol::{
    Anchor, Channel, Digest, Head, Serial, Statement, Timestamp, Verified, View, bundle,
    statement::StatementError,
    trust::Trust,
    view::{Fork, Known, Moment, News, Now, Withdrawal, freshness::Freshness},
};

use crate::{Clock, file, limits::STATE_OCTETS};

const MAGIC: &str = "tidings-state 3";
/// Of version 0.1, whose rules were others.
const OLDER: [&str; 2] = ["tidings-state 1 ", "tidings-state 2 "];

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
    /// It was written by version 0.1.
    #[error(
        "the state file {0} was written by Tidings 0.1, whose rules were others; move it away and begin anew with today's anchor (`NAMESPACE SERIAL ID`)"
    )]
    Older(PathBuf),
    /// Another device works with it.
    #[error("the state file {0} is in use by another program; each device needs its own")]
    InUse(PathBuf),
    /// It belongs to another anchor.
    #[error(
        "the state file {path} belongs to the anchor `{found}`, not to `{expected}`; use another file for another namespace"
    )]
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
    trust: Option<String>,
    /// When it was seen first.
    trust_seen: Option<String>,
    /// The newest beat of each beat channel.
    #[serde(default)]
    beat: Vec<FileBeat>,
    /// Beats that checkpoints name.
    #[serde(default)]
    settled: Vec<String>,
    #[serde(default)]
    channel: Vec<FileChannel>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBeat {
    statement: String,
    seen: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileChannel {
    name: String,
    head: Option<String>,
    statement: Option<String>,
    /// What lies below the head, oldest first.
    #[serde(default)]
    links: Vec<String>,
    /// The checkpoint that the head is known to stand on.
    settled: Option<String>,
    /// The last that was delivered.
    delivered: Option<String>,
    /// The release that was applied last.
    applied: Option<String>,
    /// The serial that the machine's image came with.
    came_with: Option<String>,
    #[serde(default)]
    withdrawal: Vec<FileWithdrawal>,
    /// The evidence of a fork that nothing has decided.
    fork: Option<FileFork>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWithdrawal {
    release: String,
    by: String,
    reason: String,
    read: bool,
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

fn read_statement(text: &str) -> Result<Statement, String> {
    Statement::parse(text.as_bytes()).map_err(|e: StatementError| e.to_string())
}

fn read_head(text: &str) -> Result<Head, String> {
    let head = || {
        let (serial, id) = text.split_once(' ')?;
        Some(Head {
            serial: serial.parse().ok()?,
            id: id.parse().ok()?,
        })
    };
    head().ok_or_else(|| format!("{text:?} is no serial and id"))
}

fn write_moment(moment: &Moment) -> String {
    let clock = moment.clock.map_or("-".into(), |clock| clock.to_string());
    format!(
        "{} {clock} {} {:016x}",
        moment.time, moment.monotonic, moment.boot
    )
}

fn read_moment(text: &str) -> Result<Moment, String> {
    let moment = || {
        let mut parts = text.split(' ');
        let time = parts.next()?.parse().ok()?;
        let clock = match parts.next()? {
            "-" => None,
            clock => Some(clock.parse().ok()?),
        };
        let (monotonic, boot) = (parts.next()?.parse().ok()?, parts.next()?);
        Some(Moment {
            time,
            clock,
            monotonic,
            boot: u64::from_str_radix(boot, 16).ok()?,
        })
    };
    moment().ok_or_else(|| format!("{text:?} is no moment"))
}

impl FileChannel {
    fn write(channel: &Channel, known: &Known) -> Self {
        let withdrawal = |kept: &Withdrawal| FileWithdrawal {
            release: kept.release.to_string(),
            by: kept.by.to_string(),
            reason: kept.reason.clone(),
            read: kept.read,
        };
        Self {
            name: channel.to_string(),
            head: known
                .newest
                .as_ref()
                .map(|statement| statement.head().to_string()),
            statement: known.newest.as_ref().map(text),
            links: known.links.iter().map(ToString::to_string).collect(),
            settled: known.settled.map(|head| head.to_string()),
            delivered: known.delivered.map(|head| head.to_string()),
            applied: known.applied.as_ref().map(text),
            came_with: known.came_with.map(|serial| serial.to_string()),
            withdrawal: known.withdrawals.iter().map(withdrawal).collect(),
            fork: known.fork.as_ref().map(|fork| FileFork {
                ours: text(&fork.ours),
                theirs: std::iter::once(&fork.theirs)
                    .chain(&fork.above)
                    .map(text)
                    .collect(),
            }),
        }
    }

    fn read(self) -> Result<(Channel, Known), String> {
        let channel: Channel = self.name.parse().map_err(|_| "its name is no channel")?;
        let newest = self.statement.as_deref().map(read_statement).transpose()?;
        let applied = self.applied.as_deref().map(read_statement).transpose()?;
        let here = |statement: &Statement| *statement.channel() == channel;
        if newest.as_ref().map(|s| s.head().to_string()) != self.head
            || !newest.iter().chain(&applied).all(here)
        {
            return Err("its head is not the statement that is kept".into());
        }
        let fork = self.fork.map(|fork| {
            let mut branch = bundle::parse(fork.theirs.as_bytes()).map_err(|e| e.to_string())?;
            let theirs = branch.remove(0);
            Ok::<_, String>(Fork {
                ours: read_statement(&fork.ours)?,
                theirs,
                above: branch,
            })
        });
        let withdrawal = |kept: FileWithdrawal| {
            let by = kept.by.parse::<Serial>().map_err(|e| e.to_string())?;
            Ok::<_, String>(Withdrawal {
                release: read_head(&kept.release)?,
                by,
                reason: kept.reason,
                read: kept.read,
            })
        };
        let head = |text: Option<String>| text.as_deref().map(read_head).transpose();
        let known = Known {
            newest,
            links: self
                .links
                .iter()
                .map(|text| read_head(text))
                .collect::<Result<_, _>>()?,
            settled: head(self.settled)?,
            fork: fork.transpose()?,
            withdrawals: self
                .withdrawal
                .into_iter()
                .map(withdrawal)
                .collect::<Result<_, _>>()?,
            applied,
            came_with: self
                .came_with
                .map(|text| text.parse::<Serial>().map_err(|e| e.to_string()))
                .transpose()?,
            delivered: head(self.delivered)?,
        };
        Ok((channel, known))
    }
}

/// What a device knows for certain, and keeps.
pub struct State {
    path: Option<PathBuf>,
    /// Held as long as the state is in use, so that two devices do not take each other back.
    _lock: Option<file::Lock>,
    /// The SHA-256 of what the file has, if this process has read or written it.
    written: Option<Digest>,
    view: View,
    clock: Clock,
    shared: Arc<ArcSwap<View>>,
    /// Whether a [`Monitor`] may look: then each change costs a copy of all that is known.
    is_monitored: bool,
}

/// Tells how fresh a device's channels are while the device itself is busy watching. Cheap to
/// clone.
#[derive(Clone)]
pub struct Monitor {
    view: Arc<ArcSwap<View>>,
    clock: Clock,
}

impl Monitor {
    /// The state of a channel at this moment.
    pub fn freshness(&self, channel: &Channel) -> Freshness {
        self.view.load().freshness(channel, &self.clock.now())
    }
    /// Serial and id of the newest statement of a channel.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        self.view.load().head(channel)
    }
}

impl State {
    fn new(anchor: &Anchor) -> Self {
        let view = View::new(anchor.clone());
        let shared = Arc::new(ArcSwap::from_pointee(view.clone()));
        Self {
            path: None,
            _lock: None,
            written: None,
            view,
            clock: Clock::system(),
            shared,
            is_monitored: true,
        }
    }

    /// A state that ends with the process.
    pub fn ephemeral(anchor: &Anchor) -> Self {
        Self::new(anchor)
    }

    /// The same where nobody looks while it changes.
    pub(crate) fn unmonitored(self) -> Self {
        Self {
            is_monitored: false,
            ..self
        }
    }

    /// The same with another clock than the system's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The state in a file, or a new one if there is no such file.
    ///
    /// # Errors
    /// If the file is damaged, newer, or of another anchor. It is left as it is.
    pub fn open(path: impl Into<PathBuf>, anchor: &Anchor) -> Result<Self, StateError> {
        let path = path.into();
        let mut name = path.clone().into_os_string();
        name.push(".lock");
        let error = |source| StateError::Io {
            what: "lock",
            path: path.clone(),
            source,
        };
        let lock = fs::File::options().create(true).append(true).open(&name);
        // Another user may have been here first; a lock needs no more than a file that can be read.
        let lock = lock
            .or_else(|first| fs::File::open(&name).map_err(|_| first))
            .map_err(error)?;
        let lock = match file::Lock::of(lock) {
            Ok(lock) => lock,
            Err(fs::TryLockError::WouldBlock) => return Err(StateError::InUse(path)),
            Err(fs::TryLockError::Error(source)) => return Err(error(source)),
        };
        Ok(Self {
            _lock: Some(lock),
            path: Some(path.clone()),
            ..Self::look(path, anchor)?
        })
    }

    /// The state in a file as it is now, for a program that only looks: what it learns is not kept.
    ///
    /// # Errors
    /// As [`State::open`], but that it may be in use.
    pub fn look(path: impl Into<PathBuf>, anchor: &Anchor) -> Result<Self, StateError> {
        let path = path.into();
        let mut state = Self::new(anchor);
        let mut text = String::new();
        let read = fs::File::open(&path)
            .and_then(|file| file.take(STATE_OCTETS).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StateError::Damaged {
                    path,
                    reason: "it is not UTF-8".into(),
                });
            }
            Err(source) => {
                return Err(StateError::Io {
                    what: "read",
                    path,
                    source,
                });
            }
            Ok(_) => {}
        }
        let damaged = |reason: &str| StateError::Damaged {
            path: path.clone(),
            reason: reason.into(),
        };
        let (first, rest) = text
            .split_once('\n')
            .ok_or_else(|| damaged("it has no first line"))?;
        let Some(sum) = first
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.strip_prefix(' '))
        else {
            return Err(match () {
                () if OLDER.iter().any(|older| first.starts_with(older)) => StateError::Older(path),
                () if first.starts_with("tidings-state ") => StateError::Newer(path),
                () => damaged("its first line is not that of a state file"),
            });
        };
        if sum != Digest::of(rest.as_bytes()).to_string() {
            return Err(damaged("its SHA-256 is not the one in its first line"));
        }
        let file: File = toml::from_str(rest).map_err(|e| damaged(e.message()))?;
        if file.anchor != anchor.to_string() {
            return Err(StateError::OtherAnchor {
                path,
                expected: anchor.clone(),
                found: file.anchor,
            });
        }
        state.view = file.read(anchor).map_err(|why| damaged(&why))?;
        state.share();
        Ok(state)
    }

    /// The anchor.
    pub fn anchor(&self) -> &Anchor {
        self.view.anchor()
    }
    /// The trust in force, once it is known.
    pub fn trust(&self) -> Option<&Trust> {
        self.view.trust()
    }
    /// The newest statement of a channel, if the trust in force proves it by its own signatures or
    /// as a checkpoint.
    pub fn newest(&self, channel: &Channel) -> Option<Verified<Statement>> {
        self.view.newest(channel)
    }
    /// Serial and id of the newest statement of a channel: the cursor of poll and watch alike.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        self.view.head(channel)
    }
    /// All that is known.
    pub fn view(&self) -> &View {
        &self.view
    }
    /// What the clocks show.
    pub fn now(&self) -> Now {
        self.clock.now()
    }
    /// The time that counts for a channel.
    pub fn time(&self, channel: &Channel) -> Timestamp {
        self.view.time(channel, &self.now())
    }
    /// The state of a channel at this moment.
    pub fn freshness(&self, channel: &Channel) -> Freshness {
        self.view.freshness(channel, &self.now())
    }
    /// Tells the same from anywhere.
    pub fn monitor(&self) -> Monitor {
        Monitor {
            view: self.shared.clone(),
            clock: self.clock.clone(),
        }
    }

    fn share(&self) {
        if !self.is_monitored {
            return;
        }
        self.shared.store(Arc::new(self.view.clone()));
    }

    /// Changes what is known, in memory alone until [`State::save`].
    pub fn change<T>(&mut self, change: impl FnOnce(&mut View, &Now) -> T) -> T {
        let result = change(&mut self.view, &self.clock.now());
        self.share();
        result
    }

    /// Takes note of news: what is known moves on at once.
    pub(crate) fn note<'a>(&mut self, news: impl IntoIterator<Item = &'a News>) {
        self.change(|view, now| news.into_iter().for_each(|news| view.note(news, now)));
    }

    /// Writes the file, unless it is the same as before: a new one beside the old one, made
    /// durable, takes its place.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self) -> Result<(), StateError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let error = |what| {
            move |source| StateError::Io {
                what,
                path: path.clone(),
                source,
            }
        };
        let rest = toml::to_string(&File::write(&self.view))
            .map_err(|e| error("write")(io::Error::other(e)))?;
        let digest = Digest::of(rest.as_bytes());
        if self.written == Some(digest) {
            return Ok(());
        }
        file::replace(path, format!("{MAGIC} {digest}\n{rest}").as_bytes(), 0o600)
            .map_err(error("write"))?;
        self.written = Some(digest);
        Ok(())
    }
}

impl File {
    fn write(view: &View) -> Self {
        let beat = |beat: &tidings_protocol::view::SeenBeat| FileBeat {
            statement: text(&beat.statement),
            seen: write_moment(&beat.seen),
        };
        let channels = view
            .channels()
            .filter_map(|channel| Some(FileChannel::write(channel, view.known(channel)?)));
        Self {
            anchor: view.anchor().to_string(),
            trust: view.trust().map(|trust| text(trust.statement())),
            trust_seen: view.trust_seen().as_ref().map(write_moment),
            beat: view.beats().map(beat).collect(),
            settled: view
                .trust()
                .into_iter()
                .flat_map(Trust::settled_beats)
                .map(text)
                .collect(),
            channel: channels.collect(),
        }
    }

    fn read(self, anchor: &Anchor) -> Result<View, String> {
        let trust = self.trust.map(|text| {
            Trust::resume(&anchor.namespace, read_statement(&text)?).map_err(|e| e.to_string())
        });
        let seen = self.trust_seen.as_deref().map(read_moment).transpose()?;
        let mut view = View::new(anchor.clone()).resume(
            trust.transpose().map_err(|why| format!("trust: {why}"))?,
            seen,
        );
        for text in self.settled {
            view.take_settled_beat(read_statement(&text)?);
        }
        for beat in self.beat {
            view.resume_beat(read_statement(&beat.statement)?, read_moment(&beat.seen)?);
        }
        for channel in self.channel {
            let name = channel.name.clone();
            let (channel, known) = channel.read().map_err(|why| format!("{name}: {why}"))?;
            view.resume_channel(channel, known);
        }
        Ok(view)
    }
}
