//! What other brokers offer: IHAVE (RFC 3977 section 6.3.2), CHECK and TAKETHIS (RFC 4644).
//!
//! A statement is stored, and proven, before it is answered for. Many TAKETHIS are under way at
//! once, and answered in their order; what comes before what lies below it waits in the writer's
//! window.

use futures_util::{FutureExt, StreamExt, future};
use tidings_protocol::{
    MessageId, Serial, Statement,
    article::{self, Incoming},
    nntp::{Code, HERE, Response, code, codec::BlockError},
    statement::Kind,
    trust::Trust,
};

use super::{End, Session};
use crate::{
    limits::{FEED_ABREAST, FEED_AHEAD},
    log::append::{Answer, AppendError, Appended, Copy, Peer},
    origin::New,
    shared::Shared,
};

/// Whether something that is offered by its message-id is wanted.
enum Wanted {
    Yes,
    Later(&'static str),
    No(&'static str),
}

fn wanted(session: &mut Session, id: &str) -> Wanted {
    let Ok(MessageId {
        channel,
        serial,
        id,
    }) = id.parse::<MessageId>()
    else {
        return Wanted::No("no message-id of a statement");
    };
    let shared = session.shared().clone();
    // What somebody may not offer is told apart from nothing (attack 113).
    let allowed = shared
        .settings
        .access
        .may_feed(&session.place.known, &channel);
    let Some(provisioned) = shared.namespaces.of(&channel).filter(|_| allowed) else {
        return Wanted::No("not wanted from you");
    };
    let log = shared.logs.get(channel.as_str());
    if log.as_ref().is_some_and(|log| log.is_settled(serial, id))
        && !is_below_trust(&shared, &channel, serial)
    {
        return Wanted::No(HERE);
    }
    let trust_log = provisioned.anchor.namespace.trust_log();
    if channel == trust_log {
        // What comes after it on this connection can count on it.
        session.promised.entry(channel).or_insert(serial.number());
        return Wanted::Yes;
    }
    if provisioned.trust.load().is_none() && !session.promised.contains_key(&trust_log) {
        return Wanted::Later("its trust log has to come first");
    }
    if channel.is_beat() {
        return Wanted::Yes;
    }
    let head = log.map(|log| log.marks().head.serial.number());
    let backfill = shared.logs.backfill(&channel);
    let promised = session.promised.get(&channel).copied();
    match reach(serial.number(), head, backfill, promised) {
        Reach::Head => {
            session
                .promised
                .insert(channel, serial.number().max(promised.unwrap_or(0)));
            Wanted::Yes
        }
        Reach::Backfill => Wanted::Yes,
        Reach::Far => Wanted::Later("what lies below comes first"),
    }
}

/// What an offered statement may soon hang together with.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// The head, or what this peer was promised above it.
    Head,
    Backfill,
    Far,
}

/// Further ahead than [`FEED_AHEAD`], a peer has to offer first what lies below.
fn reach(
    serial: u32,
    head: Option<u32>,
    backfill: Option<(Serial, Serial)>,
    promised: Option<u32>,
) -> Reach {
    let next = head.max(promised);
    let near = |(lowest, top): (Serial, Serial)| {
        (lowest.number().saturating_sub(FEED_AHEAD)..=top.number().saturating_add(FEED_AHEAD))
            .contains(&serial)
    };
    match (next, backfill) {
        (Some(next), _) if serial <= next.saturating_add(FEED_AHEAD) => Reach::Head,
        (_, Some(backfill)) if near(backfill) => Reach::Backfill,
        (None, None) => Reach::Head,
        (None, Some(_)) if serial <= FEED_AHEAD => Reach::Head,
        _ => Reach::Far,
    }
}

/// Whether a place of a trust log is below what is here: it is filled from above.
fn is_below_trust(shared: &Shared, channel: &tidings_protocol::Channel, serial: Serial) -> bool {
    channel.is_trust()
        && shared
            .logs
            .get(channel.as_str())
            .is_some_and(|log| serial < log.marks().low)
}

fn not_a_peer(session: &Session) -> Option<Response> {
    let access = &session.shared().settings.access;
    let known = access.may_feed_something(&session.place.known);
    (!known).then(|| {
        Response::new(
            code::WHO_ARE_YOU,
            "only peers may offer what others have published; publish by POST",
        )
    })
}

pub(super) fn check(session: &mut Session, id: &str) -> Result<(), End> {
    let answer = |code: Code, why: &str| Response::new(code, format_args!("{id} {why}"));
    let response = match not_a_peer(session) {
        Some(refusal) => refusal,
        None => match wanted(session, id) {
            Wanted::Yes => answer(code::WANTED, ""),
            Wanted::Later(why) => answer(code::CHECK_LATER, why),
            Wanted::No(why) => answer(code::CHECK_NOT_WANTED, why),
        },
    };
    if session.pending.is_empty() {
        session.respond(response.code, response.text.trim_end());
    } else {
        session.pending.push_back(future::ready(response).boxed());
    }
    Ok(())
}

pub(super) fn ihave(session: &mut Session, id: &str) -> Response {
    if let Some(refusal) = not_a_peer(session) {
        return refusal;
    }
    match wanted(session, id) {
        Wanted::Yes => Response::new(code::SEND_IT, "send it, end it with a dot"),
        Wanted::Later(why) => Response::new(code::TRANSFER_LATER, why),
        Wanted::No(why) => Response::new(code::NOT_WANTED, why),
    }
}

/// What becomes of an article.
enum Outcome {
    Stored,
    /// It was here already.
    Known,
    Later(String),
    Never(String),
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok(Appended::New) => Outcome::Stored,
            Ok(Appended::Known) => Outcome::Known,
            Err(error) if error.is_passing() => Outcome::Later(error.to_string()),
            Err(error) => Outcome::Never(error.to_string()),
        }
    }
}

/// The article after IHAVE.
pub(super) async fn transfer(
    session: &mut Session,
    article: Result<Vec<u8>, BlockError>,
) -> Response {
    let (shared, known, peer) = (
        session.shared().clone(),
        session.place.known.clone(),
        session.place.number,
    );
    let outcome = match begin(&shared, &known, peer, article).await {
        Ok(stored) => {
            // It sends nothing more before it has the answer.
            shared.appender.stalled(peer).await;
            stored.await
        }
        Err(outcome) => outcome,
    };
    match outcome {
        Outcome::Stored => Response::new(code::TRANSFERRED, "stored"),
        Outcome::Known => Response::new(code::TRANSFERRED, "it was stored already"),
        Outcome::Later(why) => Response::new(code::TRANSFER_LATER, why),
        Outcome::Never(why) => Response::new(code::TRANSFER_REFUSED, why),
    }
}

/// The article after TAKETHIS; the answer comes when it is stored, and others are read meanwhile.
pub(super) async fn take_this(
    session: &mut Session,
    id: String,
    article: Result<Vec<u8>, BlockError>,
) -> Result<(), End> {
    if let Some(response) = not_a_peer(session) {
        session.settle().await?;
        session.respond(response.code, response.text);
        return Ok(());
    }
    if session.pending.len() >= FEED_ABREAST {
        // Nothing more is read from it before it has some of its answers.
        session
            .shared()
            .appender
            .stalled(session.place.number)
            .await;
    }
    while session.pending.len() >= FEED_ABREAST {
        let next = session.pending.next().await;
        next.map_or(Ok(()), |response| session.respond_to_feed(response))?;
    }
    let (shared, known, peer) = (
        session.shared().clone(),
        session.place.known.clone(),
        session.place.number,
    );
    let begun = begin(&shared, &known, peer, article).await;
    let answer = async move {
        let outcome = match begun {
            Ok(stored) => stored.await,
            Err(outcome) => outcome,
        };
        match outcome {
            Outcome::Stored | Outcome::Known => Response::new(code::TAKEN, id),
            Outcome::Later(why) => Response::new(code::UNAVAILABLE, format_args!("not now: {why}")),
            Outcome::Never(why) => Response::new(code::TAKE_REFUSED, format_args!("{id} {why}")),
        }
    };
    session.pending.push_back(answer.boxed());
    Ok(())
}

type Stored = future::BoxFuture<'static, Outcome>;

/// Verifies an article and hands it to the writer. When this returns, what is handed over later
/// comes later.
async fn begin(
    shared: &Shared,
    known: &[usize],
    peer: Peer,
    article: Result<Vec<u8>, BlockError>,
) -> Result<Stored, Outcome> {
    let octets = article.map_err(|error| Outcome::Never(error.to_string()))?;
    let Incoming { statement, path } =
        article::parse(&octets).map_err(|error| Outcome::Never(error.to_string()))?;
    let channel = statement.channel().clone();
    let provisioned = shared
        .namespaces
        .of(&channel)
        .filter(|_| shared.settings.access.may_feed(known, &channel));
    let provisioned = provisioned.ok_or_else(|| Outcome::Never("not wanted from you".into()))?;
    let path = article::prepend_hop(&shared.settings.config.name, path.as_deref());
    let clustered = shared
        .cluster
        .as_ref()
        .is_some_and(|cluster| cluster.settles(&channel));
    if statement.kind() == Kind::Trust && channel == provisioned.anchor.namespace.trust_log() {
        if clustered {
            let outcome = shared
                .origin
                .append_trust(statement, path, false)
                .await
                .into();
            return Ok(future::ready(outcome).boxed());
        }
        let stored = shared
            .appender
            .feed(Copy::unproven(statement, path), peer)
            .await;
        return Ok(stored.map(Outcome::from).boxed());
    }
    let trust = provisioned.trust.load_full();
    if clustered {
        return settle(shared, trust.as_deref(), statement, path).await;
    }
    let copy = match trust {
        // Perhaps its trust statement lies before it in the writer's queue.
        None => Copy::unproven(statement, path),
        Some(trust) => match trust.verify_or_return(statement) {
            Ok(statement) => Copy::proven(statement, trust.serial(), path),
            // Perhaps its successor, which is here, vouches for it.
            Err(refused) => Copy::unproven(refused.0, path),
        },
    };
    let stored = shared.appender.feed(copy, peer).await;
    Ok(stored.map(Outcome::from).boxed())
}

/// What comes next in a log of the cluster is settled with the others; what comes later waits for
/// its turn.
async fn settle(
    shared: &Shared,
    trust: Option<&Trust>,
    statement: Statement,
    path: String,
) -> Result<Stored, Outcome> {
    let (channel, serial) = (statement.channel().clone(), statement.serial());
    let trust = trust.ok_or_else(|| Outcome::from(Err(AppendError::NoTrust(channel))))?;
    let statement = trust
        .verify(statement)
        .map_err(|error| Outcome::from(Err(AppendError::from(error))))?;
    let outcome = match shared
        .origin
        .append(New {
            statement,
            trust: trust.serial(),
            path,
            term: None,
        })
        .await
    {
        Err(AppendError::LostRace(head)) if serial > head.serial => {
            Outcome::Later("what lies below comes first".into())
        }
        Err(AppendError::NotFirst) => {
            Outcome::Later("the channel's first statement comes first".into())
        }
        answer => answer.into(),
    };
    Ok(future::ready(outcome).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_offers_first_what_lies_below() {
        let at = |number| Serial::new(number).unwrap();
        let backfill = Some((at(500), at(520)));
        for (serial, head, backfill, promised, expected) in [
            (1, None, None, None, Reach::Head),
            // Perhaps the peer has nothing below.
            (900, None, None, None, Reach::Head),
            (965, None, None, Some(900), Reach::Far),
            (1, None, None, Some(900), Reach::Head),
            (11, Some(10), None, None, Reach::Head),
            (74, Some(10), None, None, Reach::Head),
            (75, Some(10), None, None, Reach::Far),
            (75, Some(10), None, Some(11), Reach::Head),
            (436, Some(10), backfill, None, Reach::Backfill),
            (584, Some(10), backfill, None, Reach::Backfill),
            (435, Some(10), backfill, None, Reach::Far),
            (435, None, backfill, None, Reach::Far),
            (1, None, backfill, None, Reach::Head),
        ] {
            assert_eq!(
                reach(serial, head, backfill, promised),
                expected,
                "{serial} {head:?} {promised:?}"
            );
        }
    }
}
