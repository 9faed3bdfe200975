//! How long a mirror takes to begin, and to catch up.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use tidings_client::{Head, Statement};
use tidings_tests::{Fixture, cpu_seconds, inn::Inn, release, tree::connect};

use super::{channel, origin, send_all, until_count};

/// Statements that are made durable at once.
const STORE_BATCH: usize = 1_024;

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

pub(super) async fn cold(
    channels: u32,
    statements: u32,
    inn: Option<PathBuf>,
) -> anyhow::Result<()> {
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

pub(super) async fn catch_up(statements: u32) -> anyhow::Result<()> {
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
