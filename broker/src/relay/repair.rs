//! Damaged statements are fetched again: whoever has one can give it, since it proves itself.

use std::sync::Arc;

use tidings_client::{Address, Connection, Error};
use tidings_protocol::{
    Channel, Serial, Statement, StatementId,
    article::{Incoming, prepend_hop},
};
use tokio::time::timeout;

use crate::{
    limits::{REPAIR, REPAIR_PATIENCE},
    logging::Safe,
    net::login::Credentials,
    shared::Shared,
};

/// Somebody who may have what we lack.
#[derive(Clone)]
pub(crate) struct Other {
    pub(crate) address: Address,
    pub(crate) credentials: Credentials,
}

/// Looks for damaged statements, and has them mended, until the broker shuts down.
pub(crate) async fn run(shared: Arc<Shared>, others: Vec<Other>) {
    let mut looks = tokio::time::interval(REPAIR);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        let mut damaged = shared.store.damaged();
        for other in &others {
            if damaged.is_empty() {
                break;
            }
            match timeout(REPAIR_PATIENCE, mend(&shared, other, &damaged)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(broker = %other.address, error = %Safe(&tidings_client::explain(&error)), "damaged statements cannot be fetched there")
                }
                Err(_) => {
                    tracing::warn!(broker = %other.address, "damaged statements are not sent there in time")
                }
            }
            damaged = shared.store.damaged();
        }
        if let Some((channel, serial)) = damaged.first() {
            tracing::error!(
                statements = damaged.len(),
                first = format!("{channel} {serial}"),
                asked = others.len(),
                "statements are damaged, and no broker that this one knows has them: they are answered with 403"
            );
        }
    }
}

async fn mend(shared: &Shared, other: &Other, damaged: &[(Channel, Serial)]) -> Result<(), Error> {
    let mut connection: Connection = other.credentials.connect(&other.address).await?;
    for (channel, serial) in damaged {
        if connection.group(channel, None).await?.is_none() {
            continue;
        }
        let found = connection.fetch([serial.number()]).await?;
        let Some(Incoming { statement, path }) = found.into_iter().flatten().next() else {
            continue;
        };
        if statement.channel() != channel
            || statement.serial() != *serial
            || !is_proven(shared, &statement)
        {
            tracing::warn!(broker = %other.address, %channel, %serial, "another statement is there, or one that nothing proves");
            continue;
        }
        let path = prepend_hop(&shared.settings.config.name, path.as_deref());
        let (store, id) = (shared.store.clone(), statement.id());
        let mended = tokio::task::spawn_blocking(move || store.mend(&statement, &path)).await;
        match mended {
            Ok(Ok(true)) => {
                tracing::info!(broker = %other.address, %channel, %serial, %id, "a damaged statement is whole again")
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::error!(%channel, %serial, %error, "a damaged statement cannot be stored again")
            }
            Err(error) => {
                tracing::error!(%channel, %serial, %error, "a damaged statement was not stored again")
            }
        }
    }
    Ok(())
}

/// By its id, which the head or the statement above names; or by its own signatures.
fn is_proven(shared: &Shared, statement: &Statement) -> bool {
    known_id(shared, statement.channel(), statement.serial()).map_or_else(
        || {
            shared
                .namespaces
                .trust(statement.channel())
                .is_some_and(|trust| trust.check(statement).is_ok())
        },
        |id| id == statement.id(),
    )
}

fn known_id(shared: &Shared, channel: &Channel, serial: Serial) -> Option<StatementId> {
    let marks = shared.logs.get(channel.as_str()).map(|log| log.marks())?;
    if marks.head.serial == serial {
        return Some(marks.head.id);
    }
    let above = shared.store.get(channel, serial.next()?).ok()??;
    above
        .statement
        .predecessor()
        .filter(|below| below.serial == serial)
        .map(|below| below.id)
}
