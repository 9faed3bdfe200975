//! Three brokers and three ZooKeeper servers, each in a network namespace: they are killed, paused,
//! cut off and restarted while twenty publish, others watch, and machines take turns going down.
//! Afterwards the history is checked.
//!
//! It has to run where it may make namespaces; `cargo xtask cluster` does it in one that ends with
//! it.

mod clients;
mod history;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use clients::{Down, World, machine, operator, publish, publisher, subscriber};
use history::{Got, History, Outcome};
use tidings_client::{Channel, Statement};
use tidings_tests::{
    Daemon, FREE_ADDRESS, Fixture, Random, cables,
    cluster::Site,
    ensemble::{Ensemble, Place},
    realm::Realm,
    tree::{head, read_all},
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
}

struct Stage<'a> {
    ensemble: &'a mut Ensemble,
    members: Vec<Fixture>,
    daemons: Vec<Option<Daemon>>,
    random: Random,
}

impl Stage<'_> {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap_or(0)
    }

    /// One thing, or several at once, that go wrong, and what becomes of it.
    async fn fault(&mut self) -> anyhow::Result<String> {
        let node = self.below(NODES);
        let other = (node + 1 + self.below(NODES - 1)) % NODES;
        let pause = Duration::from_millis(500 + self.random.below(5_000));
        let seconds = pause.as_secs_f64();
        Ok(match self.below(10) {
            0 => {
                self.kill(node)?;
                sleep(pause / 2).await;
                self.start(node)?;
                format!(
                    "broker {node} was killed, and started again after {:.1} s",
                    seconds / 2.0
                )
            }
            1 => {
                self.kill(node)?;
                self.kill(other)?;
                sleep(pause / 2).await;
                self.start(node)?;
                self.start(other)?;
                format!(
                    "brokers {node} and {other} were killed, and started again after {:.1} s",
                    seconds / 2.0
                )
            }
            2 => {
                self.signal(node, "STOP")?;
                sleep(pause * 2).await;
                self.signal(node, "CONT")?;
                format!("broker {node} was paused for {:.1} s", seconds * 2.0)
            }
            3 => {
                cables::cut(node)?;
                sleep(pause).await;
                cables::heal(node)?;
                format!("node {node} was cut off for {seconds:.1} s")
            }
            4 => {
                cables::cut_ports(node, &[2181, 2888, 3888])?;
                sleep(pause).await;
                cables::heal(node)?;
                format!(
                    "node {node} has reached no other ZooKeeper server for {seconds:.1} s, nor they it"
                )
            }
            5 => {
                self.ensemble.servers[node].kill()?;
                sleep(pause).await;
                self.ensemble.servers[node].start()?;
                format!(
                    "ZooKeeper server {node} was killed, and started again after {seconds:.1} s"
                )
            }
            6 => {
                self.ensemble.servers[node].signal("STOP")?;
                sleep(pause).await;
                self.ensemble.servers[node].signal("CONT")?;
                format!("ZooKeeper server {node} was paused for {seconds:.1} s")
            }
            7 => {
                self.ensemble.servers[node].kill()?;
                self.ensemble.servers[other].kill()?;
                sleep(pause).await;
                self.ensemble.servers[node].start()?;
                self.ensemble.servers[other].start()?;
                format!(
                    "ZooKeeper servers {node} and {other} were killed, and started again after {seconds:.1} s"
                )
            }
            8 => {
                self.ensemble.servers[node].signal("STOP")?;
                self.signal(other, "STOP")?;
                sleep(pause).await;
                self.ensemble.servers[node].signal("CONT")?;
                self.signal(other, "CONT")?;
                format!("ZooKeeper server {node} and broker {other} were paused for {seconds:.1} s")
            }
            _ => {
                cables::cut(node)?;
                self.kill(other)?;
                sleep(pause).await;
                self.start(other)?;
                cables::heal(node)?;
                format!("node {node} was cut off and broker {other} killed for {seconds:.1} s")
            }
        })
    }

    fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        self.daemons[node].take().map_or(Ok(()), Daemon::kill)
    }

    fn start(&mut self, node: usize) -> anyhow::Result<()> {
        self.daemons[node] = Some(self.members[node].spawn()?);
        Ok(())
    }

    fn signal(&self, node: usize, name: &str) -> anyhow::Result<()> {
        self.daemons[node]
            .as_ref()
            .map_or(Ok(()), |daemon| daemon.signal(name))
    }
}

fn address(node: usize, port: u16) -> SocketAddr {
    (cables::address(node), port).into()
}

async fn logs(members: &[Fixture], channels: &[Channel]) -> anyhow::Result<BTreeMap<String, Got>> {
    let mut logs = BTreeMap::new();
    for member in members {
        let mut log = Got::new();
        for channel in channels {
            // Read with proof, from the oldest on: what does not verify or is not linked is an
            // error.
            let all = read_all(member, channel).await?;
            log.insert(channel.clone(), all.iter().map(Statement::head).collect());
        }
        logs.insert(member.name.clone(), log);
    }
    Ok(logs)
}

/// Everything works again by itself: every broker takes a statement in every channel, and all have
/// the same heads.
async fn until_whole(
    world: &World,
    members: &[Fixture],
    began: Instant,
) -> anyhow::Result<Duration> {
    for (broker, member) in members.iter().enumerate() {
        for channel in &world.channels {
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
    for channel in &world.channels {
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

async fn play(ensemble: &mut Ensemble, seed: u64, faults: u32) -> anyhow::Result<()> {
    let realm = Realm::new(ROLES, &["root"]);
    let site = Site::new(ensemble, Realm::clone_of(&realm));
    let keys = tempfile::tempdir()?;
    let more = format!(
        "{}{}[limits]\nheartbeat_seconds = 3\n",
        clients::SLOTS,
        site.beats(keys.path())?
    );
    let members: Vec<Fixture> = (0..NODES)
        .map(|node| {
            let mut member = site.member(&format!("broker{node}"), "", &more)?;
            (member.address, member.launcher) = (address(node, 1119), cables::launcher(node));
            let more = more.replace(FREE_ADDRESS, &address(node, 8119).to_string());
            member.configure(&site.configuration(&member, "", &more))?;
            Ok(member)
        })
        .collect::<anyhow::Result<_>>()?;
    site.init(&members[0])?;
    let daemons = members
        .iter()
        .map(|member| member.start().map(Some))
        .collect::<Result<Vec<_>, _>>()?;
    site.publish_trust(&members[0]).await?;
    let world = Arc::new(World {
        realm,
        urls: members.iter().map(Fixture::url).collect(),
        slot_servers: (0..NODES)
            .map(|node| format!("http://{}", address(node, 8119)))
            .collect(),
        channels: CHANNELS
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_, _>>()?,
        history: History::default(),
        stop: CancellationToken::new(),
    });
    let down = Arc::new(Down::default());
    let mut workers: Vec<JoinHandle<()>> = (0..PUBLISHERS)
        .map(|number| tokio::spawn(publisher(world.clone(), number, seed)))
        .collect();
    let subscribers: Vec<JoinHandle<()>> = (0..NODES)
        .map(|broker| tokio::spawn(subscriber(world.clone(), broker)))
        .collect();
    let report = |world: Arc<World>, worker: &'static str, result: anyhow::Result<()>| {
        if let Err(error) = result {
            world.history.wrong(format!("{worker}: {error:#}"));
        }
    };
    for number in 0..MACHINES {
        let (world, down) = (world.clone(), down.clone());
        workers.push(tokio::spawn(async move {
            report(
                world.clone(),
                "a machine",
                machine(world, down, number, seed).await,
            )
        }));
    }
    {
        let (world, down) = (world.clone(), down.clone());
        workers.push(tokio::spawn(async move {
            report(
                world.clone(),
                "the operator",
                operator(world, down, seed).await,
            )
        }));
    }
    let mut stage = Stage {
        ensemble,
        members,
        daemons,
        random: Random::new(seed),
    };
    let played = async {
        sleep(Duration::from_millis(500)).await;
        for _ in 0..faults {
            let what = stage.fault().await?;
            println!("    {what}");
            sleep(Duration::from_millis(300 + stage.random.below(1_500))).await;
        }
        let ended = Instant::now();
        world.stop.cancel();
        for worker in workers {
            worker.await?;
        }
        let whole = until_whole(&world, &stage.members, ended).await?;
        let logs = logs(&stage.members, &world.channels).await?;
        let found = world.history.check(&logs)?;
        println!(
            "  whole again {:.1} s after the last fault: {found}; {}",
            whole.as_secs_f64(),
            down.describe()
        );
        anyhow::Ok(())
    };
    let played = played.await;
    subscribers.iter().for_each(|subscriber| subscriber.abort());
    if played.is_err() {
        for member in &stage.members {
            let lines: Vec<String> = member
                .log()
                .lines()
                .filter(|line| !line.contains("session::posting"))
                .map(String::from)
                .collect();
            println!(
                "== {}\n{}",
                member.name,
                lines
                    .iter()
                    .rev()
                    .take(80)
                    .rev()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n")
            );
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
    let place = |node| Place {
        client: address(node, 2181),
        peers: (address(node, 2888), address(node, 3888)),
        launcher: cables::launcher(node),
    };
    let mut ensemble = Ensemble::start_at((0..NODES).map(place).collect(), "")?;
    let began = Instant::now();
    for seed in first..first + arguments.seeds {
        println!("seed {seed}; `cargo xtask cluster --seed {seed} --seeds 1` repeats its faults");
        play(&mut ensemble, seed, arguments.faults)
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
