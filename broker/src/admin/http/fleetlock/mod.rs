//! FleetLock, as Zincati speaks it, with optional members, and how operators see a group (spec part
//! 6).
//!
//! Every refusal has a body with `kind`, a word for programs, and `value`, a sentence for people.

mod request;
pub(super) mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Request, State, rejection::BytesRejection},
    http::{StatusCode, header::ORIGIN},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tidings_protocol::slot::SlotName;

use crate::{
    limits::HTTP_BODY_OCTETS,
    net::{access::Access, connections::Connections},
    slots::{Answer, Ask, Asker, Lost, SlotError, Slots},
};
use request::{Client, Lock, malformed};

/// What it works with.
#[derive(Clone)]
pub(crate) struct FleetLock {
    pub(crate) slots: Arc<Slots>,
    pub(crate) access: Arc<Access>,
    pub(crate) connections: Arc<Connections>,
}

pub(super) fn router(fleetlock: FleetLock) -> Router {
    let mut router = Router::new()
        .route("/v1/groups/{name}", get(look))
        .route("/v1/groups/{name}/clear", post(clear));
    // Some clients put a slash between their base URL and the path that is there already.
    for path in ["/v1/pre-reboot", "//v1/pre-reboot", "/v1/pre-reboot/"] {
        router = router.route(path, post(lock));
    }
    for path in ["/v1/steady-state", "//v1/steady-state", "/v1/steady-state/"] {
        router = router.route(path, post(unlock));
    }
    router
        .fallback(async |uri: axum::http::Uri| {
            let value = format!(
                "there is no {} here, but /v1/pre-reboot, /v1/steady-state, /v1/groups/NAME and /v1/groups/NAME/clear",
                uri.path()
            );
            refusal(StatusCode::NOT_FOUND, "unknown_path", value)
        })
        .method_not_allowed_fallback(async |method: axum::http::Method| {
            let value = format!("{method} is not for this path: groups are read with GET, and POST is for the rest");
            refusal(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", value)
        })
        .layer(from_fn(no_page))
        .with_state(fleetlock)
}

/// A request with `Origin` comes from a page in somebody's browser, which may have any name for
/// this address: it is refused (attack 115).
async fn no_page(request: Request, next: Next) -> Response {
    if request.headers().contains_key(ORIGIN) {
        let value = "a page in a browser may not ask for slots".to_owned();
        return refusal(StatusCode::FORBIDDEN, "not_allowed", value).into_response();
    }
    next.run(request).await
}

/// Why not.
struct Refusal {
    status: StatusCode,
    kind: &'static str,
    value: String,
    /// How many machines are before this one.
    position: Option<usize>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({"kind": self.kind, "value": self.value});
        if let Some(position) = self.position {
            body["position"] = position.into();
        }
        (self.status, Json(body)).into_response()
    }
}

impl From<SlotError> for Refusal {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::NoGroup(_) => refusal(StatusCode::NOT_FOUND, "unknown_group", error),
            error => refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error),
        }
    }
}

fn refusal(status: StatusCode, kind: &'static str, value: impl std::fmt::Display) -> Refusal {
    Refusal {
        status,
        kind,
        value: value.to_string(),
        position: None,
    }
}

type Body = Result<Bytes, BytesRejection>;

fn read(body: Body) -> Result<Bytes, Refusal> {
    body.map_err(|error| match error.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => refusal(
            status,
            "malformed_request",
            format_args!("a body has at most {HTTP_BODY_OCTETS} octets"),
        ),
        status => refusal(status, "malformed_request", error),
    })
}

/// A machine wants to go down: a slot, or whether its token still counts.
async fn lock(
    State(fleetlock): State<FleetLock>,
    client: Client,
    body: Body,
) -> Result<Response, Refusal> {
    client.means_it()?;
    let lock = Lock::parse(&read(body)?)?;
    let by = client.taker(&fleetlock, &lock.group, Some(&lock.node))?;
    let asker = Asker {
        node: lock.node.as_str(),
        by: &by,
    };
    let (slots, group, serial) = (&fleetlock.slots, &lock.group, lock.serial);
    let answer = match lock.token {
        None => slots.take(group, asker, serial, lock.wait).await,
        Some(token) => slots.ask(group, asker, Ask::Hold { serial, token }).await,
    };
    settled(&lock, answer?)
}

/// A machine is back, and well.
async fn unlock(
    State(fleetlock): State<FleetLock>,
    client: Client,
    body: Body,
) -> Result<Response, Refusal> {
    client.means_it()?;
    let lock = Lock::parse(&read(body)?)?;
    let by = client.taker(&fleetlock, &lock.group, Some(&lock.node))?;
    let asker = Asker {
        node: lock.node.as_str(),
        by: &by,
    };
    let ask = Ask::Free { token: lock.token };
    let freed = fleetlock.slots.ask(&lock.group, asker, ask).await;
    settled(&lock, freed?)
}

fn settled(lock: &Lock, answer: Answer) -> Result<Response, Refusal> {
    let Lock { group, node, .. } = lock;
    let conflict = |kind, value: String| refusal(StatusCode::CONFLICT, kind, value);
    let lost = match answer {
        // As text: the numbers of JSON lose digits in some programs.
        Answer::Yours { token, seconds, .. } => {
            let body = json!({"token": token.to_string(), "lease_seconds": seconds});
            return Ok(Json(body).into_response());
        }
        Answer::Free => return Ok(Json(json!({})).into_response()),
        Answer::Wait { before } => {
            let value = format!("{before} are before {node}");
            return Err(Refusal {
                position: Some(before),
                ..conflict("failed_lock", value)
            });
        }
        Answer::Stopped { failed } => {
            let value = format!(
                "{failed} of {group} have failed, {node} perhaps among them: an operator has to look, and to clear them"
            );
            return Err(conflict("group_stopped", value));
        }
        Answer::Lost(lost) => lost,
    };
    let value = match lost {
        Lost::Failed => {
            format!("the lease of {node} ran out: it counts as failed until an operator has looked")
        }
        Lost::Replaced => {
            tracing::warn!(%group, %node, "a token of this node was replaced by a later one: have two machines one name?");
            format!("{node} has a slot of {group} with another token: have two machines one name?")
        }
        Lost::Other => {
            tracing::warn!(%group, %node, "this node has a slot by another request: have two machines one name?");
            format!(
                "{node} has a slot of {group} that was taken for another serial, or by another peer"
            )
        }
        Lost::Unknown => format!(
            "{node} has no slot of {group} with this token: is it one of another group, or of another machine?"
        ),
    };
    Err(conflict("lost_lock", value))
}

/// How a group stands.
async fn look(
    State(fleetlock): State<FleetLock>,
    client: Client,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let group: SlotName = name.parse().map_err(malformed)?;
    if !client.operates(&fleetlock, &group)? {
        client.taker(&fleetlock, &group, None)?;
    }
    let rules = fleetlock.slots.rules(&group)?.rules;
    let state = fleetlock.slots.look(&group).await?;
    Ok(Json(status::of(&group, rules, &state)).into_response())
}

/// An operator has looked at a node: it is forgotten, whatever it was.
async fn clear(
    State(fleetlock): State<FleetLock>,
    client: Client,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    client.means_it()?;
    let group: SlotName = name.parse().map_err(malformed)?;
    if !client.operates(&fleetlock, &group)? {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "not_allowed",
            format_args!("only `operators` of {group} may clear it"),
        ));
    }
    let node = request::id(&read(body)?)?;
    let asker = Asker {
        node: node.as_str(),
        by: "",
    };
    match fleetlock.slots.ask(&group, asker, Ask::Clear).await? {
        Answer::Free => {
            tracing::info!(%group, %node, peer = %client.address, name = client.name(&fleetlock), "an operator has cleared a node");
            Ok(Json(json!({"cleared": node.as_str()})).into_response())
        }
        _ => Err(refusal(
            StatusCode::NOT_FOUND,
            "unknown_id",
            format_args!("{node} is not down, does not wait and has not failed in {group}"),
        )),
    }
}
