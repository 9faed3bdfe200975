//! Compares the heads of the tree with ours.

use std::collections::{BTreeSet, hash_map::Entry};

use tidings_protocol::{Channel, Head, Serial};
use tokio::time::Instant;

use super::{Gap, Seen, TreeError, follow::Round, lock};

impl Round<'_> {
    /// What was awaited has arrived by now, or it is lacking.
    pub(super) fn settle_awaited(&mut self, awaited: Vec<(Channel, Head)>) {
        for (channel, head) in awaited {
            if self.cluster.next(&channel) <= head.serial.number() {
                match self.cluster.is_under_way(&channel, Some(head)) {
                    None => drop(self.gaps.insert(channel)),
                    Some(true) => drop(self.unsure.insert(channel)),
                    Some(false) => {}
                }
            }
        }
    }

    /// The channels, of some, whose heads are above ours, and where those are.
    pub(super) async fn read_heads(
        &mut self,
        channels: &BTreeSet<Channel>,
    ) -> Result<Vec<(Channel, Head)>, TreeError> {
        let mut behind = Vec::new();
        let heads = self.tree.heads(channels.iter()).await?;
        for (channel, seen) in channels.iter().zip(heads) {
            match seen {
                Ok(seen) => {
                    let above = self.compare(channel, seen).await?;
                    behind.extend(above.map(|head| (channel.clone(), head)));
                }
                Err(error) => drop(self.unsound.insert(channel.clone(), error.to_string())),
            }
        }
        if !self.begins.is_empty() {
            let (first, channels) = (&self.begins[0].0, self.begins.len());
            tracing::info!(%first, channels, "channels begin in the cluster where this broker has them");
            let begins = std::mem::take(&mut self.begins);
            lock(&self.cluster.dirty).extend(begins.iter().map(|(channel, _)| channel.clone()));
            self.tree.begin(begins).await?;
        }
        Ok(behind)
    }

    /// Notes what was found of channels that were looked at.
    pub(super) fn close(mut self, mut looked: BTreeSet<Channel>) {
        let mut standing = self.cluster.standing();
        looked.extend(self.unsound.keys().cloned());
        for channel in &looked {
            let is_new = |why: &String| standing.unsound.get(channel) != Some(why);
            match self.unsound.remove(channel) {
                Some(why) => {
                    if is_new(&why) {
                        tracing::error!(%channel, why, "what the cluster's servers hold of this channel cannot be followed; nothing of it is served, and nothing is published in it");
                    }
                    standing.unsound.insert(channel.clone(), why);
                    self.gaps.remove(channel);
                }
                // What did not verify is still there.
                None if self.gaps.contains(channel)
                    && !self.is_again
                    && standing.unsound.contains_key(channel) =>
                {
                    self.gaps.remove(channel);
                }
                None => {
                    if standing.unsound.remove(channel).is_some() {
                        tracing::info!(%channel, "this channel can be followed again");
                    }
                }
            }
            if !self.gaps.contains(channel) {
                standing.gaps.remove(channel);
            }
        }
        for channel in self.gaps {
            let head = self.cluster.local_head(&channel);
            let since = Instant::now();
            let gap = standing.gaps.entry(channel);
            gap.or_insert_with(|| Gap { since, head }).head = head;
        }
    }

    /// The tree's head, if that is above ours.
    async fn compare(
        &mut self,
        channel: &Channel,
        seen: Option<Seen>,
    ) -> Result<Option<Head>, TreeError> {
        let there = seen.map(|seen| seen.head);
        if let Some(is_other) = self.cluster.is_under_way(channel, there) {
            self.unsure.extend(is_other.then(|| channel.clone()));
            return Ok(None);
        }
        let Some(seen) = seen else {
            lock(&self.cluster.seen).remove(channel);
            if let Some(ours) = self.cluster.local_head(channel) {
                // It is looked at again soon, whichever member begins it.
                self.begins.push((channel.clone(), ours));
                self.unsure.insert(channel.clone());
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
            // It was read before more was settled: by us, or by others, which is then to be read. Or
            // a node was written by hand: what is read next is what counts.
            if newer != ours {
                lock(&self.cluster.seen).remove(channel);
                self.unsure.insert(channel.clone());
                lock(&self.cluster.dirty).insert(channel.clone());
            }
            return Ok(None);
        }
        let Some(ours) = ours.filter(|ours| ours.serial >= seen.head.serial) else {
            return Ok(Some(seen.head));
        };
        if ours == seen.head {
            return Ok(None);
        }
        let log = self.cluster.logs.get(channel.as_str());
        let same = log
            .and_then(|log| log.entry(seen.head.serial).ok()?)
            .map(|entry| entry.head == seen.head);
        let why = match same {
            Some(true) => {
                self.look_ahead(channel, ours.serial).await?;
                return Ok(None);
            }
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
    async fn look_ahead(&mut self, channel: &Channel, ours: Serial) -> Result<(), TreeError> {
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
        Ok(())
    }
}
