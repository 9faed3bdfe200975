//! The logs as sessions and watches read them: marks in memory, newest statements rendered, the
//! rest in the store.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tidings_protocol::{
    Channel, Head, MessageId, Serial, Statement, StatementId, Timestamp, Verified, article,
    log::{self, Span, Unreadable},
    trust::{Settled, Trust},
};
use tokio::sync::watch;

use crate::{
    append::AppendError,
    limits::{JOINED, PAGE_LOGS, TAIL_ENTRIES, TAIL_OCTETS, TAILS_OCTETS},
    namespaces::Namespaces,
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
        let line = format!(
            "{} {} {}\r\n",
            statement.serial(),
            statement.message_id(),
            rendered.lines
        );
        let article = line.len();
        let body_lines = rendered.lines - article::HEADERS.len() - 1;
        let event = Bytes::from([line.into_bytes(), rendered.octets].concat());
        Self {
            head: statement.head(),
            event,
            article,
            blank: article + rendered.headers,
            body_lines,
        }
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
        self.header("Path")
            .is_some_and(|path| path.split('!').any(|hop| hop == name))
    }
    /// The value of one header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = std::str::from_utf8(self.headers()).ok()?;
        let mut lines = headers
            .split_terminator("\r\n")
            .filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

struct State {
    marks: Marks,
    /// The newest entries, without a gap, up to the head; empty until somebody asks.
    tail: VecDeque<Arc<Entry>>,
    octets: usize,
    /// Serials that became visible together, later than they came, and when.
    joined: VecDeque<(Serial, Serial, Timestamp)>,
    /// The statement that a checkpoint names, where it is kept below the others.
    kept: Option<Head>,
}

/// One channel.
pub(crate) struct Log {
    /// Its place in the table of logs, for as long as the broker runs.
    pub(crate) index: usize,
    pub(crate) channel: Channel,
    state: RwLock<State>,
    store: Store,
    tails: Arc<Tails>,
}

/// What is kept in memory of all logs: whose turn it is to give something up.
#[derive(Default)]
struct Tails {
    octets: AtomicUsize,
    order: Mutex<VecDeque<Weak<Log>>>,
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

/// All channels.
pub(crate) struct Logs {
    by_name: RwLock<BTreeMap<Channel, Arc<Log>>>,
    /// How many logs there ever were.
    begun: AtomicUsize,
    /// Changes whenever something became visible.
    news: watch::Sender<()>,
    store: Store,
    tails: Arc<Tails>,
    /// What is stored above gaps: lowest and highest serials.
    backfills: RwLock<HashMap<Channel, (Serial, Serial)>>,
}

impl Logs {
    pub(crate) fn open(store: Store) -> Result<Self, StoreError> {
        let logs = Self {
            by_name: RwLock::default(),
            begun: AtomicUsize::new(0),
            news: watch::Sender::new(()),
            store,
            tails: Arc::default(),
            backfills: RwLock::default(),
        };
        for (channel, marks) in logs.store.channels()? {
            logs.add(channel, marks);
        }
        Ok(logs)
    }

    /// Finds what checkpoints name below what is kept otherwise.
    pub(crate) fn take_up_kept(&self, namespaces: &Namespaces) -> Result<(), StoreError> {
        for trust in namespaces
            .all()
            .filter_map(|provisioned| provisioned.trust.load_full())
        {
            for named in &trust.rules().checkpoints {
                let log = self
                    .get(named.channel.as_str())
                    .filter(|log| named.head.serial < log.marks().low);
                let there = log
                    .map(|log| {
                        Ok::<_, StoreError>((
                            self.store.get(&named.channel, named.head.serial)?,
                            log,
                        ))
                    })
                    .transpose()?;
                if let Some((_, log)) = there.filter(|(record, _)| {
                    record
                        .as_ref()
                        .is_some_and(|record| record.statement.head() == named.head)
                }) {
                    log.set_kept(Some(named.head));
                }
            }
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Channel, Arc<Log>>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel that has its first statement.
    pub(crate) fn add(&self, channel: Channel, marks: Marks) -> Arc<Log> {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let state = RwLock::new(State {
            marks,
            tail: VecDeque::new(),
            octets: 0,
            joined: VecDeque::new(),
            kept: None,
        });
        let index = self.begun.fetch_add(1, Ordering::Relaxed);
        let (store, tails) = (self.store.clone(), self.tails.clone());
        let log = Arc::new(Log {
            index,
            channel: channel.clone(),
            state,
            store,
            tails,
        });
        by_name.insert(channel, log.clone());
        log
    }

    /// A log that is begun anew; whoever still reads it finds what it had.
    pub(crate) fn remove(&self, channel: &Channel) -> Option<Arc<Log>> {
        self.by_name
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(channel)
    }

    /// That no withdrawal of a release that stays is lost under the next trust statement.
    pub(crate) fn keep_withdrawals(
        &self,
        in_force: &Trust,
        next: &Trust,
        namespaces: &Namespaces,
    ) -> Result<(), AppendError> {
        for log in self.all() {
            let channel = &log.channel;
            let ours = namespaces
                .of(channel)
                .is_some_and(|provisioned| provisioned.anchor.namespace == *next.namespace());
            let narrows = || {
                next.rules()
                    .narrows(in_force.rules(), channel, next.namespace())
            };
            if !ours
                || channel.is_beat()
                || next.checkpoint(channel) == Settled::Nothing && !narrows()
            {
                continue;
            }
            let marks = log.marks();
            let pure = log::Log::stored(
                channel.clone(),
                Some(Span {
                    low: marks.low,
                    head: marks.head,
                }),
                None,
                None,
            );
            let stored = |serial| {
                self.store
                    .get(channel, serial)
                    .map(|record| record.map(|record| record.statement))
                    .map_err(|_| Unreadable)
            };
            match pure.would_lose(in_force, next, &stored) {
                Ok(None) => {}
                Ok(Some(withdrawal)) => {
                    return Err(AppendError::LosesWithdrawal(
                        channel.clone(),
                        withdrawal.serial,
                    ));
                }
                Err(Unreadable) => return Err(AppendError::Store),
            }
        }
        Ok(())
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

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Log>> {
        self.read().get(name).cloned()
    }

    /// Some channels in the order of their names, those after a name.
    pub(crate) fn page(&self, after: Option<&Channel>) -> Vec<Arc<Log>> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read()
            .range::<Channel, _>((begin, Bound::Unbounded))
            .take(PAGE_LOGS)
            .map(|(_, log)| log.clone())
            .collect()
    }

    /// The lowest and the highest serial of a channel's backfill.
    pub(crate) fn backfill(&self, channel: &Channel) -> Option<(Serial, Serial)> {
        self.backfills
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(channel)
            .copied()
    }
    /// Says what it is.
    pub(crate) fn set_backfill(&self, channel: &Channel, backfill: Option<(Serial, Serial)>) {
        let mut backfills = self
            .backfills
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match backfill {
            Some(backfill) => drop(backfills.insert(channel.clone(), backfill)),
            None => drop(backfills.remove(channel)),
        }
    }

    /// How many logs there ever were: what is begun from now on has at least this place.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// The logs that have begun since.
    pub(crate) fn begun_since(&self, begun: usize) -> Vec<Arc<Log>> {
        if self.begun() <= begun {
            return Vec::new();
        }
        self.read()
            .values()
            .filter(|log| log.index >= begun)
            .cloned()
            .collect()
    }

    /// Octets of statements that are kept in memory.
    pub(crate) fn tail_octets(&self) -> usize {
        self.tails.octets.load(Ordering::Relaxed)
    }

    /// Forgets those who have nothing to give up any more.
    pub(crate) fn tidy_tails(&self) {
        let mut order = self
            .tails
            .order
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut seen = std::collections::HashSet::new();
        order.retain(|log| {
            log.upgrade()
                .is_some_and(|log| !log.read().tail.is_empty() && seen.insert(log.index))
        });
    }

    /// All channels in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Log>> {
        self.read().values().cloned().collect()
    }
}
