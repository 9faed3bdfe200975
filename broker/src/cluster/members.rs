//! The members: who is there, who signs beats, and what the servers' clock shows.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Cluster, Member, State, Tree, TreeError, lock, nodes::Term};
use crate::{
    clock,
    limits::{CLUSTER_CLOCK, CLUSTER_GAP, CLUSTER_TICK},
};

/// Takes part until the session ends.
pub(super) async fn take_part(cluster: &Cluster, tree: &Tree) -> Result<(), TreeError> {
    let mut ticks = interval(CLUSTER_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match tick(cluster, tree).await {
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

async fn tick(cluster: &Cluster, tree: &Tree) -> Result<(), TreeError> {
    let name = &cluster.name;
    let mut members = tree.members().await?;
    let was_member = members.iter().any(|member| member.ours);
    if was_member || !members.iter().any(|member| member.name == *name) {
        let data = format!("{} {}", cluster.settings.address, cluster.common);
        if let Some(time) = tree.be_member(name, &data, was_member).await? {
            *lock(&cluster.time) = Some((Instant::now(), time));
            note_clock(cluster, time);
        }
        if !was_member {
            members = tree.members().await?;
        }
    }
    let Term {
        name: signer,
        zxid: since,
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
    let (right, willing) = {
        let mut standing = cluster.standing();
        let vacant = standing.vacant.get_or_insert_with(Instant::now).elapsed();
        if is_there {
            standing.vacant = None;
        }
        let right = standing.clock_ahead.unsigned_abs() <= CLUSTER_CLOCK.as_secs();
        // A member that lacks something leaves it to others, if there are any.
        let whole = standing.gaps.is_empty() && standing.unsound.is_empty();
        (right, whole || vacant > CLUSTER_GAP)
    };
    let own_term = match us {
        Some(_) if ours && !right => tree.begin_term(None, term).await?.and(None),
        Some(_) if ours => Some(term),
        Some(us) if right && willing && !is_there => tree.begin_term(Some(us), term).await?,
        _ => None,
    };
    cluster.set_term(own_term);
    let signer = own_term.map_or_else(|| is_there.then_some(signer), |_| Some(name.clone()));
    note_state(cluster, &members, signer);
    Ok(())
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

fn note_state(cluster: &Cluster, members: &[Member], signer: Option<String>) {
    let taken = members
        .iter()
        .find(|member| member.name == cluster.name && !member.ours);
    let joined = members.iter().any(|member| member.ours);
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
