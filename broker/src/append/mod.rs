//! The one writer: checks each statement against the head, commits many at once, then answers.
//!
//! [8.4-1] to [8.4-4]. Everything takes this path: what is posted here, and, in `copies.rs`, what comes from other brokers. Nothing is
//! visible, relayed or acknowledged before it is on the disk.

#[cfg(feature = "bench")]
pub mod bench;
mod copies;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    thread,
    time::Duration,
};

use tidings_protocol::{
    Channel, Head, Serial, Statement, StatementId, Timestamp, Verified, Wildmat,
    log::{self, Place},
    trust::Trust,
    verify::VerifyError,
};
use tokio::sync::{mpsc, oneshot};

use copies::Island;
pub(crate) use copies::{Copied, Offer, Run};

use crate::{
    clock,
    config::Retention,
    counts::Counts,
    failure::{OnFailure, Sentinel},
    forks::Forks,
    limits::{APPEND_BATCH, APPEND_QUEUE},
    logs::{Log, Logs},
    namespaces::Namespaces,
    store::{Batch, Marks, Store, StoreError},
    watch::Watches,
};

/// Why a statement was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("{}", tidings_protocol::nntp::LostRace(*.0))]
    LostRace(Head),
    #[error("the channel has no statement yet; its first has serial 1")]
    NotFirst,
    #[error("{0}")]
    Verify(#[from] VerifyError),
    #[error("this broker keeps {} channels and takes no more", crate::limits::CHANNELS)]
    Channels,
    #[error("the broker's disk is full, {0} octets are missing; nothing was stored, try again later")]
    DiskFull(u64),
    #[error("the broker's store failed; nothing was acknowledged, try again later")]
    Store,
    #[error("the broker is shutting down; nothing was stored, try again later")]
    Closed,
    #[error("{0} has no trust here yet; its trust log has to come first")]
    NoTrust(Channel),
    #[error("too much is here already that hangs together with nothing; what lies between has to come first")]
    Later,
    #[error("{0} {1} has expired here")]
    Expired(Channel, Serial),
    #[error("this broker does not reach the majority of its cluster; nothing was stored, try again later or at another member")]
    NoQuorum,
    #[error("the cluster did not answer in time, and it is not known whether the statement was stored: publish the same one again")]
    Unknown,
    #[error("this broker has not yet got all of {0} that its cluster has; nothing was stored, try again later or at another member")]
    Behind(Channel),
    #[error("what the cluster's servers hold of {0} does not verify here; nothing was stored, and the operator has to look at it")]
    Unsound(Channel),
    #[error("the cluster's servers refuse: {0}; nothing was stored")]
    Refused(String),
    #[error("this broker looks first whether others have more than itself; nothing was stored, try again later")]
    Comparing,
    #[error("another member signs beats now")]
    OtherSigner,
    #[error("{0} {1} has another id here: a fork, or the branch that was settled against")]
    Fork(Channel, Serial),
}

impl AppendError {
    /// Whether the same statement may be taken at another time.
    pub(crate) fn is_passing(&self) -> bool {
        use AppendError::*;
        match self {
            Channels | DiskFull(_) | Store | Closed | Comparing | NoTrust(_) | Later => true,
            NoQuorum | Unknown | Behind(_) | Unsound(_) | Refused(_) | OtherSigner => true,
            Verify(error) => matches!(error, VerifyError::NewerTrust { .. } | VerifyError::TrustOrder { .. }),
            LostRace(_) | NotFirst | Fork(..) | Expired(..) => false,
        }
    }
}

/// What was done with an accepted statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    New,
    /// It was here already: a publisher that asks again after a broken connection gets the same answer.
    Known,
}

pub(crate) type Answer = Result<Appended, AppendError>;
type CopyAnswer = Result<Copied, AppendError>;

enum Job {
    /// A statement, and the serial of the trust that verified it.
    Statement {
        statement: Verified<Statement>,
        trust: Serial,
        path: String,
        reply: oneshot::Sender<Answer>,
    },
    /// A trust statement: verified here, where its predecessor cannot change meanwhile.
    Trust {
        statement: Statement,
        path: String,
        reply: oneshot::Sender<Answer>,
    },
    /// Only whether a statement would be refused where it stands, and why; nothing is stored. Evidence of a fork is kept.
    Judge {
        statement: Statement,
        /// A trust statement is verified by the one before it, if at all.
        is_trust: bool,
        reply: oneshot::Sender<Option<Answer>>,
    },
    /// What other brokers have stored already: trust logs excepted, newest first, of one channel.
    Copies {
        run: Run,
        reply: oneshot::Sender<CopyAnswer>,
    },
    Sweep,
}

/// The writer's letter box.
#[derive(Clone)]
pub(crate) struct Appender(mpsc::Sender<Job>);

/// What the writer works with.
pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) logs: Arc<Logs>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) retention: Vec<Retention>,
    pub(crate) forks: Forks,
    /// For how long a log that a feed has begun in the middle waits for what lies below.
    pub(crate) gap_patience: Duration,
    /// What is copied from other brokers, and never begun here.
    pub(crate) mirrored: Option<Wildmat>,
    /// Whether others are one origin with this broker: what is missing they have, even if they are away.
    pub(crate) clustered: bool,
    /// What was copied and is not visible yet.
    pub(crate) islands: HashMap<Channel, Vec<Island>>,
    pub(crate) counts: Arc<Counts>,
    /// Called once when the store has failed for good.
    pub(crate) on_failure: OnFailure,
}

impl Appender {
    pub(crate) fn start(mut writer: Writer) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        writer.find_islands();
        let (sender, jobs) = mpsc::channel(APPEND_QUEUE);
        let thread = thread::Builder::new().name("append".into()).spawn(move || writer.run(jobs))?;
        Ok((Self(sender), thread))
    }

    /// Stores a statement that the trust with this serial has verified, in two steps: when the first is done, what is handed
    /// over after it comes after it; when the second is done, it is durable.
    pub(crate) async fn hand_over(
        &self,
        statement: Verified<Statement>,
        trust: Serial,
        path: String,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.put(Job::Statement { statement, trust, path, reply }).await;
        async { answer.await.unwrap_or(Err(AppendError::Closed)) }
    }

    /// Verifies and stores the next statement of a trust log.
    pub(crate) async fn append_trust(&self, statement: Statement, path: String) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.put(Job::Trust { statement, path, reply }).await;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// The answer to a statement, verified or of a trust log, that is not what comes next; none if it is what comes next. Nothing is stored.
    pub(crate) async fn judge(&self, statement: Statement, is_trust: bool) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.put(Job::Judge { statement, is_trust, reply }).await;
        answer.await.unwrap_or(Some(Err(AppendError::Closed)))
    }

    /// Stores copies of what other brokers have, and says what is wanted next; see [`Run`].
    pub(crate) async fn copy(&self, run: Run) -> CopyAnswer {
        self.offer(run).await.await
    }

    /// The same in two steps: when the first is done, what is offered after it comes after it.
    pub(crate) async fn offer(&self, run: Run) -> impl Future<Output = CopyAnswer> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.put(Job::Copies { run, reply }).await;
        async { answer.await.unwrap_or(Err(AppendError::Closed)) }
    }

    /// Applies retention.
    pub(crate) async fn sweep(&self) {
        self.put(Job::Sweep).await;
    }

    async fn put(&self, job: Job) {
        // A closed letter box drops the reply, and that is the answer: the broker is going down.
        let _ = self.0.send(job).await;
    }
}

/// A statement that will be visible after the commit.
struct Accepted {
    statement: Verified<Statement>,
    path: String,
    /// Copies are answered all at once.
    reply: Option<oneshot::Sender<Answer>>,
    /// The trust that it brings into force.
    trust: Option<Trust>,
}

/// What one commit holds.
#[derive(Default)]
struct Pending {
    batch: Batch,
    accepted: Vec<Accepted>,
    marks: HashMap<Channel, Marks>,
    /// Answers that must wait for the commit, since they speak of statements in it: those that are known, and those that
    /// have lost against them.
    later: Vec<(Option<oneshot::Sender<Answer>>, Answer)>,
    /// The same for copies.
    copied: Vec<(oneshot::Sender<CopyAnswer>, CopyAnswer)>,
    /// Channels whose log grows by more than single statements.
    joined: HashSet<Channel>,
    /// Statements in the batch that are not visible after it, and whatever else makes a commit worth its while.
    hidden: usize,
    /// What is in the batch.
    ids: HashMap<Channel, HashMap<Serial, StatementId>>,
}

impl Pending {
    /// Notes what is in the batch.
    fn note(&mut self, channel: &Channel, head: Head) {
        match self.ids.get_mut(channel) {
            Some(ids) => {
                ids.insert(head.serial, head.id);
            }
            None => {
                self.ids.insert(channel.clone(), HashMap::from([(head.serial, head.id)]));
            }
        }
    }
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let _sentinel = Sentinel(self.on_failure.clone());
        while let Some(first) = jobs.blocking_recv() {
            let now = clock::now();
            let mut pending = Pending::default();
            let full = self.missing_octets();
            let mut job = Some(first);
            while let Some(next) = job {
                match next {
                    Job::Sweep => {
                        self.commit(std::mem::take(&mut pending), now);
                        self.sweep(now);
                    }
                    Job::Statement { reply, .. } | Job::Trust { reply, .. } if full.is_some() => {
                        answer(reply, Err(AppendError::DiskFull(full.unwrap_or(0))));
                    }
                    Job::Statement { statement, trust, path, reply } => {
                        self.consider(&mut pending, now, Accepted { statement, path, reply: Some(reply), trust: None }, Some(trust));
                    }
                    Job::Judge { statement, is_trust, reply } => {
                        // What is under way is settled first, so that the answer speaks of what is durable.
                        self.commit(std::mem::take(&mut pending), now);
                        drop(reply.send(self.refusal(&Pending::default(), &statement, is_trust)));
                    }
                    Job::Copies { reply, .. } if full.is_some() => drop(reply.send(Err(AppendError::DiskFull(full.unwrap_or(0))))),
                    Job::Copies { run, reply } => {
                        let copied = self.take_copies(&mut pending, now, run);
                        pending.copied.push((reply, copied));
                    }
                    Job::Trust { statement, path, reply } => {
                        // What was verified under the old trust is settled before the new one begins.
                        self.commit(std::mem::take(&mut pending), now);
                        self.consider_trust(&mut pending, now, statement, path, reply);
                        self.commit(std::mem::take(&mut pending), now);
                    }
                }
                job = if pending.accepted.len() + pending.hidden < APPEND_BATCH { jobs.try_recv().ok() } else { None };
            }
            self.commit(pending, now);
        }
    }

    /// Octets that are missing on the disk for new statements.
    fn missing_octets(&self) -> Option<u64> {
        let missing = self.store.missing_octets().unwrap_or_else(|error| {
            self.fail(&error);
            None
        });
        if let Some(missing) = missing {
            tracing::error!(missing, "the disk is full: publishing is refused until there is room");
        }
        missing
    }

    fn consider_trust(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        statement: Statement,
        path: String,
        reply: oneshot::Sender<Answer>,
    ) {
        let namespaces = self.namespaces.clone();
        let Some(provisioned) = namespaces.of_trust_log(statement.channel()) else {
            return answer(reply, Err(AppendError::NotFirst));
        };
        if let Some(refusal) = self.refusal(pending, &statement, true) {
            return answer(reply, refusal);
        }
        match provisioned.advance(statement) {
            Ok(trust) => {
                let statement = trust.statement().clone();
                self.consider(pending, now, Accepted { statement, path, reply: Some(reply), trust: Some(trust) }, None);
            }
            Err(error) => answer(reply, Err(error.into())),
        }
    }

    /// The answer to a statement that is not what comes next; two for one place, both signed, are kept.
    fn refusal(&self, pending: &Pending, statement: &Statement, is_trust: bool) -> Option<Answer> {
        let refusal = self.place(pending, statement)?;
        let signed = || {
            let before = statement.predecessor().and_then(|before| self.store.get(statement.channel(), before.serial).ok()?);
            let namespace = &self.namespaces.of(statement.channel())?.anchor.namespace;
            let before = Trust::resume(namespace, before?.statement).ok()?;
            // Two successors of one trust statement, both signed by the thresholds: worse than any other fork.
            before.succeed(statement.clone()).ok().map(drop)
        };
        if matches!(refusal, Err(AppendError::LostRace(_))) && (!is_trust || signed().is_some()) {
            self.look_for_fork(pending, statement);
        }
        Some(refusal)
    }

    /// Where a statement may not be appended: the answer instead.
    fn place(&self, pending: &Pending, statement: &Statement) -> Option<Answer> {
        let channel = statement.channel();
        let log = self.logs.get(channel.as_str());
        let marks = self.marks(pending, channel);
        match (log::place(marks.map(|m| m.head), statement), marks) {
            (Place::Next, None) if self.logs.is_full() => Some(Err(AppendError::Channels)),
            (Place::Next, _) => None,
            (_, None) => Some(Err(AppendError::NotFirst)),
            (Place::Known, Some(marks)) => {
                let head = marks.head == statement.head();
                let here = pending.accepted.iter().any(|a| a.statement.head() == statement.head() && a.statement.channel() == channel);
                let stored = || log.and_then(|log| log.find(&statement.message_id()).ok().flatten()).is_some();
                Some(if head || here || stored() { Ok(Appended::Known) } else { Err(AppendError::LostRace(marks.head)) })
            }
            (Place::Gap { .. } | Place::Fork, Some(marks)) => Some(Err(AppendError::LostRace(marks.head))),
        }
    }

    /// Takes a statement into the commit, or answers why not.
    fn consider(&mut self, pending: &mut Pending, now: Timestamp, accepted: Accepted, verified_by: Option<Serial>) {
        let statement = &accepted.statement;
        let channel = statement.channel();
        if let Some(verified_by) = verified_by {
            // The trust may have changed since the session looked.
            let trust = self.namespaces.trust(channel).filter(|trust| trust.serial() != verified_by);
            if let Some(Err(error)) = trust.map(|trust| trust.check(statement)) {
                return answer(accepted.reply, Err(error.into()));
            }
        }
        match self.refusal(pending, statement, accepted.trust.is_some()) {
            Some(refusal) => match pending.accepted.is_empty() {
                true => answer(accepted.reply, refusal),
                false => pending.later.push((accepted.reply, refusal)),
            },
            None => self.accept(pending, now, accepted),
        }
    }

    /// The marks of a channel as they will be after the commit.
    fn marks(&self, pending: &Pending, channel: &Channel) -> Option<Marks> {
        pending.marks.get(channel).copied().or_else(|| self.logs.get(channel.as_str()).map(|log| log.marks()))
    }

    /// Takes what follows the head into the commit.
    fn accept(&mut self, pending: &mut Pending, now: Timestamp, accepted: Accepted) {
        let statement = &accepted.statement;
        let (channel, head) = (statement.channel().clone(), statement.head());
        let marks = match self.marks(pending, &channel) {
            Some(before) => Marks { head, ..before },
            None => Marks { low: head.serial, head, created: now },
        };
        self.take_from_islands(pending, statement);
        pending.batch.insert(statement, now, &accepted.path);
        pending.note(&channel, head);
        pending.marks.insert(channel.clone(), marks);
        pending.accepted.push(accepted);
        self.join_islands(pending, now, &channel, None);
    }

    /// A verified statement that was refused: if another one stands in its place, or is not the one that it follows, both
    /// are evidence.
    fn look_for_fork(&self, pending: &Pending, theirs: &Statement) {
        let find = |serial: Serial| {
            let under_way = pending.accepted.iter().map(|accepted| &accepted.statement);
            let here = under_way.filter(|s| s.channel() == theirs.channel() && s.serial() == serial).map(|s| (**s).clone()).next();
            here.or_else(|| Some(self.store.get(theirs.channel(), serial).ok()??.statement))
        };
        let same = find(theirs.serial());
        let before = || theirs.predecessor().and_then(|before| find(before.serial).filter(|ours| ours.id() != before.id));
        if let Some(ours) = same.or_else(before) {
            self.forks.remember(&ours, theirs);
        }
    }

    /// Makes everything durable, then visible, then answers.
    fn commit(&mut self, pending: Pending, now: Timestamp) {
        let Pending { mut batch, accepted, marks, later, copied, joined, hidden, .. } = pending;
        for (channel, marks) in &marks {
            batch.set_marks(channel, marks);
        }
        let something = !accepted.is_empty() || !joined.is_empty() || hidden > 0;
        if let Err(error) = if something { self.store.commit(batch) } else { Ok(()) } {
            self.fail(&error);
            let replies = accepted.into_iter().map(|a| a.reply).chain(later.into_iter().map(|(reply, _)| reply));
            replies.for_each(|reply| answer(reply, Err(AppendError::Store)));
            copied.into_iter().for_each(|(reply, _)| drop(reply.send(Err(AppendError::Store))));
            return;
        }
        self.counts.stored.add(accepted.len() + hidden);
        let mut touched: HashMap<usize, (Arc<Log>, bool)> = HashMap::new();
        for channel in &joined {
            let Some(marks) = marks.get(channel) else { continue };
            let known = self.logs.get(channel.as_str());
            let new = known.is_none();
            // What readers have not seen yet begins here.
            let next = known.as_ref().and_then(|log| log.marks().head.serial.next());
            let first = next.filter(|next| *next >= marks.low).unwrap_or(marks.low);
            let log = known.unwrap_or_else(|| self.logs.add(channel.clone(), Marks { created: now, ..*marks }));
            log.jump(*marks, first, now);
            tracing::debug!(%channel, low = %marks.low, head = %marks.head.serial, "filled in");
            touched.insert(log.index, (log, new));
        }
        for Accepted { statement, path, reply, trust } in accepted {
            let channel = statement.channel();
            if !joined.contains(channel) {
                let known = self.logs.get(channel.as_str());
                let new = known.is_none();
                let first = Marks { low: statement.serial(), head: statement.head(), created: now };
                let log = known.unwrap_or_else(|| self.logs.add(channel.clone(), first));
                log.push(&statement, &path);
                touched.entry(log.index).or_insert((log, new));
            }
            if let Some(trust) = trust {
                self.bring_into_force(channel, trust);
            }
            tracing::debug!(channel = %channel, serial = %statement.serial(), id = %statement.id(), "stored");
            answer(reply, Ok(Appended::New));
        }
        later.into_iter().for_each(|(reply, said)| answer(reply, said));
        // Whoever asked may be gone; what is stored is stored.
        copied.into_iter().for_each(|(reply, said)| drop(reply.send(said)));
        let any = !touched.is_empty();
        for (log, new) in touched.into_values() {
            self.watches.notify(&log, new);
        }
        if any {
            self.logs.tell();
        }
    }

    fn bring_into_force(&mut self, channel: &Channel, trust: Trust) {
        let namespaces = self.namespaces.clone();
        let Some(provisioned) = namespaces.of_trust_log(channel) else { return };
        tracing::info!(channel = %channel, serial = %trust.serial(), expires = %trust.rules().expires, "trust in force");
        let checkpoints = trust.rules().checkpoints.clone();
        provisioned.trust.store(Some(Arc::new(trust)));
        let mut batch = Batch::default();
        for checkpoint in checkpoints {
            let channel = &checkpoint.channel;
            // [4.3-6]: names outside of the namespace have no effect.
            if namespaces.of(channel).is_none_or(|p| p.anchor != provisioned.anchor) {
                continue;
            }
            if !self.logs.get(channel.as_str()).is_some_and(|log| log.has_lost(checkpoint.head)) {
                continue;
            }
            if self.is_mirrored(channel) {
                tracing::warn!(%channel, checkpoint = %checkpoint.head, "the log here is not the one that trust has settled on: it is dropped, and copied anew");
                self.drop_log(&mut batch, channel);
            } else {
                tracing::error!(
                    %channel, checkpoint = %checkpoint.head,
                    "the log here is not the one that trust has settled on: devices will leave it. Stop this broker, and fill an empty data directory from one that has the right log"
                );
            }
        }
        if let Err(error) = self.store.commit(batch) {
            self.fail(&error);
        }
    }

    /// Removes what retention no longer keeps; the head always stays, trust logs stay whole.
    fn sweep(&mut self, now: Timestamp) {
        self.settle_islands(now, self.gap_patience);
        if let Err(error) = self.store.settle() {
            return self.fail(&error);
        }
        for log in self.logs.all() {
            log.shorten_tail();
            let Some(retention) = self.retention.iter().find(|r| r.channels.matches(log.channel.as_str())) else { continue };
            if log.channel.is_trust() {
                continue;
            }
            if let Err(error) = self.expire(&log, retention, now) {
                self.fail(&error);
                return;
            }
        }
    }

    fn expire(&self, log: &Log, retention: &Retention, now: Timestamp) -> Result<(), StoreError> {
        let marks = log.marks();
        let head = marks.head.serial;
        let by_count = retention.count.map_or(0, |count| (head.number() + 1).saturating_sub(count));
        let oldest = retention.age.map(|age| now.seconds().saturating_sub(age.as_secs()));
        // A device that doubts its branch reads from the checkpoint on.
        let settled = self.namespaces.trust(&log.channel).and_then(|trust| trust.checkpoint(&log.channel)).map(|c| c.serial);
        let mut batch = Batch::default();
        let mut low = marks.low;
        while low < head && settled.is_none_or(|settled| low < settled) {
            let too_many = low.number() < by_count;
            let too_old = || Ok::<_, StoreError>(oldest.is_some() && log.arrived(low)?.map(Timestamp::seconds) < oldest);
            if !(too_many || too_old()?) {
                break;
            }
            batch.remove(&log.channel, low);
            low = low.next().unwrap_or(head);
        }
        if low > marks.low {
            batch.set_marks(&log.channel, &Marks { low, ..marks });
            // Invisible before it is gone, so that no reader finds a hole.
            log.raise_low(low);
            self.store.commit(batch)?;
            tracing::info!(channel = %log.channel, low = %low, "expired");
        }
        Ok(())
    }

    fn fail(&self, error: &StoreError) {
        tracing::error!(%error, "the store failed; the broker stops, and opens what is durable when it is started again");
        (self.on_failure)();
    }
}

fn answer(reply: impl Into<Option<oneshot::Sender<Answer>>>, answer: Answer) {
    // The session may be gone; the statement is stored all the same.
    let _ = reply.into().map(|reply| reply.send(answer));
}
