//! The embedded store: one ordered keyspace of statements by channel and serial, and the marks of each channel.
//!
//! | key | value |
//! | --- | --- |
//! | `v` | the layout's version |
//! | `c` CHANNEL | low-water mark, head, when the channel began |
//! | `s` CHANNEL NUL SERIAL (big-endian) | when it arrived, `Path`, statement |
//! | `f` CHANNEL | its backfill: highest and lowest serial of what is stored above a gap and not visible yet |
//! | `g` GROUP | version, and who of the group has slots |
//! | `p` PEER NUL CHANNEL | the last serial that this peer of a feed has answered for |

mod journal;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, UserKey, UserValue, config::CompressionPolicy};
use tidings_protocol::{Channel, Head, Serial, Statement, StatementId, Timestamp};

use crate::{
    clock,
    limits::{DISK_RESERVE_OCTETS, MEMTABLE_OCTETS},
};

const VERSION: u32 = 2;
/// Threads that sort and merge. Of two, fjall 3.1 has one spin while the other merges.
const WORKERS: usize = 1;
/// Values of so many octets lie apart from their keys: statements do, marks do not.
const VALUE_APART_OCTETS: u32 = 256;

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
    /// It was written before layout 2, by another engine.
    #[error(
        "the store in {0} has layout 1, this tidingsd knows {VERSION}; move the data directory away, and mirror anew, or export with the earlier tidingsd and import here; nothing was changed"
    )]
    Older(PathBuf),
    /// A record cannot be read.
    #[error("the store holds a damaged record for {0}; restore the data directory, or remove it and mirror anew")]
    Damaged(String),
    /// The engine failed.
    #[error("the store failed: {0}; if it cannot be opened, restore the data directory, or remove it and mirror anew")]
    Engine(#[from] fjall::Error),
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

/// Changes that become durable together or not at all; of several to one key, the last.
#[derive(Default)]
pub(crate) struct Batch(HashMap<UserKey, Option<UserValue>>);

#[derive(Clone)]
pub(crate) struct Store {
    db: Database,
    all: Keyspace,
    /// Held from reading to replacing what is kept of a group.
    slots: Arc<Mutex<()>>,
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
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key.into(), Some(value.into()));
    }
    fn take_out(&mut self, key: Vec<u8>) {
        self.0.insert(key.into(), None);
    }
    pub(crate) fn insert(&mut self, statement: &Statement, arrived: Timestamp, path: &str) {
        let path_octets = u16::try_from(path.len()).unwrap_or(0);
        let mut value = Vec::with_capacity(10 + path.len() + statement.octets().len());
        value.extend_from_slice(&arrived.seconds().to_be_bytes());
        value.extend_from_slice(&path_octets.to_be_bytes());
        value.extend_from_slice(&path.as_bytes()[..path_octets.into()]);
        value.extend_from_slice(statement.octets());
        self.put(statement_key(statement.channel(), statement.serial()), value);
    }
    pub(crate) fn remove(&mut self, channel: &Channel, serial: Serial) {
        self.take_out(statement_key(channel, serial));
    }
    pub(crate) fn remove_marks(&mut self, channel: &Channel) {
        self.take_out(channel_key(channel));
    }
    /// Remembers what is stored of a channel above a gap, and not visible yet: its highest and its lowest serial.
    pub(crate) fn set_backfill(&mut self, channel: &Channel, backfill: Option<(Serial, Serial)>) {
        match backfill {
            None => self.take_out(backfill_key(channel)),
            Some((top, lowest)) => {
                let value = [top, lowest].iter().flat_map(|serial| serial.number().to_be_bytes()).collect();
                self.put(backfill_key(channel), value);
            }
        }
    }
    pub(crate) fn set_marks(&mut self, channel: &Channel, marks: &Marks) {
        let mut value = Vec::with_capacity(48);
        value.extend_from_slice(&marks.low.number().to_be_bytes());
        value.extend_from_slice(&marks.head.serial.number().to_be_bytes());
        value.extend_from_slice(marks.head.id.octets());
        value.extend_from_slice(&marks.created.seconds().to_be_bytes());
        self.put(channel_key(channel), value);
    }
}

fn backfill_key(channel: &Channel) -> Vec<u8> {
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
        if path.join("conf").exists() && path.join("db").exists() {
            return Err(StoreError::Older(path));
        }
        let open = || {
            let db = Database::builder(&path).cache_size(cache_octets).worker_threads(WORKERS).open()?;
            let options = || {
                let plain = CompressionPolicy::all(fjall::CompressionType::None);
                // Statements are written once more, sorted, and then never moved: only their keys are merged.
                let apart = KvSeparationOptions::default().separation_threshold(VALUE_APART_OCTETS);
                KeyspaceCreateOptions::default()
                    .max_memtable_size(MEMTABLE_OCTETS)
                    .data_block_compression_policy(plain)
                    .with_kv_separation(Some(apart))
            };
            let all = db.keyspace("tidings", options)?;
            Ok(Self { db, all, slots: Arc::default() })
        };
        let directory = |source| StoreError::Directory { path: path.clone(), source };
        set_unfinished_aside(&path).map_err(directory)?;
        let opened = match open() {
            Err(fjall::Error::JournalRecovery(error)) if journal::cut_torn_batch(&path).map_err(directory)? => {
                tracing::warn!(%error, "the last batch of the store's journal was never whole: it is set aside, nobody was answered for it");
                open()
            }
            opened => opened,
        };
        let store = opened.map_err(|error| match error {
            fjall::Error::Locked => StoreError::InUse(path.clone()),
            fjall::Error::Io(source) => directory(source),
            error => error.into(),
        })?;
        store.check_version(&path)?;
        Ok(store)
    }

    fn check_version(&self, path: &Path) -> Result<(), StoreError> {
        match self.all.get(b"v")? {
            None => {
                let mut batch = Batch::default();
                batch.put(b"v".into(), VERSION.to_be_bytes().into());
                self.commit(batch)
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
        let mut durable = self.db.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in batch.0 {
            match value {
                Some(value) => durable.insert(&self.all, key, value),
                None => durable.remove(&self.all, key),
            }
        }
        Ok(durable.commit()?)
    }

    fn prefix(&self, prefix: &[u8]) -> impl Iterator<Item = Result<(UserKey, UserValue), StoreError>> {
        self.all.prefix(prefix).map(|entry| Ok(entry.into_inner()?))
    }

    /// All channels with their marks.
    pub(crate) fn channels(&self) -> Result<Vec<(Channel, Marks)>, StoreError> {
        let read = |entry: Result<(UserKey, UserValue), StoreError>| {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key[1..]).into_owned();
            let channel = name.parse().ok();
            channel.zip(read_marks(&value)).ok_or(StoreError::Damaged(name))
        };
        self.prefix(b"c").map(read).collect()
    }

    /// Every backfill: its channel, its highest and its lowest serial.
    pub(crate) fn backfills(&self) -> Result<Vec<(Channel, Serial, Serial)>, StoreError> {
        let mut all = Vec::new();
        for entry in self.prefix(b"f") {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key[1..]).into_owned();
            let mut value = &*value;
            let mut serial = || Serial::new(u32::from_be_bytes(take(&mut value)?));
            let read = name.parse().ok().zip(serial().zip(serial()));
            let (channel, (top, lowest)) = read.ok_or_else(|| StoreError::Damaged(name.clone()))?;
            all.push((channel, top, lowest));
        }
        Ok(all)
    }

    /// The last serial of a channel that a peer has answered for; 0 if it was offered nothing yet.
    pub(crate) fn feed_cursor(&self, peer: &str, channel: &Channel) -> Result<u32, StoreError> {
        let value = self.all.get(feed_key(peer, channel))?;
        Ok(value.and_then(|v| take(&mut &*v)).map_or(0, u32::from_be_bytes))
    }

    /// Moves such cursors, durably.
    pub(crate) fn set_feed_cursors<'a>(&self, peer: &str, cursors: impl Iterator<Item = (&'a Channel, u32)>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        cursors.for_each(|(channel, serial)| batch.put(feed_key(peer, channel), serial.to_be_bytes().into()));
        self.commit(batch)
    }

    /// Has every feed offer a channel from its beginning, from this batch on.
    pub(crate) fn forget_feed_cursors(&self, batch: &mut Batch, channel: &Channel) -> Result<(), StoreError> {
        let end = [&[0], channel.as_str().as_bytes()].concat();
        for entry in self.prefix(b"p") {
            let (key, _) = entry?;
            if key.ends_with(&end) {
                batch.take_out(key.to_vec());
            }
        }
        Ok(())
    }

    /// What is kept of a group of slots, and its version.
    pub(crate) fn slots(&self, group: &str) -> Result<Option<(Vec<u8>, i32)>, StoreError> {
        let Some(value) = self.all.get([b"g", group.as_bytes()].concat())? else { return Ok(None) };
        let (version, data) = value.split_first_chunk().ok_or_else(|| StoreError::Damaged(format!("slots of {group}")))?;
        Ok(Some((data.to_vec(), i32::from_be_bytes(*version))))
    }

    /// Replaces that, durably, if it still has the version that was read; whether it had.
    pub(crate) fn set_slots(&self, group: &str, data: &[u8], after: Option<i32>) -> Result<bool, StoreError> {
        let _held = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.slots(group)?.map(|(_, version)| version);
        if version != after {
            return Ok(false);
        }
        let next = after.map_or(0, |version| version.wrapping_add(1)).to_be_bytes();
        let mut batch = Batch::default();
        batch.put([b"g", group.as_bytes()].concat(), [&next, data].concat());
        self.commit(batch)?;
        Ok(true)
    }

    /// One statement.
    pub(crate) fn get(&self, channel: &Channel, serial: Serial) -> Result<Option<Record>, StoreError> {
        let Some(value) = self.all.get(statement_key(channel, serial))? else { return Ok(None) };
        let record = read_record(&value).filter(|r| r.statement.serial() == serial && r.statement.channel() == channel);
        record.map(Some).ok_or_else(|| StoreError::Damaged(format!("{channel} {serial}")))
    }

    /// When a statement arrived.
    pub(crate) fn arrived(&self, channel: &Channel, serial: Serial) -> Result<Option<Timestamp>, StoreError> {
        let value = self.all.get(statement_key(channel, serial))?;
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

/// Moves a store away whose making was cut off: its version is what is written last, and nothing was ever in it.
fn set_unfinished_aside(path: &Path) -> io::Result<()> {
    let unfinished = path.join("0.jnl").exists() && !path.join("version").exists();
    if unfinished {
        let aside = path.with_extension(format!("unfinished-{}", clock::now().seconds()));
        tracing::warn!(aside = %aside.display(), "the store was never made whole: it is set aside, and made anew");
        fs::rename(path, aside)?;
        fs::create_dir_all(path)?;
    }
    Ok(())
}
