//! What goes into a batch, and who is taken out.

use tidings_protocol::{Channel, Head, Serial, Statement, StatementId};

use super::{
    batch::{Batch, Check, Item, Known, Seen, Set, Unfit, plan},
    kept::{self, Kept, Shelf},
    nodes::Part,
};
use crate::limits::{CLUSTER_BATCH, CLUSTER_FORGOTTEN};

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn head(channel: &str, serial: u32) -> Head {
    Head {
        serial: Serial::new(serial).unwrap(),
        id: StatementId::of(format!("{channel} {serial}").as_bytes()),
    }
}

/// The statement with this serial, verified by trust 3.
fn item(name: &str, serial: u32) -> Item {
    Item {
        channel: channel(name),
        head: head(name, serial),
        after: (serial > 1).then(|| head(name, serial - 1)),
        octets: 1_000,
        by: Some((channel("a.trust"), Serial::new(3).unwrap())),
        term: None,
    }
}

fn trust(serial: u32) -> Item {
    Item {
        by: None,
        ..item("a.trust", serial)
    }
}

fn seen(name: &str, serial: u32) -> Seen {
    Seen {
        head: head(name, serial),
        version: 70 + i32::try_from(serial).unwrap(),
        zxid: 0,
    }
}

const ROOM: usize = 1 << 20;

/// `a.trust` is at 3; other channels are at these.
fn planned(items: &[Item], heads: &[(&str, u32)], room: usize) -> Batch {
    let known = |channel: &Channel| {
        let name = channel.as_str();
        match heads.iter().find(|(known, ..)| *known == name) {
            Some((_, BUSY)) => Known::Busy,
            Some((_, BEHIND)) => Known::Behind,
            Some((_, serial)) => Known::Same(Some(seen(name, *serial))),
            None if name == "a.trust" => Known::Same(Some(seen(name, 3))),
            None => Known::Same(None),
        }
    };
    plan(&items.iter().collect::<Vec<_>>(), &known, room)
}
const BUSY: u32 = u32::MAX;
const BEHIND: u32 = u32::MAX - 1;

#[test]
fn many_channels_are_one_operation_and_trust_is_checked_once() {
    let items = [item("a.x", 8), item("a.y", 1), item("a.x", 9)];
    let batch = planned(&items, &[("a.x", 7)], ROOM);
    assert_eq!(batch.taken, [0, 2, 1]);
    assert!(batch.unfit.is_empty());
    assert_eq!(batch.checks, [Check::Trust(channel("a.trust"), 73)]);
    let set = |name: &str, serial, after, items: &[usize]| Set {
        channel: channel(name),
        head: head(name, serial),
        after,
        items: items.into(),
    };
    let sets = [set("a.x", 9, Some(77), &[0, 2]), set("a.y", 1, None, &[1])];
    assert_eq!(batch.sets, sets);
    assert_eq!(batch.sets[0].version(), 78);
    assert_eq!(batch.sets[1].version(), 0);
}

#[test]
fn whoever_lost_a_race_is_taken_out_and_nobody_else() {
    let items = [item("a.x", 8), item("a.y", 1)];
    let batch = planned(&items, &[("a.x", 7)], ROOM);
    let stopped = |index: usize| {
        let all = items
            .iter()
            .map(|item| batch.stops(batch.part(index), item));
        all.collect::<Vec<_>>()
    };
    assert_eq!(stopped(0), [true, true], "the trust log has moved");
    assert_eq!(stopped(1), [true, true], "the node cannot be made");
    assert_eq!(stopped(2), [true, false], "the head is another one");
    assert_eq!(stopped(3), [false, true]);
    assert_eq!(stopped(4), [false, false], "a node has gone already");
    assert!(matches!(batch.part(5), Part::Going(1)));
    // What it knows then says so: it is not taken again, the other is.
    let again = planned(&items, &[("a.x", 8)], ROOM);
    assert_eq!(again.taken, [1]);
    assert_eq!(again.unfit, [(0, Unfit::NotNext)]);
}

#[test]
fn of_rivals_one_is_taken_and_the_others_wait_for_what_becomes_of_it() {
    let rival = Item {
        head: Head {
            id: StatementId::of(b"rival"),
            ..head("a.x", 8)
        },
        ..item("a.x", 8)
    };
    let items = [item("a.x", 8), rival.clone(), item("a.x", 10)];
    let batch = planned(&items, &[("a.x", 7)], ROOM);
    assert_eq!(
        (batch.taken, batch.unfit),
        (vec![0], vec![(2, Unfit::NotNext)])
    );
    let batch = planned(&[rival], &[("a.x", 8)], ROOM);
    assert_eq!(batch.unfit, [(0, Unfit::NotNext)]);
}

#[test]
fn what_is_busy_waits_and_what_is_behind_is_looked_at() {
    let of = |serial| [("a.x", serial)];
    let busy = planned(&[item("a.x", 8), item("a.y", 1)], &of(BUSY), ROOM);
    assert_eq!((busy.taken, busy.unfit), (vec![1], vec![]));
    let behind = planned(&[item("a.x", 8), item("a.y", 1)], &of(BEHIND), ROOM);
    let why = Unfit::Behind(channel("a.x"));
    assert_eq!((behind.taken, behind.unfit), (vec![1], vec![(0, why)]));
    // The same for trust; and what another trust has verified is verified anew.
    let why = Unfit::Behind(channel("a.trust"));
    for serial in [BEHIND, 4] {
        let batch = planned(&[item("a.x", 1)], &[("a.trust", serial)], ROOM);
        assert_eq!(batch.unfit, [(0, why.clone())]);
        assert!(batch.sets.is_empty());
    }
    let busy = planned(&[item("a.x", 1)], &[("a.trust", BUSY)], ROOM);
    assert!(busy.sets.is_empty() && busy.unfit.is_empty());
}

#[test]
fn trust_is_settled_alone() {
    let items = [trust(4), item("a.x", 1)];
    let batch = planned(&items, &[], ROOM);
    assert_eq!(batch.taken, [0]);
    assert_eq!(batch.channels().collect::<Vec<_>>(), [&channel("a.trust")]);
    assert!(batch.checks.is_empty());
    let items = [item("a.x", 1), trust(4)];
    let batch = planned(&items, &[], ROOM);
    assert_eq!((batch.taken, batch.unfit), (vec![0], vec![]));
}

/// Each was verified by the one that it follows: what would follow another one of the same batch
/// was verified by nobody.
#[test]
fn of_a_trust_log_one_statement_is_settled_at_once() {
    let items = [trust(5), trust(4)];
    let batch = planned(&items, &[], ROOM);
    assert_eq!(
        (batch.taken, batch.unfit),
        (vec![1], vec![(0, Unfit::NotNext)])
    );
}

#[test]
fn a_batch_is_bounded_in_octets_and_in_statements() {
    let items: Vec<Item> = (0..1_000).map(|n| item(&format!("a.n{n}"), 1)).collect();
    let batch = planned(&items, &[], ROOM);
    assert_eq!(batch.taken.len(), CLUSTER_BATCH);
    assert!(batch.unfit.is_empty());
    let batch = planned(&items, &[], 10_000);
    assert!((5_000..=10_000).contains(&batch.octets));
    // One alone always goes; more of one channel wait in their order.
    let few = [item("a.x", 9), item("a.x", 8)];
    let batch = planned(&few, &[("a.x", 7)], 1);
    assert_eq!((batch.taken, batch.unfit), (vec![1], vec![]));
}

#[test]
fn a_beat_is_settled_in_its_term_alone() {
    let beat = |term| Item {
        term: Some(term),
        ..item("a.beat", 1)
    };
    let items = [item("a.x", 1), beat(5)];
    let batch = planned(&items, &[], ROOM);
    assert_eq!(batch.checks[0], Check::Term(5));
    let stopped = items.iter().map(|item| batch.stops(Part::Check(0), item));
    let stopped: Vec<bool> = stopped.collect();
    assert_eq!(stopped, [false, true]);
    let other = Item {
        channel: channel("a.b.beat"),
        ..beat(6)
    };
    let batch = planned(&[beat(5), other], &[], ROOM);
    assert_eq!((batch.taken, batch.unfit), (vec![0], vec![]));
}

const NEXT: fn(&Channel) -> u32 = |_| 10;

/// Nodes of members, the oldest first; what they hold is lacking from these serials on.
fn shelf(nodes: &[(&str, u32)]) -> (Shelf, Vec<String>) {
    let (mut shelf, mut names) = (Shelf::default(), Vec::new());
    for (number, (member, lacking)) in nodes.iter().enumerate() {
        let name = kept::name(7, number as u64, member);
        let serial = Serial::new(*lacking);
        let node = Kept {
            octets: 100,
            entries: 2,
            lacking: serial.map(|at| (channel("a.x"), at)).into_iter().collect(),
            unread: false,
        };
        shelf.add(&name, number as i64, node);
        names.push(name);
    }
    (shelf, names)
}

#[test]
fn a_member_removes_its_own_oldest_nodes_above_its_share() {
    let (shelf, names) = shelf(&[("a", 0), ("b-c", 0), ("a", 0), ("a", 0), ("b-c", 0)]);
    assert_eq!(shelf.entries(), 10);
    let going = |member, live: &[&str], bound| shelf.going(member, live, bound, &NEXT);
    let both = ["a", "b-c"];
    assert!(going("a", &both, (6, 600)).is_empty());
    assert_eq!(going("a", &both, (4, 600)), [names[0].clone()]);
    assert_eq!(
        going("a", &both, (6, 200)),
        [&names[..1], &names[2..3]].concat()
    );
    assert_eq!(going("b-c", &both, (2, 600)), [names[1].clone()]);
    // Alone it has the whole, and what those have left who are gone.
    assert!(going("a", &["a"], (5, 500)).is_empty());
    assert_eq!(going("a", &["a"], (3, 500)), names[..2]);
    let many = vec![("a", 0); 2 * CLUSTER_FORGOTTEN];
    let (many, _) = self::shelf(&many);
    assert_eq!(
        many.going("a", &["a"], (0, 0), &NEXT).len(),
        CLUSTER_FORGOTTEN
    );
}

#[test]
fn nothing_goes_that_is_not_durable_here() {
    let (mut shelf, names) = shelf(&[("a", 10), ("a", 9), ("a", 11), ("a", 12), ("a", 13)]);
    let going = shelf.going("a", &["a"], (0, 0), &NEXT);
    assert_eq!(
        going,
        [names[1].clone()],
        "the others hold what comes later"
    );
    // And what comes next is read again, one after the other.
    assert_eq!(shelf.of_use(&NEXT), [&names[..1], &names[2..]].concat());
    assert!(shelf.remove(&names[2]) && !shelf.remove(&names[2]));
    assert_eq!(shelf.of_use(&NEXT), names[..1]);
    shelf.retain(&names[3..]);
    assert!(!shelf.has(&names[0]) && shelf.has(&names[3]));
}

/// Where many old ones have to stay, those that are newer go all the same.
#[test]
fn what_has_to_stay_does_not_keep_the_rest() {
    let mut all = vec![("gone", 10); 3 * CLUSTER_FORGOTTEN];
    all.push(("a", 0));
    let (shelf, names) = shelf(&all);
    let going = shelf.going("a", &["a"], (0, 0), &NEXT);
    assert_eq!(going, names[3 * CLUSTER_FORGOTTEN..]);
}

#[test]
fn what_a_node_holds_is_read_as_it_was_written() {
    let article = include_bytes!("../../../spec/vectors/good/release-1-minimal");
    let body = article.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
    let statement = Statement::parse(&article[body..]).unwrap();
    let (channel, other) = (statement.channel().clone(), channel("a.y"));
    let mut node = Vec::new();
    let entry = Some((&statement, "a!b c"));
    kept::write(&mut node, (&channel, statement.head(), 7), entry);
    kept::write(&mut node, (&other, head("a.y", 9), -1), None);
    let records = kept::read(&node).unwrap();
    let of = |one: &kept::Record| (one.channel.clone(), one.head, one.version);
    assert_eq!(of(&records[0]), (channel, statement.head(), 7));
    assert_eq!(records[0].entry, Some((statement.clone(), "a!b c".into())));
    assert_eq!(of(&records[1]), (other, head("a.y", 9), -1));
    assert!(records[1].entry.is_none() && records.len() == 2);
    assert!(kept::read(b"").unwrap().is_empty());
    // Cut off anywhere else than between the two, or with another head than the statement's, it is
    // nothing that a member has settled.
    let whole = |end: &usize| kept::read(&node[..*end]).is_some();
    assert_eq!((1..=node.len()).filter(whole).count(), 2);
    let mut wrong = Vec::new();
    kept::write(&mut wrong, (statement.channel(), head("a.y", 9), 7), entry);
    assert!(kept::read(&wrong).is_none());
    assert!(kept::read(b"junk").is_none() && kept::read(b"path\njunk").is_none());
}
