//! Who the client is: AUTHINFO (RFC 4643).

use tidings_protocol::nntp::{Response, code};

use super::{End, Session};
use crate::{
    limits::{LOGIN_PAUSE, LOGINS},
    logging::Safe,
};

/// Why AUTHINFO is not for this connection.
fn refusal(session: &Session) -> Option<Response> {
    let access = &session.shared().settings.access;
    match () {
        () if session.stream.tls.is_none() => Some(Response::new(
            code::NEEDS_TLS,
            "a password is taken over TLS only",
        )),
        () if !access.has_passwords() => Some(Response::new(
            code::NOT_PERMITTED,
            "nobody has a password here",
        )),
        () => None,
    }
}

pub(super) fn user(session: &mut Session, name: String) {
    let response = refusal(session).unwrap_or_else(|| {
        session.user = Some(name);
        Response::new(code::PASSWORD_DUE, "and the password?")
    });
    session.respond(response.code, response.text);
}

pub(super) async fn pass(session: &mut Session, password: String) -> Result<(), End> {
    if let Some(response) = refusal(session) {
        session.respond(response.code, response.text);
        return Ok(());
    }
    let Some(name) = session.user.take() else {
        session.respond(code::OUT_OF_SEQUENCE, "AUTHINFO USER comes first");
        return Ok(());
    };
    let shared = session.shared().clone();
    let (address, tried) = (session.place.peer.ip(), name.clone());
    let turn = session.place.permit.login_turn().await;
    if shared.connections.is_guessing(address) {
        drop(turn);
        tokio::time::sleep(LOGIN_PAUSE).await;
        return Err(End::Refused(Response::new(
            code::UNAVAILABLE,
            "too many logins have failed from your address; try again later",
        )));
    }
    // It costs milliseconds of a core, by design.
    let access = shared.clone();
    let found =
        tokio::task::spawn_blocking(move || access.settings.access.login(&tried, &password))
            .await
            .ok()
            .flatten();
    match found {
        Some(index) => {
            if !session.place.known.contains(&index) {
                session.place.known.insert(0, index);
            }
            session.respond(code::AUTHENTICATED, "welcome");
            Ok(())
        }
        None => {
            tracing::warn!(peer = %session.place.peer, name = %Safe(&name), "a login has failed");
            session.place.logins += 1;
            shared.connections.note_failed_login(address);
            drop(turn);
            // Guessing is slow, also over many commands.
            tokio::time::sleep(LOGIN_PAUSE).await;
            if session.place.logins >= LOGINS {
                return Err(End::Refused(Response::new(
                    code::UNAVAILABLE,
                    "too many logins have failed",
                )));
            }
            session.respond(
                code::NOT_AUTHENTICATED,
                "name and password are not those of anybody here",
            );
            Ok(())
        }
    }
}
