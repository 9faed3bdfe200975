//! Whether a release may be applied now: asked immediately before it is (spec section 5.6).

use alloc::{string::String, vec::Vec};

use super::{Refusal, View, freshness::Freshness};
use crate::{
    Channel, Serial, Statement, Timestamp, Verified,
    statement::{Body, Kind, Withdraw},
};

/// Why a release may not be applied now. Each is a step of spec section 5.6.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// What the broker sent is refused, or proves a fork.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The broker does not have the head that is known, or not all from the release up to it.
    #[error("{} (spec 5.6-1)", incomplete(*.from, *.head))]
    Incomplete {
        /// The release.
        from: Serial,
        /// The head.
        head: Serial,
    },
    /// Forked, behind or stale.
    #[error("{0} (spec 5.6-2)")]
    NotCurrent(Freshness),
    /// The trust in force has expired.
    #[error("the trust in force, {trust}, has expired at {expires}; the namespace has to renew it (spec 5.6-3)")]
    Expired {
        /// Its serial.
        trust: Serial,
        /// When.
        expires: Timestamp,
    },
    /// Not a release.
    #[error("{0} is no release (spec 5.6-4)")]
    NoRelease(Serial),
    /// A field that must be understood.
    #[error("it calls the field {0:?} critical, which this version does not know (spec 5.6-4)")]
    Critical(String),
    /// It was called back.
    #[error("it was withdrawn by {by}: {reason}{} (spec 5.6-5)", way_back(.fallback.as_ref()))]
    Withdrawn {
        /// The serial of the withdrawal.
        by: Serial,
        /// Why.
        reason: String,
        /// The release to go back to.
        fallback: Option<Serial>,
    },
    /// `Not-Before` has not come.
    #[error("it is not to be applied before {0} (spec 5.6-6)")]
    Premature(Timestamp),
    /// A later one was applied.
    #[error("{0} was applied already, and no withdrawal that releasers have signed names this one as the way back (spec 5.6-7)")]
    Older(Serial),
    /// Another release comes first.
    #[error("{0} has to be applied first (spec 5.6-8)")]
    Barrier(Serial),
}

fn incomplete(from: Serial, head: Serial) -> String {
    match from > head {
        true => alloc::format!("there is no {from}: the head that is known is {head}"),
        false => alloc::format!("the broker does not have everything from {from} to {head}: it is behind, or hides something"),
    }
}

fn way_back(serial: Option<&Serial>) -> String {
    serial.map_or(String::new(), |serial| alloc::format!("; the way back is {serial}"))
}

fn withdrawals(statements: &[Verified<Statement>]) -> impl Iterator<Item = (Serial, &Withdraw)> {
    statements.iter().filter_map(|statement| match statement.body() {
        Body::Withdraw(withdraw) => Some((statement.serial(), withdraw)),
        _ => None,
    })
}

impl View {
    /// [5.6-1] to [5.6-8]: whether a release may be applied now, given everything from it up to the head that a broker
    /// has sent this moment, oldest first.
    ///
    /// `clock` is what the clock shows, `now` the time that counts ([5.1-3]). It changes nothing; a fork and a withdrawal are
    /// in the error, to be noted.
    ///
    /// # Errors
    /// Why not.
    pub fn clear(
        &self,
        channel: &Channel,
        serial: Serial,
        run: Vec<Statement>,
        clock: Timestamp,
        now: Timestamp,
    ) -> Result<Verified<Statement>, NotNow> {
        let known = self.head(channel).ok_or(NotNow::NotCurrent(Freshness::Stale { since: None }))?;
        let trust = self.trust().ok_or(Refusal::NoTrust)?;
        if self.fork(channel).is_some() {
            return Err(NotNow::NotCurrent(Freshness::Forked));
        }
        let news = self.examine(channel, run.clone())?;
        let run = trust.verify_run(channel, run).map_err(|(serial, source)| Refusal::Verify { serial, source })?.statements;
        let stopped = self.known(channel).and_then(|known| known.stopped);
        let head = stopped.map_or(known.serial, |stopped| stopped.max(known.serial));
        let mut seen = self.clone();
        seen.note(&news);
        let complete = run.first().is_some_and(|first| first.serial() == serial)
            && run.iter().any(|s| s.head() == known)
            && run.last().is_some_and(|last| last.serial() >= head)
            && seen.doubt(channel).is_none();
        if !complete {
            return Err(NotNow::Incomplete { from: serial, head });
        }
        // Every statement that was read must be the one that beats name, not only the highest.
        if self.named(channel).is_some_and(|named| run.iter().any(|s| s.serial() == named.serial && s.id() != named.id)) {
            return Err(NotNow::NotCurrent(Freshness::Forked));
        }
        let (freshness, time) = (seen.freshness(channel, now), seen.time(now));
        // A namespace that signs no beats has decided to do without.
        let unconfirmed = matches!(freshness, Freshness::Stale { .. }) && !self.promises_beats();
        if !freshness.is_current() && !unconfirmed {
            return Err(NotNow::NotCurrent(freshness));
        }
        if trust.is_expired(time) {
            return Err(NotNow::Expired { trust: trust.serial(), expires: trust.rules().expires });
        }
        let statement = &run[0];
        let Body::Release(release) = statement.body() else { return Err(NotNow::NoRelease(serial)) };
        if let Some(field) = statement.unknown_critical() {
            return Err(NotNow::Critical(field.into()));
        }
        // To stop is one thing, to go back another: that takes those who may release (attack 14).
        let by_releasers = |by: Serial| run.iter().any(|s| s.serial() == by && trust.meets(Kind::Release, s));
        if let Some((by, withdraw)) = withdrawals(&run).filter(|(_, withdraw)| withdraw.withdraws == serial).last() {
            let fallback = withdraw.fallback.filter(|_| by_releasers(by));
            return Err(NotNow::Withdrawn { by, reason: withdraw.reason.clone(), fallback });
        }
        // The floor keeps old things from looking fresh; that it makes young things look ripe is for those without a clock.
        let begun = if clock >= trust.statement().time() { clock } else { time };
        if let Some(start) = release.not_before.filter(|start| begun < *start) {
            return Err(NotNow::Premature(start));
        }
        let applied = self.applied(channel);
        if let Some(applied) = applied.filter(|applied| *applied > serial) {
            let way_back = |(by, withdraw): (Serial, &Withdraw)| {
                withdraw.withdraws == applied && withdraw.fallback == Some(serial) && by_releasers(by)
            };
            if !withdrawals(&run).any(way_back) {
                return Err(NotNow::Older(applied));
            }
        }
        let passed = self.known(channel).and_then(|known| known.passed);
        if let Some(barrier) = release.barrier.filter(|barrier| passed.is_none_or(|passed| passed < *barrier)) {
            return Err(NotNow::Barrier(barrier));
        }
        Ok(statement.clone())
    }
}
