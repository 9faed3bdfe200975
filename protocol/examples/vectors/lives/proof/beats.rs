//! Whose beats count, and the beat that a checkpoint names.

use tidings_protocol::{Head, Requirement::*};

use crate::{CEM, lives::*};

pub(super) fn beat_roles(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let more = [
        "Role: beat vectors.os.* 1 pulse",
        "Role: beat vectors.os.lab.* 1 ann",
    ]
    .map(String::from);
    let first = trust(
        None,
        &Rules {
            keys: vec![PULSE],
            more: more.into(),
            ..rules()
        },
        &[ROOT],
    );
    let comment = "attack 98: beats stand in the beat channel of a role, and speak for channels whose most specific role that is";
    let mut life = start.life_of(&first, "beat-roles", comment);
    life.read("1", &[r1]);
    let other = release_in("vectors.os", None, "", &[ANN]);
    life.step("read vectors.os => new 1", &[&other]);
    let narrow = Beat {
        channel: "vectors.os.beat",
        key: PULSE,
        ..beat_at(1)
    };
    let heads = [(LOG, &first), (OS, r2), ("vectors.os", &other)];
    life.no_beat(
        Threshold,
        &Beat {
            key: PULSE,
            ..beat_at(1)
        }
        .says(&heads),
    );
    life.no_beat(
        Threshold,
        &Beat {
            key: BEAT,
            ..narrow.clone()
        }
        .says(&heads),
    );
    life.no_beat(
        NoRole,
        &Beat {
            channel: "vectors.os.stable.beat",
            ..narrow.clone()
        }
        .says(&heads),
    );
    life.no_beat(
        NoRole,
        &Beat {
            channel: "vectors.lab.beat",
            key: ANN,
            ..narrow.clone()
        }
        .says(&heads),
    );
    life.no_beat(
        Namespace,
        &Beat {
            channel: "vector.beat",
            key: BEAT,
            ..narrow.clone()
        }
        .says(&heads),
    );
    life.beat(&beat_at(1).says(&heads));
    life.state("STALE");
    life.state_of("vectors.os", "CURRENT");
    let elsewhere = Head {
        serial: "9".parse().unwrap(),
        id: r1.id(),
    };
    life.beat(&narrow.names(&[
        (LOG, first.head()),
        (OS, r1.head()),
        ("vectors.os", elsewhere),
    ]));
    life.state("CURRENT");
    life.state_of("vectors.os", "CURRENT");
    life.write();
}

pub(super) fn settled_beat(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let quiet = release_in("vectors.quiet", None, "", &[ANN]);
    let unnamed = release_in("vectors.unnamed", None, "", &[CEM]);
    let seventh = beat_at(7).says(&[(LOG, &start.trust), (OS, r2), ("vectors.quiet", r2)]);
    let eighth = beat_at(8).says(&[(LOG, &start.trust), (OS, r1)]);
    let changed = Rules {
        release: vec![CEM],
        beat: Some(PULSE),
        checkpoints: vec![(BEATS, seventh.head()), ("vectors.quiet", quiet.head())],
        ..rules()
    };
    let second = start.second(&changed);
    let by_cem = release_under(2, r2, &[CEM]);
    let comment = "attacks 99 and 118: a checkpoint names a beat, and stands for the heads that it names; its id is the proof";
    let mut life = start.life("settled-beat", comment);
    life.trust(&second);
    life.read("1,2,3", &[r1, r2, &by_cem]);
    let now = Beat {
        key: PULSE,
        trust: 2,
        ..beat_at(1)
    };
    life.beat(&now.says(&[
        (LOG, &second),
        (OS, &by_cem),
        ("vectors.quiet", &quiet),
        ("vectors.unnamed", &unnamed),
    ]));
    life.none(Unsettled, &[r1, r2, &by_cem]);
    // A channel with a line of its own needs no beat.
    life.step("read vectors.quiet => new 1", &[&quiet]);
    life.step("run vectors.quiet => 1", &[&quiet]);
    life.step("read vectors.unnamed => new 1", &[&unnamed]);
    life.step(
        &format!("run vectors.unnamed => none {}", Unsettled.number()),
        &[&unnamed],
    );
    life.no_beat(Threshold, &seventh);
    // In the beat channel itself nothing is settled.
    for serial in [7, 8] {
        life.beat(
            &Beat {
                key: PULSE,
                trust: 2,
                ..beat_at(serial)
            }
            .says(&[
                (LOG, &second),
                (OS, &by_cem),
                ("vectors.quiet", &quiet),
                ("vectors.unnamed", &unnamed),
            ]),
        );
    }
    life.settled(false, &eighth);
    life.settled(false, &now.says(&[(LOG, &second), (OS, r1)]));
    life.settled(true, &seventh);
    life.step("run vectors.unnamed => 1", &[&unnamed]);
    life.step("run vectors.quiet => 1", &[&quiet]);
    life.run(3, &[r1, r2, &by_cem]);
    let instead = release(Some(r1), "Summary: instead\n", &[CEM]);
    life.refused(2, Checkpoint, &[&instead]);
    life.refused(3, Checkpoint, &[&release(Some(&instead), "", &[CEM])]);
    life.write();

    let mut life = start.life(
        "settled-beat-restart",
        "a checkpoint by beat below the head: the channel restarts when the beat has come",
    );
    life.read("1", &[r1]);
    life.trust(&second);
    life.beat(&now.says(&[(LOG, &second), (OS, &by_cem)]));
    life.state("BEHIND");
    life.settled(true, &seventh);
    life.none(Restart, &[r2, &by_cem]);
    life.from(2, &[&by_cem]);
    life.read("2,3", &[r2, &by_cem]);
    life.state("CURRENT");
    life.step("restart", &[]);
    life.clock(NOON);
    life.run(3, &[r2, &by_cem]);
    life.write();
}

pub(super) fn settled_beat_of_a_role(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let more = vec!["Role: beat vectors.os.* 1 pulse".into()];
    let wide = beat_at(7).says(&[(LOG, &start.trust), (OS, r1), ("vectors.x", r1)]);
    let checkpoints = vec![(BEATS, wide.head())];
    let second = start.second(&Rules {
        keys: vec![PULSE],
        more,
        checkpoints,
        ..rules()
    });
    let comment =
        "a beat that a checkpoint names stands for the channels alone that its role speaks for";
    let mut life = start.life("settled-beat-of-a-role", comment);
    life.trust(&second);
    let other = release(None, "Summary: the other\n", &[ANN]);
    life.read("1", &[&other]);
    life.settled(true, &wide);
    life.read("2", &[&release(Some(&other), "", &[BOB])]);
    life.step(
        &format!("read vectors.x => refused 1 {}", Checkpoint.number()),
        &[&release_in("vectors.x", None, "", &[ANN])],
    );
    life.state_of(OS, "STALE");
    let _ = r2;
    life.write();
}
