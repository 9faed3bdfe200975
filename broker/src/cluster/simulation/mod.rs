//! The whole logic of a cluster against a model of ZooKeeper, on simulated disks, in one thread and
//! on time that is handed in: what a seed does once it does again.
//!
//! Three brokers, and publishers that go to any of them, while connections break, sessions expire,
//! servers are slow, trust is rotated, and brokers lose their power. `oracle.rs` knows what was
//! settled, and what publishers were told; everything that a broker shows is compared with it.
//! When all is well again every broker has to have everything, soon.

mod brokers;
mod client;
mod older;
mod oracle;
mod publishers;
mod znodes;
mod zookeeper;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tidings_protocol::{Anchor, Statement, Timestamp};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::State;
use crate::{
    clock::simulated,
    log::store::simulated::{MODELS, Random, SimulatedDisk},
    origin::Origin,
    simulation::seeds::{show, wanted},
};
use brokers::{Broker, Life};
use client::Model;
use oracle::{Counts, Oracle};
use zookeeper::EPOCH;

const BROKERS: usize = 3;
const PUBLISHERS: usize = 3;
/// How often each publisher publishes.
const TURNS: usize = 4;
/// How often trust is rotated.
const ROTATIONS: usize = 2;
/// How often something happens to the brokers and the servers.
const FAULTS: usize = 10;
/// How long brokers may take, when all is well, until everything is everywhere.
const SOON: Duration = Duration::from_secs(240);

/// One run.
struct Simulation {
    random: Mutex<Random>,
    model: Model,
    brokers: Mutex<Vec<Broker>>,
    oracle: Oracle,
    anchor: Anchor,
    trust: Statement,
    /// Where evidence would be kept; nothing is.
    directory: PathBuf,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Simulation {
    fn new(seed: u64, directory: PathBuf) -> Arc<Self> {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x51);
        let oracle = Oracle::default();
        let judging = oracle.clone();
        let judge = Box::new(move |nodes: &_, changes: &[_]| judging.judge(nodes, changes));
        // Now and then the clocks are apart.
        let ahead = if random.below(10) == 0 { 90 } else { 0 };
        let model = Model::new(random.below(usize::MAX) as u64, ahead, judge);
        let trust = publishers::trust(None, Timestamp::from_seconds(EPOCH), 0);
        let disk = |_| Broker::new(SimulatedDisk::new(MODELS[random.below(MODELS.len())]));
        let brokers = (0..BROKERS).map(disk).collect();
        Arc::new(Self {
            random: Mutex::new(random),
            model,
            brokers: Mutex::new(brokers),
            oracle,
            anchor: Anchor {
                namespace: "acme".parse().unwrap(),
                head: trust.head(),
            },
            trust,
            directory,
        })
    }

    fn check(&self) -> Result<(), String> {
        self.oracle.failure().map_or(Ok(()), Err)
    }

    fn random(&self) -> MutexGuard<'_, Random> {
        lock(&self.random)
    }

    fn below(&self, bound: usize) -> usize {
        self.random().below(bound)
    }

    fn brokers(&self) -> MutexGuard<'_, Vec<Broker>> {
        lock(&self.brokers)
    }

    fn life(&self, index: usize) -> Option<Arc<Life>> {
        self.brokers()[index].life.clone()
    }

    /// Any broker, if it runs.
    fn any(&self) -> Option<Arc<Life>> {
        self.life(self.below(BROKERS))
    }

    /// How long the disk of a broker takes: mostly no time.
    fn disk_pause(&self) -> Duration {
        let most = match self.below(40) {
            0 => 1_500,
            1..=5 => 60,
            _ => 2,
        };
        Duration::from_millis(self.below(most) as u64)
    }

    /// Has a broker catch up; if it says that it has, it shows all that was settled before.
    async fn catch_up(&self, life: &Life) -> bool {
        let before = self.oracle.heads();
        if !life.cluster.catch_up().await {
            return false;
        }
        self.oracle.count(|counts| counts.caught_up += 1);
        for (channel, head) in before {
            let log = life.logs.get(channel.as_str());
            let there = log.map_or(0, |log| log.marks().head.serial.number());
            if there < head.serial.number() && life.cluster.knows(&channel) {
                let way = lock(&life.cluster.under_way).contains_key(&channel);
                let way = if way { " (under way)" } else { "" };
                let why = format!("{channel}: caught up to {there}{way}, and {head:?} was settled");
                self.oracle.fail(why);
            }
        }
        true
    }

    /// Compares what brokers show with what was settled; starts again those whose store has failed.
    fn look(self: &Arc<Self>) {
        for index in 0..BROKERS {
            let mut brokers = self.brokers();
            let Broker { life, checked, .. } = &mut brokers[index];
            if let Some(life) = life {
                self.oracle.look(index, life, checked);
            }
            let has_failed = brokers[index].has_failed() && brokers[index].life.is_some();
            drop(brokers);
            if has_failed {
                brokers::crash(self, index);
                brokers::start(self, index);
            }
        }
    }

    /// Something goes wrong.
    fn trouble(self: &Arc<Self>) {
        let index = self.below(BROKERS);
        let seconds = |most: usize| Duration::from_millis(self.below(most * 1_000) as u64);
        let what = self.below(20);
        tracing::debug!(broker = index, what, "trouble");
        match what {
            0..=5 => {
                let live = self.model.world().live(index);
                if !live.is_empty() {
                    let session = live[self.below(live.len())];
                    self.model.world().break_connection(session);
                }
            }
            6..=7 => {
                let live = self.model.world().live(index);
                if !live.is_empty() {
                    let session = live[self.below(live.len())];
                    self.model.world().expire(session);
                    self.oracle.count(|counts| counts.expired += 1);
                }
            }
            8..=9 => self.model.world().cut_off(index, seconds(12)),
            10 => {
                let pause = seconds(5);
                (0..BROKERS).for_each(|index| self.model.world().cut_off(index, pause));
            }
            11..=12 => self.model.world().be_slow(seconds(6)),
            13..=15 => {
                let (soon, is_done) = (self.below(12), self.below(2) == 0);
                let brokers = self.brokers();
                if brokers[index].life.is_some() {
                    brokers[index].fail_soon(soon, is_done);
                }
            }
            _ => {
                brokers::crash(self, index);
                let down = seconds([1, 3, 15][self.below(3)]);
                let sim = self.clone();
                tokio::spawn(async move {
                    sleep(down).await;
                    if sim.life(index).is_none() {
                        brokers::start(&sim, index);
                    }
                });
            }
        }
    }

    /// What a broker still lacks, if it does.
    fn lacks(&self, index: usize) -> Option<String> {
        let Some(life) = self.life(index) else {
            return Some("it does not run".into());
        };
        let (state, standing) = (life.cluster.state(), life.cluster.standing());
        if let Some((channel, why)) = standing.unsound.iter().next() {
            return Some(format!("{channel} is unsound: {why}"));
        }
        if state != State::Member || !standing.gaps.is_empty() {
            let gaps: Vec<_> = standing.gaps.keys().map(|one| one.as_str()).collect();
            return Some(format!("it is {state:?}, and lacks {gaps:?}"));
        }
        drop(standing);
        self.oracle.lacks(&life)
    }
}

/// What a seed does: how much, and what in one number.
fn simulate(seed: u64, directory: PathBuf) -> Result<(Counts, u64), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        simulated::set(Some(EPOCH));
        let sim = Simulation::new(seed, directory);
        let outcome = live(&sim).await;
        (0..BROKERS).for_each(|index| brokers::crash(&sim, index));
        let digest = sim.model.world().digest;
        outcome.map(|()| (sim.oracle.counts(), digest))
    });
    simulated::set(None);
    outcome
}

async fn live(sim: &Arc<Simulation>) -> Result<(), String> {
    tokio::spawn(sim.model.clone().run());
    (0..BROKERS).for_each(|index| brokers::start(sim, index));
    // The first trust statement, as long as it takes.
    loop {
        let life = sim.life(0).ok_or("the first broker does not run")?;
        if publishers::offer_trust(sim, &life, &sim.trust).await {
            break;
        }
        sim.check()?;
        sleep(Duration::from_millis(100)).await;
    }
    let mut publishing: Vec<_> = (0..PUBLISHERS)
        .map(|_| tokio::spawn(publishers::publish(sim.clone(), TURNS)))
        .collect();
    publishing.push(tokio::spawn(publishers::rotate(sim.clone(), ROTATIONS)));
    for _ in 0..FAULTS {
        sim.trouble();
        for _ in 0..1 + sim.below(5) {
            sleep(Duration::from_millis(20 + sim.below(500) as u64)).await;
            sim.look();
            sim.check()?;
        }
    }
    // From here on all is well.
    sim.model.world().heal();
    for index in 0..BROKERS {
        sim.brokers()[index].disk.spare();
        if sim.life(index).is_none() {
            brokers::start(sim, index);
        }
    }
    recover(sim, publishing).await
}

/// When all is well, everything is everywhere soon, and new statements are taken.
async fn recover(sim: &Arc<Simulation>, publishing: Vec<JoinHandle<()>>) -> Result<(), String> {
    let all = async {
        for one in publishing {
            one.await.map_err(|error| error.to_string())?;
            sim.look();
        }
        let each = (0..BROKERS).map(|index| publishers::finish(sim, index));
        match join_all(each).await.into_iter().all(|is_done| is_done) {
            true => Ok(()),
            false => Err("a broker is gone".to_owned()),
        }
    };
    let all = timeout(SOON, all).await;
    let until = Instant::now() + SOON;
    loop {
        sim.look();
        sim.check()?;
        let lacks = (0..BROKERS).find_map(|index| Some((index, sim.lacks(index)?)));
        match (&all, lacks) {
            (Err(_), lacks) => {
                return Err(format!(
                    "nothing can be published when all is well: {lacks:?}"
                ));
            }
            (Ok(all), None) => return all.clone(),
            (Ok(_), Some((index, why))) if Instant::now() > until => {
                return Err(format!("broker {index} when all is well: {why}"));
            }
            _ => sleep(Duration::from_millis(250)).await,
        }
    }
}

/// `TIDINGS_CLUSTER_SEEDS=20000` for more of them, `TIDINGS_CLUSTER_SEED=7` for one.
#[test]
fn whatever_happens_a_cluster_has_one_order_and_keeps_its_word() {
    let (first, many) = match wanted("TIDINGS_CLUSTER_SEED") {
        Some(one) => (one, 1),
        None => (0, wanted("TIDINGS_CLUSTER_SEEDS").unwrap_or(100)),
    };
    let directory = tempfile::tempdir().unwrap();
    if many == 1 {
        show(simulated::elapsed);
    }
    let (next, wrong) = (AtomicU64::new(first), Mutex::new(None));
    let total = Mutex::new(Counts::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + many || lock(&wrong).is_some() {
                return;
            }
            let run = || simulate(seed, directory.path().into());
            let run = catch_unwind(AssertUnwindSafe(run));
            match run.unwrap_or_else(|_| Err("it has panicked".into())) {
                Ok((counts, _)) => *lock(&total) += counts,
                Err(why) => drop(lock(&wrong).get_or_insert((seed, why))),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads.min(4)).for_each(|_| drop(scope.spawn(work)));
    });
    if let Some((seed, why)) = lock(&wrong).take() {
        panic!("seed {seed}: {why}; again with TIDINGS_CLUSTER_SEED={seed}");
    }
    let total = *lock(&total);
    eprintln!("{many} seeds: {total:?}");
    // Where nothing happens nothing is tested.
    let many = usize::try_from(many).unwrap();
    assert!(total.settled > 20 * many && total.acknowledged > 10 * many);
    assert!(many < 100 || total.unknown.min(total.crashes).min(total.filled) > many / 4);
}

#[test]
fn what_a_seed_does_it_does_again() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..10 {
        let [one, other] = [(); 2].map(|()| simulate(seed, directory.path().into()).unwrap().1);
        assert_eq!(one, other, "seed {seed}");
    }
}
