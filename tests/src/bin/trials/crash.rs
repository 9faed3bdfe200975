//! Publishes under load and kills the broker with SIGKILL, round after round: nothing acknowledged may be lost.
//!
//! With `--damage`, a batch that was being written when power was lost is added to the store's journal before each start as well.

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tidings_client::{Channel, Connection, Head, Publisher, Serial, Source};
use tidings_protocol::{SigningKey, nntp::code};
use tidings_tests::{Fixture, Random, release};

#[derive(Args)]
pub(crate) struct Options {
    /// How often the broker is killed
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Add a torn batch to the store's journal before each start
    #[arg(long)]
    damage: bool,
    /// The seed of the random times and damages
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const PUBLISHERS: usize = 4;
/// The channels; the last is shared by all publishers, who race for it.
const CHANNELS: usize = 5;

type Acknowledged = Arc<Mutex<BTreeMap<(usize, Serial), Head>>>;

fn channel(index: usize) -> anyhow::Result<Channel> {
    Ok(format!("test.crash.c{index}").parse()?)
}

/// Publishes into its own channel and the shared one until the connection breaks.
async fn publish(source: Source, key: SigningKey, own: usize, acknowledged: Acknowledged) -> anyhow::Result<u64> {
    let mut publisher = Publisher::connect(source.clone()).await?;
    let mut connection: Connection = source.connect().await?;
    let mut heads = BTreeMap::new();
    for index in [own, CHANNELS - 1] {
        heads.insert(index, publisher.newest(&channel(index)?).await?.map(|s| s.head()));
    }
    let mut count = 0;
    loop {
        for index in [own, own, own, CHANNELS - 1] {
            let statement = release(&channel(index)?, heads[&index], &format!("{own}.{count}"), 1024, &key)?;
            // The connection breaks when the broker is killed.
            let Ok(response) = connection.post(&statement).await else { return Ok(count) };
            match response.code {
                code::POSTED => {
                    let mut acknowledged = acknowledged.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
                    ensure!(acknowledged.insert((index, statement.serial()), statement.head()).is_none(), "two 240 for one serial");
                    heads.insert(index, Some(statement.head()));
                    count += 1;
                }
                code::POST_FAILED => match response.text.parse::<tidings_protocol::nntp::LostRace>() {
                    Ok(race) => drop(heads.insert(index, Some(race.0))),
                    Err(()) => bail!("refused: {response}"),
                },
                _ => return Ok(count),
            }
        }
    }
}

/// Everything acknowledged is there, and every log is one chain of verified statements.
async fn check(source: &Source, acknowledged: &Acknowledged, all: bool) -> anyhow::Result<usize> {
    let mut publisher = Publisher::connect(source.clone()).await?;
    let trust = publisher.trust().context("the trust log is gone")?.clone();
    let mut connection = source.connect().await?;
    let acknowledged = acknowledged.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.clone();
    let mut checked = 0;
    for index in 0..CHANNELS {
        let name = channel(index)?;
        let ours: Vec<_> = acknowledged.range((index, Serial::FIRST)..(index + 1, Serial::FIRST)).map(|(_, head)| *head).collect();
        let Some(newest) = ours.last() else { continue };
        publisher.newest(&name).await?.context("a channel is gone")?;
        let (group, _) = connection.group(&name, None).await?.context("a channel is gone")?;
        ensure!(group.high >= newest.serial.number(), "{name}: acknowledged up to {}, stored up to {}", newest.serial, group.high);
        let from = if all { 1 } else { group.high.saturating_sub(500).max(1) };
        let run = connection.articles(&name, from..=group.high, usize::MAX).await?;
        let run = trust.verify_run(&name, run).map_err(|(serial, error)| anyhow::anyhow!("{name} {serial}: {error}"))?.statements;
        ensure!(run.len() == (group.high - from + 1) as usize, "{name}: a hole in the log");
        for head in ours.iter().filter(|h| h.serial.number() >= from) {
            let stored = run[(head.serial.number() - from) as usize].head();
            ensure!(stored == *head, "{name}: acknowledged {head}, stored {stored}");
            checked += 1;
        }
    }
    Ok(checked)
}

/// What ends every batch in the store's journal, its checksum before it.
const TRAILER: &[u8] = b"FJL\x03";
/// What a disk writes whole, or not at all.
const SECTOR: usize = 512;

/// Writes one more batch behind the last, as a loss of power leaves it: its end is missing, or something in its middle.
fn damage(store: &Path, random: &mut Random) -> anyhow::Result<Option<&'static str>> {
    let journals = fs::read_dir(store)?.filter_map(|entry| Some(entry.ok()?.path()));
    let journals = journals.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    let number = |path: &std::path::PathBuf| path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
    let Some(journal) = journals.max_by_key(number) else { return Ok(None) };
    let octets = fs::read(&journal)?;
    let ends: Vec<usize> = memchr::memmem::find_iter(&octets, TRAILER).map(|at| at + TRAILER.len()).collect();
    let [.., before, end] = ends[..] else { return Ok(None) };
    let mut torn = octets[before..end].to_vec();
    let at = usize::try_from(random.below(torn.len() as u64))?;
    let what = if random.below(2) == 0 {
        torn.truncate(at);
        "end missing"
    } else {
        let sector = (end + at) / SECTOR * SECTOR;
        for (place, octet) in torn.iter_mut().enumerate() {
            if (sector..sector + SECTOR).contains(&(end + place)) {
                *octet = 0;
            }
        }
        "sector missing"
    };
    let mut file = fs::File::options().write(true).open(&journal)?;
    file.seek(SeekFrom::Start(end as u64))?;
    file.write_all(&torn)?;
    Ok(Some(what))
}

#[tokio::main]
#[allow(clippy::print_stdout)]
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let fixture = Fixture::new()?;
    let mut random = Random::new(options.seed);
    let acknowledged = Acknowledged::default();
    let mut damages: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut opening, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for round in 0..options.rounds {
        if options.damage
            && round > 0
            && let Some(what) = damage(&fixture.directory.join("data/store"), &mut random)?
        {
            *damages.entry(what).or_default() += 1;
        }
        let began = Instant::now();
        let daemon = fixture.start().with_context(|| format!("seed {}, round {round}", options.seed))?;
        opening += began.elapsed();
        slowest = slowest.max(began.elapsed());
        let source = fixture.source()?;
        if round == 0 {
            Publisher::connect(source.clone()).await?.publish(&fixture.trust).await?;
        }
        check(&source, &acknowledged, false).await.with_context(|| format!("seed {}, after {round} kills", options.seed))?;
        let tasks: Vec<_> =
            (0..PUBLISHERS).map(|own| tokio::spawn(publish(source.clone(), fixture.release.clone(), own, acknowledged.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(20 + random.below(180))).await;
        daemon.kill()?;
        for task in tasks {
            task.await??;
        }
    }
    let daemon = fixture.start().context("the last start")?;
    let checked = check(&fixture.source()?, &acknowledged, true).await.context("at the end")?;
    daemon.signal("TERM")?;
    let code = daemon.wait(Duration::from_secs(30))?;
    ensure!(code == Some(0), "after SIGTERM: exit code {code:?}");
    println!(
        "{} kills, {checked} acknowledged statements, all there and in one chain each; opened in {:.0} ms on average, {:.0} ms at most; torn batches: {damages:?}",
        options.rounds,
        opening.as_secs_f64() * 1000.0 / f64::from(options.rounds),
        slowest.as_secs_f64() * 1000.0
    );
    ensure!(!options.damage || !damages.is_empty(), "no journal was there to be damaged: this run has tested nothing");
    Ok(())
}
