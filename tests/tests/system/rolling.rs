//! A rolling update of fifty machines in five groups, behind slots in a cluster; two never come
//! back.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use tidings_client::{
    Channel, Clearance, Device, Error, Publisher, Release, SlotError, SlotServer, Slots, Source,
    Start, State, Tls,
};
use tidings_protocol::slot::SlotName;
use tidings_tests::{FREE_ADDRESS, cluster::Site, ensemble::Ensemble, realm::Realm, tree::until};
use tokio::time::{sleep, timeout};

const GROUPS: usize = 5;
const NODES: usize = 50;
const MAX: usize = 2;
/// They go down, and nobody hears of them again.
const DEAD: [usize; 2] = [0, 5];

#[derive(Default)]
struct Fleet {
    /// Which version each node runs.
    version: HashMap<usize, String>,
    down: [usize; GROUPS],
    most_down: [usize; GROUPS],
    dead: usize,
}

type Shared = Arc<Mutex<Fleet>>;

#[derive(Debug, thiserror::Error)]
enum NodeError {
    #[error(transparent)]
    Client(#[from] Error),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error("the machine is dead")]
    Dead,
}

/// A machine as an agent would run it: learns at once, takes its turn, looks once more, goes down,
/// comes back.
async fn node(
    number: usize,
    urls: Vec<String>,
    mut servers: Vec<SlotServer>,
    realm: Realm,
    fleet: Shared,
) {
    let group = number % GROUPS;
    // Everybody has another broker first.
    let urls: Vec<&str> = (0..urls.len())
        .map(|n| urls[(number + n) % urls.len()].as_str())
        .collect();
    let source = Source::new(urls, &realm.anchor.to_string()).unwrap();
    let channel: Channel = format!("test.g{group}").parse().unwrap();
    let mut news = Device::with_state(
        source.clone(),
        [channel.as_str()],
        State::ephemeral(&realm.anchor),
    )
    .unwrap()
    .with_start(Start::Oldest);
    let mut acts = Device::with_state(source, [channel.as_str()], State::ephemeral(&realm.anchor))
        .unwrap()
        .with_start(Start::Oldest);
    let other = number % servers.len();
    servers.rotate_left(other);
    let mut slots = Slots::new(servers, Tls::system().unwrap());
    let (group_name, name): (SlotName, SlotName) = (
        format!("g{group}").parse().unwrap(),
        format!("node{number}").parse().unwrap(),
    );
    let stream = news.watch();
    futures_util::pin_mut!(stream);
    while let Some(item) = stream.next().await {
        let Ok(statement) = item else { continue };
        let serial = statement.serial();
        let tidings_client::Body::Release(release) = statement.body() else {
            continue;
        };
        let version = release.version.clone();
        // Most of the first group come after those that die: in another order they might all be
        // done before.
        while group == 0 && number >= 20 && fleet.lock().unwrap().dead < DEAD.len() {
            sleep(Duration::from_millis(50)).await;
        }
        loop {
            acts.poll().await.ok();
            let applied: Result<(), NodeError> = acts
                .apply(&channel, serial, async |cleared: &mut Clearance<'_>| {
                    let slot = slots
                        .wait_for(&group_name, &name, serial, Duration::from_secs(120))
                        .await?;
                    cleared.confirm().await?;
                    slots.hold(&group_name, &name, slot.token).await?;
                    {
                        let mut fleet = fleet.lock().unwrap();
                        fleet.down[group] += 1;
                        fleet.most_down[group] = fleet.most_down[group].max(fleet.down[group]);
                    }
                    if DEAD.contains(&number) {
                        fleet.lock().unwrap().dead += 1;
                        return Err(NodeError::Dead);
                    }
                    sleep(Duration::from_millis(150)).await;
                    {
                        let mut fleet = fleet.lock().unwrap();
                        fleet.down[group] -= 1;
                        fleet.version.insert(number, version.clone());
                    }
                    slots.free(&group_name, &name, slot.token).await?;
                    Ok(())
                })
                .await;
            match applied {
                Ok(()) => break,
                Err(NodeError::Dead) => return,
                // The group is stopped, or no broker could decide: nothing is done, and it is tried
                // again.
                Err(_) => sleep(Duration::from_millis(500)).await,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_73_74_79_a_rolling_update_stops_where_the_budget_says() {
    let ensemble = Ensemble::start(3, "").unwrap();
    let realm = Realm::new(
        &["trust * 1 root", "release * 1 ann", "withdraw * 1 ann"],
        &["root"],
    );
    let site = Site::new(&ensemble, Realm::clone_of(&realm));
    let mut groups = "[[peer]]\nname = \"ops\"\nnetworks = [\"127.0.0.0/8\"]\n".to_owned();
    for group in 0..GROUPS {
        groups.push_str(&format!("[[slot]]\ngroup = \"g{group}\"\nmax = {MAX}\nlease_seconds = 6\nfailures = 2\noperators = [\"ops\"]\n"));
    }
    groups.push_str(&format!("[fleetlock]\nlisten = [\"{FREE_ADDRESS}\"]\n"));
    let (members, _daemons) = site.found(&["a", "b", "c"], "", &groups).await.unwrap();
    let fleet = Shared::default();
    let urls: Vec<String> = members.iter().map(|member| member.url()).collect();
    let servers: Vec<SlotServer> = members
        .iter()
        .map(|member| {
            let address = member.slot_address().unwrap();
            format!("http://{address}").parse().unwrap()
        })
        .collect();
    let nodes: Vec<_> = (0..NODES)
        .map(|number| {
            tokio::spawn(node(
                number,
                urls.clone(),
                servers.clone(),
                Realm::clone_of(&realm),
                fleet.clone(),
            ))
        })
        .collect();
    for group in 0..GROUPS {
        let release = Release {
            version: "2".into(),
            slot: Some(format!("g{group}")),
            ..Release::default()
        };
        let channel = format!("test.g{group}").parse().unwrap();
        let mut publisher = Publisher::connect(members[group % 3].source().unwrap())
            .await
            .unwrap();
        publisher
            .publish(&realm.release_with(&channel, None, release, &["ann"]))
            .await
            .unwrap();
    }
    let updated = |group: usize| {
        fleet
            .lock()
            .unwrap()
            .version
            .keys()
            .filter(|node| **node % GROUPS == group)
            .count()
    };
    let (mut slots, first): (Slots, SlotName) =
        (members[1].slots().unwrap(), "g0".parse().unwrap());
    // The two that die are in one group: it stops, and all others are done.
    until("the group has two failures", async || {
        let status = slots.status(&first).await;
        status.is_ok_and(|status| status.failed.len() == 2)
    })
    .await;
    until("the others are done", async || {
        (1..GROUPS).all(|group| updated(group) == NODES / GROUPS)
    })
    .await;
    let so_far = updated(0);
    assert!(so_far < NODES / GROUPS - 2, "{so_far}");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(
        updated(0),
        so_far,
        "the group goes on although it has stopped"
    );
    let probe = slots
        .take(
            &first,
            &"probe".parse().unwrap(),
            tidings_client::Serial::FIRST,
        )
        .await;
    assert!(matches!(probe, Err(SlotError::Stopped(_))), "{probe:?}");
    // An operator looks at the two, and it goes on.
    for dead in DEAD {
        fleet.lock().unwrap().down[0] -= 1;
        slots
            .clear(&first, &format!("node{dead}").parse().unwrap())
            .await
            .unwrap();
    }
    until("the rest is done", async || {
        updated(0) == NODES / GROUPS - DEAD.len()
    })
    .await;
    assert!(
        fleet
            .lock()
            .unwrap()
            .most_down
            .iter()
            .all(|most| (1..=MAX).contains(most)),
        "{:?}",
        fleet.lock().unwrap().most_down
    );
    for (number, node) in nodes.into_iter().enumerate() {
        match DEAD.contains(&number) {
            true => timeout(Duration::from_secs(5), node)
                .await
                .unwrap()
                .unwrap(),
            false => node.abort(),
        }
    }
}
