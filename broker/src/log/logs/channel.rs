//! The log of one channel: its marks, and its newest statements in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidings_protocol::{
    Channel, Head, MessageId, Serial, Statement, StatementId, Timestamp, Verified,
};

use super::entry::Entry;
use crate::{
    limits::{JOINED, TAIL_ENTRIES, TAIL_OCTETS, TAILS_OCTETS},
    log::store::{Marks, Record, Store, StoreError},
};

pub(super) struct State {
    pub(super) marks: Marks,
    /// The newest entries, without a gap, up to the head; empty until somebody asks.
    pub(super) tail: VecDeque<Arc<Entry>>,
    pub(super) octets: usize,
    /// Serials that became visible together, later than they came, and when.
    pub(super) joined: VecDeque<(Serial, Serial, Timestamp)>,
    /// The statement that a checkpoint names, where it is kept below the others.
    pub(super) kept: Option<Head>,
}

/// One channel.
pub(crate) struct Log {
    /// Its place in the table of logs, for as long as the broker runs.
    pub(crate) index: usize,
    pub(crate) channel: Channel,
    pub(super) state: RwLock<State>,
    pub(super) store: Store,
    pub(super) tails: Arc<Tails>,
}

/// What is kept in memory of all logs: whose turn it is to give something up.
#[derive(Default)]
pub(super) struct Tails {
    pub(super) octets: AtomicUsize,
    pub(super) order: Mutex<VecDeque<Weak<Log>>>,
}

impl Tails {
    /// Takes note of an entry; while there is too much, the logs give up their oldest ones in turn.
    fn note(&self, log: &Arc<Log>, octets: usize) {
        self.octets.fetch_add(octets, Ordering::Relaxed);
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(Arc::downgrade(log));
        while self.octets.load(Ordering::Relaxed) > TAILS_OCTETS {
            let Some(oldest) = order.pop_front() else {
                break;
            };
            let Some(log) = oldest.upgrade() else {
                continue;
            };
            let (given, more) = {
                let mut state = log.write();
                (state.pop(), !state.tail.is_empty())
            };
            self.release(given);
            if more {
                order.push_back(oldest);
            }
        }
    }
    fn release(&self, octets: usize) {
        self.octets.fetch_sub(octets, Ordering::Relaxed);
    }
}

impl Log {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn marks(&self) -> Marks {
        self.read().marks
    }
    pub(crate) fn message_id(&self, head: Head) -> MessageId {
        MessageId {
            channel: self.channel.clone(),
            serial: head.serial,
            id: head.id,
        }
    }

    /// Serial and id of a statement, without rendering it, and how many octets were read for that.
    pub(crate) fn head_at(&self, serial: Serial) -> Result<Option<(Head, usize)>, StoreError> {
        let (marks, kept) = {
            let state = self.read();
            (state.marks, state.kept)
        };
        if serial == marks.head.serial {
            return Ok(Some((marks.head, 0)));
        }
        if let Some(kept) = kept.filter(|kept| kept.serial == serial) {
            return Ok(Some((kept, 0)));
        }
        if serial < marks.low || serial > marks.head.serial {
            return Ok(None);
        }
        if let Some(entry) = self.cached(serial) {
            return Ok(Some((entry.head, 0)));
        }
        let record = self.store.get(&self.channel, serial)?;
        Ok(record.map(|record| (record.statement.head(), record.statement.octets().len())))
    }

    fn cached(&self, serial: Serial) -> Option<Arc<Entry>> {
        let state = self.read();
        let first = state.tail.front()?.head.serial.number();
        state
            .tail
            .get(serial.number().checked_sub(first)? as usize)
            .filter(|entry| entry.head.serial == serial)
            .cloned()
    }

    /// One statement; none below the low-water mark or above the head.
    pub(crate) fn entry(
        self: &Arc<Self>,
        serial: Serial,
    ) -> Result<Option<Arc<Entry>>, StoreError> {
        if let Some(entry) = self.cached(serial) {
            return Ok(Some(entry));
        }
        let (low, head, kept) = {
            let state = self.read();
            (
                state.marks.low,
                state.marks.head.serial,
                state.kept.map(|kept| kept.serial),
            )
        };
        if (serial < low || serial > head) && kept != Some(serial) {
            return Ok(None);
        }
        let Some(Record {
            statement, path, ..
        }) = self.store.get(&self.channel, serial)?
        else {
            return Ok(None);
        };
        let entry = Arc::new(Entry::new(&statement, &path));
        if serial == head {
            // Polls ask for the head: keep it.
            let keep = {
                let mut state = self.write();
                let keep = state.tail.is_empty() && state.marks.head == entry.head;
                if keep {
                    self.tails.release(state.push(entry.clone()));
                }
                keep
            };
            if keep {
                self.tails.note(self, entry.event.len());
            }
        }
        Ok(Some(entry))
    }

    /// Whether a statement is here, or its place has expired.
    pub(crate) fn is_settled(self: &Arc<Self>, serial: Serial, id: StatementId) -> bool {
        let marks = self.marks();
        serial < marks.low
            || self
                .head_at(serial)
                .is_ok_and(|there| there.is_some_and(|(head, _)| head.id == id))
    }

    /// Whether another statement than this one is in its place.
    pub(crate) fn contradicts(&self, head: Head) -> bool {
        let ours = self.marks().head;
        match ours.serial == head.serial {
            true => ours.id != head.id,
            false => self
                .head_at(head.serial)
                .is_ok_and(|there| there.is_some_and(|(ours, _)| ours != head)),
        }
    }

    /// Up to `most` events after a serial, oldest first; what has expired is passed over.
    pub(crate) fn events_after(
        self: &Arc<Self>,
        serial: u32,
        most: usize,
    ) -> Result<Vec<Arc<Entry>>, StoreError> {
        let marks = self.marks();
        let first = (serial + 1).max(marks.low.number());
        let serials = (first..=marks.head.serial.number()).filter_map(Serial::new);
        // What is damaged is asked for again, and passed over meanwhile.
        let read = |serial| match self.entry(serial) {
            Err(StoreError::Damaged(_)) => None,
            entry => entry.transpose(),
        };
        serials.filter_map(read).take(most).collect()
    }

    /// When a statement became visible, without rendering it: when it arrived, or when the gap
    /// below it was filled.
    pub(crate) fn arrived(&self, serial: Serial) -> Result<Option<Timestamp>, StoreError> {
        let joined = self
            .read()
            .joined
            .iter()
            .find(|(low, high, _)| (*low..=*high).contains(&serial))
            .map(|(.., at)| *at);
        Ok(self.store.arrived(&self.channel, serial)?.max(joined))
    }

    /// What is committed becomes visible.
    pub(crate) fn push(self: &Arc<Self>, statement: &Verified<Statement>, path: &str) {
        let entry = Arc::new(Entry::new(statement, path));
        let octets = entry.event.len();
        {
            let mut state = self.write();
            state.marks.head = entry.head;
            self.tails.release(state.push(entry));
        }
        self.tails.note(self, octets);
    }

    /// The statement that a checkpoint names, where it is kept below the others.
    pub(crate) fn kept(&self) -> Option<Head> {
        self.read().kept
    }
    /// Says which one is.
    pub(crate) fn set_kept(&self, kept: Option<Head>) {
        if self.kept() != kept {
            self.write().kept = kept;
        }
    }

    /// The log has changed otherwise than by single statements; `before`: what could be read until
    /// now.
    pub(crate) fn jump(&self, marks: Marks, before: Option<(Serial, Serial)>, now: Timestamp) {
        let mut state = self.write();
        let ranges = match before {
            Some((low, high)) if marks.low <= high => {
                let lower = (marks.low < low).then_some((marks.low, low));
                let upper = high
                    .next()
                    .filter(|next| *next <= marks.head.serial)
                    .map(|next| (next, marks.head.serial));
                [lower, upper]
            }
            _ => [Some((marks.low, marks.head.serial)), None],
        };
        state.joined.extend(
            ranges
                .into_iter()
                .flatten()
                .map(|(low, high)| (low, high, now)),
        );
        while state.joined.len() > JOINED {
            state.joined.pop_front();
        }
        let cut = state.marks.head != marks.head || marks.low < state.marks.low;
        state.marks = Marks {
            created: state.marks.created,
            ..marks
        };
        if cut {
            self.tails.release(state.clear());
        }
    }

    /// What is removed from the store becomes invisible.
    pub(crate) fn raise_low(&self, low: Serial) {
        let mut state = self.write();
        state.marks.low = low;
        while state.tail.front().is_some_and(|e| e.head.serial < low) {
            self.tails.release(state.pop());
        }
    }

    /// Forgets what nobody has needed for a while: all but the head.
    pub(crate) fn shorten_tail(&self) {
        let mut state = self.write();
        while state.tail.len() > 1 {
            self.tails.release(state.pop());
        }
        state.tail.shrink_to_fit();
    }
}

impl State {
    /// Takes an entry; octets that it has given up for it.
    fn push(&mut self, entry: Arc<Entry>) -> usize {
        let mut given = 0;
        // What does not follow the others is not beside them.
        if self
            .tail
            .back()
            .is_some_and(|last| last.head.serial.next() != Some(entry.head.serial))
        {
            given += self.clear();
        }
        self.octets += entry.event.len();
        self.tail.push_back(entry);
        while self.tail.len() > TAIL_ENTRIES || (self.tail.len() > 1 && self.octets > TAIL_OCTETS) {
            given += self.pop();
        }
        given
    }
    fn clear(&mut self) -> usize {
        self.tail.clear();
        std::mem::take(&mut self.octets)
    }
    fn pop(&mut self) -> usize {
        let octets = self.tail.pop_front().map_or(0, |entry| entry.event.len());
        self.octets -= octets;
        octets
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let octets = self.read().octets;
        self.tails.release(octets);
    }
}
