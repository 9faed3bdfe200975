//! Tidings beside other servers, in turns, with one generator: what a delivery, a publication and a
//! poll cost.
//!
//! Every measurement starts its server anew. Each is one line of JSON; `page` makes tables and
//! charts of them.

mod fan;
mod page;
mod publish;
pub(super) mod servers;
mod speak;

pub(super) use fan::{Fan, closed_loop, fan, fan_out};

pub(super) use servers::raw_server;

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use fan::Boxed;
use publish::{bare, published};
use serde::{Deserialize, Serialize};
use servers::{Broker, Nginx};
use speak::Http;
use tidings_client::{Channel, Publisher, Statement};
use tidings_protocol::Head;
use tidings_tests::bench::{
    Crowd, Endpoint, Peer, Process,
    nntp::{Opening, Poller},
};
use tidings_tests::{Fixture, release};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure, and append to a file
    Run {
        /// Where the measurements go
        #[arg(long)]
        out: PathBuf,
        /// How often, in turns
        #[arg(long, default_value_t = 10)]
        rounds: u32,
        /// What; all of it if none is named
        #[arg(long = "suite", value_enum)]
        suites: Vec<Suite>,
        /// Subscribers; repeatable
        #[arg(long = "subscribers", default_values_t = [1_000, 5_000, 15_000])]
        subscribers: Vec<usize>,
        /// The program that is nats-server
        #[arg(long, default_value = "nats-server")]
        nats: String,
        /// The script that runs INN without installing it
        #[arg(long)]
        inn: PathBuf,
    },
    /// Make tables and charts of what was measured
    Page {
        /// Measurements
        #[arg(long)]
        of: PathBuf,
        /// The page whose part between two marks is written anew
        #[arg(long)]
        into: PathBuf,
        /// Where the charts go
        #[arg(long)]
        charts: PathBuf,
    },
    /// The reference
    #[command(hide = true)]
    RawServer { subscribers: usize, size: usize },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// One message to many
    Fanout,
    /// The same under TLS
    Tls,
    /// Durable publications
    Publish,
    /// Polls on connections that stand
    Poll,
    /// Polls on connections of their own, under TLS
    Storm,
}

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Octets of a message, and of a statement.
pub(super) const OCTETS: usize = 1024;

/// How long polls are measured.
const POLLS: Duration = Duration::from_secs(3);
const PUBLISHERS: usize = 16;

/// One measurement.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Line {
    suite: String,
    round: u32,
    what: String,
    /// Subscribers, publishers or connections.
    pub(super) size: usize,
    /// Of the server, for each delivery, publication or poll.
    pub(super) cpu_us: f64,
    /// In a second.
    rate: f64,
    p50_ms: f64,
    pub(super) p99_ms: f64,
    /// To the last subscriber.
    pub(super) last_p99_ms: f64,
    /// Of the server, for each idle subscriber.
    pub(super) idle_octets: Option<f64>,
}

/// The generator runs on core 0 where servers are pinned to core 1.
pub(super) fn pin(pinned: bool, cores: usize) -> anyhow::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    (0..if pinned { 1 } else { cores }).for_each(|core| set.set(core));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// A log from its beginning, signed beforehand.
pub(super) fn signed(
    fixture: &Fixture,
    channel: &Channel,
    count: usize,
    octets: usize,
) -> anyhow::Result<Vec<Statement>> {
    let mut head: Option<Head> = None;
    (0..count)
        .map(|number| {
            let statement = release(channel, head, &number.to_string(), octets, &fixture.release)?;
            head = Some(statement.head());
            Ok(statement)
        })
        .collect()
}

/// A broker with one channel that has something.
async fn small() -> anyhow::Result<(Broker, Channel)> {
    let broker = Broker::start(true)?;
    let channel: Channel = "test.os.stable".parse()?;
    let mut publisher = Publisher::connect(broker.fixture.source()?).await?;
    publisher.publish(&broker.fixture.trust).await?;
    publisher
        .publish(&signed(&broker.fixture, &channel, 1, OCTETS)?[0])
        .await?;
    Ok((broker, channel))
}

async fn polled(what: &str, connections: usize) -> anyhow::Result<Line> {
    let over = |_: usize, elapsed: Duration| elapsed > POLLS;
    match what {
        "tidings" => {
            let (broker, channel) = small().await?;
            let poller = |_| Box::new(Poller::new(Opening::anonymous(), &channel)) as Box<dyn Peer>;
            closed_loop(
                broker.process(),
                &broker.clear,
                (0..connections).map(poller).collect(),
                over,
            )
        }
        "nginx, 304" => {
            let nginx = Nginx::start(false)?;
            let http = |_| Box::new(Http::new(&nginx.etag, true)) as Box<dyn Peer>;
            closed_loop(
                nginx.process(),
                nginx.endpoint(),
                (0..connections).map(http).collect(),
                over,
            )
        }
        _ => anyhow::bail!("no poll of {what:?}"),
    }
}

/// One poll on each connection.
fn storm(
    process: Process,
    endpoint: &Endpoint,
    abreast: usize,
    peer: impl Fn() -> Box<dyn Peer>,
) -> anyhow::Result<Line> {
    let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
    crowd.join(
        endpoint,
        (0..abreast).map(|_| Boxed(peer())),
        PATIENCE,
        &mut done,
        || (),
    )?;
    let (began, before) = (Instant::now(), process.cpu()?);
    let mut count = 0;
    while began.elapsed() < POLLS {
        crowd.turn(PATIENCE, &mut done)?;
        for one in done.drain(..) {
            crowd.replace(one.index, endpoint, Boxed(peer()))?;
            count += 1;
        }
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    Ok(Line {
        size: abreast,
        cpu_us: (process.cpu()? - before).as_secs_f64() * 1e6 / count as f64,
        ..bare(rate)
    })
}

async fn stormed(what: &str, abreast: usize) -> anyhow::Result<Line> {
    let of = |endpoint: &Endpoint| {
        if what.ends_with("resumed") {
            endpoint.clone()
        } else {
            endpoint.clone().without_resumption()
        }
    };
    if what.starts_with("tidings") {
        let (broker, channel) = small().await?;
        return storm(broker.process(), &of(&broker.encrypted), abreast, || {
            Box::new(Poller::new(Opening::anonymous(), &channel).once())
        });
    }
    let nginx = Nginx::start(true)?;
    storm(nginx.process(), &of(nginx.endpoint()), abreast, || {
        Box::new(Http::new(&nginx.etag, false))
    })
}

/// What is measured in each suite, in the order of a round.
fn contestants(suite: Suite) -> (&'static str, &'static [&'static str]) {
    match suite {
        Suite::Fanout => (
            "fanout",
            &[
                "raw",
                "raw, a statement's octets",
                "tidings",
                "mosquitto",
                "nats-server",
                "redis",
            ],
        ),
        Suite::Tls => ("tls", &["tidings, TLS", "nats-server, TLS"]),
        Suite::Publish => (
            "publish",
            &[
                "Ed25519, all cores",
                "write and fdatasync, 1 at a time",
                "write and fdatasync, 16 at a time",
                "tidings, POST",
                "tidings, 64 under way",
                "JetStream, sync always",
                "JetStream, sync always, 64 under way",
                "innd, nothing synced or checked",
            ],
        ),
        Suite::Poll => ("poll", &["tidings", "nginx, 304"]),
        Suite::Storm => (
            "storm",
            &[
                "tidings, full",
                "nginx, full",
                "tidings, resumed",
                "nginx, resumed",
            ],
        ),
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (out, rounds, suites, subscribers, program, inn) = match arguments.what {
        What::RawServer { subscribers, size } => return raw_server(subscribers, size),
        What::Page { of, into, charts } => return page::write(&of, &into, &charts),
        What::Run {
            out,
            rounds,
            suites,
            subscribers,
            nats,
            inn,
        } => (out, rounds, suites, subscribers, nats, inn),
    };
    let all = [
        Suite::Fanout,
        Suite::Tls,
        Suite::Publish,
        Suite::Poll,
        Suite::Storm,
    ];
    let suites = if suites.is_empty() {
        all.to_vec()
    } else {
        suites
    };
    let files = subscribers.iter().max().copied().unwrap_or(0) as u64 + 256;
    let allowed = rlimit::increase_nofile_limit(files)?;
    ensure!(
        allowed >= files,
        "{files} open files are needed, {allowed} are allowed"
    );
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(&out)
        .with_context(|| format!("cannot write {}", out.display()))?;
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores >= 2, "the server and the generator need a core each");
    for round in 1..=rounds {
        for suite in &suites {
            let (name, contestants) = contestants(*suite);
            let sizes = match suite {
                Suite::Fanout | Suite::Tls => subscribers.clone(),
                Suite::Publish => vec![PUBLISHERS],
                Suite::Poll => vec![100, 5_000],
                Suite::Storm => vec![32],
            };
            for size in sizes {
                for what in contestants {
                    pin(*suite != Suite::Publish, cores)?;
                    let measured = match suite {
                        Suite::Fanout | Suite::Tls => match fan(what, size, None, &program).await {
                            Ok((fan, _held)) => fan_out(fan, size),
                            Err(error) => Err(error),
                        },
                        Suite::Publish => published(what, &program, &inn).await,
                        Suite::Poll => polled(what, size).await,
                        Suite::Storm => stormed(what, size).await,
                    };
                    let line = measured
                        .with_context(|| format!("round {round}, {name}, {what}, {size}"))?;
                    let line = Line {
                        suite: name.into(),
                        round,
                        what: (*what).into(),
                        size,
                        ..line
                    };
                    println!(
                        "{round:>2} {name:<8} {what:<34} {size:>6}: {:>9.0}/s {:>7.2} µs p99 {:>7.2} ms",
                        line.rate, line.cpu_us, line.p99_ms
                    );
                    writeln!(file, "{}", serde_json::to_string(&line)?)?;
                }
            }
        }
    }
    Ok(())
}
