//! Several brokers with one store in memory, which takes its time, on a clock that is handed in.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tidings_protocol::{Timestamp, slot::SlotName};
use tokio::{sync::Notify, time::sleep};

use super::*;
use crate::config::Rules;

/// What all brokers share.
#[derive(Default)]
struct Kept {
    groups: HashMap<SlotName, (Vec<u8>, i32)>,
    /// Whom changes are told.
    told: HashMap<SlotName, Vec<Arc<Notify>>>,
    seed: u64,
}

/// A store that takes as long as a disk, or as servers, would.
#[derive(Clone)]
pub(crate) struct Memory {
    kept: Arc<Mutex<Kept>>,
    began: Instant,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            kept: Arc::default(),
            began: Instant::now(),
        }
    }

    pub(super) fn changes(&self, group: &SlotName) -> Arc<Notify> {
        let changes = Arc::<Notify>::default();
        let mut kept = self.kept.lock().unwrap();
        let told = kept.told.entry(group.clone()).or_default();
        told.push(changes.clone());
        changes
    }

    async fn pass(&self, most_milliseconds: u64) {
        let random = {
            let mut kept = self.kept.lock().unwrap();
            kept.seed = kept
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            kept.seed >> 33
        };
        sleep(Duration::from_millis(1 + random % most_milliseconds)).await;
    }

    pub(super) async fn read(&self, group: &SlotName) -> Option<(Vec<u8>, i32)> {
        self.pass(2).await;
        self.kept.lock().unwrap().groups.get(group).cloned()
    }

    pub(super) async fn replace(&self, group: &SlotName, data: &[u8], after: Option<i32>) -> bool {
        self.pass(8).await;
        let mut kept = self.kept.lock().unwrap();
        let version = kept.groups.get(group).map(|(_, version)| *version);
        let good = version == after;
        if good {
            let next = version.map_or(0, |version| version + 1);
            kept.groups.insert(group.clone(), (data.into(), next));
            // One that is alone knows what it has changed.
            let told = kept.told.get(group).filter(|told| told.len() > 1);
            told.into_iter()
                .flatten()
                .for_each(|told| told.notify_one());
        }
        good
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + self.began.elapsed().as_secs())
    }
}

const RULES: Rules = Rules {
    max: 1,
    lease: 600,
    failures: 1,
};

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
}

fn broker(store: &Memory) -> Arc<Slots> {
    let group = SlotGroup {
        name: name("web"),
        rules: RULES,
        takers: None,
        operators: vec![],
        certificate: false,
    };
    let store = SlotStore::Memory(store.clone());
    Arc::new(Slots::start(
        vec![group],
        store,
        &TaskTracker::new(),
        &CancellationToken::new(),
    ))
}

fn asker(node: &str) -> Asker<'_> {
    Asker { node, by: "-" }
}

async fn take(slots: &Slots, node: &str, wait: u64) -> Answer {
    let wait = Duration::from_secs(wait);
    slots
        .take(&name("web"), asker(node), Serial::new(1), wait)
        .await
        .unwrap()
}

async fn waiting(slots: &Slots) -> Vec<String> {
    let group = slots.look(&name("web")).await.unwrap();
    group.waiting.iter().map(|w| w.node.clone()).collect()
}

fn token(answer: Answer) -> u64 {
    match answer {
        Answer::Yours { token, .. } => token,
        other => panic!("{other:?}"),
    }
}

/// A request that is held, in a task of its own.
fn held(slots: &Arc<Slots>, node: &'static str) -> tokio::task::JoinHandle<(Answer, Instant)> {
    let slots = slots.clone();
    tokio::spawn(async move { (take(&slots, node, 60).await, Instant::now()) })
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_told_in_their_order_at_whichever_broker() {
    let store = Memory::new();
    let brokers = [broker(&store), broker(&store)];
    let mut holder = ("a", token(take(&brokers[0], "a", 0).await));
    let mut waits = Vec::new();
    for (at, node) in ["b", "c", "d", "e"].into_iter().enumerate() {
        waits.push((node, at % 2, held(&brokers[at % 2], node)));
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(waiting(&brokers[0]).await, ["b", "c", "d", "e"]);
    // Longer than a place lasts without its request.
    sleep(Duration::from_secs(30)).await;
    for (node, _, wait) in waits {
        let freed = Instant::now();
        let (name, token_before) = (name("web"), holder.1);
        let token = Some(token_before);
        let ask = Ask::Free { token };
        brokers[0].ask(&name, asker(holder.0), ask).await.unwrap();
        let (answer, told) = wait.await.unwrap();
        holder = (node, self::token(answer));
        let took = told - freed;
        assert!(took < Duration::from_millis(50), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_is_gone_blocks_nobody() {
    let store = Memory::new();
    let (slots, other) = (broker(&store), broker(&store));
    let a = token(take(&slots, "a", 0).await);
    let gone = held(&slots, "gone");
    sleep(Duration::from_secs(1)).await;
    let b = held(&slots, "b");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(waiting(&other).await, ["gone", "b"]);
    gone.abort();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(waiting(&other).await, ["b"]);
    let ask = Ask::Free { token: Some(a) };
    slots.ask(&name("web"), asker("a"), ask).await.unwrap();
    let b = token(b.await.unwrap().0);
    // One that comes back by another connection, or at another broker, has its place still.
    let (again, last) = (held(&slots, "again"), held(&slots, "last"));
    sleep(Duration::from_secs(1)).await;
    let back = [held(&slots, "again"), held(&other, "again")];
    sleep(Duration::from_secs(1)).await;
    again.abort();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(waiting(&other).await, ["again", "last"]);
    // Longer than a place lasts without its request.
    sleep(Duration::from_secs(30)).await;
    assert_eq!(waiting(&other).await, ["again", "last"]);
    drop((back, last, b));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_nobody_has_heard_of_is_given_back() {
    let slots = broker(&Memory::new());
    // The answer takes longer than the client has patience.
    let asked = tokio::time::timeout(Duration::from_millis(1), take(&slots, "a", 0));
    assert!(asked.await.is_err());
    sleep(Duration::from_secs(1)).await;
    let group = slots.look(&name("web")).await.unwrap();
    assert!(group.holders.is_empty(), "{group:?}");
    token(take(&slots, "b", 0).await);
}

/// A machine crashes while its request is held, and nobody tells the broker. It asks anew, at the
/// same broker or another one: what it gets then is not taken away by the request from before.
#[tokio::test(start_paused = true)]
async fn a_request_of_before_the_crash_takes_no_token_away() {
    let store = Memory::new();
    let brokers = [broker(&store), broker(&store)];
    let name = name("web");
    for other in [0, 1] {
        let a = token(take(&brokers[0], "a", 0).await);
        let ghost = held(&brokers[0], "b");
        sleep(Duration::from_secs(1)).await;
        let again = held(&brokers[other], "b");
        // Longer than a place lasts without its request.
        sleep(Duration::from_secs(20)).await;
        let ask = Ask::Free { token: Some(a) };
        brokers[0].ask(&name, asker("a"), ask).await.unwrap();
        let b = token(again.await.unwrap().0);
        assert_eq!(ghost.await.unwrap().0, Answer::Lost(Lost::Replaced));
        for (serial, ask) in [
            (Serial::new(1), None),
            (None, Some(Ask::Free { token: Some(b) })),
        ] {
            let ask = ask.unwrap_or(Ask::Hold { serial, token: b });
            let answer = brokers[other].ask(&name, asker("b"), ask).await.unwrap();
            assert!(!matches!(answer, Answer::Lost(_)), "{answer:?}");
        }
    }
}
