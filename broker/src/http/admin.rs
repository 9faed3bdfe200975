//! For operators: is it alive, is it ready, how does it stand, and the metrics.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE, HOST, VARY},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tidings_protocol::Timestamp;

use super::metrics;
use crate::{clock, cluster, shared::Shared};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz, /status and /metrics here\n",
            )
        })
        .layer(from_fn_with_state(shared.clone(), right_host))
        .with_state(shared)
}

/// Whoever is asked under another name than its own is asked by a page that an operator's browser
/// has open (attack 115).
async fn right_host(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    match is_ours(host, &shared.settings.config.name) {
        true => next.run(request).await,
        false => (
            StatusCode::MISDIRECTED_REQUEST,
            "ask by address, as localhost, or by the name in the configuration\n",
        )
            .into_response(),
    }
}

fn is_ours(host: &str, name: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => {
            host
        }
        _ => host,
    };
    let bare = without_port.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || bare.eq_ignore_ascii_case("localhost")
        || bare.eq_ignore_ascii_case(name)
}

/// Whether the process works: it is to be started anew otherwise.
async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.stop.is_cancelled() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the broker is shutting down\n",
        )
            .into_response();
    }
    "ok\n".into_response()
}

/// Whether everything that it is there for can be done now; reading goes on all the same.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut missing = Vec::new();
    if shared.stop.is_cancelled() {
        missing.push("the broker is shutting down".into());
    }
    missing.extend(missing_of_logs(&shared, clock::now()));
    if let Some(cluster) = &shared.cluster {
        if cluster.state() != cluster::State::Member {
            missing.push(cluster.describe());
        }
        let strangers = cluster.strangers();
        if !strangers.is_empty() {
            missing.push(format!(
                "{} have other anchors, or other groups of slots, than this broker",
                strangers.join(", ")
            ));
        }
        let standing = cluster.standing();
        if !standing.gaps.is_empty() {
            missing.push(format!(
                "{} channels are being filled from other members",
                standing.gaps.len()
            ));
        }
        missing.extend(
            standing
                .unsound
                .iter()
                .map(|(channel, why)| format!("{channel} cannot be followed: {why}")),
        );
    }
    match missing.is_empty() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response(),
    }
}

/// What stands between devices and being CURRENT from here: no upstream, a fork, trust that has
/// expired.
fn missing_of_logs(shared: &Shared, now: Timestamp) -> Vec<String> {
    let mut missing = Vec::new();
    if let (all @ 1.., 0) = (shared.upstreams)() {
        missing.push(format!("none of {all} upstreams is connected"));
    }
    let forked = shared.forked.unsettled(&shared.namespaces);
    missing.extend(forked.iter().map(|channel| {
        format!("{channel} is forked: settle it with a checkpoint; its evidence is in forks/")
    }));
    for anchor in shared.settings.anchors.iter() {
        let namespace = &anchor.namespace;
        let expires = shared
            .namespaces
            .trust(&namespace.trust_log())
            .map(|trust| trust.rules().expires);
        missing.extend(
            expires
                .filter(|expires| *expires <= now)
                .map(|expires| format!("the trust of {namespace} has expired: {expires}")),
        );
    }
    missing
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let mut text = String::new();
    let encoded =
        prometheus_client::encoding::text::encode(&mut text, &metrics::registry(&shared).await);
    if let Err(error) = encoded {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let accept = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>()
        .join(",");
    match wants_open_metrics(&accept) {
        true => ([(VARY, "accept"), (CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        false => (
            [(VARY, "accept"), (CONTENT_TYPE, PLAIN)],
            metrics::plain(&text),
        )
            .into_response(),
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether `Accept` prefers OpenMetrics (RFC 9110 section 12.5.1); who does not name it gets text.
fn wants_open_metrics(accept: &str) -> bool {
    let quality = |kind: &str| {
        let of = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next()?;
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality = quality.map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0));
            name.eq_ignore_ascii_case(kind).then_some(quality)
        };
        accept.split(',').filter_map(of).fold(0.0, f64::max)
    };
    let open = quality("application/openmetrics-text");
    open > 0.0 && open >= quality("text/plain")
}

/// How it stands: heads, and the cluster.
async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let logs = shared.logs.all();
    let channels: Vec<_> = logs
        .iter()
        .map(|log| {
            let marks = log.marks();
            json!({"channel": log.channel.as_str(), "low": marks.low.number(), "serial": marks.head.serial.number(), "id": marks.head.id.to_string()})
        })
        .collect();
    let cluster = shared.cluster.as_ref().map(|cluster| {
        let (statements, lagging) = cluster.lag();
        let (state, entries) = (cluster.state(), cluster.entries());
        let standing = cluster.standing();
        let member = |member: &cluster::Member| json!({"name": member.name, "address": member.address, "this": member.ours});
        json!({
            "state": state.as_str(),
            "members": standing.members.iter().map(member).collect::<Vec<_>>(),
            "signs": standing.signer,
            "statements_to_come": statements,
            "channels_to_come": lagging,
            "filled_from_members": standing.gaps.keys().map(|channel| channel.as_str()).collect::<Vec<_>>(),
            "unsound": standing.unsound.iter().map(|(channel, why)| (channel.as_str(), why.as_str())).collect::<std::collections::BTreeMap<_, _>>(),
            "clock_ahead_seconds": standing.clock_ahead,
            "kept_entries": entries,
        })
    });
    let standing = (shared.standings)(&shared.logs);
    let (upstreams, connected) = (shared.upstreams)();
    let forked = shared.forked.unsettled(&shared.namespaces);
    let forked: Vec<_> = forked.iter().map(|channel| channel.as_str()).collect();
    Json(json!({
        "name": shared.settings.config.name,
        "channels": channels,
        "cluster": cluster,
        "upstreams": upstreams,
        "upstreams_connected": connected,
        "forked": forked,
        "standing": standing,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        for accept in [
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "text/plain;q=0.3, application/openmetrics-text;q=0.9;version=1.0.0",
        ] {
            assert!(wants_open_metrics(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0.2,text/plain",
            "application/openmetrics-text;q=0",
        ] {
            assert!(!wants_open_metrics(accept), "{accept}");
        }
    }

    #[test]
    fn attack_115_a_name_that_somebody_else_has_made_up_is_not_ours() {
        for host in [
            "127.0.0.1:9119",
            "[::1]:9119",
            "[::1]",
            "localhost:9119",
            "LOCALHOST",
            "news.example.org:9119",
        ] {
            assert!(is_ours(host, "news.example.org"), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9119",
            "127.0.0.1.evil.example",
            "localhost.evil.example:9119",
        ] {
            assert!(!is_ours(host, "news.example.org"), "{host}");
        }
    }
}
