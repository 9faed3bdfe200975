//! The store: one log of batches in segments, one writer, an index in memory.
//! `docs/design/store.md` says why.
//!
//! ```text
//! commit → batch → log (segments: write, sync) → index → get
//!                   recovery: segments, index files → index
//! ```
//!
//! Statements lie by channel and serial. Marks are what is overwritten: those of channels, what is
//! being filled in, slots, and the cursors of feeds. When a batch is committed it survives a loss
//! of power, whole; nothing that is lost goes unsaid.

mod batch;
#[cfg(feature = "bench")]
pub mod bench;
mod changes;
mod error;
mod files;
mod index;
mod log;
mod recovery;
mod segment;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use changes::Batch;
pub(crate) use error::{Damage, StoreError};

use std::{
    collections::BTreeSet,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use tidings_protocol::{Channel, Head, Serial, Statement, Timestamp};

use self::{
    batch::Value,
    changes::gap_key,
    files::{Access, Disk, RealDisk},
    index::{Index, Place},
    log::Log,
};

/// The layout that is read and written.
const VERSION: u8 = 3;

/// The marks of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The lowest serial that is still here.
    pub(crate) low: Serial,
    pub(crate) head: Head,
    pub(crate) created: Timestamp,
}

/// A stored statement.
pub(crate) struct Record {
    pub(crate) statement: Statement,
    pub(crate) path: String,
    pub(crate) arrived: Timestamp,
}

/// Sizes; tests have smaller ones.
#[derive(Clone, Copy)]
struct Limits {
    /// Octets of a segment.
    segment: u32,
    /// Octets that are saved from the oldest segment with each commit.
    slice: usize,
}

const LIMITS: Limits = Limits {
    segment: crate::limits::SEGMENT_OCTETS,
    slice: crate::limits::SAVED_OCTETS,
};

#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    index: RwLock<Index>,
    /// None if the store is only read.
    log: Option<Mutex<Log>>,
    /// Statements that were found damaged.
    damaged: Mutex<BTreeSet<(Channel, Serial)>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let closed = self.log.as_mut().map(|log| {
            log.get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .bear_witness()
        });
        // Of one that has failed it was said.
        if let Some(Err(error)) = closed
            && !matches!(error, StoreError::Failed)
        {
            tracing::warn!(%error, "the store could not be closed; everything that was answered for is in it");
        }
    }
}

/// What was found in a store that is only read.
pub(crate) struct Report {
    pub(crate) damage: Vec<Damage>,
    /// Octets of a last batch that nobody was answered for.
    pub(crate) torn: u64,
    pub(crate) segments: usize,
}

fn failed(disk: &dyn Disk, name: &str) -> impl Fn(io::Error) -> StoreError {
    let path = disk.path(name);
    move |source| StoreError::Disk {
        path: path.clone(),
        source,
    }
}

fn read_value(index: &Index, place: Place) -> Option<Vec<u8>> {
    let file = index.segments.get(&place.segment)?.file.clone();
    read_from(&*file, place)
}

/// None if it is not whole.
fn read_from(file: &dyn files::File, place: Place) -> Option<Vec<u8>> {
    let mut octets = vec![0; place.octets as usize];
    file.read_at(place.at.into(), &mut octets).ok()?;
    batch::is_whole_value(place.segment, place.at, &octets).then_some(octets)
}

/// Files that others could not use afterwards are not made.
fn check_owner(directory: &Path) -> Result<(), StoreError> {
    let store = directory.join(segment::DIRECTORY);
    let us = rustix::process::geteuid().as_raw();
    let Ok(names) = std::fs::read_dir(&store) else {
        return Ok(());
    };
    for path in std::iter::once(store).chain(names.filter_map(|entry| Some(entry.ok()?.path()))) {
        let owner = path.symlink_metadata().map_or(us, |known| known.uid());
        if owner != us {
            return Err(StoreError::Owner { path, owner, us });
        }
    }
    Ok(())
}

impl Store {
    /// Opens the store, or makes a new one.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let refused = |source| StoreError::Directory {
            path: directory.into(),
            source,
        };
        let disk = RealDisk::lock(directory.into(), Access::Write).map_err(refused)?;
        let disk = disk.ok_or_else(|| StoreError::InUse(directory.into()))?;
        check_owner(directory)?;
        Self::open_on(Arc::new(disk), LIMITS)
    }

    fn open_on(disk: Arc<dyn Disk>, limits: Limits) -> Result<Self, StoreError> {
        let room = |error: StoreError| match error {
            StoreError::Disk { source, .. } if log::is_full(&source) => StoreError::Full {
                missing: u64::from(limits.segment + log::SLACK_OCTETS)
                    .saturating_sub(disk.free().unwrap_or(0))
                    .max(1),
            },
            error => error,
        };
        let recover = || {
            let found = recovery::recover(&*disk, true)?;
            found
                .damage
                .first()
                .map_or(Ok(()), |damage| Err(StoreError::Damage(damage.clone())))
                .map(|()| found)
        };
        let is_there = !disk
            .list(segment::DIRECTORY)
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let found = if is_there { Some(recover()?) } else { None };
        let found = found
            .map(|found| Ok((!recovery::discard_if_new(&*disk, &found)?).then_some(found)))
            .transpose();
        let mut found = match found.map_err(failed(&*disk, segment::DIRECTORY))?.flatten() {
            Some(found) => found,
            None => {
                recovery::create(&*disk, limits.segment + log::SLACK_OCTETS)
                    .map_err(failed(&*disk, segment::DIRECTORY))
                    .map_err(room)?;
                recover()?
            }
        };
        if found.torn > 0 {
            tracing::warn!(
                file = segment::log_name(found.number),
                octet = found.last.end,
                octets = found.torn,
                "the last batch was never whole: it is cut off; nobody was answered for it"
            );
        }
        let file = recovery::write_anew(&*disk, &mut found, limits.segment + log::SLACK_OCTETS);
        let file = file
            .map_err(failed(&*disk, &segment::log_name(found.number)))
            .map_err(room)?;
        tidy_up(&*disk, &found)?;
        let damaged = damaged(&found);
        if let Some(segment) = found.index.segments.get_mut(&found.number) {
            segment.file = file.clone();
        }
        let log = Log::new(disk, limits, &found, file)?;
        Ok(Self(Arc::new(Inner {
            index: RwLock::new(found.index),
            log: Some(Mutex::new(log)),
            damaged: Mutex::new(damaged),
        })))
    }

    /// Opens the store on a disk that forgets.
    #[cfg(test)]
    pub(crate) fn open_simulated(disk: simulated::SimulatedDisk) -> Result<Self, StoreError> {
        let limits = Limits {
            segment: 16 * 1024,
            slice: 4096,
        };
        Self::open_on(Arc::new(disk), limits)
    }

    /// Reads a store whole, and changes nothing.
    pub(crate) fn inspect(directory: &Path) -> Result<(Self, Report), StoreError> {
        let refused = |source| StoreError::Directory {
            path: directory.into(),
            source,
        };
        let disk = RealDisk::lock(directory.into(), Access::Read).map_err(refused)?;
        Self::inspect_on(&disk.ok_or_else(|| StoreError::InUse(directory.into()))?)
    }

    fn inspect_on(disk: &dyn Disk) -> Result<(Self, Report), StoreError> {
        if disk
            .list(segment::DIRECTORY)
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            return Err(StoreError::Nothing(disk.path("")));
        }
        let found = recovery::recover(disk, false)?;
        let report = Report {
            damage: [found.damage, found.lost].concat(),
            torn: found.torn,
            segments: found.index.segments.len(),
        };
        Ok((
            Self(Arc::new(Inner {
                index: RwLock::new(found.index),
                log: None,
                damaged: Mutex::default(),
            })),
            report,
        ))
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.0.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> Result<MutexGuard<'_, Log>, StoreError> {
        Ok(self
            .0
            .log
            .as_ref()
            .ok_or(StoreError::Failed)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a batch durable; when this returns it survives a loss of power.
    pub(crate) fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        match batch.is_empty() {
            true => Ok(()),
            false => self.log()?.commit(&self.0.index, &mut batch),
        }
    }

    /// Octets that are missing on the disk, if there is no room for more statements.
    pub(crate) fn missing_octets(&self) -> Result<Option<u64>, StoreError> {
        self.log()?.missing()
    }

    /// After a while in which nothing was committed: what was is known for whole from here on.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        self.log()?.bear_witness()
    }

    /// All channels with their marks, in the order of their names: what is numbered by it is
    /// numbered so again after another start.
    pub(crate) fn channels(&self) -> Result<Vec<(Channel, Marks)>, StoreError> {
        let index = self.index();
        let marked = index
            .channels
            .iter()
            .filter_map(|(name, channel)| Some((name, channel.marks?.0)));
        let all = marked.map(|(name, marks)| Ok((parse(name)?, marks)));
        let mut all = all.collect::<Result<Vec<_>, StoreError>>()?;
        all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(all)
    }

    /// Every backfill: its channel, its highest and its lowest serial.
    pub(crate) fn backfills(&self) -> Result<Vec<(Channel, Serial, Serial)>, StoreError> {
        let index = self.index();
        let mut all = Vec::new();
        for (key, (value, _)) in index
            .values
            .range(gap_key("")..)
            .take_while(|(key, _)| key.first() == Some(&b'f'))
        {
            let channel = parse(&String::from_utf8_lossy(&key[1..]))?;
            let serial = |at: usize| {
                value
                    .get(at..)?
                    .first_chunk()
                    .and_then(|octets| Serial::new(u32::from_be_bytes(*octets)))
            };
            let (top, lowest) = serial(0)
                .zip(serial(4))
                .ok_or_else(|| StoreError::Damaged(channel.to_string()))?;
            all.push((channel, top, lowest));
        }
        Ok(all)
    }

    fn value(&self, key: &[u8]) -> Option<Box<[u8]>> {
        self.index().values.get(key).map(|(value, _)| value.clone())
    }

    /// One statement.
    pub(crate) fn get(
        &self,
        channel: &Channel,
        serial: Serial,
    ) -> Result<Option<Record>, StoreError> {
        let (place, file) = {
            let index = self.index();
            let Some(place) = index.place(channel.as_str(), serial.number()) else {
                return Ok(None);
            };
            (
                place,
                index
                    .segments
                    .get(&place.segment)
                    .map(|segment| segment.file.clone()),
            )
        };
        let octets = file.and_then(|file| read_from(&*file, place));
        let read = |octets: &[u8]| {
            let value = Value::read(place.segment, place.at, octets)?;
            let statement = Statement::parse(value.statement).ok()?;
            let is_it = statement.serial() == serial && statement.channel() == channel;
            is_it.then(|| Record {
                statement,
                path: value.path.into(),
                arrived: value.arrived,
            })
        };
        if let Some(record) = octets.as_deref().and_then(read) {
            return Ok(Some(record));
        }
        if lock(&self.0.damaged).insert((channel.clone(), serial)) {
            let damage =
                Damage::statement(place.segment, place.at, channel.as_str(), serial.number());
            tracing::error!(%damage, "a statement is damaged; it is fetched again where an upstream or a peer has it");
        }
        Err(StoreError::Damaged(format!("{channel} {serial}")))
    }

    /// When a statement arrived; one that is damaged came before all others.
    pub(crate) fn arrived(
        &self,
        channel: &Channel,
        serial: Serial,
    ) -> Result<Option<Timestamp>, StoreError> {
        match self.get(channel, serial) {
            Err(StoreError::Damaged(_)) => Ok(Some(Timestamp::from_seconds(0))),
            read => Ok(read?.map(|record| record.arrived)),
        }
    }

    /// Stores a damaged statement once more, as somebody else has it who has proven it; whether it
    /// was still missing.
    pub(crate) fn mend(&self, statement: &Statement, path: &str) -> Result<bool, StoreError> {
        // Held from looking to writing, so that what is removed meanwhile does not come back.
        let mut log = self.log()?;
        let is_missing = matches!(
            self.get(statement.channel(), statement.serial()),
            Err(StoreError::Damaged(_))
        );
        if is_missing {
            let mut batch = Batch::default();
            batch.insert(statement, statement.time(), path);
            log.commit(&self.0.index, &mut batch)?;
        }
        Ok(is_missing)
    }

    /// All channels of which anything is here, visible or not.
    pub(crate) fn names(&self) -> Result<Vec<Channel>, StoreError> {
        self.index()
            .channels
            .keys()
            .map(|name| parse(name))
            .collect()
    }

    /// All serials of a channel that are here, visible or not.
    pub(crate) fn serials(&self, channel: &Channel) -> Vec<Serial> {
        let index = self.index();
        let serials = index
            .channels
            .get(channel.as_str())
            .into_iter()
            .flat_map(index::ChannelIndex::statements);
        serials
            .filter_map(|(serial, _)| Serial::new(serial))
            .collect()
    }

    /// Statements that were found damaged, and are not mended yet.
    pub(crate) fn damaged(&self) -> Vec<(Channel, Serial)> {
        let known: Vec<_> = lock(&self.0.damaged).iter().cloned().collect();
        let is_damaged =
            |(channel, serial): &(Channel, Serial)| self.get(channel, *serial).is_err();
        let (still, mended): (Vec<_>, Vec<_>) = known.into_iter().partition(is_damaged);
        let mut damaged = lock(&self.0.damaged);
        damaged.retain(|one| !mended.contains(one));
        still
    }
}

/// Removes what is left over, and writes the indexes that were missing.
fn tidy_up(disk: &dyn Disk, found: &recovery::Found) -> Result<(), StoreError> {
    for name in &found.leftovers {
        disk.remove(name).map_err(failed(disk, name))?;
    }
    for (name, octets) in &found.indexes {
        // Without it the next start takes longer.
        let _ = disk.remove(name);
        let _ = disk.create(name).and_then(|file| file.write_at(0, octets));
    }
    Ok(())
}

/// Which statements are damaged, and can be fetched again.
fn damaged(found: &recovery::Found) -> BTreeSet<(Channel, Serial)> {
    let damaged = found.lost.iter().filter_map(|lost| {
        tracing::error!(damage = %lost, "a statement is damaged; it is fetched again where an upstream or a peer has it");
        let (channel, serial) = lost.statement.as_ref()?;
        Some((channel.parse().ok()?, Serial::new(*serial)?))
    });
    damaged.collect()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(name: &str) -> Result<Channel, StoreError> {
    name.parse().map_err(|_| StoreError::Damaged(name.into()))
}

/// Octets that are free on the disk of a directory; none if the system does not say.
pub(crate) fn free_octets(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}
