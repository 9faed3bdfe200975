//! The part below a gap: it begins, grows both ways, and meets the log.

use alloc::{boxed::Box, vec::Vec};

use super::{Piece, Work};
use crate::{
    Serial,
    log::{Backfill, Begin, Offered, Proof, Refused, Span},
    trust::{Descent, Settled},
    verify::VerifyError,
};

impl Work<'_> {
    /// Looks whether head and backfill touch now.
    pub(super) fn meet(&mut self) -> Result<(), Refused> {
        let Some((span, backfill)) = self.step.after.span.zip(self.step.after.backfill) else {
            return Ok(());
        };
        if span.head.serial.next() != Some(backfill.lowest) {
            return Ok(());
        }
        if backfill.below == Some(span.head) {
            if backfill.is_proven() {
                self.join();
            }
            return Ok(());
        }
        if backfill.is_proven() && self.is_decided(&backfill, span.head.serial)? {
            return self.file(span.head.serial);
        }
        let hidden = self.stored.at(backfill.lowest)?;
        let ours = self.find(span.head.serial)?;
        self.step.evidence = ours.zip(hidden).map(Box::new);
        self.drop_backfill();
        Ok(())
    }

    /// The backfill becomes a part of the log.
    pub(super) fn join(&mut self) {
        let Some(backfill) = self.log().backfill.take() else {
            return;
        };
        let low = self
            .step
            .after
            .span
            .map_or(backfill.lowest, |span| span.low);
        self.log().span = Some(Span {
            low,
            head: backfill.top,
        });
    }

    pub(super) fn drop_backfill(&mut self) {
        if let Some(backfill) = self.log().backfill.take() {
            self.step.drop.push((backfill.lowest, backfill.top.serial));
        }
    }

    /// What lies above a gap, where there is no backfill.
    pub(super) fn begin(&mut self, run: Vec<Offered>, begin: Begin) -> Result<(), Refused> {
        let from = self
            .step
            .after
            .head()
            .map_or(Some(Serial::FIRST), |head| head.serial.next())
            .unwrap_or(Serial::FIRST);
        if begin == Begin::Nothing {
            return Err(Refused::Gap { from });
        }
        let piece = self.prove_alone(run)?;
        self.set_backfill(piece, begin)
    }

    fn set_backfill(&mut self, piece: Piece, begin: Begin) -> Result<(), Refused> {
        let (Some(first), Some(last)) = (piece.run.first(), piece.run.last()) else {
            return Ok(());
        };
        let proof = Proof::Proven {
            trust: self.judge.trust.serial(),
            vouches: piece.vouches,
        };
        let (lowest, top) = (first.serial(), last.head());
        self.log().backfill = Some(Backfill {
            top,
            lowest,
            below: piece.below,
            proof,
        });
        self.step.insert.extend(piece.run);
        self.settle_beginning(begin)
    }

    pub(super) fn replace_backfill(
        &mut self,
        run: Vec<Offered>,
        begin: Begin,
    ) -> Result<(), Refused> {
        if begin == Begin::Nothing {
            return Err(Refused::Gap {
                from: Serial::FIRST,
            });
        }
        let piece = self.prove_alone(run)?;
        self.drop_backfill();
        self.set_backfill(piece, begin)
    }

    pub(super) fn grow_down(
        &mut self,
        run: Vec<Offered>,
        descent: Descent,
        begin: Begin,
    ) -> Result<(), Refused> {
        let piece = self.prove(run, descent)?;
        let trust = self.judge.trust.serial();
        if let (Some(first), Some(backfill)) = (piece.run.first(), &mut self.step.after.backfill) {
            (backfill.lowest, backfill.below) = (first.serial(), piece.below);
            backfill.proof = Proof::Proven {
                trust,
                vouches: piece.vouches,
            };
        }
        self.step.insert.extend(piece.run);
        self.settle_beginning(begin)
    }

    /// What follows the top of the backfill, and may vouch for it.
    pub(super) fn grow_up(&mut self, run: Vec<Offered>, backfill: Backfill) -> Result<(), Refused> {
        let piece = self.prove_alone(run)?;
        let trust = self.judge.trust.serial();
        let proof = match backfill.proof {
            _ if piece.vouches => Proof::Proven {
                trust,
                vouches: true,
            },
            Proof::Proven { .. } => backfill.proof,
            _ => self.descend(
                backfill,
                Descent::below(self.step.after.channel.clone(), piece.below, false),
            )?,
        };
        let top = piece.run.last().map_or(backfill.top, |last| last.head());
        self.log().backfill = Some(Backfill {
            top,
            proof,
            ..backfill
        });
        self.step.insert.extend(piece.run);
        self.meet()
    }

    /// A run that has the same as the backfill, and more above or below it.
    pub(super) fn extend_both(
        &mut self,
        mut run: Vec<Offered>,
        backfill: Backfill,
        begin: Begin,
    ) -> Result<(), Refused> {
        let mut rest = run.split_off(
            run.partition_point(|offered| offered.statement().serial() < backfill.lowest),
        );
        let above = rest.split_off(
            rest.partition_point(|offered| offered.statement().serial() <= backfill.top.serial),
        );
        if !above.is_empty() {
            self.grow_up(above, backfill)?;
        }
        match self.continues(&run) {
            Some(descent) => self.grow_down(run, descent, begin),
            None => self.settle_beginning(begin),
        }
    }

    /// Whether the backfill is as low as it has to be.
    fn settle_beginning(&mut self, begin: Begin) -> Result<(), Refused> {
        let Some(backfill) = self.step.after.backfill.filter(Backfill::is_proven) else {
            return Ok(());
        };
        let (span, may) = (self.step.after.span, begin >= Begin::Log);
        match span {
            None if may || backfill.below.is_none() => self.join(),
            Some(span) if begin == Begin::Anew && backfill.below != Some(span.head) => {
                self.step.drop.push((span.low, span.head.serial));
                self.log().span = None;
                self.join();
            }
            _ => return self.meet(),
        }
        Ok(())
    }

    /// What lies below the log, and is named by its lowest statement.
    pub(super) fn extend_below(&mut self, run: Vec<Offered>, begin: Begin) -> Result<(), Refused> {
        let Some((span, last)) = self
            .step
            .after
            .span
            .zip(run.last().map(|last| last.statement().head()))
        else {
            return Ok(());
        };
        let named = self
            .stored
            .at(span.low)?
            .and_then(|lowest| lowest.predecessor());
        if named != Some(last) {
            let apart = last.serial.next() == Some(span.low);
            let checkpoint = self.judge.trust.checkpoint(&self.step.after.channel);
            if !apart && run.len() == 1 && begin > Begin::Nothing && checkpoint == Settled::At(last)
            {
                return self.keep(run);
            }
            let expected = named.map_or(last.id, |named| named.id);
            let error = VerifyError::Link {
                serial: last.serial,
                expected,
                found: last.id,
            };
            return Err(if apart {
                Refused::Verify(last.serial, error)
            } else {
                Refused::Expired(last.serial)
            });
        }
        // The log vouches for it, if what stands there is vouched for now.
        let whole = Backfill {
            top: span.head,
            lowest: span.low,
            below: named,
            proof: Proof::Unjudged,
        };
        let proof = self.descend(whole, Descent::new(self.step.after.channel.clone()))?;
        let vouched = matches!(proof, Proof::Proven { vouches: true, .. });
        let piece = self.prove(
            run,
            Descent::below(self.step.after.channel.clone(), named, vouched),
        )?;
        if let Some(first) = piece.run.first() {
            let low = first.serial();
            self.log().span = Some(Span { low, ..span });
            if let Some(kept) = self.step.after.kept.filter(|kept| kept.serial >= low) {
                // It is a part of the log again.
                self.log().kept = None;
                self.step.drop.push((kept.serial, kept.serial));
            }
        }
        self.step.insert.extend(piece.run);
        Ok(())
    }

    /// What a checkpoint names, and lies below a gap below the log: who restarts needs it (2-14).
    fn keep(&mut self, run: Vec<Offered>) -> Result<(), Refused> {
        let piece = self.prove_alone(run)?;
        let named = piece.run.first().map(|named| named.head());
        if named != self.step.after.kept {
            let old = core::mem::replace(&mut self.log().kept, named);
            self.step
                .drop
                .extend(old.map(|old| (old.serial, old.serial)));
            self.step.insert.extend(piece.run);
        }
        Ok(())
    }
}
