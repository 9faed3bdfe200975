//! Several brokers that are one origin: what is new is settled in ZooKeeper, many statements at
//! once; the member that has settled it stores it, and the others copy it.
//!
//! `session.rs` is what is needed of ZooKeeper, `tree.rs`, `nodes.rs` and `kept.rs` what stands
//! there; `settle.rs` takes a statement, `batch.rs` plans what is settled at once, `append.rs` does
//! it, where `room.rs` has room; `follow.rs` follows what others have settled, `take.rs` stores it
//! and `compare.rs` compares heads, `backfill.rs` what the tree does not keep any more;
//! `members.rs` knows the others, and signs beats in turn with them; `turns.rs` tells of changes in
//! groups of slots. A session that ends is begun anew; nothing depends on it but membership.
//! `simulation/` has all of it on a model of the servers.

mod append;
mod backfill;
mod batch;
mod compare;
mod follow;
mod kept;
mod members;
mod nodes;
mod older;
mod room;
mod session;
mod settle;
#[cfg(test)]
mod simulation;
mod standing;
mod take;
#[cfg(test)]
mod tests;
mod tree;
mod turns;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tidings_client::Address;
use tidings_protocol::{Channel, Head, Timestamp, Wildmat};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    config::Clustering,
    limits::{CLUSTER_PAUSE, CLUSTER_QUEUE},
    log::{
        append::{AppendError, Appender},
        logs::Logs,
        namespaces::Namespaces,
    },
    net::login::LoginError,
};
use append::Waiting;
use batch::{Batch, Seen};
use kept::{Kept, Shelf};
pub(crate) use nodes::Member;
use session::Servers;
pub(crate) use standing::State;
use standing::{Gap, Standing};
use tree::Tree;
pub(crate) use tree::{TreeError, init, set_head};
use turns::Turns;

/// A node of our own that goes to our writer directly: none while it is being settled or stored;
/// then when it was settled, and what it holds.
type Way = Option<(i64, Kept)>;

/// One member's view of the cluster.
pub(crate) struct Cluster {
    settings: Clustering,
    servers: Arc<dyn Servers>,
    /// How many nodes of what was settled the tree keeps, and octets in them.
    bound: (usize, usize),
    name: String,
    /// A digest of what is the same for all members: anchors and groups of slots.
    common: String,
    local: Appender,
    logs: Arc<Logs>,
    namespaces: Arc<Namespaces>,
    mirrored: Option<Wildmat>,
    /// How many channels a namespace may have.
    quota: usize,
    tree: ArcSwapOption<Tree>,
    /// The heads as they were last read.
    seen: Mutex<HashMap<Channel, Seen>>,
    /// Channels whose heads have to be read.
    dirty: Mutex<HashSet<Channel>>,
    wake: Notify,
    /// Counts the rounds of reading; the first of a session has looked at everything.
    rounds: watch::Sender<u64>,
    /// What waits to be settled.
    queue: mpsc::Sender<Waiting>,
    waiting: Mutex<Option<mpsc::Receiver<Waiting>>>,
    /// Channels in which something of ours is under way: which head, and whether they are looked at
    /// afterwards.
    under_way: Mutex<HashMap<Channel, (Head, bool)>>,
    /// Our own nodes that are not read back, until they are met.
    ways: Mutex<HashMap<String, Way>>,
    /// Told when something is under way no more.
    ended: watch::Sender<()>,
    /// What the tree keeps.
    shelf: Mutex<Shelf>,
    /// Our term, or -1.
    term: AtomicI64,
    /// When the servers were asked for somebody who is ahead of us.
    asked: Mutex<Option<Instant>>,
    /// When the servers' clock showed what.
    time: Mutex<Option<(Instant, Duration)>>,
    /// Told of groups of slots that were changed.
    turns: Turns,
    standing: Mutex<Standing>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(crate) fn new(
        settings: Clustering,
        name: String,
        local: Appender,
        logs: Arc<Logs>,
        namespaces: Arc<Namespaces>,
        mirrored: Option<Wildmat>,
        common: String,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(CLUSTER_QUEUE);
        Self {
            servers: Arc::new(settings.clone()),
            bound: kept::BOUND,
            settings,
            name,
            common,
            local,
            logs,
            namespaces,
            mirrored,
            quota: usize::MAX,
            tree: ArcSwapOption::empty(),
            seen: Mutex::default(),
            dirty: Mutex::default(),
            wake: Notify::new(),
            rounds: watch::Sender::new(0),
            queue,
            waiting: Mutex::new(Some(waiting)),
            under_way: Mutex::default(),
            ways: Mutex::default(),
            ended: watch::Sender::new(()),
            shelf: Mutex::default(),
            term: AtomicI64::new(-1),
            asked: Mutex::default(),
            time: Mutex::default(),
            turns: Turns::default(),
            standing: Mutex::new(Standing::new()),
        }
    }

    /// The same with a bound for the channels of a namespace.
    pub(crate) fn with_quota(self, quota: usize) -> Self {
        Self { quota, ..self }
    }

    /// What the configuration says.
    pub(crate) fn settings(&self) -> &Clustering {
        &self.settings
    }

    /// How this broker stands.
    pub(crate) fn standing(&self) -> MutexGuard<'_, Standing> {
        lock(&self.standing)
    }

    /// The state as it is this moment.
    pub(crate) fn state(&self) -> State {
        let state = self.standing().state.clone();
        let lost = self.tree.load().as_ref().is_none_or(|tree| !tree.is_live());
        if lost && state == State::Member {
            State::Suspended
        } else {
            state
        }
    }

    fn set_term(&self, term: Option<i32>) {
        let before = self
            .term
            .swap(term.map_or(-1, i64::from), Ordering::Relaxed);
        match (before >= 0, term.is_some()) {
            (false, true) => tracing::info!("this member signs beats from now on"),
            (true, false) => tracing::info!("this member does not sign beats any more"),
            _ => {}
        }
    }

    /// Whether a channel is settled in the cluster.
    pub(crate) fn settles(&self, channel: &Channel) -> bool {
        let mirrored = self
            .mirrored
            .as_ref()
            .is_some_and(|mirrored| mirrored.matches(channel.as_str()));
        !mirrored && self.namespaces.of(channel).is_some()
    }

    /// The tree, if a majority of the servers can be asked now.
    fn tree(&self) -> Result<Arc<Tree>, AppendError> {
        self.tree
            .load_full()
            .filter(|tree| tree.is_live())
            .ok_or(AppendError::NoQuorum)
    }

    fn local_head(&self, channel: &Channel) -> Option<Head> {
        self.logs.get(channel.as_str()).map(|log| log.marks().head)
    }

    /// Members whose configuration differs from ours where all have the same.
    pub(crate) fn strangers(&self) -> Vec<String> {
        self.standing()
            .members
            .iter()
            .filter(|member| member.common != self.common)
            .map(|member| member.name.clone())
            .collect()
    }

    /// Whether a channel is filled from other members now.
    pub(crate) fn fills(&self, channel: &Channel) -> bool {
        self.standing().gaps.contains_key(channel)
    }

    /// Whether it is known here what is newest in a channel.
    pub(crate) fn knows(&self, channel: &Channel) -> bool {
        let standing = self.standing();
        !standing.gaps.contains_key(channel) && !standing.unsound.contains_key(channel)
    }

    /// Has a channel looked at.
    fn look_at(&self, channel: &Channel) {
        lock(&self.dirty).insert(channel.clone());
        self.wake.notify_one();
    }

    /// Notes a head of the tree, unless a newer one is known.
    fn learn(&self, channel: &Channel, seen: Seen) {
        let mut all = lock(&self.seen);
        let is_newer = all.get(channel).is_none_or(|known| known.zxid <= seen.zxid);
        if is_newer && self.settles(channel) {
            all.insert(channel.clone(), seen);
        }
    }

    /// What comes next in our own log.
    fn next(&self, channel: &Channel) -> u32 {
        let begin = || {
            let provisioned = self.namespaces.of_trust_log(channel);
            provisioned.map_or(1, |of| of.anchor.head.serial.number())
        };
        self.local_head(channel)
            .map_or_else(begin, |head| head.serial.number() + 1)
    }

    /// Notes what is about to be settled, by which node.
    fn begin_way(&self, name: &str, batch: &Batch) {
        let heads = batch.sets.iter();
        let heads = heads.map(|set| (set.channel.clone(), (set.head, false)));
        lock(&self.under_way).extend(heads);
        lock(&self.ways).insert(name.into(), None);
    }

    /// What was under way is in our store; or it was not made, or is read back if it was.
    fn end_way<'a>(
        &self,
        name: &str,
        channels: impl Iterator<Item = &'a Channel>,
        stored: Option<(i64, Kept)>,
    ) {
        let look = stored.is_none();
        match lock(&self.ways).entry(name.into()) {
            Entry::Occupied(mut way) if stored.is_some() => drop(way.insert(stored)),
            Entry::Occupied(way) => drop(way.remove()),
            Entry::Vacant(_) => {}
        }
        for channel in channels {
            let mut under_way = lock(&self.under_way);
            let way = under_way.remove(channel);
            if look || way.is_some_and(|(_, look)| look) {
                drop(under_way);
                self.look_at(channel);
            }
        }
        self.ended.send_replace(());
    }

    /// If something of ours is under way in a channel, whether the tree has something else above
    /// what we have: then it is looked at afterwards.
    fn is_under_way(&self, channel: &Channel, there: Option<Head>) -> Option<bool> {
        let mut all = lock(&self.under_way);
        let (ours, look) = all.get_mut(channel)?;
        let is_above = there.is_some_and(|there| there.serial.number() >= self.next(channel));
        let is_other = is_above && there != Some(*ours);
        *look |= is_other;
        Some(is_other)
    }

    /// How many statements the tree keeps.
    pub(crate) fn entries(&self) -> u64 {
        lock(&self.shelf).entries()
    }

    /// How many statements of how many channels the tree has and we do not.
    pub(crate) fn lag(&self) -> (u64, u64) {
        let seen = lock(&self.seen);
        let lags = seen.iter().map(|(channel, seen)| {
            let ours = self
                .local_head(channel)
                .map_or(0, |head| head.serial.number());
            u64::from(seen.head.serial.number().saturating_sub(ours))
        });
        lags.filter(|lag| *lag > 0)
            .fold((0, 0), |(sum, channels), lag| (sum + lag, channels + 1))
    }

    /// The servers' time, which all members share; only a member knows it.
    pub(crate) fn now(&self) -> Option<Timestamp> {
        let (at, time) = (*lock(&self.time))?;
        Some(Timestamp::from_seconds((time + at.elapsed()).as_secs()))
    }

    /// What is kept of a group of slots, and its version; none if there is nothing.
    pub(crate) async fn slots(&self, group: &str) -> Result<Option<(Vec<u8>, i32)>, AppendError> {
        self.within(async |tree| tree.slots(group).await).await
    }

    /// Replaces it, if its version is still this one; whether it was.
    pub(crate) async fn set_slots(
        &self,
        group: &str,
        data: &[u8],
        after: Option<i32>,
    ) -> Result<bool, AppendError> {
        self.within(async |tree| tree.set_slots(group, data, after).await)
            .await
    }

    /// Told when a group of slots was changed, perhaps, by this member or another one.
    pub(crate) fn slot_changes(&self, group: &str) -> Arc<Notify> {
        self.turns.of(group)
    }

    async fn within<T>(
        &self,
        ask: impl AsyncFnOnce(&Tree) -> Result<T, zookeeper_client::Error>,
    ) -> Result<T, AppendError> {
        let tree = self.tree()?;
        let answer = tokio::time::timeout(crate::limits::CLUSTER_PATIENCE, ask(&tree)).await;
        answer.map_err(|_| AppendError::Unknown)?.map_err(|error| {
            tracing::warn!(%error, "the cluster's servers have not answered");
            AppendError::Unknown
        })
    }

    /// A line for people.
    pub(crate) fn describe(&self) -> String {
        let state = match self.state() {
            State::Connecting(why) => format!("is not connected: {why}"),
            State::Suspended => {
                "does not reach a majority of the servers: nothing can be published here".into()
            }
            State::Member => "is a member".into(),
            State::NameTaken(address) => {
                format!("is no member: another broker, {address}, has the same name")
            }
        };
        let (statements, channels) = self.lag();
        format!(
            "cluster {} {}: {} {state}; {statements} statements of {channels} channels are still to come; {} signs beats",
            self.settings.servers,
            self.settings.root,
            self.name,
            self.standing().signer.as_deref().unwrap_or("nobody")
        )
    }
}

/// Fills from other members what the servers have forgotten, until it is told to stop.
pub(crate) type Fill = dyn Fn(Vec<Address>) -> Result<CancellationToken, LoginError> + Send + Sync;

/// Takes part in the cluster until the broker shuts down.
pub(crate) async fn run(cluster: Arc<Cluster>, fill: Box<Fill>, stop: CancellationToken) {
    let Some(waiting) = lock(&cluster.waiting).take() else {
        return;
    };
    // A task of its own: what is copied from others keeps no publisher waiting.
    let _settling = AbortOnDropHandle::new(tokio::spawn(append::run(cluster.clone(), waiting)));
    tokio::select! {
        biased;
        () = sessions(&cluster, &fill) => {}
        () = stop.cancelled() => {}
    }
    // Dropping the last handle ends the session, and with it the membership.
    cluster.tree.store(None);
}

async fn sessions(cluster: &Cluster, fill: &Fill) {
    loop {
        let Err(error) = session(cluster, fill).await else {
            return;
        };
        cluster.set_term(None);
        cluster.tree.store(None);
        cluster.rounds.send_modify(|round| *round = 0);
        lock(&cluster.time).take();
        let why = tidings_client::explain(&error);
        {
            let mut standing = cluster.standing();
            let state = State::Connecting(why.clone());
            if standing.state != state {
                tracing::error!(
                    why,
                    "this broker is not in its cluster: it serves what it has, and nothing can be published here"
                );
            }
            if standing.state == State::Member {
                standing.sessions_lost += 1;
            }
            standing.state = state;
            (standing.members, standing.signer) = (Vec::new(), None);
        }
        sleep(CLUSTER_PAUSE).await;
    }
}

async fn session(cluster: &Cluster, fill: &Fill) -> Result<(), TreeError> {
    let tree = Arc::new(Tree::join(&*cluster.servers, &cluster.settings.root).await?);
    cluster.tree.store(Some(tree.clone()));
    tracing::info!(
        servers = cluster.settings.servers,
        root = cluster.settings.root,
        "connected to the cluster's servers"
    );
    tokio::select! {
        biased;
        ended = follow::follow(cluster, &tree, fill) => ended,
        ended = members::take_part(cluster, &tree) => ended,
        ended = cluster.turns.tell(&tree) => ended,
    }
}
