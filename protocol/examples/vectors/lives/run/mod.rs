//! The release to run.

mod waiting;

use tidings_protocol::Requirement::*;
use waiting::{barriers, barriers_in_the_way, not_before, waves};

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
