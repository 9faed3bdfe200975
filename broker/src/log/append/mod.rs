//! The one writer: everything that is stored takes this path, whether it is posted here or comes
//! from another broker.
//!
//! `writer` offers each request to the pure log of its channel and commits many steps at once;
//! `trust.rs` does so for trust statements, and for what they take away; `peers.rs` and `window.rs`
//! hold what peers have sent out of order; `retain.rs` removes what is not kept any more. Nothing
//! is visible, relayed or acknowledged before it is on the disk.

#[cfg(feature = "bench")]
pub mod bench;
mod peers;
mod pending;
mod retain;
#[cfg(test)]
mod tests;
mod trust;
mod window;
mod writer;

use std::thread;

use futures_util::{FutureExt, future::BoxFuture};
use tidings_protocol::{
    Channel, Head, Namespace, Serial, Statement, Timestamp, Verified,
    limits::FUTURE_SECONDS,
    log::{Begin, Offered},
    verify::VerifyError,
};
use tokio::sync::{mpsc, oneshot};

pub(crate) use writer::Writer;

use crate::limits::APPEND_QUEUE;

/// Why a statement was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("{}", tidings_protocol::nntp::LostRace(*.0))]
    LostRace(Head),
    #[error("the channel has no statement yet; its first has serial 1")]
    NotFirst,
    #[error(
        "the trust log begins here with the statement that the anchor names, serial {0}; it comes first"
    )]
    AnchorFirst(Serial),
    #[error("{0}")]
    Verify(#[from] VerifyError),
    #[error("Time: {time} is more than {hours} hours after this broker's clock, {clock}", hours = FUTURE_SECONDS / 3600)]
    Future { time: Timestamp, clock: Timestamp },
    #[error(
        "this broker keeps {} channels and takes no more",
        crate::limits::CHANNELS
    )]
    Channels,
    #[error(
        "this broker keeps {1} channels of {0} and takes no more; its operator can raise quota.channels"
    )]
    Quota(Namespace, usize),
    #[error(
        "the withdrawal {1} of {0} would be lost under this trust statement: issue it anew first, or put the checkpoint at the head"
    )]
    LosesWithdrawal(Channel, Serial),
    #[error(
        "the broker's disk is full, {0} octets are missing; nothing was stored, try again later"
    )]
    DiskFull(u64),
    #[error(
        "this broker looks first whether others have more than itself; nothing was stored, try again later"
    )]
    Comparing,
    #[error("the broker's store failed; nothing was acknowledged, try again later")]
    Store,
    #[error("the broker is shutting down; nothing was stored, try again later")]
    Closed,
    #[error("{0} has no trust here yet; its trust log has to come first")]
    NoTrust(Channel),
    #[error("what lies below comes first, from serial {0} on")]
    Gap(Serial),
    #[error("the beat that the trust in force names comes first: perhaps it vouches for {0}")]
    BeatFirst(Channel),
    #[error("too much waits here for what lies below it; send it again later")]
    WindowFull,
    #[error("{0} {1} has expired here")]
    Expired(Channel, Serial),
    #[error(
        "this broker does not reach the majority of its cluster; nothing was stored, try again later or at another member"
    )]
    NoQuorum,
    #[error(
        "the cluster did not answer in time, and it is not known whether the statement was stored: publish the same one again"
    )]
    Unknown,
    #[error(
        "this broker has not yet got all of {0} that its cluster has; nothing was stored, try again later or at another member"
    )]
    Behind(Channel),
    #[error(
        "what the cluster's servers hold of {0} does not verify here; nothing was stored, and the operator has to look at it"
    )]
    Unsound(Channel),
    #[error("the cluster's servers refuse: {0}; nothing was stored")]
    Refused(String),
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
            Channels
            | Quota(..)
            | DiskFull(_)
            | Comparing
            | Store
            | Closed
            | NoTrust(_)
            | Gap(_)
            | BeatFirst(_)
            | WindowFull
            | Future { .. }
            | AnchorFirst(_) => true,
            NoQuorum | Unknown | Behind(_) | Unsound(_) | Refused(_) | OtherSigner
            | LosesWithdrawal(..) => true,
            Verify(error) => matches!(
                error,
                VerifyError::NewerTrust { .. } | VerifyError::TrustOrder { .. }
            ),
            LostRace(_) | NotFirst | Fork(..) | Expired(..) => false,
        }
    }
}

/// What was done with an accepted statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    New,
    /// It was here already: a publisher that asks again after a broken connection gets the same
    /// answer.
    Known,
}

pub(crate) type Answer = Result<Appended, AppendError>;
type CopyAnswer = Result<Copied, AppendError>;
type Reply<T> = oneshot::Sender<Result<T, AppendError>>;

/// One statement of a run, by which trust it is verified if it is, and its `Path`.
pub(crate) struct Copy {
    pub(crate) offered: Offered,
    pub(crate) by: Option<Serial>,
    pub(crate) path: String,
}

impl Copy {
    /// Perhaps one that only what follows it vouches for.
    pub(crate) fn unproven(statement: Statement, path: String) -> Self {
        Self {
            offered: Offered::Unproven(statement),
            by: None,
            path,
        }
    }
    /// Verified by its own signatures, by the trust with this serial.
    pub(crate) fn proven(statement: Verified<Statement>, by: Serial, path: String) -> Self {
        Self {
            offered: Offered::Proven(statement),
            by: Some(by),
            path,
        }
    }
    fn statement(&self) -> &Statement {
        self.offered.statement()
    }
}

/// Consecutive statements of one channel that another broker has, oldest first.
pub(crate) struct Run {
    pub(crate) channel: Channel,
    pub(crate) copies: Vec<Copy>,
    pub(crate) begin: Begin,
}

/// What was done with copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// Something new is stored; all of it is visible.
    New,
    /// Nothing of it was new.
    Known,
    /// The channel has a backfill, and this is what it wants next.
    Wants {
        next: Serial,
        /// Its highest serial.
        top: Serial,
    },
}

/// Who has sent something by a feed: one connection.
pub(crate) type Peer = u64;

enum Request {
    /// Statements that are published here, or settled in the cluster.
    Statements(Vec<(Copy, Reply<Appended>)>),
    /// Trust statements, oldest first; `posted`: of signatures only what counts is kept.
    Trust {
        run: Vec<(Statement, String)>,
        posted: bool,
        reply: Reply<Appended>,
    },
    /// Only whether a statement would be refused where it stands, and why; nothing is stored.
    /// Evidence of a fork is kept.
    Judge {
        statement: Statement,
        reply: oneshot::Sender<Option<Answer>>,
    },
    /// What another broker has, trust logs excepted.
    Copies {
        run: Run,
        reply: Reply<Copied>,
    },
    /// What a peer has sent; above a gap it waits.
    Feed {
        copy: Copy,
        peer: Peer,
        reply: Reply<Appended>,
    },
    /// Nothing more comes from a peer before it has answers.
    Stalled(Peer),
    /// A backfill cannot go on.
    GiveUp(Channel),
    Sweep,
}

/// The writer's queue.
#[derive(Clone)]
pub(crate) struct Appender(mpsc::Sender<Request>);

impl Appender {
    pub(crate) fn start(mut writer: Writer) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        writer.take_up();
        let (sender, requests) = mpsc::channel(APPEND_QUEUE);
        let thread = thread::Builder::new()
            .name("append".into())
            .spawn(move || writer.run(requests))?;
        Ok((Self(sender), thread))
    }

    /// The same as a task, with a pause before each turn.
    #[cfg(test)]
    pub(crate) fn simulated(
        mut writer: Writer,
        pause: impl Fn() -> std::time::Duration,
    ) -> (Self, impl Future<Output = ()>) {
        writer.take_up();
        let (sender, mut requests) = mpsc::channel(APPEND_QUEUE);
        let run = async move {
            while let Some(request) = requests.recv().await {
                tokio::time::sleep(pause()).await;
                writer.turn(Some(request), &mut requests);
            }
        };
        (Self(sender), run)
    }

    /// Stores a statement that the trust with this serial has verified, in two steps: when the
    /// first is done, what is handed over after it comes after it; when the second is done, it is
    /// durable.
    pub(crate) async fn hand_over(
        &self,
        statement: Verified<Statement>,
        trust: Serial,
        path: String,
    ) -> BoxFuture<'static, Answer> {
        let copy = Copy::proven(statement, trust, path);
        self.put(|reply| Request::Statements(vec![(copy, reply)]))
            .await
    }

    /// The same for many at once, in this order.
    pub(crate) async fn hand_over_all(&self, copies: Vec<Copy>) -> Vec<BoxFuture<'static, Answer>> {
        let (mut all, mut answers) = (Vec::new(), Vec::new());
        for copy in copies {
            let (reply, answer) = oneshot::channel();
            all.push((copy, reply));
            answers.push(
                answer
                    .map(|answer| answer.unwrap_or(Err(AppendError::Closed)))
                    .boxed(),
            );
        }
        if !all.is_empty() {
            self.send(Request::Statements(all)).await;
        }
        answers
    }

    /// Verifies and stores the next statement of a trust log.
    pub(crate) async fn append_trust(&self, statement: Statement, path: String) -> Answer {
        self.copy_trust(vec![(statement, path)]).await
    }

    /// The same for a statement that its publisher has posted here.
    pub(crate) async fn post_trust(&self, statement: Statement, path: String) -> Answer {
        self.put(|reply| Request::Trust {
            run: vec![(statement, path)],
            posted: true,
            reply,
        })
        .await
        .await
    }

    /// The same for consecutive ones, oldest first.
    pub(crate) async fn copy_trust(&self, run: Vec<(Statement, String)>) -> Answer {
        self.put(|reply| Request::Trust {
            run,
            posted: false,
            reply,
        })
        .await
        .await
    }

    /// The answer to a statement, verified or of a trust log, that is not what comes next; none if
    /// it is what comes next. Nothing is stored.
    pub(crate) async fn judge(&self, statement: Statement) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Judge { statement, reply }).await;
        answer.await.unwrap_or(Some(Err(AppendError::Closed)))
    }

    /// Stores copies of what another broker has, and says what is wanted next.
    pub(crate) async fn copy(&self, run: Run) -> CopyAnswer {
        self.offer(run).await.await
    }

    /// The same in two steps: when the first is done, what is offered after it comes after it.
    pub(crate) async fn offer(&self, run: Run) -> BoxFuture<'static, CopyAnswer> {
        self.put(|reply| Request::Copies { run, reply }).await
    }

    /// Takes what a peer has sent; the answer comes when it is stored, or is not to be.
    pub(crate) async fn feed(&self, copy: Copy, peer: Peer) -> BoxFuture<'static, Answer> {
        self.put(move |reply| Request::Feed { copy, peer, reply })
            .await
    }

    /// Nothing more comes from a peer before it has answers: what it has sent begins a backfill, or
    /// has to be sent again.
    pub(crate) async fn stalled(&self, peer: Peer) {
        self.send(Request::Stalled(peer)).await;
    }

    /// Gives up the backfill of a channel.
    pub(crate) async fn give_up(&self, channel: Channel) {
        self.send(Request::GiveUp(channel)).await;
    }

    /// Applies retention.
    pub(crate) async fn sweep(&self) {
        self.send(Request::Sweep).await;
    }

    async fn put<T: Send + 'static>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> BoxFuture<'static, Result<T, AppendError>> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await;
        answer
            .map(|answer| answer.unwrap_or(Err(AppendError::Closed)))
            .boxed()
    }

    async fn send(&self, request: Request) {
        // A closed queue drops the reply, and that is the answer: the broker is going down.
        let _ = self.0.send(request).await;
    }
}
