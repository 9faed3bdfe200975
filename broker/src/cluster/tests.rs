//! What goes into a batch, and who is taken out.

use tidings_protocol::{Channel, Head, Serial, StatementId};

use super::batch::{Batch, Item, Known, Op, Room, Seen, Unfit, kept, plan};
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

fn seen(name: &str, serial: u32, low: u32) -> Seen {
    Seen {
        head: head(name, serial),
        low,
        version: 70 + i32::try_from(serial).unwrap(),
        zxid: 0,
    }
}

const ROOM: Room = Room {
    octets: 1 << 20,
    kept: 64,
};

/// `a.trust` is at 3; other channels are at these.
fn planned(items: &[Item], heads: &[(&str, u32, u32)], room: Room) -> Batch {
    let known = |channel: &Channel| {
        let name = channel.as_str();
        match heads.iter().find(|(known, ..)| *known == name) {
            Some((_, 0, 1)) => Known::Busy,
            Some((_, 0, 2)) => Known::Behind,
            Some((_, serial, low)) => Known::Same(Some(seen(name, *serial, *low))),
            None if name == "a.trust" => Known::Same(Some(seen(name, 3, 1))),
            None => Known::Same(None),
        }
    };
    plan(&items.iter().collect::<Vec<_>>(), &known, room)
}
const BUSY: (u32, u32) = (0, 1);
const BEHIND: (u32, u32) = (0, 2);

fn forgotten(batch: &Batch) -> Vec<u32> {
    let all = batch.ops.iter().filter_map(|op| match op {
        Op::Forget(_, serial) => Some(serial.number()),
        _ => None,
    });
    all.collect()
}

#[test]
fn many_channels_are_one_operation_and_trust_is_checked_once() {
    let items = [item("a.x", 8), item("a.y", 1), item("a.x", 9)];
    let batch = planned(&items, &[("a.x", 7, 1)], ROOM);
    assert_eq!(batch.taken, [0, 2, 1]);
    assert!(batch.unfit.is_empty());
    let entry =
        |name: &str, serial, item| Op::Entry(channel(name), Serial::new(serial).unwrap(), item);
    let set = |name: &str, serial, low, after| Op::Head {
        channel: channel(name),
        head: head(name, serial),
        low,
        after,
    };
    assert_eq!(
        batch.ops,
        [
            Op::Trust(channel("a.trust"), 73),
            entry("a.x", 8, 0),
            entry("a.x", 9, 2),
            set("a.x", 9, 1, Some(77)),
            Op::Begin(channel("a.y")),
            entry("a.y", 1, 1),
            set("a.y", 1, 1, None),
        ]
    );
}

#[test]
fn whoever_lost_a_race_is_taken_out_and_nobody_else() {
    let items = [item("a.x", 8), item("a.y", 1)];
    let batch = planned(&items, &[("a.x", 7, 1)], ROOM);
    let stopped = |index: usize| {
        let all = items.iter().map(|item| batch.ops[index].stops(item));
        all.collect::<Vec<_>>()
    };
    assert_eq!(stopped(0), [true, true], "the trust log has moved");
    assert_eq!(stopped(1), [true, false], "the entry is there");
    assert_eq!(stopped(2), [true, false], "the head is another one");
    assert_eq!(stopped(3), [false, true]);
    // What it knows then says so: it is not taken again, the other is.
    let again = planned(&items, &[("a.x", 8, 1)], ROOM);
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
    let batch = planned(&items, &[("a.x", 7, 1)], ROOM);
    assert_eq!(
        (batch.taken, batch.unfit),
        (vec![0], vec![(2, Unfit::NotNext)])
    );
    let batch = planned(&[rival], &[("a.x", 8, 1)], ROOM);
    assert_eq!(batch.unfit, [(0, Unfit::NotNext)]);
}

#[test]
fn what_is_busy_waits_and_what_is_behind_is_looked_at() {
    let of = |(serial, low)| [("a.x", serial, low)];
    let busy = planned(&[item("a.x", 8), item("a.y", 1)], &of(BUSY), ROOM);
    assert_eq!((busy.taken, busy.unfit), (vec![1], vec![]));
    let behind = planned(&[item("a.x", 8), item("a.y", 1)], &of(BEHIND), ROOM);
    let why = Unfit::Behind(channel("a.x"));
    assert_eq!((behind.taken, behind.unfit), (vec![1], vec![(0, why)]));
    // The same for trust; and what another trust has verified is verified anew.
    let why = Unfit::Behind(channel("a.trust"));
    for (serial, low) in [BEHIND, (4, 1)] {
        let batch = planned(&[item("a.x", 1)], &[("a.trust", serial, low)], ROOM);
        assert_eq!(batch.unfit, [(0, why.clone())]);
        assert!(batch.ops.is_empty());
    }
    let busy = planned(&[item("a.x", 1)], &[("a.trust", BUSY.0, BUSY.1)], ROOM);
    assert!(busy.ops.is_empty() && busy.unfit.is_empty());
}

#[test]
fn trust_is_settled_alone() {
    let items = [trust(4), item("a.x", 1)];
    let batch = planned(&items, &[], ROOM);
    assert_eq!(batch.taken, [0]);
    assert!(
        batch
            .ops
            .iter()
            .all(|op| op.channel() == Some(&channel("a.trust")))
    );
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
fn what_a_batch_forgets_is_bounded_and_the_rest_goes_later() {
    let items: Vec<Item> = (0..10).map(|n| item(&format!("a.n{n}"), 1_001)).collect();
    let names: Vec<&str> = items.iter().map(|item| item.channel.as_str()).collect();
    let heads: Vec<(&str, u32, u32)> = names.iter().map(|name| (*name, 1_000, 1)).collect();
    let batch = planned(&items, &heads, ROOM);
    assert_eq!(batch.taken.len(), 10);
    assert_eq!(forgotten(&batch).len(), CLUSTER_FORGOTTEN as usize);
    for op in &batch.ops {
        let Op::Head { channel, low, .. } = op else {
            continue;
        };
        let gone = |op: &&Op| matches!(op, Op::Forget(of, _) if of == channel);
        let gone = batch.ops.iter().filter(gone).count();
        assert_eq!(*low as usize, 1 + gone, "{channel}");
    }
}

#[test]
fn a_batch_is_bounded_in_octets_and_in_statements() {
    let items: Vec<Item> = (0..1_000).map(|n| item(&format!("a.n{n}"), 1)).collect();
    let batch = planned(&items, &[], ROOM);
    assert_eq!(batch.taken.len(), CLUSTER_BATCH);
    assert!(batch.unfit.is_empty());
    let room = Room {
        octets: 10_000,
        ..ROOM
    };
    let batch = planned(&items, &[], room);
    assert!(batch.octets <= room.octets && batch.octets > room.octets / 2);
    // One alone always goes; more of one channel wait in their order.
    let room = Room { octets: 1, ..ROOM };
    let few = [item("a.x", 9), item("a.x", 8)];
    let batch = planned(&few, &[("a.x", 7, 1)], room);
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
    assert_eq!(batch.ops[0], Op::Term(5));
    let stopped: Vec<bool> = items.iter().map(|item| batch.ops[0].stops(item)).collect();
    assert_eq!(stopped, [false, true]);
    let other = Item {
        channel: channel("a.b.beat"),
        ..beat(6)
    };
    let batch = planned(&[beat(5), other], &[], ROOM);
    assert_eq!((batch.taken, batch.unfit), (vec![0], vec![]));
}

#[test]
fn the_entry_64_places_below_goes_and_nothing_that_is_not_durable_here() {
    let low = |serial, low, kept| {
        let room = Room { kept, ..ROOM };
        let batch = planned(&[item("a.x", serial + 1)], &[("a.x", serial, low)], room);
        forgotten(&batch)
    };
    assert!(low(63, 1, 64).is_empty());
    assert_eq!(low(64, 1, 64), [1]);
    assert_eq!(low(100, 38, 64), [] as [u32; 0]);
    assert_eq!(low(101, 38, 64), [38]);
    // A log that was brought along has no entries below.
    assert!(low(300, 301, 64).is_empty());
    assert_eq!(low(364, 301, 64), [301]);
    // What was kept for longer goes in steps.
    assert_eq!(low(1_000, 1, 64).len(), 128);
    // A run that is longer than what is kept takes nothing away of itself.
    let run: Vec<Item> = (11..=60).map(|serial| item("a.x", serial)).collect();
    let room = Room { kept: 8, ..ROOM };
    let batch = planned(&run, &[("a.x", 10, 5)], room);
    assert_eq!(batch.taken.len(), 50);
    assert_eq!(forgotten(&batch), (5..=10).collect::<Vec<_>>());
}

#[test]
fn in_many_channels_fewer_entries_are_kept_and_alone_more() {
    assert_eq!(kept(10, 3), 64);
    assert_eq!(kept(1_024, 3), 64);
    assert_eq!(kept(4_096, 3), 16);
    assert_eq!(kept(10_000, 3), 8);
    assert_eq!(kept(10, 1), 1_024);
    assert_eq!(kept(0, 0), 1_024);
}
