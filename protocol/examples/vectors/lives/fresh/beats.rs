//! Beats, and what they may say.

use tidings_protocol::{Head, Requirement::*};

use crate::lives::*;

pub(super) fn life_of_a_beat(start: &Start) {
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

pub(super) fn other_beats(start: &Start) {
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

pub(super) fn stolen_beat_key(start: &Start) {
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

pub(super) fn trust_in_beats(start: &Start) {
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

pub(super) fn numbers_of_beats(start: &Start) {
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

pub(super) fn no_beats(start: &Start) {
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
