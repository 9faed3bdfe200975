//! XSLOT (spec part 6).

use tidings_protocol::{
    Timestamp,
    nntp::{Response, code},
    slot::{SlotAction, SlotName, SlotRequest},
};

use super::{End, Session};
use crate::{
    config::{Rules, SlotGroup},
    slots::{Answer, Asker, Event, Group, Lost, SlotError, again},
};

pub(super) async fn slot(session: &mut Session, request: SlotRequest) -> Result<(), End> {
    match answer(session, request).await {
        Ok(Reply::Line(response)) => session.respond(response.code, response.text),
        Ok(Reply::Lines(lines)) => {
            session.respond(code::LIST, "list follows");
            lines
                .iter()
                .for_each(|line| super::reading::line(session, format_args!("{line}")));
            super::reading::end(session);
        }
        Err(error) => {
            let code = if matches!(error, SlotError::NoGroup(_)) {
                code::NO_SUCH_SLOTS
            } else {
                code::SLOT_UNKNOWN
            };
            session.respond(code, format_args!("{error}; do not go down"));
        }
    }
    Ok(())
}

enum Reply {
    Line(Response),
    Lines(Vec<String>),
}

async fn answer(
    session: &mut Session,
    SlotRequest { group, what }: SlotRequest,
) -> Result<Reply, SlotError> {
    let shared = session.shared().clone();
    let slots = &shared.slots;
    let rules = slots.rules(&group)?;
    if let Some(refusal) = refusal(session, rules, &what) {
        return Ok(Reply::Line(refusal));
    }
    let by = identity(rules, session.name()).to_owned();
    let (node, answer) = match what {
        SlotAction::Take(node, serial) => {
            let answer = slots
                .take(
                    &group,
                    Asker {
                        node: node.as_str(),
                        by: &by,
                    },
                    Some(serial),
                )
                .await?;
            (node, answer)
        }
        SlotAction::Hold(node, token) => {
            let answer = slots
                .hold(
                    &group,
                    Asker {
                        node: node.as_str(),
                        by: &by,
                    },
                    token,
                )
                .await?;
            (node, answer)
        }
        SlotAction::Free(node, token) => {
            let answer = slots
                .free(
                    &group,
                    Asker {
                        node: node.as_str(),
                        by: &by,
                    },
                    Some(token),
                )
                .await?;
            (node, answer)
        }
        SlotAction::Clear(node) => {
            let answer = slots.clear(&group, node.as_str()).await?;
            if answer == Answer::Free {
                tracing::info!(%group, %node, peer = %session.place.peer, name = session.name(), "an operator has cleared a node");
            }
            (node, answer)
        }
        SlotAction::List => {
            let state = slots.look(&group).await?;
            return Ok(Reply::Lines(list(rules, &state)));
        }
        SlotAction::Log => {
            let state = slots.look(&group).await?;
            let line = |event: &Event| {
                format!(
                    "{} {} {}",
                    Timestamp::from_seconds(event.at),
                    event.what.as_str(),
                    event.node
                )
            };
            return Ok(Reply::Lines(state.history.iter().map(line).collect()));
        }
    };
    if let Answer::Lost(Lost::Replaced | Lost::Other) = answer {
        tracing::warn!(%group, %node, peer = %session.place.peer, ?answer, "this node has a slot by another request: have two machines one name?");
    }
    Ok(Reply::Line(respond(rules.rules, answer)))
}

/// As whom a node is known: where a certificate has to name it, that is enough, and may be renewed.
pub(crate) fn identity<'a>(rules: &SlotGroup, name: &'a str) -> &'a str {
    if rules.certificate {
        "certificate"
    } else {
        name
    }
}

/// Who may not ask that, and why.
fn refusal(session: &Session, rules: &SlotGroup, what: &SlotAction) -> Option<Response> {
    let known = &session.place.known;
    let is_one_of = |peers: &[usize]| peers.iter().any(|peer| known.contains(peer));
    let operates = is_one_of(&rules.operators);
    if rules.certificate && session.stream.tls.is_none() {
        return Some(Response::new(
            code::NEEDS_TLS,
            "slots of this group are given over TLS only",
        ));
    }
    let node = match what {
        SlotAction::Clear(_) if !operates => {
            return Some(Response::new(
                code::WHO_ARE_YOU,
                "only those whom `operators` of the group names may clear it",
            ));
        }
        SlotAction::List | SlotAction::Log | SlotAction::Clear(_) if operates => return None,
        SlotAction::List | SlotAction::Log | SlotAction::Clear(_) => None,
        SlotAction::Take(node, _) | SlotAction::Hold(node, _) | SlotAction::Free(node, _) => {
            Some(node)
        }
    };
    if rules
        .takers
        .as_ref()
        .is_some_and(|takers| !is_one_of(takers))
    {
        return Some(Response::new(
            code::WHO_ARE_YOU,
            "only those who are known may have slots of this group",
        ));
    }
    if !rules.certificate {
        return None;
    }
    let certificate = session
        .stream
        .tls
        .as_ref()
        .and_then(|tls| tls.peer_certificates())
        .and_then(|chain| chain.first());
    match node {
        None if certificate.is_some() => None,
        Some(node) if certificate.is_some_and(|der| names(der, node)) => None,
        _ => Some(Response::new(
            code::WHO_ARE_YOU,
            "a client certificate has to name the node",
        )),
    }
}

/// Whether a certificate, which the handshake has verified, names a node: by the letter, so that it
/// is no other node in another spelling, and without wildcards.
pub(crate) fn names(certificate: &rustls_pki_types::CertificateDer<'_>, node: &SlotName) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
        certificate
            .valid_dns_names()
            .any(|name| name == node.as_str())
    })
}

fn respond(rules: Rules, answer: Answer) -> Response {
    match answer {
        Answer::Yours { token, seconds } => Response::new(
            code::SLOT,
            format_args!("{token} {seconds} the slot is yours"),
        ),
        Answer::Free => Response::new(code::SLOT_FREE, "done"),
        Answer::Wait { before } => Response::new(
            code::SLOT_WAIT,
            format_args!("{before} {} wait, and ask again", again(rules)),
        ),
        Answer::Stopped { failed } => Response::new(
            code::SLOT_STOPPED,
            format_args!(
                "{failed} have failed, this node perhaps among them; an operator has to look, and to clear them"
            ),
        ),
        Answer::Lost(Lost::Failed) => Response::new(
            code::SLOT_LOST,
            "the lease ran out, and the node counts as failed until an operator has looked",
        ),
        Answer::Lost(Lost::Replaced) => Response::new(
            code::SLOT_LOST,
            "the node has a slot with another token; have two machines one name?",
        ),
        Answer::Lost(Lost::Other) => Response::new(
            code::SLOT_LOST,
            "the node has a slot that was taken for another serial, or by somebody else; take that one again, and free it",
        ),
        Answer::Lost(Lost::Unknown) => Response::new(code::SLOT_LOST, "nothing is known of it"),
    }
}

fn list(rules: &SlotGroup, group: &Group) -> Vec<String> {
    let time = Timestamp::from_seconds;
    let serial = |serial: Option<u32>| serial.map_or("-".into(), |serial| serial.to_string());
    let mut lines = vec![format!(
        "group {} {} {}",
        rules.rules.max, rules.rules.lease, rules.rules.failures
    )];
    lines.extend(group.holders.iter().map(|h| {
        format!(
            "holder {} {} {} {}",
            h.node,
            serial(h.serial),
            time(h.since),
            time(h.renewed.saturating_add(rules.rules.lease))
        )
    }));
    lines.extend(
        group
            .waiting
            .iter()
            .map(|w| format!("waiting {} {}", w.node, time(w.since))),
    );
    lines.extend(group.failed.iter().map(|f| {
        let returned = f.returned.map_or("-".into(), |at| time(at).to_string());
        format!(
            "failed {} {} {} {returned}",
            f.node,
            serial(f.serial),
            time(f.at)
        )
    }));
    lines
}
