//! The logs as sessions and watches read them: marks in memory, newest statements rendered, the rest in the store.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tidings_protocol::{Channel, Head, MessageId, Serial, Statement, StatementId, Timestamp, Verified, article};
use tokio::sync::watch;

use crate::{
    limits::{CHANNELS, JOINED, TAIL_ENTRIES, TAIL_OCTETS},
    store::{Marks, Record, Store, StoreError},
};

/// A statement as it goes over the wire, rendered once for everybody.
pub(crate) struct Entry {
    pub(crate) head: Head,
    /// The line that announces it to watches, then the article.
    event: Bytes,
    article: usize,
    blank: usize,
    body_lines: usize,
}

impl Entry {
    fn new(statement: &Statement, path: &str) -> Self {
        let rendered = article::render(statement, path);
        let line = format!("{} {} {}\r\n", statement.serial(), statement.message_id(), rendered.lines);
        let article = line.len();
        let body_lines = rendered.lines - article::HEADERS.len() - 1;
        let event = Bytes::from([line.into_bytes(), rendered.octets].concat());
        Self { head: statement.head(), event, article, blank: article + rendered.headers, body_lines }
    }
    /// What a watch sends.
    pub(crate) fn event(&self) -> &Bytes {
        &self.event
    }
    /// Headers, an empty line, the statement.
    pub(crate) fn article(&self) -> &[u8] {
        &self.event[self.article..]
    }
    /// The headers.
    pub(crate) fn headers(&self) -> &[u8] {
        &self.event[self.article..self.blank]
    }
    /// The statement.
    pub(crate) fn body(&self) -> &[u8] {
        &self.event[self.blank + 2..]
    }
    /// Lines of the statement.
    pub(crate) fn body_lines(&self) -> usize {
        self.body_lines
    }
    /// Whether `Path` says that it has passed a broker of this name; a hint, no more (attack 37).
    pub(crate) fn has_passed(&self, name: &str) -> bool {
        self.header("Path").is_some_and(|path| path.split('!').any(|hop| hop == name))
    }
    /// The value of one header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = std::str::from_utf8(self.headers()).ok()?;
        let mut lines = headers.split_terminator("\r\n").filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

struct State {
    marks: Marks,
    /// The newest entries, without a gap, up to the head; empty until somebody asks.
    tail: VecDeque<Arc<Entry>>,
    octets: usize,
    /// Serials that became visible together, later than they came, and when.
    joined: VecDeque<(Serial, Serial, Timestamp)>,
}

/// One channel.
pub(crate) struct Log {
    /// Its place in the table of logs, for as long as the broker runs.
    pub(crate) index: usize,
    pub(crate) channel: Channel,
    state: RwLock<State>,
    store: Store,
}

impl Log {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn marks(&self) -> Marks {
        self.read().marks
    }
    pub(crate) fn message_id(&self, head: Head) -> MessageId {
        MessageId { channel: self.channel.clone(), serial: head.serial, id: head.id }
    }

    /// One statement; none below the low-water mark or above the head.
    pub(crate) fn entry(&self, serial: Serial) -> Result<Option<Arc<Entry>>, StoreError> {
        let (low, head) = {
            let state = self.read();
            let first = state.tail.front().map(|e| e.head.serial.number());
            let place = first.and_then(|first| serial.number().checked_sub(first));
            if let Some(entry) = place.and_then(|place| state.tail.get(place as usize)) {
                return Ok(Some(entry.clone()));
            }
            (state.marks.low, state.marks.head.serial)
        };
        if serial < low || serial > head {
            return Ok(None);
        }
        let Some(Record { statement, path, .. }) = self.store.get(&self.channel, serial)? else { return Ok(None) };
        let entry = Arc::new(Entry::new(&statement, &path));
        if serial == head {
            // Polls ask for the head: keep it.
            let mut state = self.write();
            if state.tail.is_empty() && state.marks.head == entry.head {
                state.push(entry.clone());
            }
        }
        Ok(Some(entry))
    }

    /// Whether a statement is here, or its place has expired.
    pub(crate) fn is_settled(&self, serial: Serial, id: StatementId) -> bool {
        let marks = self.marks();
        serial < marks.low || self.entry(serial).is_ok_and(|entry| entry.is_some_and(|entry| entry.head.id == id))
    }

    /// Whether a checkpoint has decided for another branch than the one that is here.
    pub(crate) fn has_lost(&self, checkpoint: Head) -> bool {
        self.entry(checkpoint.serial).is_ok_and(|entry| entry.is_some_and(|entry| entry.head != checkpoint))
    }

    /// The statement with this message-id.
    pub(crate) fn find(&self, id: &MessageId) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.entry(id.serial)?.filter(|entry| entry.head.id == id.id))
    }

    /// Up to `most` events after a serial, oldest first; what has expired is passed over.
    pub(crate) fn events_after(&self, serial: u32, most: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
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

    /// When a statement became visible, without rendering it: when it arrived, or when the gap below it was filled.
    pub(crate) fn arrived(&self, serial: Serial) -> Result<Option<Timestamp>, StoreError> {
        let joined = self.read().joined.iter().find(|(low, high, _)| (*low..=*high).contains(&serial)).map(|(.., at)| *at);
        Ok(self.store.arrived(&self.channel, serial)?.max(joined))
    }

    /// What is committed becomes visible.
    pub(crate) fn push(&self, statement: &Verified<Statement>, path: &str) {
        let entry = Arc::new(Entry::new(statement, path));
        let mut state = self.write();
        state.marks.head = entry.head;
        state.push(entry);
    }

    /// The log has grown by more than one statement.
    pub(crate) fn jump(&self, marks: Marks, first: Serial, now: Timestamp) {
        let mut state = self.write();
        state.joined.push_back((first, marks.head.serial, now));
        if state.joined.len() > JOINED {
            state.joined.pop_front();
        }
        state.marks = Marks { created: state.marks.created, ..marks };
        state.tail.clear();
        state.octets = 0;
    }

    /// What is removed from the store becomes invisible.
    pub(crate) fn raise_low(&self, low: Serial) {
        let mut state = self.write();
        state.marks.low = low;
        while state.tail.front().is_some_and(|e| e.head.serial < low) {
            state.pop();
        }
    }

    /// Forgets what nobody has needed for a while: all but the head.
    pub(crate) fn shorten_tail(&self) {
        let mut state = self.write();
        while state.tail.len() > 1 {
            state.pop();
        }
        state.tail.shrink_to_fit();
    }
}

impl State {
    fn push(&mut self, entry: Arc<Entry>) {
        self.octets += entry.event.len();
        self.tail.push_back(entry);
        while self.tail.len() > TAIL_ENTRIES || (self.tail.len() > 1 && self.octets > TAIL_OCTETS) {
            self.pop();
        }
    }
    fn pop(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.octets -= entry.event.len();
        }
    }
}

/// All channels.
pub(crate) struct Logs {
    by_name: RwLock<BTreeMap<Channel, Arc<Log>>>,
    /// How many logs there ever were.
    begun: AtomicUsize,
    /// Changes whenever something became visible.
    news: watch::Sender<()>,
    store: Store,
}

impl Logs {
    pub(crate) fn open(store: Store) -> Result<Self, StoreError> {
        let logs = Self { by_name: RwLock::default(), begun: AtomicUsize::new(0), news: watch::Sender::new(()), store };
        for (channel, marks) in logs.store.channels()? {
            logs.add(channel, marks);
        }
        Ok(logs)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Channel, Arc<Log>>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel that has its first statement.
    pub(crate) fn add(&self, channel: Channel, marks: Marks) -> Arc<Log> {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let state = RwLock::new(State { marks, tail: VecDeque::new(), octets: 0, joined: VecDeque::new() });
        let log =
            Arc::new(Log { index: self.begun.fetch_add(1, Ordering::Relaxed), channel: channel.clone(), state, store: self.store.clone() });
        by_name.insert(channel, log.clone());
        log
    }

    /// A log that is begun anew; whoever still reads it finds what it had.
    pub(crate) fn remove(&self, channel: &Channel) -> Option<Arc<Log>> {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(channel)
    }

    /// Wakes those who wait for [`Logs::news`].
    pub(crate) fn tell(&self) {
        self.news.send_replace(());
    }

    /// Changes whenever something became visible in any channel.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    pub(crate) fn count(&self) -> usize {
        self.read().len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count() >= CHANNELS
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Log>> {
        self.read().get(name).cloned()
    }

    /// All channels in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Log>> {
        self.read().values().cloned().collect()
    }
}
