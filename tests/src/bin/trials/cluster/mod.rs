//! Three brokers and three ZooKeeper servers, each in a network namespace: they are killed, paused,
//! cut off and restarted, what they say to each other is late, lost or held, and a disk is full,
//! while twenty publish, others watch, and machines take turns going down. Afterwards the history
//! is checked.
//!
//! It has to run where it may make namespaces; `cargo xtask cluster` does it in one that ends with
//! it.

mod clients;
mod faults;
mod history;
mod lines;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use clients::{Down, World, machine, operator, pioneer, publish, publisher, subscriber};
use faults::{SmallDisk, Stage};
use history::{Got, History, Named, Outcome};
use lines::{BROKER, Lines, OF_BROKERS, PORTS, SERVER, SERVERS, public};
use tidings_client::{Channel, Connection, Statement};
use tidings_tests::{
    FREE_ADDRESS, Fixture, Random, cables,
    cluster::Site,
    ensemble::{Ensemble, Place},
    realm::Realm,
    tree::{connect, head, read_all},
};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

const NODES: usize = 3;
const CHANNELS: &[&str] = &[
    "test.os.stable",
    "test.os.testing",
    "test.app.one",
    "test.app.two",
    "test.app.three",
];
const PUBLISHERS: u64 = 20;
const MACHINES: u64 = 8;
const ROLES: &[&str] = &[
    "trust * 1 root",
    "release * 1 ann",
    "withdraw * 1 ann",
    "beat * 1 beat",
];
/// Octets of a log that are read at once.
const OCTETS: usize = 64 << 20;
/// Of so many that begin channels.
const PIONEERS: usize = 32;
/// How many of many channels are looked at one by one, for whether they are taken everywhere.
const SAMPLE: usize = 20;
/// How long everything may take to work again, after the last fault, by itself.
const HEAL: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many schedules, one after the other
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// The first of them; without it, another each time
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults in each
    #[arg(long, default_value_t = 6)]
    faults: u32,
    /// How many channels begin in the first of them, while it goes on
    #[arg(long, default_value_t = 300)]
    channels: usize,
    /// Also have late, and hold, what the servers say to each other: ZooKeeper 3.8.0 may lose what
    /// is settled then
    #[arg(long)]
    servers: bool,
}

fn address(node: usize, port: u16) -> SocketAddr {
    (cables::address(node), port).into()
}

async fn logs(members: &[Fixture], world: &World) -> anyhow::Result<BTreeMap<String, Got>> {
    let mut logs = BTreeMap::new();
    for member in members {
        let mut log = Got::new();
        for channel in &world.channels[..world.watched] {
            // Read with proof, from the oldest on: what does not verify or is not linked is an
            // error.
            let all = read_all(member, channel).await?;
            log.insert(channel.clone(), all.iter().map(Statement::head).collect());
        }
        let mut connection = connect(member).await?;
        for channel in &world.channels[world.watched..] {
            let all = read(&mut connection, channel).await?;
            log.insert(channel.clone(), all.iter().map(Statement::head).collect());
        }
        logs.insert(member.name.clone(), log);
    }
    Ok(logs)
}

/// What a broker has of a channel, as it is, and linked.
async fn read(connection: &mut Connection, channel: &Channel) -> anyhow::Result<Vec<Statement>> {
    let group = connection.group(channel, None).await?;
    let (group, _) = group.with_context(|| format!("{channel} is missing"))?;
    let most = OCTETS;
    let all = connection.articles(channel, group.low..=group.high, most);
    let all = all.await?;
    let linked = all
        .windows(2)
        .all(|two| two[1].predecessor() == Some(two[0].head()));
    ensure!(linked, "{channel} is not linked");
    Ok(all)
}

/// The beats that each has.
async fn beats(
    members: &[Fixture],
    channel: &Channel,
) -> anyhow::Result<BTreeMap<String, Vec<Named>>> {
    let mut beats = BTreeMap::new();
    for member in members {
        let all = read(&mut connect(member).await?, channel).await?;
        beats.insert(
            member.name.clone(),
            all.iter().filter_map(Named::read).collect(),
        );
    }
    Ok(beats)
}

/// Everything works again by itself: every broker takes a statement in every channel, and all have
/// the same heads.
async fn until_whole(
    world: &World,
    members: &[Fixture],
    began: Instant,
) -> anyhow::Result<Duration> {
    for (broker, member) in members.iter().enumerate() {
        for channel in world.channels.iter().take(world.watched + SAMPLE) {
            let mut count = 0;
            while !matches!(
                publish(world, broker, channel, &format!("whole{broker}.{count}")).await,
                Ok(Outcome::Stored)
            ) {
                count += 1;
                ensure!(
                    began.elapsed() < HEAL,
                    "{} takes no statements in {channel} {HEAL:?} after the last fault",
                    member.name
                );
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let whole = began.elapsed();
    for channel in &world.channels[..world.watched] {
        let want = head(&members[NODES - 1], channel).await?;
        for (broker, member) in members.iter().enumerate() {
            let subscriber = format!("the subscriber of broker {broker}");
            loop {
                let got = world
                    .history
                    .lock()
                    .got
                    .get(&subscriber)
                    .and_then(|got| got.get(channel))
                    .map_or(0, Vec::len);
                let there = head(member, channel).await.unwrap_or(0);
                if there == want && got == want as usize {
                    break;
                }
                ensure!(
                    began.elapsed() < HEAL,
                    "{} has {there} of {want} in {channel}, and its subscriber {got}",
                    member.name
                );
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    Ok(whole)
}

/// The configuration of a member: its own server it reaches directly, everybody else by the lines.
fn configure(site: &Site, node: usize, more: &str) -> anyhow::Result<Fixture> {
    let mut member = site.member(&format!("broker{node}"), "", more)?;
    (member.address, member.launcher) = (address(node, BROKER), cables::launcher(node));
    let more = more.replace(FREE_ADDRESS, &address(node, 8119).to_string());
    let text = site.configuration(&member, "", &more);
    let text = text.replace(&member.url(), &format!("nntp://{}", public(node, BROKER)));
    let (by_line, own) = (public(node, SERVER), address(node, SERVER));
    member.configure(&text.replace(&by_line.to_string(), &own.to_string()))?;
    Ok(member)
}

fn channels(many: usize) -> anyhow::Result<Vec<Channel>> {
    let many = (0..many).map(|n| format!("test.many.c{n}"));
    let names = CHANNELS.iter().map(|name| (*name).to_owned()).chain(many);
    Ok(names.map(|name| name.parse()).collect::<Result<_, _>>()?)
}

/// All who use the cluster, but for subscribers, each as a task.
fn employ(world: &Arc<World>, down: &Arc<Down>, seed: u64) -> Vec<JoinHandle<()>> {
    let mut workers = Vec::new();
    for number in 0..PUBLISHERS {
        workers.push(tokio::spawn(publisher(world.clone(), number, seed)));
    }
    for number in 0..PIONEERS {
        workers.push(report(world, "a pioneer", pioneer(world.clone(), number)));
    }
    for number in 0..MACHINES {
        let machine = machine(world.clone(), down.clone(), number, seed);
        workers.push(report(world, "a machine", machine));
    }
    let operator = operator(world.clone(), down.clone(), seed);
    workers.push(report(world, "the operator", operator));
    workers
}

fn report(
    world: &Arc<World>,
    worker: &'static str,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> JoinHandle<()> {
    let world = world.clone();
    tokio::spawn(async move {
        if let Err(error) = work.await {
            world.history.wrong(format!("{worker}: {error:#}"));
        }
    })
}

/// The faults, and then whether everything is as it must be.
async fn perform(
    stage: &mut Stage<'_>,
    world: &Arc<World>,
    down: &Arc<Down>,
    seed: u64,
    faults: u32,
) -> anyhow::Result<()> {
    let workers = employ(world, down, seed);
    sleep(Duration::from_millis(500)).await;
    for number in 0..faults {
        let what = stage.fault((number == 0).then_some(seed)).await?;
        println!("    {what}");
        sleep(Duration::from_millis(300 + stage.random.below(1_500))).await;
    }
    let ended = Instant::now();
    world.stop.cancel();
    for worker in workers {
        worker.await?;
    }
    // Those who begin many channels may need longer than everything else.
    let stopped = if world.channels.len() > world.watched {
        Instant::now()
    } else {
        ended
    };
    let whole = until_whole(world, &stage.members, stopped).await?;
    let logs = logs(&stage.members, world).await?;
    let found = world
        .history
        .check(&logs, &world.channels[..world.watched])?;
    let beat = world.realm.anchor.namespace.beat();
    let log = logs.values().next().context("no broker")?;
    let beats = beats(&stage.members, &beat).await?;
    let named = world.history.check_beats(&beats, log)?;
    println!(
        "  whole again {:.1} s after the last fault: {found}; {named}; {}",
        whole.as_secs_f64(),
        down.describe()
    );
    Ok(())
}

async fn play(
    ensemble: &mut Ensemble,
    lines: &Lines,
    seed: u64,
    arguments: &Arguments,
    many: usize,
) -> anyhow::Result<()> {
    let realm = Realm::new(ROLES, &["root"]);
    let mut site = Site::new(ensemble, Realm::clone_of(&realm));
    site.servers = (0..NODES)
        .map(|node| format!("\"{}\"", public(node, SERVER)))
        .collect::<Vec<_>>()
        .join(", ");
    let keys = tempfile::tempdir()?;
    let more = format!(
        "{}{}[limits]\nheartbeat_seconds = 3\n",
        clients::SLOTS,
        site.beats(keys.path())?
    );
    let members: Vec<Fixture> = (0..NODES)
        .map(|node| configure(&site, node, &more))
        .collect::<anyhow::Result<_>>()?;
    let small = usize::try_from(seed % NODES as u64)?;
    let _disk = SmallDisk::mount(&members[small])?;
    site.init(&members[0])?;
    let daemons = members
        .iter()
        .map(|member| member.start().map(Some))
        .collect::<Result<Vec<_>, _>>()?;
    site.publish_trust(&members[(small + 1) % NODES]).await?;
    let world = Arc::new(World {
        realm,
        urls: members.iter().map(Fixture::url).collect(),
        slot_servers: (0..NODES)
            .map(|node| format!("http://{}", address(node, 8119)))
            .collect(),
        channels: channels(many)?,
        watched: CHANNELS.len(),
        begun: AtomicUsize::new(CHANNELS.len()),
        history: History::default(),
        stop: CancellationToken::new(),
    });
    let down = Arc::new(Down::default());
    let subscribers: Vec<JoinHandle<()>> = (0..NODES)
        .map(|broker| tokio::spawn(subscriber(world.clone(), broker)))
        .collect();
    let mut stage = Stage {
        ensemble,
        members,
        daemons,
        random: Random::new(seed),
        lines: lines.clone(),
        ports: if arguments.servers { PORTS } else { OF_BROKERS },
        small,
    };
    let played = perform(&mut stage, &world, &down, seed, arguments.faults).await;
    subscribers.iter().for_each(|subscriber| subscriber.abort());
    if played.is_err() {
        for member in &stage.members {
            let log = member.log();
            let of_races = ["was not taken", "two statements are signed for one place"];
            let lines = log
                .lines()
                .filter(|line| !of_races.iter().any(|race| line.contains(race)));
            let lines: Vec<&str> = lines.collect();
            let last = &lines[lines.len().saturating_sub(80)..];
            println!("== {}\n{}", member.name, last.join("\n"));
        }
    }
    played
}

#[tokio::main]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let first = arguments.seed.unwrap_or_else(|| {
        tidings_client::now().seconds() ^ u64::from(std::process::id()).rotate_left(32)
    });
    cables::lay(NODES)?;
    let lines = Lines::lay().await?;
    let place = |node| Place {
        client: address(node, SERVER),
        peers: (public(node, SERVERS[0]), public(node, SERVERS[1])),
        launcher: cables::launcher(node),
    };
    // The lines begin at addresses that are not those of the nodes.
    let more = "quorumListenOnAllIPs=true";
    let mut ensemble = Ensemble::start_at((0..NODES).map(place).collect(), more)?;
    let began = Instant::now();
    for seed in first..first + arguments.seeds {
        let many = if seed == first { arguments.channels } else { 0 };
        println!(
            "seed {seed}; `cargo xtask cluster --seed {seed} --seeds 1 --channels {many}` repeats \
             its faults"
        );
        play(&mut ensemble, &lines, seed, &arguments, many)
            .await
            .with_context(|| format!("seed {seed}"))?;
        for node in 0..NODES {
            cables::heal(node)?;
            ensemble.servers[node].start()?;
        }
        ensemble.until_serving()?;
    }
    println!(
        "{} schedules in {:.0} s: nothing acknowledged was lost, and everybody has seen one order",
        arguments.seeds,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
