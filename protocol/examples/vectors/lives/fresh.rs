//! What time it is, and whether anything is held back.

use tidings_protocol::{Head, Requirement::*};

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

fn life_of_a_beat(start: &Start) {
    let r1 = &start.r1;
    let mut life = start.life(
        "last-second",
        "a beat is live up to its last second, and at exactly its end it is not",
    );
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r1));
    life.clock("2026-02-01T12:09:59Z");
    life.state("CURRENT");
    life.clock(LATER);
    life.state("STALE");
    let heads = [(LOG, &start.trust), (OS, r1)];
    let long = |serial, time| {
        Beat {
            time,
            expires: "2036-01-01T00:00:00Z",
            ..beat_at(serial)
        }
        .says(&heads)
    };
    life.beat(&long(2, LATER));
    life.clock("2026-02-02T12:09:59Z");
    life.state("CURRENT");
    life.clock("2026-02-02T12:10:00Z");
    life.state("STALE");
    // Later by the clock than it is: its time counts from itself on.
    life.beat(&long(3, "2026-02-02T12:00:00Z"));
    life.clock("2026-02-03T11:59:59Z");
    life.state("CURRENT");
    life.clock("2026-02-03T12:00:00Z");
    life.state("STALE");
    life.write();

    let mut life = start.life(
        "last-second-by-the-monotonic-clock",
        "attack 21: time runs on although the clock is set back",
    );
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r1));
    life.passes(300);
    life.clock("2026-02-01T11:00:00Z");
    life.passes(299);
    life.state("CURRENT");
    life.passes(1);
    life.state("STALE");
    life.clock(NOON);
    life.state("STALE");
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

fn future(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let heads = [(LOG, &start.trust), (OS, r1)];
    let of = |serial, time, expires| {
        Beat {
            time,
            expires,
            ..beat_at(serial)
        }
        .says(&heads)
    };
    let comment = "attacks 93 and 120: of what is dated ahead of the clock beats alone are refused, and by more than a day";
    let mut life = start.life("future", comment);
    let far = first_lines("release", OS, None, "9999-12-31T23:59:59Z") + "Trust: 1\nVersion: 1\n";
    life.read("1", &[&parse(&sign(far, &[ANN]))]);
    life.no_beat(
        BeatFuture,
        &of(2, "2026-02-02T12:00:01Z", "2026-02-02T12:10:00Z"),
    );
    life.no_beat(
        BeatFuture,
        &of(2, "2026-08-20T12:00:00Z", "2026-08-21T12:00:00Z"),
    );
    life.state("STALE");
    life.beat(&of(2, "2026-02-02T12:00:00Z", "2026-02-02T12:10:00Z"));
    life.write();

    let mut life =
        start.life("future-within-a-day", "a beat within a day ahead moves the time on: earlier ones are not live, and its own life ends");
    life.read("1", &[r1]);
    life.beat(&of(1, "2026-02-02T11:00:00Z", "2026-02-02T11:10:00Z"));
    life.state("CURRENT");
    life.passes(600);
    life.state("STALE");
    life.beat(&of(2, "2026-02-01T12:10:00Z", "2026-02-01T12:20:00Z"));
    // Time does not fall back.
    life.state("STALE");
    life.beat(&of(3, "2026-02-02T11:09:59Z", "2026-02-02T11:19:59Z"));
    life.state("CURRENT");
    let _ = r2;
    life.write();

    // Trust moves the time too, and is taken whatever its time is.
    let ahead = start.second(&Rules {
        time: "2027-01-01T00:00:00Z",
        ..rules()
    });
    let mut life = start.life(
        "future-trust",
        "trust of the future is taken; a clock more than a day behind it is none",
    );
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r1));
    life.trust(&ahead);
    let named = |serial, time, expires| {
        Beat {
            time,
            expires,
            ..beat_at(serial)
        }
        .says(&[(LOG, &ahead), (OS, r1)])
    };
    life.beat(&named(2, NOON, LATER));
    life.state("STALE");
    life.beat(&named(3, "2029-01-01T00:00:00Z", "2029-01-01T00:10:00Z"));
    life.state("CURRENT");
    life.write();
}

fn without_a_clock(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let comment = "attack 97: without a clock a beat is live only if it came, newer, since the machine started";
    let mut life = start.life("no-clock", comment);
    life.clock("none");
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r1));
    life.state("CURRENT");
    life.run(1, &[r1]);
    life.passes(599);
    life.state("CURRENT");
    life.passes(1);
    life.state("STALE");
    life.beat(&start.beat(3, r1));
    // That one is of noon too, and time has run on.
    life.state("STALE");
    let heads = [(LOG, &start.trust), (OS, r1)];
    let of = |serial| {
        Beat {
            time: "2026-02-01T12:10:00Z",
            expires: "2026-02-01T12:20:00Z",
            ..beat_at(serial)
        }
        .says(&heads)
    };
    life.beat(&of(4));
    life.state("CURRENT");
    life.step("restart", &[]);
    life.state("STALE");
    for old in [1, 3] {
        life.beat(&start.beat(old, r1));
        life.state("STALE");
    }
    life.beat(&of(4));
    life.state("STALE");
    life.none(NotCurrent, &[r1]);
    life.beat(&of(5));
    life.state("CURRENT");
    life.run(1, &[r1]);
    life.write();

    let mut life = start.life(
        "clock-after-a-start",
        "with a clock that counts a beat is live over a start of the machine",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.passes(60);
    life.step("restart", &[]);
    life.clock("2026-02-01T12:01:00Z");
    life.state("CURRENT");
    life.clock("none");
    life.state("STALE");
    life.clock(LATER);
    life.state("STALE");
    life.write();

    // Expiry by signed times.
    let soon = trust(
        None,
        &Rules {
            expires: "2026-03-01T00:00:00Z",
            ..rules()
        },
        &[ROOT],
    );
    let comment =
        "attack 22: without a clock the signed times count; expiry stops installing, never reading";
    let mut life = start.life_of(&soon, "expiry", comment);
    life.clock("none");
    life.read("1", &[r1]);
    life.beat(&beat_at(1).says(&[(LOG, &soon), (OS, r1)]));
    life.run(1, &[r1]);
    let march = |time, expires, head: &Statement, trust: &Statement, serial| {
        Beat {
            time,
            expires,
            ..beat_at(serial)
        }
        .says(&[(LOG, trust), (OS, head)])
    };
    life.beat(&march(
        "2026-02-28T23:59:59Z",
        "2026-03-01T00:10:00Z",
        r2,
        &soon,
        2,
    ));
    life.state("BEHIND");
    life.read("2", &[r2]);
    life.run(2, &[r1, r2]);
    life.passes(1);
    life.state("CURRENT");
    life.none(Expired, &[r1, r2]);
    life.read("3", &[&start.r3]);
    let renewed = trust(
        Some(&soon),
        &Rules {
            time: "2026-03-01T00:01:00Z",
            ..rules()
        },
        &[ROOT],
    );
    life.trust(&renewed);
    life.beat(&march(
        "2026-03-01T00:01:00Z",
        "2026-03-01T00:11:00Z",
        &start.r3,
        &renewed,
        3,
    ));
    life.run(3, &[r2, &start.r3]);
    life.write();
}

fn clock_of_1970(start: &Start) {
    let r1 = &start.r1;
    let mut life = Life::new(
        "clock-of-1970",
        "attack 120: a clock of 1970 hinders nothing but what needs a clock",
        &start.trust,
    );
    life.clock("1970-01-01T00:00:00Z");
    life.trust(&start.trust);
    life.read("1", &[r1]);
    life.beat(&start.beat(1, r1));
    life.state("CURRENT");
    life.passes(599);
    life.run(1, &[r1]);
    life.passes(1);
    life.none(NotCurrent, &[r1]);
    life.write();
}

fn clock_behind(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let stop = withdraw(r2, r2, &[STOP]);
    let comment = "attack 120: a clock that is set back by two days does not hide a withdrawal";
    let mut life = start.life("clock-set-back", comment);
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.clock("2026-01-30T12:00:00Z");
    life.state("CURRENT");
    life.read("3", &[&stop]);
    life.beat(&start.beat(2, &stop));
    life.state("CURRENT");
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.write();

    // The monotonic clock stands still between these: what decides is the distance to the newest
    // signed time.
    let next = |serial| {
        Beat {
            time: "2026-02-01T12:00:01Z",
            ..beat_at(serial)
        }
        .says(&[(LOG, &start.trust), (OS, r2)])
    };
    let mut life = start.life(
        "clock-a-day-behind",
        "a clock counts up to a day behind what was signed, and not beyond",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.clock("2026-01-31T12:00:00Z");
    life.no_beat(BeatFuture, &next(2));
    life.clock("2026-01-31T11:59:59Z");
    life.beat(&next(2));
    life.state("CURRENT");
    life.write();
}

fn other_beats(start: &Start) {
    let r1 = &start.r1;
    let lab = release_in("vectors.lab.x", None, "", &[ANN]);
    let more = vec!["Role: beat vectors.lab.* 1 pulse".into()];
    let first = trust(
        None,
        &Rules {
            keys: vec![PULSE],
            more,
            ..rules()
        },
        &[ROOT],
    );
    let narrow = Beat {
        channel: "vectors.lab.beat",
        key: PULSE,
        ..beat_at(1)
    };
    let comment = "attack 98: the beats of one role move the time of its own channels alone";
    let mut life = start.life_of(&first, "time-of-another-role", comment);
    life.read("1", &[r1]);
    life.step("read vectors.lab.x => new 1", &[&lab]);
    life.beat(&beat_at(1).says(&[(LOG, &first), (OS, r1)]));
    let ahead = Beat {
        time: "2026-02-02T11:00:00Z",
        expires: "2026-02-02T11:10:00Z",
        ..narrow.clone()
    };
    life.beat(&ahead.says(&[(LOG, &first), ("vectors.lab.x", &lab)]));
    life.state("CURRENT");
    life.state_of("vectors.lab.x", "CURRENT");
    life.run(1, &[r1]);
    life.passes(599);
    life.state("CURRENT");
    life.write();

    let mut life = start.life_of(
        &first,
        "time-of-another-role-without-a-clock",
        "the same without a clock",
    );
    life.clock("none");
    life.read("1", &[r1]);
    life.beat(&beat_at(1).says(&[(LOG, &first), (OS, r1)]));
    let far = Beat {
        time: "9990-01-01T00:00:00Z",
        expires: "9990-01-01T00:10:00Z",
        ..narrow
    };
    life.beat(&far.says(&[(LOG, &first)]));
    life.state("CURRENT");
    life.run(1, &[r1]);
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

fn stolen_beat_key(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let heads = [(LOG, &start.trust), (OS, r2)];
    let comment = "attack 15: a stolen beat key stops a device without a clock; what it said is gone when it is taken away";
    let mut life = start.life("stolen-beat-key", comment);
    life.clock("none");
    life.read("1,2", &[r1, r2]);
    life.no_beat(
        Threshold,
        &Beat {
            key: ANN,
            ..beat_at(1)
        }
        .says(&heads),
    );
    let poison = Beat {
        time: "9990-01-01T00:00:00Z",
        expires: "9990-01-01T00:10:00Z",
        ..beat_at(2_147_483_647)
    }
    .says(&heads);
    life.beat(&poison);
    life.none(Expired, &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.none(Expired, &[r1, r2]);
    let second = start.second(&Rules {
        beat: Some(PULSE),
        ..rules()
    });
    life.trust(&second);
    life.state("STALE");
    life.beat(
        &Beat {
            key: PULSE,
            ..beat_at(1)
        }
        .says(&[(LOG, &second), (OS, r2)]),
    );
    life.run(2, &[r1, r2]);
    life.no_beat(Threshold, &poison);
    life.write();

    let mut life = start.life(
        "stolen-beat-key-with-a-clock",
        "attack 15: the same beat is refused by a device with a clock",
    );
    life.read("1,2", &[r1, r2]);
    life.no_beat(BeatFuture, &poison);
    life.beat(&start.beat(1, r2));
    life.run(2, &[r1, r2]);
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

fn trust_in_beats(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let second = start.second(&rules());
    let mut life = start.life(
        "withheld-trust",
        "mix and match: an old trust log beside a live beat that names a newer one",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&beat_at(1).says(&[(LOG, &second), (OS, r2)]));
    life.state("BEHIND");
    life.none(NotCurrent, &[r1, r2]);
    life.trust(&second);
    life.run(2, &[r1, r2]);
    life.write();

    let mut life = start.life("older-trust", "a beat that names trust before the one in force says what is later, never that all is well");
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.state("CURRENT");
    life.trust(&second);
    life.state("STALE");
    life.beat(&start.beat(2, r3));
    life.state("BEHIND");
    life.read("3", &[r3]);
    life.state("STALE");
    life.beat(&start.beat(3, &release(Some(r2), "Summary: the other\n", &[ANN])));
    life.state("FORKED");
    life.beat(&beat_at(4).says(&[(LOG, &second), (OS, r3)]));
    life.state("CURRENT");
    life.write();

    let other = start.second(&Rules {
        expires: "2037-01-01T00:00:00Z",
        ..rules()
    });
    let mut life = start.life(
        "silent-about-trust",
        "a beat that is silent about trust, or names another statement there, confirms nothing",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&beat_at(1).says(&[(OS, r2)]));
    life.state("STALE");
    life.trust(&second);
    life.beat(&beat_at(2).says(&[(LOG, &other), (OS, r2)]));
    life.state("FORKED");
    life.none(NotCurrent, &[r1, r2]);
    life.write();
}

fn numbers_of_beats(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let others = release(Some(r1), "Summary: the other\n", &[BOB]);
    let comment = "attack 25: of the proven beats the highest serial counts, linked or not; of two with one serial the first";
    let mut life = start.life("highest-beat", comment);
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(5, r2));
    life.state("CURRENT");
    life.beat(&start.beat(4, &others));
    life.state("CURRENT");
    life.beat(&start.beat(5, &others));
    life.state("CURRENT");
    life.beat(&start.beat(900, &others));
    life.state("FORKED");
    life.beat(&start.beat(901, r2));
    life.state("CURRENT");
    let odd = first_lines(
        "beat",
        BEATS,
        Some(Head {
            serial: "901".parse().unwrap(),
            id: r1.id(),
        }),
        NOON,
    );
    let odd = odd
        + &format!(
            "Trust: 1\nExpires: {LATER}\nColour: blue\nCritical: Colour\nHead: {LOG} {}\nHead: {OS} {}\n",
            start.trust.head(),
            r2.head()
        );
    life.no_beat(Critical, &parse(&sign(odd, &[BEAT])));
    life.no_beat(
        NewerTrust,
        &Beat {
            trust: 2,
            ..beat_at(902)
        }
        .says(&[(LOG, &start.trust), (OS, r2)]),
    );
    life.state("CURRENT");
    life.write();
}

fn no_beats(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let first = trust(None, &silent(), &[ROOT]);
    let mut life = start.life_of(
        &first,
        "no-beats",
        "a namespace without beats: STALE for ever, and installed all the same",
    );
    life.read("1", &[r1]);
    life.no_beat(NoRole, &start.beat(1, r1));
    life.state("STALE");
    life.run(1, &[r1]);
    life.read("2", &[r2]);
    life.none(LogEnds, &[r1]);
    life.run(2, &[r1, r2]);
    life.write();
}
