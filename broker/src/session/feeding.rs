//! What other brokers offer: IHAVE (RFC 3977 section 6.3.2), CHECK and TAKETHIS (RFC 4644).
//!
//! A statement is stored, and proven, before it is answered for. What comes above a gap is kept and hidden until the gap is
//! filled; many TAKETHIS are under way at once, and answered in their order.

use std::net::SocketAddr;

use futures_util::{FutureExt, future};
use tidings_protocol::{
    MessageId,
    article::{self, Incoming},
    nntp::{Code, HERE, Response, code, codec::BlockError},
    statement::Kind,
};

use super::{End, Session};
use crate::{
    append::{AppendError, Appended, Copied, Offer, Run},
    limits::FEED_ABREAST,
    origin::New,
    shared::Shared,
};

/// Whether something that is offered by its message-id is wanted.
enum Wanted {
    Yes,
    Later(&'static str),
    No(&'static str),
}

fn wanted(session: &Session, id: &str) -> Wanted {
    let Ok(MessageId { channel, serial, id }) = id.parse::<MessageId>() else {
        return Wanted::No("no message-id of a statement");
    };
    let shared = session.shared();
    let Some(provisioned) = shared.namespaces.of(&channel) else { return Wanted::No("no namespace of this broker") };
    if !shared.settings.access.may_feed(&session.place.known, &channel) {
        return Wanted::No("you may not offer this channel");
    }
    let head = shared.logs.get(channel.as_str()).map(|log| log.marks().head);
    match head {
        // Another statement in a place that is taken is the proof of a fork: it is looked at.
        Some(_) if shared.logs.get(channel.as_str()).is_some_and(|log| log.is_settled(serial, id)) => Wanted::No(HERE),
        _ if provisioned.trust.load().is_none() && !channel.is_trust() => Wanted::Later("its trust log has to come first"),
        _ => Wanted::Yes,
    }
}

fn not_a_peer(session: &Session) -> Option<Response> {
    let access = &session.shared().settings.access;
    let known = access.may_feed_something(&session.place.known);
    (!known).then(|| Response::new(code::WHO_ARE_YOU, "only peers may offer what others have published; publish by POST"))
}

pub(super) fn check(session: &mut Session, id: &str) -> Result<(), End> {
    let answer = |code: Code, why: &str| Response::new(code, format_args!("{id} {why}"));
    let response = not_a_peer(session).unwrap_or_else(|| match wanted(session, id) {
        Wanted::Yes => answer(code::WANTED, ""),
        Wanted::Later(why) => answer(code::CHECK_LATER, why),
        Wanted::No(why) => answer(code::CHECK_NOT_WANTED, why),
    });
    if session.pending.is_empty() {
        session.respond(response.code, response.text.trim_end());
    } else {
        session.pending.push_back(future::ready(response).boxed());
    }
    Ok(())
}

pub(super) fn ihave(session: &Session, id: &str) -> Response {
    not_a_peer(session).unwrap_or_else(|| match wanted(session, id) {
        Wanted::Yes => Response::new(code::SEND_IT, "send it, end it with a dot"),
        Wanted::Later(why) => Response::new(code::TRANSFER_LATER, why),
        Wanted::No(why) => Response::new(code::NOT_WANTED, why),
    })
}

/// What becomes of an article.
enum Outcome {
    Stored,
    /// It was here already.
    Known,
    Later(String),
    Never(String),
}

impl From<AppendError> for Outcome {
    fn from(error: AppendError) -> Self {
        if error.is_passing() { Outcome::Later(error.to_string()) } else { Outcome::Never(error.to_string()) }
    }
}

/// The article after IHAVE.
pub(super) async fn transfer(shared: &Shared, peer: SocketAddr, known: &[usize], article: Result<Vec<u8>, BlockError>) -> Response {
    let outcome = match begin(shared, known, article).await {
        Ok(stored) => stored.await,
        Err(outcome) => outcome,
    };
    report(shared, peer, known, &outcome);
    match outcome {
        Outcome::Stored => Response::new(code::TRANSFERRED, "stored"),
        Outcome::Known => Response::new(code::TRANSFERRED, "it was stored already"),
        Outcome::Later(why) => Response::new(code::TRANSFER_LATER, why),
        Outcome::Never(why) => Response::new(code::TRANSFER_REFUSED, why),
    }
}

/// The article after TAKETHIS; the answer comes when it is stored, and others are read meanwhile.
pub(super) async fn take_this(session: &mut Session, id: String, article: Result<Vec<u8>, BlockError>) -> Result<(), End> {
    if let Some(response) = not_a_peer(session) {
        session.settle().await?;
        session.respond(response.code, response.text);
        return Ok(());
    }
    while session.pending.len() >= FEED_ABREAST {
        let next = futures_util::StreamExt::next(&mut session.pending).await;
        next.map_or(Ok(()), |response| session.respond_to_feed(response))?;
    }
    let (shared, peer, known) = (session.shared().clone(), session.place.peer, session.place.known.clone());
    let begun = begin(&shared, &known, article).await;
    let answer = async move {
        let outcome = match begun {
            Ok(stored) => stored.await,
            Err(outcome) => outcome,
        };
        report(&shared, peer, &known, &outcome);
        match outcome {
            Outcome::Stored | Outcome::Known => Response::new(code::TAKEN, id),
            Outcome::Later(why) => Response::new(code::UNAVAILABLE, format_args!("not now: {why}")),
            Outcome::Never(why) => Response::new(code::TAKE_REFUSED, format_args!("{id} {why}")),
        }
    };
    session.pending.push_back(answer.boxed());
    Ok(())
}

fn report(shared: &Shared, peer: SocketAddr, known: &[usize], outcome: &Outcome) {
    let name = shared.settings.access.name(known);
    match outcome {
        Outcome::Stored | Outcome::Known => {}
        Outcome::Later(why) => tracing::info!(%peer, name, why, "what a peer sent is put off"),
        Outcome::Never(why) => tracing::warn!(%peer, name, why, "what a peer sent is refused"),
    }
}

/// Verifies an article and hands it to the writer. When this returns, what is handed over later comes later.
async fn begin(
    shared: &Shared,
    known: &[usize],
    article: Result<Vec<u8>, BlockError>,
) -> Result<future::BoxFuture<'static, Outcome>, Outcome> {
    let octets = article.map_err(|error| Outcome::Never(error.to_string()))?;
    let Incoming { statement, path } = article::parse(&octets).map_err(|error| Outcome::Never(error.to_string()))?;
    let channel = statement.channel().clone();
    let provisioned = shared.namespaces.of(&channel).filter(|_| shared.settings.access.may_feed(known, &channel));
    let provisioned = provisioned.ok_or_else(|| Outcome::Never(format!("{channel} is not taken from you here")))?;
    let path = article::prepend_hop(&shared.settings.config.name, path.as_deref());
    let clustered = shared.cluster.as_ref().is_some_and(|cluster| cluster.settles(&channel));
    if statement.kind() == Kind::Trust && channel == provisioned.anchor.namespace.trust_log() {
        // It decides about what comes after it.
        let settled = match clustered {
            true => shared.origin.append_trust(statement, path).await,
            false => shared.appender.append_trust(statement, path).await,
        };
        let outcome = match settled {
            Ok(Appended::New) => Outcome::Stored,
            Ok(Appended::Known) => Outcome::Known,
            Err(AppendError::NotFirst) => Outcome::Later("the trust log begins earlier".into()),
            Err(error) => error.into(),
        };
        return Ok(future::ready(outcome).boxed());
    }
    let trust = provisioned.trust.load_full();
    let trust = trust.ok_or_else(|| Outcome::Later(AppendError::NoTrust(channel.clone()).to_string()))?;
    if clustered {
        // What comes next is settled with the others; what comes later waits for its turn.
        let serial = statement.serial();
        let statement = trust.verify(statement).map_err(|error| Outcome::from(AppendError::from(error)))?;
        let outcome = match shared.origin.append(New { statement, trust: trust.serial(), path, term: None }).await {
            Ok(Appended::New) => Outcome::Stored,
            Ok(Appended::Known) => Outcome::Known,
            Err(AppendError::LostRace(head)) if serial > head.serial => Outcome::Later("what lies below comes first".into()),
            Err(AppendError::NotFirst) => Outcome::Later("the channel's first statement comes first".into()),
            Err(error) => error.into(),
        };
        return Ok(future::ready(outcome).boxed());
    }
    let offer = match trust.verify_or_return(statement) {
        Ok(statement) => Offer::Verified(statement, trust.serial()),
        // Perhaps its successor, which is here, vouches for it.
        Err(refused) => Offer::Unproven(refused.0),
    };
    let run = Run { channel, copies: vec![(offer, path)], is_floor: false, accept_gap: false };
    let stored = shared.appender.offer(run).await;
    let outcome = async {
        match stored.await {
            Ok(Copied::Known) => Outcome::Known,
            Ok(Copied::New | Copied::Wants { .. }) => Outcome::Stored,
            Err(error) => error.into(),
        }
    };
    Ok(outcome.boxed())
}
