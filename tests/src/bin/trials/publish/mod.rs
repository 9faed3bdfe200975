//! Durable, verified POSTs by one and by several publishers: how many a second.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use tidings_client::{Channel, Publisher, Source};
use tidings_protocol::{Head, SigningKey, nntp::code};
use tidings_tests::{
    Fixture, cluster::Site, cpu_seconds, ensemble::Ensemble, realm::Realm, release,
    tree::until_head,
};
use zookeeper_client as zk;

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
    let began = Instant::now();
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
    Measured::of(delays, began.elapsed())
}

struct Measured {
    count: usize,
    rate: f64,
    p50: f64,
    p99: f64,
}

impl Measured {
    fn of(mut delays: Vec<f64>, elapsed: Duration) -> anyhow::Result<Self> {
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
        })
    }
}

/// The multi-operation of an append, without anything around it: check, create, set, by writers
/// that share these sessions.
async fn raw(
    clients: &[zk::Client],
    writers: usize,
    root: &str,
    options: &Options,
) -> anyhow::Result<Measured> {
    let anyone = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    let began = Instant::now();
    let until = began + Duration::from_secs(options.seconds);
    let mut tasks = Vec::new();
    for (number, client) in (0..writers).zip(clients.iter().cycle()) {
        let (client, data, log) = (
            client.clone(),
            vec![b'x'; options.octets + 200],
            format!("{root}/w{writers}n{number}"),
        );
        client.mkdir(&log, &anyone).await?;
        tasks.push(tokio::spawn(async move {
            let (mut delays, mut version) = (Vec::new(), 0);
            while Instant::now() < until {
                let sent = Instant::now();
                let mut writer = client.new_multi_writer();
                // The trust log's head stands still; here it is the root.
                writer.add_check_version("/", -1)?;
                writer.add_set_data(
                    &log,
                    b"42 sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                    Some(version),
                )?;
                writer.add_create(
                    &format!("{log}/{version:010}"),
                    &data,
                    &zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all()),
                )?;
                writer.commit().await?;
                version += 1;
                delays.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            anyhow::Ok(delays)
        }));
    }
    let mut delays = Vec::new();
    for task in tasks {
        delays.extend(task.await??);
    }
    Measured::of(delays, began.elapsed())
}

/// One broker, three that are one origin, and what ZooKeeper itself can do, in turns.
#[allow(clippy::print_stdout)]
async fn side_by_side(options: &Options) -> anyhow::Result<()> {
    let single = Fixture::new()?;
    let _single = single.start()?;
    Publisher::connect(single.source()?)
        .await?
        .publish(&single.trust)
        .await?;
    let ensemble = Ensemble::start(3, "")?;
    let realm = Realm {
        log: vec![single.trust.clone()],
        anchor: single.anchor.clone(),
        time: tidings_client::now(),
        expires: 0,
    };
    let site = Site::new(&ensemble, realm);
    let (members, _daemons) = site.found(&["a", "b", "c"], "", "").await?;
    for member in &members {
        until_head(member, &site.realm.anchor.namespace.trust_log(), 1).await;
    }
    let cluster = members
        .iter()
        .map(Fixture::source)
        .collect::<Result<Vec<_>, _>>()?;
    let mut clients = Vec::new();
    for server in &ensemble.servers {
        clients.push(zk::Client::connect(&server.address.to_string()).await?);
    }
    println!(
        "| round | publishers | one broker: statements/s, p50, p99 ms | three, one origin | multi-operations alone | cluster / alone |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for round in 1..=options.rounds {
        for publishers in &options.publishers {
            let tag = format!("r{round}");
            let one = measure(&[single.source()?], *publishers, &tag, options, &single).await?;
            let three = measure(&cluster, *publishers, &tag, options, &single).await?;
            let alone = raw(&clients, *publishers, &format!("/raw{round}"), options).await?;
            let show = |m: &Measured| format!("{:.0}, {:.2}, {:.2}", m.rate, m.p50, m.p99);
            println!(
                "| {round} | {publishers} | {} | {} | {} | {:.2} |",
                show(&one),
                show(&three),
                show(&alone),
                three.rate / alone.rate
            );
        }
    }
    Ok(())
}

#[tokio::main]
#[allow(clippy::print_stdout)]
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    if options.cluster {
        return side_by_side(&options).await;
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
