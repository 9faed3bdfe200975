//! The metrics, read when they are asked for. Labels are namespaces and groups of the
//! configuration, or words of a closed set.

mod relays;

use prometheus_client::{
    metrics::{counter::ConstCounter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    admin::{self, Admin},
    status::{
        board::{Beat, Board, Standing, State},
        evidence::KINDS,
    },
};
use crate::{log::store, shared::Shared};

type Label = [(&'static str, String); 1];

/// Everything there is to be measured now.
pub(super) async fn registry(admin: &Admin) -> Registry {
    let (shared, board) = (&admin.shared, admin.board().await);
    let mut registry = Registry::with_prefix("tidings");
    process(shared, &mut registry);
    channels(shared, &board, &mut registry);
    counters(shared, &mut registry);
    namespaces(&board, &mut registry);
    beat_rooms(shared, &mut registry);
    relays::upstreams(shared, &mut registry);
    relays::feeds(&board, &mut registry);
    if let Some(cluster) = &shared.cluster {
        relays::cluster(cluster, &mut registry);
    }
    in_groups(shared, &mut registry).await;
    registry
}

/// What it is, whether it is ready, and what it uses.
fn process(shared: &Shared, registry: &mut Registry) {
    family(
        registry,
        "build_info",
        "1, and which version runs",
        "version",
        [(env!("CARGO_PKG_VERSION").to_owned(), 1)],
    );
    gauge(
        registry,
        "start_timestamp_seconds",
        "When this broker was started",
        number(shared.started.seconds()),
    );
    gauge(
        registry,
        "ready",
        "1 while /readyz says that it is ready",
        i64::from(admin::missing(shared).is_empty()),
    );
    gauge(
        registry,
        "connections",
        "Connections, watches and HTTP among them",
        number(shared.connections.count()),
    );
    gauge(
        registry,
        "watches",
        "Connections that watch",
        number(shared.watches.count()),
    );
    gauge(
        registry,
        "tail_bytes",
        "Octets of statements that are kept in memory for the next readers",
        number(shared.logs.tail_octets()),
    );
    if let Some(free) = store::free_octets(&shared.settings.config.data_dir) {
        gauge(
            registry,
            "disk_free_bytes",
            "Octets that are free where the store lives",
            number(free),
        );
    }
    let ends = shared.identity.ends().into_iter();
    family(
        registry,
        "certificate_expires_timestamp_seconds",
        "When the certificate in a file ends, of several roots the last",
        "file",
        ends.map(|(path, end)| (path.display().to_string(), number(end.until.seconds()))),
    );
}

/// How many channels there are, how they stand, and what proves forks.
fn channels(shared: &Shared, board: &Board, registry: &mut Registry) {
    gauge(
        registry,
        "channels",
        "Channels that are here",
        number(board.rows.len()),
    );
    gauge(
        registry,
        "statements",
        "Statements that are visible here",
        number(board.statements),
    );
    let states = State::WORDS.into_iter().zip(board.counts);
    family(
        registry,
        "channel_states",
        "Channels that a device finds here in this state",
        "state",
        states.map(|(word, count)| (word.to_owned(), number(count))),
    );
    gauge(
        registry,
        "forked_channels",
        "Channels whose fork no checkpoint has settled",
        number(shared.forked.unsettled(&shared.namespaces).len()),
    );
    let count = |kind: &str| board.evidence.iter().filter(|one| one.kind == kind).count();
    let kinds = KINDS.map(|kind| (kind.to_owned(), number(count(kind))));
    family(
        registry,
        "evidence_files",
        "Files of evidence: forks, lost races, and what a log has lost",
        "kind",
        kinds,
    );
}

/// A number as gauges have it.
fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
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
    counter(
        registry,
        "statements_stored",
        "Statements that were stored since the start, copies among them",
        counts.stored.get(),
    );
    counter(
        registry,
        "statements_published",
        "Statements that were taken by POST since the start",
        counts.published.get(),
    );
    counter(
        registry,
        "statements_refused",
        "Statements that were refused after POST since the start",
        counts.refused.get(),
    );
}

fn namespaces(board: &Board, registry: &mut Registry) {
    let trusts = || {
        let known = |one: &'_ Standing| Some((one.namespace.to_string(), one.trust.clone()?));
        board.namespaces.iter().filter_map(known)
    };
    family(
        registry,
        "trust_expires_timestamp_seconds",
        "When the trust in force of a namespace expires",
        "namespace",
        trusts().map(|(name, trust)| (name, number(trust.rules().expires.seconds()))),
    );
    family(
        registry,
        "trust_serial",
        "Serial of the trust in force of a namespace",
        "namespace",
        trusts().map(|(name, trust)| (name, trust.serial().number().into())),
    );
    type Read = fn(&Beat) -> i64;
    let each: [(&str, &str, Read); 3] = [
        (
            "beat_timestamp_seconds",
            "When the newest beat of a beat channel came here",
            |beat| number(beat.arrived.seconds()),
        ),
        (
            "beat_expires_timestamp_seconds",
            "Until when it is live: then devices are STALE",
            |beat| number(beat.until.seconds()),
        ),
        (
            "beat_lag_seconds",
            "How long it took from its signature to here",
            |beat| number(beat.arrived.seconds().saturating_sub(beat.time.seconds())),
        ),
    ];
    for (name, help, read) in each {
        let beats = board.namespaces.iter().flat_map(|one| &one.beats);
        let values = beats.map(|beat| (beat.channel.to_string(), read(beat)));
        family(registry, name, help, "channel", values);
    }
}

/// The beats that are signed here.
fn beat_rooms(shared: &Shared, registry: &mut Registry) {
    let rooms = shared.counts.beat_rooms().clone();
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
}

async fn in_groups(shared: &Shared, registry: &mut Registry) {
    let mut rows: Vec<(String, [i64; 4])> = Vec::new();
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
                .map(|value: usize| number(value)),
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
