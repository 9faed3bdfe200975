//! Beat channels: no links, no forks. The highest serial that is proven counts, and the beat that a
//! checkpoint names is kept.

use super::{Judge, Log, Offered, Refused, Span, Step};
use crate::{Head, Verified, trust::Trust};

impl Log {
    /// Judges a beat of this channel.
    ///
    /// # Errors
    /// Why it has no effect.
    pub fn offer_beat(&self, judge: Judge<'_>, offered: Offered) -> Result<Step, Refused> {
        let head = offered.statement().head();
        let newest = self.head();
        if newest == Some(head) || self.kept == Some(head) {
            return Ok(self.step());
        }
        if settled(judge.trust, self) == Some(head)
            && newest.is_none_or(|newest| newest.serial > head.serial || newest.id == head.id)
        {
            return self.keep(judge.trust, offered, head);
        }
        if let Some(newest) = newest.filter(|newest| newest.serial >= head.serial) {
            return Err(Refused::Expired(newest.serial));
        }
        let time = offered.statement().time();
        let beat = match offered {
            Offered::Proven(beat) => beat,
            Offered::Unproven(beat) => judge
                .trust
                .verify(beat)
                .map_err(|error| Refused::Verify(head.serial, error))?,
        };
        if judge.until.is_some_and(|until| time > until) {
            return Err(Refused::Future { time });
        }
        let mut step = self.step();
        self.forget_below_gap(&mut step, head, settled(judge.trust, self));
        step.insert.push(beat);
        Ok(step)
    }

    /// The log of beats has no gap but that below the newest run: what lies below one is of no use
    /// to anybody, but for the beat that a checkpoint names.
    fn forget_below_gap(&self, step: &mut Step, head: Head, settled: Option<Head>) {
        let goes_on = self
            .span
            .filter(|span| span.head.serial.next() == Some(head.serial));
        step.after.span = Some(goes_on.map_or(
            Span {
                low: head.serial,
                head,
            },
            |span| Span { head, ..span },
        ));
        if let Some(span) = self.span.filter(|_| goes_on.is_none()) {
            self.drop_but_settled(step, (span.low, span.head.serial), settled);
        }
    }

    fn keep(&self, trust: &Trust, offered: Offered, head: Head) -> Result<Step, Refused> {
        let beat: Verified<_> = trust
            .verify_settled_beat(offered.into_statement())
            .ok_or(Refused::Expired(head.serial))?;
        let mut step = self.step();
        match self.span {
            None => {
                step.after.span = Some(Span {
                    low: head.serial,
                    head,
                })
            }
            Some(span) if span.low <= head.serial => {}
            Some(_) => step.after.kept = Some(head),
        }
        if let Some(old) = self.kept.filter(|old| *old != head) {
            step.drop.push((old.serial, old.serial));
        }
        step.insert.push(beat);
        Ok(step)
    }

    /// What a change of trust takes away: beats at the head that are proven no more.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn settle_beats(
        &self,
        trust: &Trust,
        stored: &dyn super::Stored,
    ) -> Result<Option<Step>, super::Unreadable> {
        let Some(span) = self.span else {
            return Ok(None);
        };
        let (settled, mut head) = (settled(trust, self), None);
        for serial in super::serials(span.low.number()..=span.head.serial.number()).rev() {
            let beat = stored.at(serial)?.ok_or(super::Unreadable)?;
            if settled == Some(beat.head()) || trust.check(&beat).is_ok() {
                head = Some(beat.head());
                break;
            }
        }
        if head == Some(span.head) {
            return Ok(None);
        }
        let mut step = self.step();
        let from = head.and_then(|head| head.serial.next()).unwrap_or(span.low);
        step.drop.push((from, span.head.serial));
        step.filed = Some((from, span.head.serial));
        step.after.span = match (head, self.kept) {
            (Some(head), _) => Some(Span { head, ..span }),
            (None, Some(kept)) => Some(Span {
                low: kept.serial,
                head: kept,
            }),
            (None, None) => None,
        };
        if head.is_none() {
            step.after.kept = None;
        }
        Ok(Some(step))
    }
}

/// The beat of this channel that a checkpoint names.
fn settled(trust: &Trust, log: &Log) -> Option<Head> {
    trust.named_beat(&log.channel)
}
