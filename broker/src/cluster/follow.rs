//! Copies what others have settled to our own store, in the order in which it was settled.
//!
//! A watch tells of each node that was made; what it does not tell, since the connection was broken,
//! is found by looking at everything after it is whole again. What the servers keep no more comes
//! from another member, by the path of mirrors.

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry};

use futures_util::FutureExt;
use tidings_protocol::{Channel, Head, Serial, Statement, log::Begin, verify::VerifyError};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Cluster, Fill, Gap, Seen, Tree, TreeError,
    backfill::Backfill,
    kept::{self, Kept},
    lock,
    session::{Event, Events},
};
use crate::{
    append::{AppendError, Copied, Copy, Run},
    limits::{
        CLUSTER_ABREAST, CLUSTER_AGAIN, CLUSTER_FOLLOW, CLUSTER_LOOK, CLUSTER_RETRY, CLUSTER_SOON,
        CLUSTER_TICK,
    },
};

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

    /// Takes up what has arrived, then looks at the heads of what is to be looked at.
    async fn round(&mut self) -> Result<(), TreeError> {
        let (cluster, tree) = (self.cluster, self.tree);
        let mut channels: BTreeSet<Channel> = lock(&cluster.dirty).drain().collect();
        let whole = std::mem::take(&mut self.everything);
        if whole {
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
        for (channel, head) in std::mem::take(&mut self.awaited) {
            if cluster.next(&channel) <= head.serial.number() {
                match cluster.is_under_way(&channel, Some(head)) {
                    None => drop(round.gaps.insert(channel)),
                    Some(true) => drop(round.unsure.insert(channel)),
                    Some(false) => {}
                }
            }
        }
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

/// A statement that is to be stored.
struct Found {
    statement: Statement,
    path: String,
}

/// One round: stores what has arrived, and compares heads.
struct Round<'a> {
    cluster: &'a Cluster,
    tree: &'a Tree,
    gaps: BTreeSet<Channel>,
    unsound: BTreeMap<Channel, String>,
    /// They are looked at again.
    unsure: BTreeSet<Channel>,
    /// Something was to be stored of them that was signed under earlier trust.
    late: BTreeSet<Channel>,
    /// Channels that the tree does not have, and we do.
    begins: Vec<(Channel, Head)>,
    /// What could not be followed is tried again, and whether some of it was stored.
    is_again: bool,
    has_stored: bool,
}

impl Round<'_> {
    /// Stores what some nodes hold, if it is what comes next: the channels of which it was more, or
    /// which are to be looked at; and whether a node was gone.
    async fn take_up(
        &mut self,
        names: Vec<String>,
    ) -> Result<(BTreeSet<Channel>, bool), TreeError> {
        let (mut nodes, mut gone) = (Vec::new(), false);
        let (mut found, mut look) = (Vec::new(), BTreeSet::new());
        let names = self.wait_for_ours(names).await;
        for some in names.chunks(CLUSTER_ABREAST) {
            for (name, read) in some.iter().zip(self.tree.read_settled(some).await?) {
                // One that is known, and was read again, has just gone.
                if read.is_none() && lock(&self.cluster.shelf).remove(name) {
                    continue;
                }
                let (data, zxid) = read.unwrap_or((vec![b'?'], i64::MAX));
                let records = self.parse(name, &data, zxid);
                // What it has held is not known.
                gone |= records.is_none();
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

    /// The channels, of some, whose heads are above ours, and where those are.
    async fn read_heads(
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
    fn close(mut self, mut looked: BTreeSet<Channel>) {
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
            // It was read before more was settled: by us, or by others, which is then to be read.
            if newer != ours {
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
