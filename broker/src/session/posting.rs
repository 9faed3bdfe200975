//! POST: from octets to a verified, stored statement. The answer says who is at fault and what to
//! do.

use tidings_protocol::{
    Statement,
    article::{self, Incoming},
    nntp::{Response, code, codec::BlockError},
    statement::Kind,
    trust::Trust,
};

use super::Session;
use crate::{
    clock,
    log::append::{AppendError, Appended},
    origin::New,
};

pub(super) async fn post(session: &mut Session, article: Result<Vec<u8>, BlockError>) -> Response {
    let shared = session.shared().clone();
    let incoming = match article
        .map_err(|e| e.to_string())
        .and_then(|octets| article::parse(&octets).map_err(|e| e.to_string()))
    {
        Ok(incoming) => incoming,
        Err(why) => return Response::new(code::POST_FAILED, why),
    };
    let Incoming { statement, path } = incoming;
    let id = statement.message_id();
    let path = article::prepend_hop(&shared.settings.config.name, path.as_deref());
    // What somebody may not read does not exist for them: who cannot sign there learns nothing by
    // trying (attack 113).
    let is_hidden = !shared
        .settings
        .access
        .may_read(&session.place.known, statement.channel());
    let channel = statement.channel().to_string();
    let appended = append(session, statement, path).await;
    match appended.map_err(|refusal| {
        if is_hidden {
            Refusal::NoNamespace(channel)
        } else {
            refusal
        }
    }) {
        Ok(Appended::New) => {
            shared.counts.published.add(1);
            tracing::info!(peer = %session.place.peer, %id, "published");
            Response::new(code::POSTED, format_args!("{id} stored"))
        }
        Ok(Appended::Known) => Response::new(code::POSTED, format_args!("{id} was stored already")),
        Err(why) => {
            shared.counts.refused.add(1);
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
    #[error(transparent)]
    Verify(#[from] tidings_protocol::verify::VerifyError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

async fn append(
    session: &mut Session,
    statement: Statement,
    path: String,
) -> Result<Appended, Refusal> {
    let (shared, channel) = (session.shared().clone(), statement.channel().clone());
    let provisioned = shared
        .namespaces
        .of(&channel)
        .ok_or_else(|| Refusal::NoNamespace(channel.to_string()))?;
    if shared
        .settings
        .mirror
        .as_ref()
        .is_some_and(|mirror| mirror.channels.matches(channel.as_str()))
    {
        return Err(Refusal::Mirrored(channel.to_string()));
    }
    provisioned.check_time(statement.time(), clock::now())?;
    let trust_log = provisioned.anchor.namespace.trust_log();
    if statement.kind() == Kind::Trust {
        if channel != trust_log {
            return Err(Refusal::NoTrustLog(
                channel.to_string(),
                trust_log.to_string(),
            ));
        }
        return Ok(shared.origin.append_trust(statement, path, true).await?);
    }
    let trust = provisioned.trust.load_full();
    let trust = trust.ok_or_else(|| {
        Refusal::NoTrust(
            provisioned.anchor.namespace.to_string(),
            trust_log.to_string(),
        )
    })?;
    let verified = trust.verify(with_what_counts(&trust, statement))?;
    Ok(shared
        .origin
        .append(New {
            statement: verified,
            trust: trust.serial(),
            path,
            term: None,
        })
        .await?)
}

/// A statement with those of its signatures alone that count; one that has no more than its role
/// needs has no others, or is refused.
fn with_what_counts(trust: &Trust, statement: Statement) -> Statement {
    let needed = trust
        .role(statement.kind(), statement.channel())
        .map_or(usize::MAX, |role| role.threshold);
    match statement.signatures().len() > needed {
        true => statement.with_signatures(|key| trust.counts(&statement, key)),
        false => statement,
    }
}
