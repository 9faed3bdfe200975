//! Reading everything, with proof.

use anyhow::{Context, ensure};
use clap::Args;
use tidings_client::{Channel, Publisher};

use super::{Common, output};

/// Statements that are read and verified at once.
const CHUNK: u32 = 256;

#[derive(Args)]
pub(crate) struct CatchUp {
    #[command(flatten)]
    common: Common,
    /// What is read from its beginning; repeatable
    #[arg(long = "channel", required = true)]
    channels: Vec<Channel>,
}

impl CatchUp {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self { common, channels } = self;
        let source = common.target.source()?;
        let publisher = Publisher::connect(source.clone()).await?;
        let trust = publisher
            .trust()
            .context("the broker has no trust log of this namespace")?;
        let mut connection = source.connect().await?;
        let mut ranges = Vec::new();
        for channel in &channels {
            let (group, _) = connection
                .group(channel, None)
                .await?
                .with_context(|| format!("the broker has no channel {channel}"))?;
            ranges.push((channel, group.low, group.high));
        }
        let all: usize = ranges
            .iter()
            .map(|(_, low, high)| (high - low + 1) as usize)
            .sum();
        let mut report = common.report("catch-up", &source);
        report.condition("channels", channels.len());
        let bar = output::progress(all, "verified");
        let before = source.received();
        let stopwatch = report.begin()?;
        let (mut count, mut checks) = (0, 0);
        for (channel, low, high) in ranges {
            connection
                .group(channel, None)
                .await?
                .with_context(|| format!("{channel} is gone"))?;
            for first in (low..=high).step_by(CHUNK as usize) {
                let run = connection
                    .articles(channel, first..=high.min(first + CHUNK - 1), usize::MAX)
                    .await?;
                let run = trust
                    .verify_run(channel, run)
                    .map_err(|(serial, error)| anyhow::anyhow!("{channel} {serial}: {error}"))?;
                count += run.statements.len();
                checks += run.signature_checks;
                bar.set_position(count as u64);
            }
        }
        ensure!(count == all, "{count} of {all} statements were read");
        let seconds = stopwatch.elapsed().as_secs_f64();
        report.rate("statements", count, &stopwatch)?;
        bar.finish_and_clear();
        report.figure(
            "received",
            (source.received() - before) as f64 / seconds / 1e6,
            "MB/s",
        );
        report.figure("signature checks", checks as f64, "");
        common.show(report)
    }
}
