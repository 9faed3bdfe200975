//! Writing files: new ones that were not there, and new content for those that are, whose owner,
//! mode and links stay.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Symbolic links that are followed at most.
const LINKS: u32 = 40;

/// Writes a file that must not exist yet, durably; nothing is left of it if that fails.
///
/// # Errors
/// If there is one, or it cannot be written.
pub fn create(path: &Path, octets: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    let written = file.write_all(octets).and_then(|()| file.sync_all());
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    written.and_then(|()| sync_directory(path))
}

/// Gives a file new content, all or nothing: a new file beside it takes its place. A symbolic link
/// stays, and what it leads to is replaced; owner and mode stay. Where no file can take its place
/// (it is a mount point, or the owner cannot be kept), it is written as it stands. A file that is
/// not there yet gets `mode`.
///
/// # Errors
/// If it cannot be written.
pub fn replace(path: &Path, octets: &[u8], mode: u32) -> io::Result<()> {
    let real = target(path)?;
    let old = fs::metadata(&real).ok();
    // What is new gets its mode as every file that a program makes, less what the umask takes.
    let mut new = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(directory(&real))?;
    new.write_all(octets)?;
    if let Some(old) = &old {
        new.as_file()
            .set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        let own = new.as_file().metadata()?;
        let other = (own.uid(), own.gid()) != (old.uid(), old.gid());
        if other
            && std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid())).is_err()
        {
            return overwrite(&real, octets);
        }
    }
    new.as_file().sync_all()?;
    match new.persist(&real) {
        Ok(_) => sync_directory(&real),
        Err(error)
            if matches!(
                error.error.kind(),
                io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
            ) =>
        {
            overwrite(&real, octets)
        }
        Err(error) => Err(error.error),
    }
}

/// Where symbolic links lead, also if nothing is there yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut real = path.to_path_buf();
    for _ in 0..LINKS {
        match fs::read_link(&real) {
            Ok(to) => real = directory(&real).join(to),
            Err(_) => return Ok(real),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn overwrite(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)?;
    file.write_all(octets)?;
    file.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes what was done to a name durable; not every file system can.
fn sync_directory(path: &Path) -> io::Result<()> {
    match fs::File::open(directory(path)).and_then(|directory| directory.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// A lock on a file, until it is dropped. It is given back as such: a process that is just being
/// started has the open file too, for a moment, and would hold the lock for as long.
#[derive(Debug)]
pub(crate) struct Lock(fs::File);

impl Lock {
    /// Locks a file that nobody else has locked.
    pub(crate) fn of(file: fs::File) -> Result<Self, fs::TryLockError> {
        file.try_lock().map(|()| Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it does the same, once all have closed it.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_modes_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        create(&file, b"one", 0o640).unwrap();
        assert_eq!(
            create(&file, b"two", 0o640).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        replace(&link, b"three", 0o600).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"three");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        let dangling = directory.path().join("dangling");
        symlink("new", &dangling).unwrap();
        replace(&dangling, b"four", 0o600).unwrap();
        assert!(fs::symlink_metadata(&dangling).unwrap().is_symlink());
        assert_eq!(
            fs::metadata(directory.path().join("new")).unwrap().mode() & 0o7777,
            0o600
        );
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            4,
            "nothing is left over"
        );
    }

    #[test]
    fn a_lock_that_was_given_back_is_free_although_somebody_has_the_open_file_still() {
        let directory = tempfile::tempdir().unwrap();
        let open = || fs::File::create(directory.path().join("lock")).unwrap();
        let lock = Lock::of(open()).unwrap();
        let inherited = lock.0.try_clone().unwrap();
        assert!(matches!(
            Lock::of(open()),
            Err(fs::TryLockError::WouldBlock)
        ));
        drop(lock);
        assert!(Lock::of(open()).is_ok());
        drop(inherited);
    }
}
