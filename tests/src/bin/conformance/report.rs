//! What was looked at, and what came of it.

use std::process::ExitCode;

/// What came of one check.
pub(crate) enum Outcome {
    /// It is as it must be.
    Good,
    /// The implementation does not have this, and need not.
    LeftOut(String),
    /// It is otherwise.
    Wrong(String),
}

/// Lines, and how many of each kind.
#[derive(Default)]
pub(crate) struct Report {
    good: usize,
    left_out: usize,
    wrong: usize,
}

impl Report {
    pub(crate) fn note(&mut self, requirement: &str, what: &str, outcome: Outcome) {
        match outcome {
            Outcome::Good => {
                self.good += 1;
                println!("ok        {requirement:<5} {what}");
            }
            Outcome::LeftOut(why) => {
                self.left_out += 1;
                println!("left out  {requirement:<5} {what}: {why}");
            }
            Outcome::Wrong(found) => {
                self.wrong += 1;
                println!("WRONG     {requirement:<5} {what}: {found}");
            }
        }
    }

    /// The summary, and how to end.
    pub(crate) fn end(&self) -> ExitCode {
        println!(
            "{} as they must be, {} left out, {} wrong",
            self.good, self.left_out, self.wrong
        );
        if self.wrong == 0 && self.good > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
