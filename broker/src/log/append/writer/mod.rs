//! The writer: takes requests, offers them to the logs, commits many at once, shows what is
//! durable, answers.

mod commit;
mod offer;

pub(super) use offer::{Refusal, explain};

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidings_protocol::{
    Channel, Namespace, Timestamp, Wildmat,
    log::{self, Backfill, Span},
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    AppendError, Request,
    pending::{Draft, Pending},
    window::Window,
};
use crate::{
    admin::counts::Counts,
    clock,
    config::{Quota, Retention},
    failure::{OnFailure, Sentinel},
    limits::APPEND_BATCH,
    log::{
        forks::Forks,
        live::LiveBeats,
        logs::{Log, Logs},
        namespaces::Namespaces,
        store::Store,
    },
    relay::watch::Watches,
};

/// What the writer works with.
pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) logs: Arc<Logs>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) retention: Vec<Retention>,
    pub(crate) forks: Forks,
    pub(crate) quota: Quota,
    /// For how long a log that a feed has begun in the middle waits for what lies below.
    pub(crate) gap_patience: Duration,
    /// For how long a channel is kept that is closed for good.
    pub(crate) closed_kept: Duration,
    /// What is copied from other brokers, and never begun here.
    pub(crate) mirrored: Option<Wildmat>,
    /// Whether others are one origin with this broker: what is missing they have, even if they are
    /// away.
    pub(crate) clustered: bool,
    pub(crate) counts: Arc<Counts>,
    /// Called once when the store has failed for good.
    pub(crate) on_failure: OnFailure,
    pub(crate) state: State,
}

/// What the writer knows that nobody else sees.
#[derive(Default)]
pub(crate) struct State {
    /// What is stored above gaps, and since when it has not grown.
    pub(super) backfills: BTreeMap<Channel, (Backfill, Instant)>,
    pub(super) window: Window,
    pub(super) live: LiveBeats,
    /// Logs that retention has still to look at.
    pub(super) to_sweep: VecDeque<Arc<Log>>,
    /// Channels of each namespace.
    channels: HashMap<Namespace, usize>,
}

impl Writer {
    /// Takes up what an earlier life has left.
    pub(super) fn take_up(&mut self) {
        let known = self.store.backfills().unwrap_or_else(|error| {
            tracing::error!(%error, "what was being filled in is begun anew");
            Vec::new()
        });
        for (channel, top, lowest) in known {
            let read = |serial| {
                self.store
                    .get(&channel, serial)
                    .ok()
                    .flatten()
                    .map(|record| record.statement)
            };
            let Some((top, lowest)) = read(top).zip(read(lowest)) else {
                continue;
            };
            self.logs
                .set_backfill(&channel, Some((lowest.serial(), top.serial())));
            self.state.backfills.insert(
                channel,
                (Backfill::stored(top.head(), &lowest), Instant::now()),
            );
        }
        for log in self.logs.all() {
            if let Some(provisioned) = self.namespaces.of(&log.channel) {
                *self
                    .state
                    .channels
                    .entry(provisioned.anchor.namespace.clone())
                    .or_default() += 1;
            }
        }
    }

    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let _sentinel = Sentinel(self.on_failure.clone());
        loop {
            // Retention has its turns between the batches of others.
            let first = match self.state.to_sweep.is_empty() {
                true => requests.blocking_recv().map(Some),
                false => match requests.try_recv() {
                    Ok(request) => Some(Some(request)),
                    Err(mpsc::error::TryRecvError::Empty) => Some(None),
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                },
            };
            let Some(first) = first else { return };
            self.turn(first, &mut requests);
        }
    }

    /// Answers what has come, with one commit.
    pub(super) fn turn(&mut self, first: Option<Request>, requests: &mut mpsc::Receiver<Request>) {
        let now = clock::now();
        let mut pending = Pending::default();
        let full = if first.is_some() {
            self.missing_octets()
        } else {
            None
        };
        let mut request = first;
        while let Some(next) = request {
            self.answer(&mut pending, now, next, full);
            request = if pending.inserted.len() < APPEND_BATCH {
                requests.try_recv().ok()
            } else {
                None
            };
        }
        self.commit(pending, now);
        self.sweep_some(now);
    }

    pub(super) fn answer(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        request: Request,
        full: Option<u64>,
    ) {
        let Some(request) = refuse_where_full(request, full) else {
            return;
        };
        match request {
            Request::Statements(all) => {
                for (copy, reply) in all {
                    let channel = copy.statement().channel().clone();
                    let answer = self.append(pending, now, &channel, copy);
                    pending.answers.push((reply, answer));
                    self.drain(pending, now, &channel);
                }
            }
            Request::Trust { run, posted, reply } => {
                let channel = run
                    .first()
                    .map(|(statement, _)| statement.channel().clone());
                self.take_trust(pending, now, run, posted, |pending, answer| {
                    pending.answers.push((reply, answer))
                });
                if let Some(channel) = channel {
                    self.drain_trust(pending, now, &channel);
                }
            }
            Request::Judge { statement, reply } => {
                // What is under way is settled first, so that the answer speaks of what is durable.
                self.commit(std::mem::take(pending), now);
                drop(reply.send(self.judge(now, statement)));
            }
            Request::Copies { run, reply } => {
                let channel = run.channel.clone();
                let answer = self.take_copies(pending, now, run);
                pending.copied.push((reply, answer));
                self.drain(pending, now, &channel);
            }
            Request::Feed { copy, peer, reply } => {
                let channel = copy.statement().channel();
                if self.namespaces.of_trust_log(channel).is_some() {
                    self.feed_trust(pending, now, copy, peer, reply);
                } else {
                    self.take_from_peer(pending, now, copy, peer, reply);
                }
            }
            Request::Stalled(peer) => self.resolve_stalled(pending, now, peer),
            Request::GiveUp(channel) => {
                if let Some(step) = self.draft(pending, &channel).log.give_up() {
                    pending.take(&channel, step, now, |_| String::new());
                }
            }
            Request::Sweep => {
                self.begin_sweep(pending, now);
            }
        }
    }

    /// Octets that are missing on the disk for new statements.
    fn missing_octets(&self) -> Option<u64> {
        let missing = self.store.missing_octets().unwrap_or_else(|error| {
            self.fail(&error);
            None
        });
        if let Some(missing) = missing {
            tracing::error!(
                missing,
                "the disk is full: publishing is refused until there is room"
            );
        }
        missing
    }

    pub(super) fn is_mirrored(&self, channel: &Channel) -> bool {
        self.mirrored
            .as_ref()
            .is_some_and(|mirrored| mirrored.matches(channel.as_str()))
    }

    /// The log of a channel as it will be after the commit.
    pub(super) fn draft<'a>(&self, pending: &'a mut Pending, channel: &Channel) -> &'a mut Draft {
        pending.draft(channel, || {
            let log = self.logs.get(channel.as_str());
            let span = log.as_ref().map(|log| log.marks()).map(|marks| Span {
                low: marks.low,
                head: marks.head,
            });
            let kept = log.as_ref().and_then(|log| log.kept());
            let backfill = self
                .state
                .backfills
                .get(channel)
                .map(|(backfill, _)| *backfill);
            log::Log::stored(channel.clone(), span, backfill, kept)
        })
    }
}

/// Nothing is taken in where the disk has no room.
fn refuse_where_full(request: Request, full: Option<u64>) -> Option<Request> {
    let Some(missing) = full else {
        return Some(request);
    };
    match request {
        Request::Statements(all) => {
            for (_, reply) in all {
                drop(reply.send(Err(AppendError::DiskFull(missing))));
            }
        }
        Request::Trust { reply, .. } | Request::Feed { reply, .. } => {
            drop(reply.send(Err(AppendError::DiskFull(missing))));
        }
        Request::Copies { reply, .. } => drop(reply.send(Err(AppendError::DiskFull(missing)))),
        other => return Some(other),
    }
    None
}
