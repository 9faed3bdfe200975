//! Copies what others have settled to our own store, in the order in which it was settled.
//!
//! A watch tells which heads were set; what it does not tell, since the connection was broken, is
//! found by looking at everything after it is whole again. What the servers have forgotten comes
//! from another member, by the path of mirrors.

use std::collections::{BTreeMap, BTreeSet, hash_map::Entry};

use futures_util::FutureExt;
use tidings_protocol::{Channel, Serial, Statement, log::Begin, verify::VerifyError};
use tokio::time::{Instant, sleep};

use super::{
    Cluster, Fill, Gap, Seen, Tree, TreeError,
    backfill::Backfill,
    lock,
    nodes::Found,
    session::{Event, Events},
};
use crate::{
    append::{AppendError, Copied, Copy, Run},
    limits::{CLUSTER_AGAIN, CLUSTER_READ, CLUSTER_RETRY, CLUSTER_SOON, CLUSTER_TICK},
};

/// Follows the tree until the session ends.
pub(super) async fn follow(cluster: &Cluster, tree: &Tree, fill: &Fill) -> Result<(), TreeError> {
    let mut follower = Follower {
        cluster,
        tree,
        events: tree.watch_heads().await?,
        everything: true,
    };
    // The servers may count from another beginning now.
    lock(&cluster.seen).clear();
    let now = Instant::now();
    let (mut again, mut soon) = (now + CLUSTER_AGAIN, now + CLUSTER_SOON);
    let mut backfill = Backfill::default();
    loop {
        follower.take_events()?;
        match follower.round().await {
            Ok(()) => {}
            Err(TreeError::Session(error)) if !tree.has_ended() => {
                tracing::debug!(%error, "a round of following was broken off");
                follower.everything = true;
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
        if follower.everything || !lock(&cluster.dirty).is_empty() {
            continue;
        }
        let pause = match backfill.is_under_way() {
            true => CLUSTER_SOON,
            false => CLUSTER_TICK,
        };
        tokio::select! {
            biased;
            event = follower.events.next() => follower.note(event)?,
            () = cluster.wake.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Reads what events and others say that it has changed, and after a broken connection everything.
struct Follower<'a> {
    cluster: &'a Cluster,
    tree: &'a Tree,
    events: Box<dyn Events>,
    everything: bool,
}

impl Follower<'_> {
    fn take_events(&mut self) -> Result<(), TreeError> {
        while let Some(event) = self.events.next().now_or_never() {
            self.note(event)?;
        }
        Ok(())
    }

    fn note(&mut self, event: Event) -> Result<(), TreeError> {
        match event {
            Event::Node(path) => {
                let name = path.strip_prefix("/heads/");
                let channel = name.and_then(|name| name.parse().ok());
                lock(&self.cluster.dirty).extend(channel);
            }
            Event::Connected => {
                tracing::info!("connected to the cluster's servers again");
                self.everything = true;
            }
            Event::Broken => tracing::warn!(
                "the cluster's servers do not answer: publishing is refused here until they do"
            ),
            Event::Ended => return Err(TreeError::Ended),
        }
        Ok(())
    }

    /// Trust is read first, then the events again: what was settled before it is in the same round,
    /// and judged before it.
    async fn round(&mut self) -> Result<(), TreeError> {
        let (cluster, tree) = (self.cluster, self.tree);
        let mut batch: BTreeSet<Channel> = lock(&cluster.dirty).drain().collect();
        let whole = std::mem::take(&mut self.everything);
        if whole {
            // zookeeper-client 0.11 does not set persistent watches anew on another connection.
            self.events = tree.watch_heads().await?;
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
            passed_over: BTreeSet::new(),
        };
        let some = |batch: &BTreeSet<Channel>, trust: bool| -> Vec<Channel> {
            let some = batch.iter().filter(|channel| channel.is_trust() == trust);
            some.cloned().collect()
        };
        let mut missing = round.read_heads(&some(&batch, true)).await?;
        self.take_events()?;
        if self.everything {
            return Err(zookeeper_client::Error::ConnectionLoss.into());
        }
        // Trust that has come since is for the next round.
        batch.extend(
            lock(&cluster.dirty)
                .extract_if(|channel| !channel.is_trust())
                .filter(|channel| cluster.settles(channel)),
        );
        missing.extend(round.read_heads(&some(&batch, false)).await?);
        round.make(&batch, missing).await?;
        if whole || *cluster.rounds.borrow() > 0 {
            cluster.rounds.send_modify(|round| *round += 1);
        }
        Ok(())
    }
}

/// One round: reads heads, then what is missing below them, and stores it.
struct Round<'a> {
    cluster: &'a Cluster,
    tree: &'a Tree,
    gaps: BTreeSet<Channel>,
    unsound: BTreeMap<Channel, String>,
    passed_over: BTreeSet<Channel>,
}

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
                Err(error) => {
                    lock(&self.cluster.unknown).remove(channel);
                    self.unsound.insert(channel.clone(), error.to_string());
                }
            }
        }
        Ok(missing)
    }

    async fn make(
        mut self,
        batch: &BTreeSet<Channel>,
        missing: Vec<(Channel, Seen)>,
    ) -> Result<(), TreeError> {
        let found = self.read_missing(missing).await?;
        self.store(found).await;
        let passed_over = std::mem::take(&mut self.passed_over);
        lock(&self.cluster.behind)
            .retain(|channel| passed_over.contains(channel) || !batch.contains(channel));
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
                    since: Instant::now(),
                    head,
                })
                .head = head;
        }
        Ok(())
    }

    /// The entries above our heads, in the order in which they were settled: each is judged by the
    /// trust that was in force then.
    async fn read_missing(
        &mut self,
        missing: Vec<(Channel, Seen)>,
    ) -> Result<Vec<Found>, TreeError> {
        let mut places = Vec::new();
        for (channel, seen) in missing {
            let (next, top) = (self.next(&channel), seen.head.serial.number());
            let many = usize::try_from((top + 1).saturating_sub(next)).unwrap_or(usize::MAX);
            // Who lacks so much gets it from other members, if there are any.
            if next < seen.low || places.len() + many > CLUSTER_READ.max(many) {
                self.gaps.insert(channel);
                continue;
            }
            let serials = (next..=top).filter_map(Serial::new);
            places.extend(serials.map(|serial| (channel.clone(), serial)));
        }
        let mut found = Vec::with_capacity(places.len());
        for ((channel, _), entry) in places.iter().zip(self.tree.entries(&places).await?) {
            match entry {
                Some(Ok(entry)) => found.push(entry),
                Some(Err(error)) => drop(self.unsound.insert(channel.clone(), error.to_string())),
                // It was removed after the head was read.
                None => drop(self.gaps.insert(channel.clone())),
            }
        }
        found.retain(|found| {
            let channel = found.statement.channel();
            !self.gaps.contains(channel) && !self.unsound.contains_key(channel)
        });
        found.sort_by_key(|found| (found.zxid, found.statement.serial()));
        Ok(found)
    }

    /// What comes next in our own log.
    fn next(&self, channel: &Channel) -> u32 {
        let begin = || {
            let provisioned = self.cluster.namespaces.of_trust_log(channel);
            provisioned.map_or(Serial::FIRST, |p| p.anchor.head.serial)
        };
        self.cluster
            .local_head(channel)
            .map_or_else(|| begin().number(), |head| head.serial.number() + 1)
    }

    /// What the tree has, if that is more than we have.
    async fn compare(
        &mut self,
        channel: &Channel,
        seen: Option<Seen>,
    ) -> Result<Option<Seen>, TreeError> {
        if let Some(has_more) = self.cluster.is_under_way(channel, seen) {
            self.passed_over.extend(has_more.then(|| channel.clone()));
            return Ok(None);
        }
        lock(&self.cluster.unknown).remove(channel);
        let Some(seen) = seen else {
            lock(&self.cluster.seen).remove(channel);
            if let Some(ours) = self.cluster.local_head(channel) {
                if self.tree.begin(channel, ours).await? {
                    tracing::info!(%channel, head = %ours.serial, "the cluster begins this channel where this broker has it");
                    lock(&self.cluster.dirty).insert(channel.clone());
                } else {
                    // It is looked at again soon, whichever member has set it.
                    self.gaps.insert(channel.clone());
                }
            }
            return Ok(None);
        };
        let newer = match lock(&self.cluster.seen).entry(channel.clone()) {
            Entry::Occupied(newer) if newer.get().zxid > seen.zxid => Some(newer.get().head),
            entry => {
                entry.insert_entry(seen);
                None
            }
        };
        let ours = self.cluster.local_head(channel);
        if newer.is_some() {
            // It was read before more was settled: by us, or by others, which is then to be read.
            if newer != ours {
                self.passed_over.insert(channel.clone());
                lock(&self.cluster.behind).insert(channel.clone());
                lock(&self.cluster.dirty).insert(channel.clone());
            }
            return Ok(None);
        }
        let Some(ours) = ours.filter(|ours| ours.serial >= seen.head.serial) else {
            return Ok(Some(seen));
        };
        if ours == seen.head {
            return Ok(None);
        }
        let log = self.cluster.logs.get(channel.as_str());
        let same = log
            .and_then(|log| log.entry(seen.head.serial).ok()?)
            .map(|entry| entry.head == seen.head);
        let why = match same {
            Some(true) => return self.look_ahead(channel, ours.serial).await,
            Some(false) => {
                "this broker something else: a fork, of which one is to be decided for (`tidingsd set-head`)"
            }
            None => "this broker has removed by retention what it has had there",
        };
        let (serial, id) = (seen.head.serial, seen.head.id);
        let why = format!("at {serial} the cluster has {id}, and {why}");
        self.unsound.insert(channel.clone(), why);
        Ok(None)
    }

    /// Whether the tree has less than we do, and not only the server that was asked.
    async fn look_ahead(
        &mut self,
        channel: &Channel,
        ours: Serial,
    ) -> Result<Option<Seen>, TreeError> {
        match self.tree.newest(channel).await {
            Err(error @ TreeError::Session(_)) => return Err(error),
            Ok(Some(seen)) if seen.head.serial < ours => {
                let serial = seen.head.serial;
                self.unsound.insert(
                    channel.clone(),
                    format!("the cluster's servers have lost statements: they end at {serial}, and this broker has up to {ours}. Stop the broker that has most, and run `tidingsd set-head {channel}` there"),
                );
            }
            // It is looked at again.
            _ => drop(lock(&self.cluster.dirty).insert(channel.clone())),
        }
        Ok(None)
    }

    async fn store(&mut self, found: Vec<Found>) {
        let mut proven: Vec<Copy> = Vec::new();
        // What does not follow our head, or not by its own signatures: newest last.
        let mut above: BTreeMap<Channel, Vec<Copy>> = BTreeMap::new();
        let cluster = self.cluster;
        for Found {
            statement, path, ..
        } in found
        {
            let channel = statement.channel().clone();
            let Some(provisioned) = cluster.namespaces.of(&channel) else {
                continue;
            };
            if provisioned.anchor.namespace.trust_log() == channel {
                self.hand_over(&mut proven).await;
                self.store_trust(&channel, statement, path).await;
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
                    proven.push(Copy::proven(verified, trust.serial(), path));
                }
                None => above
                    .entry(channel)
                    .or_default()
                    .push(Copy::unproven(statement, path)),
            }
        }
        self.hand_over(&mut proven).await;
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

    async fn store_trust(&mut self, channel: &Channel, statement: Statement, path: String) {
        // What we have settled before it comes before it.
        let order = self.cluster.order.lock().await;
        if self.cluster.is_unknown(channel) {
            // With the next round it comes in the order in which it was settled.
            lock(&self.cluster.dirty).insert(channel.clone());
            return;
        }
        let stored = self.cluster.local.append_trust(statement, path).await;
        drop(order);
        match stored {
            Ok(_) => {}
            // The walk from below is under way.
            Err(AppendError::LostRace(_) | AppendError::AnchorFirst(_))
                if self.gaps.contains(channel) => {}
            Err(error) => self.note(channel, &error),
        }
    }

    /// Stores what is proven, in its order.
    async fn hand_over(&mut self, proven: &mut Vec<Copy>) {
        let copies = std::mem::take(proven);
        let places = copies.iter().map(|copy| {
            let statement = copy.offered.statement();
            (statement.channel().clone(), statement.serial())
        });
        let places: Vec<(Channel, Serial)> = places.collect();
        let stored = self.cluster.local.hand_over_all(copies).await;
        for ((channel, serial), stored) in places.into_iter().zip(stored) {
            match stored.await {
                Ok(_) => {}
                // By another path it came earlier.
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
