//! The members: who is there, up to where each holds everything, who signs beats, and what the
//! servers may forget.
//!
//! `held` is the zxid up to which this member has everything in its own store. An event of a head
//! that was set before something was read has come when the answer to that read has; so what was
//! read in one round is held when the next one, which begins with those events, is done.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use super::{Cluster, Member, State, Tree, TreeError, lock, tree::Term};
use crate::{
    clock,
    limits::{
        CLUSTER_ABREAST, CLUSTER_CLOCK, CLUSTER_COPIES, CLUSTER_COUNT, CLUSTER_GAP, CLUSTER_LACKS,
        CLUSTER_TICK,
    },
};

/// Takes part until the session ends.
pub(super) async fn take_part(cluster: &Cluster, tree: &Tree) -> Result<(), TreeError> {
    let mut ticks = interval(CLUSTER_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trimming = None;
    loop {
        ticks.tick().await;
        match tick(cluster, tree, &mut trimming).await {
            Ok(()) => {}
            Err(TreeError::Session(error)) if !tree.has_ended() => {
                tracing::debug!(%error, "the members were not looked at")
            }
            Err(error) => return Err(error),
        }
        if tree.has_ended() {
            return Err(TreeError::Ended);
        }
    }
}

async fn tick(
    cluster: &Cluster,
    tree: &Tree,
    trimming: &mut Option<Trimming>,
) -> Result<(), TreeError> {
    let name = &cluster.name;
    let mut members = tree.members().await?;
    if !members.iter().any(|member| member.name == *name)
        && tree
            .join(name, &cluster.settings.address.to_string(), &cluster.common)
            .await?
    {
        members = tree.members().await?;
    }
    let joined = members.iter().any(|member| member.ours);
    if joined {
        let (held, lacks) = held(cluster);
        let time = tree.hold(name, held, &lacks).await?;
        *lock(&cluster.time) = Some((Instant::now(), time));
        note_clock(cluster, time);
    }
    let Term {
        name: signer,
        zxid: since,
        weak,
        term,
    } = tree.term().await?;
    let us = members
        .iter()
        .find(|member| member.ours)
        .filter(|_| *cluster.rounds.borrow() > 0);
    let is_there = members
        .iter()
        .any(|member| member.name == signer && member.zxid == since);
    let ours = us.is_some_and(|us| us.name == signer && us.zxid == since);
    let (right, whole, vacant) = {
        let mut standing = cluster.standing();
        standing.vacant = if is_there {
            None
        } else {
            standing.vacant.or_else(|| Some(Instant::now()))
        };
        let right = standing.clock_ahead.unsigned_abs() <= CLUSTER_CLOCK.as_secs();
        (
            right,
            standing.gaps.is_empty() && standing.unsound.is_empty(),
            standing.vacant,
        )
    };
    // Whoever has a wrong clock, or lacks something, leaves it to others; when there are none, it
    // trims, and is relieved by the first who can.
    let fit = right && whole;
    let last_choice = vacant.is_some_and(|since| since.elapsed() > CLUSTER_GAP);
    let own_term = match us {
        Some(_) if ours && !weak && !right => tree.begin_term(None, term).await?.and(None),
        Some(us) if ours && weak && fit => tree.begin_term(Some((us, false)), term).await?,
        Some(_) if ours => Some(term),
        Some(us) if fit && (!is_there || weak) => tree.begin_term(Some((us, false)), term).await?,
        Some(us) if last_choice => tree.begin_term(Some((us, true)), term).await?,
        _ => None,
    };
    cluster.set_term(own_term);
    note_state(
        cluster,
        joined,
        &members,
        own_term.map_or_else(|| is_there.then_some(signer), |_| Some(name.clone())),
    );
    if own_term.is_none() {
        *trimming = None;
        lock(&cluster.added).clear();
        return Ok(());
    }
    if trimming
        .as_ref()
        .is_none_or(|trimming| trimming.counted.elapsed() > CLUSTER_COUNT)
    {
        lock(&cluster.added).clear();
        *trimming = Some(Trimming::count(tree).await?);
    }
    if let Some(trimming) = trimming {
        trimming.trim(cluster, tree, &members).await?;
        cluster.standing().kept = (trimming.kept.len(), trimming.octets);
    }
    Ok(())
}

/// Up to where everything is in our store, and in which channels that is not so.
fn held(cluster: &Cluster) -> (i64, Vec<String>) {
    let standing = cluster.standing();
    let lacks: Vec<String> = standing
        .gaps
        .keys()
        .chain(standing.unsound.keys())
        .map(ToString::to_string)
        .collect();
    match lacks.len() {
        0..=CLUSTER_LACKS => (cluster.held.load(Ordering::Relaxed), lacks),
        _ => (0, Vec::new()),
    }
}

/// Whether a member has an entry on its disk; of one that serves other namespaces that is not
/// known.
fn has(cluster: &Cluster, member: &Member, zxid: i64, path: &str) -> bool {
    let channel = path.split('/').nth(2).unwrap_or_default();
    member.common == cluster.common
        && zxid <= member.held
        && !member.lacks.iter().any(|lacking| lacking == channel)
}

fn note_clock(cluster: &Cluster, servers: Duration) {
    let seconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    let ahead = seconds(clock::now().seconds()) - seconds(servers.as_secs());
    let (limit, mut standing) = (CLUSTER_CLOCK.as_secs(), cluster.standing());
    let (was, is) = (
        standing.clock_ahead.unsigned_abs() > limit,
        ahead.unsigned_abs() > limit,
    );
    standing.clock_ahead = ahead;
    if is && !was {
        tracing::error!(
            seconds_ahead = ahead,
            "the clocks of this broker and of the cluster's servers are apart: it signs no beats until they agree; is NTP running on both?"
        );
    } else if was && !is {
        tracing::info!("the clocks agree again");
    }
}

fn note_state(cluster: &Cluster, joined: bool, members: &[Member], signer: Option<String>) {
    let taken = members
        .iter()
        .find(|member| member.name == cluster.name && !member.ours);
    let state = match taken {
        Some(other) if !joined => State::NameTaken(other.address.clone()),
        _ => State::Member,
    };
    // By name: who joined first says nothing to whoever looks, and changes with each restart.
    let mut members = members.to_vec();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    let mut standing = cluster.standing();
    let (were, are) = (names(&standing.members), names(&members));
    if state != standing.state {
        match &state {
            State::NameTaken(address) => tracing::error!(
                name = cluster.name,
                address,
                "another broker with this name is a member. If it was this one before it was stopped hard, that passes within cluster.session_seconds; otherwise give each broker a name of its own"
            ),
            _ => tracing::info!(
                name = cluster.name,
                "this broker is a member of its cluster"
            ),
        }
    }
    if were != are {
        tracing::info!(members = are.join(" "), "the members of the cluster");
        for other in members
            .iter()
            .filter(|member| member.common != cluster.common)
        {
            tracing::error!(
                member = other.name,
                "this member has other anchors, or other groups of slots: correct the configuration of one of the two, and start it again"
            );
        }
    }
    let late = standing.gaps.iter().filter(|(_, gap)| {
        (CLUSTER_GAP..CLUSTER_GAP + CLUSTER_TICK).contains(&gap.since.elapsed())
    });
    for (channel, _) in late {
        tracing::error!(%channel, "no live member has what this broker lacks of this channel; it is waited for. If it is gone for good: `tidingsd set-head`");
    }
    standing.state = state;
    standing.members = members;
    standing.signer = signer;
}

fn names(members: &[Member]) -> Vec<String> {
    members.iter().map(|member| member.name.clone()).collect()
}

/// What the servers keep, oldest first.
struct Trimming {
    kept: BTreeMap<(i64, String), usize>,
    octets: usize,
    /// When it was counted; what came by another way than following is not in it.
    counted: Instant,
}

impl Trimming {
    async fn count(tree: &Tree) -> Result<Self, TreeError> {
        let mut all = Self {
            kept: BTreeMap::new(),
            octets: 0,
            counted: Instant::now(),
        };
        tree.kept()
            .await?
            .into_iter()
            .for_each(|entry| all.add(entry));
        Ok(all)
    }

    fn add(&mut self, (zxid, path, octets): (i64, String, usize)) {
        if self.kept.insert((zxid, path), octets).is_none() {
            self.octets += octets;
        }
    }

    /// Has the servers forget what every live member has; and, beyond what they shall keep, what at
    /// least one has.
    async fn trim(
        &mut self,
        cluster: &Cluster,
        tree: &Tree,
        members: &[Member],
    ) -> Result<(), TreeError> {
        std::mem::take(&mut *lock(&cluster.added))
            .into_iter()
            .for_each(|entry| self.add(entry));
        let mut gone = Vec::new();
        let (mut entries, mut octets) = (self.kept.len(), self.octets);
        for (entry @ (zxid, path), size) in &self.kept {
            let holding = members
                .iter()
                .filter(|member| has(cluster, member, *zxid, path))
                .count();
            let everybody = holding == members.len() && holding >= CLUSTER_COPIES;
            let too_much =
                entries > cluster.settings.keep_entries || octets > cluster.settings.keep_octets;
            if everybody || too_much && holding > 0 {
                gone.push(entry.clone());
                (entries, octets) = (entries - 1, octets - size);
            }
        }
        for some in gone.chunks(CLUSTER_ABREAST) {
            let paths: Vec<String> = some.iter().map(|(_, path)| path.clone()).collect();
            tree.forget(&paths).await?;
            for entry in some {
                self.octets -= self.kept.remove(entry).unwrap_or(0);
            }
        }
        Ok(())
    }
}
