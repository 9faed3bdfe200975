//! Tidings beside other servers, in turns, with one generator: what a delivery, a publication and a
//! poll cost.
//!
//! Every measurement starts its server anew. Each is one line of JSON; `page` makes tables and
//! charts of them.

mod page;
pub(super) mod servers;
mod speak;

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use tidings_client::{
    Channel, Publisher, Statement,
    bench::{
        Crowd, Endpoint, Peer, Process, Spread,
        nntp::{Opening, Poller, Poster, Watcher, article},
    },
};
use tidings_protocol::{Head, trust::Trust};
use tidings_tests::{Fixture, inn::Inn, release};

pub(super) use servers::raw_server;
use servers::{Broker, Nginx, Server, jetstream, mosquitto, nats, raw, redis};
use speak::{Http, Mqtt, Nats, Raw, Redis, payload};

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
const OCTETS: usize = 1024;
/// What a statement of that size has on the wire, with its headers and the line of its event;
/// measured in the first round.
const DELIVERIES: usize = 150_000;
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
fn pin(pinned: bool, cores: usize) -> anyhow::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    (0..if pinned { 1 } else { cores }).for_each(|core| set.set(core));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Who publishes to whom.
pub(super) struct Fan {
    pub(super) process: Process,
    pub(super) endpoint: Endpoint,
    pub(super) publisher: Box<dyn Peer>,
    pub(super) subscriber: Box<dyn Fn() -> Box<dyn Peer>>,
    /// What makes the publisher publish.
    pub(super) messages: Vec<Vec<u8>>,
}

struct Boxed(Box<dyn Peer>);

impl Peer for Boxed {
    fn begin(&mut self, say: &mut Vec<u8>) {
        self.0.begin(say);
    }
    fn take(&mut self, octets: &[u8], say: &mut Vec<u8>) -> Result<usize, String> {
        self.0.take(octets, say)
    }
    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }
}

/// Each message is published when everybody has the one before.
pub(super) fn fan_out(fan: Fan, subscribers: usize) -> anyhow::Result<Line> {
    let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
    crowd.join(
        &fan.endpoint,
        [Boxed(fan.publisher)],
        PATIENCE,
        &mut done,
        || (),
    )?;
    // The first thousand set everything up that is there once.
    let first = subscribers.min(1_000);
    let mut join = |crowd: &mut Crowd, count| {
        let peers = (0..count).map(|_| Boxed((fan.subscriber)()));
        crowd.join(&fan.endpoint, peers, PATIENCE, &mut done, || ())
    };
    join(&mut crowd, first)?;
    let idle = if subscribers > first {
        std::thread::sleep(Duration::from_millis(500));
        let before = fan.process.memory()?;
        join(&mut crowd, subscribers - first)?;
        std::thread::sleep(Duration::from_secs(1));
        Some((fan.process.memory()? as f64 - before as f64) / (subscribers - first) as f64)
    } else {
        None
    };
    let (mut each, mut last) = (Vec::new(), Vec::new());
    let (mut began, mut before) = (Instant::now(), fan.process.cpu()?);
    for (number, message) in fan.messages.iter().enumerate() {
        if number == WARM_UP {
            (began, before) = (Instant::now(), fan.process.cpu()?);
            each.clear();
            last.clear();
        }
        done.clear();
        let sent = Instant::now();
        crowd.say(0, message)?;
        let mut missing = subscribers;
        while missing > 0 {
            crowd.turn(PATIENCE, &mut done)?;
            let taken = sent.elapsed();
            for one in done.drain(..).filter(|one| one.index > 0) {
                missing = missing
                    .checked_sub(one.count)
                    .context("somebody got something twice")?;
                each.push(taken);
            }
        }
        last.push(sent.elapsed());
    }
    let deliveries = ((fan.messages.len() - WARM_UP) * subscribers) as f64;
    let each = Spread::of_milliseconds(each);
    Ok(Line {
        size: subscribers,
        cpu_us: (fan.process.cpu()? - before).as_secs_f64() * 1e6 / deliveries,
        rate: deliveries / began.elapsed().as_secs_f64(),
        p50_ms: each.at(0.5),
        p99_ms: each.at(0.99),
        last_p99_ms: Spread::of_milliseconds(last).at(0.99),
        idle_octets: idle,
        ..Line::default()
    })
}

/// Messages before anything is measured.
const WARM_UP: usize = 3;

fn messages(subscribers: usize) -> usize {
    (DELIVERIES / subscribers).clamp(10, 100) + WARM_UP
}

/// A log of its own for each publisher, signed beforehand.
fn signed(fixture: &Fixture, channel: &Channel, count: usize) -> anyhow::Result<Vec<Statement>> {
    let mut head: Option<Head> = None;
    (0..count)
        .map(|number| {
            let statement = release(channel, head, &number.to_string(), OCTETS, &fixture.release)?;
            head = Some(statement.head());
            Ok(statement)
        })
        .collect()
}

/// A server that ends when this is dropped.
pub(super) type Held = Box<dyn std::any::Any>;

/// A server and those who will subscribe and publish; how many messages, if not as many as tell
/// something.
pub(super) async fn fan(
    what: &str,
    subscribers: usize,
    count: Option<usize>,
    program: &str,
) -> anyhow::Result<(Fan, Held)> {
    let count = count.unwrap_or_else(|| messages(subscribers));
    let of = |server: Server,
              publisher: Box<dyn Peer>,
              subscriber: Box<dyn Fn() -> Box<dyn Peer>>,
              message: Vec<u8>| {
        let fan = Fan {
            process: server.process(),
            endpoint: server.endpoint.clone(),
            publisher,
            subscriber,
            messages: vec![message; count],
        };
        Ok((fan, Box::new(server) as Held))
    };
    let body = payload(OCTETS);
    match what {
        "raw" | "raw, a statement's octets" => {
            let size = if what == "raw" { OCTETS } else { OCTETS + 620 };
            let subscriber = Box::new(move || Box::new(Raw::new(size)) as Box<dyn Peer>);
            of(
                raw(subscribers, size)?,
                Box::new(Raw::new(size)),
                subscriber,
                payload(size),
            )
        }
        "mosquitto" => {
            let subscriber = Box::new(|| Box::new(Mqtt::new(true)) as Box<dyn Peer>);
            of(
                mosquitto()?,
                Box::new(Mqtt::new(false)),
                subscriber,
                Mqtt::publish(&body),
            )
        }
        "redis" => {
            let subscriber = Box::new(|| Box::new(Redis::new(true)) as Box<dyn Peer>);
            of(
                redis()?,
                Box::new(Redis::new(false)),
                subscriber,
                Redis::publish(&body),
            )
        }
        "nats-server" => {
            let subscriber = Box::new(|| Box::new(Nats::subscriber()) as Box<dyn Peer>);
            of(
                nats(program, false)?,
                Box::new(Nats::publisher()),
                subscriber,
                Nats::publish(&body),
            )
        }
        "nats-server, TLS" => {
            let subscriber = Box::new(|| Box::new(Nats::subscriber()) as Box<dyn Peer>);
            of(
                nats(program, true)?,
                Box::new(Nats::publisher()),
                subscriber,
                Nats::publish(&body),
            )
        }
        "tidings" | "tidings, TLS" => {
            let broker = Broker::start(true)?;
            let channel: Channel = "test.fan.out".parse()?;
            let all = signed(&broker.fixture, &channel, count + 1)?;
            let mut publisher = Publisher::connect(broker.fixture.source()?).await?;
            publisher.publish(&broker.fixture.trust).await?;
            publisher.publish(&all[0]).await?;
            let endpoint = if what == "tidings" {
                &broker.clear
            } else {
                &broker.encrypted
            };
            let fan = Fan {
                process: broker.process(),
                endpoint: endpoint.clone(),
                publisher: Box::new(Poster::on_demand(
                    Opening::anonymous(),
                    all[1..].iter().map(article),
                )),
                subscriber: Box::new(move || {
                    Box::new(Watcher::new(Opening::anonymous(), &channel, Some(1))) as Box<dyn Peer>
                }),
                messages: vec![Poster::NEXT.to_vec(); count],
            };
            Ok((fan, Box::new(broker) as Held))
        }
        _ => anyhow::bail!("no server {what:?}"),
    }
}

/// Answers a second while all of these ask as fast as they are answered.
pub(super) fn closed_loop(
    process: Process,
    endpoint: &Endpoint,
    peers: Vec<Box<dyn Peer>>,
    until: impl Fn(usize, Duration) -> bool,
) -> anyhow::Result<Line> {
    let size = peers.len();
    let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
    let (began, before) = (Instant::now(), process.cpu()?);
    crowd.join(
        endpoint,
        peers.into_iter().map(Boxed),
        PATIENCE,
        &mut done,
        || (),
    )?;
    let (mut count, mut delays) = (done.drain(..).map(|one| one.count).sum(), Vec::new());
    while !until(count, began.elapsed()) {
        crowd.turn(PATIENCE, &mut done)?;
        for one in done.drain(..) {
            count += one.count;
            delays.push(one.since.elapsed());
        }
    }
    let elapsed = began.elapsed();
    let delays = Spread::of_milliseconds(delays);
    Ok(Line {
        size,
        cpu_us: (process.cpu()? - before).as_secs_f64() * 1e6 / count as f64,
        rate: count as f64 / elapsed.as_secs_f64(),
        p50_ms: delays.at(0.5),
        p99_ms: delays.at(0.99),
        ..Line::default()
    })
}

fn bare(rate: f64) -> Line {
    Line {
        cpu_us: 1e6 / rate,
        rate,
        ..Line::default()
    }
}

/// What all cores together verify in a second, as the broker does it.
fn verifications(fixture: &Fixture) -> anyhow::Result<f64> {
    let trust = Trust::first(&fixture.anchor, fixture.trust.clone())?;
    let statement = release(&"test.x".parse()?, None, "1", OCTETS, &fixture.release)?;
    let one = || {
        let (began, mut count) = (Instant::now(), 0_u32);
        while began.elapsed() < Duration::from_secs(2) {
            trust.check(&statement)?;
            count += 1;
        }
        anyhow::Ok(f64::from(count) / began.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..std::thread::available_parallelism()?.get())
            .map(|_| scope.spawn(one))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("a thread has panicked"))?
            })
            .sum()
    })
}

/// Groups of so many messages that the disk makes durable, in messages a second.
fn syncs(group: usize) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in("/tmp")?;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all(&vec![0; OCTETS * group])?;
        file.sync_data()?;
        count += group;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

async fn published(what: &str, nats: &str, inn: &std::path::Path) -> anyhow::Result<Line> {
    let each = 1_000;
    match what {
        "tidings, POST" | "tidings, 64 under way" => {
            let (window, each) = if what == "tidings, POST" {
                (1, 2 * each)
            } else {
                (64, 5 * each)
            };
            let broker = Broker::start(false)?;
            Publisher::connect(broker.fixture.source()?)
                .await?
                .publish(&broker.fixture.trust)
                .await?;
            let mut peers: Vec<Box<dyn Peer>> = Vec::new();
            for number in 0..PUBLISHERS {
                let all = signed(
                    &broker.fixture,
                    &format!("test.publish.p{number}").parse()?,
                    each,
                )?;
                peers.push(Box::new(Poster::new(
                    Opening::anonymous(),
                    all.iter().map(article),
                    window,
                )));
            }
            closed_loop(broker.process(), &broker.clear, peers, |count, _| {
                count == PUBLISHERS * each
            })
        }
        "JetStream, sync always" | "JetStream, sync always, 64 under way" => {
            let window = if what.ends_with("under way") { 64 } else { 1 };
            let server = jetstream(nats)?;
            let (mut crowd, mut done) = (Crowd::new()?, Vec::new());
            crowd.join(
                &server.endpoint,
                [Nats::create_stream()],
                PATIENCE,
                &mut done,
                || (),
            )?;
            while done.is_empty() {
                crowd.turn(PATIENCE, &mut done)?;
            }
            let body = payload(OCTETS);
            let peers = (0..PUBLISHERS)
                .map(|number| Box::new(Nats::to_stream(number, &body, window)) as Box<dyn Peer>)
                .collect();
            closed_loop(server.process(), &server.endpoint, peers, |count, _| {
                count >= PUBLISHERS * each / 2
            })
        }
        "innd, nothing synced or checked" => {
            let scratch = tempfile::tempdir_in("/tmp")?;
            std::fs::set_permissions(
                scratch.path(),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )?;
            let groups: Vec<String> = (0..PUBLISHERS)
                .map(|number| format!("test.publish.p{number}"))
                .collect();
            let inn = Inn::start(
                inn,
                scratch.path(),
                "a",
                0,
                &groups.iter().map(String::as_str).collect::<Vec<_>>(),
            )?;
            let fixture = Fixture::new()?;
            let mut peers: Vec<Box<dyn Peer>> = Vec::new();
            for group in &groups {
                let all = signed(&fixture, &group.parse()?, each)?;
                peers.push(Box::new(Poster::new(
                    Opening::anonymous(),
                    all.iter().map(article),
                    64,
                )));
            }
            let pid: u32 = std::fs::read_to_string(format!("{}/run/innd.pid", inn.directory))?
                .trim()
                .parse()?;
            let endpoint = Endpoint {
                address: ([127, 0, 0, 1], inn.port).into(),
                tls: None,
            };
            closed_loop(Process(pid), &endpoint, peers, |count, _| {
                count == PUBLISHERS * each
            })
        }
        "Ed25519, all cores" => Ok(bare(verifications(&Fixture::new()?)?)),
        "write and fdatasync, 1 at a time" => Ok(bare(syncs(1)?)),
        "write and fdatasync, 16 at a time" => Ok(bare(syncs(PUBLISHERS)?)),
        _ => anyhow::bail!("no publisher {what:?}"),
    }
}

/// A broker with one channel that has something.
async fn small() -> anyhow::Result<(Broker, Channel)> {
    let broker = Broker::start(true)?;
    let channel: Channel = "test.os.stable".parse()?;
    let mut publisher = Publisher::connect(broker.fixture.source()?).await?;
    publisher.publish(&broker.fixture.trust).await?;
    publisher
        .publish(&signed(&broker.fixture, &channel, 1)?[0])
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
                Suite::Fanout => subscribers.clone(),
                Suite::Tls => subscribers
                    .iter()
                    .copied()
                    .filter(|size| *size <= 5_000)
                    .collect(),
                Suite::Publish => vec![PUBLISHERS],
                Suite::Poll => vec![100],
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
