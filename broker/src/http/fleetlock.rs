//! FleetLock: the slots for machines that speak the protocol of Zincati.
//!
//! `POST /v1/pre-reboot` takes a slot, `POST /v1/steady-state` frees it; both may be asked again. Every refusal has a body with
//! `kind`, a word for programs, and `value`, a sentence for people.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::json;
use tidings_protocol::slot::SlotName;

use super::Client;
use crate::{
    session::{certificate_names, slot_identity},
    shared::Shared,
    slots::{Answer, Asker, SlotError},
};

#[derive(Deserialize)]
struct Body {
    client_params: ClientParams,
}

#[derive(Deserialize)]
struct ClientParams {
    id: String,
    group: String,
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/pre-reboot", post(lock))
        .route("/v1/steady-state", post(unlock))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "unknown_path", "FleetLock has /v1/pre-reboot and /v1/steady-state"))
        .method_not_allowed_fallback(async || refusal(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "FleetLock is spoken with POST"))
        .with_state(shared)
}

fn refusal(status: StatusCode, kind: &str, value: impl std::fmt::Display) -> Response {
    (status, Json(json!({"kind": kind, "value": value.to_string()}))).into_response()
}

/// Who asks for what, if that is understood and allowed.
fn read(
    shared: &Shared,
    client: &Client,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(SlotName, SlotName, String), Box<Response>> {
    let malformed = |value: &dyn std::fmt::Display| Box::new(refusal(StatusCode::BAD_REQUEST, "malformed_request", value));
    if headers.get("fleet-lock-protocol").is_none_or(|value| value != "true") {
        return Err(malformed(&"the header fleet-lock-protocol: true is missing"));
    }
    let body = body.map_err(|error| Box::new(refusal(error.status(), "malformed_request", &error)))?;
    let Body { client_params: ClientParams { id, group } } = serde_json::from_slice(&body).map_err(|error| malformed(&error))?;
    let (node, group): (SlotName, SlotName) = match (id.parse(), group.parse()) {
        (Ok(node), Ok(group)) => (node, group),
        (Err(error), _) | (_, Err(error)) => return Err(malformed(&error)),
    };
    let rules = shared.slots.rules(&group).map_err(|error| Box::new(undecided(&error)))?;
    let certificate = client.certificate.as_ref();
    let known = shared.settings.access.who(client.address.ip(), certificate.map(|der| &**der));
    let taker = rules.takers.as_ref().is_none_or(|takers| takers.iter().any(|taker| known.contains(taker)));
    let named = !rules.certificate || certificate.is_some_and(|der| certificate_names(der, &node));
    if !taker || !named {
        let why = format!("{node} may have no slots of {group} from here");
        return Err(Box::new(refusal(StatusCode::FORBIDDEN, "not_allowed", why)));
    }
    let by = slot_identity(rules, shared.settings.access.name(&known)).to_owned();
    Ok((node, group, by))
}

fn undecided(error: &SlotError) -> Response {
    match error {
        SlotError::NoGroup(_) => refusal(StatusCode::NOT_FOUND, "unknown_group", error),
        error => refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error),
    }
}

async fn lock(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (node, group, by) = match read(&shared, &client, &headers, body) {
        Ok(both) => both,
        Err(refused) => return *refused,
    };
    match shared.slots.take(&group, Asker { node: node.as_str(), by: &by }, None).await {
        Ok(Answer::Yours { .. } | Answer::Free) => StatusCode::OK.into_response(),
        Ok(Answer::Wait { before }) => refusal(StatusCode::CONFLICT, "failed_lock", format_args!("{before} are before {node}")),
        Ok(Answer::Stopped { failed }) => {
            refusal(StatusCode::CONFLICT, "group_stopped", format_args!("{failed} of {group} have failed; an operator has to look at them"))
        }
        Ok(Answer::Lost(_)) => {
            refusal(StatusCode::CONFLICT, "failed_lock", "the node has a slot that was taken otherwise, or by somebody else")
        }
        Err(error) => undecided(&error),
    }
}

async fn unlock(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (node, group, by) = match read(&shared, &client, &headers, body) {
        Ok(both) => both,
        Err(refused) => return *refused,
    };
    match shared.slots.free(&group, Asker { node: node.as_str(), by: &by }, None).await {
        // Whoever holds nothing has nothing to free, and goes on.
        Ok(_) => StatusCode::OK.into_response(),
        Err(error) => undecided(&error),
    }
}
