//! What mirrors cost: how soon news are four tiers down, how long a mirror takes to begin and to
//! catch up, and one release to very many subscribers of several mirrors.

use std::{
    fs,
    io::Write,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use tidings_client::{
    Channel, Connection, Head, Publisher, Statement,
    bench::{
        Crowd, Endpoint,
        nntp::{Opening, Watcher},
    },
};
use tidings_protocol::{article, nntp::code};
use tidings_tests::{Daemon, Fixture, cpu_seconds, inn::Inn, release, tree::connect};
use tokio::time::sleep;

/// Statements that are made durable at once.
const STORE_BATCH: usize = 1_024;
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

/// Logs of statements of about 1 KiB, signed on all cores.
fn write_logs(
    fixture: &Fixture,
    channels: u32,
    statements: u32,
) -> anyhow::Result<Vec<Vec<Statement>>> {
    let threads = u32::try_from(std::thread::available_parallelism()?.get())?;
    let write = |number: u32| {
        let channel = channel(number)?;
        let (mut log, mut head): (Vec<Statement>, Option<Head>) = (Vec::new(), None);
        for serial in 1..=statements {
            let statement = release(
                &channel,
                head,
                &format!("1.{serial}"),
                1024,
                &fixture.release,
            )?;
            head = Some(statement.head());
            log.push(statement);
        }
        anyhow::Ok(log)
    };
    let parts = std::thread::scope(|scope| {
        let write = &write;
        let spawn = |part| {
            scope.spawn(move || {
                (0..channels)
                    .filter(|number| number % threads == part)
                    .map(write)
                    .collect::<Vec<_>>()
            })
        };
        let parts: Vec<_> = (0..threads).map(spawn).collect();
        parts
            .into_iter()
            .map(|part| {
                part.join()
                    .map_err(|_| anyhow::anyhow!("a writer has panicked"))
            })
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    parts.into_iter().flatten().collect()
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

async fn cold(channels: u32, statements: u32, inn: Option<PathBuf>) -> anyhow::Result<()> {
    let (origin, daemon, _publisher) = origin("").await?;
    let began = Instant::now();
    let logs = write_logs(&origin, channels, statements)?;
    let count = u64::from(channels) * u64::from(statements);
    let octets: usize = logs
        .iter()
        .flatten()
        .map(|statement| statement.octets().len())
        .sum();
    println!(
        "{count} statements, {:.0} octets each, signed in {:.1} s",
        octets as f64 / count as f64,
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    send_all(&mut connect(&origin).await?, logs.iter().flatten()).await?;
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    let took = began.elapsed();
    println!("| what | statements/s | seconds |\n| --- | ---: | ---: |");
    println!(
        "| the origin takes all of it by TAKETHIS, each signature checked | {:.0} | {:.1} |",
        rate(took),
        took.as_secs_f64()
    );
    let mirror = origin.mirror_of(&[origin.address], "")?;
    let (before, began) = (daemon.cpu_seconds()?, Instant::now());
    let mirroring = mirror.start()?;
    until_count(&mirror, channels, count).await?;
    let took = began.elapsed();
    println!(
        "| **a mirror that had nothing has all of it** | **{:.0}** | {:.1} |",
        rate(took),
        took.as_secs_f64()
    );
    let (ours, theirs) = (
        cpu_seconds(mirroring.pid())?,
        daemon.cpu_seconds()? - before,
    );
    println!(
        "| the same in CPU time of the mirror; of its upstream | {:.0}; {:.0} | {ours:.1}; {theirs:.1} |",
        count as f64 / ours,
        count as f64 / theirs
    );
    let began = Instant::now();
    let mut sum = 0_u8;
    for statement in logs.iter().flatten() {
        sum ^= tidings_protocol::StatementId::of(statement.octets()).octets()[0];
    }
    std::hint::black_box(sum);
    let took = began.elapsed();
    println!(
        "| SHA-256 of the same octets, one core | {:.0} | {:.2} |",
        rate(took),
        took.as_secs_f64()
    );
    let began = Instant::now();
    for statement in logs.iter().flatten() {
        std::hint::black_box(Statement::parse(statement.octets())?);
    }
    let took = began.elapsed();
    println!(
        "| parsing them, which hashes, one core | {:.0} | {:.2} |",
        rate(took),
        took.as_secs_f64()
    );
    let took = file_alone(&logs)?;
    println!(
        "| a file alone, batches of {STORE_BATCH} made durable | {:.0} | {:.1} |",
        rate(took),
        took.as_secs_f64()
    );
    if let Some(script) = inn {
        let scratch = tempfile::tempdir_in("/tmp")?;
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
        let some = u64::min(count, 20_000);
        let names: Vec<String> = logs
            .iter()
            .take(100)
            .filter_map(|log| Some(log.first()?.channel().to_string()))
            .collect();
        let inn = Inn::start(
            &script,
            scratch.path(),
            "a",
            0,
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        )?;
        let sent: Vec<&Statement> = logs
            .iter()
            .take(names.len())
            .flatten()
            .take(usize::try_from(some)?)
            .collect();
        let began = Instant::now();
        send_all(&mut inn.connect().await?, sent.iter().copied()).await?;
        let took = began.elapsed();
        println!(
            "| INN takes {} of them by TAKETHIS, nothing checked | {:.0} | {:.1} |",
            sent.len(),
            sent.len() as f64 / took.as_secs_f64(),
            took.as_secs_f64()
        );
    }
    Ok(())
}

/// The same octets into a file, synced as often, and nothing else.
fn file_alone(logs: &[Vec<Statement>]) -> anyhow::Result<Duration> {
    let directory = tempfile::tempdir()?;
    let mut file = std::fs::File::create(directory.path().join("all"))?;
    let began = Instant::now();
    let statements: Vec<&Statement> = logs.iter().flatten().collect();
    for some in statements.chunks(STORE_BATCH) {
        let octets: Vec<&[u8]> = some.iter().map(|statement| statement.octets()).collect();
        file.write_all(&octets.concat())?;
        file.sync_data()?;
    }
    Ok(began.elapsed())
}

async fn catch_up(statements: u32) -> anyhow::Result<()> {
    const CHANNELS: u32 = 1_000;
    let (origin, _origin, _publisher) = origin("").await?;
    let logs = write_logs(&origin, CHANNELS, 10 + statements / CHANNELS)?;
    send_all(
        &mut connect(&origin).await?,
        logs.iter().flat_map(|log| &log[..10]),
    )
    .await?;
    let mirror = origin.mirror_of(&[origin.address], "")?;
    let daemon = mirror.start()?;
    until_count(&mirror, CHANNELS, 10 * u64::from(CHANNELS)).await?;
    daemon.kill()?;
    send_all(
        &mut connect(&origin).await?,
        logs.iter().flat_map(|log| &log[10..]),
    )
    .await?;
    let count: u64 = logs.iter().map(|log| log.len() as u64).sum();
    let began = Instant::now();
    let _daemon = mirror.start()?;
    until_count(&mirror, CHANNELS, count).await?;
    println!(
        "{} statements in {CHANNELS} channels were missed, and are there {:.2} s after the mirror was started",
        count - 10 * u64::from(CHANNELS),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The monotonic clock, which all processes of a machine share.
fn nanos() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).map_or(0, |since| since.as_nanos())
}

/// Subscribes, says `ready`, and for each event that all have, says when each had it.
fn subscribe(broker: SocketAddr, subscribers: usize) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(subscribers as u64 + 128)?;
    let channel = channel(0)?;
    let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
    let watcher = || Watcher::new(Opening::anonymous(), &channel, Some(1));
    crowd.join(
        &Endpoint {
            address: broker,
            tls: None,
        },
        (0..subscribers).map(|_| watcher()),
        PATIENCE,
        &mut done,
        || (),
    )?;
    println!("ready");
    let mut times = Vec::with_capacity(subscribers);
    loop {
        crowd.turn(PATIENCE, &mut done)?;
        times.extend(done.drain(..).map(|_| nanos()));
        if times.len() == subscribers {
            let text: Vec<String> = times.drain(..).map(|time| time.to_string()).collect();
            println!("{}", text.join(" "));
        }
    }
}

struct Subscribers {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        // It ends with its standard input otherwise never.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn masses(mirrors: usize, subscribers: usize, releases: u32) -> anyhow::Result<()> {
    let (origin, _origin, mut publisher) = origin("").await?;
    let channel = channel(0)?;
    let first = release(&channel, None, "1.0", 1024, &origin.release)?;
    publisher.publish(&first).await?;
    let limits = format!(
        "[limits]\nconnections = {0}\nconnections_per_address = {0}\nwatches = {0}\n",
        subscribers + 100
    );
    let mut brokers = Vec::new();
    let mut crowds = Vec::new();
    for _ in 0..mirrors {
        let mirror = origin.mirror_of(&[origin.address], &limits)?;
        let daemon = mirror.start()?;
        until_count(&mirror, 1, 1).await?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([
                "mirrors",
                "subscribe",
                &mirror.address.to_string(),
                &subscribers.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let mut crowd = Subscribers {
            child,
            lines: BufReader::new(output).lines(),
        };
        ensure!(
            crowd.lines.next().context("no subscribers")?? == "ready",
            "subscribers fail"
        );
        crowds.push(crowd);
        brokers.push((mirror, daemon));
    }
    println!(
        "| release | subscribers | p50 ms | p99 ms | ms to the last |\n| ---: | ---: | ---: | ---: | ---: |"
    );
    let mut head = first.head();
    for number in 1..=releases {
        let statement = release(
            &channel,
            Some(head),
            &format!("1.{number}"),
            1024,
            &origin.release,
        )?;
        head = statement.head();
        let sent = nanos();
        publisher.publish(&statement).await?;
        let mut delays = Vec::new();
        for crowd in &mut crowds {
            let line = crowd.lines.next().context("subscribers have ended")??;
            delays.extend(
                line.split(' ')
                    .filter_map(|time| time.parse::<u128>().ok())
                    .map(|time| time.saturating_sub(sent) as f64 / 1e6),
            );
        }
        delays.sort_by(f64::total_cmp);
        ensure!(
            delays.len() == mirrors * subscribers,
            "{} of {} have it",
            delays.len(),
            mirrors * subscribers
        );
        println!(
            "| {number} | {} | {:.0} | {:.0} | {:.0} |",
            delays.len(),
            percentile(&delays, 0.5),
            percentile(&delays, 0.99),
            percentile(&delays, 1.0)
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
