//! The metrics, read when they are asked for. Labels are namespaces and groups of the
//! configuration, or words of a closed set.

use std::sync::Arc;

use prometheus_client::{
    metrics::{counter::ConstCounter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{cluster, shared::Shared, store};

type Label = [(&'static str, String); 1];

/// Everything there is to be measured now.
pub(super) async fn registry(shared: &Arc<Shared>) -> Registry {
    let mut registry = Registry::with_prefix("tidings");
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let logs = shared.logs.all();
    let statements = logs
        .iter()
        .map(|log| log.marks())
        .map(|marks| u64::from(marks.head.serial.number() - marks.low.number()) + 1)
        .sum();
    gauge(
        "connections",
        "Connections, watches and HTTP among them",
        shared.connections.count() as u64,
    );
    gauge(
        "watches",
        "Connections that watch",
        shared.watches.count() as u64,
    );
    gauge("channels", "Channels that are here", logs.len() as u64);
    let (upstreams, connected) = (shared.upstreams)();
    gauge("upstreams", "Brokers that are mirrored", upstreams as u64);
    gauge(
        "upstreams_connected",
        "Those of them that are connected",
        connected as u64,
    );
    gauge(
        "forked_channels",
        "Channels whose fork no checkpoint has settled",
        shared.forked.unsettled(&shared.namespaces).len() as u64,
    );
    gauge("statements", "Statements that are visible here", statements);
    gauge(
        "tail_bytes",
        "Octets of statements that are kept in memory for the next readers",
        shared.logs.tail_octets() as u64,
    );
    if let Some(free) = store::free_octets(&shared.settings.config.data_dir) {
        gauge(
            "disk_free_bytes",
            "Octets that are free where the store lives",
            free,
        );
    }
    let ends = shared.identity.ends().into_iter().map(|(path, end)| {
        let until = i64::try_from(end.until.seconds()).unwrap_or(i64::MAX);
        (path.display().to_string(), until)
    });
    family(
        &mut registry,
        "certificate_expires_timestamp_seconds",
        "When the certificate in a file ends, of several roots the last",
        "file",
        ends,
    );
    counters(shared, &mut registry);
    namespaces(shared, &mut registry);
    if let Some(cluster) = &shared.cluster {
        in_cluster(cluster, &mut registry);
    }
    in_groups(shared, &mut registry).await;
    registry
}

fn family(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = (String, i64)>,
) {
    let family = Family::<Label, Gauge>::default();
    for (value, number) in values {
        family.get_or_create(&[(label, value)]).set(number);
    }
    registry.register(name, help, family);
}

fn counters(shared: &Shared, registry: &mut Registry) {
    let counts = &shared.counts;
    registry.register(
        "statements_stored",
        "Statements that were stored since the start, copies among them",
        ConstCounter::new(counts.stored.get()),
    );
    registry.register(
        "statements_published",
        "Statements that were taken by POST since the start",
        ConstCounter::new(counts.published.get()),
    );
    registry.register(
        "statements_refused",
        "Statements that were refused after POST since the start",
        ConstCounter::new(counts.refused.get()),
    );
}

fn namespaces(shared: &Shared, registry: &mut Registry) {
    let seconds =
        |time: tidings_protocol::Timestamp| i64::try_from(time.seconds()).unwrap_or(i64::MAX);
    let anchors = || {
        shared
            .settings
            .anchors
            .iter()
            .map(|anchor| &anchor.namespace)
    };
    let trust =
        |namespace: &tidings_protocol::Namespace| shared.namespaces.trust(&namespace.trust_log());
    let expires = anchors().filter_map(|namespace| {
        Some((
            namespace.to_string(),
            seconds(trust(namespace)?.rules().expires),
        ))
    });
    family(
        registry,
        "trust_expires_timestamp_seconds",
        "When the trust in force of a namespace expires",
        "namespace",
        expires,
    );
    let serial = anchors().filter_map(|namespace| {
        Some((
            namespace.to_string(),
            i64::from(trust(namespace)?.serial().number()),
        ))
    });
    let rooms = shared.counts.beat_rooms().clone();
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let taken = rooms
        .iter()
        .map(|(channel, (percent, _))| (channel.to_string(), number(*percent)));
    family(
        registry,
        "beat_room_percent",
        "How much of the room for heads the beats that are signed here take",
        "channel",
        taken,
    );
    let left_out = rooms
        .iter()
        .map(|(channel, (_, left_out))| (channel.to_string(), number(*left_out)));
    family(
        registry,
        "beat_left_out_channels",
        "Channels for which there is no room in the beats that are signed here",
        "channel",
        left_out,
    );
    family(
        registry,
        "trust_serial",
        "Serial of the trust in force of a namespace",
        "namespace",
        serial,
    );
    let beat = anchors().filter_map(|namespace| {
        let log = shared.logs.get(namespace.beat().as_str())?;
        let arrived = log.arrived(log.marks().head.serial).ok()??;
        Some((namespace.to_string(), seconds(arrived)))
    });
    family(
        registry,
        "beat_timestamp_seconds",
        "When the newest beat of a namespace came here; too long ago, and devices are STALE",
        "namespace",
        beat,
    );
}

fn in_cluster(cluster: &cluster::Cluster, registry: &mut Registry) {
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
    let mut gauge = |name: &str, help: &str, value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    gauge(
        "cluster_members",
        "Live members, this one among them",
        number(standing.members.len() as u64),
    );
    gauge(
        "cluster_signs",
        "1 on the member that signs beats",
        i64::from(term),
    );
    gauge(
        "cluster_lag_statements",
        "Statements that the cluster has and this broker has not",
        number(statements),
    );
    gauge(
        "cluster_lag_channels",
        "Channels in which there are such",
        number(channels),
    );
    gauge(
        "cluster_filling_channels",
        "Channels that are filled from other members",
        number(standing.gaps.len() as u64),
    );
    gauge(
        "cluster_unsound_channels",
        "Channels of which the servers hold something that does not verify",
        number(standing.unsound.len() as u64),
    );
    gauge(
        "cluster_clock_ahead_seconds",
        "How far the clock here is ahead of the servers'",
        standing.clock_ahead,
    );
    gauge(
        "cluster_kept_entries",
        "Statements that the servers keep",
        number(entries),
    );
    registry.register(
        "cluster_sessions_lost",
        "Sessions with the servers that have ended since the start",
        ConstCounter::new(standing.sessions_lost),
    );
}

async fn in_groups(shared: &Shared, registry: &mut Registry) {
    let mut rows: Vec<(String, [i64; 4])> = Vec::new();
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    for group in shared.slots.groups() {
        // What cannot be read now is not shown, and no number stands for it.
        if let Ok(state) = shared.slots.read(&group.name).await {
            rows.push((
                group.name.to_string(),
                [
                    state.holders.len(),
                    group.rules.max,
                    state.waiting.len(),
                    state.failed.len(),
                ]
                .map(number),
            ));
        }
    }
    let names = [
        (
            "slot_holders",
            "Nodes of a group that are down, or about to go down",
        ),
        ("slot_max", "How many may be"),
        ("slot_waiting", "Nodes that wait"),
        (
            "slot_failed",
            "Nodes that have failed, and that no operator has looked at",
        ),
    ];
    for (at, (name, help)) in names.into_iter().enumerate() {
        family(
            registry,
            name,
            help,
            "group",
            rows.iter()
                .map(|(group, values)| (group.clone(), values[at])),
        );
    }
}

/// Prometheus' older text format, 0.0.4, from OpenMetrics: a counter has the name of its samples,
/// and nothing marks the end.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut text = String::new();
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let of = |line: &str, what: &str| {
            let (name, rest) = line.strip_prefix(what)?.split_once(' ')?;
            Some((name.to_owned(), rest.to_owned()))
        };
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let (help, kind) = (of(line, "# HELP "), of(line, "# TYPE "));
        let is_counters = is_counter(line) || lines.peek().is_some_and(|next| is_counter(next));
        let line = match (help, kind) {
            (Some((name, rest)), _) if is_counters => format!("# HELP {name}_total {rest}"),
            (_, Some((name, rest))) if is_counters => format!("# TYPE {name}_total {rest}"),
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_as_their_samples() {
        let mut registry = Registry::with_prefix("tidings");
        registry.register("stored", "What was stored", ConstCounter::new(7_u64));
        let gauge = Gauge::<i64>::default();
        registry.register("watches", "Who watches", gauge);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert_eq!(
            plain(&text),
            "# HELP tidings_stored_total What was stored.\n# TYPE tidings_stored_total counter\ntidings_stored_total 7\n# HELP tidings_watches Who watches.\n# TYPE tidings_watches gauge\ntidings_watches 0\n"
        );
    }
}
