//! A tree in network namespaces of its own: an origin, three regions, nine leaves, devices under
//! each; and everything that goes wrong in a network while it publishes. At the end every device
//! has every statement once, in order, and is CURRENT.
//!
//! It has to run where it may make namespaces; `cargo xtask tree` does it in one that ends with it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::StreamExt;
use tidings_client::{
    Channel, Device, Head, Monitor, Publisher, Source, Start, State, Statement, keys,
};
use tidings_tests::{
    Daemon, Fixture, Random,
    cables::{self, heal, lose},
    realm::{Realm, key},
    relay::{self, Act},
    tree::{broker, head, read_all},
};
use tokio::{task::JoinHandle, time::sleep};

const REGIONS: usize = 3;
const LEAVES: usize = 9;
const DEVICES_PER_LEAF: usize = 2;
const CHANNELS: &[&str] = &[
    "test.os.stable",
    "test.os.testing",
    "test.app.one",
    "test.app.two",
];
/// How long everything may take to be whole again after the last fault.
const HEAL: Duration = Duration::from_secs(90);
const ROLES: &[&str] = &[
    "trust * 1 root",
    "release * 1 ann",
    "withdraw * 1 ann",
    "beat * 1 beat",
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Repeats a run; without it, another each time
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults, one after the other
    #[arg(long, default_value_t = 12)]
    faults: u32,
}

fn address(node: usize) -> SocketAddr {
    (cables::address(node), 1119).into()
}

/// What a device has got, by channel.
type Got = Arc<Mutex<BTreeMap<Channel, Vec<Head>>>>;

struct Watcher {
    name: String,
    got: Got,
    monitor: Monitor,
    task: JoinHandle<()>,
}

/// A device under one leaf, that knows another one too.
fn device(realm: &Realm, leaves: &[&Fixture], name: String) -> anyhow::Result<Watcher> {
    let urls: Vec<String> = leaves.iter().map(|leaf| leaf.url()).collect();
    let source = Source::new(urls.iter().map(String::as_str), &realm.anchor.to_string())?;
    let state = State::ephemeral(&realm.anchor);
    let mut device =
        Device::with_state(source, CHANNELS.iter().copied(), state)?.with_start(Start::Oldest);
    let (got, monitor) = (Got::default(), device.monitor());
    let (noted, own) = (got.clone(), name.clone());
    let task = tokio::spawn(async move {
        let stream = device.watch();
        futures_util::pin_mut!(stream);
        while let Some(item) = stream.next().await {
            match item {
                Ok(statement) => {
                    let mut got = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    got.entry(statement.channel().clone())
                        .or_default()
                        .push(statement.head());
                }
                Err(error) => tracing::debug!(own, %error, "a device has trouble"),
            }
        }
    });
    Ok(Watcher {
        name,
        got,
        monitor,
        task,
    })
}

struct Tree {
    realm: Realm,
    nodes: Vec<Fixture>,
    daemons: Vec<Option<Daemon>>,
    heads: BTreeMap<Channel, Vec<Head>>,
    publisher: Publisher,
    random: Random,
}

const BROKER: &str = "[limits]\nheartbeat_seconds = 3\n";

impl Tree {
    fn node(realm: &Realm, node: usize) -> anyhow::Result<Fixture> {
        let mut fixture = broker(realm, "")?;
        fixture.launcher = cables::launcher(node);
        fixture.address = address(node);
        Ok(fixture)
    }

    async fn plant(realm: Realm, random: Random, liar: SocketAddr) -> anyhow::Result<Self> {
        let nodes: Vec<Fixture> = (0..1 + REGIONS + LEAVES)
            .map(|node| Self::node(&realm, node))
            .collect::<Result<_, _>>()?;
        let beat_key = nodes[0].directory.join("beat.key");
        keys::write_private(&beat_key, &key("beat"), None)?;
        let beats = format!(
            "[[beat]]\nnamespace = \"test\"\nkey_file = \"{}\"\nevery_seconds = 2\nlife_seconds = 20\n",
            beat_key.display()
        );
        nodes[0].configure(&format!("{BROKER}{beats}"))?;
        for region in 1..=REGIONS {
            // The last region has an upstream that lies, beside the honest one.
            let upstreams = if region == REGIONS {
                vec![liar, nodes[0].address]
            } else {
                vec![nodes[0].address]
            };
            nodes[region].mirror(&upstreams, BROKER)?;
        }
        for leaf in 0..LEAVES {
            nodes[1 + REGIONS + leaf].mirror(&[nodes[1 + leaf % REGIONS].address], BROKER)?;
        }
        let daemons = nodes
            .iter()
            .map(|node| node.start().map(Some))
            .collect::<Result<_, _>>()?;
        let mut publisher = Publisher::connect(nodes[0].source()?).await?;
        for statement in &realm.log {
            publisher.publish(statement).await?;
        }
        Ok(Self {
            realm,
            nodes,
            daemons,
            heads: BTreeMap::new(),
            publisher,
            random,
        })
    }

    async fn publish(&mut self, count: u32) -> anyhow::Result<()> {
        for _ in 0..count {
            let channel: Channel =
                CHANNELS[usize::try_from(self.random.below(CHANNELS.len() as u64))?].parse()?;
            let heads = self.heads.entry(channel.clone()).or_default();
            let statement = self.realm.release(
                &channel,
                heads.last().copied(),
                &format!("1.{}", heads.len()),
                &["ann"],
            );
            self.publisher.publish(&statement).await?;
            heads.push(statement.head());
        }
        Ok(())
    }

    /// One thing that goes wrong, and what becomes of it.
    async fn fault(&mut self) -> anyhow::Result<String> {
        let node = 1 + usize::try_from(self.random.below((REGIONS + LEAVES) as u64))?;
        let region = 1 + usize::try_from(self.random.below(REGIONS as u64))?;
        let seconds = 1 + self.random.below(4);
        Ok(match self.random.below(5) {
            0 => {
                cables::cut(node)?;
                self.publish(10).await?;
                sleep(Duration::from_secs(seconds)).await;
                heal(node)?;
                format!("n{node} was cut off for {seconds} s")
            }
            1 => {
                // Only one way: what it sends arrives, what it should get does not.
                let direction = if self.random.below(2) == 0 {
                    "in"
                } else {
                    "out"
                };
                let percent = 10 + self.random.below(40);
                lose(node, direction, percent)?;
                self.publish(10).await?;
                sleep(Duration::from_secs(seconds)).await;
                heal(node)?;
                format!("n{node} has lost {percent} of 100 packets {direction} for {seconds} s")
            }
            2 => {
                if let Some(daemon) = self.daemons[node].take() {
                    daemon.kill()?;
                }
                self.publish(10).await?;
                self.daemons[node] = Some(self.nodes[node].start()?);
                format!("n{node} was killed and started again")
            }
            3 => {
                lose(region, "in", 100)?;
                self.publish(10).await?;
                sleep(Duration::from_secs(seconds)).await;
                heal(region)?;
                format!("region n{region} has heard nothing for {seconds} s")
            }
            _ => {
                // A region dies for good; its leaves get another.
                let other = 1 + region % REGIONS;
                if let Some(daemon) = self.daemons[region].take() {
                    daemon.kill()?;
                }
                self.publish(5).await?;
                for leaf in (0..LEAVES).filter(|leaf| 1 + leaf % REGIONS == region) {
                    let node = 1 + REGIONS + leaf;
                    self.nodes[node].mirror(&[self.nodes[other].address], BROKER)?;
                    if let Some(daemon) = self.daemons[node].take() {
                        daemon.signal("TERM")?;
                        daemon.wait(Duration::from_secs(30))?;
                    }
                    self.daemons[node] = Some(self.nodes[node].start()?);
                }
                self.publish(5).await?;
                self.daemons[region] = Some(self.nodes[region].start()?);
                format!("region n{region} was killed, and its leaves were given to n{other}")
            }
        })
    }

    async fn until_whole(&self, devices: &[Watcher]) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let wrong = self.what_is_missing(devices).await?;
            let Some(wrong) = wrong else { return Ok(()) };
            if began.elapsed() > HEAL {
                let logs: Vec<String> = self
                    .nodes
                    .iter()
                    .enumerate()
                    .map(|(n, node)| format!("== n{n}\n{}", node.log()))
                    .collect();
                anyhow::bail!("after {HEAL:?} {wrong}\n{}", logs.join("\n"));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn what_is_missing(&self, devices: &[Watcher]) -> anyhow::Result<Option<String>> {
        for (channel, heads) in &self.heads {
            for (n, node) in self.nodes.iter().enumerate() {
                let there = head(node, channel).await.unwrap_or(0);
                if there as usize != heads.len() {
                    return Ok(Some(format!(
                        "n{n} has {there} of {} of {channel}",
                        heads.len()
                    )));
                }
            }
            for device in devices {
                let got = device
                    .got
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get(channel)
                    .cloned()
                    .unwrap_or_default();
                // Never anything twice, never out of order, never anything that was not published.
                ensure!(
                    heads.starts_with(&got),
                    "{} has got {got:?} of {channel}, which is not how it was published",
                    device.name
                );
                if got.len() < heads.len() {
                    return Ok(Some(format!(
                        "{} has {} of {} of {channel}",
                        device.name,
                        got.len(),
                        heads.len()
                    )));
                }
                if !device.monitor.freshness(channel).is_current() {
                    return Ok(Some(format!(
                        "{} is {} in {channel}",
                        device.name,
                        device.monitor.freshness(channel)
                    )));
                }
            }
        }
        Ok(None)
    }
}

async fn grow(arguments: &Arguments, seed: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    cables::lay(1 + REGIONS + LEAVES)?;
    let realm = Realm::new(ROLES, &["root"]);
    // It tells of releases that nobody has signed, well-formed in everything else.
    let forged = Arc::new(AtomicUsize::new(0));
    let (count, other) = (
        forged.clone(),
        Realm {
            log: realm.log.clone(),
            anchor: realm.anchor.clone(),
            ..Realm::new(ROLES, &["root"])
        },
    );
    let lie = move |command: &str, answer: Vec<u8>| {
        let real = relay::statement(&answer)
            .filter(|statement| statement.channel().as_str() == CHANNELS[0]);
        match real.filter(|_| command == "XWATCH" || command.starts_with("ARTICLE")) {
            Some(real) => {
                count.fetch_add(1, Ordering::Relaxed);
                let forgery: Statement =
                    other.release(real.channel(), real.predecessor(), "6.6", &["eve"]);
                Act::Send(relay::forge(&answer, &forgery, None))
            }
            None => Act::Send(answer),
        }
    };
    let liar = relay::start_at(([10, 77, 0, 254], 0).into(), &[address(0)], lie).await?;
    let mut tree = Tree::plant(realm, Random::new(seed), liar).await?;
    let mut devices = Vec::new();
    for leaf in 0..LEAVES {
        let (own, next) = (
            &tree.nodes[1 + REGIONS + leaf],
            &tree.nodes[1 + REGIONS + (leaf + 1) % LEAVES],
        );
        for number in 0..DEVICES_PER_LEAF {
            devices.push(device(
                &tree.realm,
                &[own, next],
                format!("device {number} of leaf {leaf}"),
            )?);
        }
    }
    tree.publish(20).await?;
    tree.until_whole(&devices).await?;
    println!(
        "1 origin, {REGIONS} regions, {LEAVES} leaves and {} devices are whole after {:.1} s",
        devices.len(),
        began.elapsed().as_secs_f64()
    );
    for _ in 0..arguments.faults {
        let what = tree.fault().await?;
        println!("{:5.1} s: {what}", began.elapsed().as_secs_f64());
    }
    tree.publish(10).await?;
    let healing = Instant::now();
    tree.until_whole(&devices).await?;
    let count: usize = tree.heads.values().map(Vec::len).sum();
    for node in &tree.nodes {
        for (channel, heads) in &tree.heads {
            let there: Vec<Head> = read_all(node, channel)
                .await?
                .iter()
                .map(Statement::head)
                .collect();
            ensure!(
                there == *heads,
                "{} has something else in {channel}",
                node.url()
            );
        }
    }
    ensure!(
        forged.load(Ordering::Relaxed) > 0,
        "the liar was never asked"
    );
    println!(
        "{:5.1} s: whole again {:.1} s after the last fault: {count} statements, once and in order in each of {} devices, all CURRENT; {} lies were told and not believed",
        began.elapsed().as_secs_f64(),
        healing.elapsed().as_secs_f64(),
        devices.len(),
        forged.load(Ordering::Relaxed)
    );
    devices.iter().for_each(|device| device.task.abort());
    Ok(())
}

#[tokio::main]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let seed = arguments.seed.unwrap_or_else(|| {
        tidings_client::now().seconds() ^ u64::from(std::process::id()).rotate_left(32)
    });
    println!("seed {seed}; `cargo xtask tree --seed {seed}` repeats it");
    grow(&arguments, seed)
        .await
        .with_context(|| format!("seed {seed}"))
}
