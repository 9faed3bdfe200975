//! The whole of it in one thread, on time and chance that are handed in: an origin that signs
//! beats, two mirrors and a broker that is fed, publishers and devices with their real code, and a
//! mirror that lies, on a network, disks and clocks that are simulated. What a seed does once it
//! does again.
//!
//! `oracle.rs` knows what was published; everything that a broker shows and a device says is
//! compared with it. When all is well again everybody has to have everything, soon.

mod brokers;
mod devices;
mod faults;
mod hostile;
mod oracle;
mod publishers;
pub(crate) mod seeds;
pub(crate) mod statements;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidings_client::{
    Source, Start,
    simulated::{self, within},
};
use tidings_protocol::{Anchor, Channel, Statement, Timestamp, View, simulated::Fault};
use tokio::{
    sync::RwLock,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::log::store::simulated::{MODELS, Random, SimulatedDisk};
use brokers::Broker;
use devices::Machine;
use oracle::{Counts, Oracle};
use seeds::{show, wanted};

/// When simulations begin: 2027.
const EPOCH: u64 = 1_800_000_000;
const TRUST_EXPIRES: u64 = EPOCH + 86_400;
/// Channels of releases.
const CHANNELS: [&str; 2] = ["acme.a", "acme.b"];
/// Nodes that listen, by their numbers.
const NAMES: [&str; 5] = [
    "origin.test",
    "one.test",
    "two.test",
    "fed.test",
    "bad.test",
];
const ORIGIN: usize = 0;
/// A broker that the origin feeds, and the one that lies.
const FED: usize = 3;
const HOSTILE: usize = 4;
/// Brokers whose code is ours.
const BROKERS: usize = 4;
/// Mirrors, and whom they copy from.
const MIRRORS: [(usize, &[usize]); 2] = [(1, &[ORIGIN, HOSTILE]), (2, &[1, HOSTILE])];
/// The nodes of publishers, the last of which rotates trust.
const PUBLISHERS: std::ops::Range<usize> = 5..8;
const FIRST_DEVICE: usize = 8;
/// Devices: whom they ask.
const DEVICES: [&[usize]; 3] = [&[1, FED], &[HOSTILE, 2], &[2, HOSTILE, ORIGIN]];
/// How many statements of each channel brokers keep at least.
const KEPT: [Option<u32>; 6] = [None, None, None, None, Some(1), Some(2)];
/// How many watches brokers hold at most.
const WATCHES: [usize; 3] = [0, 2, 64];
/// How often each publisher publishes, and trust is rotated.
const TURNS: usize = 4;
const ROTATIONS: usize = 2;
/// How often something goes wrong.
const FAULTS: usize = 12;
/// After how many seeds it is said how far it is.
const SHOWN: u64 = 5_000;
/// How long all may take, when all is well, until everything is everywhere.
const SOON: Duration = Duration::from_secs(600);

/// One run.
struct Simulation {
    random: Arc<Mutex<Random>>,
    brokers: Mutex<Vec<Broker>>,
    machines: Mutex<Vec<Machine>>,
    oracle: Oracle,
    anchor: Anchor,
    trust: Statement,
    channels: Vec<Channel>,
    /// The origin, for publishers.
    source: Source,
    /// Who publishes releases; closed to them while trust is rotated.
    desk: RwLock<()>,
    versions: AtomicUsize,
    /// Where evidence would be kept; nothing is.
    directory: PathBuf,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Simulation {
    fn new(random: Arc<Mutex<Random>>, directory: PathBuf) -> Arc<Self> {
        let began = Timestamp::from_seconds(EPOCH);
        let trust = statements::trust(None, began, TRUST_EXPIRES, Vec::new());
        let anchor = Anchor {
            namespace: "acme".parse().unwrap(),
            head: trust.head(),
        };
        let text = anchor.to_string();
        let source = |names: &[usize]| {
            let names: Vec<String> = names
                .iter()
                .map(|name| format!("nntp://{}", NAMES[*name]))
                .collect();
            Source::new(names.iter().map(String::as_str), &text).unwrap()
        };
        let below = |bound| lock(&random).below(bound);
        let broker = |index| {
            let disk = SimulatedDisk::new(MODELS[below(MODELS.len())]);
            let (kept, watches) = (KEPT[below(KEPT.len())], WATCHES[below(WATCHES.len())]);
            Broker::new(index, disk, &text, (kept, watches))
        };
        let brokers: Vec<Broker> = (0..BROKERS).map(broker).collect();
        let all_is_kept = brokers.iter().all(|broker| broker.kept.is_none());
        let machine = |names: &&[usize]| {
            let start = [Start::Newest, Start::Oldest][below(2)];
            Machine::new(source(names), start, all_is_kept)
        };
        let machines = DEVICES.iter().map(machine).collect();
        let source = source(&[ORIGIN]);
        Arc::new(Self {
            random,
            brokers: Mutex::new(brokers),
            machines: Mutex::new(machines),
            oracle: Oracle::new(View::new(anchor.clone())),
            anchor,
            trust,
            channels: CHANNELS.map(|one| one.parse().unwrap()).into(),
            source,
            desk: RwLock::new(()),
            versions: AtomicUsize::new(0),
            directory,
        })
    }

    fn check(&self) -> Result<(), String> {
        if simulated::has_panicked() {
            return Err("something has panicked".into());
        }
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

    fn machines(&self) -> MutexGuard<'_, Vec<Machine>> {
        lock(&self.machines)
    }

    fn next_version(&self) -> String {
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        format!("{version}.{}", self.below(1_000_000))
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

    /// Compares what brokers show and devices say with what is true; starts again those whose store
    /// has failed.
    fn look(self: &Arc<Self>) {
        for index in 0..BROKERS {
            let mut brokers = self.brokers();
            let broker = &mut brokers[index];
            let has_failed = broker.has_failed();
            // Of what has failed nothing can be read; a feed that writes how far it is may be the
            // first to lose the power, and the writer notices soon.
            let is_dead = broker.disk.is_dead();
            if !has_failed && !is_dead {
                self.oracle.look(index, index == ORIGIN, broker);
            }
            let life = broker.life.clone();
            drop(brokers);
            if has_failed {
                brokers::crash(self, index, Duration::ZERO);
                brokers::start(self, index);
            } else if let Some(life) = life.filter(|_| index == ORIGIN && !is_dead) {
                self.oracle.look_for_losses(&life);
            }
        }
        devices::look(self);
    }

    fn millis(&self, most: usize) -> Duration {
        Duration::from_millis(self.below(most) as u64)
    }

    /// Somebody who calls, and somebody who is called.
    fn pair(&self) -> (usize, &'static str) {
        let node = self.below(FIRST_DEVICE + DEVICES.len());
        (node, NAMES[self.below(NAMES.len())])
    }

    /// Something goes wrong.
    fn trouble(self: &Arc<Self>) {
        let (node, name) = self.pair();
        let (index, device) = (self.below(BROKERS), self.below(DEVICES.len()));
        let what = self.below(20);
        self.oracle.note("trouble", what);
        match what {
            0..=1 => simulated::break_connections(node, name),
            2..=4 => {
                let ways = [[true, true], [true, false], [false, true]][self.below(3)];
                simulated::cut(node, name, ways, self.millis(40_000));
            }
            5 => {
                let octets = 200 + self.below(4_000);
                simulated::slow_down(node, name, octets, self.millis(40_000));
            }
            6 => simulated::break_all(),
            7..=9 => {
                let (soon, is_done) = (self.below(12), self.below(2) == 0);
                self.brokers()[index].fail_soon(soon, is_done);
            }
            10..=12 => self.crash_broker(index),
            13..=14 => self.crash_device(device),
            15..=16 => {
                let ahead = self.below(81) as i64 - 40;
                devices::set_clock(self, device, ahead);
            }
            17 => {
                // Who signs beats is taken to have the right time.
                let ahead = self.below(81) as i64 - 40;
                let mirror = MIRRORS[self.below(MIRRORS.len())].0;
                simulated::set_clocks(mirror, |clocks| clocks.ahead = ahead);
            }
            _ => {
                let pause = self.millis(150_000);
                for name in &NAMES[..BROKERS] {
                    simulated::cut(FIRST_DEVICE + device, name, [true, true], pause);
                    simulated::break_connections(FIRST_DEVICE + device, name);
                }
            }
        }
    }

    fn crash_broker(self: &Arc<Self>, index: usize) {
        brokers::crash(self, index, self.millis(15_000));
        let (sim, down) = (
            self.clone(),
            self.millis([1_000, 5_000, 30_000][self.below(3)]),
        );
        tokio::spawn(async move {
            sleep(down).await;
            if sim.brokers()[index].life.is_none() {
                brokers::start(&sim, index);
            }
        });
    }

    fn crash_device(self: &Arc<Self>, index: usize) {
        devices::crash(self, index, self.below(2) == 0);
        let (sim, down) = (self.clone(), self.millis(20_000));
        tokio::spawn(async move {
            sleep(down).await;
            if !sim.machines()[index].runs() {
                devices::start(&sim, index);
            }
        });
    }

    /// What somebody still lacks.
    fn lacks(&self) -> Option<String> {
        let heads = self.oracle.heads();
        for (index, broker) in self.brokers().iter().enumerate() {
            let Some(life) = &broker.life else {
                return Some(format!("broker {index} does not run"));
            };
            let lacking = heads.iter().find(|(channel, head)| {
                let there = life.shared.logs.get(channel.as_str());
                let there = there.map_or(0, |log| log.marks().head.serial.number());
                there < **head && !channel.is_beat()
            });
            if let Some((channel, head)) = lacking {
                return Some(format!("broker {index} lacks {channel} {head}"));
            }
        }
        devices::all().find_map(|index| {
            let why = devices::lacks(self, index)?;
            Some(format!("device {index}: {why}"))
        })
    }
}

/// What a seed does: how much, and what in one number.
fn simulate(
    seed: u64,
    directory: PathBuf,
    broken: Option<(Range<usize>, Fault)>,
) -> Result<(Counts, u64), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x77);
        let random = Arc::new(Mutex::new(random));
        let chance = random.clone();
        let nodes = FIRST_DEVICE + DEVICES.len();
        simulated::begin(nodes, EPOCH, move |bound| lock(&chance).below(bound));
        if let Some((nodes, fault)) = broken {
            simulated::put_in(nodes, fault);
        }
        let sim = Simulation::new(random, directory);
        let outcome = live(&sim).await;
        // What is drawn last tells whether anything else was drawn.
        sim.oracle.note("the end", sim.below(usize::MAX));
        outcome.map(|()| (sim.oracle.counts(), sim.oracle.digest()))
    });
    drop(runtime);
    simulated::end();
    outcome
}

async fn live(sim: &Arc<Simulation>) -> Result<(), String> {
    (0..BROKERS).for_each(|index| brokers::start(sim, index));
    tokio::spawn(within(HOSTILE, hostile::run(sim.clone())));
    devices::all().for_each(|index| devices::start(sim, index));
    let beginning = within(PUBLISHERS.start, publishers::begin(sim));
    if !timeout(SOON, beginning).await.unwrap_or(false) {
        return Err("the first statements are not taken".into());
    }
    let mut publishing: Vec<JoinHandle<bool>> = Vec::new();
    for node in PUBLISHERS {
        publishing.push(match node + 1 == PUBLISHERS.end {
            true => tokio::spawn(within(node, publishers::rotate(sim.clone(), ROTATIONS))),
            false => tokio::spawn(within(node, publishers::publish(sim.clone(), TURNS))),
        });
    }
    for _ in 0..FAULTS {
        sim.trouble();
        let next = Instant::now() + sim.millis(20_000);
        while Instant::now() < next {
            sleep(Duration::from_millis(100 + sim.below(800) as u64)).await;
            sim.look();
            sim.check()?;
        }
    }
    // From here on all is well, but that one mirror still lies.
    simulated::heal();
    for index in 0..BROKERS {
        simulated::set_clocks(index, |clocks| clocks.ahead = 0);
        sim.brokers()[index].disk.spare();
        if sim.brokers()[index].life.is_none() {
            brokers::start(sim, index);
        }
    }
    for index in devices::all() {
        devices::set_clock(sim, index, 0);
        if !sim.machines()[index].runs() {
            devices::start(sim, index);
        }
    }
    recover(sim, publishing).await
}

/// When all is well, everything is everywhere soon, and new statements are taken.
async fn recover(sim: &Arc<Simulation>, publishing: Vec<JoinHandle<bool>>) -> Result<(), String> {
    let until = Instant::now() + SOON;
    loop {
        sleep(Duration::from_millis(900)).await;
        sim.look();
        sim.check()?;
        let is_published = publishing.iter().all(JoinHandle::is_finished);
        let lacks = match is_published {
            true => sim.lacks(),
            false => Some("not all is published".into()),
        };
        match lacks {
            None => break,
            Some(why) if Instant::now() > until => {
                return Err(format!("when all is well: {why}"));
            }
            Some(_) => {}
        }
    }
    for one in publishing {
        if !one.await.map_err(|error| error.to_string())? {
            return Err("something could not be published".into());
        }
    }
    for broker in sim.brokers().iter_mut() {
        broker.seen.clear();
    }
    sim.look();
    sim.oracle.look_at_claims();
    sim.check()
}

/// `cargo xtask simulate` for more of them, or for one.
#[test]
fn whatever_happens_nobody_is_deceived_and_everything_comes_through() {
    let (first, many) = match wanted("TIDINGS_SEED") {
        Some(one) => (one, 1),
        None => (0, wanted("TIDINGS_SEEDS").unwrap_or(100)),
    };
    let directory = tempfile::tempdir().unwrap();
    if many == 1 {
        show(simulated::elapsed);
    }
    let (next, wrong) = (AtomicU64::new(first), Mutex::new(None));
    let total = Mutex::new((Counts::default(), 0_u64));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + many || lock(&wrong).is_some() {
                return;
            }
            let run = || simulate(seed, directory.path().into(), None);
            let run = catch_unwind(AssertUnwindSafe(run));
            match run.unwrap_or_else(|_| Err("it has panicked".into())) {
                Ok((counts, digest)) => {
                    let mut total = lock(&total);
                    total.0 += counts;
                    // In whatever order they end.
                    total.1 = total.1.wrapping_add(digest);
                    if (seed + 1 - first).is_multiple_of(SHOWN) {
                        eprintln!("{} seeds are begun or done", seed + 1 - first);
                    }
                }
                Err(why) => drop(lock(&wrong).get_or_insert((seed, why))),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads.min(4)).for_each(|_| drop(scope.spawn(work)));
    });
    if let Some((seed, why)) = lock(&wrong).take() {
        panic!("seed {seed}: {why}; again with cargo xtask simulate --seed {seed}");
    }
    let (total, digest) = *lock(&total);
    eprintln!("{many} seeds: digest {digest:016x}, {total:?}");
    // Where nothing happens nothing is tested.
    let many = usize::try_from(many).unwrap();
    let least = [
        total.crashes,
        total.restarts,
        total.applied,
        total.failed_polls,
        total.told,
        total.removed,
    ];
    assert!(many < 100 || least.into_iter().all(|count| count > many / 2));
}

#[test]
fn what_a_seed_does_it_does_again() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..5 {
        let [one, other] = [(); 2].map(|()| simulate(seed, directory.path().into(), None));
        assert_eq!(
            one.map(|one| one.1),
            other.map(|other| other.1),
            "seed {seed}"
        );
    }
}
