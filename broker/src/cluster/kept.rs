//! What was settled at once is one node of the tree: its form, and which of them are kept.
//!
//! A node has, for each head that was set with it, `CHANNEL SERIAL ID VERSION OCTETS PATH` LF and
//! the statement; of a head that names nothing new there are no octets, and no path.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use tidings_protocol::{Channel, Head, Serial, Statement};

use crate::limits::{CLUSTER_FORGOTTEN, CLUSTER_KEPT_NODES, CLUSTER_KEPT_OCTETS, CLUSTER_LOOK};

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
    /// By whom they were settled.
    rows: HashMap<String, Row>,
    /// When each was settled.
    zxids: HashMap<String, i64>,
}

/// What one member has settled, in that order.
#[derive(Default)]
struct Row {
    nodes: BTreeMap<(i64, String), Kept>,
    octets: usize,
}

/// What is known of a node.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) octets: usize,
    pub(super) entries: usize,
    /// What it holds of which our own store had not everything when it was read.
    pub(super) lacking: Vec<(Channel, Serial)>,
    /// It could not be read.
    pub(super) unread: bool,
}

impl Shelf {
    pub(super) fn has(&self, name: &str) -> bool {
        self.zxids.contains_key(name)
    }

    pub(super) fn add(&mut self, name: &str, zxid: i64, kept: Kept) {
        self.remove(name);
        self.zxids.insert(name.into(), zxid);
        let row = self.rows.entry(owner(name).into()).or_default();
        row.octets += kept.octets;
        row.nodes.insert((zxid, name.into()), kept);
    }

    /// Whether it was known.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(zxid) = self.zxids.remove(name) else {
            return false;
        };
        if let Some(row) = self.rows.get_mut(owner(name)) {
            let kept = row.nodes.remove(&(zxid, name.into()));
            row.octets -= kept.map_or(0, |kept| kept.octets);
            if row.nodes.is_empty() {
                self.rows.remove(owner(name));
            }
        }
        true
    }

    /// They are not there any more.
    pub(super) fn forget(&mut self, names: &[String]) {
        for name in names {
            self.remove(name);
        }
    }

    /// Forgets those that are not there any more.
    pub(super) fn retain(&mut self, there: &[String]) {
        let there: HashSet<&String> = there.iter().collect();
        let gone = self.zxids.keys().filter(|name| !there.contains(name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove(&name);
        }
    }

    /// How many statements the nodes hold.
    pub(super) fn entries(&self) -> u64 {
        let nodes = self.rows.values().flat_map(|row| row.nodes.values());
        nodes.map(|kept| kept.entries as u64).sum()
    }

    /// Those that go with the next operation of a member: the oldest of its own, and of those who
    /// are no members any more, above its share of what the tree keeps: so many nodes, and octets.
    ///
    /// *A node goes only if all that it holds is durable on the disk of the member that removes
    /// it.*
    pub(super) fn going(
        &self,
        member: &str,
        live: &[&str],
        (nodes, octets): (usize, usize),
        next: &dyn Fn(&Channel) -> u32,
    ) -> Vec<String> {
        let is_ours = |owner: &str| owner == member || !live.contains(&owner);
        let rows = self.rows.iter().filter(|(owner, _)| is_ours(owner));
        let rows: Vec<&Row> = rows.map(|(_, row)| row).collect();
        let mut count: usize = rows.iter().map(|row| row.nodes.len()).sum();
        let mut sum: usize = rows.iter().map(|row| row.octets).sum();
        let share = |whole: usize| whole / live.len().max(1);
        let is_durable = |kept: &Kept| {
            let mut lacking = kept.lacking.iter();
            !kept.unread && lacking.all(|(of, serial)| serial.number() < next(of))
        };
        if count <= share(nodes) && sum <= share(octets) {
            return Vec::new();
        }
        let oldest = rows.iter().map(|row| {
            let durable = row.nodes.iter().filter(|(_, kept)| is_durable(kept));
            durable.take(CLUSTER_FORGOTTEN)
        });
        let mut oldest: Vec<(&(i64, String), &Kept)> = oldest.flatten().collect();
        oldest.sort_by_key(|(place, _)| *place);
        let mut going = Vec::new();
        for ((_, name), kept) in oldest.into_iter().take(CLUSTER_FORGOTTEN) {
            if count <= share(nodes) && sum <= share(octets) {
                break;
            }
            going.push(name.clone());
            (count, sum) = (count - 1, sum - kept.octets);
        }
        going
    }

    /// Those that hold what comes next in our own logs by now: some of them.
    pub(super) fn of_use(&self, next: &dyn Fn(&Channel) -> u32) -> Vec<String> {
        let nodes = self.rows.values().flat_map(|row| &row.nodes);
        let mut lacking: Vec<_> = nodes.filter(|(_, kept)| !kept.lacking.is_empty()).collect();
        lacking.sort_by_key(|(place, _)| *place);
        let mut nexts: HashMap<&Channel, u32> = HashMap::new();
        let mut all = Vec::new();
        for ((_, name), kept) in lacking {
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
            if all.len() >= CLUSTER_LOOK {
                break;
            }
        }
        all
    }
}

/// How many nodes the tree keeps, and octets in them.
pub(super) const BOUND: (usize, usize) = (CLUSTER_KEPT_NODES, CLUSTER_KEPT_OCTETS);
