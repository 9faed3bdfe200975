//! Reading with proof: fetch, watch, log, verify.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures_core::Stream;
use serde_json::json;
use tidings_client::{Channel, Device, Serial, Start, State, Statement, Verified};
use tidings_protocol::{Anchor, trust::Trust};

use tokio::signal::unix::{SignalKind, signal};

use super::{From, author, output};

/// What a reading command needs beside its brokers.
#[derive(Args)]
pub(super) struct Reading {
    #[command(flatten)]
    from: From,
    /// Remember here what was seen: the cursor, the trust, the latest signed time
    #[arg(long, value_name = "FILE", env = "TIDINGS_STATE")]
    state: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Reading {
    fn device(&self, channels: &[Channel], start: Start) -> anyhow::Result<Device> {
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
    /// Statements
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The anchor that the trust begins at: `NAMESPACE sha256:HEX`
    #[arg(long, value_name = "LINE", env = "TIDINGS_ANCHOR")]
    anchor: Anchor,
    /// The trust statements from the first to the one in force; repeatable
    #[arg(long = "trust", value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// A device's state file, whose trust is used instead
    #[arg(long, value_name = "FILE", conflicts_with = "trust")]
    state: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let trust = self.rules()?;
        let mut bad = 0;
        for file in &self.files {
            match self.one(file, &trust) {
                Ok(statement) if self.json => {
                    output::line(&json!({"file": file, "good": true, "statement": output::json(&statement, Some(&trust))}).to_string());
                }
                Ok(statement) => output::line(&format!("{}: good: {}", file.display(), output::summary(&statement, Some(&trust)))),
                Err(error) => {
                    bad += 1;
                    if self.json {
                        output::line(&json!({"file": file, "good": false, "error": format!("{error:#}")}).to_string());
                    } else {
                        output::line(&format!("{}: BAD: {error:#}", file.display()));
                    }
                }
            }
        }
        ensure!(bad == 0, "{bad} of {} did not verify", self.files.len());
        Ok(())
    }

    fn rules(&self) -> anyhow::Result<Trust> {
        if let Some(path) = &self.state {
            let state = State::look(path, &self.anchor)?;
            return state.trust().cloned().with_context(|| format!("{} has no trust yet", path.display()));
        }
        let mut trust: Option<Trust> = None;
        for file in &self.trust {
            let statement = author::read(file)?;
            let next = match &trust {
                None => Trust::first(&self.anchor, statement),
                Some(trust) => trust.succeed(statement),
            };
            trust = Some(next.with_context(|| format!("{} is not accepted", file.display()))?);
        }
        match trust {
            Some(trust) => Ok(trust),
            None => bail!("what proves them? give --trust with the trust statements from the first on, or --state"),
        }
    }

    fn one(&self, file: &std::path::Path, trust: &Trust) -> anyhow::Result<Verified<Statement>> {
        let octets = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(trust.verify(Statement::parse(&octets)?)?)
    }
}
