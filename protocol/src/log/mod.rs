//! The rules of a log, as pure functions: what of an offer is new, where it belongs, and what a
//! change of trust takes away.
//!
//! A [`Log`] is what is known of one channel: the visible statements from `low` to `head`, without
//! a gap, and at most one *backfill*, which is stored above a gap, hidden, and grows downwards
//! until it meets the head. [`Log::offer`] judges a run of statements and gives a [`Step`]: what to
//! store, what to take away, and what the log is then. Nothing has changed before [`Log::apply`],
//! which is for after the commit. Trust logs and beat channels have rules of their own:
//! [`Log::offer_trust`], [`Log::offer_beat`].

mod beats;
mod linked;
mod place;
mod settle;
#[cfg(test)]
mod tests;
mod trust_log;

use alloc::{boxed::Box, vec::Vec};
use core::ops::RangeInclusive;

pub use place::{Place, place};
pub use trust_log::TrustStep;

use crate::{
    Channel, Head, Serial, Statement, Timestamp, Verified, trust::Trust, verify::VerifyError,
};

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The lowest serial that is there.
    pub low: Serial,
    /// The newest statement.
    pub head: Head,
}

/// Statements above a gap: consecutive, stored, and seen by no reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// Its highest statement.
    pub top: Head,
    /// Its lowest serial.
    pub lowest: Serial,
    /// The statement that its lowest names.
    pub below: Option<Head>,
    /// Who vouches for it.
    proof: Proof,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// It has not been judged by this trust yet.
    Unjudged,
    /// Nobody, by the trust with this serial.
    Failed(Serial),
    /// All of it is proven by the trust with this serial; `vouches`: and what it names below is
    /// proven by that.
    Proven { trust: Serial, vouches: bool },
}

impl Backfill {
    /// One that was stored in an earlier life; it is judged anew when something is offered.
    pub fn stored(top: Head, lowest: &Statement) -> Self {
        Self {
            top,
            lowest: lowest.serial(),
            below: lowest.predecessor(),
            proof: Proof::Unjudged,
        }
    }
    fn holds(&self, serial: Serial) -> bool {
        (self.lowest..=self.top.serial).contains(&serial)
    }
    /// Whether the trust by which it was judged last proves it.
    pub fn is_proven(&self) -> bool {
        matches!(self.proof, Proof::Proven { .. })
    }
}

/// One channel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    channel: Channel,
    span: Option<Span>,
    backfill: Option<Backfill>,
    /// The statement that a checkpoint names, where it is kept below `low`.
    kept: Option<Head>,
}

/// By what an offer is judged.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The trust in force.
    pub trust: &'a Trust,
    /// What the live beat names for the channel, where it decides between branches: at mirrors.
    pub live: Option<Head>,
    /// The latest time of what is taken by its own signatures; none for who has no clock.
    pub until: Option<Timestamp>,
}

/// One statement of a run that is offered.
#[derive(Clone, Debug)]
pub enum Offered {
    /// Verified by its own signatures, by the very trust that judges the offer.
    Proven(Verified<Statement>),
    /// Perhaps one that only what follows it vouches for.
    Unproven(Statement),
}

impl Offered {
    /// The statement.
    pub fn statement(&self) -> &Statement {
        match self {
            Self::Proven(statement) => statement,
            Self::Unproven(statement) => statement,
        }
    }
    /// The statement alone.
    pub fn into_statement(self) -> Statement {
        match self {
            Self::Proven(statement) => statement.into_inner(),
            Self::Unproven(statement) => statement,
        }
    }
}

/// What may be begun with a run that lies above a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Begin {
    /// Nothing.
    Nothing,
    /// The backfill; or what a checkpoint names, alone, below a gap below the log.
    Backfill,
    /// The log, if there is none: nothing below the lowest of the run is to be had, or wanted.
    Log,
    /// The log, even if there is one that ends below.
    Anew,
}

/// What is stored.
pub trait Stored {
    /// The statement in a place, visible or not.
    ///
    /// # Errors
    /// If it cannot be read.
    fn at(&self, serial: Serial) -> Result<Option<Statement>, Unreadable>;
}

impl<F: Fn(Serial) -> Result<Option<Statement>, Unreadable>> Stored for F {
    fn at(&self, serial: Serial) -> Result<Option<Statement>, Unreadable> {
        self(serial)
    }
}

/// What is stored cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What an offer comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// To be stored; after `drop`.
    pub insert: Vec<Verified<Statement>>,
    /// Places of which nothing stays.
    pub drop: Vec<(Serial, Serial)>,
    /// Of those, the ones that were visible and have lost: they are kept elsewhere, as evidence.
    pub filed: Option<(Serial, Serial)>,
    /// Two statements for one place, both proven: ours, and the one that has no effect.
    pub evidence: Option<Box<(Statement, Statement)>>,
    /// What the log is then.
    after: Log,
}

impl Step {
    /// What the log is after it.
    pub fn after(&self) -> &Log {
        &self.after
    }
    /// Whether it changes nothing.
    pub fn is_nothing(&self, before: &Log) -> bool {
        self.insert.is_empty() && self.drop.is_empty() && self.after == *before
    }
    /// The serials that become visible by it.
    pub fn shown(&self, before: &Log) -> Option<RangeInclusive<Serial>> {
        let after = self.after.span?;
        let next = match before.span {
            Some(span) if span.low <= after.low && after.head.serial >= span.head.serial => {
                span.head.serial.next()?
            }
            Some(span) if after.low < span.low && after.head == span.head => {
                return Some(after.low..=below(span.low)?);
            }
            _ => after.low,
        };
        (next <= after.head.serial).then(|| next.max(after.low)..=after.head.serial)
    }
}

/// Why an offer has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not proven, or may not stand there.
    #[error("{0}: {1}")]
    Verify(Serial, VerifyError),
    /// What lies between comes first.
    #[error("what lies below comes first, from serial {from} on")]
    Gap {
        /// The first that is missing.
        from: Serial,
    },
    /// Another statement stands in its place, or in the place that it follows.
    #[error("{} {} has another id here", .0.1.channel(), .0.1.serial())]
    Fork(Box<(Statement, Statement)>),
    /// Its place is not kept any more.
    #[error("serial {0} is not kept here any more")]
    Expired(Serial),
    /// It is dated too far ahead to be taken now.
    #[error("its Time, {time}, is too far ahead of the clock here")]
    Future {
        /// Its time.
        time: Timestamp,
    },
    /// The log cannot be read.
    #[error("what is stored cannot be read")]
    Unreadable,
}

impl From<Unreadable> for Refused {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

impl Log {
    /// The log of a channel that nothing is known of.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            span: None,
            backfill: None,
            kept: None,
        }
    }

    /// A log as it was stored.
    pub fn stored(
        channel: Channel,
        span: Option<Span>,
        backfill: Option<Backfill>,
        kept: Option<Head>,
    ) -> Self {
        Self {
            channel,
            span,
            backfill,
            kept,
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
    /// What can be read.
    pub fn span(&self) -> Option<Span> {
        self.span
    }
    /// The newest statement.
    pub fn head(&self) -> Option<Head> {
        Some(self.span?.head)
    }
    /// What is stored above a gap.
    pub fn backfill(&self) -> Option<&Backfill> {
        self.backfill.as_ref()
    }
    /// The statement that a checkpoint names, where it is kept below the others.
    pub fn kept(&self) -> Option<Head> {
        self.kept
    }

    /// Takes a step whose changes are durable.
    pub fn apply(&mut self, step: &Step) {
        self.clone_from(&step.after);
    }

    /// The step by which the backfill is given up.
    pub fn give_up(&self) -> Option<Step> {
        let backfill = self.backfill?;
        let mut step = self.step();
        step.drop.push((backfill.lowest, backfill.top.serial));
        step.after.backfill = None;
        Some(step)
    }

    /// The step by which the log begins with the backfill: what lies below has not come, and is not
    /// waited for any longer. What the log had below goes, but for the statement that a checkpoint
    /// names.
    pub fn begin_with_backfill(&self, settled: Option<Head>) -> Option<Step> {
        let backfill = self.backfill.filter(Backfill::is_proven)?;
        let mut step = self.step();
        if let Some(span) = self.span {
            self.drop_but_settled(&mut step, (span.low, span.head.serial), settled);
        }
        step.after.span = Some(Span {
            low: backfill.lowest,
            head: backfill.top,
        });
        step.after.backfill = None;
        Some(step)
    }

    /// The step by which retention removes what lies below a serial, but for the statement that a
    /// checkpoint names; the head stays.
    pub fn trim(&self, low: Serial, settled: Option<Head>) -> Option<Step> {
        let span = self
            .span
            .filter(|span| span.low < low && low <= span.head.serial)?;
        let mut step = self.step();
        self.drop_but_settled(&mut step, (span.low, below(low)?), settled);
        step.after.span = Some(Span { low, ..span });
        Some(step)
    }

    /// The step by which the channel is dropped.
    pub fn clear(&self) -> Step {
        let mut step = self.step();
        step.drop
            .extend(self.span.map(|span| (span.low, span.head.serial)));
        step.drop.extend(
            self.backfill
                .map(|backfill| (backfill.lowest, backfill.top.serial)),
        );
        step.drop
            .extend(self.kept.map(|kept| (kept.serial, kept.serial)));
        step.after = Self::new(self.channel.clone());
        step
    }

    /// Visible statements go; what a checkpoint names is kept apart.
    fn drop_but_settled(
        &self,
        step: &mut Step,
        (low, high): (Serial, Serial),
        settled: Option<Head>,
    ) {
        let kept = settled.filter(|settled| (low..=high).contains(&settled.serial));
        let Some(here) = kept else {
            return step.drop.push((low, high));
        };
        step.drop.extend(
            below(here.serial)
                .filter(|before| *before >= low)
                .map(|before| (low, before)),
        );
        step.drop.extend(
            here.serial
                .next()
                .filter(|after| *after <= high)
                .map(|after| (after, high)),
        );
        step.drop.extend(
            self.kept
                .filter(|old| *old != here)
                .map(|old| (old.serial, old.serial)),
        );
        step.after.kept = kept;
    }

    fn step(&self) -> Step {
        Step {
            insert: Vec::new(),
            drop: Vec::new(),
            filed: None,
            evidence: None,
            after: self.clone(),
        }
    }
}

/// The serial before one.
fn below(serial: Serial) -> Option<Serial> {
    Serial::new(serial.number() - 1)
}

fn serials(range: RangeInclusive<u32>) -> impl DoubleEndedIterator<Item = Serial> {
    range.filter_map(Serial::new)
}
