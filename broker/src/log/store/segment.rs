//! One segment, a file that only grows, and the index file beside it, which may be deleted at any
//! time.

use memchr::memmem;

use super::{
    Damage,
    batch::{
        BatchHead, Change, HEAD_OCTETS, MAGIC, Read, Write, checksum, is_whole_value, read_table,
        write_places,
    },
    index::{Index, Place},
};

/// Where the store lies in the data directory.
pub(super) const DIRECTORY: &str = "store";
/// The last batch of a segment that is full.
pub(super) const SEAL_OCTETS: u32 = HEAD_OCTETS + 1;
const INDEX_MAGIC: [u8; 4] = *b"TDX\x03";

pub(super) fn log_name(number: u32) -> String {
    format!("{DIRECTORY}/{number:08}.log")
}

pub(super) fn index_name(number: u32) -> String {
    format!("{DIRECTORY}/{number:08}.idx")
}

/// A segment that was read from its beginning to its end.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) octets: Vec<u8>,
    /// Where a batch begins, and its head.
    pub(super) batches: Vec<(u32, BatchHead)>,
    /// Behind the last batch.
    pub(super) end: u32,
    pub(super) is_sealed: bool,
    /// Statements that are damaged, and nothing else is.
    pub(super) lost: Vec<Damage>,
    /// What else is not as it was written.
    pub(super) damage: Vec<Damage>,
}

/// Whether head and table of a batch are whole, and where statements are that are not.
fn read_batch(number: u32, at: u32, octets: &[u8]) -> Option<(BatchHead, Vec<Damage>, bool)> {
    let batch = octets.get(at as usize..)?;
    let head = BatchHead::read(number, at, batch)?;
    let table = batch
        .get(..usize::try_from(head.octets()).ok()?)?
        .get(HEAD_OCTETS as usize..)?
        .get(..head.table as usize)?;
    let values = at + HEAD_OCTETS + head.table;
    if checksum(number, at, table) != head.table_checksum {
        return None;
    }
    let (mut lost, mut is_seal, mut end) = (Vec::new(), false, values);
    read_table(table, values, |change| match change {
        Change::Statement {
            channel,
            serial,
            at,
            octets: count,
        } => {
            end = at + count;
            if !octets
                .get(at as usize..end as usize)
                .is_some_and(|value| is_whole_value(number, at, value))
            {
                lost.push(Damage::statement(number, at, channel, serial));
            }
        }
        Change::Lost { channel, serial } => {
            lost.push(Damage::statement(number, at, channel, serial))
        }
        Change::Seal => is_seal = true,
        _ => {}
    })?;
    (end == values + head.values).then_some((head, lost, is_seal))
}

/// Where the next head lies, if there is one.
fn next_head(number: u32, octets: &[u8], from: u32) -> Option<u32> {
    let found = memmem::find_iter(octets.get(from as usize..)?, &MAGIC)
        .filter_map(|at| u32::try_from(at).ok()?.checked_add(from));
    found
        .into_iter()
        .find(|at| BatchHead::read(number, *at, &octets[*at as usize..]).is_some())
}

/// Reads a segment. If nothing was ever written behind it, its last batch may be torn: it ends
/// before that.
pub(super) fn scan(number: u32, octets: Vec<u8>, may_be_torn: bool) -> Scan {
    let mut scan = Scan {
        octets,
        ..Scan::default()
    };
    let length = u32::try_from(scan.octets.len()).unwrap_or(u32::MAX);
    let (mut at, mut before) = (0, None);
    while at < length {
        let read = read_batch(number, at, &scan.octets);
        let behind = read.as_ref().map_or(at + 1, |(head, ..)| {
            at + u32::try_from(head.octets()).unwrap_or(u32::MAX)
        });
        // A statement that was lost before this batch was written says nothing about the batch.
        let is_whole = read
            .as_ref()
            .is_some_and(|(_, lost, _)| lost.iter().all(|lost| lost.at == u64::from(at)));
        let next = if is_whole {
            Some(behind)
        } else {
            next_head(number, &scan.octets, at + 1)
        };
        // One batch is written at a time: octets behind the one that the head announces are those
        // of another.
        let announced = BatchHead::read(number, at, &scan.octets[at as usize..])
            .map_or(u64::MAX, |head| u64::from(at) + head.octets());
        if next.is_none() && may_be_torn && !scan.is_sealed && u64::from(length) <= announced {
            break;
        }
        match read {
            Some((head, lost, is_seal)) => {
                if before.is_some_and(|before| before != head.before) {
                    scan.damage.push(Damage::new(
                        number,
                        at,
                        "this batch does not follow the one before",
                    ));
                }
                scan.batches.push((at, head));
                scan.lost.extend(lost);
                scan.is_sealed = is_seal;
                (at, before, scan.end) = (behind, Some(head.own), behind);
            }
            None => {
                scan.damage
                    .push(Damage::new(number, at, "no whole batch begins here"));
                (at, before) = (next.unwrap_or(length), None);
                scan.end = at;
            }
        }
    }
    scan
}

impl Scan {
    /// The `before` of the first batch, and the last batch.
    pub(super) fn ends(&self) -> Option<(u64, BatchHead)> {
        Some((self.batches.first()?.1.before, self.batches.last()?.1))
    }

    /// Does what the tables say; gives the removals among it, which an index file needs.
    pub(super) fn apply(&self, number: u32, index: &mut Index) -> Vec<u8> {
        let mut removals = Vec::new();
        for (at, head) in &self.batches {
            let table = &self.octets[(at + HEAD_OCTETS) as usize..][..head.table as usize];
            apply(
                table,
                at + HEAD_OCTETS + head.table,
                number,
                index,
                &mut removals,
            );
        }
        removals
    }
}

/// Does what a table says, and notes its removals.
pub(super) fn apply(
    table: &[u8],
    values: u32,
    number: u32,
    index: &mut Index,
    removals: &mut Vec<u8>,
) {
    let _ = read_table(table, values, |change| {
        if matches!(
            change,
            Change::Remove { .. }
                | Change::Marks { marks: None, .. }
                | Change::Put { value: None, .. }
        ) {
            change.write(removals);
        }
        index.apply(number, &change);
    });
}

/// What an index file says of its segment.
pub(super) struct Summary<'a> {
    pub(super) used: u32,
    pub(super) oldest: u32,
    /// The `before` of its first batch.
    pub(super) first: u64,
    /// The checksum of its seal.
    pub(super) last: u64,
    pub(super) table: &'a [u8],
}

impl<'a> Summary<'a> {
    /// None if it is not whole; then the segment has to be read.
    pub(super) fn read(number: u32, octets: &'a [u8]) -> Option<Self> {
        let (octets, sum) = octets.split_last_chunk::<8>()?;
        let mut from = octets;
        let whole = checksum(number, u32::MAX, octets) == u64::from_le_bytes(*sum)
            && from.take()? == INDEX_MAGIC;
        whole.then_some(())?;
        Some(Self {
            used: from.number()?,
            oldest: from.number()?,
            first: from.wide()?,
            last: from.wide()?,
            table: from,
        })
    }

    /// Writes what the index knows of a segment when the next one begins: removals come first, then
    /// what is left.
    pub(super) fn write(&self, number: u32, index: &Index) -> Vec<u8> {
        let mut octets = INDEX_MAGIC.to_vec();
        octets.numbers(&[self.used, self.oldest]);
        octets.extend_from_slice(&self.first.to_le_bytes());
        octets.extend_from_slice(&self.last.to_le_bytes());
        octets.extend_from_slice(self.table);
        for (name, channel) in &index.channels {
            let here = || {
                channel
                    .statements()
                    .filter(|(_, place)| place.segment == number)
            };
            if let Some((marks, segment)) = channel.marks {
                match segment == number {
                    true => Change::Marks {
                        channel: name,
                        marks: Some(marks),
                    }
                    .write(&mut octets),
                    false if here().next().is_some() => Change::Head {
                        channel: name,
                        head: marks.head,
                    }
                    .write(&mut octets),
                    false => {}
                }
            }
            if here().next().is_some() {
                write_places(&mut octets, name, here());
            }
        }
        for (key, (value, _)) in index
            .values
            .iter()
            .filter(|(_, (_, segment))| *segment == number)
        {
            Change::Put {
                key,
                value: Some(value),
            }
            .write(&mut octets);
        }
        let sum = checksum(number, u32::MAX, &octets);
        octets.extend_from_slice(&sum.to_le_bytes());
        octets
    }
}

/// What a segment has that is needed beyond it.
pub(super) fn live(index: &Index, number: u32) -> Vec<(Box<str>, u32, Place)> {
    let all = index.channels.iter().flat_map(|(name, channel)| {
        channel
            .statements()
            .map(move |(serial, place)| (name, serial, place))
    });
    let mut live: Vec<_> = all
        .filter(|(.., place)| place.segment == number)
        .map(|(name, serial, place)| (name.clone(), serial, place))
        .collect();
    live.sort_unstable_by_key(|(.., place)| place.at);
    live
}
