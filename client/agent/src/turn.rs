//! Whether the machine may go: the log says so, the operator's window is open, a slot is there, and
//! the log still says so.

use tidings_client::{Clear, Error, NotNow, Statement, Timestamp};

use crate::{
    daemon::release_of,
    world::{Ready, World},
};

/// Whom the machine asks before it goes.
#[allow(async_fn_in_trait, reason = "it is used on one thread")]
pub trait Turn: World {
    /// The release to run in the channel, by what brokers say this moment.
    async fn target(&mut self) -> Result<Clear, Error>;
    /// What time it is, by the clock and by what was signed.
    fn time(&self) -> Timestamp;
    /// When the next of the operator's windows opens; not later than now if one is open.
    fn opens(&self) -> Timestamp;
    /// There is nothing to do before then.
    fn wait_until(&mut self, when: Timestamp);
    /// The checks of health that fail.
    async fn failing(&mut self) -> Vec<String>;
    /// Takes a slot, if the release wants one.
    async fn take_slot(&mut self, statement: &Statement) -> Result<Option<u64>, Ready>;
    /// Whether the slot is still this machine's.
    async fn hold_slot(&mut self, token: u64, statement: &Statement) -> Result<(), Ready>;
}

/// Whether the machine may go with this release, now.
pub async fn may_go<T: Turn>(turn: &mut T, statement: &Statement) -> Ready {
    ask(turn, statement).await.unwrap_or_else(|not| not)
}

async fn ask<T: Turn>(turn: &mut T, statement: &Statement) -> Result<Ready, Ready> {
    confirm(turn, statement).await?;
    let time = turn.time();
    let late = release_of(statement)
        .and_then(|release| release.deadline)
        .is_some_and(|deadline| deadline <= time);
    let opens = turn.opens();
    if opens > time && !late {
        turn.wait_until(opens);
        return Err(Ready::Wait(format!("the next window opens at {opens}")));
    }
    let ill = turn.failing().await;
    let slot = turn.take_slot(statement).await?;
    if let Some(token) = slot {
        // Others may have waited long for their turn, and so may we (attack 81); and the slot may
        // be another one's by now (attack 75).
        let confirmed = match confirm(turn, statement).await {
            Ok(()) => turn.hold_slot(token, statement).await,
            not => not,
        };
        if let Err(not) = confirmed {
            turn.free(token, statement).await;
            return Err(not);
        }
    }
    Ok(Ready::Go { slot, ill })
}

/// Whether this is the release to run, at this moment.
async fn confirm<T: Turn>(turn: &mut T, statement: &Statement) -> Result<(), Ready> {
    match turn.target().await {
        Ok(Clear::Apply(now)) if now.head() == statement.head() => Ok(()),
        Ok(Clear::Apply(now)) => Err(Ready::Leave(format!(
            "{} is to be run instead",
            now.serial()
        ))),
        Ok(Clear::Nothing {
            next: Some((serial, due)),
            ..
        }) if serial == statement.serial() => {
            turn.wait_until(due);
            Err(Ready::Wait(format!("it is due at {due}")))
        }
        Ok(Clear::Nothing { .. }) => {
            Err(Ready::Leave("it is not the release to run any more".into()))
        }
        Err(Error::NotNow { reason, .. }) => match *reason {
            NotNow::Withdrawn { release, .. } if release == statement.serial() => {
                Err(Ready::Leave(reason.to_string()))
            }
            _ => Err(Ready::Wait(reason.to_string())),
        },
        Err(error) => Err(Ready::Wait(tidings_client::explain(&error))),
    }
}
