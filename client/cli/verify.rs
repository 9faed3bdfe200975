//! Verifying what lies in files, without any network; and proving forks.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use tidings_client::{Serial, State, Statement, Verified};
use tidings_protocol::{
    Anchor,
    statement::Kind,
    trust::{Settled, Trust},
    verify::VerifyError,
};

use super::{ceremony, exit::Exit, files, output};

#[derive(Args)]
pub(super) struct Verify {
    /// Statements, several to a file if need be; a file that begins with the trust log, as evidence
    /// of forks does, proves itself
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The anchor that the trust begins at: `NAMESPACE SERIAL sha256:HEX`
    #[arg(long, value_name = "LINE", env = "TIDINGS_ANCHOR")]
    anchor: Anchor,
    /// The trust statements from the first to the one in force, in one file or several; repeatable
    #[arg(long = "trust", value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// A device's state file, whose trust is used instead
    #[arg(long, value_name = "FILE", conflicts_with = "trust")]
    state: Option<PathBuf>,
}

/// The name of a file as text, whatever octets it has.
fn name(file: &Path) -> String {
    file.display().to_string()
}

/// What can be said of a statement in a file.
enum Verdict {
    /// The trust in force proves it.
    Good(Verified<Statement>),
    /// An earlier trust statement did; that makes it evidence, and nothing to act on.
    Former(Verified<Statement>, Serial),
    Bad(String),
}

impl Verdict {
    fn authentic(&self) -> Option<&Statement> {
        match self {
            Verdict::Good(statement) | Verdict::Former(statement, _) => Some(statement),
            Verdict::Bad(_) => None,
        }
    }
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let given = self.history()?;
        let (mut count, mut bad, mut forks) = (0, 0, 0);
        for file in &self.files {
            let statements = match files::read_bundle(file) {
                Ok(statements) => statements,
                Err(error) => {
                    (count, bad) = (count + 1, bad + 1);
                    self.report(file, &Verdict::Bad(format!("{error:#}")), None);
                    continue;
                }
            };
            // Whichever trust log goes further.
            let own = own_history(&self.anchor, &statements);
            let further =
                |own: &Vec<Trust>| own.last().map(Trust::serial) > given.last().map(Trust::serial);
            let history = own.filter(further).unwrap_or_else(|| given.clone());
            let Some(trust) = history.last() else {
                return Err(Exit::Usage.because(format!(
                    "what proves {}? give --trust with the trust statements from the anchor's on, or --state",
                    file.display()
                )));
            };
            let verdicts: Vec<Verdict> = runs(statements)
                .into_iter()
                .flat_map(|run| judge(&history, run))
                .collect();
            for verdict in &verdicts {
                count += 1;
                bad += usize::from(!matches!(verdict, Verdict::Good(_)));
                self.report(file, verdict, Some(trust));
            }
            let authentic: Vec<&Statement> =
                verdicts.iter().filter_map(Verdict::authentic).collect();
            for (ours, theirs) in contradictions(&authentic) {
                forks += 1;
                self.report_fork(file, &history, ours, theirs);
            }
        }
        let contradict = || {
            Exit::Refused.as_told(format!(
                "{forks} fork(s) proven: statements that contradict each other are signed"
            ))
        };
        ensure!(forks == 0, contradict());
        ensure!(
            bad == 0,
            Exit::Refused.as_told(format!("{bad} of {count} did not verify"))
        );
        Ok(())
    }

    fn report(&self, file: &Path, verdict: &Verdict, trust: Option<&Trust>) {
        let (good, text) = match verdict {
            Verdict::Good(statement) if output::is_json() => {
                return output::object(
                    &json!({"file": name(file), "good": true, "statement": output::json(statement, trust)}),
                );
            }
            Verdict::Good(statement) => ("good", output::summary(statement, trust)),
            Verdict::Former(statement, serial) => {
                let now = trust.map_or(*serial, Trust::serial);
                let summary = output::summary(statement, None);
                (
                    "BAD",
                    format!(
                        "trust {serial} proved it, trust {now}, which is in force, does not: {summary}"
                    ),
                )
            }
            Verdict::Bad(error) => ("BAD", error.clone()),
        };
        let is_good = matches!(verdict, Verdict::Good(_));
        output::answer(
            || json!({"file": name(file), "good": is_good, "error": text}),
            || format!("{}: {good}: {text}", file.display()),
        );
    }

    fn report_fork(&self, file: &Path, history: &[Trust], ours: &Statement, theirs: &Statement) {
        let by = |statement: &Statement| {
            let trust = history.iter().rev().find(|trust| {
                statement
                    .signatures()
                    .iter()
                    .any(|s| trust.name_of(&s.key).is_some())
            });
            output::signers(statement, trust)
        };
        let (channel, serial) = (ours.channel(), theirs.serial());
        let settled = history
            .last()
            .and_then(|trust| match trust.checkpoint(channel) {
                Settled::At(head) => Some((trust.serial(), head)),
                _ => None,
            });
        let settled =
            settled.filter(|(_, checkpoint)| checkpoint.serial >= ours.serial().min(serial));
        if output::is_json() {
            let side = |s: &Statement| json!({"serial": s.serial().number(), "id": s.id().to_string(), "signed_by": by(s)});
            let checkpoint =
                settled.map(|(trust, head)| json!({"trust": trust.number(), "serial": head.serial.number(), "id": head.id.to_string()}));
            let (one, other) = (side(ours), side(theirs));
            let fork = json!({"channel": channel.as_str(), "serial": serial.number(), "one": one, "other": other, "settled": checkpoint});
            return output::object(&json!({"file": name(file), "fork": fork}));
        }
        output::line(&format!(
            "{}: FORK of {channel} at {serial}: {} {} is signed by {}, {} {} by {}",
            file.display(),
            ours.serial(),
            ours.id(),
            by(ours).join(", "),
            theirs.serial(),
            theirs.id(),
            by(theirs).join(", ")
        ));
        if let Some((trust, checkpoint)) = settled {
            output::line(&format!(
                "{}: settled by trust {trust}: {checkpoint} is the log",
                file.display()
            ));
        }
    }

    /// Every trust statement that was in force, oldest first, as far as it is known.
    fn history(&self) -> anyhow::Result<Vec<Trust>> {
        if let Some(path) = &self.state {
            let state = State::look(path, &self.anchor)?;
            return Ok(vec![state.trust().cloned().with_context(|| {
                format!("{} has no trust yet", path.display())
            })?]);
        }
        let mut log = Vec::new();
        for file in &self.trust {
            log.extend(files::read_bundle(file)?);
        }
        if log.is_empty() {
            return Ok(Vec::new());
        }
        let names = self
            .trust
            .iter()
            .map(|file| file.display().to_string())
            .collect::<Vec<_>>()
            .join(", ");
        let log = ceremony::walk(log, Some(&self.anchor))
            .with_context(|| format!("{names} is not accepted"))?;
        if let Some(pending) = &log.pending {
            let why = format!(
                "{names} is not accepted: trust {} in it still needs signatures (`tidings trust show`)",
                pending.serial()
            );
            return Err(Exit::Refused.because(why));
        }
        Ok(log.history)
    }
}

/// The trust log that a bundle begins with.
fn own_history(anchor: &Anchor, statements: &[Statement]) -> Option<Vec<Trust>> {
    let log: Vec<Statement> = statements
        .iter()
        .take_while(|statement| statement.kind() == Kind::Trust)
        .cloned()
        .collect();
    // Two statements for one place are evidence; the log ends before them.
    let follows = log
        .windows(2)
        .take_while(|pair| pair[1].predecessor() == Some(pair[0].head()))
        .count();
    let history = ceremony::walk(log.get(..=follows)?.to_vec(), Some(anchor))
        .ok()?
        .history;
    (!history.is_empty()).then_some(history)
}

/// Statements that follow each other in one channel belong together: links vouch for some of them.
fn runs(statements: Vec<Statement>) -> Vec<Vec<Statement>> {
    let mut runs: Vec<Vec<Statement>> = Vec::new();
    for statement in statements {
        let follows = |last: &Statement| {
            statement.kind() != Kind::Trust
                && last.channel() == statement.channel()
                && statement.predecessor() == Some(last.head())
        };
        match runs
            .last_mut()
            .filter(|run| run.last().is_some_and(follows))
        {
            Some(run) => run.push(statement),
            None => runs.push(vec![statement]),
        }
    }
    runs
}

fn judge(history: &[Trust], run: Vec<Statement>) -> Vec<Verdict> {
    if run.iter().any(|statement| statement.kind() == Kind::Trust) {
        return run
            .into_iter()
            .map(|statement| judge_trust(history, statement))
            .collect();
    }
    let Some(in_force) = history.last() else {
        return Vec::new();
    };
    let channel = run[0].channel().clone();
    let error = match in_force.verify_run(&channel, run.clone()) {
        Ok(run) => return run.statements.into_iter().map(Verdict::Good).collect(),
        Err((_, error)) => error,
    };
    let claimed = run.iter().filter_map(Statement::trust).max();
    for former in history
        .iter()
        .rev()
        .skip(1)
        .filter(|trust| Some(trust.serial()) >= claimed)
    {
        if let Ok(run) = former.verify_run(&channel, run.clone()) {
            return run
                .statements
                .into_iter()
                .map(|statement| Verdict::Former(statement, former.serial()))
                .collect();
        }
    }
    match run.len() {
        1 => vec![Verdict::Bad(error.to_string())],
        _ => run
            .into_iter()
            .flat_map(|statement| judge(history, vec![statement]))
            .collect(),
    }
}

fn judge_trust(history: &[Trust], statement: Statement) -> Verdict {
    if let Some(known) = history
        .iter()
        .find(|trust| trust.head() == statement.head())
    {
        return Verdict::Good(known.statement().clone());
    }
    let before = history
        .iter()
        .find(|trust| Some(trust.head()) == statement.predecessor());
    match before.map(|trust| trust.succeed(statement.clone())) {
        // It follows the log as far as that goes, or stands beside its successor: then both are
        // signed.
        Some(Ok(other)) => Verdict::Good(other.statement().clone()),
        Some(Err(error)) => Verdict::Bad(error.to_string()),
        None => {
            let known = history.last().map_or(statement.serial(), Trust::serial);
            Verdict::Bad(
                VerifyError::TrustOrder {
                    known,
                    found: statement.serial(),
                }
                .to_string(),
            )
        }
    }
}

/// Pairs that cannot both be part of one log.
fn contradictions<'a>(all: &[&'a Statement]) -> Vec<(&'a Statement, &'a Statement)> {
    let mut found = Vec::new();
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            let same_place = one.serial() == other.serial() && one.id() != other.id();
            let breaks = |a: &Statement, b: &Statement| {
                b.predecessor()
                    .is_some_and(|p| p.serial == a.serial() && p.id != a.id())
            };
            if one.channel() == other.channel()
                && (same_place || breaks(one, other) || breaks(other, one))
            {
                found.push((*one, *other));
            }
        }
    }
    found
}
