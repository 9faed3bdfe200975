//! Slots: asking whether this machine may go down (spec part 6), by FleetLock with its optional
//! members.

mod server;
mod status;

use std::time::Duration;

use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_protocol::{Serial, slot::SlotName};
use tokio::time::{Instant, sleep, timeout};

pub use server::{SlotServer, SlotServerError};
pub use status::{SlotEvent, SlotFailure, SlotHolder, SlotStatus, SlotWaiter};

use crate::{
    Tls,
    limits::{LOOK, SLOT_AGAIN, SLOT_HOLD, SLOT_RETRY},
};

/// A slot that was given.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// What [`Slots::hold`] and [`Slots::free`] want. A later one of the same node takes its place.
    pub token: u64,
    /// From then on it does not count any more. Measured from before it was asked for, so that a
    /// late answer promises nothing.
    pub until: Instant,
}

/// Why there is no slot. The machine must not go down then, whatever it is (attack 78).
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Others are down, or were there earlier.
    #[error("{before} are before this node; ask again in {again:?}")]
    Wait {
        /// How many.
        before: u64,
        /// When to ask again.
        again: Duration,
    },
    /// As many have failed as may, or this node has.
    #[error("the group is stopped: {0}")]
    Stopped(String),
    /// The token does not count any more.
    #[error("the slot is lost: {0}")]
    Lost(String),
    /// No server has such a group.
    #[error("no slot server has a group {0}")]
    NoGroup(SlotName),
    /// No server is configured.
    #[error("no slot server is configured")]
    NoServer,
    /// It could not be decided, or this node may not ask.
    #[error("{server}: {source}")]
    Ask {
        /// The server that was asked last.
        server: SlotServer,
        /// Why.
        source: Box<SlotServerError>,
    },
}

/// Asks slot servers, in turn. Several have to be members of one cluster: only then have they the
/// same slots.
pub struct Slots {
    servers: Vec<SlotServer>,
    tls: Tls,
    bearer: Option<String>,
}

#[derive(Deserialize)]
struct Given {
    token: String,
    lease_seconds: u64,
}

#[derive(Deserialize)]
struct Refused {
    kind: String,
    value: String,
    position: Option<u64>,
}

impl Slots {
    /// Asks these servers; `tls` has the certificate that names this node, if they want one.
    pub fn new(servers: Vec<SlotServer>, tls: Tls) -> Self {
        Self {
            servers,
            tls,
            bearer: None,
        }
    }

    /// Sends a bearer token with each request, over TLS only.
    #[must_use]
    pub fn with_bearer(self, token: &str) -> Self {
        Self {
            bearer: Some(token.into()),
            ..self
        }
    }

    /// A slot for a node that is about to apply a serial, if one is free; after a reboot the same
    /// slot again, with another token.
    ///
    /// # Errors
    /// [`SlotError`]; with [`SlotError::Wait`] the node has no place in the queue.
    pub async fn take(
        &mut self,
        group: &SlotName,
        node: &SlotName,
        serial: Serial,
    ) -> Result<Slot, SlotError> {
        let body = json!({"client_params": params(group, node), "serial": serial.number()});
        self.slot(group, body).await
    }

    /// The same, and waits for its turn for as long as `patience`; the server says so at once.
    /// Dropping what is returned gives the place in the queue up.
    ///
    /// # Errors
    /// As [`Slots::take`].
    pub async fn wait_for(
        &mut self,
        group: &SlotName,
        node: &SlotName,
        serial: Serial,
        patience: Duration,
    ) -> Result<Slot, SlotError> {
        let until = Instant::now() + patience;
        loop {
            let asked = Instant::now();
            let wait = SLOT_HOLD.min(until.saturating_duration_since(asked));
            let body = json!({"client_params": params(group, node), "serial": serial.number(), "wait_seconds": wait.as_secs()});
            let again = match self.slot(group, body).await {
                // It was held to the end; a server that holds nothing is not asked at once.
                Err(SlotError::Wait { .. }) if asked.elapsed() >= wait => Duration::ZERO,
                Err(SlotError::Wait { again, .. }) => again,
                // Servers that cannot decide now may be able to in a moment.
                Err(SlotError::Ask { .. }) => SLOT_RETRY,
                other => return other,
            };
            if Instant::now() + again >= until {
                return self.take(group, node, serial).await;
            }
            sleep(again).await;
        }
    }

    /// Whether a token still counts, which is to be asked immediately before going down; the lease
    /// begins anew.
    ///
    /// # Errors
    /// [`SlotError`]: do not go down then.
    pub async fn hold(
        &mut self,
        group: &SlotName,
        node: &SlotName,
        token: u64,
    ) -> Result<Slot, SlotError> {
        let body = json!({"client_params": params(group, node), "token": token.to_string()});
        self.slot(group, body).await
    }

    /// The node is back, and well.
    ///
    /// # Errors
    /// [`SlotError::Lost`] if it was late: then it counts as failed.
    pub async fn free(
        &mut self,
        group: &SlotName,
        node: &SlotName,
        token: u64,
    ) -> Result<(), SlotError> {
        let body = json!({"client_params": params(group, node), "token": token.to_string()});
        let path = "/v1/steady-state";
        self.ask(group, Method::POST, path, body).await.map(drop)
    }

    /// An operator has looked at a node.
    ///
    /// # Errors
    /// [`SlotError::Lost`] if nothing is known of it.
    pub async fn clear(&mut self, group: &SlotName, node: &SlotName) -> Result<(), SlotError> {
        let path = format!("/v1/groups/{group}/clear");
        let body = json!({"id": node.as_str()});
        self.ask(group, Method::POST, &path, body).await.map(drop)
    }

    /// Who is down, who waits, who has failed, and what has happened.
    ///
    /// # Errors
    /// [`SlotError`].
    pub async fn status(&mut self, group: &SlotName) -> Result<SlotStatus, SlotError> {
        let path = format!("/v1/groups/{group}");
        let answer = self.ask(group, Method::GET, &path, Value::Null).await?;
        self.read(&answer)
    }

    async fn slot(&mut self, group: &SlotName, body: Value) -> Result<Slot, SlotError> {
        let asked = Instant::now();
        let answer = self
            .ask(group, Method::POST, "/v1/pre-reboot", body)
            .await?;
        let given: Given = self.read(&answer)?;
        let token = given
            .token
            .parse()
            .map_err(|_| self.at(SlotServerError::Token))?;
        Ok(Slot {
            token,
            until: asked + Duration::from_secs(given.lease_seconds.min(30 * 86_400)),
        })
    }

    fn read<'a, T: Deserialize<'a>>(&self, answer: &'a [u8]) -> Result<T, SlotError> {
        serde_json::from_slice(answer).map_err(|error| self.at(error.into()))
    }

    /// An error of the server that is asked now.
    fn at(&self, source: SlotServerError) -> SlotError {
        match self.servers.first() {
            Some(server) => SlotError::Ask {
                server: server.clone(),
                source: Box::new(source),
            },
            None => SlotError::NoServer,
        }
    }

    /// One server after the other, until one has decided; the next request begins with that.
    async fn ask(
        &mut self,
        group: &SlotName,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Vec<u8>, SlotError> {
        let mut failed = SlotError::NoServer;
        let held = Duration::from_secs(body["wait_seconds"].as_u64().unwrap_or(0));
        for _ in 0..self.servers.len() {
            let asked = self.ask_one(method.clone(), path, &body);
            let answer = timeout(LOOK + held, asked).await;
            let answer = answer.unwrap_or(Err(SlotServerError::Silent(LOOK)));
            failed = match answer {
                Ok((status, octets)) if status.is_success() => return Ok(octets),
                Ok((status, octets)) => self.refused(group, status, &octets),
                Err(source) => self.at(source),
            };
            if !matches!(failed, SlotError::Ask { .. } | SlotError::NoGroup(_)) {
                break;
            }
            self.servers.rotate_left(1);
        }
        Err(failed)
    }

    async fn ask_one(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(StatusCode, Vec<u8>), SlotServerError> {
        let Some(server) = self.servers.first() else {
            return Err(SlotServerError::Silent(LOOK));
        };
        let mut request = Request::builder()
            .method(method)
            .header("fleet-lock-protocol", "true")
            .header("content-type", "application/json");
        if let Some(bearer) = &self.bearer {
            server.may_have_secrets()?;
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let body = match body {
            Value::Null => Full::default(),
            body => Full::new(body.to_string().into()),
        };
        server.exchange(&self.tls, path, request, body).await
    }

    fn refused(&self, group: &SlotName, status: StatusCode, octets: &[u8]) -> SlotError {
        let refused = serde_json::from_slice(octets).unwrap_or_else(|_| Refused {
            kind: String::new(),
            value: "without a reason".into(),
            position: None,
        });
        let Refused {
            kind,
            value,
            position,
        } = refused;
        match (status.as_u16(), kind.as_str()) {
            (_, "group_stopped") => SlotError::Stopped(value),
            (_, "lost_lock" | "unknown_id") => SlotError::Lost(value),
            (_, "unknown_group") => SlotError::NoGroup(group.clone()),
            (409 | 423, _) => SlotError::Wait {
                before: position.unwrap_or(1),
                again: SLOT_AGAIN,
            },
            (status, _) => self.at(SlotServerError::Refused {
                status,
                kind,
                value,
            }),
        }
    }
}

fn params(group: &SlotName, node: &SlotName) -> Value {
    json!({"id": node.as_str(), "group": group.as_str()})
}
