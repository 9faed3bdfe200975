//! What a trust statement that comes into force takes away from a log, and what it must not.

use super::{Log, Span, Step, Stored, Unreadable, below, serials};
use crate::{
    Head, Serial, Statement,
    statement::{Body, Kind},
    trust::{Settled, Trust},
};

impl Log {
    /// The step that a trust statement which comes into force makes: above a checkpoint, what is
    /// not proven any more is filed away, and its place is free; a log that the checkpoint has
    /// decided against ends below it.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn settle(&self, trust: &Trust, stored: &dyn Stored) -> Result<Option<Step>, Unreadable> {
        if self.channel.is_trust() {
            return Ok(None);
        }
        if self.channel.is_beat() {
            return self.settle_beats(trust, stored);
        }
        let (Some(span), Settled::At(checkpoint)) = (self.span, trust.checkpoint(&self.channel))
        else {
            return Ok(None);
        };
        if !(span.low..=span.head.serial).contains(&checkpoint.serial) {
            return Ok(None);
        }
        let stays = self.stays(trust, span, Some(checkpoint), stored)?;
        if stays == Some(span.head.serial) {
            return Ok(None);
        }
        let from = stays.and_then(Serial::next).unwrap_or(span.low);
        let mut step = self.step();
        step.drop.push((from, span.head.serial));
        step.filed = Some((from, span.head.serial));
        step.after.span = match stays {
            Some(serial) => Some(Span {
                low: span.low,
                head: stored.at(serial)?.ok_or(Unreadable)?.head(),
            }),
            None => None,
        };
        Ok(Some(step))
    }

    /// Up to where a log is proven by a trust statement; none if nothing of it is.
    fn stays(
        &self,
        trust: &Trust,
        span: Span,
        checkpoint: Option<Head>,
        stored: &dyn Stored,
    ) -> Result<Option<Serial>, Unreadable> {
        let mut base = None;
        if let Some(checkpoint) = checkpoint {
            if stored.at(checkpoint.serial)?.map(|ours| ours.head()) != Some(checkpoint) {
                return Ok(below(checkpoint.serial).filter(|serial| *serial >= span.low));
            }
            base = Some(checkpoint.serial);
        }
        // The newest release that proves itself proves what lies below it; withdrawals above it
        // have to prove themselves.
        let first = base.and_then(Serial::next).unwrap_or(span.low);
        let mut withdrawals = None;
        for serial in serials(first.number()..=span.head.serial.number()).rev() {
            let statement = stored.at(serial)?.ok_or(Unreadable)?;
            let proven = trust.check(&statement).is_ok();
            match proven {
                true if statement.kind() == Kind::Release => {
                    return Ok(withdrawals.or(Some(serial)));
                }
                true => withdrawals = withdrawals.or(Some(serial)),
                false => withdrawals = None,
            }
        }
        Ok(withdrawals.or(base))
    }

    /// A withdrawal of a release that stays, which is proven by the trust in force and would not be
    /// by its successor: it has to be issued anew first.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn would_lose(
        &self,
        in_force: &Trust,
        trust: &Trust,
        stored: &dyn Stored,
    ) -> Result<Option<Head>, Unreadable> {
        let Some(span) = self
            .span
            .filter(|_| !self.channel.is_trust() && !self.channel.is_beat())
        else {
            return Ok(None);
        };
        if trust.rules().is_closed(&self.channel) {
            return Ok(None);
        }
        let up_to = |trust: &Trust| {
            let checkpoint = match trust.checkpoint(&self.channel) {
                Settled::At(head) if (span.low..=span.head.serial).contains(&head.serial) => {
                    Some(head)
                }
                _ => None,
            };
            self.stays(trust, span, checkpoint, stored)
        };
        let Some(stays) = up_to(trust)? else {
            return Ok(None);
        };
        if stays == span.head.serial {
            return Ok(None);
        }
        let proven = up_to(in_force)?.map_or(0, Serial::number);
        for serial in serials(stays.number() + 1..=proven) {
            let statement = stored.at(serial)?.ok_or(Unreadable)?;
            let Some(release) = withdrawn(&statement)
                .filter(|release| release.serial <= stays && release.serial >= span.low)
            else {
                continue;
            };
            let is_there = stored
                .at(release.serial)?
                .is_some_and(|ours| ours.head() == release);
            if is_there && !self.is_withdrawn(release, stays, stored)? {
                return Ok(Some(statement.head()));
            }
        }
        Ok(None)
    }

    fn is_withdrawn(
        &self,
        release: Head,
        up_to: Serial,
        stored: &dyn Stored,
    ) -> Result<bool, Unreadable> {
        for serial in serials(release.serial.number() + 1..=up_to.number()) {
            if stored.at(serial)?.as_ref().and_then(withdrawn) == Some(release) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn withdrawn(statement: &Statement) -> Option<Head> {
    match statement.body() {
        Body::Withdraw(withdraw) => Some(withdraw.withdraws),
        _ => None,
    }
}
