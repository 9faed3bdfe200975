//! Copies what others have settled to our own store, in the order in which it was settled.
//!
//! A watch tells of each node that was made; what it does not tell, since the connection was
//! broken, is found by looking at everything after it is whole again. What the servers keep no more
//! comes from another member, by the path of mirrors.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use tidings_protocol::{Channel, Head};
use tokio::time::{Instant, sleep};

use super::{
    Cluster, Fill, Tree, TreeError,
    backfill::Backfill,
    lock,
    session::{Event, Events},
};
use crate::limits::{CLUSTER_AGAIN, CLUSTER_LOOK, CLUSTER_RETRY, CLUSTER_SOON, CLUSTER_TICK};

/// Follows the tree until the session ends.
pub(super) async fn follow(cluster: &Cluster, tree: &Tree, fill: &Fill) -> Result<(), TreeError> {
    let mut follower = Follower {
        cluster,
        tree,
        events: tree.watch_settled().await?,
        everything: true,
        has_begun: false,
        again: false,
        goes_on: false,
        arrived: Vec::new(),
        awaited: Vec::new(),
        unsure: BTreeSet::new(),
        turn: Vec::new(),
    };
    // The servers may count from another beginning now.
    lock(&cluster.seen).clear();
    let mut backfill = Backfill::default();
    let mut next = Ticks::new();
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
        follower.look_around(&mut next).await;
        if follower.has_work() {
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

/// When what is looked at next.
struct Ticks {
    again: Instant,
    soon: Instant,
    turn: Instant,
}

impl Ticks {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            again: now + CLUSTER_AGAIN,
            soon: now + CLUSTER_SOON,
            turn: now + CLUSTER_TICK,
        }
    }
}

/// Reads what events and others say that it has changed, and after a broken connection everything.
struct Follower<'a> {
    cluster: &'a Cluster,
    tree: &'a Tree,
    events: Box<dyn Events>,
    everything: bool,
    /// Everything was looked at in this session.
    has_begun: bool,
    /// What could not be stored is tried again in the next round.
    again: bool,
    /// That at once, since something was stored.
    goes_on: bool,
    /// Nodes that were made, in their order.
    arrived: Vec<String>,
    /// Channels whose heads in the tree are above ours: what has arrived by now holds what lies
    /// between, or nothing does.
    awaited: Vec<(Channel, Head)>,
    /// Channels that were looked at, and are looked at again: something of ours was under way.
    unsure: BTreeSet<Channel>,
    /// Channels that are still to be looked at in turn.
    turn: Vec<Channel>,
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
            Event::Made(path) | Event::Changed(path) => {
                let name = path.strip_prefix("/settled/").map(String::from);
                self.arrived.extend(name);
            }
            Event::Gone(path) => {
                let Some(name) = path.strip_prefix("/settled/") else {
                    return Ok(());
                };
                let was_known = lock(&self.cluster.shelf).remove(name);
                let unread = self.arrived.extract_if(.., |arrived| arrived == name);
                // What it has held is not known.
                self.everything |= unread.count() > 0 && !was_known;
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

    fn has_work(&self) -> bool {
        self.everything || !self.arrived.is_empty() || !lock(&self.cluster.dirty).is_empty()
    }

    /// Now and then: what could not be followed, what was filled, and some of all channels.
    async fn look_around(&mut self, next: &mut Ticks) {
        let (cluster, now) = (self.cluster, Instant::now());
        // What others serve is none of ours.
        let next_of = |channel: &Channel| match cluster.settles(channel) {
            true => cluster.next(channel),
            false => 0,
        };
        let lacking = || lock(&cluster.shelf).of_use(&next_of);
        if now >= next.again || self.goes_on {
            let standing = cluster.standing();
            lock(&cluster.dirty)
                .extend(standing.unsound.keys().chain(standing.gaps.keys()).cloned());
            self.arrived.extend(lacking());
            (self.again, next.again) = (true, now + CLUSTER_AGAIN);
        } else if now >= next.soon {
            let standing = cluster.standing();
            let filled = standing
                .gaps
                .iter()
                .filter(|(channel, gap)| cluster.local_head(channel) != gap.head);
            let filled: Vec<Channel> = filled.map(|(channel, _)| channel.clone()).collect();
            if !filled.is_empty() {
                self.arrived.extend(lacking());
            }
            lock(&cluster.dirty).extend(filled);
            next.soon = now + CLUSTER_SOON;
        }
        if now >= next.turn {
            // Who settles nothing has its share all the same.
            if lock(&cluster.under_way).is_empty() {
                let going = cluster.going();
                if self.tree.remove_settled(&going).await.is_ok() {
                    lock(&cluster.shelf).forget(&going);
                }
            }
            if self.turn.is_empty() {
                self.turn = self.tree.channels().await.unwrap_or_default();
                let ours = cluster.logs.all();
                self.turn.extend(ours.iter().map(|log| log.channel.clone()));
                self.turn.sort();
                self.turn.dedup();
            }
            let rest = self.turn.len().saturating_sub(CLUSTER_LOOK);
            lock(&cluster.dirty).extend(self.turn.drain(rest..));
            next.turn = now + CLUSTER_TICK;
        }
    }

    /// All nodes that are not known, and all channels: events may have been lost.
    async fn look_at_everything(
        &mut self,
        channels: &mut BTreeSet<Channel>,
    ) -> Result<(), TreeError> {
        let (cluster, tree) = (self.cluster, self.tree);
        // zookeeper-client 0.11 does not set persistent watches anew on another connection.
        self.events = tree.watch_settled().await?;
        tree.sync().await?;
        self.arrived = tree.settled().await?;
        {
            let mut shelf = lock(&cluster.shelf);
            shelf.retain(&self.arrived);
            self.arrived.retain(|name| !shelf.has(name));
        }
        let is_there = |name: &String| self.arrived.contains(name);
        lock(&cluster.ways).retain(|name, way| way.is_none() || is_there(name));
        channels.extend(tree.channels().await?);
        channels.extend(cluster.logs.all().iter().map(|log| log.channel.clone()));
        Ok(())
    }

    /// Takes up what has arrived, then looks at the heads of what is to be looked at.
    async fn round(&mut self) -> Result<(), TreeError> {
        let (cluster, tree) = (self.cluster, self.tree);
        let mut channels: BTreeSet<Channel> = lock(&cluster.dirty).drain().collect();
        let whole = std::mem::take(&mut self.everything);
        if whole {
            self.look_at_everything(&mut channels).await?;
        }
        let mut round = Round {
            cluster,
            tree,
            gaps: BTreeSet::new(),
            unsound: BTreeMap::new(),
            unsure: BTreeSet::new(),
            late: BTreeSet::new(),
            begins: Vec::new(),
            is_again: std::mem::take(&mut self.again),
            has_stored: false,
        };
        let (lacking, gone) = round.take_up(std::mem::take(&mut self.arrived)).await?;
        self.everything |= gone;
        // What follows that is of use now.
        self.goes_on = round.is_again && round.has_stored;
        round.settle_awaited(std::mem::take(&mut self.awaited));
        channels.extend(lacking);
        channels.retain(|channel| cluster.settles(channel));
        let behind = round.read_heads(&channels).await?;
        // What was settled before the heads were read has been told of by now.
        self.take_events()?;
        for (channel, head) in behind {
            let is_gap = self.arrived.is_empty() || cluster.fills(&channel);
            match is_gap && !self.everything {
                true => drop(round.gaps.insert(channel)),
                false => self.awaited.push((channel, head)),
            }
        }
        self.unsure.retain(|channel| !channels.contains(channel));
        self.unsure.append(&mut round.unsure);
        let mut open = self.unsure.clone();
        open.extend(self.awaited.iter().map(|(channel, _)| channel.clone()));
        let is_whole = open.is_empty() && !self.everything;
        let looked = channels.iter().chain(&round.gaps);
        let looked = looked.filter(|channel| !open.contains(*channel));
        let looked = looked.cloned().collect();
        round.close(looked);
        self.has_begun |= whole;
        if is_whole && self.has_begun {
            cluster.rounds.send_modify(|round| *round += 1);
        }
        Ok(())
    }
}

/// One round: stores what has arrived, and compares heads.
pub(super) struct Round<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) tree: &'a Tree,
    pub(super) gaps: BTreeSet<Channel>,
    pub(super) unsound: BTreeMap<Channel, String>,
    /// They are looked at again.
    pub(super) unsure: BTreeSet<Channel>,
    /// Something was to be stored of them that was signed under earlier trust.
    pub(super) late: BTreeSet<Channel>,
    /// Channels that the tree does not have, and we do.
    pub(super) begins: Vec<(Channel, Head)>,
    /// What could not be followed is tried again, and whether some of it was stored.
    pub(super) is_again: bool,
    pub(super) has_stored: bool,
}
