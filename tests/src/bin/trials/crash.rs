//! The power goes under load, round after round: a real broker on a file system that forgets what
//! was not synced.
//!
//! Everything that was answered with 240, and everything that a reader was ever shown, is there
//! after each start, and nobody repairs anything by hand.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tidings_client::{Channel, Connection, Head, Publisher, Serial, Source};
use tidings_protocol::{SigningKey, nntp::code};
use tidings_tests::{
    Daemon, Fixture, Random,
    forgetful::ForgetfulDisk,
    forgetting::{CUTS, MODELS},
    release,
};

#[derive(Args)]
pub(crate) struct Options {
    /// How often the power goes
    #[arg(long, default_value_t = 300)]
    rounds: u32,
    /// The seed of the random times and losses
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const PUBLISHERS: usize = 4;
/// The channels; the last is shared by all publishers, who race for it.
const CHANNELS: usize = 5;
const DISK_OCTETS: usize = 1 << 30;

/// What was answered for, or shown.
type Known = Arc<Mutex<BTreeMap<(usize, Serial), Head>>>;

fn channel(index: usize) -> anyhow::Result<Channel> {
    Ok(format!("test.crash.c{index}").parse()?)
}

fn note(known: &Known, index: usize, head: Head) -> anyhow::Result<()> {
    let mut known = known.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    let before = known.insert((index, head.serial), head);
    ensure!(
        before.is_none_or(|before| before == head),
        "two statements for one serial: {before:?} and {head:?}"
    );
    Ok(())
}

/// Publishes into its own channel and the shared one until the connection breaks.
async fn publish(source: Source, key: SigningKey, own: usize, known: Known) -> anyhow::Result<()> {
    let Ok(mut publisher) = Publisher::connect(source.clone()).await else {
        return Ok(());
    };
    let Ok(mut connection) = source.connect().await else {
        return Ok(());
    };
    let mut heads = BTreeMap::new();
    for index in [own, CHANNELS - 1] {
        let Ok(newest) = publisher.newest(&channel(index)?).await else {
            return Ok(());
        };
        heads.insert(index, newest.map(|statement| statement.head()));
    }
    for count in 0_u64.. {
        for index in [own, own, own, CHANNELS - 1] {
            let statement = release(
                &channel(index)?,
                heads[&index],
                &format!("{own}.{count}"),
                1024,
                &key,
            )?;
            // The connection breaks when the broker is killed.
            let Ok(response) = connection.post(&statement).await else {
                return Ok(());
            };
            match response.code {
                code::POSTED => {
                    note(&known, index, statement.head())?;
                    heads.insert(index, Some(statement.head()));
                }
                code::POST_FAILED => {
                    match response.text.parse::<tidings_protocol::nntp::LostRace>() {
                        Ok(race) => drop(heads.insert(index, Some(race.0))),
                        Err(())
                            if response.text.contains("store failed")
                                || response.text.contains("shutting down") =>
                        {
                            return Ok(());
                        }
                        Err(()) => bail!("refused: {response}"),
                    }
                }
                _ => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Reads what is newest, all the time.
async fn look(source: Source, known: Known, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let Ok(mut connection) = source.connect().await else {
        return Ok(());
    };
    while !stop.load(Ordering::Relaxed) {
        for index in 0..CHANNELS {
            let name = channel(index)?;
            let Ok(group) = connection.group(&name, None).await else {
                return Ok(());
            };
            let Some((group, _)) = group else { continue };
            let Ok(shown) = connection
                .articles(&name, group.high..=group.high, usize::MAX)
                .await
            else {
                return Ok(());
            };
            for statement in shown {
                note(&known, index, statement.head())?;
            }
        }
    }
    Ok(())
}

/// Everything known is there, and every log is one chain of verified statements.
async fn check(source: &Source, known: &Known, all: bool) -> anyhow::Result<usize> {
    let mut publisher = Publisher::connect(source.clone()).await?;
    let trust = publisher.trust().context("the trust log is gone")?.clone();
    let mut connection: Connection = source.connect().await?;
    let known = known
        .lock()
        .map_err(|_| anyhow::anyhow!("poisoned"))?
        .clone();
    let mut checked = 0;
    for index in 0..CHANNELS {
        let name = channel(index)?;
        let ours: Vec<_> = known
            .range((index, Serial::FIRST)..(index + 1, Serial::FIRST))
            .map(|(_, head)| *head)
            .collect();
        let Some(newest) = ours.last() else { continue };
        publisher
            .newest(&name)
            .await?
            .context("a channel is gone")?;
        let (group, _) = connection
            .group(&name, None)
            .await?
            .context("a channel is gone")?;
        ensure!(
            group.high >= newest.serial.number(),
            "{name}: known up to {}, stored up to {}",
            newest.serial,
            group.high
        );
        let from = if all {
            1
        } else {
            group.high.saturating_sub(500).max(1)
        };
        let run = connection
            .articles(&name, from..=group.high, usize::MAX)
            .await?;
        let run = trust
            .verify_run(&name, run)
            .map_err(|(serial, error)| anyhow::anyhow!("{name} {serial}: {error}"))?
            .statements;
        ensure!(
            run.len() == (group.high - from + 1) as usize,
            "{name}: a hole in the log"
        );
        for head in ours.iter().filter(|h| h.serial.number() >= from) {
            let stored = run[(head.serial.number() - from) as usize].head();
            ensure!(stored == *head, "{name}: known {head}, stored {stored}");
            checked += 1;
        }
    }
    Ok(checked)
}

/// Load until the power goes: after a while, or at one change of the disk.
async fn load(
    fixture: &Fixture,
    daemon: Daemon,
    disk: &ForgetfulDisk,
    known: &Known,
    random: &mut Random,
) -> anyhow::Result<()> {
    let source = fixture.source()?;
    let stop = Arc::new(AtomicBool::new(false));
    let publishers = (0..PUBLISHERS).map(|own| {
        tokio::spawn(publish(
            source.clone(),
            fixture.release.clone(),
            own,
            known.clone(),
        ))
    });
    let mut tasks: Vec<_> = publishers.collect();
    tasks.push(tokio::spawn(look(source, known.clone(), stop.clone())));
    if random.below(2) == 0 {
        disk.fail_after(1 + random.below(120));
        let began = Instant::now();
        while !disk.is_gone() && began.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // For a while readers see what the broker shows without a disk.
        tokio::time::sleep(Duration::from_millis(random.below(20))).await;
    } else {
        tokio::time::sleep(Duration::from_millis(20 + random.below(180))).await;
    }
    daemon.kill()?;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok(())
}

#[tokio::main]
#[allow(clippy::print_stdout)]
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let fixture = Fixture::new()?;
    let data = fixture.directory.join("data");
    fs::create_dir(&data)?;
    let (disk, mut random) = (ForgetfulDisk::new(DISK_OCTETS), Random::new(options.seed));
    let known = Known::default();
    let (mut opening, mut slowest, mut at_change) = (Duration::ZERO, Duration::ZERO, 0);
    for round in 0..options.rounds {
        let (model, cut) = (
            MODELS[round as usize % MODELS.len()],
            CUTS[round as usize / MODELS.len() % CUTS.len()],
        );
        let about = || {
            format!(
                "seed {}, round {round}, after a cut as {cut:?}, {model:?}",
                options.seed
            )
        };
        let mounted = disk.mount(&data, model)?;
        let began = Instant::now();
        let daemon = fixture.start().with_context(about)?;
        opening += began.elapsed();
        slowest = slowest.max(began.elapsed());
        if round == 0 {
            Publisher::connect(fixture.source()?)
                .await?
                .publish(&fixture.trust)
                .await?;
        }
        check(&fixture.source()?, &known, false)
            .await
            .with_context(about)?;
        load(&fixture, daemon, &disk, &known, &mut random)
            .await
            .with_context(about)?;
        at_change += u32::from(disk.is_gone());
        drop(mounted);
        disk.cut(cut, &mut random);
    }
    let _mounted = disk.mount(&data, MODELS[0])?;
    let daemon = fixture.start().context("the last start")?;
    let checked = check(&fixture.source()?, &known, true)
        .await
        .context("at the end")?;
    daemon.signal("TERM")?;
    let code = daemon.wait(Duration::from_secs(30))?;
    ensure!(code == Some(0), "after SIGTERM: exit code {code:?}");
    println!(
        "{} cuts, {at_change} of them at one change of the disk: {checked} statements were answered for or shown, all there and in one chain each; {} changes of the disk; opened in {:.0} ms on average, {:.0} ms at most",
        options.rounds,
        disk.changes(),
        opening.as_secs_f64() * 1000.0 / f64::from(options.rounds),
        slowest.as_secs_f64() * 1000.0
    );
    ensure!(
        checked > 100,
        "hardly anything was published: this run has tested nothing"
    );
    Ok(())
}
