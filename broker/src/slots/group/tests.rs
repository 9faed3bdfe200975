use super::*;

const RULES: Rules = Rules {
    max: 2,
    lease: 100,
    failures: 2,
};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn asker(node: &str) -> Asker<'_> {
    Asker { node, by: "-" }
}

/// As a broker asks.
impl Group {
    fn asks(&mut self, rules: Rules, now: u64, asker: Asker<'_>, ask: Ask) -> Answer {
        self.answer(rules, at(now), asker, ask)
    }

    fn takes(
        &mut self,
        rules: Rules,
        now: u64,
        asker: Asker<'_>,
        serial: u32,
        held: bool,
    ) -> Answer {
        let (serial, nonce) = (Serial::new(serial), 0);
        let ask = Ask::Take {
            serial,
            held,
            again: false,
            nonce,
        };
        self.asks(rules, now, asker, ask)
    }

    fn frees(&mut self, now: u64, asker: Asker<'_>, token: Option<u64>) -> Answer {
        self.asks(RULES, now, asker, Ask::Free { token })
    }

    fn holds(&mut self, now: u64, asker: Asker<'_>, token: u64) -> Answer {
        let serial = None;
        self.asks(RULES, now, asker, Ask::Hold { serial, token })
    }

    fn clears(&mut self, now: u64, node: &str) -> Answer {
        self.asks(RULES, now, asker(node), Ask::Clear)
    }

    fn leaves(&mut self, now: u64, node: &str) {
        self.asks(RULES, now, asker(node), Ask::Leave { nonce: 0 });
    }
}

fn take(group: &mut Group, now: u64, node: &str) -> Answer {
    group.takes(RULES, now, asker(node), 7, true)
}

fn token(answer: Answer) -> u64 {
    match answer {
        Answer::Yours { token, .. } => token,
        other => panic!("{other:?}"),
    }
}

#[test]
fn slots_are_given_in_the_order_of_asking() {
    let mut group = Group::default();
    let (a, b) = (
        token(take(&mut group, 0, "a")),
        token(take(&mut group, 0, "b")),
    );
    assert!(b > a);
    assert_eq!(take(&mut group, 1, "c"), Answer::Wait { before: 1 });
    assert_eq!(take(&mut group, 2, "d"), Answer::Wait { before: 2 });
    assert_eq!(group.frees(3, asker("a"), Some(a)), Answer::Free);
    // Whoever came later does not overtake.
    assert_eq!(take(&mut group, 4, "d"), Answer::Wait { before: 1 });
    assert!(token(take(&mut group, 5, "c")) > b);
    // Asking again for what is free is no harm, and frees nothing that somebody else has.
    assert_eq!(group.frees(6, asker("a"), Some(a)), Answer::Free);
    assert_eq!(group.holders.len(), 2);
}

/// A request that is held still, and one that was sent after it.
#[test]
fn only_the_last_request_of_a_node_gets_its_slot() {
    let mut group = Group::default();
    let (a, _) = (take(&mut group, 0, "a"), take(&mut group, 0, "b"));
    let ask = |group: &mut Group, now, again, nonce| {
        let (serial, held) = (Serial::new(7), true);
        let ask = Ask::Take {
            serial,
            held,
            again,
            nonce,
        };
        group.asks(RULES, now, asker("c"), ask)
    };
    let wait = |before| Answer::Wait { before };
    let replaced = Answer::Lost(Lost::Replaced);
    assert_eq!(ask(&mut group, 1, false, 1), wait(1));
    assert_eq!(ask(&mut group, 2, true, 1), wait(1));
    assert_eq!(ask(&mut group, 3, false, 2), wait(1));
    // A broker that holds the first one still does not take the place back.
    group.keep(4, "c", 1);
    group.frees(5, asker("a"), Some(token(a)));
    assert_eq!(ask(&mut group, 5, true, 1), replaced);
    let given = token(ask(&mut group, 5, true, 2));
    assert_eq!(ask(&mut group, 6, true, 1), replaced);
    assert!(matches!(
        group.holds(6, asker("c"), given),
        Answer::Yours { .. }
    ));
}

#[test]
fn a_place_lasts_as_long_as_its_request_and_a_moment_more() {
    let mut group = Group::default();
    let a = token(take(&mut group, 0, "a"));
    take(&mut group, 0, "b");
    take(&mut group, 0, "c");
    take(&mut group, 1, "d");
    take(&mut group, 2, "e");
    // The request of d is held, that of e is given up, and of c nothing is heard.
    group.keep(14, "d", 0);
    group.leaves(14, "e");
    group.frees(15, asker("a"), Some(a));
    assert!(group.is_due(RULES, "d") && !group.is_due(RULES, "e"));
    token(take(&mut group, 15, "d"));
    assert_eq!(take(&mut group, 16, "c"), Answer::Wait { before: 1 });
    assert_eq!(take(&mut group, 16, "e"), Answer::Wait { before: 2 });
}

#[test]
fn a_request_that_is_not_held_has_no_place_and_does_not_overtake() {
    let mut group = Group::default();
    let plain = |group: &mut Group, now, node| group.takes(RULES, now, asker(node), 0, false);
    let a = token(take(&mut group, 0, "a"));
    take(&mut group, 0, "b");
    assert_eq!(plain(&mut group, 1, "z"), Answer::Wait { before: 1 });
    assert_eq!(take(&mut group, 2, "c"), Answer::Wait { before: 1 });
    group.frees(3, asker("a"), Some(a));
    assert_eq!(plain(&mut group, 3, "z"), Answer::Wait { before: 1 });
    token(take(&mut group, 3, "c"));
    // It takes what is free when it asks, and nobody waits for one that asked once.
    group.leaves(3, "c");
    assert!(group.waiting.is_empty());
    group.clears(4, "b");
    token(plain(&mut group, 4, "z"));
}

#[test]
fn a_node_that_waits_is_told_when_its_group_stops() {
    let mut group = Group::default();
    take(&mut group, 0, "a");
    take(&mut group, 0, "b");
    take(&mut group, 90, "c");
    assert!(!group.is_due(RULES, "c"));
    assert_eq!(group.state(RULES), "busy");
    group.advance(RULES, at(100));
    assert!(group.is_due(RULES, "c"));
    assert_eq!(take(&mut group, 100, "c"), Answer::Stopped { failed: 2 });
    assert_eq!(group.state(RULES), "stopped");
}

#[test]
fn a_token_counts_for_its_serial_only() {
    let mut group = Group::default();
    let a = token(take(&mut group, 0, "a"));
    let hold = |group: &mut Group, serial| {
        let (serial, token) = (Serial::new(serial), a);
        group.asks(RULES, 1, asker("a"), Ask::Hold { serial, token })
    };
    assert_eq!(hold(&mut group, 8), Answer::Lost(Lost::Other));
    assert_eq!(token(hold(&mut group, 7)), a);
}

#[test]
fn a_node_that_retakes_its_slot_leaves_the_history_to_others() {
    let mut group = Group::default();
    take(&mut group, 0, "a");
    for now in 0..50 {
        take(&mut group, now, "b");
    }
    let events: Vec<_> = group.history.iter().map(|event| event.what).collect();
    assert_eq!(events, [What::Taken, What::Taken, What::Retaken]);
    assert_eq!(group.history[2].at, 49);
}

#[test]
fn attack_75_a_node_that_comes_back_has_its_slot_and_another_token() {
    let mut group = Group::default();
    let before = token(take(&mut group, 0, "a"));
    let after = token(take(&mut group, 99, "a"));
    assert!(after > before && group.holders.len() == 1);
    // A second machine with the same name: the first must not go down.
    assert_eq!(
        group.holds(99, asker("a"), before),
        Answer::Lost(Lost::Replaced)
    );
    assert_eq!(
        group.frees(99, asker("a"), Some(before)),
        Answer::Lost(Lost::Replaced)
    );
    assert_eq!(
        group.holds(99, asker("a"), after),
        Answer::Yours {
            token: after,
            seconds: 100,
            first: false,
        }
    );
    assert_eq!(group.frees(198, asker("a"), Some(after)), Answer::Free);
}

#[test]
fn attacks_73_74_79_a_lease_that_runs_out_is_a_failure_and_enough_of_them_stop_the_group() {
    let mut group = Group::default();
    let a = token(take(&mut group, 0, "a"));
    take(&mut group, 50, "b");
    // It is down, and not free.
    assert_eq!(take(&mut group, 100, "c"), Answer::Wait { before: 1 });
    assert_eq!(group.holds(101, asker("a"), a), Answer::Lost(Lost::Failed));
    // It is alive, so another one may go down; that it was late counts all the same.
    let c = token(take(&mut group, 102, "c"));
    assert_eq!(take(&mut group, 150, "d"), Answer::Stopped { failed: 2 });
    // Who is down already may come back.
    assert_eq!(group.frees(151, asker("c"), Some(c)), Answer::Free);
    assert_eq!(take(&mut group, 152, "c"), Answer::Stopped { failed: 2 });
    // The limits are those of now, whatever they were, and so is the lease.
    let larger = Rules {
        failures: 3,
        max: 3,
        ..RULES
    };
    assert_eq!(larger.lease, 100);
    token(group.takes(larger, 153, asker("d"), 0, true));
    assert_eq!(take(&mut group, 154, "e"), Answer::Stopped { failed: 2 });
    assert_eq!(group.clears(155, "a"), Answer::Free);
    assert_eq!(group.clears(155, "a"), Answer::Lost(Lost::Unknown));
    assert_eq!(take(&mut group, 156, "e"), Answer::Wait { before: 1 });
    assert_eq!(group.clears(157, "b"), Answer::Free);
    token(take(&mut group, 158, "e"));
}

#[test]
fn attack_76_the_lease_is_that_of_the_present_configuration() {
    let mut group = Group::default();
    take(&mut group, 0, "a");
    let (longer, shorter) = (
        Rules {
            lease: 1_000,
            ..RULES
        },
        Rules { lease: 10, ..RULES },
    );
    group.advance(longer, at(500));
    assert_eq!(group.holders.len(), 1);
    group.advance(shorter, at(500));
    assert_eq!((group.holders.len(), group.failed.len()), (0, 1));
}

#[test]
fn attack_73_a_machine_that_loops_fails_in_the_end() {
    let mut group = Group::default();
    let mut now = 0;
    while let Answer::Yours { token, .. } = take(&mut group, now, "a") {
        now += 50;
        group.holds(now, asker("a"), token);
        assert!(now < 1_000, "its lease never runs out");
    }
    assert_eq!(group.failed.len(), 1);
    token(take(&mut group, now, "b"));
}

#[test]
fn attack_77_what_one_has_taken_another_one_does_not_take_again_or_free() {
    let mut group = Group::default();
    let mine = Asker {
        node: "a",
        by: "mine",
    };
    let token = token(group.takes(RULES, 0, mine, 7, true));
    assert_eq!(take(&mut group, 1, "a"), Answer::Lost(Lost::Other));
    assert_eq!(
        group.frees(1, asker("a"), Some(token)),
        Answer::Lost(Lost::Replaced)
    );
    assert_eq!(group.frees(1, asker("a"), None), Answer::Free);
    assert_eq!(
        group.holds(1, asker("a"), token),
        Answer::Lost(Lost::Replaced)
    );
    // Nor for another serial, nor by FleetLock.
    assert_eq!(
        group.takes(RULES, 1, mine, 8, true),
        Answer::Lost(Lost::Other)
    );
    assert_eq!(
        group.takes(RULES, 1, mine, 0, true),
        Answer::Lost(Lost::Other)
    );
    assert_eq!(group.holders.len(), 1);
    // Nor makes one a dead machine of another alive.
    group.advance(RULES, at(200));
    take(&mut group, 201, "a");
    group.frees(201, asker("a"), Some(token));
    assert_eq!(group.failed[0].returned, None);
    group.holds(202, mine, token);
    assert_eq!(group.failed[0].returned, Some(202));
}

#[test]
fn without_a_token_only_what_was_taken_without_one_is_freed() {
    let mut group = Group::default();
    take(&mut group, 0, "a");
    assert_eq!(group.frees(1, asker("a"), None), Answer::Free);
    assert_eq!(group.holders.len(), 1);
    group.takes(RULES, 2, asker("f"), 0, true);
    assert_eq!(group.frees(3, asker("f"), None), Answer::Free);
    assert_eq!(group.holders.len(), 1);
    assert_eq!(
        group.frees(3, asker("a"), Some(9)),
        Answer::Lost(Lost::Replaced)
    );
    assert_eq!(
        group.frees(3, asker("x"), Some(1)),
        Answer::Lost(Lost::Unknown)
    );
}

#[test]
fn what_is_stored_is_bounded() {
    let mut group = Group::default();
    for n in 0..5_000 {
        take(&mut group, 0, &format!("{}{n}", "n".repeat(100)));
    }
    for n in 0..1_000 {
        take(&mut group, 0, &format!("{}{}", "n".repeat(100), n % 2));
    }
    assert_eq!(group.history.len(), SLOT_HISTORY);
    assert!(serde_json::to_vec(&group).unwrap().len() < 512 * 1024);
}

#[test]
fn a_group_that_an_earlier_version_has_kept_can_be_read() {
    let mut group = Group::default();
    for node in ["a", "b", "c"] {
        group.takes(RULES, 1, asker(node), 1, true);
    }
    let mut kept = serde_json::to_value(&group).unwrap();
    let waiting = kept["waiting"].as_array_mut().unwrap();
    assert_eq!(waiting.len(), 1);
    waiting[0].as_object_mut().unwrap().remove("nonce").unwrap();
    let read: Group = serde_json::from_value(kept).unwrap();
    assert_eq!(read, group);
}
