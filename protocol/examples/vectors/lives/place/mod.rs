//! What of a proven run is new, and which branch is the log.

mod fork;
mod restart;

use fork::{branch, branch_from_below, fork_named, fork_settled, forks, lost_race, run_ahead};
use restart::{restart, restart_unproven, restart_waits};
use tidings_protocol::{Head, Requirement::*};

use super::*;
use crate::CEM;

pub(super) fn write(start: &Start) {
    replay(start);
    holes(start);
    forks(start);
    fork_settled(start);
    fork_named(start);
    lost_race(start);
    run_ahead(start);
    branch_from_below(start);
    restart(start);
    restart_unproven(start);
    restart_waits(start);
    thief_shown_to_one(start);
    head_without_links(start);
    settled_against(start);
    fast_forward(start);
    delivered(start);
}

fn replay(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let mut life = start.life(
        "replay",
        "attacks 24 and 25: what is old is no news, and takes nothing back",
    );
    life.read("1,2,3", &[r1, r2, r3]);
    life.read("none", &[r1, r2]);
    life.read("none", &[r1]);
    life.read("none", &[r1, r2, r3]);
    life.beat(&start.beat(2, r3));
    life.beat(&start.beat(1, r2));
    life.state("CURRENT");
    life.run(3, &[r1, r2, r3]);
    life.none(LogEnds, &[r1, r2]);
    life.write();
}

fn holes(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let r4 = release(Some(r3), "", &[ANN]);
    let mut life = start.life(
        "hole",
        "attack 26: what lies between is read first; a hole is accepted only if no broker has it",
    );
    life.read("1", &[r1]);
    life.from(2, &[r3]);
    life.from(2, &[r3, &r4]);
    life.read("2,3", &[r2, r3]);
    life.write();

    let mut life = start.life(
        "hole-accepted",
        "a device goes on above a hole that every broker has; a new one begins above it",
    );
    life.read("1", &[r1]);
    life.hole("3", &[r3]);
    life.read("4", &[&r4]);
    life.beat(&start.beat(1, &r4));
    life.state("CURRENT");
    life.run(4, &[r3, &r4]);
    life.write();

    let mut life = start.life(
        "begun-above",
        "a device that knows nothing of a channel begins where its brokers begin",
    );
    life.read("3", &[r3]);
    life.read("4", &[&r4]);
    life.write();
}

/// A thief's head, and trust that takes his key away.
fn thief_shown_to_one(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let stolen = release(Some(r2), "Summary: stolen\n", &[ANN]);
    let first = trust(
        None,
        &Rules {
            checkpoints: vec![(OS, r2.head())],
            ..silent()
        },
        &[ROOT],
    );
    let second = trust(
        Some(&first),
        &Rules {
            release: vec![BOB],
            checkpoints: vec![(OS, r2.head())],
            ..silent()
        },
        &[ROOT],
    );
    let bobs = release_under(2, r2, &[BOB]);
    let comment = "the checkpoint is the same as before, and the key of the head is not listed any more: the channel restarts all the same";
    let mut life = start.life_of(&first, "thief-above-the-same-checkpoint", comment);
    life.read("1,2,3", &[r1, r2, &stolen]);
    life.run(3, &[r1, r2, &stolen]);
    life.applied(&stolen);
    life.trust(&second);
    life.none(Restart, &[r1, r2]);
    life.from(2, &[&bobs]);
    life.other("3", &[r2, &bobs]);
    life.run(3, &[r2, &bobs]);
    life.write();

    // The log of the origin was empty when the ceremony was held.
    let first = trust(None, &silent(), &[ROOT]);
    let second = trust(
        Some(&first),
        &Rules {
            release: vec![BOB],
            ..silent()
        },
        &[ROOT],
    );
    let stolen = release(None, "Summary: stolen\n", &[ANN]);
    let bobs = release(None, "", &[BOB]);
    let comment = "there is no checkpoint, and the key of the head is not listed any more: the channel is read from 1";
    let mut life = start.life_of(&first, "thief-in-an-empty-log", comment);
    life.read("1", &[&stolen]);
    life.run(1, &[&stolen]);
    life.trust(&second);
    life.none(Restart, &[]);
    life.other("1", &[&bobs]);
    life.run(1, &[&bobs]);
    life.write();

    let above = release_under(2, &stolen, &[BOB]);
    let mut life = start.life_of(
        &first,
        "retired-head-that-goes-on",
        "the same where the log goes on above that head: a release of a listed key proves it",
    );
    life.read("1", &[&stolen]);
    life.trust(&second);
    life.from(2, &[&release_under(2, &above, &[BOB])]);
    life.read("2", &[&above]);
    life.run(2, &[&stolen, &above]);
    life.write();
}

/// A head that no links lead down from.
fn head_without_links(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let before = Head {
        serial: "2147483646".parse().unwrap(),
        id: r1.id(),
    };
    let text = first_lines("release", OS, Some(before), NOON) + "Trust: 1\nVersion: 1\n";
    let last = parse(&sign(text, &[ANN]));
    let comment = "attack 94: a new device is shown one statement alone, far above the log; the live beat leads it back";
    let mut life = start.life("far-above-the-log", comment);
    life.read("2147483647", &[&last]);
    life.beat(&start.beat(1, r2));
    life.state("STALE");
    life.none(NotCurrent, &[&last]);
    life.from(2, &[&start.r3]);
    life.other("1,2", &[r1, r2]);
    life.state("CURRENT");
    life.run(2, &[r1, r2]);
    life.write();

    let mut forged: Vec<Statement> = vec![r1.clone(), r2.clone()];
    while forged.len() < 70 {
        forged.push(release(forged.last(), "Summary: forged\n", &[ANN]));
    }
    let forged: Vec<&Statement> = forged.iter().collect();
    let serials: Vec<String> = (1..=70).map(|n: u32| n.to_string()).collect();
    let mut life = start.life(
        "far-above-the-links",
        "the same where more was forged than links are kept",
    );
    life.read(&serials.join(","), &forged);
    life.beat(&start.beat(1, r2));
    life.state("STALE");
    // Nothing says any more that these were delivered.
    life.other("1,2", &[r1, r2]);
    life.state("CURRENT");
    life.run(2, &[r1, r2]);
    life.write();

    let second = start.second(&Rules {
        checkpoints: vec![(OS, r1.head())],
        ..rules()
    });
    let named = |serial, head: &Statement| beat_at(serial).says(&[(LOG, &second), (OS, head)]);
    let mut life = start.life(
        "checkpoint-below-the-links",
        "the checkpoint on which the head stands is on the chain, also where no links are kept that lead there",
    );
    life.read("2", &[r2]);
    life.trust(&second);
    life.read("3", &[&start.r3]);
    life.beat(&named(1, r1));
    life.state("CURRENT");
    life.run(1, &[r1, r2, &start.r3]);
    life.write();

    // Honest, and read by links now.
    let r4 = release(Some(&start.r3), "", &[ANN]);
    let mut life = start.life(
        "links-read-later",
        "a device that began at the head reads the links down to what the live beat names",
    );
    life.read("4", &[&r4]);
    life.beat(&start.beat(1, r2));
    life.state("STALE");
    life.read("none", &[r1, r2, &start.r3, &r4]);
    life.state("CURRENT");
    life.run(2, &[r1, r2, &start.r3, &r4]);
    life.write();
}

/// What contradicts our chain below a checkpoint on which it stands.
fn settled_against(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let first = trust(None, &silent(), &[ROOT]);
    let second = trust(
        Some(&first),
        &Rules {
            checkpoints: vec![(OS, r2.head())],
            ..silent()
        },
        &[ROOT],
    );
    let other = release(None, "Summary: the other\n", &[BOB]);
    let comment = "what contradicts the chain below a checkpoint on which it stands is no fork";
    let mut life = start.life_of(&second, "settled-against", comment);
    let _ = &first;
    life.read("1,2,3", &[r1, r2, r3]);
    life.read("none", &[&other]);
    life.run(3, &[r1, r2, r3]);
    life.write();

    // The upper part of a branch that lost: it is read down to where it is refused.
    let (others, next) = branch(start);
    let far = release(Some(&next), "", &[BOB]);
    let farther = release(Some(&far), "", &[BOB]);
    let mut life = start.life_of(
        &second,
        "settled-against-above",
        "the upper part of a branch that was settled against is no evidence: it is read from the checkpoint",
    );
    life.read("1,2,3", &[r1, r2, r3]);
    life.from(2, &[&far, &farther]);
    life.refused(3, Checkpoint, &[&others, &next, &far, &farther]);
    life.run(3, &[r1, r2, r3]);
    life.write();
}

fn fast_forward(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let first = trust(None, &silent(), &[ROOT]);
    let before = Head {
        serial: "2147483646".parse().unwrap(),
        id: r1.id(),
    };
    let text = first_lines("release", OS, Some(before), NOON) + "Trust: 1\nVersion: 1\n";
    let last = parse(&sign(text, &[ANN]));
    let second = trust(
        Some(&first),
        &Rules {
            release: vec![CEM],
            checkpoints: vec![(OS, r2.head())],
            ..silent()
        },
        &[ROOT],
    );
    let by_cem = release_under(2, r2, &[CEM]);
    let comment = "attacks 15 and 94: stolen keys send a device to the last serial, over a hole, and it is applied; a checkpoint brings it back";
    let mut life = start.life_of(&first, "fast-forward", comment);
    life.read("1,2", &[r1, r2]);
    life.hole("2147483647", &[&last]);
    life.run(2_147_483_647, &[&last]);
    life.applied(&last);
    life.nothing(&[&last]);
    life.read("none", &[r1, r2]);
    life.trust(&second);
    life.none(Threshold, &[&last]);
    life.none(Restart, &[r2, &by_cem]);
    life.from(2, &[&by_cem]);
    life.other("2,3", &[r2, &by_cem]);
    life.run(3, &[r2, &by_cem]);
    life.write();
}

fn delivered(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let (others, next) = branch(start);
    let mut life = start.life("delivered", "known and delivered are two cursors: what was not delivered comes again, and hinders nothing");
    life.read("1,2", &[r1, r2]);
    life.delivered(r1);
    life.read("2,3", &[r2, r3]);
    life.delivered(r1);
    life.beat(&start.beat(1, r3));
    life.state("CURRENT");
    life.read("2,3", &[r2, r3]);
    life.read("none", &[r3]);
    life.delivered(r2);
    life.step("restart", &[]);
    life.clock(NOON);
    life.read("3", &[r1, r2, r3]);
    life.write();

    let mut life = start.life(
        "delivered-of-a-branch-that-lost",
        "what was delivered is not on the chain any more: delivery goes on above the last that is",
    );
    life.read("1,2,3", &[r1, r2, r3]);
    life.beat(&start.beat(1, &next));
    life.other("2,3", &[r1, &others, &next]);
    life.delivered(r1);
    life.read("2,3", &[r1, &others, &next]);
    life.delivered(&others);
    life.read("3", &[&others, &next]);
    life.read("none", &[&others, &next]);
    life.write();

    let mut life = start.life(
        "delivered-where-a-device-began",
        "a device that began above delivers nothing of what lies below, whichever branch it is on",
    );
    let r4 = release(Some(r3), "", &[ANN]);
    life.read("4", &[&r4]);
    life.beat(&start.beat(1, r2));
    life.state("STALE");
    life.other("none", &[r1, r2, r3]);
    life.state("CURRENT");
    life.beat(&start.beat(2, &r4));
    life.read("4", &[r1, r2, r3, &r4]);
    life.write();

    let mut life = start.life(
        "delivered-of-a-branch-that-lost-below",
        "the same where less was delivered than the branches share",
    );
    life.read("1,2,3", &[r1, r2, r3]);
    life.delivered(r1);
    life.beat(&start.beat(1, &release(Some(r2), "Summary: the other\n", &[BOB])));
    life.other(
        "2,3",
        &[r1, r2, &release(Some(r2), "Summary: the other\n", &[BOB])],
    );
    life.write();
}
