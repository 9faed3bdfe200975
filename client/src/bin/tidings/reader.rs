//! Reading with proof: fetch, watch, log, verify.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures_core::Stream;
use serde_json::json;
use tidings_client::{Channel, Device, Serial, Start, State, Statement, Verified};
use tidings_protocol::{Anchor, statement::Kind, trust::Trust, verify::VerifyError};

use tokio::signal::unix::{SignalKind, signal};

use super::{From, author, output};

/// What a reading command needs beside its brokers.
#[derive(Args)]
pub(super) struct Reading {
    #[command(flatten)]
    pub(super) from: From,
    /// Remember here what was seen: the cursor, the trust, the latest signed time
    #[arg(long, value_name = "FILE", env = "TIDINGS_STATE")]
    pub(super) state: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

impl Reading {
    pub(super) fn device(&self, channels: &[Channel], start: Start) -> anyhow::Result<Device> {
        let source = self.from.source()?;
        let state = match &self.state {
            Some(path) => State::open(path, source.anchor())?,
            None => State::ephemeral(source.anchor()),
        };
        Ok(Device::with_state(source, channels.iter().map(Channel::as_str), state)?.with_start(start))
    }
}

#[derive(Args)]
pub(super) struct Fetch {
    /// The channels
    #[arg(required = true)]
    channels: Vec<Channel>,
    /// Begin unknown channels with their oldest statement, not with the newest
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    reading: Reading,
}

impl Fetch {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut device = self.reading.device(&self.channels, if self.all { Start::Oldest } else { Start::Newest })?.with_saving_by_hand();
        // Until nothing is new: the last answer is also the one that tells what is wrong with some channel.
        loop {
            let news = device.poll().await?;
            if news.is_empty() {
                break;
            }
            for statement in &news {
                output::statement(statement, device.state().trust(), self.reading.json);
            }
            // What could not be shown is not lost: it comes again.
            output::flush();
            device.save()?;
        }
        for channel in self.channels.iter().filter(|c| device.state().head(c).is_none()) {
            eprintln!("tidings: there is no channel {channel} yet; is its name right?");
        }
        Ok(())
    }
}

#[derive(Args)]
pub(super) struct Watch {
    /// The channels
    #[arg(required = true)]
    channels: Vec<Channel>,
    /// Begin unknown channels with their oldest statement, not with the newest
    #[arg(long)]
    all: bool,
    /// End after so many statements
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    reading: Reading,
}

impl Watch {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut device = self.reading.device(&self.channels, if self.all { Start::Oldest } else { Start::Newest })?;
        // For the names of signers; where no broker answers yet, their keys are shown instead.
        let trust = device.trust().await.ok().cloned();
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut terminate = signal(SignalKind::terminate())?;
        {
            let mut stream = std::pin::pin!(device.watch());
            while left > 0 {
                let next = std::future::poll_fn(|context| stream.as_mut().poll_next(context));
                let item = tokio::select! {
                    item = next => item,
                    _ = tokio::signal::ctrl_c() => break,
                    _ = terminate.recv() => break,
                };
                match item {
                    Some(Ok(statement)) => {
                        output::statement(&statement, trust.as_ref(), self.reading.json);
                        output::flush();
                        left -= 1;
                    }
                    // It goes on by itself; whoever looks should know why it is quiet.
                    Some(Err(error)) => eprintln!("tidings: {error}; trying again"),
                    None => break,
                }
            }
        }
        Ok(device.save()?)
    }
}

#[derive(Args)]
pub(super) struct Log {
    /// The channel
    channel: Channel,
    /// The first serial to show
    #[arg(long, value_name = "SERIAL", default_value = "1")]
    from: Serial,
    /// Show the newest so many only
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    #[command(flatten)]
    reading: Reading,
}

impl Log {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut device = self.reading.device(&[], Start::Newest)?;
        ensure!(device.state().anchor().namespace.contains(&self.channel), "{} is not in the namespace of the anchor", self.channel);
        let statements = device.history(&self.channel, self.from).await?;
        if statements.is_empty() {
            eprintln!("tidings: there is nothing in {} from {} on; is its name right?", self.channel, self.from);
        }
        let skipped = self.last.map_or(0, |last| statements.len().saturating_sub(last));
        for statement in &statements[skipped..] {
            match self.reading.json {
                true => output::statement(statement, device.state().trust(), true),
                false => output::line(&output::summary(statement, device.state().trust())),
            }
        }
        Ok(())
    }
}

#[derive(Args)]
pub(super) struct Verify {
    /// Statements, several to a file if need be; a file that begins with the trust log, as evidence of forks does, proves itself
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The anchor that the trust begins at: `NAMESPACE sha256:HEX`
    #[arg(long, value_name = "LINE", env = "TIDINGS_ANCHOR")]
    anchor: Anchor,
    /// The trust statements from the first to the one in force, in one file or several; repeatable
    #[arg(long = "trust", value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// A device's state file, whose trust is used instead
    #[arg(long, value_name = "FILE", conflicts_with = "trust")]
    state: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// What is known of one statement in a file.
type Checked = Result<Verified<Statement>, VerifyError>;

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let given = self.history()?;
        let (mut count, mut bad, mut forks) = (0, 0, 0);
        for file in &self.files {
            let statements = match author::read_bundle(file) {
                Ok(statements) => statements,
                Err(error) => {
                    (count, bad) = (count + 1, bad + 1);
                    self.report(file, &Err(error), None);
                    continue;
                }
            };
            let history = own_history(&self.anchor, &statements).filter(|own| own.len() > given.len()).unwrap_or_else(|| given.clone());
            let Some(trust) = history.last() else {
                bail!("what proves {}? give --trust with the trust statements from the first on, or --state", file.display());
            };
            let checked: Vec<(Statement, Checked)> = statements.iter().map(|s| (s.clone(), check(&history, s))).collect();
            for (_, verified) in &checked {
                count += 1;
                bad += usize::from(verified.is_err());
                self.report(file, &verified.clone().map_err(anyhow::Error::from), Some(trust));
            }
            let good: Vec<&Verified<Statement>> = checked.iter().filter_map(|(_, verified)| verified.as_ref().ok()).collect();
            for (ours, theirs) in contradictions(&good) {
                forks += 1;
                self.report_fork(file, &history, ours, theirs);
            }
        }
        ensure!(bad == 0, "{bad} of {count} did not verify");
        ensure!(forks == 0, "{forks} fork(s) proven: statements that contradict each other are signed");
        Ok(())
    }

    fn report(&self, file: &Path, verified: &anyhow::Result<Verified<Statement>>, trust: Option<&Trust>) {
        match verified {
            Ok(statement) if self.json => {
                output::line(&json!({"file": file, "good": true, "statement": output::json(statement, trust)}).to_string());
            }
            Ok(statement) => output::line(&format!("{}: good: {}", file.display(), output::summary(statement, trust))),
            Err(error) if self.json => output::line(&json!({"file": file, "good": false, "error": format!("{error:#}")}).to_string()),
            Err(error) => output::line(&format!("{}: BAD: {error:#}", file.display())),
        }
    }

    fn report_fork(&self, file: &Path, history: &[Trust], ours: &Statement, theirs: &Statement) {
        let by = |statement: &Statement| {
            let trust = history.iter().rev().find(|trust| statement.signatures().iter().any(|s| trust.name_of(&s.key).is_some()));
            output::signers(statement, trust)
        };
        let (channel, serial) = (ours.channel(), theirs.serial());
        if self.json {
            let side = |s: &Statement| json!({"serial": s.serial().number(), "id": s.id().to_string(), "signed_by": by(s)});
            let fork = json!({"channel": channel.as_str(), "serial": serial.number(), "one": side(ours), "other": side(theirs)});
            return output::line(&json!({"file": file, "fork": fork}).to_string());
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
    }

    /// Every trust statement that was in force, oldest first, as far as it is known.
    fn history(&self) -> anyhow::Result<Vec<Trust>> {
        if let Some(path) = &self.state {
            let state = State::look(path, &self.anchor)?;
            return Ok(vec![state.trust().cloned().with_context(|| format!("{} has no trust yet", path.display()))?]);
        }
        let mut history: Vec<Trust> = Vec::new();
        for file in &self.trust {
            for statement in author::read_bundle(file)? {
                let next = match history.last() {
                    None => Trust::first(&self.anchor, statement),
                    Some(trust) => trust.succeed(statement),
                };
                history.push(next.with_context(|| format!("{} is not accepted", file.display()))?);
            }
        }
        Ok(history)
    }
}

/// The trust log that a bundle begins with.
fn own_history(anchor: &Anchor, statements: &[Statement]) -> Option<Vec<Trust>> {
    let mut history = vec![Trust::first(anchor, statements.first()?.clone()).ok()?];
    for statement in &statements[1..] {
        match history.last()?.succeed(statement.clone()) {
            Ok(next) => history.push(next),
            Err(_) => break,
        }
    }
    Some(history)
}

/// By the trust in force; or, so that old evidence stays evidence, by the one that the statement was signed under.
fn check(history: &[Trust], statement: &Statement) -> Checked {
    if statement.kind() == Kind::Trust {
        let known = history.iter().find(|trust| trust.head() == statement.head()).map(|trust| trust.statement().clone());
        let next = || history.last().map(|trust| trust.succeed(statement.clone()).map(|trust| trust.statement().clone()));
        return known
            .map(Ok)
            .or_else(next)
            .unwrap_or_else(|| Err(VerifyError::TrustOrder { known: statement.serial(), found: statement.serial() }));
    }
    let under = history.iter().find(|trust| Some(trust.serial()) == statement.trust());
    let trusts: Vec<&Trust> = history.last().into_iter().chain(under).collect();
    let results: Vec<Checked> = trusts.into_iter().map(|trust| trust.verify(statement.clone())).collect();
    match results.iter().find(|result| result.is_ok()).or(results.first()) {
        Some(result) => result.clone(),
        None => Err(VerifyError::TrustOrder { known: Serial::FIRST, found: statement.serial() }),
    }
}

/// Pairs that cannot both be part of one log.
fn contradictions<'a>(all: &[&'a Verified<Statement>]) -> Vec<(&'a Statement, &'a Statement)> {
    let mut found = Vec::new();
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            let same_place = one.serial() == other.serial() && one.id() != other.id();
            let breaks = |a: &Statement, b: &Statement| b.predecessor().is_some_and(|p| p.serial == a.serial() && p.id != a.id());
            if one.channel() == other.channel() && (same_place || breaks(one, other) || breaks(other, one)) {
                found.push((&***one, &***other));
            }
        }
    }
    found
}
