//! Metrics of what stands above and below this broker: upstreams, feeds, a cluster.

use prometheus_client::registry::Registry;

use super::{counter, family, gauge, number};
use crate::{
    admin::http::status::board::Board,
    cluster::{self, Cluster},
    relay::mirror::UpstreamStatus,
    shared::Shared,
};

/// Upstreams by their addresses, as the configuration names them.
pub(super) fn upstreams(shared: &Shared, registry: &mut Registry) {
    let mirror = shared.mirror.as_ref();
    let all = mirror.map_or(Vec::new(), |mirror| mirror.statuses(&shared.logs));
    let connected = all.iter().filter(|one| one.telling.is_some()).count();
    gauge(
        registry,
        "upstreams",
        "Brokers that are mirrored",
        number(all.len()),
    );
    gauge(
        registry,
        "upstreams_connected",
        "Those of them that are connected",
        number(connected),
    );
    type Read = fn(&UpstreamStatus) -> i64;
    let each: [(&str, &str, Read); 5] = [
        (
            "upstream_connected",
            "1 while an upstream is connected",
            |one| i64::from(one.telling.is_some()),
        ),
        (
            "upstream_lag_statements",
            "Statements that an upstream has and this broker has not",
            |one| number(one.statements_to_come),
        ),
        (
            "upstream_lag_channels",
            "Channels in which there are such",
            |one| number(one.channels_to_come),
        ),
        (
            "upstream_behind_channels",
            "Channels of which an upstream has less than this broker",
            |one| number(one.behind),
        ),
        (
            "upstream_wrong_channels",
            "Channels that an upstream has wrong",
            |one| number(one.wrong),
        ),
    ];
    for (name, help, read) in each {
        let values = all.iter().map(|one| (one.address.to_string(), read(one)));
        family(registry, name, help, "upstream", values);
    }
}

/// Feeds by their names.
pub(super) fn feeds(board: &Board, registry: &mut Registry) {
    let statements = board
        .fed
        .iter()
        .map(|fed| (fed.name.clone(), number(fed.statements)));
    family(
        registry,
        "feed_lag_statements",
        "Statements for which a peer that is fed has not answered yet",
        "feed",
        statements,
    );
    let channels = board
        .fed
        .iter()
        .map(|fed| (fed.name.clone(), number(fed.channels)));
    family(
        registry,
        "feed_lag_channels",
        "Channels in which there are such",
        "feed",
        channels,
    );
}

/// How this broker stands to its cluster.
pub(super) fn cluster(cluster: &Cluster, registry: &mut Registry) {
    let state = cluster.state();
    let states = cluster::State::ALL
        .iter()
        .map(|word| ((*word).to_owned(), i64::from(*word == state.as_str())));
    family(
        registry,
        "cluster_state",
        "1 for how this broker stands to its cluster, 0 for the others",
        "state",
        states,
    );
    let (statements, channels) = cluster.lag();
    let term = crate::origin::Origin::term(cluster).is_some();
    let entries = cluster.entries();
    let standing = cluster.standing();
    gauge(
        registry,
        "cluster_members",
        "Live members, this one among them",
        number(standing.members.len()),
    );
    gauge(
        registry,
        "cluster_signs",
        "1 on the member that signs beats",
        i64::from(term),
    );
    gauge(
        registry,
        "cluster_lag_statements",
        "Statements that the cluster has and this broker has not",
        number(statements),
    );
    gauge(
        registry,
        "cluster_lag_channels",
        "Channels in which there are such",
        number(channels),
    );
    gauge(
        registry,
        "cluster_filling_channels",
        "Channels that are filled from other members",
        number(standing.gaps.len()),
    );
    gauge(
        registry,
        "cluster_unsound_channels",
        "Channels of which the servers hold something that does not verify",
        number(standing.unsound.len()),
    );
    gauge(
        registry,
        "cluster_clock_ahead_seconds",
        "How far the clock here is ahead of the servers'",
        standing.clock_ahead,
    );
    gauge(
        registry,
        "cluster_kept_entries",
        "Statements that the servers keep",
        number(entries),
    );
    counter(
        registry,
        "cluster_sessions_lost",
        "Sessions with the servers that have ended since the start",
        standing.sessions_lost,
    );
}
