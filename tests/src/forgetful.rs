//! A file system, mounted by FUSE, that forgets what was not synced when its power goes
//! (`forgetting.rs`): for brokers as they are.

use std::{
    ffi::OsStr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};

use crate::{
    Random,
    forgetting::{Cut, Forgetting, Model, Operation},
};

/// What the kernel knows it does not ask for again.
const KNOWN: Duration = Duration::from_secs(60);
const BLOCK: usize = 4096;

struct World {
    disk: Forgetting,
    /// Changes after which the disk is gone: everything fails.
    left: Option<u64>,
    changes: u64,
    quota: usize,
}

/// The disk, mounted or not.
#[derive(Clone)]
pub struct ForgetfulDisk(Arc<Mutex<World>>);

/// A mounted disk; unmounted when this is dropped.
pub struct Mounted(Option<BackgroundSession>);

impl ForgetfulDisk {
    /// An empty disk of so many octets.
    pub fn new(octets: usize) -> Self {
        Self(Arc::new(Mutex::new(World {
            disk: Forgetting::new(Model::Posix),
            left: None,
            changes: 0,
            quota: octets,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts it; what is synced is durable as a model says.
    ///
    /// # Errors
    /// Without `/dev/fuse`, or the right to mount.
    pub fn mount(&self, at: &Path, model: Model) -> anyhow::Result<Mounted> {
        self.world().disk.set_model(model);
        let mut options = Config::default();
        options.mount_options = vec![MountOption::FSName("forgetful".into())];
        let session = fuser::spawn_mount(Mount(self.clone()), at, &options);
        session
            .map(|session| Mounted(Some(session)))
            .context("cannot mount a FUSE file system: this needs /dev/fuse, and root")
    }

    /// Has the disk fail for good after so many changes more.
    pub fn fail_after(&self, changes: u64) {
        let mut world = self.world();
        world.left = Some(changes);
    }

    /// Whether that has come.
    pub fn is_gone(&self) -> bool {
        self.world().left == Some(0)
    }

    /// Changes so far.
    pub fn changes(&self) -> u64 {
        self.world().changes
    }

    /// The power of an unmounted disk goes, and comes back.
    pub fn cut(&self, cut: Cut, random: &mut Random) {
        let mut world = self.world();
        world.left = None;
        world.disk.cut(cut, |bound| {
            usize::try_from(random.below(bound as u64)).unwrap_or(0)
        });
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test that fails here fails at the next mount.
        let _ = self.0.take().map(BackgroundSession::umount_and_join);
    }
}

struct Mount(ForgetfulDisk);

fn node(number: INodeNo) -> usize {
    usize::try_from(number.0 - 1).unwrap_or(0)
}

impl World {
    fn attributes(&self, node: usize) -> FileAttr {
        let found = &self.disk.seen[node];
        let time = SystemTime::UNIX_EPOCH;
        let (kind, perm) = if found.names.is_some() {
            (FileType::Directory, 0o700)
        } else {
            (FileType::RegularFile, 0o600)
        };
        let blocks = (found.octets.len().max(found.reserved) / 512) as u64;
        FileAttr {
            ino: INodeNo(node as u64 + 1),
            size: found.octets.len() as u64,
            blocks,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<usize, Errno> {
        if self.left == Some(0) {
            return Err(Errno::EIO);
        }
        self.disk
            .child(node(parent), &name.to_string_lossy())
            .map_err(|_| Errno::ENOENT)
    }

    /// Counts a change; an error if the disk is gone.
    fn begin(&mut self) -> Result<(), Errno> {
        self.changes += 1;
        match &mut self.left {
            Some(0) => Err(Errno::EIO),
            Some(left) => {
                *left -= 1;
                if *left == 0 { Err(Errno::EIO) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    fn need(&self, node: usize, octets: usize) -> Result<(), Errno> {
        let known = &self.disk.seen[node];
        let more = octets.saturating_sub(known.reserved.max(known.octets.len()));
        if more > 0 && self.disk.used() + more > self.quota {
            Err(Errno::ENOSPC)
        } else {
            Ok(())
        }
    }

    fn make(
        &mut self,
        parent: INodeNo,
        name: &OsStr,
        is_directory: bool,
    ) -> Result<FileAttr, Errno> {
        self.begin()?;
        let made = self.disk.add(is_directory);
        self.disk.change(Operation::Link {
            directory: node(parent),
            name: name.to_string_lossy().into(),
            node: made,
        });
        Ok(self.attributes(made))
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let child = self.child(parent, name)?;
        if self.disk.seen[child]
            .names
            .as_ref()
            .is_some_and(|names| !names.is_empty())
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.begin()?;
        self.disk.change(Operation::Unlink {
            directory: node(parent),
            name: name.to_string_lossy().into(),
            node: child,
        });
        Ok(())
    }

    fn rename(&mut self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> Result<(), Errno> {
        let child = self.child(from.0, from.1)?;
        self.begin()?;
        let end =
            |(parent, name): (INodeNo, &OsStr)| (node(parent), name.to_string_lossy().into_owned());
        self.disk.change(Operation::Rename {
            from: end(from),
            to: end(to),
            node: child,
        });
        Ok(())
    }

    fn write(&mut self, file: INodeNo, at: u64, octets: &[u8]) -> Result<u32, Errno> {
        let (file, at) = (node(file), usize::try_from(at).map_err(|_| Errno::EINVAL)?);
        self.need(file, at + octets.len())?;
        self.begin()?;
        self.disk.change(Operation::Write {
            node: file,
            at,
            octets: octets.into(),
        });
        u32::try_from(octets.len()).map_err(|_| Errno::EINVAL)
    }

    fn truncate(&mut self, file: usize, octets: u64) -> Result<(), Errno> {
        self.begin()?;
        let octets = usize::try_from(octets).map_err(|_| Errno::EINVAL)?;
        self.disk.reserve(file, 0);
        self.disk.change(Operation::Truncate { node: file, octets });
        Ok(())
    }

    fn reserve(&mut self, file: INodeNo, octets: u64) -> Result<(), Errno> {
        let (file, octets) = (
            node(file),
            usize::try_from(octets).map_err(|_| Errno::EINVAL)?,
        );
        self.need(file, octets)?;
        self.begin()?;
        self.disk.reserve(file, octets);
        Ok(())
    }
}

fn answer(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(found: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => reply.entry(&KNOWN, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mount {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let world = self.0.world();
        entry(
            world
                .child(parent, name)
                .map(|child| world.attributes(child)),
            reply,
        );
    }
    fn getattr(&self, _: &Request, file: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&KNOWN, &self.0.world().attributes(node(file)));
    }
    fn setattr(
        &self,
        _: &Request,
        file: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut world = self.0.world();
        match size.map_or(Ok(()), |size| world.truncate(node(file), size)) {
            Ok(()) => reply.attr(&KNOWN, &world.attributes(node(file))),
            Err(error) => reply.error(error),
        }
    }
    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(self.0.world().make(parent, name, true), reply);
    }
    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.0.world().remove(parent, name), reply);
    }
    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.0.world().remove(parent, name), reply);
    }
    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer(self.0.world().rename((parent, name), (to, new)), reply);
    }
    fn read(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let world = self.0.world();
        if world.left == Some(0) {
            return reply.error(Errno::EIO);
        }
        let octets = &world.disk.seen[node(file)].octets;
        let begin = usize::try_from(at).unwrap_or(usize::MAX).min(octets.len());
        reply.data(&octets[begin..(begin + size as usize).min(octets.len())]);
    }
    fn write(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        at: u64,
        octets: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.world().write(file, at, octets) {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        }
    }
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
    fn fsync(&self, _: &Request, file: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut world = self.0.world();
        let done = world.begin().map(|()| world.disk.sync(node(file)));
        answer(done, reply);
    }
    fn fsyncdir(&self, _: &Request, directory: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut world = self.0.world();
        let done = world
            .begin()
            .map(|()| world.disk.sync_directory(node(directory)));
        answer(done, reply);
    }
    fn readdir(
        &self,
        _: &Request,
        directory: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let world = self.0.world();
        let names = world.disk.seen[node(directory)].names.iter().flatten();
        for (place, (name, child)) in names.enumerate().skip(usize::try_from(offset).unwrap_or(0)) {
            let attributes = world.attributes(*child);
            if reply.add(attributes.ino, place as u64 + 1, attributes.kind, name) {
                break;
            }
        }
        reply.ok();
    }
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let world = self.0.world();
        let (all, free) = (
            world.quota / BLOCK,
            world.quota.saturating_sub(world.disk.used()) / BLOCK,
        );
        reply.statfs(
            all as u64,
            free as u64,
            free as u64,
            1 << 20,
            1 << 20,
            4096,
            255,
            4096,
        );
    }
    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.0.world().make(parent, name, false) {
            Ok(attributes) => reply.created(
                &KNOWN,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(error),
        }
    }
    fn fallocate(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        at: u64,
        octets: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        answer(self.0.world().reserve(file, at + octets), reply);
    }
}
