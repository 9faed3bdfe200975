//! The writer: takes requests, offers them to the logs, commits many at once, shows what is
//! durable, answers.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidings_protocol::{
    Channel, Namespace, Serial, Statement, Timestamp, Verified, Wildmat,
    log::{self, Backfill, Begin, Judge, Offered, Refused, Span, Step},
    trust::Trust,
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Answer, AppendError, Appended, Copied, Copy, Request, Run,
    pending::{Draft, Pending},
    window::Window,
};
use crate::{
    clock,
    config::{Quota, Retention},
    counts::Counts,
    failure::{OnFailure, Sentinel},
    forks::Forks,
    limits::APPEND_BATCH,
    live::LiveBeats,
    logs::{Log, Logs},
    namespaces::{Namespaces, Provisioned},
    store::{Marks, Store, StoreError},
    watch::Watches,
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
    pub(super) backfills: HashMap<Channel, (Backfill, Instant)>,
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
            Request::Feed { copy, peer, reply }
                if self
                    .namespaces
                    .of_trust_log(copy.statement().channel())
                    .is_some() =>
            {
                self.feed_trust(pending, now, copy, peer, reply);
            }
            Request::Feed { copy, peer, reply } => {
                self.take_from_peer(pending, now, copy, peer, reply)
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

    /// Offers a run to its log, and takes what comes of it into the commit.
    pub(super) fn offer(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        channel: &Channel,
        run: Vec<Copy>,
        begin: Begin,
    ) -> Result<bool, Refusal> {
        let namespaces = self.namespaces.clone();
        let Some(provisioned) = namespaces.of(channel) else {
            return Err(AppendError::NoTrust(channel.clone()).into());
        };
        let trust = provisioned
            .trust
            .load_full()
            .ok_or_else(|| AppendError::NoTrust(channel.clone()))?;
        let live = if self.is_mirrored(channel) {
            self.state
                .live
                .named(&self.logs, &self.store, &trust, channel, now)
        } else {
            None
        };
        let judge = Judge {
            trust: &trust,
            live,
            until: provisioned.until(now),
        };
        let (mut paths, mut offered) =
            (Vec::with_capacity(run.len()), Vec::with_capacity(run.len()));
        for copy in run {
            paths.push((copy.statement().serial(), copy.path));
            // What another trust has verified is judged anew.
            offered.push(match copy.offered {
                Offered::Proven(statement) if copy.by != Some(trust.serial()) => {
                    Offered::Unproven(statement.into_inner())
                }
                offered => offered,
            });
        }
        let log = self.draft(pending, channel).log.clone();
        self.has_room(pending, &log, provisioned)?;
        let step = {
            let stored = |serial| pending.stored(&self.store, channel, serial);
            match channel.is_beat() {
                true => match offered.pop() {
                    Some(beat) => log.offer_beat(judge, beat),
                    None => return Ok(false),
                },
                false => log.offer(judge, offered, begin, &stored),
            }
        };
        let step = step.map_err(|refused| Refusal::Log(refused, now))?;
        let news = !step.is_nothing(&log);
        self.note_evidence(pending, channel, &step);
        if channel.is_beat() && news {
            self.note_beats(pending, now, provisioned, &trust, &step);
        }
        pending.take(channel, step, now, |serial| {
            paths
                .iter_mut()
                .find(|(known, _)| *known == serial)
                .map(|(_, path)| std::mem::take(path))
                .unwrap_or_default()
        });
        Ok(news)
    }

    /// Whether one channel more may begin.
    fn has_room(
        &self,
        pending: &Pending,
        log: &log::Log,
        provisioned: &Provisioned,
    ) -> Result<(), AppendError> {
        if log.span().is_some() || log.backfill().is_some() {
            return Ok(());
        }
        let begun = pending.drafts.values().filter(|draft| {
            draft.before.is_none() && !draft.has_backfill && draft.log.span().is_some()
        });
        let begun: Vec<&Draft> = begun.collect();
        if self.logs.count() + begun.len() >= crate::limits::CHANNELS {
            return Err(AppendError::Channels);
        }
        let namespace = &provisioned.anchor.namespace;
        let ours = begun
            .iter()
            .filter(|draft| self.namespaces.is_of(draft.log.channel(), namespace))
            .count();
        let there = self.state.channels.get(namespace).copied().unwrap_or(0);
        let reserved = log.channel().is_trust() || log.channel().is_beat();
        // All members store what their cluster has settled; the one that has settled it has asked
        // before.
        let settled = self.clustered && !pending.is_scratch && !self.is_mirrored(log.channel());
        match there + ours >= self.quota.channels && !(reserved || settled) {
            true => Err(AppendError::Quota(namespace.clone(), self.quota.channels)),
            false => Ok(()),
        }
    }

    /// Keeps what has lost, and the proof of forks.
    pub(super) fn note_evidence(&self, pending: &Pending, channel: &Channel, step: &Step) {
        if let Some(pair) = &step.evidence {
            self.forks
                .remember(self.namespaces.of(channel), &pair.0, &pair.1);
        }
        if let Some((from, to)) = step.filed {
            let serials = (from.number()..=to.number()).filter_map(Serial::new);
            let lost =
                serials.filter_map(|serial| pending.stored(&self.store, channel, serial).ok()?);
            self.forks.file(self.namespaces.of(channel), channel, lost);
        }
    }

    /// A beat that a checkpoint names may decide about logs; and any tells the time.
    fn note_beats(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        provisioned: &Provisioned,
        trust: &Trust,
        step: &Step,
    ) {
        for beat in &step.insert {
            provisioned.note_signed(beat.time());
            if trust
                .missing_beats()
                .any(|(channel, head)| channel == beat.channel() && head == beat.head())
            {
                let mut trust = pending
                    .trust
                    .take()
                    .filter(|newer| newer.head() == trust.head())
                    .unwrap_or_else(|| trust.clone());
                trust.take_settled_beat((**beat).clone());
                self.settle_all(pending, now, &trust);
                pending.trust = Some(trust);
            }
        }
    }

    /// What is posted here, or was settled in the cluster.
    pub(super) fn append(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        channel: &Channel,
        copy: Copy,
    ) -> Answer {
        match self.offer(pending, now, channel, vec![copy], Begin::Nothing) {
            Ok(true) => Ok(Appended::New),
            Ok(false) => Ok(Appended::Known),
            Err(Refusal::Append(error)) => Err(error),
            Err(Refusal::Log(refused, now)) => {
                let head = self.draft(pending, channel).log.head();
                match (refused, head) {
                    (Refused::Fork(pair), head) => {
                        self.forks
                            .remember(self.namespaces.of(channel), &pair.0, &pair.1);
                        Err(head.map_or(AppendError::NotFirst, AppendError::LostRace))
                    }
                    (Refused::Gap { .. } | Refused::Expired(_), Some(head)) => {
                        Err(AppendError::LostRace(head))
                    }
                    (Refused::Gap { .. } | Refused::Expired(_), None) => Err(AppendError::NotFirst),
                    (refused, _) => Err(explain(channel, refused, now)),
                }
            }
        }
    }

    /// The answer to a statement that is not what comes next.
    fn judge(&mut self, now: Timestamp, statement: Statement) -> Option<Answer> {
        let (mut scratch, channel) = (
            Pending {
                is_scratch: true,
                ..Pending::default()
            },
            statement.channel().clone(),
        );
        if channel.is_trust() {
            let mut said = None;
            self.take_trust(
                &mut scratch,
                now,
                vec![(statement, String::new())],
                false,
                |_, answer| said = Some(answer),
            );
            return said.filter(|answer| !matches!(answer, Ok(Appended::New)));
        }
        let answer = self.append(
            &mut scratch,
            now,
            &channel,
            Copy::unproven(statement, String::new()),
        );
        Some(answer).filter(|answer| !matches!(answer, Ok(Appended::New)))
    }

    fn take_copies(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        run: Run,
    ) -> Result<Copied, AppendError> {
        let Run {
            channel,
            copies,
            begin,
        } = run;
        let news = match self.offer(pending, now, &channel, copies, begin) {
            Ok(news) => news,
            Err(Refusal::Append(error)) => return Err(error),
            Err(Refusal::Log(Refused::Fork(pair), now)) => {
                self.forks
                    .remember(self.namespaces.of(&channel), &pair.0, &pair.1);
                return Err(explain(&channel, Refused::Fork(pair), now));
            }
            // What there is says what it wants.
            Err(Refusal::Log(Refused::Gap { from }, _)) => {
                return self.wants(pending, &channel).ok_or(AppendError::Gap(from));
            }
            Err(Refusal::Log(refused, now)) => return Err(explain(&channel, refused, now)),
        };
        Ok(self
            .wants(pending, &channel)
            .unwrap_or(if news { Copied::New } else { Copied::Known }))
    }

    fn wants(&self, pending: &mut Pending, channel: &Channel) -> Option<Copied> {
        let backfill = self.draft(pending, channel).log.backfill().copied()?;
        Some(Copied::Wants {
            next: backfill.below?.serial,
            top: backfill.top.serial,
        })
    }

    /// Makes everything durable, then visible, then answers.
    pub(super) fn commit(&mut self, mut pending: Pending, now: Timestamp) {
        if let Err(error) = self.make_durable(&mut pending, now) {
            self.fail(&error);
            #[cfg(test)]
            if tidings_protocol::simulated::has(tidings_protocol::simulated::Fault::FailedCommit) {
                return self.answer_all(pending, now);
            }
            pending
                .answers
                .into_iter()
                .for_each(|(reply, _)| drop(reply.send(Err(AppendError::Store))));
            pending
                .copied
                .into_iter()
                .for_each(|(reply, _)| drop(reply.send(Err(AppendError::Store))));
            return;
        }
        self.answer_all(pending, now);
    }

    /// What is durable becomes visible, and those who wait are answered.
    fn answer_all(&mut self, pending: Pending, now: Timestamp) {
        self.counts.stored.add(pending.inserted.len());
        let Pending {
            drafts,
            inserted,
            answers,
            copied,
            trust,
            ..
        } = pending;
        let mut touched = Vec::new();
        for (channel, draft) in drafts {
            touched.extend(self.show(&channel, draft, &inserted, now));
        }
        let new_trust = trust.map(|trust| self.bring_into_force(trust));
        // Whoever asked may be gone; what is stored is stored.
        answers
            .into_iter()
            .for_each(|(reply, said)| drop(reply.send(said)));
        copied
            .into_iter()
            .for_each(|(reply, said)| drop(reply.send(said)));
        let any = !touched.is_empty();
        for (log, new) in touched {
            self.watches.notify(&log, new);
        }
        if any {
            self.logs.tell();
        }
        if let Some(namespace) = new_trust {
            self.judge_window(now, &namespace);
        }
    }

    fn make_durable(&self, pending: &mut Pending, now: Timestamp) -> Result<(), StoreError> {
        if !pending.changed {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut pending.batch);
        for (channel, draft) in &pending.drafts {
            let created = self
                .logs
                .get(channel.as_str())
                .map_or(now, |log| log.marks().created);
            match draft.log.span() {
                span if span == draft.before => {}
                Some(Span { low, head }) => batch.set_marks(channel, &Marks { low, head, created }),
                None => batch.remove_marks(channel),
            }
            if draft.left {
                self.store.forget_feed_cursors(&mut batch, channel)?;
            }
            let backfill = draft.log.backfill();
            if draft.has_backfill || backfill.is_some() {
                batch.set_backfill(
                    channel,
                    backfill.map(|backfill| (backfill.top.serial, backfill.lowest)),
                );
            }
        }
        self.store.commit(batch)
    }

    /// What is being filled in, or is whole again.
    fn show_backfill(&mut self, channel: &Channel, draft: &Draft) {
        match draft.log.backfill() {
            Some(backfill) => {
                let since = self
                    .state
                    .backfills
                    .get(channel)
                    .filter(|(known, _)| known == backfill)
                    .map(|(_, since)| *since);
                self.logs
                    .set_backfill(channel, Some((backfill.lowest, backfill.top.serial)));
                self.state.backfills.insert(
                    channel.clone(),
                    (*backfill, since.unwrap_or_else(Instant::now)),
                );
            }
            None if draft.has_backfill => {
                self.logs.set_backfill(channel, None);
                self.state.backfills.remove(channel);
            }
            None => {}
        }
    }

    /// What is durable of one log becomes visible; the log, and whether it is new, if there is
    /// something to tell of.
    fn show(
        &mut self,
        channel: &Channel,
        draft: Draft,
        inserted: &[(Verified<Statement>, String)],
        now: Timestamp,
    ) -> Option<(Arc<Log>, bool)> {
        self.show_backfill(channel, &draft);
        let known = self.logs.get(channel.as_str());
        let created = known.as_ref().map_or(now, |log| log.marks().created);
        if let Some(log) = known
            .as_ref()
            .filter(|_| draft.left || draft.log.span().is_none())
        {
            self.forget(log);
        }
        let Span { low, head } = draft.log.span()?;
        let marks = Marks { low, head, created };
        let known = known.filter(|_| !draft.left);
        let new = known.is_none();
        // Readers see it grow from its first statement on.
        let first = draft
            .inserted()
            .first()
            .filter(|_| draft.grows)
            .map_or(head, |at| inserted[*at].0.head());
        let log = known.unwrap_or_else(|| {
            self.begin(
                channel,
                Marks {
                    head: first,
                    ..marks
                },
            )
        });
        log.set_kept(draft.log.kept());
        if draft.before == draft.log.span() {
            return None;
        }
        if draft.grows {
            for at in draft.inserted() {
                let (statement, path) = &inserted[*at];
                log.push(statement, path);
                tracing::debug!(%channel, serial = %statement.serial(), id = %statement.id(), "stored");
            }
        } else {
            log.jump(
                marks,
                draft
                    .before
                    .filter(|_| !draft.left)
                    .map(|span| (span.low, span.head.serial)),
                now,
            );
            tracing::debug!(%channel, low = %marks.low, head = %marks.head.serial, "filled in");
        }
        Some((log, new))
    }

    fn begin(&mut self, channel: &Channel, marks: Marks) -> Arc<Log> {
        if let Some(provisioned) = self.namespaces.of(channel) {
            *self
                .state
                .channels
                .entry(provisioned.anchor.namespace.clone())
                .or_default() += 1;
        }
        self.logs.add(channel.clone(), marks)
    }

    /// A log that is begun anew, or is gone: whoever watches it has to ask.
    pub(super) fn forget(&mut self, log: &Arc<Log>) {
        if self.logs.remove(&log.channel).is_none() {
            return;
        }
        self.watches.drop_log(log);
        let namespace = self
            .namespaces
            .of(&log.channel)
            .map(|provisioned| &provisioned.anchor.namespace);
        if let Some(count) = namespace.and_then(|namespace| self.state.channels.get_mut(namespace))
        {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn fail(&self, error: &StoreError) {
        tracing::error!(%error, "the store failed; the broker stops, and opens what is durable when it is started again");
        (self.on_failure)();
    }
}

/// Why nothing came of an offer.
pub(super) enum Refusal {
    Append(AppendError),
    Log(Refused, Timestamp),
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

/// The same as an answer.
pub(super) fn explain(channel: &Channel, refused: Refused, clock: Timestamp) -> AppendError {
    match refused {
        Refused::Verify(_, error) => error.into(),
        Refused::Gap { from } => AppendError::Gap(from),
        Refused::Fork(pair) => AppendError::Fork(channel.clone(), pair.1.serial()),
        Refused::Expired(serial) => AppendError::Expired(channel.clone(), serial),
        Refused::Future { time } => AppendError::Future { time, clock },
        Refused::Unreadable => AppendError::Store,
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
