//! What goes wrong with a store: where, and what to do.

use std::{fmt, io, path::PathBuf};

use super::{VERSION, segment};

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
    /// The file system refuses something.
    #[error("cannot use {path}: {source}{}", hint(.source))]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It would be left with files that its owner cannot use.
    #[error(
        "{path} belongs to user {owner}, and this is user {us}; run this as user {owner}, or `chown -R {us}` the data directory; nothing was changed"
    )]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Another process has it open.
    #[error("the store in {0} is in use; is another tidingsd running on it?")]
    InUse(PathBuf),
    /// There is none.
    #[error(
        "there is no store in {0}: it has no directory `store`; name the data directory of a broker"
    )]
    Nothing(PathBuf),
    /// It was written by a newer version.
    #[error(
        "the store has layout {found} ({path}), this tidingsd knows {VERSION}; start the newer one; nothing was changed"
    )]
    Newer {
        /// A file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It was written by another engine.
    #[error(
        "the store in {path} has layout {found}, this tidingsd knows {VERSION}; `tidings export` from the earlier tidingsd, move the data directory away, and `tidings import` here, or mirror anew; nothing was changed"
    )]
    Older {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Something is there that the store did not write.
    #[error("{0} is not a file of the store; move it away, and start again; nothing was changed")]
    Foreign(PathBuf),
    /// A segment is not there.
    #[error(
        "the store lacks {0}: it was copied in part, or a file was deleted; bring it back, or restore or mirror anew; nothing was changed"
    )]
    Missing(PathBuf),
    /// What is there is not what was written.
    #[error(
        "the store is damaged at {0}; `tidingsd check` says more, `tidingsd export` saves what can be read; then restore the data directory, or mirror anew; nothing was changed"
    )]
    Damage(Damage),
    /// One statement cannot be read.
    #[error(
        "the store holds a damaged record for {0}; it is fetched again where an upstream or a peer has it"
    )]
    Damaged(String),
    /// There is no room.
    #[error(
        "the disk is full: {missing} octets more are needed where the store lives; free them, or let retention remove more"
    )]
    Full {
        /// How many octets are missing.
        missing: u64,
    },
    /// More than a segment can hold.
    #[error("what is to be stored at once is larger than 4 GiB")]
    Large,
    /// It has failed before.
    #[error("the store has failed before, and takes nothing until the next start")]
    Failed,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is read-only: mount it for writing; nothing was changed"
        }
        io::ErrorKind::PermissionDenied => {
            "; check the owner and the permissions of the data directory; nothing was changed"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some room, and start again"
        }
        _ => "; look at the kernel's messages for what is wrong with the disk",
    }
}

/// A place that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub(super) segment: u32,
    pub(super) at: u64,
    what: &'static str,
    pub(super) statement: Option<(String, u32)>,
}

impl Damage {
    pub(super) fn new(segment: u32, at: u32, what: &'static str) -> Self {
        Self {
            segment,
            at: at.into(),
            what,
            statement: None,
        }
    }
    pub(super) fn statement(segment: u32, at: u32, channel: &str, serial: u32) -> Self {
        Self {
            statement: Some((channel.into(), serial)),
            ..Self::new(
                segment,
                at,
                "the octets of this statement are not those that were written",
            )
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} octet {}: {}",
            segment::log_name(self.segment),
            self.at,
            self.what
        )?;
        self.statement.as_ref().map_or(Ok(()), |(channel, serial)| {
            write!(f, " ({channel} {serial})")
        })
    }
}
