//! Reading with proof: fetch, watch, log.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;
use futures_core::Stream;
use tidings_client::{Anchor, Channel, Device, Serial, Start, State, StateError};

use super::{From, ends::Ends, exit::Exit, output};

/// What a reading command needs beside its brokers.
#[derive(Args)]
pub(super) struct Reading {
    #[command(flatten)]
    pub(super) from: From,
    /// Remember here what was seen: the cursor, the trust, the latest signed time
    #[arg(long, value_name = "FILE", env = "TIDINGS_STATE")]
    pub(super) state: Option<PathBuf>,
}

impl Reading {
    pub(super) fn device(&self, channels: &[Channel], start: Start) -> anyhow::Result<Device> {
        Ok(self
            .device_with(channels, |path, anchor| State::open(path, anchor))?
            .with_start(start))
    }

    /// A device that begins with what the state file has, and writes nothing: another program may
    /// be using it.
    pub(super) fn device_that_looks(&self, channels: &[Channel]) -> anyhow::Result<Device> {
        self.device_with(channels, |path, anchor| State::look(path, anchor))
    }

    /// A device that applies releases, perhaps beside a program that watches.
    pub(super) fn device_that_applies(&self, channels: &[Channel]) -> anyhow::Result<Device> {
        self.device_with(channels, |path, anchor| State::open_to_apply(path, anchor))
    }

    fn device_with(
        &self,
        channels: &[Channel],
        open: impl FnOnce(&Path, &Anchor) -> Result<State, StateError>,
    ) -> anyhow::Result<Device> {
        let source = self.from.source()?;
        let state = match &self.state {
            Some(path) => open(path, source.anchor())?,
            None => State::ephemeral(source.anchor()),
        };
        Ok(Device::with_state(
            source,
            channels.iter().map(Channel::as_str),
            state,
        )?)
    }
}

/// A name that is written wrong looks as a channel that has not begun yet.
pub(super) fn note_if_unknown(device: &Device, channel: &Channel) {
    if device.state().head(channel).is_none() {
        output::note(&format!(
            "there is no channel {channel} yet; is its name right?"
        ));
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
        let mut device = self
            .reading
            .device(
                &self.channels,
                if self.all {
                    Start::Oldest
                } else {
                    Start::Newest
                },
            )?
            .with_saving_by_hand();
        let mut count = 0;
        // Until nothing is new: the last answer is also the one that tells what is wrong with some
        // channel.
        loop {
            let news = device.poll().await?;
            if news.is_empty() {
                // That a fork is over is worth keeping too.
                device.save()?;
                break;
            }
            for statement in &news {
                output::statement(statement, device.state().trust());
            }
            count += news.len();
            // What could not be shown is not lost: it comes again.
            device.save()?;
        }
        for channel in &self.channels {
            note_if_unknown(&device, channel);
            if let Some(head) = device.state().head(channel).filter(|_| count == 0) {
                output::note(&format!(
                    "nothing is new in {channel}: {} is known",
                    head.serial
                ));
            }
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
        let mut device = self.reading.device(
            &self.channels,
            if self.all {
                Start::Oldest
            } else {
                Start::Newest
            },
        )?;
        let mut ends = Ends::new()?;
        // For the names of signers; where no broker answers yet, their keys are shown instead.
        let trust = tokio::select! {
            trust = device.trust() => trust.ok().cloned(),
            _ = ends.told() => return Ok(()),
        };
        if trust.is_some() {
            self.note_unknown(&mut device).await;
        }
        let mut left = self.count.unwrap_or(u64::MAX);
        {
            let mut stream = std::pin::pin!(device.watch());
            while left > 0 {
                let next = std::future::poll_fn(|context| stream.as_mut().poll_next(context));
                let item = tokio::select! {
                    item = next => item,
                    _ = ends.told() => break,
                };
                match item {
                    Some(Ok(statement)) => {
                        output::statement(&statement, trust.as_ref());
                        left -= 1;
                    }
                    // It goes on by itself; whoever looks should know why it is quiet.
                    Some(Err(error)) => output::note(&format!(
                        "{}; trying again",
                        tidings_client::explain(&error)
                    )),
                    None => break,
                }
            }
        }
        Ok(device.save()?)
    }
}

impl Watch {
    /// A channel may begin later; but a name that is written wrong would be waited for in silence.
    async fn note_unknown(&self, device: &mut Device) {
        for channel in &self.channels {
            if device.state().head(channel).is_some() {
                continue;
            }
            if let Ok(false) = device.has(channel).await {
                output::note(&format!(
                    "there is no channel {channel} yet; is its name right? It is waited for"
                ));
            }
        }
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
        let mut device = self.reading.device_that_looks(&[])?;
        let outside = || {
            Exit::Usage.because(format!(
                "{} is not in the namespace of the anchor",
                self.channel
            ))
        };
        ensure!(
            device.state().anchor().namespace.contains(&self.channel),
            outside()
        );
        let statements = device.history(&self.channel, self.from).await?;
        if statements.is_empty() {
            output::note(&format!(
                "there is nothing in {} from {} on; is its name right?",
                self.channel, self.from
            ));
        }
        let skipped = self
            .last
            .map_or(0, |last| statements.len().saturating_sub(last));
        for statement in &statements[skipped..] {
            let trust = device.state().trust();
            output::answer(
                || output::json(statement, trust),
                || output::summary(statement, trust),
            );
        }
        Ok(())
    }
}
