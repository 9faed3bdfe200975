//! What time it is, and whether anything is held back.

mod beats;
mod clock;

use beats::{
    life_of_a_beat, no_beats, numbers_of_beats, other_beats, stolen_beat_key, trust_in_beats,
};
use clock::{clock_behind, clock_of_1970, future, without_a_clock};
use tidings_protocol::Requirement::*;

use super::*;

pub(super) fn write(start: &Start) {
    freeze(start);
    life_of_a_beat(start);
    first_sight(start);
    future(start);
    without_a_clock(start);
    clock_of_1970(start);
    clock_behind(start);
    other_beats(start);
    slow_motion(start);
    stolen_beat_key(start);
    words(start);
    trust_in_beats(start);
    numbers_of_beats(start);
    no_beats(start);
}

fn freeze(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let mut life = start.life(
        "freeze",
        "attacks 17 and 31: a new device is shown an old log, with and without a beat",
    );
    life.state("STALE");
    life.read("1", &[r1]);
    life.state("STALE");
    life.none(NotCurrent, &[r1]);
    life.beat(&start.beat(1, r2));
    life.state("BEHIND");
    life.none(NotCurrent, &[r1]);
    life.read("2", &[r2]);
    life.state("CURRENT");
    life.run(2, &[r1, r2]);
    life.clock(LATER);
    life.state("STALE");
    life.none(NotCurrent, &[r1, r2]);
    life.write();

    let mut life = start.life(
        "behind-although-not-live",
        "a beat that is not live any more says still that there is something later",
    );
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r2));
    life.clock("2026-03-01T00:00:00Z");
    life.state("BEHIND");
    life.write();
}

fn first_sight(start: &Start) {
    let r1 = &start.r1;
    let mut life = start.life(
        "first-sight",
        "a device whose clock is behind gives a beat no more than its life from first sight on",
    );
    life.clock("2026-02-01T06:00:00Z");
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r1));
    life.state("CURRENT");
    life.passes(599);
    life.state("CURRENT");
    life.passes(1);
    life.state("STALE");
    // The same beat again is nothing new.
    life.beat(&start.beat(1, r1));
    life.state("STALE");
    life.write();
}

/// Old beats, each of which is new when it is shown.
fn slow_motion(start: &Start) {
    let r1 = &start.r1;
    let heads = [(LOG, &start.trust), (OS, r1)];
    let times = [
        "2026-02-01T12:05:00Z",
        "2026-02-01T12:10:00Z",
        "2026-02-01T12:15:00Z",
        "2026-02-01T12:20:00Z",
    ];
    let mut life =
        start.life("slow-motion", "attack 97: old beats that are shown one by one, slowly, are not live: time runs on from beat to beat");
    life.clock("none");
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r1));
    life.passes(599);
    life.state("CURRENT");
    for (serial, pair) in (2..).zip(times.windows(2)) {
        life.beat(
            &Beat {
                time: pair[0],
                expires: pair[1],
                ..beat_at(serial)
            }
            .says(&heads),
        );
        life.state(if serial == 2 { "CURRENT" } else { "STALE" });
        life.passes(600);
        life.state("STALE");
    }
    life.write();

    // Trust that was withheld, and a beat under it.
    let second = start.second(&rules());
    let old = |serial, time, expires| {
        Beat {
            time,
            expires,
            trust: 2,
            ..beat_at(serial)
        }
        .says(&[(LOG, &second), (OS, r1)])
    };
    let comment =
        "attack 97: trust that was withheld sets no time back either, before the machine stops";
    let mut life = start.life("slow-motion-of-trust", comment);
    life.clock("none");
    life.read("1", &[r1]);
    life.passes(600);
    life.trust(&second);
    life.beat(&old(1, "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"));
    life.state("STALE");
    life.beat(&old(2, "2026-01-01T00:05:00Z", "2026-01-01T00:15:00Z"));
    life.state("CURRENT");
    life.step("restart", &[]);
    life.beat(&old(3, "2026-01-01T00:05:00Z", "2026-01-01T00:15:00Z"));
    life.passes(599);
    life.state("CURRENT");
    life.passes(1);
    life.state("STALE");
    life.write();

    let wrong = start.second(&Rules {
        time: "2027-01-01T00:00:00Z",
        ..rules()
    });
    let right = trust(
        Some(&wrong),
        &Rules {
            time: NOON,
            ..rules()
        },
        &[ROOT],
    );
    let comment = "trust with a wrong time is corrected by the next: at the latest when the machine starts anew";
    let mut life = start.life("time-of-trust-corrected", comment);
    life.clock("none");
    life.read("1", &[r1]);
    life.trust(&wrong);
    life.trust(&right);
    let named = |serial| beat_at(serial).says(&[(LOG, &right), (OS, r1)]);
    life.beat(&named(1));
    life.state("STALE");
    life.step("restart", &[]);
    life.beat(&named(2));
    life.state("CURRENT");
    life.write();

    // The same over starts of a machine whose clock counts.
    let day = Beat {
        time: "2026-02-02T11:00:00Z",
        expires: "2026-02-03T11:00:00Z",
        ..beat_at(1)
    }
    .says(&heads);
    let mut life = start.life(
        "first-sight-over-a-start",
        "attack 93: a beat from ahead is live no longer than its life from first sight, by the clock after a start",
    );
    life.read("1", &[r1]);
    life.beat(&day);
    life.step("restart", &[]);
    life.clock("2026-02-02T11:59:59Z");
    life.state("CURRENT");
    life.clock("2026-02-02T12:00:00Z");
    life.state("STALE");
    life.write();

    let mut life = start.life(
        "clock-set-after-a-start",
        "a clock that did not count at first sight measures nothing after a start",
    );
    life.clock("1970-01-01T00:00:00Z");
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r1));
    life.step("restart", &[]);
    life.clock(NOON);
    life.state("CURRENT");
    life.write();
}

fn words(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let others = release(Some(r1), "Summary: the other\n", &[BOB]);
    let mut life = start.life(
        "forked-by-an-old-beat",
        "a beat that names another statement at a serial of the chain, live or not",
    );
    life.read("1,2,3", &[r1, r2, r3]);
    life.beat(&start.beat(1, &others));
    life.state("FORKED");
    life.clock("2026-03-01T00:00:00Z");
    life.state("FORKED");
    life.none(NotCurrent, &[r1, r2, r3]);
    life.write();

    let mut life = start.life(
        "below-the-head",
        "a live beat that names a statement below the head, on the chain, covers as far as that",
    );
    life.read("1,2,3", &[r1, r2, r3]);
    life.beat(&start.beat(1, r2));
    life.state("CURRENT");
    life.run(2, &[r1, r2, r3]);
    life.write();

    let mut life = start.life("over-a-hole", "what lies below a hole is not on the chain");
    life.read("1", &[r1]);
    life.hole("3", &[r3]);
    life.beat(&start.beat(1, r1));
    life.state("STALE");
    life.beat(&start.beat(2, r2));
    life.state("CURRENT");
    life.beat(&start.beat(3, &others));
    life.state("FORKED");
    life.beat(&start.beat(4, r3));
    life.state("CURRENT");
    life.write();

    let mut life = start.life("not-named", "a live beat that does not name the channel");
    life.read("1", &[r1]);
    life.beat(&beat_at(1).says(&[(LOG, &start.trust)]));
    life.state("STALE");
    life.none(NotCurrent, &[r1]);
    life.write();

    let mut all = vec![start.r1.clone()];
    while all.len() < 67 {
        all.push(release(all.last(), "", &[ANN]));
    }
    let all: Vec<&Statement> = all.iter().collect();
    let serials: Vec<String> = (1..=67).map(|n: u32| n.to_string()).collect();
    let mut life = start.life(
        "chain-links",
        "of the statements below the head a device knows 64 by serial and id",
    );
    life.read(&serials.join(","), &all);
    life.beat(&start.beat(1, all[1]));
    life.state("STALE");
    life.beat(&start.beat(2, all[2]));
    life.state("CURRENT");
    life.write();
}
