//! A disk in memory that forgets what was not synced, and fails where a test wants it.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

// The whole brokers of `tests/` use the rest of it.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../tests/src/forgetting.rs"]
mod forgetting;

use tidings_protocol::simulated;

use super::files::{Disk, File};
pub(crate) use forgetting::{CUTS, Cut, MODELS, Model};
use forgetting::{Forgetting, Node, Operation};

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes before it, or after it.
    Gone { is_done: bool },
    /// It fails, and all after it too or not; of a write, the first half is done; what a sync fails
    /// for is never synced again.
    Error { kind: io::ErrorKind, for_good: bool },
    /// It is a sync, and says that it is done, and is not; the power goes before the operation
    /// after it.
    LeftOut,
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % (bound.max(1) as u64)).unwrap()
    }
}

struct World {
    disk: Forgetting,
    /// Files that were opened before a cut, or before the power went, are no more.
    life: u32,
    operations: usize,
    reads: usize,
    fault: Option<(usize, Fault)>,
    left_out: usize,
    read_fault: Option<(usize, io::ErrorKind)>,
    /// Everything fails from here on.
    dead: Option<io::ErrorKind>,
    quota: usize,
}

#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<World>>);

struct Open {
    disk: SimulatedDisk,
    node: usize,
    life: u32,
}

impl World {
    fn parent(&self, path: &str) -> io::Result<(usize, String)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.disk.find(parent)?, name.into()))
    }
    fn read(&mut self) -> io::Result<()> {
        self.reads += 1;
        match (self.dead, self.read_fault) {
            (Some(kind), _) => Err(kind.into()),
            (_, Some((at, kind))) if at == self.reads => Err(kind.into()),
            _ => Ok(()),
        }
    }
    /// Does something, unless this is where a fault is.
    fn change(
        &mut self,
        done: impl FnOnce(&mut Forgetting) -> io::Result<()>,
        failed: impl FnOnce(&mut Forgetting),
    ) -> io::Result<()> {
        self.operations += 1;
        if let Some(kind) = self.dead {
            return Err(kind.into());
        }
        match self.fault.filter(|(at, _)| *at == self.operations) {
            None => done(&mut self.disk),
            Some((_, Fault::Gone { is_done })) => {
                if is_done {
                    let _ = done(&mut self.disk);
                }
                self.dead = Some(io::ErrorKind::Other);
                Err(io::Error::other("the power is gone"))
            }
            Some((_, Fault::Error { kind, for_good })) => {
                failed(&mut self.disk);
                self.dead = for_good.then_some(kind);
                Err(kind.into())
            }
            Some((_, Fault::LeftOut)) => done(&mut self.disk),
        }
    }
    /// The same for a sync, which can be left out.
    fn sync(
        &mut self,
        done: impl FnOnce(&mut Forgetting),
        failed: impl FnOnce(&mut Forgetting),
    ) -> io::Result<()> {
        if simulated::has(simulated::Fault::StoreSync) {
            return self.change(|_| Ok(()), failed);
        }
        let is_left_out = self.fault == Some((self.operations + 1, Fault::LeftOut));
        if is_left_out {
            self.left_out += 1;
            self.fault = Some((self.operations + 2, Fault::Gone { is_done: false }));
        }
        self.change(
            |disk| {
                if !is_left_out {
                    done(disk);
                }
                Ok(())
            },
            failed,
        )
    }
    fn do_it(&mut self, operation: Operation) -> io::Result<()> {
        self.change(
            |disk| {
                disk.change(operation);
                Ok(())
            },
            |_| (),
        )
    }
    fn is_full(&self, node: usize, octets: usize) -> bool {
        let node = &self.disk.seen[node];
        let more = octets.saturating_sub(node.reserved.max(node.octets.len()));
        more > 0 && self.disk.used() + more > self.quota
    }
}

impl SimulatedDisk {
    pub(crate) fn new(model: Model) -> Self {
        Self::of(Forgetting::new(model))
    }
    fn of(disk: Forgetting) -> Self {
        let (fault, read_fault, dead) = (None, None, None);
        Self(Arc::new(Mutex::new(World {
            disk,
            life: 0,
            operations: 0,
            reads: 0,
            fault,
            left_out: 0,
            read_fault,
            dead,
            quota: usize::MAX,
        })))
    }
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Operations that change something so far, and others.
    pub(crate) fn operations(&self) -> (usize, usize) {
        let world = self.world();
        (world.operations, world.reads)
    }
    /// Has a fault happen at an operation that changes something, counted from the beginning.
    pub(crate) fn fail_at(&self, operation: usize, fault: Fault) {
        self.world().fault = Some((operation, fault));
    }
    /// How many syncs were left out.
    pub(super) fn left_out(&self) -> usize {
        self.world().left_out
    }
    pub(super) fn fail_read_at(&self, read: usize, kind: io::ErrorKind) {
        self.world().read_fault = Some((read, kind));
    }
    pub(super) fn set_quota(&self, octets: usize) {
        self.world().quota = octets;
    }
    /// Whether the power is gone.
    pub(crate) fn is_dead(&self) -> bool {
        self.world().dead.is_some()
    }
    /// What would have failed later does not.
    pub(crate) fn spare(&self) {
        self.world().fault = None;
    }
    /// The disk works again, as a process finds it that is started anew.
    pub(crate) fn heal(&self) {
        let mut world = self.world();
        (world.fault, world.read_fault, world.dead) = (None, None, None);
        world.life += 1;
    }
    /// The power goes, and comes back.
    pub(crate) fn cut(&self, cut: Cut, random: &mut Random) {
        self.heal();
        self.world().disk.cut(cut, |bound| random.below(bound));
    }
    /// Another disk with the same content, all of it durable.
    pub(super) fn copy(&self) -> Self {
        Self::of(self.world().disk.settled())
    }
    /// All files with their octets.
    pub(super) fn all(&self) -> BTreeMap<String, Vec<u8>> {
        fn under(nodes: &[Node], at: usize, path: &str, all: &mut BTreeMap<String, Vec<u8>>) {
            for (name, node) in nodes[at].names.iter().flatten() {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}/{name}")
                };
                match nodes[*node].names {
                    Some(_) => under(nodes, *node, &path, all),
                    None => drop(all.insert(path, nodes[*node].octets.clone())),
                }
            }
        }
        let mut all = BTreeMap::new();
        under(&self.world().disk.seen, 0, "", &mut all);
        all
    }
    /// Changes a file behind everybody's back.
    pub(super) fn rot(&self, path: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut world = self.world();
        let node = world.disk.find(path).unwrap();
        change(&mut world.disk.seen[node].octets);
        world.disk = world.disk.settled();
    }
    fn add(&self, name: &str, is_directory: bool) -> io::Result<Open> {
        let mut world = self.world();
        let (directory, last) = world.parent(name)?;
        if world.disk.find(name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = world.disk.add(is_directory);
        world.do_it(Operation::Link {
            directory,
            name: last,
            node,
        })?;
        Ok(Open {
            disk: self.clone(),
            node,
            life: world.life,
        })
    }
}

impl Disk for SimulatedDisk {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.read()?;
        let node = world.disk.find(directory)?;
        Ok(world.disk.seen[node]
            .names
            .as_ref()
            .ok_or(io::ErrorKind::NotADirectory)?
            .keys()
            .cloned()
            .collect())
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        world.read()?;
        let node = world.disk.find(name)?;
        Ok(Arc::new(Open {
            disk: self.clone(),
            node,
            life: world.life,
        }))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(self.add(name, false)?))
    }
    fn create_directory(&self, name: &str) -> io::Result<()> {
        self.add(name, true).map(drop)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let (node, from, to) = (
            world.disk.find(from)?,
            world.parent(from)?,
            world.parent(to)?,
        );
        world.do_it(Operation::Rename { from, to, node })
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let (node, (directory, last)) = (world.disk.find(name)?, world.parent(name)?);
        world.do_it(Operation::Unlink {
            directory,
            name: last,
            node,
        })
    }
    fn remove_directory(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }
    fn sync_directory(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let node = world.disk.find(name)?;
        world.sync(
            |disk| disk.sync_directory(node),
            |disk| disk.fail_sync_directory(node),
        )
    }
    fn free(&self) -> io::Result<u64> {
        let world = self.world();
        Ok(world.quota.saturating_sub(world.disk.used()) as u64)
    }
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl Open {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.disk.world();
        if world.life == self.life {
            Ok(world)
        } else {
            Err(io::Error::other("this file was open in another life"))
        }
    }
}

impl File for Open {
    fn octets(&self) -> io::Result<u64> {
        let mut world = self.world()?;
        world.read()?;
        Ok(world.disk.seen[self.node].octets.len() as u64)
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut world = self.world()?;
        world.read()?;
        let at = usize::try_from(at).unwrap();
        let octets = world.disk.seen[self.node]
            .octets
            .get(at..at + into.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(octets);
        Ok(())
    }
    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let (mut world, node, at) = (self.world()?, self.node, usize::try_from(at).unwrap());
        let is_full = world.is_full(node, at + octets.len());
        let write = |octets: &[u8]| Operation::Write {
            node,
            at,
            octets: octets.to_vec(),
        };
        world.change(
            |disk| match is_full {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => {
                    disk.change(write(octets));
                    Ok(())
                }
            },
            |disk| disk.change(write(&octets[..octets.len() / 2])),
        )
    }
    fn truncate(&self, octets: u64) -> io::Result<()> {
        let (mut world, node, octets) =
            (self.world()?, self.node, usize::try_from(octets).unwrap());
        world.disk.reserve(node, 0);
        world.do_it(Operation::Truncate { node, octets })
    }
    fn reserve(&self, octets: u64) -> io::Result<()> {
        let (mut world, node, octets) =
            (self.world()?, self.node, usize::try_from(octets).unwrap());
        let is_full = world.is_full(node, octets);
        world.change(
            |disk| match is_full {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => {
                    disk.reserve(node, octets);
                    Ok(())
                }
            },
            |_| (),
        )
    }
    fn sync(&self) -> io::Result<()> {
        let (mut world, node) = (self.world()?, self.node);
        world.sync(|disk| disk.sync(node), |disk| disk.fail_sync(node))
    }
}
