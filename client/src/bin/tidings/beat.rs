//! `tidings beat`: a small daemon with an online key that says every few minutes what is newest.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::Args;
use tidings_client::{Channel, Head, Lookout, PublishError, Publisher, Source, Survey, now};
use tidings_protocol::{
    beat::{Round, Signer},
    limits::BEAT_LIFE_SECONDS,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{From, key, output};

/// Reads the heads of all channels from all brokers that are given, verifies them, and publishes a beat at the first.
///
/// What one broker hides another may show, and what was seen once is never taken back.
#[derive(Args)]
pub(super) struct Beat {
    /// The private key that the trust has a beat role for
    #[arg(long = "key", value_name = "FILE")]
    key: PathBuf,
    /// How often, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    every: u64,
    /// For how long a beat proves that nothing is held back, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    life: u64,
    /// Sign one round, and end: for a timer
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    from: From,
}

impl Beat {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        ensure!((1..=BEAT_LIFE_SECONDS).contains(&self.life), "--life: expected 1 to {BEAT_LIFE_SECONDS}, found {}", self.life);
        ensure!(self.every >= 1 && (self.once || self.every < self.life), "--every: expected less than --life, found {}", self.every);
        let source = self.from.source()?;
        let mut signer = Signer::new(source.anchor().namespace.clone(), key::private(&self.key)?);
        let mut lookout = Lookout::new(&source);
        if self.once {
            return self.round(&source, &mut lookout, &mut signer).await.map(drop);
        }
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut ticks = interval(Duration::from_secs(self.every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
            match self.round(&source, &mut lookout, &mut signer).await {
                Ok(count) => tracing::info!(count, "beats published"),
                // The next round may go better; until then devices see that no beat comes.
                Err(error) => output::note(&format!("no beat was published: {error:#}")),
            }
        }
    }

    async fn round(&self, source: &Source, lookout: &mut Lookout, signer: &mut Signer) -> anyhow::Result<usize> {
        let survey = lookout.look(&[]).await;
        for seen in &survey.0 {
            if let Err(error) = &seen.view {
                output::note(&format!("{} could not be asked: {error}", seen.address));
            }
            seen.failed.iter().for_each(|(channel, error)| output::note(&format!("{}: {channel}: {error}", seen.address)));
        }
        let trust = survey.trust().context("no broker has a trust log yet")?;
        let mut heads = heads(&survey);
        heads.push((trust.statement().channel().clone(), trust.head()));
        let mut publisher = Publisher::connect(source.clone()).await?;
        let namespace = &source.anchor().namespace;
        let mut beats = vec![namespace.beat()];
        for (shard, _) in tidings_protocol::beat::plan(namespace, &heads)?.shards {
            beats.push(shard);
        }
        let mut after: Vec<(Channel, Head)> = Vec::new();
        for channel in beats {
            let head = publisher.beat_head(&channel).await?;
            after.extend(head.map(|head| (channel, head)));
        }
        let round = Round { time: now(), life: self.life, trust: trust.serial() };
        let signed = signer.round(round, &heads, |channel| after.iter().find(|(known, _)| known == channel).map(|(_, head)| *head))?;
        for statement in &signed {
            match publisher.publish(statement).await {
                Ok(_) => {}
                Err(PublishError::LostRace(_)) => anyhow::bail!("somebody else signs beats in {} too", statement.channel()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(signed.len())
    }
}

/// The newest heads of all channels. One that is forked is left out, and one that no broker shows any more, so that devices
/// notice.
fn heads(survey: &Survey) -> Vec<(Channel, Head)> {
    let head = |channel: Channel| match survey.newest(&channel) {
        Ok(newest) => newest.map(|statement| (channel.clone(), statement.head())),
        Err(error) => {
            output::note(&error.to_string());
            None
        }
    };
    let (shown, hidden): (Vec<_>, Vec<_>) = survey.channels().into_iter().partition(|channel| survey.is_confirmed(channel));
    hidden.iter().for_each(|channel| output::note(&format!("{channel} is left out: no broker shows what was seen of it")));
    shown.into_iter().filter_map(head).collect()
}
