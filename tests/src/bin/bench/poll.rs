//! Polls on connections that stand.

use std::time::Duration;

use clap::Args;
use tidings_client::Channel;
use tidings_tests::bench::{
    Crowd, Endpoint, Spread,
    nntp::{Opening, Poller},
};

use super::{Common, PATIENCE, allow_files, output};

#[derive(Args)]
pub(crate) struct Poll {
    #[command(flatten)]
    common: Common,
    /// The channel that is asked for
    #[arg(long)]
    channel: Channel,
    /// Connections; each asks again when it has an answer
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// For how long
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

impl Poll {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self {
            common,
            channel,
            connections,
            seconds,
        } = self;
        let source = common.target.source()?;
        allow_files(connections as usize)?;
        let mut report = common.report("poll", &source);
        report.condition("connections", connections);
        let bar = output::progress(connections as usize, "connected");
        let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
        let opening = Opening::of(&source);
        let pollers = (0..connections).map(|_| Poller::new(opening.clone(), &channel));
        crowd.join(
            &Endpoint::of(&source)?,
            pollers,
            PATIENCE,
            &mut done,
            || bar.inc(1),
        )?;
        done.clear();
        bar.finish_and_clear();
        let bar = output::progress(seconds as usize, "seconds");
        let (mut count, mut delays) = (0, Vec::new());
        let stopwatch = report.begin()?;
        while stopwatch.elapsed() < Duration::from_secs(seconds.into()) {
            crowd.turn(PATIENCE, &mut done)?;
            for one in done.drain(..) {
                count += one.count;
                delays.push(one.since.elapsed());
            }
            bar.set_position(stopwatch.elapsed().as_secs());
        }
        report.rate("polls", count, &stopwatch)?;
        bar.finish_and_clear();
        report.delays("poll", Spread::of_milliseconds(delays));
        common.show(report)
    }
}
