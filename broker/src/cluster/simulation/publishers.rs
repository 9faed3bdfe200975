//! Publishers, of releases and of trust: each goes to any broker, and offers again what it was not
//! told of.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tidings_protocol::{
    Channel, Head, Statement, Timestamp,
    statement::{Body, Kind, Release},
};
use tokio::time::{sleep, timeout};

use super::{Simulation, brokers::Life, oracle::Signed, zookeeper::EPOCH};
use crate::{
    clock,
    log::append::{Answer, AppendError},
    origin::{New, Origin},
    simulation::statements::{self, sign, signer},
};

/// Channels of releases.
pub(super) const CHANNELS: [&str; 3] = ["acme.a", "acme.b", "acme.c"];
/// How often something is offered again of which nobody says what became of it.
const AGAIN: usize = 5;

/// The trust statement that follows; rivals differ in when they expire.
pub(super) fn trust(after: Option<Head>, time: Timestamp, rival: u64) -> Statement {
    statements::trust(after, time, EPOCH + 86_400 + rival, Vec::new())
}

/// Publishes now and then, until it has done so often enough.
pub(super) async fn publish(sim: Arc<Simulation>, turns: usize) {
    let mut last: Option<Head> = None;
    let mut version = 0;
    for _ in 0..turns {
        sleep(Duration::from_millis(20 + sim.below(1_800) as u64)).await;
        let channel: Channel = CHANNELS[sim.below(CHANNELS.len())].parse().unwrap();
        let Some(life) = sim.any() else { continue };
        if sim.below(12) == 0 {
            sim.catch_up(&life).await;
        }
        // What it has published itself, perhaps in another channel, or what it is told.
        let log = life.logs.get(channel.as_str());
        let shown = log.map(|log| log.marks().head);
        let after = if sim.below(5) == 0 {
            last.or(shown)
        } else {
            shown
        };
        let run = 1 + sim.below(4).saturating_sub(1);
        version += 1;
        let Some(run) = releases(&sim, &life, &channel, after, run, version) else {
            continue;
        };
        let head = run.last().map(Statement::head);
        let offers = run.iter().map(|statement| offer(&sim, &life, statement));
        if join_all(offers)
            .await
            .into_iter()
            .all(|is_stored| is_stored)
        {
            last = head;
        }
    }
}

/// Consecutive releases, signed by who may do so as far as a broker knows.
fn releases(
    sim: &Simulation,
    life: &Life,
    channel: &Channel,
    mut after: Option<Head>,
    many: usize,
    version: usize,
) -> Option<Vec<Statement>> {
    let trust = life.namespaces.trust(channel)?.serial();
    let by = signer(trust);
    let mut run = Vec::new();
    for number in 0..many {
        let release = Release {
            version: format!("{version}.{number}.{}", sim.below(1_000_000)),
            ..Release::default()
        };
        let body = Body::Release(release);
        let statement = sign(channel.clone(), after, Some(trust), clock::now(), body, by);
        after = Some(statement.head());
        let signed = Signed {
            key: by,
            brings: None,
            broker: None,
        };
        sim.oracle.note_signed(&statement, signed);
        run.push(statement);
    }
    Some(run)
}

/// Offers a statement until it is known what became of it; whether it is stored.
async fn offer(sim: &Simulation, life: &Arc<Life>, statement: &Statement) -> bool {
    let (mut life, mut perhaps) = (life.clone(), false);
    for _ in 0..AGAIN {
        let answer = match timeout(patience(sim), offer_once(&life, statement)).await {
            Ok(answer) => answer,
            Err(_) => Err(AppendError::Unknown),
        };
        if sim.oracle.note_answer(statement, &answer, perhaps) {
            return answer.is_ok();
        }
        perhaps = true;
        sim.oracle.count(|counts| counts.unknown += 1);
        sleep(Duration::from_millis(sim.below(1_500) as u64)).await;
        if let Some(other) = sim.any().filter(|_| sim.below(4) > 0) {
            life = other;
        }
    }
    false
}

/// Some publishers do not wait.
fn patience(sim: &Simulation) -> Duration {
    let seconds = [20, 20, 20, 20, 20, 2][sim.below(6)];
    Duration::from_millis(seconds * 1_000 + sim.below(1_000) as u64)
}

/// What a broker answers, as a session does; if it crashes, that is not known.
async fn offer_once(life: &Life, statement: &Statement) -> Answer {
    let answer = async {
        if statement.kind() == Kind::Trust {
            let path = String::from("p");
            return life
                .cluster
                .append_trust(statement.clone(), path, true)
                .await;
        }
        let trust = life.namespaces.trust(statement.channel());
        let channel = || statement.channel().clone();
        let trust = trust.ok_or_else(|| AppendError::NoTrust(channel()))?;
        let new = New {
            statement: trust.verify(statement.clone())?,
            trust: trust.serial(),
            path: "p".into(),
            term: None,
        };
        life.cluster.append(new).await
    };
    tokio::select! {
        biased;
        () = life.ended.cancelled() => Err(AppendError::Unknown),
        answer = answer => answer,
    }
}

/// Publishes trust that takes the key of releases away, and gives it to another; now and then two
/// do so at once.
pub(super) async fn rotate(sim: Arc<Simulation>, turns: usize) {
    for _ in 0..turns {
        sleep(Duration::from_millis(1_000 + sim.below(9_000) as u64)).await;
        let rivals = 1 + sim.below(2) as u64;
        let each = (0..rivals).map(|rival| rotate_once(&sim, rival));
        join_all(each).await;
    }
}

async fn rotate_once(sim: &Simulation, rival: u64) {
    let Some(life) = sim.any() else { return };
    let Some(known) = life.namespaces.trust(&sim.anchor.namespace.trust_log()) else {
        return;
    };
    let statement = trust(Some(known.head()), clock::now(), rival);
    offer_trust(sim, &life, &statement).await;
}

pub(super) async fn offer_trust(sim: &Simulation, life: &Arc<Life>, statement: &Statement) -> bool {
    let signed = Signed {
        key: "root",
        brings: Some(signer(statement.serial())),
        broker: None,
    };
    sim.oracle.note_signed(statement, signed);
    offer(sim, life, statement).await
}

/// One more release in each channel, by whoever may sign now, until it is stored; of which nothing
/// is known that was not published before.
pub(super) async fn finish(sim: &Simulation, broker: usize) -> bool {
    let mut version = 1_000;
    for channel in CHANNELS {
        let channel: Channel = channel.parse().unwrap();
        loop {
            version += 1;
            let Some(life) = sim.life(broker) else {
                return false;
            };
            let log = life.logs.get(channel.as_str());
            let after = log.map(|log| log.marks().head);
            let run = releases(sim, &life, &channel, after, 1, version);
            if let Some(statement) = run.and_then(|mut run| run.pop())
                && offer(sim, &life, &statement).await
            {
                break;
            }
            sleep(Duration::from_millis(300)).await;
        }
    }
    true
}
