//! What a disk forgets when the power goes: files and directories in memory, and which of their
//! changes were synced.
//!
//! The rules stand here once, and nothing else does: the simulated disk of the store's tests and
//! the file system that whole brokers run on (`forgetful.rs`) are both made of this file, and it
//! needs nothing but the standard library.

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

/// What the sync of a file makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Its octets, and no name.
    Posix,
    /// Its octets and its own names.
    Btrfs,
    /// Its octets and all names so far.
    Ext4,
}

/// What is lost of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it.
    Everything,
    /// Each operation survives or not.
    Subset,
    /// The same, and of a write each sector of so many octets survives or not.
    Torn(usize),
    /// What came after one of them, which is torn.
    AllAfter,
}

/// All models.
pub const MODELS: [Model; 3] = [Model::Posix, Model::Btrfs, Model::Ext4];
/// All ways to lose.
pub const CUTS: [Cut; 5] = [
    Cut::Everything,
    Cut::Subset,
    Cut::Torn(512),
    Cut::Torn(4096),
    Cut::AllAfter,
];

/// A file, or a directory.
#[derive(Clone, Default)]
pub struct Node {
    /// What is in the file.
    pub octets: Vec<u8>,
    /// Octets that are set aside for it.
    pub reserved: usize,
    /// None for a file.
    pub names: Option<BTreeMap<String, usize>>,
}

/// A change that may be lost.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Operation {
    Write {
        node: usize,
        at: usize,
        octets: Vec<u8>,
    },
    Truncate {
        node: usize,
        octets: usize,
    },
    Link {
        directory: usize,
        name: String,
        node: usize,
    },
    Unlink {
        directory: usize,
        name: String,
        node: usize,
    },
    Rename {
        from: (usize, String),
        to: (usize, String),
        node: usize,
    },
}

impl Operation {
    fn perform(&self, nodes: &mut [Node]) {
        match self {
            Self::Write { node, at, octets } => {
                let file = &mut nodes[*node].octets;
                file.resize(file.len().max(at + octets.len()), 0);
                file[*at..at + octets.len()].copy_from_slice(octets);
            }
            Self::Truncate { node, octets } => nodes[*node].octets.resize(*octets, 0),
            Self::Link {
                directory,
                name,
                node,
            } => drop(names(nodes, *directory).insert(name.clone(), *node)),
            Self::Unlink {
                directory,
                name,
                node,
            } => {
                let names = names(nodes, *directory);
                if names.get(name) == Some(node) {
                    names.remove(name);
                }
            }
            Self::Rename { from, to, node } => {
                let old = names(nodes, from.0);
                if old.get(&from.1) == Some(node) {
                    old.remove(&from.1);
                }
                names(nodes, to.0).insert(to.1.clone(), *node);
            }
        }
    }

    fn is_data(&self, of: usize) -> bool {
        matches!(self, Self::Write { node, .. } | Self::Truncate { node, .. } if *node == of)
    }

    /// Where it changes names, and the node that has them.
    fn names(&self) -> (Vec<(usize, String)>, Option<usize>) {
        match self {
            Self::Link {
                directory,
                name,
                node,
            }
            | Self::Unlink {
                directory,
                name,
                node,
            } => (vec![(*directory, name.clone())], Some(*node)),
            Self::Rename { from, to, node } => (vec![from.clone(), to.clone()], Some(*node)),
            Self::Write { .. } | Self::Truncate { .. } => (vec![], None),
        }
    }

    fn is_in(&self, directory: usize) -> bool {
        self.names().0.iter().any(|(there, _)| *there == directory)
    }

    /// A write, as the sectors that it touches.
    fn sectors(&self, sector: usize) -> Vec<Operation> {
        let Self::Write { node, at, octets } = self else {
            return vec![self.clone()];
        };
        let (mut pieces, mut from) = (Vec::new(), 0);
        while from < octets.len() {
            let to = (((at + from) / sector + 1) * sector - at).min(octets.len());
            pieces.push(Self::Write {
                node: *node,
                at: at + from,
                octets: octets[from..to].to_vec(),
            });
            from = to;
        }
        pieces
    }
}

fn names(nodes: &mut [Node], directory: usize) -> &mut BTreeMap<String, usize> {
    nodes[directory].names.get_or_insert_default()
}

/// The disk: as processes see it, and as it is after a cut. Node 0 is the root.
#[derive(Clone)]
pub struct Forgetting {
    model: Model,
    /// As processes see it.
    pub seen: Vec<Node>,
    durable: Vec<Node>,
    pending: Vec<Operation>,
}

impl Forgetting {
    /// An empty one.
    pub fn new(model: Model) -> Self {
        let root = vec![Node {
            names: Some(BTreeMap::new()),
            ..Node::default()
        }];
        Self {
            model,
            seen: root.clone(),
            durable: root,
            pending: Vec::new(),
        }
    }
    /// From here on, syncs mean something else.
    pub fn set_model(&mut self, model: Model) {
        self.model = model;
    }
    /// The same, all of it durable.
    pub fn settled(&self) -> Self {
        Self {
            durable: self.seen.clone(),
            pending: Vec::new(),
            ..self.clone()
        }
    }
    /// What has a name.
    ///
    /// # Errors
    /// As file systems say that there is nothing.
    pub fn find(&self, path: &str) -> io::Result<usize> {
        path.split('/')
            .filter(|part| !part.is_empty())
            .try_fold(0, |at, part| self.child(at, part))
    }
    /// What has a name in a directory.
    ///
    /// # Errors
    /// As file systems say that there is nothing.
    pub fn child(&self, directory: usize, name: &str) -> io::Result<usize> {
        let names = self.seen[directory]
            .names
            .as_ref()
            .ok_or(io::ErrorKind::NotADirectory)?;
        names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    /// A file or directory without a name.
    pub fn add(&mut self, is_directory: bool) -> usize {
        let node = Node {
            names: is_directory.then(BTreeMap::new),
            ..Node::default()
        };
        self.seen.push(node.clone());
        self.durable.push(node);
        self.seen.len() - 1
    }
    /// Does something that may be lost.
    pub fn change(&mut self, operation: Operation) {
        operation.perform(&mut self.seen);
        self.pending.push(operation);
    }
    /// Sets octets aside for a file.
    pub fn reserve(&mut self, node: usize, octets: usize) {
        self.seen[node].reserved = octets;
        self.durable[node].reserved = octets;
    }
    /// Octets that are in use.
    pub fn used(&self) -> usize {
        fn under(nodes: &[Node], at: usize) -> usize {
            let below = nodes[at]
                .names
                .iter()
                .flatten()
                .map(|(_, node)| under(nodes, *node))
                .sum::<usize>();
            below + nodes[at].octets.len().max(nodes[at].reserved)
        }
        under(&self.seen, 0)
    }

    /// What is durable, and what came before it under the same name.
    fn settle(&mut self, is_durable: impl Fn(&Operation) -> bool) {
        let (mut now, mut later, mut named) = (Vec::new(), Vec::new(), HashSet::new());
        for operation in std::mem::take(&mut self.pending).into_iter().rev() {
            let names = operation.names().0;
            if is_durable(&operation) || names.iter().any(|name| named.contains(name)) {
                named.extend(names);
                now.push(operation);
            } else {
                later.push(operation);
            }
        }
        now.iter()
            .rev()
            .for_each(|operation| operation.perform(&mut self.durable));
        self.pending = later.into_iter().rev().collect();
    }

    /// A file is synced.
    pub fn sync(&mut self, node: usize) {
        let model = self.model;
        self.settle(|operation| {
            operation.is_data(node)
                || match model {
                    Model::Posix => false,
                    Model::Btrfs => operation.names().1 == Some(node),
                    Model::Ext4 => !matches!(operation, Operation::Write { .. }),
                }
        });
    }
    /// A directory is synced.
    pub fn sync_directory(&mut self, directory: usize) {
        let is_all = self.model == Model::Ext4;
        self.settle(|operation| {
            operation.is_in(directory) || is_all && operation.names().1.is_some()
        });
    }
    /// The sync of a file has failed: it is never tried again, and everybody sees what is not
    /// durable.
    pub fn fail_sync(&mut self, node: usize) {
        self.pending.retain(|operation| !operation.is_data(node));
    }
    /// The same of a directory.
    pub fn fail_sync_directory(&mut self, directory: usize) {
        self.pending.retain(|operation| !operation.is_in(directory));
    }

    /// The power goes. `below` gives a random number below a bound.
    pub fn cut(&mut self, cut: Cut, mut below: impl FnMut(usize) -> usize) {
        let pending = std::mem::take(&mut self.pending);
        let stop = below(pending.len() + 1);
        for (place, operation) in pending.into_iter().enumerate() {
            let survivors = match cut {
                Cut::Everything => vec![],
                Cut::AllAfter if place < stop => vec![operation],
                Cut::AllAfter if place == stop && operation.names().1.is_none() => {
                    let mut sectors = operation.sectors(512);
                    sectors.truncate(below(sectors.len()));
                    sectors
                }
                Cut::AllAfter => vec![],
                Cut::Torn(sector) => operation
                    .sectors(sector)
                    .into_iter()
                    .filter(|_| below(2) == 0)
                    .collect(),
                Cut::Subset => std::iter::once(operation)
                    .filter(|_| below(2) == 0)
                    .collect(),
            };
            survivors
                .iter()
                .for_each(|operation| operation.perform(&mut self.durable));
        }
        let mut named = HashSet::from([0]);
        let mut look = vec![0];
        while let Some(directory) = look.pop() {
            let children = self.durable[directory]
                .names
                .iter()
                .flatten()
                .map(|(_, node)| *node);
            look.extend(children.filter(|child| named.insert(*child)));
        }
        for (_, gone) in self
            .durable
            .iter_mut()
            .enumerate()
            .filter(|(node, _)| !named.contains(node))
        {
            // No process has it open any more.
            *gone = Node::default();
        }
        self.seen.clone_from(&self.durable);
    }
}
