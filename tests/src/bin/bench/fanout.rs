//! One publisher, many watches.

use std::time::Duration;

use clap::Args;
use tidings_tests::bench::{
    Crowd, Done, Endpoint, Spread,
    nntp::{Opening, Poster, Watcher, article},
};
use tokio::time::Instant;

use super::{Common, PATIENCE, Work, allow_files, output};

#[derive(Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    work: Work,
    /// Watches, each on a connection of its own
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Statements; each is published when every watch has the one before
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
}

/// Publishes the next statement, and waits until it is acknowledged and every watch has it; tells
/// how long that took.
fn deliver(
    crowd: &mut Crowd,
    done: &mut Vec<Done>,
    mut missing: usize,
    each: &mut Vec<Duration>,
) -> anyhow::Result<Duration> {
    let sent = Instant::now();
    crowd.say(0, Poster::NEXT)?;
    let mut acknowledged = false;
    while missing > 0 || !acknowledged {
        crowd.turn(PATIENCE, done)?;
        let taken = sent.elapsed();
        for one in done.drain(..) {
            if one.index == 0 {
                acknowledged = true;
            } else {
                missing -= one.count;
                each.push(taken);
            }
        }
    }
    Ok(sent.elapsed())
}

impl Fanout {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self {
            common,
            work,
            subscribers,
            messages,
        } = self;
        let source = common.target.source()?;
        let (mut publisher, key, trust) = work.signer(&source).await?;
        let made = work
            .make(
                (&mut publisher, &key, trust),
                &work.channel,
                messages as usize + 1,
            )
            .await?;
        // The channel has to be there before anybody watches.
        publisher.publish(&made[0]).await?;
        let first = made[0].serial().number();
        allow_files(subscribers as usize + 1)?;
        let mut report = common.report("fanout", &source);
        report.condition("subscribers", subscribers);
        report.condition("messages", messages);
        report.condition("octets", work.octets);
        let (endpoint, opening) = (Endpoint::of(&source)?, Opening::of(&source));
        let bar = output::progress(subscribers as usize, "subscribed");
        let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
        let poster = Poster::on_demand(opening.clone(), made[1..].iter().map(article));
        crowd.join(&endpoint, [poster], PATIENCE, &mut done, || ())?;
        let before = report.memory()?;
        let watchers =
            (0..subscribers).map(|_| Watcher::new(opening.clone(), &work.channel, Some(first)));
        crowd.join(&endpoint, watchers, PATIENCE, &mut done, || bar.inc(1))?;
        bar.finish_and_clear();
        if let Some((before, after)) = before.zip(report.memory()?) {
            let each = (after as f64 - before as f64) / f64::from(subscribers);
            report.figure("broker memory per idle subscriber", each, "octets");
        }
        let bar = output::progress(messages as usize, "delivered to all");
        let (mut each, mut last) = (Vec::new(), Vec::new());
        let stopwatch = report.begin()?;
        for _ in 0..messages {
            last.push(deliver(
                &mut crowd,
                &mut done,
                subscribers as usize,
                &mut each,
            )?);
            bar.inc(1);
        }
        let deliveries = subscribers as usize * messages as usize;
        report.rate("deliveries", deliveries, &stopwatch)?;
        bar.finish_and_clear();
        let last = Spread::of_milliseconds(last);
        report.figure("to the last subscriber, p50", last.at(0.5), "ms");
        report.figure("to the last subscriber, p99", last.at(0.99), "ms");
        report.delays("publish to a subscriber", Spread::of_milliseconds(each));
        common.show(report)
    }
}
