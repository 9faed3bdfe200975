//! What was settled at once is one node of the tree: its form, and which of them are kept.
//!
//! A node has, for each head that was set with it, `CHANNEL SERIAL ID VERSION OCTETS PATH` LF and
//! the statement; of a head that names nothing new there are no octets, and no path.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use tidings_protocol::{Channel, Head, Serial, Statement};

use crate::limits::{CLUSTER_FORGOTTEN, CLUSTER_KEPT_NODES, CLUSTER_KEPT_OCTETS};

/// A statement that was settled, or a head that was set to what members have had before.
pub(super) struct Record {
    pub(super) channel: Channel,
    pub(super) head: Head,
    /// Of the channel's head in the tree, when all of this was settled.
    pub(super) version: i32,
    /// The statement, and its `Path`.
    pub(super) entry: Option<(Statement, String)>,
}

/// Adds one to what a node holds.
pub(super) fn write(
    node: &mut Vec<u8>,
    (channel, head, version): (&Channel, Head, i32),
    entry: Option<(&Statement, &str)>,
) {
    let mut line = format!("{channel} {head} {version} ");
    match entry {
        Some((statement, path)) => {
            let octets = statement.octets();
            // To a `String`, which takes everything.
            let _ = writeln!(line, "{} {path}", octets.len());
            node.extend_from_slice(line.as_bytes());
            node.extend_from_slice(octets);
        }
        None => {
            line.push_str("0 \n");
            node.extend_from_slice(line.as_bytes());
        }
    }
}

/// What a node holds; none if that is something else.
pub(super) fn read(mut node: &[u8]) -> Option<Vec<Record>> {
    let mut all = Vec::new();
    while !node.is_empty() {
        let end = node.iter().position(|octet| *octet == b'\n')?;
        let mut words = std::str::from_utf8(&node[..end]).ok()?.splitn(6, ' ');
        let mut next = || words.next();
        let channel: Channel = next()?.parse().ok()?;
        let (serial, id) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (version, octets) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let path = next()?.to_owned();
        let (octets, rest) = node[end + 1..].split_at_checked(octets)?;
        let head = Head { serial, id };
        let entry = match octets {
            [] => None,
            octets => {
                let statement = Statement::parse(octets).ok()?;
                let is_it = *statement.channel() == channel && statement.head() == head;
                Some((statement, path)).filter(|_| is_it).map(Some)?
            }
        };
        all.push(Record {
            channel,
            head,
            version,
            entry,
        });
        node = rest;
    }
    Some(all)
}

/// The name of a node that no other one has had, and whose it is.
pub(super) fn name(session: i64, number: u64, member: &str) -> String {
    format!("{session:x}-{number}-{member}")
}

fn owner(name: &str) -> &str {
    name.splitn(3, '-').nth(2).unwrap_or_default()
}

/// The nodes that the tree keeps, as far as this member has read them.
#[derive(Default)]
pub(super) struct Shelf {
    /// In the order in which they were settled.
    nodes: BTreeMap<(i64, String), Kept>,
    zxids: HashMap<String, i64>,
}

/// What is known of a node.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) octets: usize,
    pub(super) entries: usize,
    /// What it holds of which our own store had not everything when it was read.
    pub(super) lacking: Vec<(Channel, Serial)>,
}

impl Shelf {
    pub(super) fn has(&self, name: &str) -> bool {
        self.zxids.contains_key(name)
    }

    pub(super) fn add(&mut self, name: &str, zxid: i64, kept: Kept) {
        self.remove(name);
        self.zxids.insert(name.into(), zxid);
        self.nodes.insert((zxid, name.into()), kept);
    }

    /// Whether it was known.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let zxid = self.zxids.remove(name);
        zxid.is_some_and(|zxid| self.nodes.remove(&(zxid, name.into())).is_some())
    }

    /// Forgets those that are not there any more.
    pub(super) fn retain(&mut self, there: &[String]) {
        let there: std::collections::HashSet<&String> = there.iter().collect();
        self.zxids.retain(|name, _| there.contains(name));
        self.nodes.retain(|(_, name), _| there.contains(name));
    }

    /// How many statements the nodes hold.
    pub(super) fn entries(&self) -> u64 {
        self.nodes.values().map(|kept| kept.entries as u64).sum()
    }

    /// Those that go with the next operation of a member: the oldest of its own, and of those who
    /// are no members any more, above its share.
    ///
    /// *A node goes only if all that it holds is durable on the disk of the member that removes
    /// it.*
    pub(super) fn going(
        &self,
        member: &str,
        live: &[&str],
        bound: (usize, usize),
        next: &dyn Fn(&Channel) -> u32,
    ) -> Vec<String> {
        let is_ours = |name: &str| owner(name) == member || !live.contains(&owner(name));
        let ours = || self.nodes.iter().filter(|((_, name), _)| is_ours(name));
        let members = live.len().max(1);
        let (nodes, octets) = (bound.0 / members, bound.1 / members);
        let (mut count, mut sum) = (0, 0);
        ours().for_each(|(_, kept)| (count, sum) = (count + 1, sum + kept.octets));
        let mut going = Vec::new();
        for ((_, name), kept) in ours() {
            if (count <= nodes && sum <= octets) || going.len() >= CLUSTER_FORGOTTEN {
                break;
            }
            let mut lacking = kept.lacking.iter();
            if lacking.all(|(channel, serial)| serial.number() < next(channel)) {
                going.push(name.clone());
                (count, sum) = (count - 1, sum - kept.octets);
            }
        }
        going
    }

    /// Those that hold what comes next in our own logs by now.
    pub(super) fn of_use(&self, next: &dyn Fn(&Channel) -> u32) -> Vec<String> {
        let mut nexts: HashMap<&Channel, u32> = HashMap::new();
        let mut all = Vec::new();
        for ((_, name), kept) in &self.nodes {
            let mut is_of_use = false;
            for (channel, serial) in &kept.lacking {
                let next = nexts.entry(channel).or_insert_with(|| next(channel));
                if serial.number() == *next {
                    (*next, is_of_use) = (*next + 1, true);
                }
            }
            if is_of_use {
                all.push(name.clone());
            }
        }
        all
    }
}

/// How many nodes the tree keeps, and octets in them.
pub(super) const BOUND: (usize, usize) = (CLUSTER_KEPT_NODES, CLUSTER_KEPT_OCTETS);
