//! XSLOT (spec section 8.9).

use tidings_protocol::{
    Timestamp,
    nntp::{Response, code},
    slot::{SlotAction, SlotName, SlotRequest},
};

use super::{End, Session};
use crate::{
    config::{Rules, SlotGroup},
    slots::{Answer, Event, Group, Lost, SlotError, again},
};

pub(super) async fn slot(session: &mut Session, request: SlotRequest) -> Result<(), End> {
    match answer(session, request).await {
        Ok(Reply::Line(response)) => session.respond(response.code, response.text),
        Ok(Reply::Lines(lines)) => {
            session.respond(code::LIST, "list follows");
            lines.iter().for_each(|line| super::reading::line(session, format_args!("{line}")));
            super::reading::end(session);
        }
        Err(error) => {
            let code = if matches!(error, SlotError::NoGroup(_)) { code::NO_SUCH_SLOTS } else { code::SLOT_UNKNOWN };
            session.respond(code, format_args!("{error}; do not go down"));
        }
    }
    Ok(())
}

enum Reply {
    Line(Response),
    Lines(Vec<String>),
}

async fn answer(session: &mut Session, SlotRequest { group, what }: SlotRequest) -> Result<Reply, SlotError> {
    let shared = session.shared().clone();
    let slots = &shared.slots;
    let rules = slots.rules(&group)?;
    if let Some(refusal) = refusal(session, rules, &what) {
        return Ok(Reply::Line(refusal));
    }
    let (node, answer) = match what {
        SlotAction::Take(node, serial) => {
            let answer = slots.take(&group, node.as_str(), Some(serial)).await?;
            (node, answer)
        }
        SlotAction::Hold(node, token) => {
            let answer = slots.hold(&group, node.as_str(), token).await?;
            (node, answer)
        }
        SlotAction::Free(node, token) => {
            let answer = slots.free(&group, node.as_str(), Some(token)).await?;
            (node, answer)
        }
        SlotAction::Clear(node) => {
            let answer = slots.clear(&group, node.as_str()).await?;
            tracing::info!(%group, %node, peer = %session.place.peer, name = session.name(), "an operator clears a node");
            (node, answer)
        }
        SlotAction::List => {
            let state = slots.look(&group).await?;
            return Ok(Reply::Lines(list(rules, &state)));
        }
        SlotAction::Log => {
            let state = slots.look(&group).await?;
            let line = |event: &Event| format!("{} {} {}", Timestamp::from_seconds(event.at), event.what.as_str(), event.node);
            return Ok(Reply::Lines(state.history.iter().map(line).collect()));
        }
    };
    tracing::debug!(%group, %node, ?answer, "slot");
    Ok(Reply::Line(respond(rules.rules, answer)))
}

/// Who may not ask that, and why.
fn refusal(session: &Session, rules: &SlotGroup, what: &SlotAction) -> Option<Response> {
    let known = &session.place.known;
    let is_one_of = |peers: &[usize]| peers.iter().any(|peer| known.contains(peer));
    let operates = is_one_of(&rules.operators);
    let node = match what {
        SlotAction::Clear(_) if !operates => return Some(Response::new(code::WHO_ARE_YOU, "only operators of the group may clear it")),
        SlotAction::List | SlotAction::Log | SlotAction::Clear(_) if operates => return None,
        SlotAction::List | SlotAction::Log | SlotAction::Clear(_) => None,
        SlotAction::Take(node, _) | SlotAction::Hold(node, _) | SlotAction::Free(node, _) => Some(node),
    };
    if rules.takers.as_ref().is_some_and(|takers| !is_one_of(takers)) {
        return Some(Response::new(code::WHO_ARE_YOU, "only those who are known may have slots of this group"));
    }
    if !rules.certificate {
        return None;
    }
    let Some(tls) = &session.stream.tls else { return Some(Response::new(code::NEEDS_TLS, "slots of this group are given over TLS only")) };
    let certificate = tls.peer_certificates().and_then(|chain| chain.first());
    match node {
        None if certificate.is_some() => None,
        Some(node) if certificate.is_some_and(|der| names(der, node)) => None,
        _ => Some(Response::new(code::WHO_ARE_YOU, "a client certificate has to name the node")),
    }
}

/// Whether a certificate, which the handshake has verified, is for a node.
pub(crate) fn names(certificate: &rustls_pki_types::CertificateDer<'_>, node: &SlotName) -> bool {
    let Ok(name) = rustls_pki_types::ServerName::try_from(node.as_str()) else { return false };
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

fn respond(rules: Rules, answer: Answer) -> Response {
    match answer {
        Answer::Yours { token, seconds } => Response::new(code::SLOT, format_args!("{token} {seconds} the slot is yours")),
        Answer::Free => Response::new(code::SLOT_FREE, "done"),
        Answer::Wait { before } => Response::new(code::SLOT_WAIT, format_args!("{before} {} wait, and ask again", again(rules))),
        Answer::Stopped { failed } => {
            Response::new(code::SLOT_STOPPED, format_args!("{failed} have failed; an operator has to look at them, and to clear them"))
        }
        Answer::Lost(Lost::Failed) => {
            Response::new(code::SLOT_LOST, "the lease ran out, and the node counts as failed until an operator has looked")
        }
        Answer::Lost(Lost::Replaced) => Response::new(code::SLOT_LOST, "the node has another token by now; do two machines have one name?"),
        Answer::Lost(Lost::Unknown) => Response::new(code::SLOT_LOST, "nothing is known of it"),
    }
}

fn list(rules: &SlotGroup, group: &Group) -> Vec<String> {
    let time = Timestamp::from_seconds;
    let serial = |serial: Option<u32>| serial.map_or("-".into(), |serial| serial.to_string());
    let mut lines = vec![format!("group {} {} {}", rules.rules.max, rules.rules.lease, rules.rules.failures)];
    lines.extend(group.holders.iter().map(|h| format!("holder {} {} {} {}", h.node, serial(h.serial), time(h.since), time(h.until))));
    lines.extend(group.waiting.iter().map(|w| format!("waiting {} {}", w.node, time(w.since))));
    lines.extend(group.failed.iter().map(|f| {
        let returned = f.returned.map_or("-".into(), |at| time(at).to_string());
        format!("failed {} {} {} {returned}", f.node, serial(f.serial), time(f.at))
    }));
    lines
}
