//! Logs of releases and withdrawals: everything is linked, and proven from above.

use alloc::{boxed::Box, vec::Vec};

use super::{
    Backfill, Begin, Judge, Log, Offered, Proof, Refused, Span, Step, Stored, below, serials,
};
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
                    self.extend_below(run)
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
            return self.extend_below(run);
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

    /// Looks whether head and backfill touch now.
    fn meet(&mut self) -> Result<(), Refused> {
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

    /// The backfill becomes a part of the log.
    fn join(&mut self) {
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

    fn drop_backfill(&mut self) {
        if let Some(backfill) = self.log().backfill.take() {
            self.step.drop.push((backfill.lowest, backfill.top.serial));
        }
    }

    /// What lies above a gap, where there is no backfill.
    fn begin(&mut self, run: Vec<Offered>, begin: Begin) -> Result<(), Refused> {
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

    fn replace_backfill(&mut self, run: Vec<Offered>, begin: Begin) -> Result<(), Refused> {
        if begin == Begin::Nothing {
            return Err(Refused::Gap {
                from: Serial::FIRST,
            });
        }
        let piece = self.prove_alone(run)?;
        self.drop_backfill();
        self.set_backfill(piece, begin)
    }

    fn grow_down(
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
    fn grow_up(&mut self, run: Vec<Offered>, backfill: Backfill) -> Result<(), Refused> {
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
    fn extend_both(
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
    fn extend_below(&mut self, run: Vec<Offered>) -> Result<(), Refused> {
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
            self.log().span = Some(Span {
                low: first.serial(),
                ..span
            });
        }
        self.step.insert.extend(piece.run);
        Ok(())
    }

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
    fn decides(&self, run: &[Offered], at: Serial) -> bool {
        self.deciding().any(|head| {
            head.serial >= at && run.iter().any(|offered| offered.statement().head() == head)
        })
    }

    fn is_decided(&self, backfill: &Backfill, at: Serial) -> Result<bool, Refused> {
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
    fn contradict(&mut self, run: Vec<Offered>, at: Serial, begin: Begin) -> Result<(), Refused> {
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
    fn file(&mut self, from: Serial) -> Result<(), Refused> {
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
