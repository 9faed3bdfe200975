//! Whole brokers: sessions, watches, writer, store, mirror and beats as they are, on a disk and a
//! network that are simulated.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidings_client::simulated::{self, within};
use tidings_protocol::{Channel, Serial};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{FED, HOSTILE, MIRRORS, NAMES, ORIGIN, Simulation, statements::key};
use crate::{
    Config, Settings,
    broker::StartError,
    config::Beat,
    limits::SWEEP,
    log::{
        append::{Appender, Writer},
        forks::Forks,
        logs::Logs,
        namespaces::Namespaces,
        store::{
            Marks, Store,
            simulated::{CUTS, Fault, SimulatedDisk},
        },
    },
    net::{
        connections::Connections,
        identity::Identity,
        login::Credentials,
        stream::{Socket, Stream},
    },
    origin::beat,
    relay::{
        feed,
        mirror::{self, Mirror},
        watch::Watches,
    },
    session::Session,
    shared::Shared,
    slots::{SlotStore, Slots},
};

/// How often the origin signs beats, and for how many seconds one lives.
pub(super) const BEAT: Duration = Duration::from_secs(20);
pub(super) const BEAT_LIFE: u64 = 60;

/// A broker, whether it runs or not.
pub(super) struct Broker {
    pub(super) disk: SimulatedDisk,
    pub(super) life: Option<Life>,
    settings: Settings,
    /// How many statements of each channel retention keeps at least, if it does not keep all.
    pub(super) kept: Option<u32>,
    /// How far its logs were looked at in this life.
    pub(super) checked: BTreeMap<Channel, u32>,
    /// How often it was looked at.
    pub(super) looks: usize,
    /// How its logs, and the trust in force, were when they were looked at last.
    pub(super) seen: BTreeMap<Channel, (Marks, Option<Serial>)>,
    /// Its store has failed.
    failed: Arc<AtomicBool>,
}

/// From a start to a crash.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    ended: CancellationToken,
}

/// Where a node calls from.
fn address(node: usize) -> IpAddr {
    let last = u8::try_from(node + 1).unwrap();
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

/// A node that may offer everything.
fn peer(node: usize) -> String {
    let (name, address) = (NAMES[node], address(node));
    format!("[[peer]]\nname = \"{name}\"\nnetworks = [\"{address}/32\"]\nfeeds = \"*\"\n")
}

impl Broker {
    /// With how many statements retention keeps, and how many watches there may be.
    pub(super) fn new(
        index: usize,
        disk: SimulatedDisk,
        anchor: &str,
        (kept, watches): (Option<u32>, usize),
    ) -> Self {
        let upstreams = match MIRRORS.iter().find(|(mirror, _)| *mirror == index) {
            Some((_, upstreams)) => upstreams,
            None => &[][..],
        };
        let upstreams: Vec<String> = upstreams
            .iter()
            .map(|upstream| format!("\"nntp://{}\"", NAMES[*upstream]))
            .collect();
        let mirror = match upstreams[..] {
            [] => String::new(),
            _ => format!(
                "[mirror]\nupstreams = [{}]\npoll_seconds = 6\n",
                upstreams.join(", ")
            ),
        };
        let feeds = match index {
            ORIGIN => format!("[[feed]]\nname = \"fed\"\nto = \"nntp://{}\"\n", NAMES[FED]),
            FED => [ORIGIN, HOSTILE].map(peer).concat(),
            _ => String::new(),
        };
        let retention = kept.map_or(String::new(), |kept| {
            format!("[[retention]]\nchannels = \"*\"\ncount = {kept}\n")
        });
        let text = format!(
            "name = \"{}\"\ndata_dir = \"none\"\nanchors = [\"{anchor}\"]\n[limits]\nwatches = {watches}\nheartbeat_seconds = 60\ngap_seconds = 60\n{mirror}{feeds}{retention}",
            NAMES[index]
        );
        let config: Config = toml::from_str(&text).unwrap();
        Self {
            disk,
            life: None,
            settings: Settings::check(config, Path::new("simulated")).unwrap(),
            kept,
            checked: BTreeMap::new(),
            looks: 0,
            seen: BTreeMap::new(),
            failed: Arc::default(),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.life.is_some() && self.failed.load(Ordering::Relaxed)
    }

    /// The power goes in the middle of one of the next commits.
    pub(super) fn fail_soon(&self, operations: usize, is_done: bool) {
        let at = self.disk.operations().0 + operations + 1;
        self.disk.fail_at(at, Fault::Gone { is_done });
    }
}

/// Starts a broker with what its disk has.
pub(super) fn start(sim: &Arc<Simulation>, index: usize) {
    simulated::as_node(index, || {
        let (life, writing, watching) = open(sim, index);
        life.spawn(index, writing);
        life.spawn(index, watching);
        life.spawn(index, listen(life.clone(), index));
        let (sweeping, appender) = (CancellationToken::new(), life.shared.appender.clone());
        life.spawn(index, async move {
            while !sweeping.is_cancelled() {
                sleep(SWEEP).await;
                appender.sweep().await;
            }
        });
        if let Some(mirror) = &life.shared.mirror {
            for upstream in 0..mirror.upstreams.len() {
                let run = mirror::run(life.shared.clone(), mirror.clone(), upstream);
                life.spawn(index, run);
            }
        }
        for feed in &life.shared.settings.feeds {
            let credentials = Credentials::read(&feed.login).unwrap();
            let run = feed::run(life.shared.clone(), feed.clone(), credentials);
            life.spawn(index, run);
        }
        if index == ORIGIN {
            let beat = Beat {
                namespace: sim.anchor.namespace.clone(),
                key_file: "simulated".into(),
                every: BEAT,
                life_seconds: BEAT_LIFE,
            };
            life.spawn(index, beat::run(life.shared.clone(), beat, key("beat")));
        }
        sim.brokers()[index].life = Some(life);
    });
}

/// Reads what the disk has; the power may go while the broker starts, again and again.
fn read_after_cuts(sim: &Simulation, broker: &mut Broker, index: usize) -> Found {
    loop {
        match read(&broker.disk, &broker.settings) {
            Ok(found) => return found,
            Err(why) if broker.disk.is_dead() => {
                tracing::debug!(index, %why, "not started");
                broker
                    .disk
                    .cut(CUTS[sim.below(CUTS.len())], &mut sim.random());
            }
            Err(why) => panic!("broker {index} does not start: {why}"),
        }
    }
}

/// A life, and what its writer and its watch loop do.
fn open(
    sim: &Arc<Simulation>,
    index: usize,
) -> (
    Life,
    impl Future<Output = ()> + use<>,
    impl Future<Output = ()> + use<>,
) {
    let mut brokers = sim.brokers();
    let broker = &mut brokers[index];
    broker.checked.clear();
    broker.seen.clear();
    broker.failed.store(false, Ordering::Relaxed);
    let settings = broker.settings.clone();
    let (store, logs, namespaces) = read_after_cuts(sim, broker, index);
    let failed = broker.failed.clone();
    let on_failure: crate::failure::OnFailure =
        Arc::new(move || failed.store(true, Ordering::Relaxed));
    let limits = &settings.config.limits;
    let heartbeat = Duration::from_secs(limits.heartbeat_seconds);
    let (watches, watching) =
        Watches::simulated(limits.watches, heartbeat, &logs, &on_failure).unwrap();
    let forks = Forks::open(sim.directory.clone(), store.clone(), 0);
    let forked = forks.forked.clone();
    let counts = Arc::default();
    let writer = Writer {
        forks,
        store: store.clone(),
        logs: logs.clone(),
        namespaces: namespaces.clone(),
        watches: watches.clone(),
        retention: settings.retention.clone(),
        quota: settings.config.quota,
        gap_patience: Duration::from_secs(limits.gap_seconds),
        closed_kept: Duration::from_secs(limits.closed_days * 86_400),
        mirrored: settings.mirror.as_ref().map(|one| one.channels.clone()),
        clustered: false,
        counts: Arc::clone(&counts),
        on_failure,
        state: Default::default(),
    };
    let pauses = sim.clone();
    let (appender, writing) = Appender::simulated(writer, move || pauses.disk_pause());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let mirror = settings.mirror.as_ref();
    let mirror = mirror.map(|one| Arc::new(Mirror::new(one, None).unwrap()));
    let slot_store = SlotStore::of(None, &store);
    let shared = Shared {
        started: crate::clock::now(),
        identity: Identity::new(None, Vec::new()),
        slots: Arc::new(Slots::start(Vec::new(), slot_store, &tasks, &stop)),
        connections: Connections::new(limits.connections, limits.connections_per_address),
        settings,
        store,
        logs,
        namespaces,
        origin: Arc::new(appender.clone()),
        appender,
        cluster: None,
        mirror,
        forked,
        watches,
        counts,
        tasks,
        stop,
    };
    let (shared, ended) = (Arc::new(shared), CancellationToken::new());
    (Life { shared, ended }, writing, watching)
}

type Found = (Store, Arc<Logs>, Arc<Namespaces>);

fn read(disk: &SimulatedDisk, settings: &Settings) -> Result<Found, StartError> {
    let store = Store::open_simulated(disk.clone())?;
    let logs = Arc::new(Logs::open(store.clone())?);
    let namespaces = Arc::new(Namespaces::open(&settings.anchors, &store)?);
    logs.take_up_kept(&namespaces)?;
    Ok((store, logs, namespaces))
}

impl Life {
    /// Runs until the broker crashes, and is dropped then, in its middle.
    fn spawn(&self, index: usize, run: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        tokio::spawn(within(index, async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = run => {}
            }
        }));
    }
}

/// What the listener does with connections.
async fn listen(life: Life, index: usize) {
    let mut listener = simulated::listen(NAMES[index]);
    while let Some((socket, node)) = listener.accept().await {
        let address = address(node);
        let Ok(permit) = life.shared.connections.admit(address) else {
            continue;
        };
        let stream = Stream::new(Socket::Simulated(socket), None);
        let peer = SocketAddr::new(address, 40_000);
        let session = Session::new(life.shared.clone(), stream, peer, permit);
        life.spawn(index, session.greet());
    }
}

/// A broker loses its power; others hear of it after a while.
pub(super) fn crash(sim: &Simulation, index: usize, told: Duration) {
    let mut brokers = sim.brokers();
    let broker = &mut brokers[index];
    let Some(life) = broker.life.take() else {
        return;
    };
    simulated::crash(index, NAMES[index], told);
    life.ended.cancel();
    // Those that have watched are on their own.
    life.shared.stop.cancel();
    let cut = CUTS[sim.below(CUTS.len())];
    broker.disk.cut(cut, &mut sim.random());
    sim.oracle.count(|counts| counts.crashes += 1);
}
