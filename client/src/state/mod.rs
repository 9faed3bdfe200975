//! What a device must not forget: its [`View`] of the namespace, in one file.
//!
//! One file: a line with a version and a SHA-256, then TOML. It is replaced atomically; one that is
//! damaged is refused with an explanation, and never reset silently (attack 87).

mod error;
mod form;
#[cfg(test)]
mod tests;

pub use error::StateError;

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use form::File;
use tidings_protocol::{
    Anchor, Channel, Digest, Head, Statement, Timestamp, Verified, View,
    trust::Trust,
    view::{Fork, News, Now, freshness::Freshness},
};
use tokio::time::Instant;

#[cfg(feature = "simulated")]
use crate::simulated;
use crate::{
    Clock, file,
    limits::{STATE_LOCK, STATE_LOCK_AGAIN, STATE_OCTETS},
};

const MAGIC: &str = "tidings-state 3";
/// Of version 0.1, whose rules were others.
const OLDER: [&str; 2] = ["tidings-state 1 ", "tidings-state 2 "];

/// What a device knows for certain, and keeps.
pub struct State {
    path: Option<PathBuf>,
    /// Held as long as the state is in use, so that two programs do not do the same with it.
    _lock: Option<file::Lock>,
    /// What the file had when this process has read or written it last, and its SHA-256.
    written: Option<(Digest, File)>,
    view: View,
    clock: Clock,
    shared: Arc<ArcSwap<View>>,
    /// Whether a [`Monitor`] may look: then each change costs a copy of all that is known.
    is_monitored: bool,
    #[cfg(feature = "simulated")]
    simulated: Option<simulated::File>,
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
            #[cfg(feature = "simulated")]
            simulated: None,
        }
    }

    /// The state in a simulated file, or a new one if it is not there yet.
    ///
    /// # Errors
    /// As [`State::open`].
    #[cfg(feature = "simulated")]
    pub fn open_simulated(file: &simulated::File, anchor: &Anchor) -> Result<Self, StateError> {
        let (mut state, path) = (Self::new(anchor), Path::new("simulated"));
        if let Some(octets) = file.read() {
            let (digest, file) = read(&octets[..], path, anchor)?;
            state.view = view(file.clone(), path, anchor)?;
            state.written = Some((digest, file));
            state.share();
        }
        Ok(Self {
            simulated: Some(file.clone()),
            ..state
        })
    }

    #[cfg(feature = "simulated")]
    fn save_simulated(&mut self, file: &simulated::File) -> Result<(), StateError> {
        let (path, ours) = (Path::new("simulated"), File::write(&self.view));
        if !self.is_written(path)? {
            let (digest, text) = to_text(&ours, path)?;
            file.replace(text.as_bytes());
            self.written = Some((digest, ours));
        }
        Ok(())
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

    /// The state in a file, or a new one if there is no such file; for a program that follows
    /// channels with it, and alone.
    ///
    /// # Errors
    /// If the file is damaged, newer, or of another anchor. It is left as it is.
    pub fn open(path: impl Into<PathBuf>, anchor: &Anchor) -> Result<Self, StateError> {
        Self::open_for(path.into(), anchor, ".lock", "follows channels")
    }

    /// The same for a program that applies releases, alone, perhaps beside one that follows
    /// channels: what either learns, both have.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_to_apply(path: impl Into<PathBuf>, anchor: &Anchor) -> Result<Self, StateError> {
        Self::open_for(path.into(), anchor, ".apply.lock", "applies something")
    }

    fn open_for(
        path: PathBuf,
        anchor: &Anchor,
        suffix: &str,
        what: &'static str,
    ) -> Result<Self, StateError> {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
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
        let Some(lock) = file::Lock::of(lock, name.as_ref()).map_err(error)? else {
            return Err(StateError::InUse(path, what));
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
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            Err(source) => {
                return Err(StateError::Io {
                    what: "read",
                    path,
                    source,
                });
            }
        };
        let (digest, file) = read(&file, &path, anchor)?;
        state.view = view(file.clone(), &path, anchor)?;
        state.written = Some((digest, file));
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
    /// Keeps two statements for one place as evidence.
    ///
    /// # Errors
    /// If the state file cannot be written.
    pub(crate) fn note_fork(&mut self, fork: &Fork) -> Result<(), StateError> {
        self.change(|view, now| view.note_fork(fork.clone(), now));
        self.save()
    }

    pub(crate) fn note<'a>(&mut self, news: impl IntoIterator<Item = &'a News>) {
        self.change(|view, now| news.into_iter().for_each(|news| view.note(news, now)));
    }

    /// Writes the file, unless it is the same as before: a new one beside the old one, made
    /// durable, takes its place. What another program has written since is kept.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self) -> Result<(), StateError> {
        #[cfg(feature = "simulated")]
        if let Some(file) = self.simulated.clone() {
            return self.save_simulated(&file);
        }
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        if self.is_written(&path)? {
            return Ok(());
        }
        let turn = self.turn(&path)?;
        self.merge(&turn, &path)?;
        let ours = File::write(&self.view);
        let (digest, text) = to_text(&ours, &path)?;
        file::replace(&path, text.as_bytes(), 0o600).map_err(|source| StateError::Io {
            what: "write",
            path,
            source,
        })?;
        self.written = Some((digest, ours));
        Ok(())
    }

    /// Takes up what another program has written since, and writes what this one has learnt:
    /// whoever decides something next, decides it by all that is known on this machine.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn refresh(&mut self) -> Result<(), StateError> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        self.merge(&self.turn(&path)?, &path)?;
        self.save()
    }

    /// Whether the file had all that is known when it was read or written last.
    fn is_written(&self, path: &Path) -> Result<bool, StateError> {
        let (digest, _) = to_text(&File::write(&self.view), path)?;
        Ok(self
            .written
            .as_ref()
            .is_some_and(|(known, _)| *known == digest))
    }

    /// Takes up what another program has written since this one has read or written the file.
    fn merge(&mut self, lock: &file::Lock, path: &Path) -> Result<(), StateError> {
        let anchor = self.anchor().clone();
        let (digest, theirs) = read(lock.file(), path, &anchor)?;
        let none = File::write(&View::new(anchor.clone()));
        let none = (to_text(&none, path)?.0, none);
        let (known, base) = self.written.as_ref().unwrap_or(&none);
        if digest != *known {
            let merged = File::write(&self.view).merged(base, theirs.clone());
            self.view = view(merged, path, &anchor)?;
            self.change(settle_forks);
            self.written = Some((digest, theirs));
        }
        Ok(())
    }

    /// The file as it is, for as long as no other program may replace it. Where there is none yet
    /// it is made first: two that begin at once take turns too.
    fn turn(&self, path: &Path) -> Result<file::Lock, StateError> {
        let error = |source| StateError::Io {
            what: "lock",
            path: path.into(),
            source,
        };
        let until = Instant::now() + STATE_LOCK;
        loop {
            let file = match fs::File::open(path) {
                Err(none) if none.kind() == io::ErrorKind::NotFound => {
                    let nothing = File::write(&View::new(self.anchor().clone()));
                    let (_, text) = to_text(&nothing, path)?;
                    file::begin(path, text.as_bytes(), 0o600).and_then(|()| fs::File::open(path))
                }
                file => file,
            };
            let file = file.map_err(error)?;
            if let Some(lock) = file::Lock::of(file, path).map_err(error)? {
                let ours = lock.file().metadata().map_err(error)?.ino();
                // Another program may have replaced it just before.
                if fs::metadata(path).is_ok_and(|there| there.ino() == ours) {
                    return Ok(lock);
                }
            }
            if Instant::now() >= until {
                return Err(StateError::InUse(path.into(), "writes it"));
            }
            std::thread::sleep(STATE_LOCK_AGAIN);
        }
    }
}

/// The whole text of a file, and the SHA-256 in its first line.
fn to_text(file: &File, path: &Path) -> Result<(Digest, String), StateError> {
    let rest = toml::to_string(file).map_err(|error| StateError::Io {
        what: "write",
        path: path.into(),
        source: io::Error::other(error),
    })?;
    let digest = Digest::of(rest.as_bytes());
    Ok((digest, format!("{MAGIC} {digest}\n{rest}")))
}

fn view(file: File, path: &Path, anchor: &Anchor) -> Result<View, StateError> {
    file.read(anchor).map_err(|reason| StateError::Damaged {
        path: path.into(),
        reason,
    })
}

/// What either of two programs has learnt may decide a fork that the other one has met.
fn settle_forks(view: &mut View, now: &Now) {
    let forks: Vec<_> = view
        .channels()
        .filter_map(|channel| view.fork(channel).cloned())
        .collect();
    for fork in forks {
        view.note_fork(fork, now);
    }
}

/// What stands in a file, and its SHA-256.
fn read(mut file: impl Read, path: &Path, anchor: &Anchor) -> Result<(Digest, File), StateError> {
    let damaged = |reason: &str| StateError::Damaged {
        path: path.into(),
        reason: reason.into(),
    };
    let mut text = String::new();
    match file.by_ref().take(STATE_OCTETS).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged("it is not UTF-8"));
        }
        Err(source) => {
            return Err(StateError::Io {
                what: "read",
                path: path.into(),
                source,
            });
        }
    }
    let (first, rest) = text
        .split_once('\n')
        .ok_or_else(|| damaged("it has no first line"))?;
    let Some(sum) = first
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.strip_prefix(' '))
    else {
        return Err(match () {
            () if OLDER.iter().any(|older| first.starts_with(older)) => {
                StateError::Older(path.into())
            }
            () if first.starts_with("tidings-state ") => StateError::Newer(path.into()),
            () => damaged("its first line is not that of a state file"),
        });
    };
    let digest = Digest::of(rest.as_bytes());
    if sum != digest.to_string() {
        return Err(damaged("its SHA-256 is not the one in its first line"));
    }
    let file: File = toml::from_str(rest).map_err(|e| damaged(e.message()))?;
    if file.anchor != anchor.to_string() {
        return Err(StateError::OtherAnchor {
            path: path.into(),
            expected: anchor.clone(),
            found: file.anchor,
        });
    }
    Ok((digest, file))
}
