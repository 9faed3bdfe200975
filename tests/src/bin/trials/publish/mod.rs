//! Durable, verified POSTs by one and by several publishers: how many a second.

mod cluster;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use tidings_client::{Channel, Publisher, Source};
use tidings_protocol::{Head, SigningKey, nntp::code};
use tidings_tests::{Fixture, cpu_seconds, release};

#[derive(Args)]
pub(crate) struct Options {
    /// How many publishers, each on its own connection and channel; repeatable
    #[arg(long = "publishers", default_values_t = [1, 4, 16, 64])]
    publishers: Vec<usize>,
    /// For how many seconds each
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Beside each other: one broker, a cluster of three, and the multi-operations of ZooKeeper
    /// alone
    #[arg(long)]
    cluster: bool,
    /// How often, with --cluster
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// ZooKeeper's servers sync nothing, with --cluster: what is left is not the disk's
    #[arg(long)]
    no_sync: bool,
    /// Octets of each statement, about
    #[arg(long, default_value_t = 1024)]
    octets: usize,
}

/// Statements are made and signed beforehand: signing is not what is measured.
fn make(
    channel: &Channel,
    after: Option<Head>,
    count: usize,
    octets: usize,
    key: &SigningKey,
) -> anyhow::Result<Vec<tidings_client::Statement>> {
    let mut head = after;
    (0..count)
        .map(|number| {
            let statement = release(channel, head, &number.to_string(), octets, key)?;
            head = Some(statement.head());
            Ok(statement)
        })
        .collect()
}

async fn publish(
    source: Source,
    statements: Vec<tidings_client::Statement>,
    until: Instant,
) -> anyhow::Result<Vec<f64>> {
    let mut connection = source.connect().await?;
    let mut delays = Vec::new();
    for statement in &statements {
        let sent = Instant::now();
        if sent >= until {
            return Ok(delays);
        }
        let response = connection.post(statement).await?;
        ensure!(response.code == code::POSTED, "{response}");
        delays.push(sent.elapsed().as_secs_f64() * 1000.0);
    }
    anyhow::bail!(
        "too few statements were made beforehand: more than {} fit into the time",
        statements.len()
    )
}

/// What one core verifies a second, as the broker does it.
fn verifications(fixture: &Fixture) -> anyhow::Result<f64> {
    let trust = tidings_protocol::trust::Trust::first(&fixture.anchor, fixture.trust.clone())?;
    let statement = release(&"test.x".parse()?, None, "1", 1024, &fixture.release)?;
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < Duration::from_secs(1) {
        trust.check(&statement)?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// What the disk makes durable a second, one write of a statement at a time.
fn syncs(fixture: &Fixture) -> anyhow::Result<f64> {
    use std::io::Write;
    let mut file = std::fs::File::create(fixture.directory.join("sync"))?;
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 1024])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Rate, median and 99th percentile of what some publishers get, each with a channel of its own;
/// they share the brokers.
async fn measure(
    sources: &[Source],
    publishers: usize,
    tag: &str,
    options: &Options,
    fixture: &Fixture,
) -> anyhow::Result<Measured> {
    let most = usize::try_from(options.seconds * 40_000 / publishers as u64)?.min(60_000);
    let mut work = Vec::new();
    for number in 0..publishers {
        let channel = format!("test.publish.{tag}.p{publishers}.n{number}").parse()?;
        work.push(make(
            &channel,
            None,
            most,
            options.octets,
            &fixture.release,
        )?);
    }
    let (began, cpu) = (Instant::now(), cpu_seconds(std::process::id())?);
    let until = began + Duration::from_secs(options.seconds);
    let tasks = work
        .into_iter()
        .zip(sources.iter().cycle())
        .map(|(statements, source)| publish(source.clone(), statements, until));
    let tasks: Vec<_> = tasks.map(tokio::spawn).collect();
    let mut delays = Vec::new();
    for task in tasks {
        delays.extend(task.await??);
    }
    Measured::of(delays, began, cpu)
}

struct Measured {
    count: usize,
    rate: f64,
    p50: f64,
    p99: f64,
    /// Seconds of the processors that this program has used for it.
    cpu: f64,
}

impl Measured {
    /// What has happened since then, and since so many seconds of the processors.
    fn of(mut delays: Vec<f64>, began: Instant, cpu: f64) -> anyhow::Result<Self> {
        let elapsed = began.elapsed();
        delays.sort_by(f64::total_cmp);
        let at = |part: usize| {
            delays
                .get(delays.len() * part / 100)
                .copied()
                .context("nothing was done")
        };
        Ok(Self {
            count: delays.len(),
            rate: delays.len() as f64 / elapsed.as_secs_f64(),
            p50: at(50)?,
            p99: at(99)?,
            cpu: cpu_seconds(std::process::id())? - cpu,
        })
    }
}

#[tokio::main]
#[allow(clippy::print_stdout)]
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    if options.cluster {
        return cluster::side_by_side(&options).await;
    }
    let fixture = Fixture::new()?;
    let daemon = fixture.start()?;
    let source = fixture.source()?;
    Publisher::connect(source.clone())
        .await?
        .publish(&fixture.trust)
        .await?;
    println!("| publishers | statements/s | p50 ms | p99 ms | broker CPU µs each |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    for publishers in &options.publishers {
        let before = cpu_seconds(daemon.pid())?;
        let measured = measure(
            std::slice::from_ref(&source),
            *publishers,
            "single",
            &options,
            &fixture,
        )
        .await?;
        let cpu = cpu_seconds(daemon.pid())? - before;
        let Measured {
            count,
            rate,
            p50,
            p99,
            ..
        } = measured;
        println!(
            "| {publishers} | {rate:.0} | {p50:.2} | {p99:.2} | {:.0} |",
            cpu * 1e6 / count as f64
        );
    }
    println!(
        "\nIn the same run: one core verifies {:.0} statements/s; the disk makes {:.0} single writes/s durable.",
        verifications(&fixture)?,
        syncs(&fixture)?
    );
    Ok(())
}
