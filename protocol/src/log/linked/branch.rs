//! What contradicts the log, and what decides between the two.

use alloc::{boxed::Box, vec::Vec};

use super::Work;
use crate::{
    Head, Serial,
    log::{Backfill, Begin, Offered, Refused, Span, below},
    trust::Settled,
};

impl Work<'_> {
    /// The heads that decide between branches.
    fn deciding(&self) -> impl Iterator<Item = Head> {
        let checkpoint = match self.judge.trust.checkpoint(&self.step.after.channel) {
            Settled::At(head) => Some(head),
            _ => None,
        };
        checkpoint.into_iter().chain(
            self.judge
                .live
                .filter(|live| checkpoint.is_none_or(|settled| live.serial > settled.serial)),
        )
    }

    /// Whether a run has what decides, at a serial or above.
    pub(super) fn decides(&self, run: &[Offered], at: Serial) -> bool {
        self.deciding().any(|head| {
            head.serial >= at && run.iter().any(|offered| offered.statement().head() == head)
        })
    }

    pub(super) fn is_decided(&self, backfill: &Backfill, at: Serial) -> Result<bool, Refused> {
        for head in self
            .deciding()
            .filter(|head| head.serial >= at && backfill.holds(head.serial))
        {
            if self
                .find(head.serial)?
                .is_some_and(|statement| statement.head() == head)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Another statement than ours stands in a place of the run, or is the one that it follows.
    pub(super) fn contradict(
        &mut self,
        run: Vec<Offered>,
        at: Serial,
        begin: Begin,
    ) -> Result<(), Refused> {
        let continued = self.continues(&run);
        let decided = match (&continued, self.step.after.backfill) {
            (Some(_), Some(backfill)) => self.is_decided(&backfill, at)?,
            _ => false,
        } || self.decides(&run, at);
        let theirs = run
            .iter()
            .find(|offered| offered.statement().serial() >= at)
            .map(|offered| offered.statement().clone());
        let names: Vec<Head> = run
            .iter()
            .map(|offered| offered.statement().head())
            .collect();
        let first = run
            .first()
            .and_then(|first| first.statement().predecessor());
        let piece = match continued.clone() {
            Some(descent) => self.prove(run.clone(), descent)?,
            None => self.prove_alone(run.clone())?,
        };
        drop(piece);
        if !decided {
            let (ours, theirs) = self.stored.at(at)?.zip(theirs).ok_or(Refused::Unreadable)?;
            return Err(Refused::Fork(Box::new((ours, theirs))));
        }
        // Down to where the two part.
        let Some(span) = self.step.after.span else {
            return Ok(());
        };
        let mut lowest = at;
        for named in names
            .iter()
            .copied()
            .chain(first)
            .filter(|named| named.serial < at && named.serial >= span.low)
        {
            if named.serial < lowest
                && self.stored.at(named.serial)?.map(|ours| ours.head()) != Some(named)
            {
                lowest = named.serial;
            }
        }
        self.file(lowest)?;
        self.place(run, begin)
    }

    /// The visible statements from a serial on have lost.
    pub(super) fn file(&mut self, from: Serial) -> Result<(), Refused> {
        let Some(span) = self.step.after.span else {
            return Ok(());
        };
        let lost = (from.max(span.low), span.head.serial);
        self.step
            .insert
            .retain(|statement| statement.serial() < lost.0 || statement.serial() > lost.1);
        self.step.drop.push(lost);
        self.step.filed = Some(
            self.step
                .filed
                .map_or(lost, |filed| (filed.0.min(lost.0), filed.1.max(lost.1))),
        );
        self.log().span = match below(lost.0).filter(|before| *before >= span.low) {
            Some(before) => {
                let head = self.find(before)?.ok_or(Refused::Unreadable)?.head();
                Some(Span {
                    low: span.low,
                    head,
                })
            }
            None => None,
        };
        Ok(())
    }
}
