//! Takes up what nodes hold: reads them, and stores what comes next.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidings_protocol::{Channel, Serial, Statement, log::Begin, verify::VerifyError};
use tokio::time::{Instant, timeout_at};

use super::{
    Seen, TreeError,
    follow::Round,
    kept::{self, Kept},
    lock,
};
use crate::{
    limits::{CLUSTER_ABREAST, CLUSTER_FOLLOW},
    log::append::{AppendError, Copied, Copy, Run},
};

/// A statement that is to be stored.
struct Found {
    statement: Statement,
    path: String,
}

impl Round<'_> {
    /// Stores what some nodes hold, if it is what comes next: the channels of which it was more, or
    /// which are to be looked at; and whether a node was gone.
    pub(super) async fn take_up(
        &mut self,
        names: Vec<String>,
    ) -> Result<(BTreeSet<Channel>, bool), TreeError> {
        let (mut nodes, mut gone) = (Vec::new(), false);
        let (mut found, mut look) = (Vec::new(), BTreeSet::new());
        let names = self.wait_for_ours(names).await;
        for some in names.chunks(CLUSTER_ABREAST) {
            for (name, read) in some.iter().zip(self.tree.read_settled(some).await?) {
                let known = read.is_none() && lock(&self.cluster.shelf).remove(name);
                // One that is known, and was read again, has just gone.
                if known {
                    continue;
                }
                let (data, zxid) = read.unwrap_or((vec![b'?'], i64::MAX));
                let kept = self.look_into((name, zxid, &data), &mut found, &mut look);
                // What it has held is not known.
                gone |= kept.unread;
                nodes.push((name, zxid, kept));
            }
        }
        found.sort_by_key(|(zxid, _)| *zxid);
        let mut nexts: HashMap<Channel, u32> = HashMap::new();
        let is_next = |(_, (statement, path)): (i64, (Statement, String))| {
            let channel = statement.channel();
            let next = nexts.entry(channel.clone());
            let next = next.or_insert_with(|| self.cluster.next(channel));
            let is_next = statement.serial().number() == *next && self.cluster.settles(channel);
            *next += u32::from(is_next);
            is_next.then_some(Found { statement, path })
        };
        let found = found.into_iter().filter_map(is_next).collect();
        self.store(found).await;
        for (name, zxid, mut kept) in nodes {
            let before = kept.lacking.len();
            let has =
                |channel: &Channel, serial: Serial| serial.number() < self.cluster.next(channel);
            kept.lacking
                .retain(|(channel, serial)| !has(channel, *serial));
            self.has_stored |= kept.lacking.len() < before;
            look.extend(kept.lacking.iter().map(|(channel, _)| channel.clone()));
            lock(&self.cluster.shelf).add(name, zxid, kept);
        }
        Ok((look, gone))
    }

    /// What a node holds: what is above ours is `found`, and what is to be looked at.
    fn look_into(
        &self,
        (name, zxid, data): (&str, i64, &[u8]),
        found: &mut Vec<(i64, (Statement, String))>,
        look: &mut BTreeSet<Channel>,
    ) -> Kept {
        let records = self.parse(name, data, zxid);
        let mut kept = Kept {
            octets: data.len(),
            unread: records.is_none(),
            ..Kept::default()
        };
        let mut heads = HashMap::new();
        for record in records.unwrap_or_default() {
            let (channel, serial) = (record.channel, record.head.serial);
            let Some(entry) = record.entry else {
                look.insert(channel);
                continue;
            };
            heads.insert(channel.clone(), (record.head, record.version));
            kept.entries += 1;
            if serial.number() >= self.cluster.next(&channel) {
                found.push((zxid, entry));
                kept.lacking.push((channel, serial));
            }
        }
        for (channel, (head, version)) in heads.into_iter().filter(|(_, one)| one.1 >= 0) {
            let seen = Seen {
                head,
                version,
                zxid,
            };
            self.cluster.learn(&channel, seen);
        }
        kept
    }

    /// Nodes of our own go to our store directly: it has them first, or they are read like others.
    async fn wait_for_ours(&self, mut names: Vec<String>) -> Vec<String> {
        let deadline = Instant::now() + CLUSTER_FOLLOW;
        let mut ended = self.cluster.ended.subscribe();
        loop {
            ended.mark_unchanged();
            let mut is_under_way = false;
            names.retain(|name| {
                let mut ways = lock(&self.cluster.ways);
                match ways.get(name) {
                    None => true,
                    Some(None) => {
                        is_under_way = true;
                        true
                    }
                    Some(Some(_)) => {
                        let kept = ways.remove(name).flatten();
                        drop(ways);
                        if let Some((zxid, kept)) = kept {
                            lock(&self.cluster.shelf).add(name, zxid, kept);
                        }
                        false
                    }
                }
            });
            if !is_under_way {
                return names;
            }
            if timeout_at(deadline, ended.changed()).await.is_err() {
                // It was settled, whatever we have heard of it.
                let mut ways = lock(&self.cluster.ways);
                names.iter().for_each(|name| drop(ways.remove(name)));
                return names;
            }
        }
    }

    fn parse(&self, name: &str, data: &[u8], zxid: i64) -> Option<Vec<kept::Record>> {
        let records = kept::read(data);
        if records.is_none() && zxid != i64::MAX {
            tracing::error!(
                node = name,
                "this node of the cluster's tree holds nothing that a member has settled: somebody has written there; it is passed over"
            );
        }
        records
    }

    /// Stores what was settled, in its order: each is judged by the trust that was in force then.
    async fn store(&mut self, found: Vec<Found>) {
        let mut proven: Vec<Copy> = Vec::new();
        // What does not follow our head, or not by its own signatures: newest last.
        let mut above: BTreeMap<Channel, Vec<Copy>> = BTreeMap::new();
        let cluster = self.cluster;
        for Found { statement, path } in found {
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
            let serial = trust.as_ref().map(|trust| trust.serial());
            let waits = above.contains_key(&channel);
            let verified = trust
                .as_ref()
                .filter(|_| !waits)
                .and_then(|trust| trust.verify(statement.clone()).ok());
            if statement.trust() < serial {
                self.late.insert(channel.clone());
            }
            match verified.zip(serial) {
                Some((verified, serial)) => {
                    proven.push(Copy::proven(verified, serial, path));
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
        match self.cluster.local.append_trust(statement, path).await {
            Ok(_) => {}
            // The walk from below is under way.
            Err(AppendError::LostRace(_) | AppendError::AnchorFirst(_))
                if self.cluster.fills(channel) => {}
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
            // What was settled before the trust that is in force is verified by what follows it.
            AppendError::Verify(_) if self.late.contains(channel) => {
                tracing::warn!(%channel, %error, "what the cluster has was signed under earlier trust, and does not verify here now; what follows it is waited for");
                true
            }
            AppendError::Verify(_) => trust_log.is_some_and(|log| self.cluster.fills(&log)),
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
