//! Brokers as far as a cluster needs them: a disk that forgets, the writer, the logs, and their
//! part of the cluster. What fills a gap is a path of its own here, without connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidings_client::Address;
use tidings_protocol::{
    Channel, Serial,
    beat::{self, Round},
    log::Begin,
    statement::Body,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    super::{Cluster, run},
    Simulation,
    oracle::{Checked, Signed},
};
use crate::{
    clock,
    config::{Clustering, Mirroring, Quota},
    log::{
        append::{Appender, Copy, Run, Writer},
        forks::Forks,
        logs::Logs,
        namespaces::Namespaces,
        store::{
            Store,
            simulated::{CUTS, Fault, SimulatedDisk},
        },
    },
    origin::{New, Origin},
    relay::watch::Watches,
    simulation::statements::key,
};

/// Nodes of what was settled that the tree keeps, and octets in them.
const KEPT: (usize, usize) = (9, 1 << 20);
const BEAT: Duration = Duration::from_millis(2_500);

/// A broker, whether it runs or not.
pub(super) struct Broker {
    pub(super) disk: SimulatedDisk,
    pub(super) life: Option<Arc<Life>>,
    pub(super) checked: Checked,
    /// Its store has failed.
    failed: Arc<AtomicBool>,
}

/// From a start to a crash.
pub(super) struct Life {
    pub(super) cluster: Arc<Cluster>,
    pub(super) local: Appender,
    pub(super) logs: Arc<Logs>,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) store: Store,
    pub(super) ended: CancellationToken,
}

impl Broker {
    pub(super) fn new(disk: SimulatedDisk) -> Self {
        Self {
            disk,
            life: None,
            checked: Checked::new(),
            failed: Arc::default(),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The power goes in the middle of one of the next commits.
    pub(super) fn fail_soon(&self, operations: usize, is_done: bool) {
        let at = self.disk.operations().0 + operations + 1;
        self.disk.fail_at(at, Fault::Gone { is_done });
    }
}

fn settings(index: usize) -> Clustering {
    Clustering {
        servers: "model:2181".into(),
        root: "/tidings".into(),
        address: address(index),
        session: Duration::from_secs(6),
        user: None,
        tls: None,
        fill: Mirroring {
            upstreams: Vec::new(),
            channels: "*".parse().unwrap(),
            login: Default::default(),
            poll: Duration::from_secs(60),
        },
    }
}

fn address(index: usize) -> Address {
    format!("nntp://b{index}.test:119").parse().unwrap()
}

/// Starts a broker with what its disk has.
pub(super) fn start(sim: &Arc<Simulation>, index: usize) {
    let (life, writing) = open(sim, index);
    let (filled, sims) = (life.clone(), sim.clone());
    let fill = move |from: Vec<Address>| {
        let stop = CancellationToken::new();
        let filling = fill(sims.clone(), filled.clone(), from);
        spawn_until([&stop, &filled.ended], filling);
        Ok(stop)
    };
    let running = run(
        life.cluster.clone(),
        Box::new(fill),
        CancellationToken::new(),
    );
    let span = tracing::info_span!("broker", index);
    spawn_until([&life.ended; 2], running.instrument(span.clone()));
    spawn_until([&life.ended; 2], writing.instrument(span));
    spawn_until([&life.ended; 2], beats(sim.clone(), index, life.clone()));
}

/// A life, and what its writer does.
fn open(sim: &Arc<Simulation>, index: usize) -> (Arc<Life>, impl Future<Output = ()> + use<>) {
    let mut brokers = sim.brokers();
    let broker = &mut brokers[index];
    let store = Store::open_simulated(broker.disk.clone()).unwrap();
    let logs = Arc::new(Logs::open(store.clone()).unwrap());
    let anchors = [sim.anchor.clone()];
    let namespaces = Arc::new(Namespaces::open(&anchors, &store).unwrap());
    broker.failed.store(false, Ordering::Relaxed);
    let failed = broker.failed.clone();
    let on_failure: crate::failure::OnFailure =
        Arc::new(move || failed.store(true, Ordering::Relaxed));
    let writer = Writer {
        forks: Forks::open(sim.directory.clone(), store.clone(), 0),
        store: store.clone(),
        logs: logs.clone(),
        namespaces: namespaces.clone(),
        watches: Watches::start(0, 0, Duration::from_secs(60), &logs, &on_failure).unwrap(),
        retention: Vec::new(),
        quota: Quota {
            channels: 100,
            evidence: 0,
        },
        gap_patience: Duration::ZERO,
        closed_kept: Duration::ZERO,
        mirrored: None,
        clustered: true,
        counts: Arc::default(),
        on_failure,
        state: Default::default(),
    };
    let pauses = sim.clone();
    let (local, writing) = Appender::simulated(writer, move || pauses.disk_pause());
    let mut cluster = Cluster::new(
        settings(index),
        format!("b{index}"),
        local.clone(),
        logs.clone(),
        namespaces.clone(),
        None,
        "common".into(),
    );
    cluster.servers = Arc::new(sim.model.of(index));
    cluster.bound = KEPT;
    let life = Arc::new(Life {
        cluster: Arc::new(cluster),
        local,
        logs,
        namespaces,
        store,
        ended: CancellationToken::new(),
    });
    broker.life = Some(life.clone());
    (life, writing)
}

/// Runs until one of these is cancelled, and is dropped then, in its middle.
fn spawn_until(stop: [&CancellationToken; 2], run: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.map(CancellationToken::clone);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stop[0].cancelled() => {}
            () = stop[1].cancelled() => {}
            () = run => {}
        }
    });
}

/// A broker loses its power.
pub(super) fn crash(sim: &Simulation, index: usize) {
    let mut brokers = sim.brokers();
    let broker = &mut brokers[index];
    let Some(life) = broker.life.take() else {
        return;
    };
    sim.model.world().crash(index);
    life.ended.cancel();
    let cut = CUTS[sim.below(CUTS.len())];
    broker.disk.cut(cut, &mut sim.random());
    broker.checked.clear();
    sim.oracle.count(|counts| counts.crashes += 1);
}

/// What others have of channels that are lacking, as mirrors copy it.
async fn fill(sim: Arc<Simulation>, life: Arc<Life>, from: Vec<Address>) {
    loop {
        sleep(Duration::from_millis(50 + sim.below(200) as u64)).await;
        let others: Vec<Arc<Life>> = {
            let brokers = sim.brokers();
            let named = brokers.iter().enumerate();
            let named = named.filter(|(index, _)| from.contains(&address(*index)));
            named.filter_map(|(_, one)| one.life.clone()).collect()
        };
        let channels: Vec<Channel> = life.cluster.standing().gaps.keys().cloned().collect();
        for channel in &channels {
            for other in &others {
                fill_one(&sim, &life, channel, other).await;
            }
        }
    }
}

async fn fill_one(sim: &Simulation, life: &Life, channel: &Channel, other: &Life) {
    let head = life.logs.get(channel.as_str());
    let next = head.map_or(1, |log| log.marks().head.serial.number() + 1);
    let Some(theirs) = other.logs.get(channel.as_str()).map(|log| log.marks()) else {
        return;
    };
    let first = match channel.is_beat() {
        // Of beats, the newest is enough.
        true => next.max(theirs.head.serial.number()),
        false => next,
    };
    let serials = (first..=theirs.head.serial.number()).filter_map(Serial::new);
    let read = |serial| other.store.get(channel, serial).ok().flatten();
    let run: Vec<_> = serials.map_while(read).collect();
    sleep(Duration::from_millis(sim.below(40) as u64)).await;
    if run.is_empty() || !life.cluster.fills(channel) {
        return;
    }
    if channel.is_trust() {
        let run = run
            .into_iter()
            .map(|record| (record.statement, record.path));
        drop(life.local.copy_trust(run.collect()).await);
    } else {
        let copies = run.into_iter();
        let copies = copies.map(|record| Copy::unproven(record.statement, record.path));
        let begin = match channel.is_beat() {
            true => Begin::Nothing,
            false => Begin::Backfill,
        };
        let run = Run {
            channel: channel.clone(),
            copies: copies.collect(),
            begin,
        };
        drop(life.local.copy(run).await);
    }
    sim.oracle.count(|counts| counts.filled += 1);
}

/// Signs beats in turn with the others.
async fn beats(sim: Arc<Simulation>, index: usize, life: Arc<Life>) {
    loop {
        sleep(BEAT + Duration::from_millis(sim.below(500) as u64)).await;
        let trust = life.namespaces.trust(&sim.anchor.namespace.trust_log());
        let Some((trust, term)) = trust.zip(life.cluster.term()) else {
            continue;
        };
        if !sim.catch_up(&life).await {
            continue;
        }
        let channel: Channel = "acme.beat".parse().unwrap();
        let log = life.logs.get(channel.as_str()).map(|log| log.marks().head);
        let before = log.and_then(|head| life.store.get(&channel, head.serial).ok().flatten());
        let named = match before.as_ref().map(|record| record.statement.body()) {
            Some(Body::Beat(beat)) => beat.heads.clone(),
            _ => Vec::new(),
        };
        let logs = life.logs.all().into_iter();
        let logs = logs.filter(|log| !log.channel.is_trust() && !log.channel.is_beat());
        let logs = logs.filter(|log| life.cluster.knows(&log.channel));
        let heads: Vec<_> = logs
            .map(|log| (log.channel.clone(), log.marks().head))
            .collect();
        let trust_log = (trust.statement().channel().clone(), trust.head());
        let plan = beat::plan(trust_log, &named, &heads);
        let round = Round {
            channel,
            after: log,
            time: clock::now(),
            // Else two members may sign the same beat, and it is not known whose was settled.
            life: 600 + index as u64,
            trust: trust.serial(),
        };
        let statement = beat::sign(round, plan.heads, &key("beat")).unwrap();
        let signed = Signed {
            key: "beat",
            brings: None,
            broker: Some(index),
        };
        sim.oracle.note_signed(&statement, signed);
        let Ok(statement) = trust.verify(statement) else {
            continue;
        };
        let new = New {
            statement: statement.clone(),
            trust: trust.serial(),
            path: format!("b{index}"),
            term: Some(term),
        };
        let answer = life.cluster.append(new).await;
        sim.oracle.note_answer(&statement, &answer, false);
    }
}
