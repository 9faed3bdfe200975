//! The release to run.

use tidings_protocol::{Requirement::*, Timestamp, rollout};

use super::*;
use crate::CEM;

pub(super) fn write(start: &Start) {
    targets(start);
    not_before(start);
    waves(start);
    barriers(start);
    barriers_in_the_way(start);
    applied(start);
    image(start);
    critical(start);
    log_ends(start);
    begun(start);
    expired(start);
}

/// A log of releases with these fields, and a device that has read it and has a beat that names its
/// head.
fn log_of(
    start: &Start,
    name: &'static str,
    comment: &str,
    fields: &[&str],
) -> (Life, Vec<Statement>) {
    let mut log: Vec<Statement> = Vec::new();
    for fields in fields {
        log.push(release(log.last(), fields, &[ANN]));
    }
    let mut life = start.life(name, comment);
    let serials: Vec<String> = log
        .iter()
        .map(|statement| statement.serial().to_string())
        .collect();
    life.read(&serials.join(","), &log.iter().collect::<Vec<_>>());
    life.beat(
        &Beat {
            expires: "2026-02-02T12:00:00Z",
            ..beat_at(1)
        }
        .says(&[(LOG, &start.trust), (OS, log.last().unwrap())]),
    );
    (life, log)
}

fn targets(start: &Start) {
    let fields = [
        "",
        "Target: arch=x86_64\n",
        "Target: arch=riscv64\n",
        "Target: arch=x86_64 board=apu2\nTarget: arch=arm site=a\n",
    ];
    let (mut life, log) = log_of(
        start,
        "targets",
        "the newest release whose Target matches: all properties of one of its lines",
        &fields,
    );
    let log: Vec<&Statement> = log.iter().collect();
    for (profile, serial) in [
        ("device-1", 1),
        ("device-1 arch=x86_64", 2),
        ("device-1 arch=riscv64", 3),
        ("device-1 arch=x86_64 board=apu2", 4),
        ("device-1 arch=x86_64 site=a", 2),
        ("device-1 arch=arm board=apu2", 1),
        ("device-1 arch=arm site=a more=yes", 4),
        ("device-1 arch=x86_64x", 1),
        ("device-1 ARCH=riscv64", 1),
    ] {
        life.profile(profile);
        life.run(serial, &log);
    }
    life.write();
}

fn not_before(start: &Start) {
    let comment = "attacks 23 and 121: what is not due hides no fix";
    let (mut life, log) = log_of(
        start,
        "not-before",
        comment,
        &[
            "",
            "Urgency: critical\n",
            "Not-Before: 2026-02-01T12:00:10Z\n",
        ],
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.run(2, &all);
    life.applied(&log[1]);
    life.nothing(&all);
    life.clock("2026-02-01T12:00:09Z");
    life.nothing(&all);
    life.clock("2026-02-01T12:00:10Z");
    life.run(3, &all);
    // A withdrawal of what is not due gives a withdraw key nothing.
    life.clock("2026-02-01T12:00:09Z");
    let stop = withdraw(&log[2], &log[2], &[STOP]);
    let all: Vec<&Statement> = all.into_iter().chain([&stop]).collect();
    life.read("4", &[&stop]);
    life.nothing(&all);
    life.clock("2026-02-01T12:00:10Z");
    life.none(Withdrawn, &all);
    life.write();

    let comment =
        "attack 121: a release that one broker shows to one device is not what the live beat names";
    let mut life = start.life("shown-to-one", comment);
    let (r1, r2) = (&start.r1, &start.r2);
    let stolen = release(Some(r2), "Not-Before: 2026-02-01T11:00:00Z\n", &[ANN]);
    life.read("1,2,3", &[r1, r2, &stolen]);
    life.beat(&start.beat(1, r2));
    life.state("CURRENT");
    life.run(2, &[r1, r2, &stolen]);
    life.write();
}

fn waves(start: &Start) {
    let start_at: Timestamp = NOON.parse().unwrap();
    let fields = [
        "",
        "Rollout: 2026-02-01T12:00:00Z 80000 spread=60 cohort=site\n",
    ];
    let comment =
        "attacks 70 and 71: a wave comes for each device in its turn, for a cohort at once";
    let (mut life, log) = log_of(start, "waves", comment, &fields);
    let log: Vec<&Statement> = log.iter().collect();
    let mut turns: Vec<(Timestamp, &str)> =
        ["device-1", "device-2 site=b", "device-3 site=b", "device-4"]
            .into_iter()
            .map(|profile| {
                let identity = profile
                    .split_once(" site=")
                    .map_or(profile, |(_, site)| site);
                (
                    start_at.plus(rollout::share(
                        &OS.parse().unwrap(),
                        log[1].previous(),
                        identity,
                        80_000,
                    )),
                    profile,
                )
            })
            .collect();
    turns.sort_unstable();
    for (turn, profile) in turns {
        life.profile(profile);
        life.clock(&Timestamp::from_seconds(turn.seconds() - 1).to_string());
        life.run(1, &log);
        life.clock(&turn.to_string());
        life.run(2, &log);
    }
    life.write();

    let fields = [
        "",
        "Rollout: 2026-02-02T00:00:00Z 900000\nNot-Before: 2026-02-01T12:00:10Z\nDeadline: 2026-02-01T12:00:20Z\n",
    ];
    let (mut life, log) = log_of(
        start,
        "deadline",
        "from its Deadline on no wave is waited for, but its Not-Before is",
        &fields,
    );
    let log: Vec<&Statement> = log.iter().collect();
    for (clock, serial) in [
        ("2026-02-01T12:00:10Z", 1),
        ("2026-02-01T12:00:19Z", 1),
        ("2026-02-01T12:00:20Z", 2),
    ] {
        life.clock(clock);
        life.run(serial, &log);
    }
    life.write();

    let (mut life, log) = log_of(
        start,
        "wave-and-not-before",
        "a wave that has come does not go before Not-Before",
        &[
            "",
            "Rollout: 2026-02-01T11:00:00Z 60\nNot-Before: 2026-02-01T12:00:10Z\n",
        ],
    );
    let log: Vec<&Statement> = log.iter().collect();
    life.run(1, &log);
    life.clock("2026-02-01T12:00:10Z");
    life.run(2, &log);
    life.write();
}

fn barriers(start: &Start) {
    let (mut life, log) = log_of(
        start,
        "barriers",
        "what is below the barrier of a release applies the release at the barrier first, one after the other",
        &["", "", "Barrier: 2\n", "Barrier: 3\n", ""],
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.run(5, &all);
    let mut life_4 = start.life("barriers-one-after-the-other", "barriers before barriers");
    let to_4 = &all[..4];
    life_4.read("1,2,3,4", to_4);
    life_4.beat(&start.beat(1, &log[3]));
    life_4.run(2, to_4);
    life_4.none(LogEnds, &all[2..4]);
    life_4.applied(&log[0]);
    life_4.run(2, to_4);
    life_4.applied(&log[1]);
    life_4.run(3, to_4);
    life_4.run(3, &all[1..4]);
    life_4.applied(&log[2]);
    life_4.run(4, to_4);
    life_4.run(4, &all[3..4]);
    life_4.write();
    life.write();

    // Passed by whoever has applied something later.
    let (mut life, log) = log_of(
        start,
        "barrier-passed",
        "a barrier is passed by what was applied at it or above",
        &["", "Target: n=1\n", "Target: n=2\n", "Barrier: 2\n"],
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.profile("device-1 n=2");
    life.none(Barrier, &all);
    life.applied(&log[2]);
    life.run(4, &all);
    life.write();
}

fn barriers_in_the_way(start: &Start) {
    let (r1, stop) = (&start.r1, withdraw(&start.r1, &start.r1, &[STOP]));
    let over = release(Some(&stop), "Barrier: 1\n", &[ANN]);
    let mut life = start.life(
        "barrier-withdrawn",
        "a barrier that was withdrawn is not run, nor what lies above it",
    );
    life.read("1,2,3", &[r1, &stop, &over]);
    life.beat(&start.beat(1, &over));
    life.none(Withdrawn, &[r1, &stop, &over]);
    life.applied(r1);
    life.run(3, &[r1, &stop, &over]);
    life.write();

    let over = release(Some(&stop), "Barrier: 2\n", &[ANN]);
    let mut life = start.life("barrier-of-a-withdrawal", "a barrier that is no release");
    life.read("1,2,3", &[r1, &stop, &over]);
    life.beat(&start.beat(1, &over));
    life.none(Barrier, &[r1, &stop, &over]);
    life.write();

    let fields = ["Not-Before: 2026-02-01T12:00:10Z\n", "Barrier: 1\n"];
    let (mut life, log) = log_of(
        start,
        "barrier-not-due",
        "a barrier that is not due",
        &fields,
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.none(Barrier, &all);
    life.clock("2026-02-01T12:00:10Z");
    life.run(1, &all);
    life.write();

    let (mut life, log) = log_of(
        start,
        "barrier-critical",
        "a barrier with an unknown critical field",
        &["Colour: blue\nCritical: Colour\n", "Barrier: 1\n"],
    );
    life.none(Critical, &log.iter().collect::<Vec<_>>());
    life.write();
}

fn applied(start: &Start) {
    let (mut life, log) = log_of(
        start,
        "applied",
        "attack 51: nothing below what was applied is run, whatever becomes of the device",
        &["", "Target: n=1\n", "Target: n=2\n"],
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.profile("device-1 n=1");
    life.run(2, &all);
    life.applied(&log[1]);
    life.nothing(&all);
    life.nothing(&all[1..]);
    life.none(LogEnds, &all[2..]);
    life.profile("device-1");
    life.nothing(&all);
    life.profile("device-1 n=2");
    life.run(3, &all);
    life.run(3, &all[2..]);
    life.step("restart", &[]);
    life.clock(NOON);
    life.profile("device-1");
    life.nothing(&all);
    life.write();

    // Applied, and proven by links alone.
    let (r1, r2) = (&start.r1, &start.r2);
    let second = start.second(&Rules {
        release: vec![CEM],
        checkpoints: vec![(OS, r2.head())],
        ..rules()
    });
    let riscv = parse(&sign(
        String::from_utf8(release_under(2, r2, &[CEM]).signed_part().to_vec()).unwrap()
            + "Target: arch=riscv64\n",
        &[CEM],
    ));
    let mut life = start.life(
        "applied-by-links",
        "what was applied counts while links in the log at hand prove it, or a checkpoint",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.applied(r2);
    life.trust(&second);
    life.read("3", &[&riscv]);
    life.beat(&beat_at(2).says(&[(LOG, &second), (OS, &riscv)]));
    life.nothing(&[r1, r2, &riscv]);
    life.nothing(&[r2, &riscv]);
    // The checkpoint proves it, wherever the log at hand ends: nothing below it is run.
    life.applied(r1);
    life.run(2, &[r1, r2, &riscv]);
    life.write();

    let text = String::from_utf8(release_under(2, r2, &[CEM]).signed_part().to_vec()).unwrap()
        + "Barrier: 2\n";
    let over = parse(&sign(text, &[CEM]));
    let mut life = start.life(
        "applied-by-a-checkpoint",
        "what was applied counts as a checkpoint although the log at hand begins above it",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.run(2, &[r1, r2]);
    life.applied(r2);
    life.trust(&second);
    life.read("3", &[&over]);
    life.beat(&beat_at(2).says(&[(LOG, &second), (OS, &over)]));
    life.run(3, &[&over]);
    life.write();

    // Proven by a link alone.
    let r3 = release(Some(r2), "Target: arch=riscv64\n", &[ANN]);
    let third = start.second(&Rules {
        release: vec![CEM],
        checkpoints: vec![(OS, r3.head())],
        ..rules()
    });
    let mut life = start.life(
        "applied-by-a-link",
        "what was applied counts while a link in the log at hand proves it, and no longer",
    );
    life.read("1,2,3", &[r1, r2, &r3]);
    life.beat(&start.beat(1, &r3));
    life.run(2, &[r1, r2, &r3]);
    life.applied(r2);
    life.trust(&third);
    life.beat(&beat_at(2).says(&[(LOG, &third), (OS, &r3)]));
    life.nothing(&[r1, r2, &r3]);
    life.none(LogEnds, &[&r3]);
    life.write();
}

fn image(start: &Start) {
    let fields = ["", "", "Target: n=1\n", "Barrier: 2\n"];
    let (mut life, log) = log_of(
        start,
        "image",
        "the serial of the release that the image came with counts as applied",
        &fields,
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.run(2, &all);
    life.step(&format!("came-with {OS} 2"), &[]);
    life.run(4, &all);
    life.step(&format!("came-with {OS} 5"), &[]);
    life.nothing(&all);
    life.write();
}

fn critical(start: &Start) {
    let comment =
        "attack 42: the release to run has an unknown critical field: nothing is run in its place";
    let (mut life, log) = log_of(
        start,
        "critical",
        comment,
        &["", "Colour: blue\nCritical: Colour\n"],
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.none(Critical, &all);
    life.applied(&log[0]);
    life.none(Critical, &all);
    life.write();

    let fields = [
        "",
        "Target: n=1\nColour: blue\nCritical: Colour\n",
        "Critical: Version Apply\nApply: live\n",
    ];
    let (mut life, log) = log_of(
        start,
        "critical-elsewhere",
        "fields that are known may be critical; what is for others is for others",
        &fields,
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.run(3, &all);
    life.write();
}

fn log_ends(start: &Start) {
    let (mut life, log) = log_of(
        start,
        "log-ends",
        "the log at hand ends before a release is found, or before the head",
        &["", "", "Target: n=1\n"],
    );
    let all: Vec<&Statement> = log.iter().collect();
    life.none(LogEnds, &all[2..]);
    life.none(LogEnds, &all[..2]);
    life.none(LogEnds, &[]);
    life.run(2, &all[1..]);
    let next = release(Some(&log[2]), "", &[ANN]);
    // Beyond what is known: it is read first.
    life.none(LogEnds, &[&log[1], &log[2], &next]);
    life.none(Link, &[&log[1], &next]);
    life.none(
        Threshold,
        &[
            &log[0],
            &log[1],
            &log[2],
            &release(Some(&log[2]), "", &[STOP]),
        ],
    );
    life.run(2, &all[1..]);
    life.write();
}

fn begun(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let mut life =
        start.life("begun", "attack 81: what was begun may be finished although something newer is there, while nothing withdraws it");
    let finish = |life: &mut Life, serial: u32, how: &str, log: &[&Statement]| {
        life.step(&format!("finish {OS} {serial} => {how}"), log)
    };
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.run(2, &[r1, r2]);
    life.read("3", &[r3]);
    life.beat(&start.beat(2, r3));
    life.run(3, &[r1, r2, r3]);
    finish(&mut life, 2, "yes", &[r2, r3]);
    finish(&mut life, 2, &format!("no {}", LogEnds.number()), &[r2]);
    finish(&mut life, 2, &format!("no {}", LogEnds.number()), &[r3]);
    life.clock(LATER);
    finish(
        &mut life,
        2,
        &format!("no {}", NotCurrent.number()),
        &[r2, r3],
    );
    let stop = withdraw(r3, r2, &[STOP]);
    life.clock(NOON);
    life.read("4", &[&stop]);
    finish(
        &mut life,
        2,
        &format!("no {}", Withdrawn.number()),
        &[r2, r3, &stop],
    );
    life.run(3, &[r2, r3, &stop]);
    life.write();
}

fn expired(start: &Start) {
    let soon = trust(
        None,
        &Rules {
            expires: "2026-02-01T12:00:10Z",
            ..rules()
        },
        &[ROOT],
    );
    let (r1, r2) = (&start.r1, &start.r2);
    let mut life = start.life_of(
        &soon,
        "trust-expires",
        "at exactly its end trust has expired: nothing is installed, reading goes on",
    );
    life.read("1", &[r1]);
    life.beat(&beat_at(1).says(&[(LOG, &soon), (OS, r1)]));
    life.clock("2026-02-01T12:00:09Z");
    life.run(1, &[r1]);
    life.clock("2026-02-01T12:00:10Z");
    life.none(Expired, &[r1]);
    life.state("CURRENT");
    life.read("2", &[r2]);
    life.trust(&trust(Some(&soon), &rules(), &[ROOT]));
    life.write();
}
