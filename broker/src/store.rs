//! The embedded store: one ordered keyspace of statements by channel and serial, and the marks of each channel.
//!
//! | key | value |
//! | --- | --- |
//! | `v` | the layout's version |
//! | `c` CHANNEL | low-water mark, head, when the channel began |
//! | `s` CHANNEL NUL SERIAL (big-endian) | when it arrived, `Path`, statement |
//! | `f` CHANNEL | its islands: highest and lowest serials of what is copied above the head and not visible yet |
//! | `g` GROUP | version, and who of the group has slots |
//! | `p` PEER NUL CHANNEL | the last serial that this peer of a feed has answered for |

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use tidings_protocol::{Channel, Head, Serial, Statement, StatementId, Timestamp};

use crate::limits::DISK_RESERVE_OCTETS;

const VERSION: u32 = 1;

/// What goes wrong with the disk, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("cannot use the data directory {path}: {source}; check its owner and permissions")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the store in {0} is in use; is another tidingsd running on it?")]
    InUse(PathBuf),
    /// It was written by a newer version.
    #[error("the store in {path} has layout {found}, this tidingsd knows {VERSION}; start the newer one, nothing was changed")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A record cannot be read.
    #[error("the store holds a damaged record for {0}; restore the data directory, or remove it and mirror anew")]
    Damaged(String),
    /// The engine failed.
    #[error("the store failed: {0}")]
    Engine(#[from] sled::Error),
}

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
}

/// Changes that become durable together or not at all.
#[derive(Default)]
pub(crate) struct Batch(sled::Batch);

#[derive(Clone)]
pub(crate) struct Store {
    db: sled::Db,
}

fn statement_key(channel: &Channel, serial: Serial) -> Vec<u8> {
    let mut key = Vec::with_capacity(channel.as_str().len() + 6);
    key.push(b's');
    key.extend_from_slice(channel.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(&serial.number().to_be_bytes());
    key
}

fn channel_key(channel: &Channel) -> Vec<u8> {
    [b"c", channel.as_str().as_bytes()].concat()
}

impl Batch {
    pub(crate) fn insert(&mut self, statement: &Statement, arrived: Timestamp, path: &str) {
        let path_octets = u16::try_from(path.len()).unwrap_or(0);
        let mut value = Vec::with_capacity(10 + path.len() + statement.octets().len());
        value.extend_from_slice(&arrived.seconds().to_be_bytes());
        value.extend_from_slice(&path_octets.to_be_bytes());
        value.extend_from_slice(&path.as_bytes()[..path_octets.into()]);
        value.extend_from_slice(statement.octets());
        self.0.insert(statement_key(statement.channel(), statement.serial()), value);
    }
    pub(crate) fn remove(&mut self, channel: &Channel, serial: Serial) {
        self.0.remove(statement_key(channel, serial));
    }
    pub(crate) fn remove_marks(&mut self, channel: &Channel) {
        self.0.remove(channel_key(channel));
    }
    /// Remembers what is copied of a channel and not visible yet: highest and lowest serials.
    pub(crate) fn set_islands(&mut self, channel: &Channel, islands: impl Iterator<Item = (Serial, Serial)>) {
        let value: Vec<u8> = islands.flat_map(|(top, lowest)| [top, lowest]).flat_map(|serial| serial.number().to_be_bytes()).collect();
        match value.is_empty() {
            true => self.0.remove(island_key(channel)),
            false => self.0.insert(island_key(channel), value),
        }
    }
    pub(crate) fn set_marks(&mut self, channel: &Channel, marks: &Marks) {
        let mut value = Vec::with_capacity(48);
        value.extend_from_slice(&marks.low.number().to_be_bytes());
        value.extend_from_slice(&marks.head.serial.number().to_be_bytes());
        value.extend_from_slice(marks.head.id.octets());
        value.extend_from_slice(&marks.created.seconds().to_be_bytes());
        self.0.insert(channel_key(channel), value);
    }
}

fn island_key(channel: &Channel) -> Vec<u8> {
    [b"f", channel.as_str().as_bytes()].concat()
}

fn feed_key(peer: &str, channel: &Channel) -> Vec<u8> {
    [b"p", peer.as_bytes(), &[0], channel.as_str().as_bytes()].concat()
}

fn take<const N: usize>(octets: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = octets.split_first_chunk::<N>()?;
    *octets = rest;
    Some(*head)
}

fn read_marks(mut value: &[u8]) -> Option<Marks> {
    let value = &mut value;
    let low = Serial::new(u32::from_be_bytes(take(value)?))?;
    let serial = Serial::new(u32::from_be_bytes(take(value)?))?;
    let id = StatementId::from_octets(take(value)?);
    let created = Timestamp::from_seconds(u64::from_be_bytes(take(value)?));
    Some(Marks { low, head: Head { serial, id }, created })
}

fn read_record(mut value: &[u8]) -> Option<Record> {
    let value = &mut value;
    let _arrived: [u8; 8] = take(value)?;
    let path_octets = usize::from(u16::from_be_bytes(take(value)?));
    let (path, octets) = value.split_at_checked(path_octets)?;
    Some(Record { statement: Statement::parse(octets).ok()?, path: String::from_utf8(path.into()).ok()? })
}

impl Store {
    /// Opens the store, or makes a new one.
    pub(crate) fn open(directory: &Path, cache_octets: u64) -> Result<Self, StoreError> {
        let path = directory.join("store");
        fs::create_dir_all(&path).map_err(|source| StoreError::Directory { path: path.clone(), source })?;
        let config = sled::Config::new().path(&path).cache_capacity(cache_octets);
        let db = match open(&config) {
            Ok(db) => db,
            Err(sled::Error::Io(e)) if e.to_string().contains("lock") || e.kind() == io::ErrorKind::WouldBlock => {
                return Err(StoreError::InUse(path));
            }
            Err(sled::Error::Io(source)) => return Err(StoreError::Directory { path, source }),
            Err(error) => {
                let set_aside = set_snapshots_aside(&path).map_err(|source| StoreError::Directory { path: path.clone(), source })?;
                if set_aside == 0 {
                    return Err(error.into());
                }
                tracing::warn!(%error, files = set_aside, "the store's start-up snapshot is damaged; it is set aside and the log read whole");
                open(&config)?
            }
        };
        let store = Self { db };
        store.check_version(&path)?;
        Ok(store)
    }

    fn check_version(&self, path: &Path) -> Result<(), StoreError> {
        match self.db.get(b"v")? {
            None => {
                self.db.insert(b"v", &VERSION.to_be_bytes())?;
                self.db.flush()?;
                Ok(())
            }
            Some(value) => match value.as_ref().try_into().map(u32::from_be_bytes) {
                Ok(VERSION) => Ok(()),
                Ok(found) => Err(StoreError::Newer { path: path.into(), found }),
                Err(_) => Err(StoreError::Damaged("the layout's version".into())),
            },
        }
    }

    /// Makes a batch durable; when this returns it survives a loss of power.
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.db.apply_batch(batch.0)?;
        self.db.flush()?;
        Ok(())
    }

    /// All channels with their marks.
    pub(crate) fn channels(&self) -> Result<Vec<(Channel, Marks)>, StoreError> {
        let read = |entry: Result<(sled::IVec, sled::IVec), sled::Error>| {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key[1..]).into_owned();
            let channel = name.parse().ok();
            channel.zip(read_marks(&value)).ok_or(StoreError::Damaged(name))
        };
        self.db.scan_prefix(b"c").map(read).collect()
    }

    /// Every island: its channel, its highest and its lowest serial.
    pub(crate) fn islands(&self) -> Result<Vec<(Channel, Serial, Serial)>, StoreError> {
        let mut all = Vec::new();
        for entry in self.db.scan_prefix(b"f") {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key[1..]).into_owned();
            let damaged = || StoreError::Damaged(name.clone());
            let channel: Channel = name.parse().map_err(|_| damaged())?;
            let mut value = &*value;
            while !value.is_empty() {
                let mut serial = || Serial::new(u32::from_be_bytes(take(&mut value)?));
                let (top, lowest) = serial().zip(serial()).ok_or_else(damaged)?;
                all.push((channel.clone(), top, lowest));
            }
        }
        Ok(all)
    }

    /// The last serial of a channel that a peer has answered for; 0 if it was offered nothing yet.
    pub(crate) fn feed_cursor(&self, peer: &str, channel: &Channel) -> Result<u32, StoreError> {
        let value = self.db.get(feed_key(peer, channel))?;
        Ok(value.and_then(|v| take(&mut &*v)).map_or(0, u32::from_be_bytes))
    }

    /// Moves that cursor. It becomes durable with the next commit, or within a second: a peer is asked twice at worst.
    pub(crate) fn set_feed_cursor(&self, peer: &str, channel: &Channel, serial: u32) -> Result<(), StoreError> {
        self.db.insert(feed_key(peer, channel), &serial.to_be_bytes())?;
        Ok(())
    }

    /// Has every feed offer a channel from its beginning.
    pub(crate) fn forget_feed_cursors(&self, channel: &Channel) -> Result<(), StoreError> {
        let end = [&[0], channel.as_str().as_bytes()].concat();
        for key in self.db.scan_prefix(b"p").keys() {
            let key = key?;
            if key.ends_with(&end) {
                self.db.remove(key)?;
            }
        }
        Ok(())
    }

    /// What is kept of a group of slots, and its version.
    pub(crate) fn slots(&self, group: &str) -> Result<Option<(Vec<u8>, i32)>, StoreError> {
        let Some(value) = self.db.get([b"g", group.as_bytes()].concat())? else { return Ok(None) };
        let (version, data) = value.split_first_chunk().ok_or_else(|| StoreError::Damaged(format!("slots of {group}")))?;
        Ok(Some((data.to_vec(), i32::from_be_bytes(*version))))
    }

    /// Replaces that, durably, if it still has the version that was read; whether it had.
    pub(crate) fn set_slots(&self, group: &str, data: &[u8], after: Option<i32>) -> Result<bool, StoreError> {
        let key = [b"g", group.as_bytes()].concat();
        let old = self.db.get(&key)?;
        let version = old.as_ref().and_then(|value| Some(i32::from_be_bytes(*value.first_chunk()?)));
        if version != after {
            return Ok(false);
        }
        let next = after.map_or(0, |version| version.wrapping_add(1)).to_be_bytes();
        let set = self.db.compare_and_swap(key, old, Some([&next, data].concat()))?;
        self.db.flush()?;
        Ok(set.is_ok())
    }

    /// One statement.
    pub(crate) fn get(&self, channel: &Channel, serial: Serial) -> Result<Option<Record>, StoreError> {
        let Some(value) = self.db.get(statement_key(channel, serial))? else { return Ok(None) };
        let record = read_record(&value).filter(|r| r.statement.serial() == serial && r.statement.channel() == channel);
        record.map(Some).ok_or_else(|| StoreError::Damaged(format!("{channel} {serial}")))
    }

    /// When a statement arrived.
    pub(crate) fn arrived(&self, channel: &Channel, serial: Serial) -> Result<Option<Timestamp>, StoreError> {
        let value = self.db.get(statement_key(channel, serial))?;
        Ok(value.and_then(|v| take(&mut &*v)).map(|octets| Timestamp::from_seconds(u64::from_be_bytes(octets))))
    }
}

/// Octets that are free on the disk of a directory, and whether that is so little that nothing new is stored; none if the system
/// does not say.
pub(crate) fn free_octets(directory: &Path) -> Option<(u64, bool)> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    let free = disk.f_bavail * disk.f_frsize;
    Some((free, free < DISK_RESERVE_OCTETS))
}

/// Opens sled; it panics on some damaged snapshots instead of returning an error (sled issues 1527 and 1533).
fn open(config: &sled::Config) -> Result<sled::Db, sled::Error> {
    let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
    opened.unwrap_or_else(|_| Err(sled::Error::ReportableBug("it panicked while it opened".into())))
}

/// Moves sled's start-up snapshots away: they only save it from reading its log from the beginning.
fn set_snapshots_aside(path: &Path) -> io::Result<usize> {
    let aside = path.with_extension("snapshots-set-aside");
    let mut count = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::create_dir_all(&aside)?;
            fs::rename(entry.path(), aside.join(entry.file_name()))?;
            count += 1;
        }
    }
    Ok(count)
}
