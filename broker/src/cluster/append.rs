//! Settling statements, many at once: what waits goes into one multi-operation, and what was
//! settled goes to our own writer.
//!
//! One batch is under way at a time, and the next one gathers meanwhile, verified already. Whatever
//! becomes of an attempt, the next one checks the version of the head: nothing is settled twice.

use std::{collections::HashMap, sync::Arc};

use tidings_protocol::Channel;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Cluster,
    batch::{self, Batch, Check, Item, Known, Unfit},
    kept::{self, Kept},
    lock,
    nodes::{NotMade, Part},
    settle::Draft,
    tree::Tree,
};
use crate::{
    limits::{
        CLUSTER_BATCH_AGAIN, CLUSTER_BATCH_OCTETS, CLUSTER_FOLLOW, CLUSTER_PATIENCE, CLUSTER_QUEUE,
        CLUSTER_ROUND, CLUSTER_SLOW,
    },
    log::append::{AppendError, Copy},
};

/// What became of an item.
#[derive(Clone)]
pub(super) enum Outcome {
    /// It is settled, and in our own store in all but rare cases.
    Settled,
    /// This channel, or its trust log, has moved, which is to be looked at first.
    Behind(Channel),
    /// It is not what comes next.
    NotNext,
    /// It may have been settled, or not.
    Unknown,
    /// It was not settled.
    Failed(AppendError),
}

/// A statement that waits for a batch.
pub(super) struct Waiting {
    pub(super) item: Item,
    pub(super) draft: Arc<Draft>,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// What is to be done with one that waits.
#[derive(Clone)]
enum Fate {
    /// It waits for another batch.
    Waits,
    /// Our own writer gets it.
    Settled,
    Said(Outcome),
}

/// Settles what waits until the queue is closed.
pub(super) async fn run(cluster: Arc<Cluster>, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut committer = Committer {
        cluster: cluster.clone(),
        octets: CLUSTER_BATCH_OCTETS,
        since: Instant::now(),
    };
    let mut ended = cluster.ended.subscribe();
    loop {
        if waiting.is_empty() {
            match queue.recv().await {
                Some(first) => waiting.push(first),
                None => return,
            }
        }
        while waiting.len() < CLUSTER_QUEUE
            && let Ok(next) = queue.try_recv()
        {
            waiting.push(next);
        }
        waiting.retain(|one| !one.reply.is_closed());
        ended.mark_unchanged();
        if !committer.settle_some(&mut waiting).await {
            // Everything waits for what is under way.
            tokio::select! {
                biased;
                Some(next) = queue.recv(), if waiting.len() < CLUSTER_QUEUE => waiting.push(next),
                _ = ended.changed() => {}
                () = sleep(CLUSTER_ROUND) => {}
            }
        }
    }
}

struct Committer {
    cluster: Arc<Cluster>,
    /// How large a batch may be: less for a while, when the connection broke with a larger one.
    octets: usize,
    since: Instant,
}

impl Committer {
    /// Settles what can be settled at once, and answers for what is done; false if there is nothing
    /// to do now.
    async fn settle_some(&mut self, waiting: &mut Vec<Waiting>) -> bool {
        let cluster = self.cluster.clone();
        if self.since.elapsed() > CLUSTER_BATCH_AGAIN {
            self.octets = CLUSTER_BATCH_OCTETS;
        }
        cluster.refuse_above_quota(waiting);
        let items: Vec<&Item> = waiting.iter().map(|one| &one.item).collect();
        let batch = batch::plan(&items, &|channel| cluster.known(channel), self.octets);
        let mut fates = vec![Fate::Waits; waiting.len()];
        for (number, unfit) in &batch.unfit {
            fates[*number] = Fate::Said(match unfit {
                Unfit::Behind(channel) => Outcome::Behind(channel.clone()),
                Unfit::NotNext => Outcome::NotNext,
            });
        }
        let done = !batch.unfit.is_empty() || !batch.taken.is_empty();
        let (mut name, mut zxid) = (String::new(), 0);
        if !batch.taken.is_empty() {
            let tree = cluster.tree();
            for number in &batch.taken {
                fates[*number] = Fate::Settled;
            }
            match tree {
                Ok(tree) => {
                    name = tree.new_name(&cluster.name);
                    zxid = self.commit(&tree, &name, &batch, waiting, &mut fates).await;
                }
                Err(error) => say(&batch, &mut fates, Outcome::Failed(error)),
            }
        }
        let places = batch.taken.iter().enumerate();
        let places: HashMap<usize, usize> = places.map(|(place, taken)| (*taken, place)).collect();
        let mut settled = Vec::new();
        for (number, (one, fate)) in std::mem::take(waiting).into_iter().zip(fates).enumerate() {
            match fate {
                Fate::Waits => waiting.push(one),
                Fate::Settled => settled.push((places.get(&number), one)),
                // The one who asked may be gone.
                Fate::Said(outcome) => drop(one.reply.send(outcome)),
            }
        }
        // As they are in the node, lowest serial first.
        settled.sort_by_key(|(place, _)| *place);
        let settled: Vec<Waiting> = settled.into_iter().map(|(_, one)| one).collect();
        match settled.as_slice() {
            [] => {}
            [one] if matches!(*one.draft, Draft::Trust(..)) => self.let_follow(settled, &name),
            _ => self.hand_over(settled, (name, zxid), batch).await,
        }
        done
    }

    /// Makes the multi-operation. If it was not made, those items do not wait on that are the
    /// reason; the others are tried again at once. When it was made.
    async fn commit(
        &mut self,
        tree: &Tree,
        name: &str,
        batch: &Batch,
        waiting: &[Waiting],
        fates: &mut [Fate],
    ) -> i64 {
        let cluster = self.cluster.clone();
        cluster.begin_way(name, batch);
        let node = node_of(batch, waiting);
        let going = cluster.going();
        let began = Instant::now();
        let made = timeout(CLUSTER_PATIENCE, tree.commit(batch, (name, node), &going)).await;
        let made = made.unwrap_or(Err(NotMade::Unknown(zookeeper_client::Error::Timeout)));
        let (milliseconds, statements) = (began.elapsed().as_millis(), batch.taken.len());
        if began.elapsed() > CLUSTER_SLOW {
            tracing::warn!(
                milliseconds,
                statements,
                "the cluster's servers answer slowly"
            );
        }
        let why = match made {
            Ok(heads) => {
                // Servers before 3.7 say nothing of what is created.
                let zxid = heads.iter().map(|(_, seen)| seen.zxid).max().unwrap_or(0);
                for (channel, seen) in &heads {
                    cluster.learn(channel, *seen);
                }
                lock(&cluster.shelf).forget(&going);
                return zxid;
            }
            Err(why) => why,
        };
        self.note_not_made(tree, batch, (waiting, fates), (&going, why))
            .await;
        cluster.end_way(name, batch.channels(), None);
        0
    }

    /// Those items do not wait on that are the reason.
    async fn note_not_made(
        &mut self,
        tree: &Tree,
        batch: &Batch,
        (waiting, fates): (&[Waiting], &mut [Fate]),
        (going, why): (&[String], NotMade),
    ) {
        match why {
            NotMade::At(part, error) => {
                let gone = match part {
                    Part::Going(index) => going.get(index),
                    _ => None,
                };
                let outcome = self.cluster.examine(tree, batch, (part, gone), error).await;
                for number in &batch.taken {
                    fates[*number] = match &outcome {
                        Some(outcome) if batch.stops(part, &waiting[*number].item) => {
                            Fate::Said(outcome.clone())
                        }
                        _ => Fate::Waits,
                    };
                }
            }
            NotMade::Refused(error) => {
                tracing::error!(%error, "the cluster's servers refuse what is to be settled");
                let refused = AppendError::Refused(error.to_string());
                say(batch, fates, Outcome::Failed(refused));
            }
            NotMade::Unknown(error) => {
                tracing::warn!(%error, statements = batch.taken.len(), octets = batch.octets, "it is not known whether statements were stored; it is looked up");
                self.shrink(batch);
                say(batch, fates, Outcome::Unknown);
            }
        }
    }

    /// After the connection broke with a batch under way the next ones are smaller: perhaps it was
    /// larger than the servers take.
    fn shrink(&mut self, batch: &Batch) {
        self.octets = (batch.octets / 2).max(1);
        self.since = Instant::now();
        tracing::warn!(
            octets = batch.octets,
            at_most = self.octets,
            "the connection to the cluster's servers broke while statements were being settled: batches are smaller for a minute. If this is said again and again, `jute.maxbuffer` of the servers is below a mebibyte, its default: raise it"
        );
    }

    /// Gives our own writer what was settled, and answers when it has stored it.
    async fn hand_over(&self, settled: Vec<Waiting>, (name, zxid): (String, i64), batch: Batch) {
        let cluster = self.cluster.clone();
        let copies = settled
            .iter()
            .filter_map(|one| match (&*one.draft, &one.item.by) {
                (Draft::New(new), Some((_, by))) => {
                    let statement = new.statement.clone();
                    Some(Copy::proven(statement, *by, new.path.clone()))
                }
                _ => None,
            });
        let stored = cluster.local.hand_over_all(copies.collect()).await;
        tokio::spawn(async move {
            let deadline = Instant::now() + CLUSTER_FOLLOW;
            let mut stored_all = true;
            for (one, stored) in settled.iter().zip(stored) {
                let (channel, serial) = (&one.item.channel, one.item.head.serial);
                match timeout_at(deadline, stored).await {
                    Ok(Ok(_)) => {}
                    // By another path it came earlier.
                    Ok(Err(AppendError::LostRace(head))) if head.serial >= serial => {}
                    why => {
                        stored_all = false;
                        tracing::warn!(%channel, %serial, ?why, "a statement is settled, and not yet in the store of this broker");
                    }
                }
            }
            let kept = Kept {
                octets: batch.octets,
                entries: settled.len(),
                ..Kept::default()
            };
            let stored = (stored_all && zxid > 0).then_some((zxid, kept));
            cluster.end_way(&name, batch.channels(), stored);
            // It is settled all the same.
            for one in settled {
                drop(one.reply.send(Outcome::Settled));
            }
        });
    }
}

impl Committer {
    /// Trust that was settled comes to our own writer with what others have settled before it, in
    /// that order; it is answered for when it has.
    fn let_follow(&self, settled: Vec<Waiting>, name: &str) {
        for one in settled {
            let (cluster, channel) = (self.cluster.clone(), one.item.channel);
            let mut rounds = cluster.rounds.subscribe();
            cluster.end_way(name, std::iter::once(&channel), None);
            tokio::spawn(async move {
                let deadline = Instant::now() + CLUSTER_FOLLOW;
                // What others have settled above it may come in the same round.
                let serial = one.item.head.serial;
                let head = || cluster.local_head(&channel);
                let is_here = || head().is_some_and(|head| head.serial >= serial);
                while !is_here()
                    && matches!(timeout_at(deadline, rounds.changed()).await, Ok(Ok(())))
                {
                }
                drop(one.reply.send(Outcome::Settled));
            });
        }
    }
}

/// The node of what is settled at once.
fn node_of(batch: &Batch, waiting: &[Waiting]) -> Vec<u8> {
    let mut node = Vec::with_capacity(batch.octets);
    for set in &batch.sets {
        for one in set.items.iter().map(|item| &waiting[*item]) {
            let entry = Some((one.draft.statement(), one.draft.path()));
            let place = (&set.channel, one.item.head, set.version());
            kept::write(&mut node, place, entry);
        }
    }
    node
}

fn say(batch: &Batch, fates: &mut [Fate], outcome: Outcome) {
    for number in &batch.taken {
        fates[*number] = Fate::Said(outcome.clone());
    }
}

impl Cluster {
    /// A channel as it is known here.
    fn known(&self, channel: &Channel) -> Known {
        if lock(&self.under_way).contains_key(channel) {
            return Known::Busy;
        }
        let seen = lock(&self.seen).get(channel).copied();
        match seen.map(|seen| seen.head) == self.local_head(channel) {
            true => Known::Same(seen),
            false => Known::Behind,
        }
    }

    /// Nodes that go with the next operation.
    pub(super) fn going(&self) -> Vec<String> {
        let standing = self.standing();
        let live = standing.members.iter().map(|one| one.name.as_str());
        let live: Vec<&str> = live.collect();
        let next = |channel: &Channel| self.next(channel);
        lock(&self.shelf).going(&self.name, &live, self.bound, &next)
    }

    /// Why an operation failed; none if the reason is gone, and all are to be tried again.
    async fn examine(
        &self,
        tree: &Tree,
        batch: &Batch,
        (part, gone): (Part, Option<&String>),
        error: zookeeper_client::Error,
    ) -> Option<Outcome> {
        use zookeeper_client::Error::{BadVersion, NoNode, NodeExists};
        let (channel, after) = match part {
            Part::Check(index) => match &batch.checks[index] {
                Check::Term(_) => return Some(Outcome::Failed(AppendError::OtherSigner)),
                Check::Trust(log, version) => (log, Some(*version)),
            },
            Part::Set(index) => (&batch.sets[index].channel, batch.sets[index].after),
            Part::Going(_) => {
                // Another member was quicker; or it does not go, and is tried no more.
                if error != NoNode {
                    tracing::error!(%error, node = gone, "a node of the cluster's tree that is to go cannot be removed: somebody has written below it, or changed who may");
                }
                gone.map(|name| lock(&self.shelf).remove(name));
                return None;
            }
            Part::Node => {
                tracing::error!(%error, "the cluster's servers do not take what is to be settled: somebody has written into the tree, or changed who may");
                let refused = AppendError::Refused(error.to_string());
                return Some(Outcome::Failed(refused));
            }
        };
        match error {
            BadVersion => {
                // Nothing more is tried there before it is read.
                lock(&self.seen).remove(channel);
                return Some(Outcome::Behind(channel.clone()));
            }
            NoNode | NodeExists => {}
            error => {
                tracing::error!(%channel, %error, "the cluster's servers refuse a statement");
                let refused = AppendError::Refused(error.to_string());
                return Some(Outcome::Failed(refused));
            }
        }
        if let Ok(there) = tree.newest(channel).await
            && there.map(|seen| seen.version) != after
        {
            let mut all = lock(&self.seen);
            match there {
                Some(there) => drop(all.insert(channel.clone(), there)),
                None => drop(all.remove(channel)),
            }
        }
        Some(Outcome::Behind(channel.clone()))
    }
}
