//! What one multi-operation holds: a pure function of what waits, and of what is known of the tree.

use std::collections::HashMap;

use tidings_protocol::{Channel, Head, Serial};

use super::nodes::Part;
use crate::limits::{CLUSTER_BATCH, CLUSTER_OP_OCTETS};

/// A head as the tree has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) head: Head,
    /// Of the node: what an append that follows this head checks.
    pub(super) version: i32,
    /// When it was set; 0 if the servers did not say.
    pub(super) zxid: i64,
}

/// A statement that waits.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) channel: Channel,
    pub(super) head: Head,
    /// What it follows; none if the channel begins with it.
    pub(super) after: Option<Head>,
    pub(super) octets: usize,
    /// The trust log and the serial in it by which it was verified; none if it is of a trust log,
    /// and was verified by what it follows.
    pub(super) by: Option<(Channel, Serial)>,
    /// The term in which this member has signed it, if it has.
    pub(super) term: Option<i32>,
}

/// A channel as it is known here.
pub(super) enum Known {
    /// Something of ours is under way in it.
    Busy,
    /// The tree has something else than we do.
    Behind,
    /// The tree has what is durable on our own disk.
    Same(Option<Seen>),
}

/// What is checked; what is settled is one node beside the heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// The term is still this one.
    Term(i32),
    /// The head of a trust log still has this version.
    Trust(Channel, i32),
}

/// A head that is set, if it still has the version of the one that it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) channel: Channel,
    pub(super) head: Head,
    /// None if the channel begins.
    pub(super) after: Option<i32>,
    /// The items that it settles, lowest serial first.
    pub(super) items: Vec<usize>,
}

impl Set {
    /// The version that the head has then.
    pub(super) fn version(&self) -> i32 {
        self.after.map_or(0, |after| after.wrapping_add(1))
    }
}

/// Why an item is not settled now, and is not to wait either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// This channel is not the same here as in the tree.
    Behind(Channel),
    /// It is not what comes next.
    NotNext,
}

/// What is settled at once. Items that are neither taken nor unfit wait for another batch.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) checks: Vec<Check>,
    pub(super) sets: Vec<Set>,
    pub(super) taken: Vec<usize>,
    pub(super) unfit: Vec<(usize, Unfit)>,
    /// About how many octets it is.
    pub(super) octets: usize,
}

impl Batch {
    /// Which operation this one of the multi-operation is.
    pub(super) fn part(&self, index: usize) -> Part {
        let (checks, sets) = (self.checks.len(), self.sets.len());
        match index {
            index if index < checks => Part::Check(index),
            index if index == checks => Part::Node,
            index if index <= checks + sets => Part::Set(index - checks - 1),
            index => Part::Going(index - checks - sets - 1),
        }
    }

    /// Whether an item cannot be settled because this operation failed.
    pub(super) fn stops(&self, part: Part, item: &Item) -> bool {
        match part {
            Part::Check(index) => match &self.checks[index] {
                Check::Term(_) => item.term.is_some(),
                Check::Trust(log, _) => item.by.as_ref().is_some_and(|(by, _)| by == log),
            },
            Part::Set(index) => self.sets[index].channel == item.channel,
            Part::Node => true,
            Part::Going(_) => false,
        }
    }

    /// The channels whose heads are set.
    pub(super) fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.sets.iter().map(|set| &set.channel)
    }
}

/// Takes what can be settled at once, of so many octets, channel by channel, in the order in which
/// they came.
///
/// A statement of a trust log is settled alone: what would follow it in the same batch was verified
/// by nobody.
pub(super) fn plan(items: &[&Item], known: &dyn Fn(&Channel) -> Known, octets: usize) -> Batch {
    let mut planner = Planner {
        items,
        known,
        octets,
        batch: Batch::default(),
        term: None,
    };
    for (channel, numbers) in by_channel(items) {
        let of_trust = numbers.iter().any(|number| items[*number].by.is_none());
        if of_trust && !planner.batch.taken.is_empty() {
            continue;
        }
        planner.add(channel, numbers);
        if of_trust && !planner.batch.taken.is_empty() {
            break;
        }
    }
    planner.batch
}

/// The items of each channel, lowest serial first; channels in the order in which they came.
fn by_channel<'a>(items: &[&'a Item]) -> Vec<(&'a Channel, Vec<usize>)> {
    let mut places: HashMap<&Channel, usize> = HashMap::new();
    let mut all: Vec<(&Channel, Vec<usize>)> = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let place = *places.entry(&item.channel).or_insert_with(|| {
            all.push((&item.channel, Vec::new()));
            all.len() - 1
        });
        all[place].1.push(number);
    }
    for (_, numbers) in &mut all {
        numbers.sort_by_key(|number| items[*number].head.serial);
    }
    all
}

struct Planner<'a> {
    items: &'a [&'a Item],
    known: &'a dyn Fn(&Channel) -> Known,
    octets: usize,
    batch: Batch,
    term: Option<i32>,
}

impl Planner<'_> {
    fn add(&mut self, channel: &Channel, numbers: Vec<usize>) {
        let seen = match (self.known)(channel) {
            Known::Busy => return,
            Known::Behind => {
                let unfit = |number| (number, Unfit::Behind(channel.clone()));
                return self.batch.unfit.extend(numbers.into_iter().map(unfit));
            }
            Known::Same(seen) => seen,
        };
        let mut tail = seen.map(|seen| seen.head);
        let (mut run, mut waits) = (Vec::new(), false);
        for number in numbers {
            let item = self.items[number];
            if item.after == tail && !waits {
                match self.admit(item, run.len()) {
                    Ok(true) => {
                        run.push(number);
                        tail = Some(item.head);
                    }
                    Ok(false) => waits = true,
                    Err(unfit) => self.batch.unfit.push((number, unfit)),
                }
            } else if !waits && !self.is_rival(item, &run) {
                self.batch.unfit.push((number, Unfit::NotNext));
            }
        }
        if let Some(head) = tail.filter(|_| !run.is_empty()) {
            self.batch.taken.extend(&run);
            self.batch.sets.push(Set {
                channel: channel.clone(),
                head,
                after: seen.map(|seen| seen.version),
                items: run,
            });
        }
    }

    /// Whether another one is taken in its place: what becomes of that is seen first.
    fn is_rival(&self, item: &Item, run: &[usize]) -> bool {
        run.iter()
            .any(|taken| self.items[*taken].head.serial == item.head.serial)
    }

    /// Whether there is room for an item, and what has verified it is in force.
    fn admit(&mut self, item: &Item, run: usize) -> Result<bool, Unfit> {
        if item.by.is_none() && run > 0 {
            return Err(Unfit::NotNext);
        }
        // Its part of the node, and of the head.
        let octets = item.octets + 2 * CLUSTER_OP_OCTETS;
        let count = self.batch.taken.len() + run;
        let is_full = count >= CLUSTER_BATCH || self.batch.octets + octets > self.octets;
        if count > 0 && is_full {
            return Ok(false);
        }
        if item.term.is_some() && self.term.is_some() && item.term != self.term {
            return Ok(false);
        }
        if let Some((log, serial)) = &item.by {
            let version = match (self.known)(log) {
                Known::Busy => return Ok(false),
                Known::Same(Some(seen)) if seen.head.serial == *serial => seen.version,
                _ => return Err(Unfit::Behind(log.clone())),
            };
            let check = Check::Trust(log.clone(), version);
            if !self.batch.checks.contains(&check) {
                self.batch.checks.push(check);
            }
        }
        if let Some(term) = item.term.filter(|_| self.term.is_none()) {
            self.term = Some(term);
            self.batch.checks.insert(0, Check::Term(term));
        }
        self.batch.octets += octets;
        Ok(true)
    }
}
