//! A fleet of 3,000 machines in ten groups, by HTTP without a network, on a clock that is handed
//! in.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    admin::http::Client as Peer,
    config::{Rules, SlotGroup},
    simulation::seeds::wanted,
    slots::{SlotStore, tests::Memory},
};

const GROUPS: usize = 10;
const RULES: Rules = Rules {
    max: 10,
    lease: 60,
    failures: 3,
};
/// In each group so many go down and are never heard of again,
const DEAD: usize = 2;
/// and so many lose their patience while they wait.
const IMPATIENT: usize = 10;

/// At a desk some of them; `TIDINGS_MACHINES=3000` for all.
fn machines() -> usize {
    wanted("TIDINGS_MACHINES").map_or(1_000, |many| many.try_into().unwrap())
}

type Server = TowerToHyperService<Router>;

fn group(number: usize) -> SlotName {
    format!("g{number}").parse().unwrap()
}

fn server() -> (Server, Arc<Slots>) {
    let groups = (0..GROUPS).map(|number| SlotGroup {
        name: group(number),
        rules: RULES,
        takers: None,
        operators: vec![],
        certificate: false,
    });
    let slots = Arc::new(Slots::start(
        groups.collect(),
        SlotStore::Memory(Memory::new()),
        &TaskTracker::new(),
        &CancellationToken::new(),
    ));
    let fleetlock = FleetLock {
        slots: slots.clone(),
        access: Arc::default(),
        connections: Connections::new(1, 1),
    };
    let peer = Peer {
        local: ([127, 0, 0, 1], 8119).into(),
        address: SocketAddr::from(([10, 0, 0, 1], 1)),
        certificate: None,
    };
    let router = router(fleetlock).layer(axum::Extension(peer));
    (TowerToHyperService::new(router), slots)
}

async fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    let request = Request::post(path)
        .header("fleet-lock-protocol", "true")
        .body(Body::from(body.to_string()))
        .unwrap();
    let (head, body) = server.call(request).await.unwrap().into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (
        head.status.as_u16(),
        serde_json::from_slice(&body).unwrap_or_default(),
    )
}

/// What has happened in one group, as its machines see it.
#[derive(Default)]
struct Seen {
    given: Vec<Instant>,
    freed: Vec<Instant>,
    down: usize,
    most_down: usize,
    dead: usize,
    impatient: usize,
}

type World = Arc<Mutex<HashMap<usize, Seen>>>;

async fn machine(server: Server, world: World, number: usize) {
    let (group, among) = (number % GROUPS, number / GROUPS);
    let see = |change: &dyn Fn(&mut Seen)| change(world.lock().unwrap().entry(group).or_default());
    let params = json!({"id": format!("m{number}"), "group": format!("g{group}")});
    sleep(Duration::from_millis((number * 7_919 % 10_000) as u64)).await;
    let body = json!({"client_params": params, "serial": 7, "wait_seconds": 60});
    let asks = async {
        loop {
            let (status, answer) = post(&server, "/v1/pre-reboot", body.clone()).await;
            if status == 200 {
                return answer["token"].clone();
            }
            assert_eq!(answer["kind"], "failed_lock", "{answer}");
        }
    };
    // The impatient come late, and go before it is their turn.
    let impatient = among >= machines() / GROUPS - IMPATIENT;
    let patience = Duration::from_secs(if impatient { 20 } else { 3_600 });
    let Ok(token) = timeout(patience, asks).await else {
        see(&|seen| seen.impatient += 1);
        return;
    };
    see(&|seen| {
        seen.given.push(Instant::now());
        seen.down += 1;
        seen.most_down = seen.most_down.max(seen.down);
    });
    let body = json!({"client_params": params, "token": token});
    assert_eq!(post(&server, "/v1/pre-reboot", body.clone()).await.0, 200);
    if (50..50 + DEAD).contains(&among) {
        see(&|seen| seen.dead += 1);
        return;
    }
    sleep(Duration::from_millis(
        5_000 + (number * 104_729 % 10_000) as u64,
    ))
    .await;
    see(&|seen| {
        seen.freed.push(Instant::now());
        seen.down -= 1;
    });
    assert_eq!(post(&server, "/v1/steady-state", body).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn attacks_73_79_three_thousand_machines_take_turns_without_a_gap_and_the_dead_have_failed() {
    let ((server, slots), world) = (server(), World::default());
    let all: Vec<_> = (0..machines())
        .map(|number| tokio::spawn(machine(server.clone(), world.clone(), number)))
        .collect();
    for machine in all {
        machine.await.unwrap();
    }
    sleep(Duration::from_secs(RULES.lease + 10)).await;
    let mut took = Vec::new();
    for (number, seen) in world.lock().unwrap().iter() {
        // Each slot that was freed is the next one's.
        let next = seen.given.iter().skip(RULES.max);
        took.extend(next.zip(&seen.freed).map(|(given, freed)| *given - *freed));
        assert_eq!(seen.most_down, RULES.max, "group {number}");
        assert_eq!((seen.dead, seen.down), (DEAD, DEAD), "group {number}");
        let all = machines() / GROUPS - seen.impatient;
        assert_eq!((seen.given.len(), seen.freed.len()), (all, all - DEAD));
        assert!(seen.impatient > 0, "group {number}");
    }
    took.sort_unstable();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    eprintln!(
        "{} hand-overs: p50 {p50:?}, p99 {p99:?}, longest {:?}",
        took.len(),
        took[took.len() - 1]
    );
    assert!(p99 < Duration::from_millis(50), "{p99:?}");
    assert!(took[took.len() - 1] < Duration::from_millis(250));
    for number in 0..GROUPS {
        let group = slots.look(&group(number)).await.unwrap();
        assert_eq!((group.holders.len(), group.waiting.len()), (0, 0));
        assert_eq!(group.failed.len(), DEAD);
        assert!(
            group
                .failed
                .iter()
                .all(|failure| failure.returned.is_none())
        );
    }
}
