//! Publishers side by side, each with a channel of its own.

use clap::Args;
use tidings_client::Channel;
use tidings_tests::bench::{
    Crowd, Endpoint, Spread,
    nntp::{Opening, Poster, article},
};

use super::{Common, PATIENCE, Work, allow_files, output};

#[derive(Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    work: Work,
    /// Publishers; each has a connection, and the channel with `.bench0`, `.bench1` … behind its
    /// name
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    publishers: u16,
    /// Statements that each of them publishes
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    statements: u32,
    /// Statements that each has under way: 1 is POST, more are streamed by TAKETHIS
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self {
            common,
            work,
            publishers,
            statements,
            window,
        } = self;
        let source = common.target.source()?;
        let (mut publisher, key, trust) = work.signer(&source).await?;
        let all = usize::from(publishers) * statements as usize;
        let signing = output::progress(all, "signed");
        let mut posters = Vec::new();
        for number in 0..publishers {
            let channel: Channel = format!("{}.bench{number}", work.channel).parse()?;
            let made = work
                .make((&mut publisher, &key, trust), &channel, statements as usize)
                .await?;
            posters.push(Poster::new(
                Opening::of(&source),
                made.iter().map(article),
                window.into(),
            ));
            signing.inc(u64::from(statements));
        }
        signing.finish_and_clear();
        allow_files(publishers.into())?;
        let mut report = common.report("publish", &source);
        report.condition("publishers", publishers);
        report.condition("octets", work.octets);
        report.condition("under way", window);
        let bar = output::progress(all, "published");
        let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
        let stopwatch = report.begin()?;
        crowd.join(&Endpoint::of(&source)?, posters, PATIENCE, &mut done, || ())?;
        let (mut count, mut delays) = (0, Vec::with_capacity(all));
        while count < all {
            // What was complete before the last of them had begun comes with the first turn, and
            // without a time.
            count += done.drain(..).map(|one| one.count).sum::<usize>();
            crowd.turn(PATIENCE, &mut done)?;
            for one in done.drain(..) {
                count += one.count;
                delays.push(one.since.elapsed());
            }
            bar.set_position(count as u64);
        }
        report.rate("statements", count, &stopwatch)?;
        bar.finish_and_clear();
        if window == 1 {
            report.delays("publish to 240", Spread::of_milliseconds(delays));
        }
        common.show(report)
    }
}
