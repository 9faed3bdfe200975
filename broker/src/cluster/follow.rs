//! Copies what the cluster has settled to our own store, in the order in which it was settled.
//!
//! A watch tells which heads were set; what it does not tell, since the connection was broken, is
//! found by looking at everything after it is whole again. What the servers have forgotten comes
//! from another member, by the path of mirrors.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::Ordering,
};

use futures_util::{FutureExt, StreamExt, stream};
use tidings_protocol::{Channel, Serial, log::Begin, verify::VerifyError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zookeeper_client::{EventType, PersistentWatcher, SessionState, WatchedEvent};

use super::{Cluster, Fill, Found, Gap, Seen, Tree, TreeError, lock};
use crate::{
    append::{AppendError, Copied, Copy, Run},
    limits::{CLUSTER_ABREAST, CLUSTER_AGAIN, CLUSTER_RETRY, CLUSTER_SOON, CLUSTER_TICK},
};

/// What has happened to the session.
#[derive(PartialEq, Eq)]
enum Session {
    Goes,
    /// Events may have been lost.
    WasBroken,
    Ended,
}

/// Follows the tree until the session ends.
pub(super) async fn follow(cluster: &Cluster, tree: &Tree, fill: &Fill) -> Result<(), TreeError> {
    let mut events = tree.watch_heads().await?;
    // The servers may count from another beginning now.
    cluster.held.store(0, Ordering::Relaxed);
    let mut everything = true;
    let (mut again, mut soon) = (
        Instant::now() + CLUSTER_AGAIN,
        Instant::now() + CLUSTER_SOON,
    );
    // The highest zxid that was read before this round.
    let mut read = 0;
    let mut backfill = Backfill::default();
    loop {
        match take_events(cluster, &mut events) {
            Session::Ended => return Err(TreeError::Ended),
            Session::WasBroken => everything = true,
            Session::Goes => {}
        }
        let mut batch: BTreeSet<Channel> = lock(&cluster.dirty).drain().collect();
        let whole = std::mem::take(&mut everything);
        let done = async {
            if whole {
                // zookeeper-client 0.11 does not set persistent watches anew on another connection.
                events = tree.watch_heads().await?;
                tree.sync().await?;
                batch.extend(tree.channels().await?);
                batch.extend(cluster.logs.all().iter().map(|log| log.channel.clone()));
            }
            batch.retain(|channel| cluster.settles(channel));
            let mut round = Round {
                cluster,
                tree,
                gaps: BTreeSet::new(),
                unsound: BTreeMap::new(),
                read: 0,
            };
            // Trust is read first, then the events again: what was settled before it is in the same
            // round, and judged before it.
            let trust = round
                .read_heads(
                    &batch
                        .iter()
                        .filter(|channel| channel.is_trust())
                        .cloned()
                        .collect::<Vec<_>>(),
                )
                .await?;
            match take_events(cluster, &mut events) {
                Session::Ended => return Err(TreeError::Ended),
                Session::WasBroken => return Err(zookeeper_client::Error::ConnectionLoss.into()),
                Session::Goes => {}
            }
            // Trust that has come since is for the next round.
            batch.extend(
                lock(&cluster.dirty)
                    .extract_if(|channel| !channel.is_trust())
                    .filter(|channel| cluster.settles(channel)),
            );
            let others = round
                .read_heads(
                    &batch
                        .iter()
                        .filter(|channel| !channel.is_trust())
                        .cloned()
                        .collect::<Vec<_>>(),
                )
                .await?;
            round
                .make(&batch, trust.into_iter().chain(others).collect())
                .await
        };
        match done.await {
            Ok(highest) => {
                // Events of what was read now have come by the time that the next round begins; see
                // `held` in members.rs.
                cluster.held.fetch_max(read, Ordering::Relaxed);
                read = read.max(highest);
                if whole || *cluster.rounds.borrow() > 0 {
                    cluster.rounds.send_modify(|round| *round += 1);
                }
            }
            Err(TreeError::Session(error)) if !tree.has_ended() => {
                tracing::debug!(%error, "a round of following was broken off");
                everything = true;
                sleep(CLUSTER_RETRY).await;
            }
            Err(error) => return Err(error),
        }
        backfill.adjust(cluster, fill);
        if Instant::now() >= again {
            let standing = cluster.standing();
            lock(&cluster.dirty)
                .extend(standing.unsound.keys().chain(standing.gaps.keys()).cloned());
            again = Instant::now() + CLUSTER_AGAIN;
        } else if Instant::now() >= soon {
            // What has been filled meanwhile.
            let standing = cluster.standing();
            let filled = standing
                .gaps
                .iter()
                .filter(|(channel, gap)| cluster.local_head(channel) != gap.head);
            lock(&cluster.dirty).extend(filled.map(|(channel, _)| channel.clone()));
            soon = Instant::now() + CLUSTER_SOON;
        }
        if everything || !lock(&cluster.dirty).is_empty() {
            continue;
        }
        tokio::select! {
            event = events.changed() => match note_event(cluster, &event) {
                Session::Ended => return Err(TreeError::Ended),
                Session::WasBroken => everything = true,
                Session::Goes => {}
            },
            () = cluster.wake.notified() => {}
            () = sleep(if backfill.0.is_some() { CLUSTER_SOON } else { CLUSTER_TICK }) => {}
        }
    }
}

fn take_events(cluster: &Cluster, events: &mut PersistentWatcher) -> Session {
    let mut session = Session::Goes;
    while let Some(event) = events.changed().now_or_never() {
        match note_event(cluster, &event) {
            Session::Goes => {}
            Session::Ended => return Session::Ended,
            Session::WasBroken => session = Session::WasBroken,
        }
    }
    session
}

fn note_event(cluster: &Cluster, event: &WatchedEvent) -> Session {
    if event.event_type == EventType::Session {
        return match event.session_state {
            SessionState::SyncConnected => {
                tracing::info!("connected to the cluster's servers again");
                Session::WasBroken
            }
            SessionState::Disconnected | SessionState::ConnectedReadOnly => {
                tracing::warn!(
                    "the cluster's servers do not answer: publishing is refused here until they do"
                );
                Session::Goes
            }
            _ => Session::Ended,
        };
    }
    if let Some(channel) = event
        .path
        .strip_prefix("/heads/")
        .and_then(|name| name.parse().ok())
    {
        lock(&cluster.dirty).insert(channel);
    }
    Session::Goes
}

/// One round: reads heads, then what is missing below them, and stores it.
struct Round<'a> {
    cluster: &'a Cluster,
    tree: &'a Tree,
    gaps: BTreeSet<Channel>,
    unsound: BTreeMap<Channel, String>,
    /// The highest zxid that was seen.
    read: i64,
}

type Pending = Vec<(
    Channel,
    Serial,
    futures_util::future::BoxFuture<'static, Result<crate::append::Appended, AppendError>>,
)>;

impl Round<'_> {
    /// The heads of some channels, where they are not ours.
    async fn read_heads(
        &mut self,
        channels: &[Channel],
    ) -> Result<Vec<(Channel, Seen)>, TreeError> {
        let mut missing = Vec::new();
        for (channel, seen) in channels.iter().zip(self.tree.heads(channels).await?) {
            match seen {
                Ok(seen) => missing.extend(
                    self.compare(channel, seen)
                        .await?
                        .map(|seen| (channel.clone(), seen)),
                ),
                Err(error) => drop(self.unsound.insert(channel.clone(), error.to_string())),
            }
        }
        Ok(missing)
    }

    async fn make(
        mut self,
        batch: &BTreeSet<Channel>,
        missing: Vec<(Channel, Seen)>,
    ) -> Result<i64, TreeError> {
        let mut found = Vec::new();
        // Many at once: each waits for its answers, and not for those of the others.
        let reads = missing
            .into_iter()
            .map(|(channel, seen)| read_missing(self.cluster, self.tree, channel, seen));
        let mut reads = stream::iter(reads).buffer_unordered(CLUSTER_ABREAST);
        while let Some((channel, read)) = reads.next().await {
            match read? {
                Missing::All(entries) => found.extend(entries),
                Missing::Forgotten => drop(self.gaps.insert(channel)),
                Missing::Damaged(why) => drop(self.unsound.insert(channel, why)),
            }
        }
        drop(reads);
        // In the order in which it was settled: each is judged by the trust that was in force then.
        found.sort_by_key(|found| found.zxid);
        self.store(found).await;
        let mut standing = self.cluster.standing();
        for channel in batch.iter().filter(|channel| !self.gaps.contains(*channel)) {
            standing.gaps.remove(channel);
        }
        for channel in batch {
            let is_new = |why: &String| standing.unsound.get(channel) != Some(why);
            match self.unsound.remove(channel) {
                Some(why) => {
                    if is_new(&why) {
                        tracing::error!(%channel, why, "what the cluster's servers hold of this channel cannot be followed; nothing of it is served, and nothing is published in it");
                    }
                    standing.unsound.insert(channel.clone(), why);
                }
                None => {
                    if standing.unsound.remove(channel).is_some() {
                        tracing::info!(%channel, "this channel can be followed again");
                    }
                }
            }
        }
        for channel in self.gaps {
            let head = self.cluster.local_head(&channel);
            standing
                .gaps
                .entry(channel)
                .or_insert_with(|| Gap {
                    since: std::time::Instant::now(),
                    head,
                })
                .head = head;
        }
        Ok(self.read)
    }

    /// What the tree has above our head; and the head goes up where we have more.
    async fn compare(
        &mut self,
        channel: &Channel,
        seen: Option<Seen>,
    ) -> Result<Option<Seen>, TreeError> {
        let ours = self.cluster.local_head(channel);
        let Some(seen) = seen else {
            if let Some(ours) = ours {
                if self.tree.set_head(channel, ours, None).await? {
                    tracing::info!(%channel, head = %ours.serial, "the cluster begins this channel where this broker has it");
                    lock(&self.cluster.raised).insert(channel.clone(), std::time::Instant::now());
                    lock(&self.cluster.dirty).insert(channel.clone());
                } else {
                    // It is looked at again with the next tick, whoever has set it.
                    self.gaps.insert(channel.clone());
                }
            }
            lock(&self.cluster.seen).remove(channel);
            return Ok(None);
        };
        self.read = self.read.max(seen.zxid);
        lock(&self.cluster.seen).insert(channel.clone(), seen);
        let Some(ours) = ours.filter(|ours| ours.serial >= seen.head.serial) else {
            return Ok(Some(seen));
        };
        let log = self.cluster.logs.get(channel.as_str());
        let same = log
            .and_then(|log| log.entry(seen.head.serial).ok()?)
            .map(|entry| entry.head == seen.head);
        if same != Some(true) {
            let why = match same {
                Some(_) => {
                    "this broker something else: a fork, of which one is to be decided for (`tidingsd set-head`)"
                }
                None => "this broker has removed by retention what it has had there",
            };
            self.unsound.insert(
                channel.clone(),
                format!(
                    "at {} the cluster has {}, and {why}",
                    seen.head.serial, seen.head.id
                ),
            );
        } else if ours != seen.head {
            // If it is only that another member has brought it, the head is another one by now, and
            // nothing is set.
            if self.tree.set_head(channel, ours, Some(seen)).await? {
                tracing::warn!(%channel, ours = %ours.serial, theirs = %seen.head.serial, "the cluster's servers have lost statements that this broker has: their head is set to ours");
                lock(&self.cluster.raised).insert(channel.clone(), std::time::Instant::now());
            }
            self.gaps.insert(channel.clone());
        }
        Ok(None)
    }

    async fn store(&mut self, found: Vec<Found>) {
        let mut pending: Pending = Vec::new();
        // What does not follow our head, or not by its own signatures: newest last.
        let mut above: HashMap<Channel, Vec<Copy>> = HashMap::new();
        let cluster = self.cluster;
        for Found {
            statement,
            path,
            zxid,
            octets,
        } in found
        {
            let channel = statement.channel().clone();
            let node = format!("/entries/{channel}/{:010}", statement.serial().number());
            lock(&cluster.added).push((zxid, node, octets));
            let Some(provisioned) = cluster.namespaces.of(&channel) else {
                continue;
            };
            if provisioned.anchor.namespace.trust_log() == channel {
                self.settle(&mut pending).await;
                match cluster.local.append_trust(statement, path).await {
                    Ok(_) => {}
                    // The walk from below is under way.
                    Err(AppendError::LostRace(_) | AppendError::AnchorFirst(_))
                        if self.gaps.contains(&channel) => {}
                    Err(error) => self.note(&channel, &error),
                }
                continue;
            }
            let trust = provisioned.trust.load_full();
            let waits = self.gaps.contains(&channel) || above.contains_key(&channel);
            let verified = trust
                .as_ref()
                .filter(|_| !waits)
                .and_then(|trust| trust.verify(statement.clone()).ok());
            match verified.zip(trust) {
                Some((verified, trust)) => {
                    let serial = verified.serial();
                    let stored = cluster
                        .local
                        .hand_over(verified, trust.serial(), path)
                        .await;
                    pending.push((channel, serial, stored.boxed()));
                }
                None => above
                    .entry(channel)
                    .or_default()
                    .push(Copy::unproven(statement, path)),
            }
        }
        self.settle(&mut pending).await;
        for (channel, copies) in above {
            match cluster
                .local
                .copy(Run {
                    channel: channel.clone(),
                    copies,
                    begin: Begin::Backfill,
                })
                .await
            {
                Ok(Copied::Wants { .. }) => drop(self.gaps.insert(channel)),
                Ok(Copied::New | Copied::Known) => {}
                Err(error) => self.note(&channel, &error),
            }
        }
    }

    async fn settle(&mut self, pending: &mut Pending) {
        for (channel, serial, stored) in pending.drain(..) {
            match stored.await {
                Ok(_) => {}
                // By the path of mirrors it came earlier.
                Err(AppendError::LostRace(head)) if head.serial > serial => {}
                Err(error) => self.note(&channel, &error),
            }
        }
    }

    /// What passes is tried again; what does not verify is an alarm.
    fn note(&mut self, channel: &Channel, error: &AppendError) {
        let trust_log = self
            .cluster
            .namespaces
            .of(channel)
            .map(|p| p.anchor.namespace.trust_log());
        let passes = match error {
            // Trust that was read earlier in this round; or that nobody has.
            AppendError::Verify(VerifyError::NewerTrust { .. }) => true,
            AppendError::Verify(_) => trust_log.is_some_and(|log| self.gaps.contains(&log)),
            error => error.is_passing(),
        };
        if passes {
            tracing::debug!(%channel, %error, "what the cluster has is not stored here yet");
            self.gaps.insert(channel.clone());
        } else {
            self.unsound.insert(channel.clone(), error.to_string());
        }
    }
}

/// What the tree has above our head.
enum Missing {
    /// All of it.
    All(Vec<Found>),
    /// The servers have forgotten what comes next.
    Forgotten,
    /// Why it cannot be used.
    Damaged(String),
}

/// The entries above our head, oldest first: the servers forget from below.
async fn read_missing(
    cluster: &Cluster,
    tree: &Tree,
    channel: Channel,
    seen: Seen,
) -> (Channel, Result<Missing, TreeError>) {
    let (floor, top) = (
        cluster
            .local_head(&channel)
            .map_or(0, |head| head.serial.number()),
        seen.head.serial.number(),
    );
    let read = async {
        // The next one alone, which is all in most cases; then more and more.
        let (mut next, mut many, mut all) = (floor + 1, 1, Vec::new());
        while next <= top {
            let until = top.min(next + many - 1);
            let serials: Vec<Serial> = (next..=until).filter_map(Serial::new).collect();
            for entry in tree.entries(&channel, &serials).await? {
                match entry {
                    Some(Ok(found)) => all.push(found),
                    Some(Err(error)) => return Ok(Missing::Damaged(error.to_string())),
                    None => return Ok(Missing::Forgotten),
                }
            }
            (next, many) = (until + 1, u32::try_from(CLUSTER_ABREAST).unwrap_or(1));
        }
        Ok(Missing::All(all))
    };
    let read = read.await;
    (channel, read)
}

/// Fills from other members what the servers have forgotten, for as long as there is something.
#[derive(Default)]
struct Backfill(Option<Filling>);

/// From where, which channels, and how it is ended.
struct Filling {
    from: Vec<String>,
    channels: BTreeSet<Channel>,
    stop: CancellationToken,
}

impl Backfill {
    fn adjust(&mut self, cluster: &Cluster, fill: &Fill) {
        let (from, channels): (Vec<String>, BTreeSet<Channel>) = {
            let standing = cluster.standing();
            let others = standing
                .members
                .iter()
                .filter(|member| !member.ours)
                .map(|member| member.address.clone());
            (others.collect(), standing.gaps.keys().cloned().collect())
        };
        let wanted = !from.is_empty() && !channels.is_empty();
        let goes_on = self.0.as_ref().is_some_and(|filling| {
            wanted && filling.from == from && channels.is_subset(&filling.channels)
        });
        if goes_on || (!wanted && self.0.is_none()) {
            return;
        }
        if let Some(Filling { stop, .. }) = self.0.take() {
            stop.cancel();
        }
        if !wanted {
            tracing::info!("nothing is filled from other members any more");
            return;
        }
        tracing::info!(
            channels = channels.len(),
            from = from.join(" "),
            "the servers have forgotten what this broker has not: it comes from other members"
        );
        match fill(
            from.iter()
                .filter_map(|address| address.parse().ok())
                .collect(),
        ) {
            Ok(stop) => {
                self.0 = Some(Filling {
                    from,
                    channels,
                    stop,
                })
            }
            Err(error) => {
                tracing::error!(%error, "cluster.login cannot be used: nothing can be had from other members")
            }
        }
    }
}

impl Drop for Backfill {
    fn drop(&mut self) {
        if let Some(Filling { stop, .. }) = self.0.take() {
            stop.cancel();
        }
    }
}
