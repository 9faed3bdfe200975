//! Slots, on one machine and in a cluster: the same tests for both, through the library.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use tidings_client::{Publisher, Serial, SlotError, Slots};
use tidings_protocol::slot::SlotName;
use tidings_tests::{
    Daemon, Fixture,
    cluster::Site,
    ensemble::Ensemble,
    slots::GROUPS,
    tree::{origin, os, realm, until},
};

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
}

fn serial(number: u32) -> Serial {
    Serial::new(number).unwrap()
}

fn slots(fixture: &Fixture) -> Slots {
    fixture.slots().unwrap()
}

/// How often a slot is handed over to the next one.
const HAND_OVERS: usize = 21;

/// What holds wherever slots are kept; the brokers are asked in turn.
async fn slots_are_slots(brokers: &[Fixture]) {
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        slots(&brokers[turn % brokers.len()])
    };
    let (web, [a, b, c]) = (name("web"), ["a", "b", "c"].map(name));
    let first = next().take(&web, &a, serial(7)).await.unwrap();
    let second = next().take(&web, &b, serial(7)).await.unwrap();
    assert!(second.token > first.token);
    assert!(matches!(
        next().take(&web, &c, serial(7)).await,
        Err(SlotError::Wait { before: 1, .. })
    ));
    // Back from its reboot: the same slot, another token, and the one before does not count any
    // more.
    let again = next().take(&web, &a, serial(7)).await.unwrap();
    assert!(matches!(
        next().hold(&web, &a, first.token).await,
        Err(SlotError::Lost(_))
    ));
    assert!(matches!(
        next().free(&web, &a, first.token).await,
        Err(SlotError::Lost(_))
    ));
    // Nobody frees what another one holds (attack 77).
    assert!(matches!(
        next().free(&web, &c, again.token).await,
        Err(SlotError::Lost(_))
    ));
    next().hold(&web, &a, again.token).await.unwrap();
    next().free(&web, &a, again.token).await.unwrap();
    next().free(&web, &a, again.token).await.unwrap();
    let third = next().take(&web, &c, serial(7)).await.unwrap();
    let status = next().status(&web).await.unwrap();
    let limits = (status.max, status.lease_seconds, status.failures);
    assert_eq!((status.state.as_str(), limits), ("busy", (2, 600, 1)));
    let holders = status.holders.iter().map(|h| (h.id.as_str(), h.serial));
    assert_eq!(
        holders.collect::<Vec<_>>(),
        [("b", Some(7)), ("c", Some(7))]
    );
    let text = serde_json::to_string(&status).unwrap();
    assert!(
        !text.contains(&third.token.to_string()),
        "a token is the machine's alone: {text}"
    );
    for (node, token) in [(&b, second.token), (&c, third.token)] {
        next().free(&web, node, token).await.unwrap();
    }
    let status = next().status(&web).await.unwrap();
    assert_eq!(status.state, "idle");
    let events: Vec<String> = status
        .history
        .iter()
        .map(|event| format!("{} {}", event.what, event.id))
        .collect();
    assert_eq!(
        events,
        [
            "taken a",
            "taken b",
            "retaken a",
            "freed a",
            "taken c",
            "freed b",
            "freed c"
        ]
    );
    // Leases that run out are failures, and enough of them stop the group.
    let short = name("short");
    let late = next().take(&short, &a, serial(8)).await.unwrap();
    next().take(&short, &b, serial(8)).await.unwrap();
    until("two have failed", async || {
        next().status(&short).await.unwrap().failed.len() == 2
    })
    .await;
    assert!(matches!(
        next().hold(&short, &a, late.token).await,
        Err(SlotError::Lost(_))
    ));
    assert!(matches!(
        next().take(&short, &c, serial(8)).await,
        Err(SlotError::Stopped(_))
    ));
    let status = next().status(&short).await.unwrap();
    assert_eq!(status.state, "stopped");
    let failed = |id: &str| {
        status
            .failed
            .iter()
            .find(|failure| failure.id == id)
            .unwrap()
    };
    assert!(failed("a").returned.is_some() && failed("b").returned.is_none());
    assert_eq!(failed("a").serial, Some(8));
    next().clear(&short, &a).await.unwrap();
    next().clear(&short, &b).await.unwrap();
    assert!(matches!(
        next().clear(&short, &b).await,
        Err(SlotError::Lost(_))
    ));
    let slot = next().take(&short, &c, serial(8)).await.unwrap();
    next().free(&short, &c, slot.token).await.unwrap();
    // Not everybody may clear, and what is not there is not there.
    assert!(matches!(
        next().clear(&name("single"), &a).await,
        Err(SlotError::Ask { .. })
    ));
    assert!(matches!(
        next().take(&name("other"), &a, serial(1)).await,
        Err(SlotError::NoGroup(_))
    ));
    // Many at once, everywhere.
    let (single, mut tasks) = (name("single"), Vec::new());
    for n in 0..12 {
        let (mut slots, single) = (next(), single.clone());
        tasks.push(tokio::spawn(async move {
            slots
                .take(&single, &name(&format!("n{n}")), serial(9))
                .await
        }));
    }
    let mut taken = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => taken += 1,
            Err(SlotError::Wait { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(taken, 1);
}

/// A request is held until another machine gives its slot back, wherever it does; and one that is
/// given up is waited for by nobody.
async fn those_who_wait_are_told(brokers: &[Fixture]) {
    let (single, [a, b, c]) = (name("single"), ["a", "b", "c"].map(name));
    let mut first = slots(&brokers[0]);
    let held = first.take(&single, &a, serial(1)).await.unwrap();
    let wait = |node: &SlotName| {
        let (mut slots, single, node) = (
            slots(&brokers[brokers.len() - 1]),
            single.clone(),
            node.clone(),
        );
        tokio::spawn(async move {
            let patience = Duration::from_secs(60);
            slots.wait_for(&single, &node, serial(1), patience).await
        })
    };
    let waits = async |mut slots: Slots, count: usize| {
        until("so many wait", async || {
            slots.status(&single).await.unwrap().waiting.len() == count
        })
        .await;
    };
    let gone = wait(&b);
    waits(slots(&brokers[0]), 1).await;
    let told = wait(&c);
    waits(slots(&brokers[0]), 2).await;
    gone.abort();
    waits(slots(&brokers[0]), 1).await;
    let (mut holder, mut slot, mut told, mut took) = (a, held, told, Vec::new());
    for n in 0..HAND_OVERS {
        let freed = Instant::now();
        first.free(&single, &holder, slot.token).await.unwrap();
        slot = told.await.unwrap().unwrap();
        took.push(freed.elapsed());
        holder = if n == 0 {
            c.clone()
        } else {
            name(&format!("n{n}"))
        };
        told = wait(&name(&format!("n{}", n + 1)));
        waits(slots(&brokers[0]), 1).await;
    }
    told.abort();
    waits(slots(&brokers[0]), 0).await;
    first.free(&single, &holder, slot.token).await.unwrap();
    took.sort_unstable();
    eprintln!(
        "the next one has its slot after: median {:?}, longest {:?}",
        took[HAND_OVERS / 2],
        took[HAND_OVERS - 1]
    );
    // Members that nobody tells look every five seconds.
    assert!(took[HAND_OVERS / 2] < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_73_to_79_slots_on_one_machine() {
    let (fixture, daemon, _publisher) = origin(&realm(), GROUPS).await.unwrap();
    those_who_wait_are_told(std::slice::from_ref(&fixture)).await;
    slots_are_slots(std::slice::from_ref(&fixture)).await;
    // They survive kill -9.
    let (web, a) = (name("web"), name("a"));
    let slot = slots(&fixture).take(&web, &a, serial(9)).await.unwrap();
    daemon.kill().unwrap();
    let _again = fixture.start().unwrap();
    slots(&fixture).hold(&web, &a, slot.token).await.unwrap();
    slots(&fixture).free(&web, &a, slot.token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_73_to_79_slots_in_a_cluster() {
    let mut ensemble = Ensemble::start(3, "").unwrap();
    let site = Site::new(&ensemble, realm());
    let (members, mut daemons) = site.found(&["a", "b", "c"], "", GROUPS).await.unwrap();
    for member in &members {
        until("it is a member", async || {
            slots(member).status(&name("web")).await.is_ok()
        })
        .await;
    }
    those_who_wait_are_told(&members).await;
    slots_are_slots(&members).await;
    // What one member has given, another one knows, also after a kill -9.
    let (web, a) = (name("web"), name("a"));
    let slot = slots(&members[0]).take(&web, &a, serial(9)).await.unwrap();
    daemons[0].take().unwrap().kill().unwrap();
    slots(&members[1]).hold(&web, &a, slot.token).await.unwrap();
    // Without a majority nobody goes down (attack 78).
    ensemble.servers[0].kill().unwrap();
    ensemble.servers[1].kill().unwrap();
    until("nobody can decide", async || {
        matches!(
            slots(&members[1]).hold(&web, &a, slot.token).await,
            Err(SlotError::Ask { .. })
        )
    })
    .await;
    ensemble.servers[0].start().unwrap();
    until("it goes on", async || {
        slots(&members[2]).hold(&web, &a, slot.token).await.is_ok()
    })
    .await;
}

/// The limits are those of the present configuration, whatever they were when somebody took a slot
/// (attack 76).
#[tokio::test(flavor = "multi_thread")]
async fn attack_76_the_present_configuration_counts() {
    let (fixture, daemon, _publisher) = origin(&realm(), GROUPS).await.unwrap();
    let web = name("web");
    for node in ["a", "b"] {
        slots(&fixture)
            .take(&web, &name(node), serial(7))
            .await
            .unwrap();
    }
    let change = |daemon: Daemon, from: &str, to: &str| {
        daemon.signal("TERM").unwrap();
        daemon.wait(Duration::from_secs(30)).unwrap();
        fixture.configure(&GROUPS.replace(from, to)).unwrap();
        fixture.start().unwrap()
    };
    let daemon = change(
        daemon,
        "max = 2\nlease_seconds = 600",
        "max = 3\nlease_seconds = 600",
    );
    slots(&fixture)
        .take(&web, &name("c"), serial(7))
        .await
        .unwrap();
    let _daemon = change(
        daemon,
        "max = 2\nlease_seconds = 600",
        "max = 1\nlease_seconds = 600",
    );
    // Three are down where one may be: the next one waits until all are back.
    assert!(matches!(
        slots(&fixture).take(&web, &name("d"), serial(7)).await,
        Err(SlotError::Wait { before: 3, .. })
    ));
}

/// A state that cannot be read is an alarm, not an empty group.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_writes_into_the_tree_gives_no_slot() {
    let ensemble = Ensemble::start(1, "").unwrap();
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a"], "", GROUPS).await.unwrap();
    let (web, a) = (name("web"), name("a"));
    slots(&members[0]).take(&web, &a, serial(1)).await.unwrap();
    let client = zookeeper_client::Client::connect(&ensemble.servers[0].address.to_string())
        .await
        .unwrap();
    client
        .set_data(&format!("{}/slots/web", site.root), b"junk", None)
        .await
        .unwrap();
    let refused = slots(&members[0]).take(&web, &name("b"), serial(1)).await;
    assert!(
        matches!(&refused, Err(SlotError::Ask { source, .. }) if source.to_string().contains("cannot be read")),
        "{refused:?}"
    );
    // Publishing is not affected.
    let mut publisher = Publisher::connect(members[0].source().unwrap())
        .await
        .unwrap();
    publisher
        .publish(&site.realm.release(&os(), None, "1", &["ann", "bob"]))
        .await
        .unwrap();
}

/// A broker that is no member does not know the time that all share, and decides nothing: its own
/// clock may be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn attack_78_a_broker_that_is_no_member_decides_nothing() {
    let ensemble = Ensemble::start(1, "").unwrap();
    let site = Site::new(&ensemble, realm());
    let (members, _daemons) = site.found(&["a"], "", GROUPS).await.unwrap();
    let (web, node) = (name("web"), name("n"));
    let slot = slots(&members[0])
        .take(&web, &node, serial(1))
        .await
        .unwrap();
    let twin = site.member("a", "", GROUPS).unwrap();
    let _twin = twin.start().unwrap();
    until("it has noticed", async || {
        twin.log()
            .contains("another broker with this name is a member")
    })
    .await;
    assert!(matches!(
        slots(&twin).hold(&web, &node, slot.token).await,
        Err(SlotError::Ask { .. })
    ));
    assert!(matches!(
        slots(&twin).status(&web).await,
        Err(SlotError::Ask { .. })
    ));
    slots(&members[0])
        .hold(&web, &node, slot.token)
        .await
        .unwrap();
}
