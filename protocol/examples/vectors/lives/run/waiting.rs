//! Releases that have to wait: for their time, their wave, or another release.

use tidings_protocol::{Requirement::*, Timestamp, rollout};

use super::log_of;
use crate::lives::*;

pub(super) fn not_before(start: &Start) {
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

pub(super) fn waves(start: &Start) {
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

pub(super) fn barriers(start: &Start) {
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

pub(super) fn barriers_in_the_way(start: &Start) {
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
