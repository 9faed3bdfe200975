//! FleetLock: the slots for machines that speak the protocol of Zincati.
//!
//! `POST /v1/pre-reboot` takes a slot, `POST /v1/steady-state` frees it; both may be asked again.
//! Every refusal has a body with `kind`, a word for programs, and `value`, a sentence for people.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequest, State},
    http::StatusCode,
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
        .fallback(async || {
            refusal(
                StatusCode::NOT_FOUND,
                "unknown_path",
                "FleetLock has /v1/pre-reboot and /v1/steady-state",
            )
        })
        .method_not_allowed_fallback(async || {
            refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "wrong_method",
                "FleetLock is spoken with POST",
            )
        })
        .with_state(shared)
}

/// Why not.
struct Refusal {
    status: StatusCode,
    kind: &'static str,
    value: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (
            self.status,
            Json(json!({"kind": self.kind, "value": self.value})),
        )
            .into_response()
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
    }
}

fn malformed(value: impl std::fmt::Display) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, "malformed_request", value)
}

/// What is asked, understood and allowed.
struct Request {
    node: SlotName,
    group: SlotName,
    by: String,
}

impl Request {
    fn asker(&self) -> Asker<'_> {
        Asker {
            node: self.node.as_str(),
            by: &self.by,
        }
    }
}

impl FromRequest<Arc<Shared>> for Request {
    type Rejection = Refusal;

    async fn from_request(
        request: axum::extract::Request,
        shared: &Arc<Shared>,
    ) -> Result<Self, Refusal> {
        if request
            .headers()
            .get("fleet-lock-protocol")
            .is_none_or(|value| value != "true")
        {
            return Err(malformed("the header fleet-lock-protocol: true is missing"));
        }
        let Client {
            address,
            certificate,
        } = request
            .extensions()
            .get()
            .cloned()
            .ok_or_else(|| malformed("nobody asks"))?;
        let body = Bytes::from_request(request, shared).await;
        let body = body.map_err(|error| refusal(error.status(), "malformed_request", &error))?;
        let Body {
            client_params: ClientParams { id, group },
        } = serde_json::from_slice(&body).map_err(malformed)?;
        let (node, group): (SlotName, SlotName) = (
            id.parse().map_err(malformed)?,
            group.parse().map_err(malformed)?,
        );
        let rules = shared.slots.rules(&group)?;
        let known = shared
            .settings
            .access
            .who(address.ip(), certificate.as_deref());
        let taker = rules
            .takers
            .as_ref()
            .is_none_or(|takers| takers.iter().any(|taker| known.contains(taker)));
        let named = !rules.certificate
            || certificate
                .as_ref()
                .is_some_and(|der| certificate_names(der, &node));
        if !taker || !named {
            return Err(refusal(
                StatusCode::FORBIDDEN,
                "not_allowed",
                format_args!("{node} may have no slots of {group} from here"),
            ));
        }
        let by = slot_identity(rules, shared.settings.access.name(&known)).to_owned();
        Ok(Self { node, group, by })
    }
}

async fn lock(State(shared): State<Arc<Shared>>, request: Request) -> Result<StatusCode, Refusal> {
    let conflict = |kind, value: String| Err(refusal(StatusCode::CONFLICT, kind, value));
    let Request { node, group, .. } = &request;
    match shared.slots.take(group, request.asker(), None).await? {
        Answer::Yours { .. } | Answer::Free => Ok(StatusCode::OK),
        Answer::Wait { before } => conflict("failed_lock", format!("{before} are before {node}")),
        Answer::Stopped { failed } => conflict(
            "group_stopped",
            format!("{failed} of {group} have failed; an operator has to look at them"),
        ),
        Answer::Lost(_) => conflict(
            "failed_lock",
            format!("{node} has a slot that was taken otherwise, or by somebody else"),
        ),
    }
}

async fn unlock(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    // Whoever holds nothing has nothing to free, and goes on.
    shared
        .slots
        .free(&request.group, request.asker(), None)
        .await?;
    Ok(StatusCode::OK)
}
