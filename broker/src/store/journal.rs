//! The journal of fjall 3.1, as far as it has to be known to open it after a loss of power.
//!
//! Every batch is synced before the next one is written, so only the last can be torn. If its end is on the disk and its middle is
//! not, fjall sees a wrong checksum and does not open. A wrong checksum anywhere else is damage, and nothing is done about it.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_64;

/// Before the items of a batch: a tag, how many there are, its number.
const HEAD_OCTETS: usize = 1 + 4 + 8;
/// After them: a tag, the checksum of the items, the trailer.
const END_OCTETS: usize = 1 + 8 + TRAILER.len();
const TRAILER: &[u8] = b"FJL\x03";

fn is_whole(batch: &[u8]) -> bool {
    let Some((items, end)) = batch.len().checked_sub(END_OCTETS).and_then(|at| batch.split_at_checked(at)) else { return false };
    let checksum = end.get(1..9).and_then(|octets| octets.try_into().ok()).map(u64::from_le_bytes);
    items.get(HEAD_OCTETS..).is_some_and(|items| Some(xxh3_64(items)) == checksum)
}

/// Where the last batch begins and ends, if it is the only one that is not whole.
fn torn(journal: &[u8]) -> Option<(usize, usize)> {
    let mut begin = 0;
    let mut ends = memchr::memmem::find_iter(journal, TRAILER).map(|at| at + TRAILER.len()).peekable();
    while let Some(end) = ends.next() {
        if !is_whole(&journal[begin..end]) {
            return ends.peek().is_none().then_some((begin, end));
        }
        begin = end;
    }
    None
}

/// Sets the last batch of the newest journal aside, if it alone is not whole; whether it did.
pub(super) fn cut_torn_batch(store: &Path) -> io::Result<bool> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(store)? {
        let journal = entry?.path();
        let is_journal = journal.extension().is_some_and(|extension| extension == "jnl");
        let number = journal.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).filter(|_| is_journal);
        newest = newest.max(number.map(|number| (number, journal)));
    }
    let Some((_, journal)) = newest else { return Ok(false) };
    let octets = fs::read(&journal)?;
    let Some((begin, end)) = torn(&octets) else { return Ok(false) };
    let mut aside = tempfile::Builder::new().prefix("store.torn-").tempfile_in(store.parent().unwrap_or(store))?;
    aside.write_all(&octets[begin..end])?;
    aside.as_file().sync_all()?;
    aside.keep()?;
    let file = fs::File::options().write(true).open(&journal)?;
    file.set_len(begin as u64)?;
    file.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Store, StoreError};
    use super::*;

    fn value(number: u8) -> Vec<u8> {
        vec![number; 2000]
    }

    /// A store with five batches, whose processes ended; one octet of one batch is not what was written.
    fn damaged(batch: usize) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), 1 << 20).unwrap();
        for number in 0..5 {
            let mut batch = Batch::default();
            batch.put(vec![b'z', number], value(number));
            store.commit(batch).unwrap();
        }
        drop(store);
        let journal = directory.path().join("store/0.jnl");
        let mut octets = fs::read(&journal).unwrap();
        let ends: Vec<usize> = memchr::memmem::find_iter(&octets, TRAILER).map(|at| at + TRAILER.len()).collect();
        // The first batch has the layout's version.
        octets[ends[batch + 1] - 1000] ^= 1;
        fs::write(&journal, &octets).unwrap();
        (directory, journal, octets)
    }

    #[test]
    fn a_torn_last_batch_is_set_aside_and_all_others_are_there() {
        let (directory, _, _) = damaged(4);
        let store = Store::open(directory.path(), 1 << 20).unwrap();
        for number in 0..5 {
            let found = store.all.get([b'z', number]).unwrap().map(|found| found.to_vec());
            assert_eq!(found, (number < 4).then(|| value(number)), "{number}");
        }
        let aside = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("store.torn-");
        assert_eq!(fs::read_dir(directory.path()).unwrap().flatten().filter(aside).count(), 1);
    }

    #[test]
    fn damage_to_what_was_acknowledged_changes_nothing() {
        let (directory, journal, octets) = damaged(2);
        for _ in 0..2 {
            assert!(matches!(Store::open(directory.path(), 1 << 20).map(drop), Err(StoreError::Engine(_))));
            assert!(fs::read(&journal).unwrap() == octets);
        }
        // A stray file is not damage either.
        let (directory, journal, octets) = damaged(2);
        fs::write(directory.path().join("store/0 copy.jnl"), "").unwrap();
        assert!(Store::open(directory.path(), 1 << 20).is_err());
        assert!(fs::read(&journal).unwrap() == octets);
    }

    #[test]
    fn a_store_that_was_never_finished_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("store")).unwrap();
        fs::write(directory.path().join("store/0.jnl"), "").unwrap();
        Store::open(directory.path(), 1 << 20).unwrap();
    }
}
