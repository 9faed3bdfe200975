//! Verifying what came by any way, without a network.

use std::ffi::c_char;

use tidings_client::{Anchor, State};
use tidings_protocol::bundle;

use crate::{
    error::{Code, Error, Failed, call},
    pointer::{self, Place},
    statement::Statement,
};

/// What an anchor proves: the trust in force.
pub struct Trust(State);

fn anchored(anchor: *const c_char) -> Result<Anchor, Failed> {
    let anchor = pointer::text(anchor, "anchor")?;
    anchor
        .parse()
        .map_err(|error| Failed::usage(format!("anchor: {error}")))
}

/// Begins with an anchor, `NAMESPACE SERIAL sha256:HEX`, and the trust statements from that one on,
/// one behind the other, as `tidings trust log` writes them.
///
/// On success `*trust` is the caller's, to be ended with `tidings_trust_free`.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_trust_new(
    anchor: *const c_char,
    log: *const u8,
    length: usize,
    trust: *mut *mut Trust,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let place = Place::new(trust, "trust")?;
        let anchor = anchored(anchor)?;
        let log = pointer::octets(log, length)?;
        let bad = |error| Failed::new(Code::BadFile, format!("the trust log: {error}"));
        let mut log = bundle::parse(log).map_err(bad)?;
        log.retain(|statement| statement.serial() >= anchor.head.serial);
        let mut state = State::ephemeral(&anchor);
        state
            .change(|view, now| view.take_trust(log, now))
            .map_err(|(serial, error)| {
                Failed::new(Code::Refused, format!("trust {serial}: {error}"))
            })?;
        if state.trust().is_none() {
            let text = "there is no trust statement from the anchor's on";
            return Err(Failed::new(Code::BadFile, text));
        }
        place.put(Trust(state));
        Ok(())
    })
}

/// Begins with the trust in force of a device's state file, as it is now.
///
/// On success `*trust` is the caller's, to be ended with `tidings_trust_free`.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_trust_of_state(
    anchor: *const c_char,
    state: *const c_char,
    trust: *mut *mut Trust,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let place = Place::new(trust, "trust")?;
        let path = pointer::text(state, "state")?;
        let state = State::look(path, &anchored(anchor)?)?;
        if state.trust().is_none() {
            let text = format!("{path} has no trust yet");
            return Err(Failed::new(Code::BadFile, text));
        }
        place.put(Trust(state));
        Ok(())
    })
}

/// Verifies one statement against the trust in force. What is not proven is refused: there is no
/// way to such a statement.
///
/// On success `*statement` is the caller's, to be ended with `tidings_statement_free`. Whether it
/// is the newest, or withdrawn, is another question: `tidings_device_next` answers that.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_verify(
    trust: *const Trust,
    octets: *const u8,
    length: usize,
    statement: *mut *mut Statement,
    error: *mut *mut Error,
) -> Code {
    call(error, || {
        let place = Place::new(statement, "statement")?;
        let octets = pointer::octets(octets, length)?;
        let state = pointer::object(trust).ok_or_else(|| Failed::usage("trust is null"))?;
        let bad = |error| Failed::new(Code::BadFile, format!("it is no statement: {error}"));
        let parsed = tidings_client::Statement::parse(octets).map_err(bad)?;
        let Some(trust) = state.0.trust() else {
            return Err(Failed::usage("there is no trust"));
        };
        let verified = trust
            .verify(parsed)
            .map_err(|error| Failed::new(Code::Refused, error.to_string()))?;
        place.put((&verified).into());
        Ok(())
    })
}

/// Ends a trust. Null is none.
#[unsafe(no_mangle)]
pub extern "C" fn tidings_trust_free(trust: *mut Trust) {
    pointer::free(trust);
}
