//! Where new statements are settled: by the one writer of this broker, or by the cluster that it is
//! part of.
//!
//! What other brokers have settled already, and is only copied, goes to the writer alone.

pub(crate) mod beat;
pub(crate) mod restore;

use futures_util::future::BoxFuture;
use tidings_protocol::{Serial, Statement, Verified};

use crate::log::append::{Answer, Appender};

/// A statement that the trust with this serial has verified.
pub(crate) struct New {
    pub(crate) statement: Verified<Statement>,
    pub(crate) trust: Serial,
    pub(crate) path: String,
    /// The term in which this broker has signed it, if it has: in another one it is refused.
    pub(crate) term: Option<i32>,
}

/// Settles what comes next in a log. Both implementations pass the same tests
/// (`tests/tests/system/origin.rs`).
pub(crate) trait Origin: Send + Sync {
    /// Stores a statement, and answers when nothing can undo that.
    fn append(&self, new: New) -> BoxFuture<'_, Answer>;

    /// Verifies and stores the next statement of a trust log; `posted`: of its signatures only
    /// those that count are kept.
    fn append_trust(
        &self,
        statement: Statement,
        path: String,
        posted: bool,
    ) -> BoxFuture<'_, Answer>;

    /// Waits until everything that was settled before is visible here; false if that is not to be
    /// had soon.
    fn catch_up(&self) -> BoxFuture<'_, bool>;

    /// The term in which this broker signs beats; none while another one does, or nobody can.
    fn term(&self) -> Option<i32>;
}

impl Origin for Appender {
    fn append(&self, new: New) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            self.hand_over(new.statement, new.trust, new.path)
                .await
                .await
        })
    }

    fn append_trust(
        &self,
        statement: Statement,
        path: String,
        posted: bool,
    ) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            match posted {
                true => self.post_trust(statement, path).await,
                false => Appender::append_trust(self, statement, path).await,
            }
        })
    }

    fn catch_up(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn term(&self) -> Option<i32> {
        Some(0)
    }
}
