//! Writing files: new ones that were not there, and new content for those that are, whose owner,
//! mode and links stay.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::FallocateFlags, io::Errno};

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
    written.and_then(|()| sync_directory(directory(path)))
}

/// Makes a file that is not there yet, whole from the first moment on; one that is there stays.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn begin(path: &Path, octets: &[u8], mode: u32) -> io::Result<()> {
    let real = target(path)?;
    match successor(&real, octets, mode, None)?.persist_noclobber(&real) {
        Ok(_) => sync_directory(directory(&real)),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Not every file system can do this unless there is one.
        Err(error) => error.file.persist(&real).map(drop).map_err(|e| e.error),
    }
}

/// Gives a file new content, all or nothing: a new file beside it takes its place. A symbolic link
/// stays, and what it leads to is replaced; owner, mode and access list stay. Where no file can
/// take its place (it is a mount point, its directory cannot be written to, or the owner cannot be
/// kept), it is written as it stands, and a loss of power in the middle leaves a part of each. A
/// file that is not there yet gets `mode`.
///
/// # Errors
/// If it cannot be written.
pub fn replace(path: &Path, octets: &[u8], mode: u32) -> io::Result<()> {
    replace_at(path, octets, mode, &|_| {})
}

/// The same, that tells of each place at which the power may go: "before", "written", "replaced".
///
/// # Errors
/// As [`replace`].
pub fn replace_at(path: &Path, octets: &[u8], mode: u32, point: &dyn Fn(&str)) -> io::Result<()> {
    point("before");
    let real = target(path)?;
    let old = fs::metadata(&real).ok();
    let replaced = match successor(&real, octets, mode, old.as_ref()) {
        Ok(new) => {
            point("written");
            new.persist(&real).map(drop).map_err(|error| error.error)
        }
        Err(error) => Err(error),
    };
    match replaced {
        Ok(()) => sync_directory(directory(&real))?,
        Err(error) if old.is_some() && has_to_stay(&error) => overwrite(&real, octets)?,
        Err(error) => return Err(error),
    }
    point("replaced");
    Ok(())
}

/// Whether no other file can take the place of one, which may be written to all the same.
fn has_to_stay(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy
            | io::ErrorKind::CrossesDevices
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// The file that will take a place, durable, with what has to stay as it was.
fn successor(
    real: &Path,
    octets: &[u8],
    mode: u32,
    old: Option<&fs::Metadata>,
) -> io::Result<tempfile::NamedTempFile> {
    // What is new gets its mode as every file that a program makes, less what the umask takes.
    let mut new = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(directory(real))?;
    new.write_all(octets)?;
    if let Some(old) = old {
        let own = new.as_file().metadata()?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        new.as_file()
            .set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        keep_access_list(real, new.as_file())?;
    }
    new.as_file().sync_all()?;
    Ok(new)
}

const ACCESS_LIST: &str = "system.posix_acl_access";

fn keep_access_list(old: &Path, new: &fs::File) -> io::Result<()> {
    let mut list = [0; 4096];
    // Most files have none, and many file systems know none.
    let Ok(length) = rustix::fs::getxattr(old, ACCESS_LIST, &mut list[..]) else {
        return Ok(());
    };
    let list = list.get(..length).unwrap_or_default();
    Ok(rustix::fs::fsetxattr(
        new,
        ACCESS_LIST,
        list,
        rustix::fs::XattrFlags::empty(),
    )?)
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

/// Its room is set aside first, where the file system can, and it is cut last: a full disk changes
/// nothing.
fn overwrite(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let room = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, octets.len() as u64);
    if let Err(error @ (Errno::NOSPC | Errno::DQUOT)) = room {
        return Err(error.into());
    }
    file.write_all(octets)?;
    file.set_len(octets.len() as u64)?;
    file.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable, where the file system can, and the directory may be
/// read.
///
/// # Errors
/// If that fails.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    match fs::File::open(directory).and_then(|directory| directory.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
                    | io::ErrorKind::PermissionDenied
            ) =>
        {
            tracing::debug!(directory = %directory.display(), %error, "names here cannot be made durable");
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
    /// Locks a file, unless somebody else has locked it.
    pub(crate) fn of(file: fs::File, path: &Path) -> io::Result<Option<Self>> {
        Ok(try_lock(&file, path, false)?.then_some(Self(file)))
    }

    pub(crate) fn file(&self) -> &fs::File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it does the same, once all have closed it.
        let _ = self.0.unlock();
    }
}

/// Locks a file for one program, or for many that read; whether that was possible. Where a file
/// system has no locks, it goes on without, and says so.
///
/// # Errors
/// If it fails for another reason.
pub fn try_lock(file: &fs::File, path: &Path, shared: bool) -> io::Result<bool> {
    let locked = match shared {
        true => file.try_lock_shared(),
        false => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) if has_no_locks(&error) => {
            tracing::warn!(path = %path.display(), %error, "the file system has no locks; no two programs may use this at once");
            Ok(true)
        }
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn has_no_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL]
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == code)
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
        let path = directory.path().join("lock");
        let lock = || Lock::of(fs::File::create(&path).unwrap(), &path).unwrap();
        let held = lock().unwrap();
        let inherited = held.0.try_clone().unwrap();
        assert!(lock().is_none());
        drop(held);
        assert!(lock().is_some());
        drop(inherited);
    }

    #[test]
    fn a_file_whose_place_cannot_be_taken_is_written_as_it_stands() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "a long text").unwrap();
        let other = directory.path().join("other");
        fs::write(&other, "").unwrap();
        // A mount point answers EBUSY, a directory of another's EACCES: both look like this.
        for kind in [
            io::ErrorKind::ResourceBusy,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
        ] {
            assert!(has_to_stay(&kind.into()));
        }
        assert!(!has_to_stay(&io::ErrorKind::StorageFull.into()));
        overwrite(&file, b"short").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"short");
    }

    #[test]
    fn where_there_are_no_locks_programs_go_on() {
        use rustix::io::Errno;
        assert!(has_no_locks(&Errno::NOLCK.into()) && has_no_locks(&Errno::OPNOTSUPP.into()));
        assert!(!has_no_locks(&Errno::BADF.into()));
        let file = tempfile::NamedTempFile::new().unwrap();
        let (one, two) = (file.reopen().unwrap(), file.reopen().unwrap());
        assert!(try_lock(&one, file.path(), true).unwrap());
        assert!(try_lock(&two, file.path(), true).unwrap());
        assert!(!try_lock(&one, file.path(), false).unwrap());
    }
}
