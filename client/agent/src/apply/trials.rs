//! Which releases were tried here, and which one is applied.

use std::{fs, path::PathBuf};

use anyhow::ensure;

use super::{Applier, Case};
use crate::{journal::replace, round::TRIALS};

/// Trials that are remembered, of whatever releases.
const TRIALS_KEPT: usize = 256;

impl Applier {
    fn trials_file(&self) -> PathBuf {
        self.config.paths.applier.join("trials")
    }

    /// The lives of the machine in which this release was armed.
    pub(super) fn trials_of(&self, case: &Case) -> Vec<String> {
        let text = fs::read_to_string(self.trials_file()).unwrap_or_default();
        let id = case.statement.id().to_string();
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(of, _)| *of == id)
            .map(|(_, boot)| boot.to_owned())
            .collect()
    }

    /// A bad release is not booted more often than that, whoever asks (attack 88).
    pub(super) fn note_trial(&self, case: &Case) -> anyhow::Result<()> {
        let trials = self.trials_of(case);
        if trials.contains(&self.boot) {
            return Ok(());
        }
        ensure!(
            trials.len() < TRIALS.into(),
            "{} was tried {TRIALS} times; it is not tried again",
            case.request.serial
        );
        let text = fs::read_to_string(self.trials_file()).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().collect();
        let line = format!("{} {}", case.statement.id(), self.boot);
        lines.push(&line);
        let excess = lines.len().saturating_sub(TRIALS_KEPT);
        let text = format!("{}\n", lines[excess..].join("\n"));
        Ok(replace(&self.trials_file(), text.as_bytes(), &self.point)?)
    }

    pub(super) fn note_applied(&mut self, case: &Case) -> anyhow::Result<()> {
        let listed = case
            .log
            .iter()
            .find(|statement| statement.head() == case.statement.head())
            .cloned();
        let own = || {
            self.state
                .trust()
                .and_then(|trust| trust.verify(case.statement.clone()).ok())
        };
        // Without it what was applied before counts, until the log is at hand.
        if let Some(proven) = listed.or_else(own) {
            self.state.change(|view, _| view.note_applied(&proven));
            self.state.save()?;
        }
        (self.point)("it is kept as applied");
        Ok(())
    }
}
