//! From a directory to an index: what is there is read, and what is not whole is named.
//!
//! *Torn* is the last batch of the last segment, if it is not whole and nothing whole follows it:
//! nobody was answered for it, and it is left out. Everything else that is not as it was written is
//! damage, and nothing that is missing is made anew.

use std::{collections::BTreeSet, io, sync::Arc};

use super::{
    Damage, StoreError,
    batch::{BatchHead, HEAD_OCTETS, WITNESS},
    failed,
    files::{Disk, File},
    index::{Index, Segment},
    segment::{DIRECTORY, SEAL_OCTETS, Scan, Summary, apply, index_name, log_name, scan},
};

/// What was found.
pub(super) struct Found {
    pub(super) index: Index,
    /// The segment that is being written.
    pub(super) number: u32,
    pub(super) oldest: u32,
    pub(super) last: Scan,
    /// The `before` of its first batch, and of the next one.
    pub(super) first: u64,
    pub(super) before: u64,
    pub(super) removals: Vec<u8>,
    pub(super) damage: Vec<Damage>,
    pub(super) lost: Vec<Damage>,
    /// Octets behind the last batch.
    pub(super) torn: u64,
    /// Empty segments behind the one that was made ahead.
    pub(super) above: Vec<String>,
    /// Files that are not needed any more.
    pub(super) leftovers: Vec<String>,
    /// Index files that were not there.
    pub(super) indexes: Vec<(String, Vec<u8>)>,
}

/// The segments of a directory, and the index files.
struct Names {
    segments: BTreeSet<u32>,
    indexes: BTreeSet<u32>,
}

fn names(disk: &dyn Disk) -> Result<Names, StoreError> {
    let all = disk.list(DIRECTORY).map_err(failed(disk, DIRECTORY))?;
    let has = |name: &str| all.iter().any(|known| known == name);
    let path = || disk.path(DIRECTORY);
    if has("conf") && has("db") {
        return Err(StoreError::Older {
            path: path(),
            found: 1,
        });
    }
    if has("keyspaces") || has("0.jnl") {
        return Err(StoreError::Older {
            path: path(),
            found: 2,
        });
    }
    let mut names = Names {
        segments: BTreeSet::new(),
        indexes: BTreeSet::new(),
    };
    for name in &all {
        let number = name
            .get(..8)
            .filter(|number| number.bytes().all(|octet| octet.is_ascii_digit()))
            .and_then(|n| n.parse().ok());
        let added = match (number, name.get(8..)) {
            (Some(number), Some(".log")) => names.segments.insert(number),
            (Some(number), Some(".idx")) => names.indexes.insert(number),
            _ => false,
        };
        if !added {
            return Err(StoreError::Foreign(
                disk.path(&format!("{DIRECTORY}/{name}")),
            ));
        }
    }
    Ok(names)
}

fn read(disk: &dyn Disk, name: &str) -> Result<Vec<u8>, StoreError> {
    let read = || {
        let file = disk.open(name)?;
        let count = usize::try_from(file.octets()?)
            .ok()
            .filter(|count| u32::try_from(*count).is_ok());
        let mut octets =
            vec![0; count.ok_or_else(|| io::Error::other("it is larger than any segment"))?];
        file.read_at(0, &mut octets)?;
        Ok(octets)
    };
    read().map_err(failed(disk, name))
}

fn read_scan(disk: &dyn Disk, number: u32, may_be_torn: bool) -> Result<Scan, StoreError> {
    let octets = read(disk, &log_name(number))?;
    match octets[..] {
        // Everything else of the head may have another form there.
        [b'T', b'D', b'S', version, ..] if version > super::VERSION => Err(StoreError::Newer {
            path: disk.path(&log_name(number)),
            found: version.into(),
        }),
        _ => Ok(scan(number, octets, may_be_torn)),
    }
}

/// The index file of a segment, if it is whole and of this segment.
fn summary(disk: &dyn Disk, number: u32) -> Option<Vec<u8>> {
    let octets = read(disk, &index_name(number)).ok()?;
    let summary = Summary::read(number, &octets)?;
    let file = disk.open(&log_name(number)).ok()?;
    let begin = summary.used.checked_sub(SEAL_OCTETS)?;
    let mut seal = [0; HEAD_OCTETS as usize];
    file.read_at(begin.into(), &mut seal).ok()?;
    let head = BatchHead::read(number, begin, &seal)?;
    (file.octets().ok()? == u64::from(summary.used) && head.own == summary.last).then_some(octets)
}

/// Which segment is being written, and what is in it.
fn find_last(disk: &dyn Disk, names: &Names) -> Result<(u32, Scan), StoreError> {
    let missing = |number| StoreError::Missing(disk.path(&log_name(number)));
    let highest = *names.segments.last().ok_or_else(|| missing(1))?;
    // One is made ahead; one more may be empty, if the segment before has just ended.
    for number in (highest.saturating_sub(2).max(1)..=highest).rev() {
        if !names.segments.contains(&number) {
            return Err(missing(number));
        }
        let mut last = read_scan(disk, number, true)?;
        if last.is_sealed && number == highest {
            return Err(missing(highest + 1));
        }
        if last.is_sealed && number < highest && last.batches.len() > 1 {
            // Nothing was written behind its end, which may not be durable: it goes on.
            last.end = last.batches.pop().map_or(0, |(at, _)| at);
            last.octets.truncate(last.end as usize);
        }
        if !last.batches.is_empty() {
            return Ok((number, last));
        }
    }
    Err(missing(highest.saturating_sub(2).max(1)))
}

/// Reads a store. `by_index` says whether index files are believed: then segments that have one are
/// not read.
pub(super) fn recover(disk: &dyn Disk, by_index: bool) -> Result<Found, StoreError> {
    let names = names(disk)?;
    let (number, last) = find_last(disk, &names)?;
    let oldest = last.ends().map_or(1, |(_, head)| head.oldest);
    let mut found = Found {
        index: Index::default(),
        number,
        oldest,
        first: 0,
        before: 0,
        removals: Vec::new(),
        damage: Vec::new(),
        lost: Vec::new(),
        torn: 0,
        above: names
            .segments
            .range(number + 2..)
            .map(|number| log_name(*number))
            .collect(),
        leftovers: names
            .segments
            .range(..oldest)
            .map(|number| log_name(*number))
            .collect(),
        indexes: Vec::new(),
        last: Scan::default(),
    };
    found.leftovers.extend(
        names
            .indexes
            .iter()
            .filter(|known| **known < oldest || **known >= number)
            .map(|known| index_name(*known)),
    );
    let mut chain = None;
    for known in oldest..number {
        chain = read_sealed(disk, known, by_index, chain, &names, &mut found)?;
    }
    let length = last.octets.len() as u64;
    let (first, before) = last
        .ends()
        .map_or((None, None), |(first, head)| (Some(first), Some(head.own)));
    found.follow(number, chain, first);
    found.add(disk, number, last.end.into())?;
    found.removals = last.apply(number, &mut found.index);
    found.damage.extend_from_slice(&last.damage);
    found.lost.extend_from_slice(&last.lost);
    found.torn = length - u64::from(last.end);
    found.first = first.or(chain).unwrap_or(0);
    found.before = before.or(chain).unwrap_or(0);
    found.last = last;
    found.forget_what_was_mended();
    Ok(found)
}

/// Reads a segment that others follow; gives the checksum of its seal.
fn read_sealed(
    disk: &dyn Disk,
    number: u32,
    by_index: bool,
    chain: Option<u64>,
    names: &Names,
    found: &mut Found,
) -> Result<Option<u64>, StoreError> {
    if !names.segments.contains(&number) {
        found.damage.push(Damage::new(
            number,
            0,
            "this segment is missing, and the ones around it are there",
        ));
        return Ok(None);
    }
    let octets = summary(disk, number).filter(|_| by_index);
    if let Some(summary) = octets
        .as_deref()
        .and_then(|octets| Summary::read(number, octets))
    {
        found.follow(number, chain, Some(summary.first));
        found.add(disk, number, summary.used.into())?;
        apply(summary.table, 0, number, &mut found.index, &mut Vec::new());
        return Ok(Some(summary.last));
    }
    let scan = read_scan(disk, number, false)?;
    let (first, head) = scan
        .ends()
        .map_or((None, None), |(first, head)| (Some(first), Some(head)));
    found.follow(number, chain, first);
    if !scan.is_sealed {
        found.damage.push(Damage::new(
            number,
            scan.end,
            "this segment has no end, and another one follows it; was it copied while it was written?",
        ));
    }
    found.add(disk, number, scan.end.into())?;
    let removals = scan.apply(number, &mut found.index);
    if let Some((first, head)) = scan
        .ends()
        .filter(|_| by_index && scan.damage.is_empty() && scan.is_sealed)
    {
        let summary = Summary {
            used: scan.end,
            oldest: head.oldest,
            first,
            last: head.own,
            table: &removals,
        };
        found
            .indexes
            .push((index_name(number), summary.write(number, &found.index)));
    }
    found.damage.extend(scan.damage);
    found.lost.extend(scan.lost);
    Ok(head.map(|head| head.own))
}

impl Found {
    fn follow(&mut self, number: u32, chain: Option<u64>, first: Option<u64>) {
        if chain
            .zip(first)
            .is_some_and(|(chain, first)| chain != first)
        {
            self.damage.push(Damage::new(
                number,
                0,
                "this segment does not follow the one before",
            ));
        }
    }

    fn add(&mut self, disk: &dyn Disk, number: u32, used: u64) -> Result<(), StoreError> {
        let name = log_name(number);
        let file = disk.open(&name).map_err(failed(disk, &name))?;
        self.index.segments.insert(
            number,
            Segment {
                file,
                used,
                live: 0,
            },
        );
        Ok(())
    }

    /// What is damaged and was written anew since, or is gone since, is not missed.
    fn forget_what_was_mended(&mut self) {
        let index = &self.index;
        self.lost.retain(|lost| {
            let Some((channel, serial)) = &lost.statement else {
                return true;
            };
            let place = index.place(channel, *serial);
            place.is_some_and(|place| {
                place.segment == lost.segment
                    && (place.octets == 0 || u64::from(place.at) == lost.at)
            })
        });
    }
}

const NEW: &str = "store.new";

/// Takes a store away in which nothing ever was: whether its name is durable is not known, and to
/// ask once more proves nothing.
pub(super) fn discard_if_new(disk: &dyn Disk, found: &Found) -> io::Result<bool> {
    let is_new = found.number == 1 && found.torn == 0 && found.last.batches.len() <= WITNESS.len();
    if is_new {
        disk.rename(DIRECTORY, NEW)?;
    }
    Ok(is_new)
}

/// Makes a store where none is: whole, or not at all.
pub(super) fn create(disk: &dyn Disk, segment: u32) -> io::Result<()> {
    match disk.list(NEW) {
        Ok(names) => {
            // It may have had the other name: that goes first, whatever of this is lost.
            disk.sync_directory("")?;
            names
                .iter()
                .try_for_each(|name| disk.remove(&format!("{NEW}/{name}")))?;
            disk.remove_directory(NEW)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    disk.create_directory(NEW)?;
    let file = disk.create(&format!("{NEW}/00000001.log"))?;
    file.reserve(segment.into())?;
    let (mut octets, mut before) = (Vec::new(), 0);
    add_witness(&mut octets, 1, 1, &mut before);
    file.write_at(0, &octets)?;
    file.sync()?;
    disk.sync_directory(NEW)?;
    disk.rename(NEW, DIRECTORY)?;
    disk.sync_directory("")
}

fn add_witness(octets: &mut Vec<u8>, number: u32, oldest: u32, before: &mut u64) {
    for table in WITNESS {
        let at = u32::try_from(octets.len()).unwrap_or(u32::MAX);
        *before = BatchHead::write(oldest, *before, (number, at), table, 0, octets);
    }
}

/// Has everything on the disk that was read, since what an earlier process could not sync may be in
/// the system's memory alone: the last segment is written anew, with one batch more, so that
/// nothing whole is ever taken for torn later. Gives its file.
pub(super) fn write_anew(
    disk: &dyn Disk,
    found: &mut Found,
    segment: u32,
) -> io::Result<Arc<dyn File>> {
    let (name, next) = (log_name(found.number), log_name(found.number + 1));
    let octets = &mut found.last.octets;
    octets.truncate(found.last.end as usize);
    if found
        .last
        .batches
        .last()
        .is_none_or(|(_, head)| head.table > 0)
    {
        add_witness(octets, found.number, found.oldest, &mut found.before);
    }
    for name in &found.above {
        // Before the one below it takes another name, so that no number is missing between.
        disk.remove(name)?;
        disk.sync_directory(DIRECTORY)?;
    }
    let (file, is_new) = match disk.open(&next) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (disk.create(&next)?, true),
        file => (file?, false),
    };
    let fill = || {
        // The room of the segment that was made ahead is taken, so that a full disk is no
        // hindrance.
        file.write_at(0, octets)?;
        if file.octets()? > octets.len() as u64 {
            file.truncate(octets.len() as u64)?;
        }
        file.reserve(segment.into())?;
        file.sync()
    };
    if let Err(error) = fill() {
        if is_new {
            // Nothing is changed by a start that fails.
            let _ = disk.remove(&next);
        }
        return Err(error);
    }
    disk.rename(&next, &name)?;
    disk.sync_directory(DIRECTORY)?;
    found.last.end = u32::try_from(octets.len()).unwrap_or(u32::MAX);
    Ok(file)
}
