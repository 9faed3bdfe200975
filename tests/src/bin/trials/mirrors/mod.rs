//! What mirrors cost: how soon news are four tiers down, how long a mirror takes to begin and to
//! catch up, and one release to very many subscribers of several mirrors.

mod cold;
mod masses;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use cold::{catch_up, cold};
use masses::{masses, subscribe};
use tidings_client::{Channel, Connection, Publisher, Statement};
use tidings_protocol::{article, nntp::code};
use tidings_tests::{Daemon, Fixture, release, tree::connect};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(600);
/// Statements sent to a peer before its answers are read.
const WINDOW: usize = 256;
const PEER: &str =
    "[[peer]]\nname = \"loader\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"test.*\"\n";

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// From POST at the origin to a subscriber of each tier
    Latency {
        #[arg(long, default_value_t = 4)]
        tiers: usize,
        #[arg(long, default_value_t = 500)]
        releases: u32,
    },
    /// A mirror that has nothing; beside INN, and beside plain hashing of the same octets
    Cold {
        #[arg(long, default_value_t = 1_000)]
        channels: u32,
        #[arg(long, default_value_t = 100)]
        statements: u32,
        /// The script that runs INN without installing it; without it, INN is left out
        #[arg(long)]
        inn: Option<PathBuf>,
    },
    /// A mirror that was away while so much was published, in 1,000 channels
    CatchUp {
        #[arg(long, default_value_t = 3_600)]
        statements: u32,
    },
    /// One release to all subscribers of several mirrors
    Masses {
        #[arg(long, default_value_t = 5)]
        mirrors: usize,
        #[arg(long, default_value_t = 15_000)]
        subscribers: usize,
        #[arg(long, default_value_t = 3)]
        releases: u32,
    },
    /// So many subscribers in a process of their own
    #[command(hide = true)]
    Subscribe {
        broker: SocketAddr,
        subscribers: usize,
    },
}

fn channel(number: u32) -> anyhow::Result<Channel> {
    Ok(format!("test.product-{number}.stable").parse()?)
}

/// Sends statements by TAKETHIS over one connection; every one has to be taken. The octets that
/// were sent.
pub(crate) async fn send_all<'a>(
    connection: &mut Connection,
    statements: impl IntoIterator<Item = &'a Statement>,
) -> anyhow::Result<usize> {
    let statements: Vec<&Statement> = statements.into_iter().collect();
    let mut sent = 0;
    ensure!(
        connection.command("MODE STREAM").await?.code == code::STREAMING,
        "it does not stream"
    );
    for some in statements.chunks(WINDOW) {
        let mut octets = Vec::new();
        for statement in some {
            octets.extend_from_slice(format!("TAKETHIS {}\r\n", statement.message_id()).as_bytes());
            octets.extend_from_slice(
                &article::render(statement, "loader.invalid!not-for-mail").octets,
            );
            octets.extend_from_slice(b".\r\n");
        }
        sent += octets.len();
        connection.send_raw(&octets).await?;
        for _ in some {
            let answer = connection.answer().await?;
            ensure!(answer.code == code::TAKEN, "{answer}");
        }
    }
    Ok(sent)
}

async fn origin(more: &str) -> anyhow::Result<(Fixture, Daemon, Publisher)> {
    let fixture = Fixture::new()?;
    fixture.configure(&format!("{PEER}{more}"))?;
    let daemon = fixture.start()?;
    let mut publisher = Publisher::connect(fixture.source()?).await?;
    publisher.publish(&fixture.trust).await?;
    Ok((fixture, daemon, publisher))
}

/// Waits until a broker has so many statements in all; how long that took.
async fn until_count(
    fixture: &Fixture,
    channels: u32,
    statements: u64,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let listing = connect(fixture)
            .await?
            .listing("LIST COUNTS test.product-*", code::LIST)
            .await?;
        let counts: Vec<u64> = listing
            .lines()
            .filter_map(|line| line.split(' ').nth(3)?.parse().ok())
            .collect();
        if counts.len() == channels as usize && counts.iter().sum::<u64>() == statements {
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "{} of {statements} after {PATIENCE:?}: {}",
            counts.iter().sum::<u64>(),
            fixture.log()
        );
        sleep(Duration::from_millis(20)).await;
    }
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len());
    sorted[at - 1]
}

async fn latency(tiers: usize, releases: u32) -> anyhow::Result<()> {
    let (origin, _origin, mut publisher) = origin("").await?;
    let mut brokers = vec![origin];
    let mut daemons = Vec::new();
    for tier in 0..tiers {
        let mirror = brokers[0].mirror_of(&[brokers[tier].address], "")?;
        daemons.push(mirror.start()?);
        brokers.push(mirror);
    }
    let channel = channel(0)?;
    let first = release(&channel, None, "1.0", 1024, &brokers[0].release)?;
    publisher.publish(&first).await?;
    for broker in &brokers {
        until_count(broker, 1, 1).await?;
    }
    let mut watchers = Vec::new();
    for broker in &brokers {
        let mut connection = connect(broker).await?;
        let promised = connection.watch(&format!("{channel}:1")).await?;
        watchers.push((connection, promised));
    }
    let (mut head, mut delays) = (first.head(), vec![Vec::new(); brokers.len()]);
    for number in 1..=releases {
        let statement = release(
            &channel,
            Some(head),
            &format!("1.{number}"),
            1024,
            &brokers[0].release,
        )?;
        head = statement.head();
        let sent = Instant::now();
        let publish = async {
            publisher
                .publish(&statement)
                .await
                .map(drop)
                .map_err(anyhow::Error::from)
        };
        let arrivals = futures_util::future::join_all(watchers.iter_mut().map(
            |(connection, promised)| async move {
                let event = connection.event(*promised).await;
                (event, Instant::now())
            },
        ));
        let (published, arrivals) = tokio::join!(publish, arrivals);
        published?;
        for (tier, (event, at)) in arrivals.into_iter().enumerate() {
            ensure!(
                event?.context("the watch has ended")?.statement == statement,
                "another statement came"
            );
            delays[tier].push(at.duration_since(sent).as_secs_f64() * 1000.0);
        }
    }
    println!("| tier | p50 ms | p99 ms |\n| ---: | ---: | ---: |");
    for (tier, mut delays) in delays.into_iter().enumerate() {
        delays.sort_by(f64::total_cmp);
        println!(
            "| {tier} | {:.2} | {:.2} |",
            percentile(&delays, 0.5),
            percentile(&delays, 0.99)
        );
    }
    Ok(())
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let what = arguments.what;
    if let What::Subscribe {
        broker,
        subscribers,
    } = what
    {
        return subscribe(broker, subscribers);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match what {
            What::Latency { tiers, releases } => latency(tiers, releases).await,
            What::Cold {
                channels,
                statements,
                inn,
            } => cold(channels, statements, inn).await,
            What::CatchUp { statements } => catch_up(statements).await,
            What::Masses {
                mirrors,
                subscribers,
                releases,
            } => masses(mirrors, subscribers, releases).await,
            What::Subscribe { .. } => Ok(()),
        }
    })
}
