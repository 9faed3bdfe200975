//! The log as it is written: one batch, one write, one sync; the next segment is made ahead, and
//! the oldest goes when most of it is dead.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    Batch, Limits, StoreError,
    batch::{BatchHead, Change, HEAD_OCTETS, WITNESS, WITNESS_OCTETS, seal_value},
    failed,
    files::{Disk, File},
    index::{Index, Segment},
    recovery::Found,
    segment::{DIRECTORY, SEAL_OCTETS, Summary, apply, index_name, live, log_name},
};

/// Octets that a segment has beyond its limit: for what ends it, and for what a start adds.
pub(super) const SLACK_OCTETS: u32 = 2 * (WITNESS_OCTETS + SEAL_OCTETS);

/// With so many segments it is worth its while to save more of the oldest, which may count for ever
/// and keep what is dead behind it.
const MANY_SEGMENTS: u64 = 4;

pub(super) struct Log {
    disk: Arc<dyn Disk>,
    limits: Limits,
    number: u32,
    file: Arc<dyn File>,
    end: u32,
    oldest: u32,
    /// The `before` of the first batch of this segment, and of the next batch.
    first: u64,
    before: u64,
    /// The next segment; none if there is no room for it.
    ahead: Option<Arc<dyn File>>,
    /// What was removed in this segment, as its index file will say it.
    removals: Vec<u8>,
    /// What is still to be saved from the oldest segment, the last first.
    saved: Option<Vec<(Box<str>, u32)>>,
    has_failed: bool,
    is_witnessed: bool,
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl Log {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        limits: Limits,
        found: &Found,
        file: Arc<dyn File>,
    ) -> Result<Self, StoreError> {
        let mut log = Self {
            disk,
            limits,
            number: found.number,
            file,
            end: found.last.end,
            oldest: found.oldest,
            first: found.first,
            before: found.before,
            ahead: None,
            removals: found.removals.clone(),
            saved: None,
            has_failed: false,
            is_witnessed: true,
        };
        log.make_ahead()?;
        Ok(log)
    }

    /// Octets that are missing on the disk for more statements; none if there is room.
    pub(super) fn missing(&mut self) -> Result<Option<u64>, StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        if self.ahead.is_none() {
            self.make_ahead()?;
        }
        let needed = u64::from(self.limits.segment + SLACK_OCTETS);
        Ok(self
            .ahead
            .is_none()
            .then(|| needed.saturating_sub(self.disk.free().unwrap_or(0)).max(1)))
    }

    /// Makes the next segment; a full disk is no failure here.
    fn make_ahead(&mut self) -> Result<(), StoreError> {
        let name = log_name(self.number + 1);
        let make = || {
            let file = self.disk.create(&name)?;
            file.reserve((self.limits.segment + SLACK_OCTETS).into())?;
            file.sync()?;
            self.disk.sync_directory(DIRECTORY)?;
            Ok(file)
        };
        match make() {
            Ok(file) => self.ahead = Some(file),
            Err(error) if is_full(&error) => {
                // It may not have come to be; what is left of it would keep the room that is
                // missing.
                let _ = self.disk.remove(&name);
            }
            Err(error) => return Err(self.fail(&name, error)),
        }
        Ok(())
    }

    /// What the disk refused is not tried again: what is in the system's memory then is not what is
    /// on the disk.
    fn fail(&mut self, name: &str, error: io::Error) -> StoreError {
        self.has_failed = true;
        failed(&*self.disk, name)(error)
    }

    pub(super) fn commit(
        &mut self,
        index: &RwLock<Index>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        self.write(index, batch, self.oldest)?;
        self.trim(index)
    }

    /// Makes a batch durable, and then known; it says which segment is the oldest from here on.
    fn write(
        &mut self,
        index: &RwLock<Index>,
        batch: &mut Batch,
        oldest: u32,
    ) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        let table = batch.table(&index.read().unwrap_or_else(PoisonError::into_inner));
        let octets = HEAD_OCTETS as usize + table.len() + batch.values.len();
        let octets = u32::try_from(octets)
            .ok()
            .filter(|octets| *octets < u32::MAX - self.limits.segment - SLACK_OCTETS);
        let octets = octets.ok_or(StoreError::Large)?;
        if self.end > 0
            && self.end.saturating_add(octets).saturating_add(SEAL_OCTETS) > self.limits.segment
        {
            self.begin_next(index)?;
        }
        self.oldest = oldest;
        let values = self.put(&table, batch)?;
        let index = &mut index.write().unwrap_or_else(PoisonError::into_inner);
        apply(&table, values, self.number, index, &mut self.removals);
        if let Some(segment) = index.segments.get_mut(&self.number) {
            segment.used = self.end.into();
        }
        Ok(())
    }

    /// Writes and syncs; gives where the statements begin.
    fn put(&mut self, table: &[u8], batch: &mut Batch) -> Result<u32, StoreError> {
        let (number, begin) = (self.number, self.end);
        let length = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX);
        let values = begin + HEAD_OCTETS + length(table.len());
        for range in &batch.ranges {
            seal_value(
                number,
                values + length(range.start),
                &mut batch.values[range.clone()],
            );
        }
        let mut octets =
            Vec::with_capacity(HEAD_OCTETS as usize + table.len() + batch.values.len());
        let own = BatchHead::write(
            self.oldest,
            self.before,
            (number, begin),
            table,
            length(batch.values.len()),
            &mut octets,
        );
        octets.extend_from_slice(&batch.values);
        self.append(&octets, own)?;
        self.is_witnessed = false;
        Ok(values)
    }

    fn append(&mut self, octets: &[u8], own: u64) -> Result<(), StoreError> {
        let written = self
            .file
            .write_at(self.end.into(), octets)
            .and_then(|()| self.file.sync());
        written.map_err(|error| self.fail(&log_name(self.number), error))?;
        self.end += u32::try_from(octets.len()).unwrap_or(u32::MAX);
        self.before = own;
        Ok(())
    }

    /// Ends this segment, and goes on in the one that was made ahead.
    fn begin_next(&mut self, index: &RwLock<Index>) -> Result<(), StoreError> {
        if let Some(missing) = self.missing()? {
            return Err(StoreError::Full { missing });
        }
        let Some(next) = self.ahead.take() else {
            return Err(StoreError::Failed);
        };
        let mut seal = Vec::new();
        Change::Seal.write(&mut seal);
        self.put(&seal, &mut Batch::default())?;
        let summary = Summary {
            used: self.end,
            oldest: self.oldest,
            first: self.first,
            last: self.before,
            table: &self.removals,
        };
        let name = index_name(self.number);
        {
            let index = &mut *index.write().unwrap_or_else(PoisonError::into_inner);
            let octets = summary.write(self.number, index);
            if let Err(error) = self
                .disk
                .create(&name)
                .and_then(|file| file.write_at(0, &octets))
            {
                tracing::warn!(file = %self.disk.path(&name).display(), %error, "an index file cannot be written; the next start takes longer");
            }
            if let Some(segment) = index.segments.get_mut(&self.number) {
                segment.used = self.end.into();
            }
            index.segments.insert(
                self.number + 1,
                Segment {
                    file: next.clone(),
                    used: 0,
                    live: 0,
                },
            );
        }
        self.removals.clear();
        (self.number, self.file, self.end, self.first) = (self.number + 1, next, 0, self.before);
        self.make_ahead()
    }

    /// Has something whole follow the last batch, so that damage to it is known as damage.
    pub(super) fn bear_witness(&mut self) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        if self.is_witnessed || self.end + WITNESS_OCTETS > self.limits.segment {
            return Ok(());
        }
        // Each is synced for itself: of two in one write, the second alone may be whole after a
        // loss of power.
        for table in WITNESS {
            let mut octets = Vec::new();
            let own = BatchHead::write(
                self.oldest,
                self.before,
                (self.number, self.end),
                table,
                0,
                &mut octets,
            );
            self.append(&octets, own)?;
        }
        self.is_witnessed = true;
        Ok(())
    }

    /// Whether it is time for the oldest segment to go: most of it is dead, or most of everything,
    /// or the disk is full.
    fn is_due(&self, index: &Index) -> bool {
        let Some(oldest) = index
            .segments
            .get(&self.oldest)
            .filter(|_| self.oldest < self.number)
        else {
            return false;
        };
        let sealed = index
            .segments
            .range(..self.number)
            .map(|(_, segment)| (1, segment.used, segment.live));
        let (count, used, live) = sealed.fold((0, 0, 0), |all, one| {
            (all.0 + one.0, all.1 + one.1, all.2 + one.2)
        });
        let dead = used.saturating_sub(live);
        let fits = self.ahead.is_some()
            || oldest.live < u64::from(self.limits.segment.saturating_sub(self.end));
        // What still counts is written once more: it pays to wait until it is little.
        let is_mostly_dead =
            oldest.live * 8 <= oldest.used || count >= MANY_SEGMENTS && dead * 3 >= used * 2;
        fits && (is_mostly_dead
            || self.ahead.is_none() && dead >= oldest.live + u64::from(self.limits.segment))
    }

    /// Saves some of what counts in the oldest segment, or all if the disk is full; then the
    /// segment goes.
    fn trim(&mut self, index: &RwLock<Index>) -> Result<(), StoreError> {
        loop {
            let locked = index.read().unwrap_or_else(PoisonError::into_inner);
            if self.saved.is_none() {
                if !self.is_due(&locked) {
                    return Ok(());
                }
                self.saved = Some(
                    live(&locked, self.oldest)
                        .into_iter()
                        .rev()
                        .map(|(channel, serial, _)| (channel, serial))
                        .collect(),
                );
            }
            let mut batch = self.save_some(&locked);
            let is_last = self.saved.as_ref().is_some_and(Vec::is_empty);
            if is_last {
                batch.save_marks(&locked, self.oldest);
            }
            drop(locked);
            match self.write(index, &mut batch, self.oldest + u32::from(is_last)) {
                Ok(()) if is_last => self.remove_oldest(index)?,
                Ok(()) => {}
                Err(error) => {
                    self.saved = None;
                    return if matches!(error, StoreError::Full { .. }) {
                        Ok(())
                    } else {
                        Err(error)
                    };
                }
            }
            if self.ahead.is_some() {
                return Ok(());
            }
            self.missing()?;
        }
    }

    fn save_some(&mut self, index: &Index) -> Batch {
        let mut batch = Batch::default();
        while let Some((channel, serial)) = self
            .saved
            .as_mut()
            .filter(|_| batch.values.len() < self.limits.slice)
            .and_then(Vec::pop)
        {
            let place = index
                .place(&channel, serial)
                .filter(|place| place.segment == self.oldest);
            if let Some(place) = place {
                batch.save(&channel, serial, super::read_value(index, place).as_deref());
            }
        }
        batch
    }

    fn remove_oldest(&mut self, index: &RwLock<Index>) -> Result<(), StoreError> {
        self.saved = None;
        let gone = self.oldest - 1;
        index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .segments
            .remove(&gone);
        // It may have none.
        let _ = self.disk.remove(&index_name(gone));
        let name = log_name(gone);
        self.disk
            .remove(&name)
            .map_err(|error| self.fail(&name, error))
    }
}
