//! The few things that the store asks of a file system; the real one here, one that forgets in
//! `simulated.rs`.
//!
//! Names are relative to the data directory. What a file system may lose when the power goes is
//! what was not synced: the octets of a file by [`File::sync`], the names in a directory by
//! [`Disk::sync_directory`].

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::PathBuf,
    sync::Arc,
};

use tidings_client::file;

/// A file that is open.
pub(crate) trait File: Send + Sync {
    fn octets(&self) -> io::Result<u64>;
    /// Reads as many octets as there is room for.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()>;
    fn truncate(&self, octets: u64) -> io::Result<()>;
    /// Has the file system set octets aside for the file, whose length stays: a copy that is taken
    /// meanwhile ends where the file does.
    fn reserve(&self, octets: u64) -> io::Result<()>;
    /// Makes the octets durable, and the length.
    fn sync(&self) -> io::Result<()>;
}

/// A file system, from the data directory down.
pub(crate) trait Disk: Send + Sync {
    /// The names in a directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Makes a file that is not there yet.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn create_directory(&self, name: &str) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn remove_directory(&self, name: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, name: &str) -> io::Result<()>;
    /// Octets that are free.
    fn free(&self) -> io::Result<u64>;
    /// A name as an operator knows it.
    fn path(&self, name: &str) -> PathBuf;
}

/// How the data directory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// By one process alone.
    Write,
    /// By any number of processes, none of which writes.
    Read,
}

/// A directory of the machine's file system.
pub(crate) struct RealDisk {
    root: PathBuf,
    access: Access,
    /// Locked for as long as the disk is in use.
    _lock: fs::File,
}

impl RealDisk {
    /// Locks a data directory, which is made if it is to be written; none if another process has it
    /// locked.
    pub(crate) fn lock(root: PathBuf, access: Access) -> io::Result<Option<Self>> {
        if access == Access::Write {
            let missing: Vec<_> = root
                .ancestors()
                .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
                .collect();
            fs::create_dir_all(&root)?;
            // Whoever made a directory sees to it that it stays: its name lies in the one above.
            for above in missing.iter().filter_map(|path| path.parent()) {
                let above = if above.as_os_str().is_empty() {
                    ".".as_ref()
                } else {
                    above
                };
                file::sync_directory(above)?;
            }
        }
        let lock = fs::File::open(&root)?;
        let locked = file::try_lock(&lock, &root, access == Access::Read)?;
        Ok(locked.then_some(Self {
            root,
            access,
            _lock: lock,
        }))
    }
}

impl File for fs::File {
    fn octets(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(into, at)
    }
    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.write_all_at(octets, at)
    }
    fn truncate(&self, octets: u64) -> io::Result<()> {
        self.set_len(octets)
    }
    fn reserve(&self, octets: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::KEEP_SIZE, 0, octets) {
            // There, a full disk is found when it is written to.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Disk for RealDisk {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let name =
            |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        fs::read_dir(self.root.join(directory))?.map(name).collect()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(self.access == Access::Write)
            .open(self.root.join(name))?;
        Ok(Arc::new(file))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.root.join(name))?;
        Ok(Arc::new(file))
    }
    fn create_directory(&self, name: &str) -> io::Result<()> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(self.root.join(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(name))
    }
    fn remove_directory(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.root.join(name))
    }
    fn sync_directory(&self, name: &str) -> io::Result<()> {
        file::sync_directory(&self.root.join(name))
    }
    fn free(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}
