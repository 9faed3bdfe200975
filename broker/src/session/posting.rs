//! POST: from octets to a verified, stored statement. The answer says who is at fault and what to do.

use std::net::SocketAddr;

use tidings_protocol::{
    Statement,
    article::{self, Incoming},
    limits::FUTURE_SECONDS,
    nntp::{Response, code, codec::BlockError},
    statement::Kind,
};

use crate::{
    append::{AppendError, Appended},
    clock,
    origin::New,
    shared::Shared,
};

pub(super) async fn post(shared: &Shared, peer: SocketAddr, article: Result<Vec<u8>, BlockError>) -> Response {
    let incoming = match article.map_err(|e| e.to_string()).and_then(|octets| article::parse(&octets).map_err(|e| e.to_string())) {
        Ok(incoming) => incoming,
        Err(why) => {
            tracing::info!(%peer, why, "an article is no statement");
            return Response::new(code::POST_FAILED, why);
        }
    };
    let Incoming { statement, path } = incoming;
    let id = statement.message_id();
    let path = article::prepend_hop(&shared.settings.config.name, path.as_deref());
    match append(shared, statement, path).await {
        Ok(Appended::New) => {
            shared.counts.published.add(1);
            tracing::info!(%peer, %id, "published");
            Response::new(code::POSTED, format_args!("{id} stored"))
        }
        Ok(Appended::Known) => Response::new(code::POSTED, format_args!("{id} was stored already")),
        Err(why) => {
            shared.counts.refused.add(1);
            tracing::info!(%peer, %id, %why, "a statement was refused");
            Response::new(code::POST_FAILED, why)
        }
    }
}

/// Why a well-formed statement is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0} belongs to no namespace of this broker; its operator has to add the anchor")]
    NoNamespace(String),
    #[error("{0} is copied here from other brokers; publish at its origin")]
    Mirrored(String),
    #[error("{0} is no trust log; trust statements go to {1}")]
    NoTrustLog(String, String),
    #[error("{0} has no trust yet; publish the first statement of {1} before others")]
    NoTrust(String, String),
    #[error("Time: {0} is more than {hours} hours after this broker's clock, {1}", hours = FUTURE_SECONDS / 3600)]
    Future(String, String),
    #[error(transparent)]
    Verify(#[from] tidings_protocol::verify::VerifyError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

async fn append(shared: &Shared, statement: Statement, path: String) -> Result<Appended, Refusal> {
    let channel = statement.channel().clone();
    let provisioned = shared.namespaces.of(&channel).ok_or_else(|| Refusal::NoNamespace(channel.to_string()))?;
    if shared.settings.mirror.as_ref().is_some_and(|mirror| mirror.channels.matches(channel.as_str())) {
        return Err(Refusal::Mirrored(channel.to_string()));
    }
    let now = clock::now();
    if statement.time() > now.plus(FUTURE_SECONDS) {
        return Err(Refusal::Future(statement.time().to_string(), now.to_string()));
    }
    let trust_log = provisioned.anchor.namespace.trust_log();
    if statement.kind() == Kind::Trust {
        if channel != trust_log {
            return Err(Refusal::NoTrustLog(channel.to_string(), trust_log.to_string()));
        }
        return Ok(shared.origin.append_trust(statement, path).await?);
    }
    let trust = provisioned.trust.load_full();
    let trust = trust.ok_or_else(|| Refusal::NoTrust(provisioned.anchor.namespace.to_string(), trust_log.to_string()))?;
    let verified = trust.verify(statement)?;
    Ok(shared.origin.append(New { statement: verified, trust: trust.serial(), path, term: None }).await?)
}
