//! The logs as sessions and watches read them: marks in memory, newest statements rendered, the
//! rest in the store.

mod channel;
mod entry;

pub(crate) use channel::Log;
pub(crate) use entry::Entry;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use channel::{State, Tails};
use tidings_protocol::{
    Channel, Serial,
    log::{self, Span, Unreadable},
    trust::{Settled, Trust},
};
use tokio::sync::watch;

use crate::{
    limits::PAGE_LOGS,
    log::{
        append::AppendError,
        namespaces::Namespaces,
        store::{Marks, Store, StoreError},
    },
};

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
            let beats = trust.rules().checkpoints.iter();
            let beats = beats.filter(|line| line.channel.is_beat());
            let beats = beats.map(|line| (&line.channel, line.head));
            for (channel, head) in trust.checkpoints().chain(beats) {
                let log = self.get(channel.as_str());
                let Some(log) = log.filter(|log| head.serial < log.marks().low) else {
                    continue;
                };
                let there = self.store.get(channel, head.serial)?;
                if there.is_some_and(|record| record.statement.head() == head) {
                    log.set_kept(Some(head));
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
