//! Clocks that are wrong, or missing.

use tidings_protocol::Requirement::*;

use crate::lives::*;

pub(super) fn future(start: &Start) {
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

pub(super) fn without_a_clock(start: &Start) {
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

pub(super) fn clock_of_1970(start: &Start) {
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

pub(super) fn clock_behind(start: &Start) {
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
