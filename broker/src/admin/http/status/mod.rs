//! How a broker stands, for operators: `/status`, which `docs/status.schema.json` describes, and
//! what the page shows.

pub(super) mod board;
pub(super) mod evidence;
mod query;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidings_protocol::{Statement, Timestamp, statement::Body};

pub(super) use query::Query;

use super::{admin::Admin, fleetlock::status as group};
use crate::{
    cluster::{self, Cluster},
    limits::{STATUS_NODES, STATUS_WAYS},
    shared::Shared,
};
use board::{Board, Row, Standing, State};

/// Everything there is to be said now.
pub(super) async fn of(admin: &Admin, query: &Query, board: &Board) -> Value {
    let shared = &admin.shared;
    let slots = slots(shared).await;
    let (matching, shown, more) = query.select(&board.rows);
    let next = shown.last().filter(|_| more);
    let missing = super::admin::missing(shared);
    let forked = shared.forked.unsettled(&shared.namespaces);
    let count = |(word, count): (&str, &u64)| (word.to_owned(), json!(count));
    json!({
        "time": board.now.to_string(),
        "name": shared.settings.config.name,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": missing.is_empty(),
        "missing": missing,
        "connections": shared.connections.count(),
        "watches": shared.watches.count(),
        "statements": board.statements,
        "states": State::WORDS.into_iter().zip(&board.counts).map(count).collect::<serde_json::Map<_, _>>(),
        "channels_matching": matching,
        "channels": shown.iter().map(|row| channel(shared, row)).collect::<Vec<_>>(),
        "next": next.map(|row| row.log.channel.as_str()),
        "namespaces": board.namespaces.iter().map(|one| namespace(one, board.now)).collect::<Vec<_>>(),
        "certificates": certificates(shared, board.now),
        "upstreams": upstreams(shared),
        "ways": ways(board),
        "feeds": feeds(board),
        "cluster": shared.cluster.as_deref().map(of_cluster),
        "forked": forked.iter().map(|channel| channel.as_str()).collect::<Vec<_>>(),
        "evidence": evidence::shown(&board.evidence).iter().map(file).collect::<Vec<_>>(),
        "evidence_files": board.evidence.len(),
        "slots": slots,
    })
}

fn channel(shared: &Shared, row: &Row) -> Value {
    let marks = row.log.marks();
    let record = shared.store.get(&row.log.channel, marks.head.serial);
    let record = record.ok().flatten();
    let (until, since, named) = match row.state {
        State::Current { until } => (Some(until), None, None),
        State::Stale { since } => (None, since, None),
        State::Behind { named } => (None, None, Some(named.number())),
        State::Forked | State::Unconfirmed | State::Closed => (None, None, None),
    };
    let gap = shared.logs.backfill(&row.log.channel);
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "channel": row.log.channel.as_str(),
        "low": marks.low.number(),
        "serial": marks.head.serial.number(),
        "id": marks.head.id.to_string(),
        "state": row.state.word(),
        "until": text(until),
        "since": text(since),
        "behind": named,
        "filling": gap.map(|(low, _)| low.number()),
        "arrived": text(record.as_ref().map(|record| record.arrived)),
        "head": record.as_ref().map(|record| head(&record.statement)),
    })
}

fn head(statement: &Statement) -> Value {
    let (mut version, mut text, mut withdraws, mut rollout) = (None, None, None, Value::Null);
    match statement.body() {
        Body::Release(release) => {
            version = Some(release.version.as_str());
            text = release.summary.as_deref();
            rollout = release.rollout.as_ref().map_or(Value::Null, |rollout| {
                json!({
                    "start": rollout.start.to_string(),
                    "end": rollout.start.plus(rollout.seconds).to_string(),
                    "cohort": rollout.cohort,
                })
            });
        }
        Body::Withdraw(withdraw) => {
            withdraws = Some(withdraw.withdraws.serial.number());
            text = Some(withdraw.reason.as_str());
        }
        Body::Trust(_) | Body::Beat(_) => {}
    }
    json!({
        "kind": statement.kind().as_str(),
        "time": statement.time().to_string(),
        "version": version,
        "text": text,
        "withdraws": withdraws,
        "rollout": rollout,
    })
}

fn namespace(one: &Standing, now: Timestamp) -> Value {
    let trust = one.trust.as_ref().map(|trust| {
        let expires = trust.rules().expires;
        json!({
            "serial": trust.serial().number(),
            "id": trust.head().id.to_string(),
            "expires": expires.to_string(),
            "expired": expires <= now,
        })
    });
    let beat = |beat: &board::Beat| {
        json!({
            "channel": beat.channel.as_str(),
            "serial": beat.serial.number(),
            "time": beat.time.to_string(),
            "until": beat.until.to_string(),
            "live": beat.is_live,
            "names": beat.names,
            "lag_seconds": beat.arrived.seconds().saturating_sub(beat.time.seconds()),
        })
    };
    json!({
        "namespace": one.namespace.as_str(),
        "trust": trust,
        "beats": one.beats.iter().map(beat).collect::<Vec<_>>(),
    })
}

fn certificates(shared: &Shared, now: Timestamp) -> Vec<Value> {
    let one = |(path, end): (std::path::PathBuf, tidings_client::pem::Validity)| {
        json!({
            "file": path.display().to_string(),
            "until": end.until.to_string(),
            "trouble": end.trouble(now),
        })
    };
    shared.identity.ends().into_iter().map(one).collect()
}

/// The names of brokers in a `Path`, the last one first in it.
fn hops(path: &str) -> Vec<&str> {
    let mut hops: Vec<&str> = path.split('!').collect();
    hops.pop();
    hops
}

fn upstreams(shared: &Shared) -> Vec<Value> {
    let all = shared.mirror.iter();
    let all = all.flat_map(|mirror| mirror.statuses(&shared.logs));
    let one = |one: crate::relay::mirror::UpstreamStatus| {
        json!({
            "address": one.address.to_string(),
            "state": one.state(),
            "trouble": one.trouble,
            "way": one.path.as_deref().map(hops),
            "statements_to_come": one.statements_to_come,
            "channels_to_come": one.channels_to_come,
            "channels_behind": one.behind,
            "channels_wrong": one.wrong,
        })
    };
    all.map(one).collect()
}

/// The ways on which trust and beats have come here, this broker first.
fn ways(board: &Board) -> Vec<Vec<&str>> {
    let all: BTreeSet<Vec<&str>> = board
        .namespaces
        .iter()
        .flat_map(|one| &one.ways)
        .map(|path| hops(path))
        .collect();
    all.into_iter().take(STATUS_WAYS).collect()
}

fn feeds(board: &Board) -> Vec<Value> {
    let one = |fed: &board::Fed| {
        json!({
            "name": fed.name,
            "to": fed.to,
            "statements_to_go": fed.statements,
            "channels_to_go": fed.channels,
        })
    };
    board.fed.iter().map(one).collect()
}

fn file(file: &evidence::Evidence) -> Value {
    json!({
        "file": file.file,
        "kind": file.kind,
        "channel": file.channel.as_ref().map(|channel| channel.as_str()),
        "octets": file.octets,
        "time": file.time.to_string(),
    })
}

fn of_cluster(cluster: &Cluster) -> Value {
    let (statements, lagging) = cluster.lag();
    // Each of these locks what `standing` keeps locked.
    let (state, says, entries) = (cluster.state(), cluster.describe(), cluster.entries());
    let standing = cluster.standing();
    let member = |member: &cluster::Member| json!({"name": member.name, "address": member.address, "this": member.ours});
    let unsound: BTreeMap<&str, &str> = standing
        .unsound
        .iter()
        .map(|(channel, why)| (channel.as_str(), why.as_str()))
        .collect();
    json!({
        "state": state.as_str(),
        "says": says,
        "members": standing.members.iter().map(member).collect::<Vec<_>>(),
        "signs": standing.signer,
        "statements_to_come": statements,
        "channels_to_come": lagging,
        "filled_from_members": standing.gaps.keys().map(|channel| channel.as_str()).collect::<Vec<_>>(),
        "unsound": unsound,
        "clock_ahead_seconds": standing.clock_ahead,
        "kept_entries": entries,
    })
}

/// The groups, without what has happened in them; of long lists the beginning.
async fn slots(shared: &Shared) -> Vec<Value> {
    let mut all = Vec::new();
    for group in shared.slots.groups() {
        let Ok(state) = shared.slots.read(&group.name).await else {
            all.push(json!({"group": group.name.as_str(), "unreadable": true}));
            continue;
        };
        let mut one = group::of(&group.name, group.rules, &state);
        for (list, count) in [
            ("holders", "holding"),
            ("waiting", "waiting_in_all"),
            ("failed", "failed_in_all"),
        ] {
            if let Some(nodes) = one[list].as_array_mut() {
                let in_all = nodes.len();
                nodes.truncate(STATUS_NODES);
                one[count] = in_all.into();
            }
        }
        if let Some(fields) = one.as_object_mut() {
            fields.remove("history");
        }
        all.push(one);
    }
    all
}
