use alloc::vec::Vec;

use crate::{Serial, Statement, Verified, limits::EVIDENCE, trust::Trust};

/// Two statements that contradict each other: both signed, for one place of one log (attack 28).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The one that was known.
    pub ours: Statement,
    /// The one that came later: of the same serial, or the next one with another `Previous`.
    pub theirs: Statement,
    /// Where theirs is not signed by those who may say such a thing now, but hash-linked below a
    /// statement that they signed: what lies between, oldest first.
    pub above: Vec<Statement>,
}

impl Fork {
    /// Of the run in which it was found as much as proves it.
    pub(super) fn new(trust: &Trust, ours: &Statement, run: &[Verified<Statement>]) -> Self {
        let run: Vec<Statement> = run
            .iter()
            .take(EVIDENCE + 1)
            .map(|statement| (**statement).clone())
            .collect();
        let proves = |count: &usize| {
            trust
                .verify_run(ours.channel(), run[..*count].to_vec())
                .is_ok()
        };
        let count = (1..=run.len()).find(proves).unwrap_or(run.len());
        Self {
            ours: ours.clone(),
            theirs: run[0].clone(),
            above: run[1..count].to_vec(),
        }
    }
    /// The place where the branches part, or where it was seen that they do.
    pub fn serial(&self) -> Serial {
        self.ours.serial().min(self.theirs.serial())
    }
    /// Whether two publishers raced for one place: both statements follow the same one.
    pub fn is_lost_race(&self) -> bool {
        self.ours.predecessor() == self.theirs.predecessor()
    }
    /// Whether both sides are proven still.
    pub(super) fn is_proven(&self, trust: &Trust) -> bool {
        let proves = |run: Vec<Statement>| trust.verify_run(self.ours.channel(), run).is_ok();
        let theirs = core::iter::once(&self.theirs)
            .chain(&self.above)
            .cloned()
            .collect();
        proves([self.ours.clone()].into()) && proves(theirs)
    }
}
