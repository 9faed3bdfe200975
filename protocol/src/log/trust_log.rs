//! Trust logs: each statement is judged by the one before; what lies below the anchor is proven by
//! links, and gives no rights.

use alloc::vec::Vec;

use super::{Log, Refused, Span, Step, Stored};
use crate::{
    Anchor, Head, Serial, Statement,
    trust::{Descent, Trust},
    verify::VerifyError,
};

/// What an offer to a trust log comes to.
#[derive(Clone, Debug)]
pub struct TrustStep {
    /// What is stored.
    pub step: Step,
    /// What comes into force, if something does.
    pub trust: Option<Trust>,
}

impl Log {
    /// Judges consecutive statements of this trust log, oldest first; if one is not accepted, what
    /// comes before it is, if there is something.
    ///
    /// # Errors
    /// Why it has no effect.
    pub fn offer_trust(
        &self,
        anchor: &Anchor,
        in_force: Option<&Trust>,
        run: Vec<Statement>,
        stored: &dyn Stored,
    ) -> Result<TrustStep, Refused> {
        let mut step = self.step();
        let Some((span, in_force)) = self.span.zip(in_force) else {
            return self.begin_trust(step, anchor, run);
        };
        let mut above = Vec::new();
        let mut below = Vec::new();
        for statement in run {
            match statement.serial() {
                serial if serial > span.head.serial => above.push(statement),
                serial if serial < span.low => below.push(statement),
                serial => {
                    let ours = stored.at(serial)?.ok_or(Refused::Unreadable)?;
                    if ours.head() != statement.head() {
                        return Err(Refused::Fork(alloc::boxed::Box::new((ours, statement))));
                    }
                }
            }
        }
        let mut trust = None;
        if let Some(last) = below.last() {
            let named = stored.at(span.low)?.and_then(|lowest| lowest.predecessor());
            if last.serial().next() != Some(span.low) {
                return Err(Refused::Gap {
                    from: named.map_or(span.low, |named| named.serial),
                });
            }
            prepend(&mut step, in_force, named, below)?;
        }
        if !above.is_empty() {
            trust = succeed(&mut step, in_force.clone(), span.head, above)?;
        }
        Ok(TrustStep { step, trust })
    }

    /// The statement that the anchor names, what lies below it, and what follows.
    fn begin_trust(
        &self,
        mut step: Step,
        anchor: &Anchor,
        mut run: Vec<Statement>,
    ) -> Result<TrustStep, Refused> {
        let Some(at) = run
            .iter()
            .position(|statement| statement.serial() == anchor.head.serial)
        else {
            return Err(Refused::Gap {
                from: anchor.head.serial,
            });
        };
        let mut above = run.split_off(at);
        let first = above.remove(0);
        let trust = Trust::first(anchor, first)
            .map_err(|error| Refused::Verify(anchor.head.serial, error))?;
        step.after.span = Some(Span {
            low: anchor.head.serial,
            head: anchor.head,
        });
        let named = trust.statement().predecessor();
        if !run.is_empty() {
            prepend(&mut step, &trust, named, run)?;
        }
        step.insert.push(trust.statement().clone());
        let trust = match above.is_empty() {
            true => Some(trust),
            false => match succeed(&mut step, trust.clone(), anchor.head, above) {
                Ok(newer) => newer,
                Err(_) => Some(trust),
            },
        };
        Ok(TrustStep { step, trust })
    }
}

/// What lies below, each named by the one above it.
fn prepend(
    step: &mut Step,
    trust: &Trust,
    named: Option<Head>,
    run: Vec<Statement>,
) -> Result<(), Refused> {
    let mut descent = Descent::below(trust.namespace().trust_log(), named, true);
    let mut proven = Vec::with_capacity(run.len());
    for statement in run.into_iter().rev() {
        let serial = statement.serial();
        proven.push(
            descent
                .take(trust, statement)
                .map_err(|error| Refused::Verify(serial, error))?,
        );
    }
    proven.reverse();
    if let (Some(first), Some(span)) = (proven.first(), &mut step.after.span) {
        span.low = first.serial();
    }
    step.insert.splice(0..0, proven);
    Ok(())
}

fn succeed(
    step: &mut Step,
    mut trust: Trust,
    head: Head,
    run: Vec<Statement>,
) -> Result<Option<Trust>, Refused> {
    let mut any = false;
    for statement in run {
        let (serial, before) = (statement.serial(), trust.head());
        if !any && serial > before.serial.next().unwrap_or(before.serial) {
            return Err(Refused::Gap {
                from: head.serial.next().unwrap_or(Serial::FIRST),
            });
        }
        match trust.succeed(statement) {
            Ok(next) => {
                step.insert.push(next.statement().clone());
                if let Some(span) = &mut step.after.span {
                    span.head = next.head();
                }
                (trust, any) = (next, true);
            }
            Err(_) if any => break,
            Err(error @ VerifyError::TrustOrder { .. }) => {
                return Err(Refused::Verify(serial, error));
            }
            Err(error) => return Err(Refused::Verify(serial, error)),
        }
    }
    Ok(any.then_some(trust))
}
