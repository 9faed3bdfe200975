//! Publishers, of releases and of trust: each asks the origin for the head, and offers again what
//! it was not told of.

use std::{sync::Arc, time::Duration};

use tidings_client::{Error, PublishError, Publisher};
use tidings_protocol::{
    Channel, Head, Statement,
    limits::ARTICLE_OCTETS,
    statement::{Body, Checkpoint, Release, Withdraw},
};
use tokio::time::{sleep, timeout};

use super::{
    CHANNELS, Simulation, TRUST_EXPIRES,
    statements::{self, sign, signer},
};
use crate::clock;

/// How often a statement is made anew for a place that is taken meanwhile.
const PLACES: usize = 40;
/// After how long a publisher does not wait any more.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a publisher wants to say.
#[derive(Clone, Copy)]
enum Wish {
    Release,
    Withdraw,
    Trust,
}

/// Publishes now and then, until it has done so often enough; whether all of it was.
pub(super) async fn publish(sim: Arc<Simulation>, turns: usize) -> bool {
    for _ in 0..turns {
        sleep(Duration::from_millis(100 + sim.below(9_000) as u64)).await;
        let channel = CHANNELS[sim.below(CHANNELS.len())].parse().unwrap();
        let wish = match sim.below(5) {
            0 => Wish::Withdraw,
            _ => Wish::Release,
        };
        let _open = sim.desk.read().await;
        if !say(&sim, &channel, wish).await {
            return false;
        }
    }
    true
}

/// Publishes trust that takes the key of releases away, and gives it to another, while nobody else
/// publishes: what comes between its checkpoints and itself loses its place.
pub(super) async fn rotate(sim: Arc<Simulation>, turns: usize) -> bool {
    for _ in 0..turns {
        sleep(Duration::from_millis(2_000 + sim.below(40_000) as u64)).await;
        let _closed = sim.desk.write().await;
        if !say(&sim, &sim.anchor.namespace.trust_log(), Wish::Trust).await {
            return false;
        }
    }
    true
}

/// The heads of all channels, as the origin has them, proven or not.
async fn checkpoints(sim: &Simulation) -> Result<Vec<Checkpoint>, Error> {
    let mut connection = sim.source.connect().await?;
    let mut checkpoints = Vec::new();
    for channel in &sim.channels {
        let Some((group, _)) = connection.group(channel, None).await? else {
            continue;
        };
        let newest = group.high..=group.high;
        let newest = connection.articles(channel, newest, ARTICLE_OCTETS).await?;
        checkpoints.extend(newest.iter().map(|newest| Checkpoint {
            channel: channel.clone(),
            head: newest.head(),
        }));
    }
    Ok(checkpoints)
}

/// The first trust, and the first release of each channel.
pub(super) async fn begin(sim: &Simulation) -> bool {
    if !settle(sim, &sim.trust).await {
        return false;
    }
    for channel in CHANNELS {
        if !say(sim, &channel.parse().unwrap(), Wish::Release).await {
            return false;
        }
    }
    true
}

/// Says something in the place that comes next, until that has been said.
async fn say(sim: &Simulation, channel: &Channel, wish: Wish) -> bool {
    for _ in 0..PLACES {
        let made = timeout(PATIENCE, make(sim, channel, wish)).await;
        if let Ok(Some(statement)) = made
            && settle(sim, &statement).await
        {
            return true;
        }
        sleep(Duration::from_millis(300 + sim.below(4_000) as u64)).await;
    }
    false
}

/// What follows the head that the origin shows.
async fn make(sim: &Simulation, channel: &Channel, wish: Wish) -> Option<Statement> {
    let mut publisher = Publisher::connect(sim.source.clone()).await.ok()?;
    let trust = publisher.trust()?;
    let (serial, trust_head) = (trust.serial(), trust.head());
    let by = signer(serial);
    let statement = match wish {
        Wish::Trust => {
            let checkpoints = checkpoints(sim).await.ok()?;
            statements::trust(Some(trust_head), clock::now(), TRUST_EXPIRES, checkpoints)
        }
        Wish::Release | Wish::Withdraw => {
            let newest = publisher.newest(channel).await.ok()?;
            let withdrawn = newest.as_ref().filter(|newest| {
                matches!((wish, newest.body()), (Wish::Withdraw, Body::Release(_)))
            });
            let body = match withdrawn {
                Some(release) => Body::Withdraw(Withdraw {
                    withdraws: release.head(),
                    reason: "broken".into(),
                }),
                None => Body::Release(Release {
                    version: sim.next_version(),
                    ..Release::default()
                }),
            };
            let after: Option<Head> = newest.map(|newest| newest.head());
            sign(channel.clone(), after, Some(serial), clock::now(), body, by)
        }
    };
    Some(statement)
}

/// Offers a statement until it is known what became of it; whether it is stored.
async fn settle(sim: &Simulation, statement: &Statement) -> bool {
    sim.oracle.note_signed(statement);
    loop {
        let offered = async {
            let mut publisher = Publisher::connect(sim.source.clone()).await?;
            publisher.publish(statement).await
        };
        match timeout(PATIENCE, offered).await {
            Ok(Ok(_)) => {
                sim.oracle.note_acknowledged(statement);
                return true;
            }
            Ok(Err(PublishError::LostRace(_) | PublishError::Refused(_))) => {
                sim.oracle.count(|counts| counts.refused += 1);
                return false;
            }
            Ok(Err(_)) | Err(_) => {
                sim.oracle.count(|counts| counts.unknown += 1);
                sleep(Duration::from_millis(500 + sim.below(5_000) as u64)).await;
            }
        }
    }
}
