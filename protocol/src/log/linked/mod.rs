//! Logs of releases and withdrawals: everything is linked, and proven from above.

mod backfill;
mod branch;

use alloc::{boxed::Box, vec::Vec};

use super::{Backfill, Begin, Judge, Log, Offered, Proof, Refused, Span, Step, Stored, serials};
use crate::{
    Head, Serial, Statement, Verified,
    trust::{Descent, Settled},
    verify::VerifyError,
};

/// How an overlapping run stands to what is stored.
enum Overlap {
    None,
    /// The same, from the highest place that both have on.
    Same,
    /// Another statement in that place.
    Other(Serial),
}

/// A run, proven.
struct Piece {
    run: Vec<Verified<Statement>>,
    below: Option<Head>,
    vouches: bool,
}

struct Work<'a> {
    judge: Judge<'a>,
    stored: &'a dyn Stored,
    step: Step,
}

impl Log {
    /// Judges consecutive statements of this channel, oldest first, all or nothing.
    ///
    /// # Errors
    /// Why it has no effect.
    pub fn offer(
        &self,
        judge: Judge<'_>,
        run: Vec<Offered>,
        begin: Begin,
        stored: &dyn Stored,
    ) -> Result<Step, Refused> {
        let gap = run
            .windows(2)
            .find(|pair| pair[1].statement().predecessor() != Some(pair[0].statement().head()));
        #[cfg(feature = "simulated")]
        let gap = gap.filter(|_| !crate::simulated::has(crate::simulated::Fault::Links));
        if let Some(gap) = gap {
            let (found, next) = (gap[0].statement(), gap[1].statement());
            let expected = next.previous().unwrap_or(next.id());
            return Err(Refused::Verify(
                found.serial(),
                VerifyError::Link {
                    serial: found.serial(),
                    expected,
                    found: found.id(),
                },
            ));
        }
        let mut work = Work {
            judge,
            stored,
            step: self.step(),
        };
        work.judge_backfill()?;
        work.place(run, begin)?;
        Ok(work.step)
    }
}

impl Work<'_> {
    fn log(&mut self) -> &mut Log {
        &mut self.step.after
    }

    /// Judges the backfill by the trust in force, from its top down as far as that needs.
    fn judge_backfill(&mut self) -> Result<(), Refused> {
        let in_force = self.judge.trust.serial();
        let Some(backfill) = self.step.after.backfill else {
            return Ok(());
        };
        if matches!(backfill.proof, Proof::Failed(by) | Proof::Proven { trust: by, .. } if by == in_force)
        {
            return Ok(());
        }
        let proof = self.descend(backfill, Descent::new(self.step.after.channel.clone()))?;
        self.log().backfill = Some(Backfill { proof, ..backfill });
        Ok(())
    }

    fn descend(&self, backfill: Backfill, mut descent: Descent) -> Result<Proof, Refused> {
        let in_force = self.judge.trust.serial();
        for serial in serials(backfill.lowest.number()..=backfill.top.serial.number()).rev() {
            if descent.vouches() {
                break;
            }
            let proven = self
                .stored
                .at(serial)?
                .is_some_and(|statement| descent.check(self.judge.trust, &statement).is_ok());
            if !proven {
                return Ok(Proof::Failed(in_force));
            }
        }
        Ok(Proof::Proven {
            trust: in_force,
            vouches: descent.vouches(),
        })
    }

    /// Proves a run from its newest down.
    fn prove(&self, run: Vec<Offered>, mut descent: Descent) -> Result<Piece, Refused> {
        let trust = self.judge.trust;
        let mut proven = Vec::with_capacity(run.len());
        for offered in run.into_iter().rev() {
            let (serial, time, alone) = (
                offered.statement().serial(),
                offered.statement().time(),
                !descent.vouches(),
            );
            let taken = match offered {
                Offered::Proven(statement) => descent.take_verified(trust, statement),
                Offered::Unproven(statement) => descent.take(trust, statement),
            };
            proven.push(taken.map_err(|error| Refused::Verify(serial, error))?);
            // What is vouched for is not judged by its time.
            let settled = matches!(trust.checkpoint(&self.step.after.channel), Settled::At(head) if head.serial == serial);
            if alone && !settled && self.judge.until.is_some_and(|until| time > until) {
                return Err(Refused::Future { time });
            }
        }
        proven.reverse();
        Ok(Piece {
            run: proven,
            below: descent.next(),
            vouches: descent.vouches(),
        })
    }

    fn prove_alone(&self, run: Vec<Offered>) -> Result<Piece, Refused> {
        self.prove(run, Descent::new(self.step.after.channel.clone()))
    }

    /// Whether a run goes on where the backfill ends, which vouches for it.
    fn continues(&self, run: &[Offered]) -> Option<Descent> {
        let backfill = self.step.after.backfill?;
        let Proof::Proven { vouches, .. } = backfill.proof else {
            return None;
        };
        let last = run.last()?.statement().head();
        (backfill.below == Some(last))
            .then(|| Descent::below(self.step.after.channel.clone(), backfill.below, vouches))
    }

    fn overlap(&self, run: &[Offered], low: Serial, high: Serial) -> Result<Overlap, Refused> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(Overlap::None);
        };
        let at = last.statement().serial().min(high);
        if at < low || at < first.statement().serial() {
            return Ok(Overlap::None);
        }
        let theirs = run
            .iter()
            .find(|offered| offered.statement().serial() == at)
            .map(|offered| offered.statement().id());
        let same = match self.step.after.head().filter(|head| head.serial == at) {
            Some(head) => theirs == Some(head.id),
            None => self.stored.at(at)?.map(|ours| ours.id()) == theirs,
        };
        Ok(if same {
            Overlap::Same
        } else {
            Overlap::Other(at)
        })
    }

    fn place(&mut self, mut run: Vec<Offered>, begin: Begin) -> Result<(), Refused> {
        let Some(Span { low, head }) = self.step.after.span else {
            return self.place_above(run, begin);
        };
        match self.overlap(&run, low, head.serial)? {
            Overlap::Other(at) => return self.contradict(run, at, begin),
            Overlap::Same => {
                let first_new =
                    run.partition_point(|offered| offered.statement().serial() <= head.serial);
                let above = run.split_off(first_new);
                if !above.is_empty() {
                    return self.place_above(above, begin);
                }
                run.retain(|offered| offered.statement().serial() < low);
                return if run.is_empty() {
                    Ok(())
                } else {
                    self.extend_below(run, begin)
                };
            }
            Overlap::None => {}
        }
        let Some((first, last)) = run
            .first()
            .zip(run.last())
            .map(|(first, last)| (first.statement(), last.statement()))
        else {
            return Ok(());
        };
        if last.serial() < low {
            return self.extend_below(run, begin);
        }
        if head.serial.next() == Some(first.serial()) && first.predecessor() != Some(head) {
            return self.contradict(run, head.serial, begin);
        }
        self.place_above(run, begin)
    }

    /// Everything of the run lies above the head.
    fn place_above(&mut self, run: Vec<Offered>, begin: Begin) -> Result<(), Refused> {
        let Some(first) = run.first().map(|first| first.statement().predecessor()) else {
            return Ok(());
        };
        if first == self.step.after.head() {
            return self.append(run);
        }
        let Some(backfill) = self.step.after.backfill else {
            return self.begin(run, begin);
        };
        match self.overlap(&run, backfill.lowest, backfill.top.serial)? {
            Overlap::Same if backfill.is_proven() => self.extend_both(run, backfill, begin),
            Overlap::Same => self.replace_backfill(run, begin),
            Overlap::Other(at) if !backfill.is_proven() || self.decides(&run, at) => {
                self.replace_backfill(run, begin)
            }
            Overlap::Other(at) => {
                let theirs = run
                    .iter()
                    .find(|offered| offered.statement().serial() == at)
                    .map(|offered| offered.statement().clone());
                let piece = self.prove_alone(run)?;
                drop(piece);
                let (ours, theirs) = self.stored.at(at)?.zip(theirs).ok_or(Refused::Unreadable)?;
                Err(Refused::Fork(Box::new((ours, theirs))))
            }
            Overlap::None if first == Some(backfill.top) => self.grow_up(run, backfill),
            Overlap::None => match self.continues(&run) {
                Some(descent) => self.grow_down(run, descent, begin),
                None if !backfill.is_proven() => self.replace_backfill(run, begin),
                None => Err(Refused::Gap {
                    from: backfill.below.map_or(Serial::FIRST, |below| below.serial),
                }),
            },
        }
    }

    /// What follows the head, or begins the log.
    fn append(&mut self, mut run: Vec<Offered>) -> Result<(), Refused> {
        let mut rest = Vec::new();
        if let Some(backfill) = self.step.after.backfill {
            match self.overlap(&run, backfill.lowest, backfill.top.serial)? {
                Overlap::None => {}
                Overlap::Same if backfill.is_proven() => {
                    // The backfill has it; what lies below joins, what lies above comes after that.
                    rest =
                        run.split_off(run.partition_point(|offered| {
                            offered.statement().serial() < backfill.lowest
                        }));
                    rest.retain(|offered| offered.statement().serial() > backfill.top.serial);
                    if run.is_empty() {
                        self.join();
                        return if rest.is_empty() {
                            Ok(())
                        } else {
                            self.append(rest)
                        };
                    }
                }
                Overlap::Same => self.drop_backfill(),
                Overlap::Other(at) => {
                    let ours = run
                        .iter()
                        .find(|offered| offered.statement().serial() == at)
                        .map(|offered| offered.statement().clone());
                    let hidden = self.stored.at(at)?;
                    self.step.evidence = ours.zip(hidden).map(Box::new);
                    self.drop_backfill();
                }
            }
        }
        let piece = match self.continues(&run) {
            Some(descent) => self.prove(run, descent)?,
            None => self.prove_alone(run)?,
        };
        let Some((low, head)) = piece
            .run
            .first()
            .map(|first| first.serial())
            .zip(piece.run.last().map(|last| last.head()))
        else {
            return Ok(());
        };
        let low = self.step.after.span.map_or(low, |span| span.low);
        self.log().span = Some(Span { low, head });
        self.step.insert.extend(piece.run);
        self.meet()?;
        if rest.is_empty() {
            Ok(())
        } else {
            self.append(rest)
        }
    }

    fn find(&self, serial: Serial) -> Result<Option<Statement>, Refused> {
        match self
            .step
            .insert
            .iter()
            .find(|statement| statement.serial() == serial)
        {
            Some(statement) => Ok(Some((**statement).clone())),
            None => Ok(self.stored.at(serial)?),
        }
    }
}
