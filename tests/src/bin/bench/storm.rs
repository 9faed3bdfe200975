//! Connection after connection: a fleet that comes back.

use std::time::Duration;

use clap::Args;
use tidings_client::Channel;
use tidings_tests::bench::{
    Crowd, Endpoint, Spread,
    nntp::{Opening, Poller},
};

use super::{Common, PATIENCE, allow_files, output};

#[derive(Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    common: Common,
    /// The channel that is asked for, once on each connection
    #[arg(long)]
    channel: Channel,
    /// Connections at once; each that has its answer makes room for the next
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    abreast: u32,
    /// For how long
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Every TLS handshake is a full one: no session is resumed
    #[arg(long)]
    no_resumption: bool,
}

impl Storm {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self {
            common,
            channel,
            abreast,
            seconds,
            no_resumption,
        } = self;
        let source = common.target.source()?;
        allow_files(2 * abreast as usize)?;
        let mut report = common.report("storm", &source);
        report.condition("abreast", abreast);
        report.condition("resumption", if no_resumption { "off" } else { "on" });
        let endpoint = Endpoint::of(&source)?;
        let endpoint = if no_resumption {
            endpoint.without_resumption()
        } else {
            endpoint
        };
        let opening = Opening::of(&source);
        let poller = || Poller::new(opening.clone(), &channel).once();
        let bar = output::progress(seconds as usize, "seconds");
        let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
        crowd.join(
            &endpoint,
            (0..abreast).map(|_| poller()),
            PATIENCE,
            &mut done,
            || (),
        )?;
        let (mut count, mut delays) = (0, Vec::new());
        let mut began = vec![None; abreast as usize];
        let stopwatch = report.begin()?;
        while stopwatch.elapsed() < Duration::from_secs(seconds.into()) {
            crowd.turn(PATIENCE, &mut done)?;
            for one in done.drain(..) {
                // Those that stood before the measurement began are not counted.
                if let Some(began) = began[one.index].replace(stopwatch.elapsed()) {
                    count += 1;
                    delays.push(stopwatch.elapsed().saturating_sub(began));
                }
                crowd.replace(one.index, &endpoint, poller())?;
            }
            bar.set_position(stopwatch.elapsed().as_secs());
        }
        report.rate("connections", count, &stopwatch)?;
        bar.finish_and_clear();
        report.delays("connect to answer", Spread::of_milliseconds(delays));
        common.show(report)
    }
}
