//! Who asks for what: members by name, and who may.

use std::{net::SocketAddr, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION, request::Parts},
};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value};
use tidings_protocol::{Serial, slot::SlotName};

use super::{FleetLock, Refusal, refusal};
use crate::{admin::http, config::SlotGroup, limits::SLOT_WAIT, net::access::Known};

pub(super) fn malformed(value: impl std::fmt::Display) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, "malformed_request", value)
}

/// Who asks, as far as the connection and the headers say.
pub(super) struct Client {
    pub(super) address: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    known: Known,
    has_header: bool,
}

impl FromRequestParts<FleetLock> for Client {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, fleetlock: &FleetLock) -> Result<Self, Refusal> {
        let http::Client {
            address,
            certificate,
            ..
        } = parts
            .extensions
            .get()
            .cloned()
            .ok_or_else(|| malformed("the connection has no address"))?;
        let access = &fleetlock.access;
        let mut known = access.who(address.ip(), certificate.as_deref());
        if let Some(token) = bearer(&parts.headers) {
            let no = |value| Err(refusal(StatusCode::FORBIDDEN, "not_allowed", value));
            if fleetlock.connections.is_guessing(address.ip()) {
                return no("too many logins have failed from your address; try again later");
            }
            let Some(peer) = access.bearer(token) else {
                tracing::warn!(peer = %address, "a bearer token is not known");
                fleetlock.connections.note_failed_login(address.ip());
                return no("no peer has this bearer token");
            };
            known.retain(|other| *other != peer);
            known.insert(0, peer);
        }
        let has_header = parts
            .headers
            .get("fleet-lock-protocol")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        Ok(Self {
            address,
            certificate,
            known,
            has_header,
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}

impl Client {
    /// The header that no browser sends for a page of somebody else.
    pub(super) fn means_it(&self) -> Result<(), Refusal> {
        match self.has_header {
            true => Ok(()),
            false => Err(malformed("the header fleet-lock-protocol: true is missing")),
        }
    }

    pub(super) fn name<'a>(&self, fleetlock: &'a FleetLock) -> &'a str {
        fleetlock.access.name(&self.known)
    }

    fn is_one_of(&self, peers: &[usize]) -> bool {
        peers.iter().any(|peer| self.known.contains(peer))
    }

    pub(super) fn operates(
        &self,
        fleetlock: &FleetLock,
        group: &SlotName,
    ) -> Result<bool, Refusal> {
        Ok(self.is_one_of(&fleetlock.slots.rules(group)?.operators))
    }

    /// As whom a client that may have slots of a group is known, and for this node. Where a
    /// certificate has to name the node, that is enough, and may be renewed.
    pub(super) fn taker(
        &self,
        fleetlock: &FleetLock,
        group: &SlotName,
        node: Option<&SlotName>,
    ) -> Result<String, Refusal> {
        let SlotGroup {
            takers,
            certificate,
            ..
        } = fleetlock.slots.rules(group)?;
        let not = |value: String| Err(refusal(StatusCode::FORBIDDEN, "not_allowed", value));
        if takers.as_ref().is_some_and(|peers| !self.is_one_of(peers)) {
            return not(format!("only `takers` of {group} may ask for it"));
        }
        if !certificate {
            return Ok(self.name(fleetlock).to_owned());
        }
        match (&self.certificate, node) {
            (Some(der), Some(node)) if names(der, node) => Ok("certificate".into()),
            (Some(_), None) => Ok("certificate".into()),
            (_, Some(node)) => not(format!(
                "for slots of {group} a client certificate has to name {node}"
            )),
            (None, None) => not(format!("{group} is for clients with a certificate")),
        }
    }
}

/// Whether a certificate, which the handshake has verified, names a node: letter by letter, so that
/// it is no other node in another spelling, and without wildcards.
fn names(certificate: &CertificateDer<'_>, node: &SlotName) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
        certificate
            .valid_dns_names()
            .any(|name| name == node.as_str())
    })
}

/// What a machine asks for.
pub(super) struct Lock {
    pub(super) node: SlotName,
    pub(super) group: SlotName,
    pub(super) serial: Option<Serial>,
    pub(super) token: Option<u64>,
    pub(super) wait: Duration,
}

impl Lock {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let body = object(body)?;
        let params = body.get("client_params").and_then(Value::as_object);
        let params = params.ok_or_else(|| {
            wrong(
                "client_params",
                "an object with id and group",
                body.get("client_params"),
            )
        })?;
        let serial = |value: &Value| Serial::new(u32::try_from(value.as_u64()?).ok()?);
        let token = |value: &Value| value.as_str()?.parse().ok();
        let most = SLOT_WAIT.as_secs();
        let seconds = |value: &Value| value.as_u64().filter(|seconds| *seconds <= most);
        Ok(Self {
            node: name(params, "id", "client_params.id")?,
            group: name(params, "group", "client_params.group")?,
            serial: optional(&body, "serial", "a serial, 1 or more", serial)?,
            token: optional(
                &body,
                "token",
                "a token, as it was given: a text of digits",
                token,
            )?,
            wait: optional(&body, "wait_seconds", &format!("0 to {most}"), seconds)?
                .map_or(Duration::ZERO, Duration::from_secs),
        })
    }
}

/// The node that an operator clears.
pub(super) fn id(body: &[u8]) -> Result<SlotName, Refusal> {
    name(&object(body)?, "id", "id")
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| malformed(format_args!("the body is no JSON object: {error}")))
}

fn wrong(member: &str, expected: &str, found: Option<&Value>) -> Refusal {
    let found = match found {
        None => "none".to_owned(),
        // Not more of it than a person reads.
        Some(value) => value.to_string().chars().take(100).collect(),
    };
    malformed(format_args!("{member}: expected {expected}, found {found}"))
}

fn name(object: &Map<String, Value>, key: &str, member: &str) -> Result<SlotName, Refusal> {
    let text = object
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| wrong(member, "a text", object.get(key)))?;
    text.parse()
        .map_err(|error| malformed(format_args!("{member}: {error}")))
}

fn optional<T>(
    object: &Map<String, Value>,
    key: &str,
    expected: &str,
    parse: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => parse(value)
            .map(Some)
            .ok_or_else(|| wrong(key, expected, Some(value))),
    }
}
