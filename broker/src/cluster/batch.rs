//! What one multi-operation holds: a pure function of what waits, and of what is known of the tree.
//!
//! What is checked comes first. An entry is created before the head that names it is set, so that
//! no reader sees a head without its entry.

use std::collections::HashMap;

use tidings_protocol::{Channel, Head, Serial};

use crate::limits::{
    CLUSTER_BATCH, CLUSTER_FORGOTTEN, CLUSTER_KEPT, CLUSTER_KEPT_ALL, CLUSTER_KEPT_ALONE,
    CLUSTER_KEPT_LEAST, CLUSTER_OP_OCTETS,
};

/// A head as the tree has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) head: Head,
    /// The lowest serial of which the tree has the entry; one above the head if it has none.
    pub(super) low: u32,
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

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// The term is still this one.
    Term(i32),
    /// The head of a trust log still has this version.
    Trust(Channel, i32),
    /// A channel begins.
    Begin(Channel),
    /// An entry, and which item it is.
    Entry(Channel, Serial, usize),
    /// The head, if it still has the version of the one that it follows.
    Head {
        channel: Channel,
        head: Head,
        low: u32,
        after: Option<i32>,
    },
    /// An entry goes.
    Forget(Channel, Serial),
}

impl Op {
    /// Whether an item cannot be settled because this operation failed.
    pub(super) fn stops(&self, item: &Item) -> bool {
        match self {
            Op::Term(_) => item.term.is_some(),
            Op::Trust(log, _) => item.by.as_ref().is_some_and(|(by, _)| by == log),
            op => op.channel() == Some(&item.channel),
        }
    }

    /// The channel that it is about.
    pub(super) fn channel(&self) -> Option<&Channel> {
        match self {
            Op::Term(_) => None,
            Op::Trust(channel, _)
            | Op::Begin(channel)
            | Op::Entry(channel, ..)
            | Op::Head { channel, .. }
            | Op::Forget(channel, _) => Some(channel),
        }
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
    pub(super) ops: Vec<Op>,
    pub(super) taken: Vec<usize>,
    pub(super) unfit: Vec<(usize, Unfit)>,
    /// About how many octets it is.
    pub(super) octets: usize,
}

/// How much a batch may hold.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) octets: usize,
    /// Entries of a channel that the tree keeps.
    pub(super) kept: u32,
}

/// How many entries of each channel the tree keeps: fewer if there are many channels, and more
/// while no other member is there that could have them.
pub(super) fn kept(channels: usize, members: usize) -> u32 {
    let most = if members > 1 {
        CLUSTER_KEPT
    } else {
        CLUSTER_KEPT_ALONE
    };
    let each = CLUSTER_KEPT_ALL / u32::try_from(channels.max(1)).unwrap_or(u32::MAX);
    each.clamp(CLUSTER_KEPT_LEAST, most)
}

/// Takes what can be settled at once, channel by channel, in the order in which they came.
///
/// A statement of a trust log is settled alone: what would follow it in the same batch was verified
/// by nobody.
pub(super) fn plan(items: &[&Item], known: &dyn Fn(&Channel) -> Known, room: Room) -> Batch {
    let mut planner = Planner {
        items,
        known,
        room,
        batch: Batch::default(),
        checks: Vec::new(),
        term: None,
        forgets: CLUSTER_FORGOTTEN,
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
    planner.batch.ops.splice(0..0, planner.checks);
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
    room: Room,
    batch: Batch,
    checks: Vec<Op>,
    term: Option<i32>,
    /// Entries that may still go.
    forgets: u32,
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
            self.write(channel, seen, head, run);
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
        // The entry, a part of the head, and one that is forgotten.
        let octets = item.octets + 3 * CLUSTER_OP_OCTETS;
        let (count, many) = (self.batch.taken.len() + run, CLUSTER_KEPT as usize);
        let is_full = count >= CLUSTER_BATCH || self.batch.octets + octets > self.room.octets;
        if (count > 0 && is_full) || run >= many {
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
            let check = Op::Trust(log.clone(), version);
            if !self.checks.contains(&check) {
                self.checks.push(check);
            }
        }
        if let Some(term) = item.term.filter(|_| self.term.is_none()) {
            self.term = Some(term);
            self.checks.insert(0, Op::Term(term));
        }
        self.batch.octets += octets;
        Ok(true)
    }

    fn write(&mut self, channel: &Channel, seen: Option<Seen>, head: Head, run: Vec<usize>) {
        let first = self.items[run[0]].head.serial;
        let mut low = lowest(seen, head, first, self.room.kept);
        if let Some(seen) = seen {
            low = low.min(seen.low.saturating_add(self.forgets));
            self.forgets -= low - seen.low;
        }
        let ops = &mut self.batch.ops;
        if seen.is_none() {
            ops.push(Op::Begin(channel.clone()));
        }
        for number in &run {
            let serial = self.items[*number].head.serial;
            ops.push(Op::Entry(channel.clone(), serial, *number));
        }
        ops.push(Op::Head {
            channel: channel.clone(),
            head,
            low,
            after: seen.map(|seen| seen.version),
        });
        let gone = seen.map_or(low, |seen| seen.low)..low;
        ops.extend(
            gone.filter_map(Serial::new)
                .map(|serial| Op::Forget(channel.clone(), serial)),
        );
        self.batch.taken.extend(run);
    }
}

/// The lowest serial whose entry the tree keeps when `head` is set, where `first` was next.
///
/// *An entry goes only if it is durable on the disk of the member that removes it*: that is what
/// was the head before.
fn lowest(seen: Option<Seen>, head: Head, first: Serial, kept: u32) -> u32 {
    let Some(seen) = seen else {
        return first.number();
    };
    let durable = seen.head.serial.number();
    (head.serial.number() + 1)
        .saturating_sub(kept)
        .min(durable + 1)
        // What was kept while there was one member alone goes in several steps.
        .min(seen.low.saturating_add(2 * CLUSTER_KEPT))
        .max(seen.low)
}
