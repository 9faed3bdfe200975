//! For operators: is it alive, is it ready, how does it stand, the metrics, and a page with all of
//! that.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE, VARY},
    },
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use tidings_protocol::Timestamp;
use tokio::sync::Semaphore;

use super::{
    host, metrics, page,
    status::{
        Query,
        board::{Board, Boards},
    },
};
use crate::{clock, cluster, limits::STATUS_STREAMS, shared::Shared};

/// What those who ask share.
pub(super) struct Admin {
    pub(super) shared: Arc<Shared>,
    boards: Arc<Boards>,
    /// Status pages that may be kept up to date.
    pub(super) streams: Arc<Semaphore>,
}

impl Admin {
    /// How each channel stands; it is found out aside, since there may be many.
    pub(super) async fn board(&self) -> Arc<Board> {
        let (shared, boards) = (self.shared.clone(), self.boards.clone());
        let made = tokio::task::spawn_blocking(move || boards.look(&shared)).await;
        made.unwrap_or_else(|_| self.boards.look(&self.shared))
    }
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let admin = Arc::new(Admin {
        shared: shared.clone(),
        boards: Arc::default(),
        streams: Arc::new(Semaphore::new(STATUS_STREAMS)),
    });
    Router::new()
        .route("/", get(page::show))
        .route("/events", get(page::events))
        .route("/forks/{file}", get(page::evidence))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "there are /, /healthz, /readyz, /status and /metrics here\n",
            )
        })
        .layer(from_fn_with_state(shared, host::is_right))
        .with_state(admin)
}

/// Whether the process works: it is to be started anew otherwise.
async fn healthz(State(admin): State<Arc<Admin>>) -> Response {
    if admin.shared.stop.is_cancelled() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the broker is shutting down\n",
        )
            .into_response();
    }
    "ok\n".into_response()
}

/// Whether everything that it is there for can be done now; reading goes on all the same.
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let missing = missing(&admin.shared);
    match missing.is_empty() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response(),
    }
}

/// Why not, a line each.
pub(super) fn missing(shared: &Shared) -> Vec<String> {
    let mut missing = Vec::new();
    if shared.stop.is_cancelled() {
        missing.push("the broker is shutting down".into());
    }
    missing.extend(missing_of_logs(shared, clock::now()));
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
    missing
}

/// What stands between devices and being CURRENT from here: no upstream, a fork, trust that has
/// expired.
fn missing_of_logs(shared: &Shared, now: Timestamp) -> Vec<String> {
    let mut missing = Vec::new();
    if let Some(mirror) = &shared.mirror
        && mirror.connected() == 0
    {
        let all = mirror.upstreams.len();
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

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let mut text = String::new();
    let encoded =
        prometheus_client::encoding::text::encode(&mut text, &metrics::registry(&admin).await);
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

/// How it stands.
async fn status(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    match Query::parse(request.uri().query()) {
        Ok(query) => {
            let board = admin.board().await;
            Json(super::status::of(&admin, &query, &board).await).into_response()
        }
        Err(why) => (StatusCode::BAD_REQUEST, why + "\n").into_response(),
    }
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
}
