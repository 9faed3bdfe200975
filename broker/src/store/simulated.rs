//! A file system in memory that knows what was synced, for each file and each directory, and loses the rest when the power goes.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::files::{Disk, File};

/// What the sync of a file makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// Its octets, and no name.
    Posix,
    /// Its octets and its own names.
    Btrfs,
    /// Its octets and all names so far.
    Ext4,
}

/// What is lost of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Everything,
    /// Each operation survives or not.
    Subset,
    /// The same, and of a write each sector of so many octets survives or not.
    Torn(usize),
    /// What came after one of them, which is torn.
    AllAfter,
}

pub(super) const MODELS: [Model; 3] = [Model::Posix, Model::Btrfs, Model::Ext4];
pub(super) const CUTS: [Cut; 5] = [Cut::Everything, Cut::Subset, Cut::Torn(512), Cut::Torn(4096), Cut::AllAfter];

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes before it, or after it.
    Gone { is_done: bool },
    /// It fails, and all after it too or not; of a write, the first half is done; what a sync fails for is never synced again.
    Error { kind: io::ErrorKind, for_good: bool },
}

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % (bound.max(1) as u64)).unwrap()
    }
}

#[derive(Clone, Default)]
struct Node {
    octets: Vec<u8>,
    reserved: usize,
    /// None for a file.
    names: Option<BTreeMap<String, usize>>,
}

#[derive(Clone)]
enum Operation {
    Write { node: usize, at: usize, octets: Vec<u8> },
    Truncate { node: usize, octets: usize },
    Link { directory: usize, name: String, node: usize },
    Unlink { directory: usize, name: String, node: usize },
    Rename { from: (usize, String), to: (usize, String), node: usize },
}

fn perform(nodes: &mut [Node], operation: &Operation) {
    match operation {
        Operation::Write { node, at, octets } => {
            let file = &mut nodes[*node].octets;
            file.resize(file.len().max(at + octets.len()), 0);
            file[*at..at + octets.len()].copy_from_slice(octets);
        }
        Operation::Truncate { node, octets } => nodes[*node].octets.resize(*octets, 0),
        Operation::Link { directory, name, node } => drop(names(nodes, *directory).insert(name.clone(), *node)),
        Operation::Unlink { directory, name, node } => {
            let names = names(nodes, *directory);
            if names.get(name) == Some(node) {
                names.remove(name);
            }
        }
        Operation::Rename { from, to, node } => {
            let old = names(nodes, from.0);
            if old.get(&from.1) == Some(node) {
                old.remove(&from.1);
            }
            names(nodes, to.0).insert(to.1.clone(), *node);
        }
    }
}

fn names(nodes: &mut [Node], directory: usize) -> &mut BTreeMap<String, usize> {
    nodes[directory].names.as_mut().unwrap()
}

struct World {
    model: Model,
    /// As a process sees it, and as it is after a cut.
    seen: Vec<Node>,
    durable: Vec<Node>,
    pending: Vec<Operation>,
    /// Files that were opened before a cut, or before the power went, are no more.
    life: u32,
    operations: usize,
    reads: usize,
    fault: Option<(usize, Fault)>,
    read_fault: Option<(usize, io::ErrorKind)>,
    /// Everything fails from here on.
    dead: Option<io::ErrorKind>,
    quota: usize,
}

#[derive(Clone)]
pub(super) struct SimulatedDisk(Arc<Mutex<World>>);

struct Open {
    disk: SimulatedDisk,
    node: usize,
    life: u32,
}

fn lost() -> io::Error {
    io::Error::other("the power is gone")
}

impl World {
    fn find(&self, path: &str) -> io::Result<usize> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(0, |at, part| {
            let names = self.seen[at].names.as_ref().ok_or(io::ErrorKind::NotADirectory)?;
            names.get(part).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }
    fn parent(&self, path: &str) -> io::Result<(usize, String)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(parent)?, name.into()))
    }
    fn read(&mut self) -> io::Result<()> {
        self.reads += 1;
        if let Some(kind) = self.dead {
            return Err(kind.into());
        }
        match self.read_fault {
            Some((at, kind)) if at == self.reads => Err(kind.into()),
            _ => Ok(()),
        }
    }
    fn do_it(&mut self, operation: Operation) {
        perform(&mut self.seen, &operation);
        self.pending.push(operation);
    }
    /// What is durable, and what came before it under the same name.
    fn settle(&mut self, is_durable: impl Fn(&Operation) -> bool) {
        let (mut now, mut later, mut named) = (Vec::new(), Vec::new(), HashSet::new());
        for operation in std::mem::take(&mut self.pending).into_iter().rev() {
            let names = names_of(&operation);
            if is_durable(&operation) || names.iter().any(|name| named.contains(name)) {
                named.extend(names);
                now.push(operation);
            } else {
                later.push(operation);
            }
        }
        now.iter().rev().for_each(|operation| perform(&mut self.durable, operation));
        self.pending = later.into_iter().rev().collect();
    }
    /// Does something, unless this is where a fault is.
    fn change(&mut self, done: impl FnOnce(&mut Self) -> io::Result<()>, failed: impl FnOnce(&mut Self)) -> io::Result<()> {
        self.operations += 1;
        if let Some(kind) = self.dead {
            return Err(kind.into());
        }
        match self.fault.filter(|(at, _)| *at == self.operations) {
            None => done(self),
            Some((_, Fault::Gone { is_done })) => {
                if is_done {
                    let _ = done(self);
                }
                self.dead = Some(io::ErrorKind::Other);
                Err(lost())
            }
            Some((_, Fault::Error { kind, for_good })) => {
                failed(self);
                self.dead = for_good.then_some(kind);
                Err(kind.into())
            }
        }
    }
    fn used(&self) -> usize {
        fn under(nodes: &[Node], at: usize) -> usize {
            let node = &nodes[at];
            let below = node.names.iter().flatten().map(|(_, node)| under(nodes, *node)).sum::<usize>();
            below + node.octets.len().max(node.reserved)
        }
        under(&self.seen, 0)
    }
    fn new_node(&mut self, node: Node) -> usize {
        self.seen.push(node.clone());
        self.durable.push(node);
        self.seen.len() - 1
    }
}

fn names_of(operation: &Operation) -> Vec<(usize, String)> {
    match operation {
        Operation::Link { directory, name, .. } | Operation::Unlink { directory, name, .. } => vec![(*directory, name.clone())],
        Operation::Rename { from, to, .. } => vec![from.clone(), to.clone()],
        Operation::Write { .. } | Operation::Truncate { .. } => vec![],
    }
}

fn is_data(operation: &Operation, of: usize) -> bool {
    matches!(operation, Operation::Write { node, .. } | Operation::Truncate { node, .. } if *node == of)
}

fn is_name(operation: &Operation) -> bool {
    !matches!(operation, Operation::Write { .. } | Operation::Truncate { .. })
}

impl SimulatedDisk {
    pub(super) fn new(model: Model) -> Self {
        let root = vec![Node { names: Some(BTreeMap::new()), ..Node::default() }];
        Self(Arc::new(Mutex::new(World {
            model,
            seen: root.clone(),
            durable: root,
            pending: Vec::new(),
            life: 0,
            operations: 0,
            reads: 0,
            fault: None,
            read_fault: None,
            dead: None,
            quota: usize::MAX,
        })))
    }
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Operations that change something so far, and others.
    pub(super) fn operations(&self) -> (usize, usize) {
        let world = self.world();
        (world.operations, world.reads)
    }
    /// Has a fault happen at an operation that changes something, counted from the beginning.
    pub(super) fn fail_at(&self, operation: usize, fault: Fault) {
        self.world().fault = Some((operation, fault));
    }
    pub(super) fn fail_read_at(&self, read: usize, kind: io::ErrorKind) {
        self.world().read_fault = Some((read, kind));
    }
    pub(super) fn set_quota(&self, octets: usize) {
        self.world().quota = octets;
    }
    pub(super) fn used(&self) -> usize {
        self.world().used()
    }
    /// The disk works again, as a process finds it that is started anew.
    pub(super) fn heal(&self) {
        let mut world = self.world();
        (world.fault, world.read_fault, world.dead) = (None, None, None);
        world.life += 1;
    }
    /// The power goes, and comes back.
    pub(super) fn cut(&self, cut: Cut, random: &mut Random) {
        self.heal();
        let mut world = self.world();
        let pending = std::mem::take(&mut world.pending);
        let stop = random.below(pending.len() + 1);
        for (place, operation) in pending.into_iter().enumerate() {
            let survives = match cut {
                Cut::Everything => false,
                Cut::Subset | Cut::Torn(_) => random.below(2) == 0,
                Cut::AllAfter => place < stop,
            };
            let torn = match cut {
                Cut::Torn(sector) => Some(sector),
                Cut::AllAfter if place == stop => Some(512),
                _ => None,
            };
            match (&operation, torn) {
                (Operation::Write { node, at, octets }, Some(sector)) => {
                    let mut from = 0;
                    while from < octets.len() {
                        let to = ((at + from) / sector + 1) * sector - at;
                        let to = to.min(octets.len());
                        let is_there = random.below(2) == 0;
                        if is_there {
                            let piece = Operation::Write { node: *node, at: at + from, octets: octets[from..to].to_vec() };
                            perform(&mut world.durable, &piece);
                        } else if cut == Cut::AllAfter {
                            break;
                        }
                        from = to;
                    }
                }
                _ if survives => perform(&mut world.durable, &operation),
                _ => {}
            }
        }
        world.seen = world.durable.clone();
    }
    /// Another disk with the same content, all of it durable.
    pub(super) fn copy(&self) -> Self {
        let world = self.world();
        let copy = Self::new(world.model);
        let mut new = copy.world();
        (new.seen, new.durable) = (world.seen.clone(), world.seen.clone());
        drop(new);
        copy
    }
    /// All files with their octets.
    pub(super) fn all(&self) -> BTreeMap<String, Vec<u8>> {
        fn under(nodes: &[Node], at: usize, path: &str, all: &mut BTreeMap<String, Vec<u8>>) {
            for (name, node) in nodes[at].names.iter().flatten() {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                match nodes[*node].names {
                    Some(_) => under(nodes, *node, &path, all),
                    None => drop(all.insert(path, nodes[*node].octets.clone())),
                }
            }
        }
        let mut all = BTreeMap::new();
        under(&self.world().seen, 0, "", &mut all);
        all
    }
    /// Changes a file behind everybody's back.
    pub(super) fn rot(&self, path: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut world = self.world();
        let node = world.find(path).unwrap();
        change(&mut world.seen[node].octets);
        change(&mut world.durable[node].octets);
    }
}

impl Disk for SimulatedDisk {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.read()?;
        let node = world.find(directory)?;
        Ok(world.seen[node].names.as_ref().ok_or(io::ErrorKind::NotADirectory)?.keys().cloned().collect())
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        world.read()?;
        let node = world.find(name)?;
        Ok(Arc::new(Open { disk: self.clone(), node, life: world.life }))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        let (directory, last) = world.parent(name)?;
        if world.find(name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = world.new_node(Node::default());
        world.change(
            |world| {
                world.do_it(Operation::Link { directory, name: last, node });
                Ok(())
            },
            |_| (),
        )?;
        Ok(Arc::new(Open { disk: self.clone(), node, life: world.life }))
    }
    fn create_directory(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let (directory, last) = world.parent(name)?;
        let node = world.new_node(Node { names: Some(BTreeMap::new()), ..Node::default() });
        world.change(
            |world| {
                world.do_it(Operation::Link { directory, name: last, node });
                Ok(())
            },
            |_| (),
        )
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let (node, from, to) = (world.find(from)?, world.parent(from)?, world.parent(to)?);
        world.change(
            |world| {
                world.do_it(Operation::Rename { from, to, node });
                Ok(())
            },
            |_| (),
        )
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let (node, (directory, last)) = (world.find(name)?, world.parent(name)?);
        world.change(
            |world| {
                world.do_it(Operation::Unlink { directory, name: last, node });
                Ok(())
            },
            |_| (),
        )
    }
    fn remove_directory(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }
    fn sync_directory(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let (directory, model) = (world.find(name)?, world.model);
        let is_in = move |operation: &Operation| match operation {
            Operation::Link { directory: there, .. } | Operation::Unlink { directory: there, .. } => *there == directory,
            Operation::Rename { from, to, .. } => from.0 == directory || to.0 == directory,
            _ => false,
        };
        let is_durable = move |operation: &Operation| is_in(operation) || model == Model::Ext4 && is_name(operation);
        world.change(
            |world| {
                world.settle(is_durable);
                Ok(())
            },
            |world| world.pending.retain(|operation| !is_in(operation)),
        )
    }
    fn free(&self) -> io::Result<u64> {
        let world = self.world();
        Ok(world.quota.saturating_sub(world.used()) as u64)
    }
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl Open {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.disk.world();
        if world.life == self.life { Ok(world) } else { Err(lost()) }
    }
}

impl File for Open {
    fn octets(&self) -> io::Result<u64> {
        let mut world = self.world()?;
        world.read()?;
        Ok(world.seen[self.node].octets.len() as u64)
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut world = self.world()?;
        world.read()?;
        let at = usize::try_from(at).unwrap();
        let octets = world.seen[self.node].octets.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(octets);
        Ok(())
    }
    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        let (mut world, node, at) = (self.world()?, self.node, usize::try_from(at).unwrap());
        let more = (at + octets.len()).saturating_sub(world.seen[node].reserved.max(world.seen[node].octets.len()));
        let is_full = more > 0 && world.used() + more > world.quota;
        let write = |octets: &[u8]| Operation::Write { node, at, octets: octets.to_vec() };
        world.change(
            |world| {
                if is_full {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                world.do_it(write(octets));
                Ok(())
            },
            |world| world.do_it(write(&octets[..octets.len() / 2])),
        )
    }
    fn truncate(&self, octets: u64) -> io::Result<()> {
        let (mut world, node, octets) = (self.world()?, self.node, usize::try_from(octets).unwrap());
        world.change(
            |world| {
                world.do_it(Operation::Truncate { node, octets });
                world.seen[node].reserved = 0;
                world.durable[node].reserved = 0;
                Ok(())
            },
            |_| (),
        )
    }
    fn reserve(&self, octets: u64) -> io::Result<()> {
        let (mut world, node, octets) = (self.world()?, self.node, usize::try_from(octets).unwrap());
        let more = octets.saturating_sub(world.seen[node].reserved.max(world.seen[node].octets.len()));
        let is_full = more > 0 && world.used() + more > world.quota;
        world.change(
            |world| {
                if is_full {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let reserved = octets.max(world.seen[node].reserved);
                world.seen[node].reserved = reserved;
                world.durable[node].reserved = reserved;
                Ok(())
            },
            |_| (),
        )
    }
    fn sync(&self) -> io::Result<()> {
        let (mut world, node) = (self.world()?, self.node);
        let model = world.model;
        let is_own = move |operation: &Operation| match operation {
            Operation::Link { node: of, .. } | Operation::Unlink { node: of, .. } | Operation::Rename { node: of, .. } => *of == node,
            _ => false,
        };
        let is_durable = move |operation: &Operation| {
            is_data(operation, node)
                || match model {
                    Model::Posix => false,
                    Model::Btrfs => is_own(operation),
                    Model::Ext4 => is_name(operation) || matches!(operation, Operation::Truncate { .. }),
                }
        };
        world.change(
            |world| {
                world.settle(is_durable);
                Ok(())
            },
            |world| world.pending.retain(|operation| !is_data(operation, node)),
        )
    }
}
