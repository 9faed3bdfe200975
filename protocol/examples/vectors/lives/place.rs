//! What of a proven run is new, and which branch is the log.

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

/// Another statement of the second place, and its successor.
fn branch(start: &Start) -> (Statement, Statement) {
    let others = release(Some(&start.r1), "Summary: the other\n", &[BOB]);
    let next = release(Some(&others), "", &[BOB]);
    (others, next)
}

fn forks(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let (others, next) = branch(start);
    let mut life = start.life(
        "fork",
        "attack 28: two statements for one place stop a channel that no live beat speaks for",
    );
    life.read("1,2", &[r1, r2]);
    life.fork(&[&others]);
    life.state("FORKED");
    life.fork(&[r1, &others, &next]);
    life.fork(&[&next]);
    life.read("3", &[r3]);
    life.state("FORKED");
    life.none(NotCurrent, &[r1, r2, r3]);
    // A live beat decides for ours.
    life.beat(&start.beat(1, r3));
    life.state("CURRENT");
    life.run(3, &[r1, r2, r3]);
    life.clock(LATER);
    life.state("STALE");
    life.write();

    let first = trust(None, &silent(), &[ROOT]);
    let mut life = start.life_of(
        &first,
        "fork-without-beats",
        "attack 28: without beats trust alone decides, by a checkpoint at the place or above",
    );
    life.read("1,2", &[r1, r2]);
    life.run(2, &[r1, r2]);
    life.fork(&[r1, &others]);
    life.none(Undecided, &[r1, r2]);
    life.step("restart", &[]);
    life.clock(NOON);
    life.none(Undecided, &[r1, r2]);
    let low = trust(
        Some(&first),
        &Rules {
            checkpoints: vec![(OS, r1.head())],
            ..silent()
        },
        &[ROOT],
    );
    life.trust(&low);
    life.none(Undecided, &[r1, r2]);
    let settled = trust(
        Some(&low),
        &Rules {
            checkpoints: vec![(OS, r2.head())],
            ..silent()
        },
        &[ROOT],
    );
    life.trust(&settled);
    life.run(2, &[r1, r2]);
    life.refused(2, Checkpoint, &[r1, &others]);
    life.write();

    // Trust that does not prove the other one any more decides too.
    let bobs = trust(
        Some(&first),
        &Rules {
            release: vec![ANN],
            ..silent()
        },
        &[ROOT],
    );
    let ours = release(Some(r1), "", &[ANN]);
    let mut life = start.life_of(
        &first,
        "fork-of-a-retired-key",
        "a fork is over when trust does not prove one of the two any more",
    );
    life.read("1,2", &[r1, &ours]);
    life.fork(&[r1, &others]);
    life.none(Undecided, &[r1, &ours]);
    life.trust(&bobs);
    life.run(2, &[r1, &ours]);
    life.write();
}

fn fork_settled(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let (others, next) = branch(start);
    let settled = start.second(&Rules {
        checkpoints: vec![(OS, others.head())],
        ..rules()
    });
    let r4 = release(Some(r3), "", &[ANN]);
    let mut life = start.life(
        "fork-lost",
        "attack 28: the checkpoint chooses the other branch",
    );
    life.read("1,2", &[r1, r2]);
    life.fork(&[&others]);
    life.trust(&settled);
    life.refused(3, Checkpoint, &[r3]);
    life.refused(3, Checkpoint, &[r2, r3]);
    life.from(2, &[&r4]);
    life.other("2,3", &[&others, &next]);
    life.read("none", &[&others, &next]);
    let named = beat_at(1).says(&[(LOG, &settled), (OS, &next)]);
    life.beat(&named);
    life.state("CURRENT");
    life.run(3, &[r1, &others, &next]);
    life.write();

    let ours = start.second(&Rules {
        checkpoints: vec![(OS, r2.head())],
        ..rules()
    });
    let mut life = start.life(
        "fork-won",
        "attack 28: a fork by another Previous; the checkpoint confirms ours",
    );
    life.read("1,2", &[r1, r2]);
    life.fork(&[&next]);
    life.state("FORKED");
    life.trust(&ours);
    life.beat(&beat_at(1).says(&[(LOG, &ours), (OS, r2)]));
    life.state("CURRENT");
    life.run(2, &[r1, r2]);
    // What was settled against proves nothing again, however far up it is shown.
    life.refused(3, Checkpoint, &[&next]);
    life.read("3", &[r3]);
    let far = release(Some(&next), "", &[BOB]);
    life.refused(3, Checkpoint, &[&others, &next, &far]);
    life.from(2, &[&far]);
    // A branch that leaves the log above the checkpoint is a fork like any other.
    let new_fork = release(Some(r2), "Summary: the other\n", &[BOB]);
    life.fork(&[r2, &new_fork]);
    life.clock(LATER);
    life.state("FORKED");
    life.write();

    let mut life = start.life(
        "branch-replaced",
        "what was applied from a branch that lost is no measure once nothing proves it",
    );
    let bobs = release(Some(r1), "", &[BOB]);
    let anns = release(Some(r1), "Summary: the other\n", &[ANN]);
    let second = start.second(&Rules {
        release: vec![ANN],
        checkpoints: vec![(OS, anns.head())],
        ..rules()
    });
    life.read("1,2", &[r1, &bobs]);
    life.beat(&start.beat(1, &bobs));
    life.run(2, &[r1, &bobs]);
    life.applied(&bobs);
    life.nothing(&[r1, &bobs]);
    life.trust(&second);
    life.other("2", &[r1, &anns]);
    life.beat(&beat_at(2).says(&[(LOG, &second), (OS, &anns)]));
    life.run(2, &[r1, &anns]);
    life.write();
}

fn fork_named(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let (others, next) = branch(start);
    let comment = "attack 92: a live beat names a statement of another branch: that branch, once proven, takes the place of ours";
    let mut life = start.life("other-branch", comment);
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, &next));
    life.state("BEHIND");
    life.fork(&[r1, &others]);
    life.from(1, &[&others, &next]);
    life.other("2,3", &[r1, &others, &next]);
    life.state("CURRENT");
    life.run(3, &[r1, &others, &next]);
    // The branch that was left is a fork still, and the live beat has decided.
    life.fork(&[r1, r2, r3]);
    life.state("CURRENT");
    life.write();

    let mut life = start.life(
        "other-branch-at-the-head",
        "the same where the beat names the very place",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, &others));
    life.state("FORKED");
    life.none(NotCurrent, &[r1, r2]);
    life.other("2", &[r1, &others]);
    life.state("CURRENT");
    life.run(2, &[r1, &others]);
    life.write();

    let mut life = start.life(
        "other-branch-shorter",
        "the branch that the live beat names may end below our head",
    );
    life.read("1,2,3", &[r1, r2, r3]);
    life.beat(&start.beat(1, &others));
    life.state("FORKED");
    life.other("2", &[r1, &others]);
    life.state("CURRENT");
    life.write();

    let mut life = start.life(
        "other-branch-without-a-live-beat",
        "without a live beat a device stays, and installs nothing",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, &others));
    life.clock(LATER);
    life.state("FORKED");
    life.fork(&[r1, &others]);
    life.state("FORKED");
    life.none(NotCurrent, &[r1, r2]);
    life.write();

    // Neither does one that names older trust.
    let second = start.second(&rules());
    let mut life = start.life(
        "other-branch-under-older-trust",
        "a beat that names older trust does not decide",
    );
    life.read("1,2", &[r1, r2]);
    life.trust(&second);
    life.beat(&start.beat(1, &others));
    life.fork(&[r1, &others]);
    life.state("FORKED");
    life.write();
}

fn lost_race(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let (others, _) = branch(start);
    let mut life = start.life(
        "lost-race",
        "attack 92: the loser of a race, whose rival the live beat names, stops nobody",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.fork(&[r1, &others]);
    life.state("CURRENT");
    life.run(2, &[r1, r2]);
    life.read("3", &[r3]);
    life.fork(&[r1, &others]);
    life.state("CURRENT");
    life.clock(LATER);
    life.state("STALE");
    life.write();
}

fn run_ahead(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let mut life = start.life(
        "run-ahead",
        "attack 14: a stolen withdraw key runs ahead of the log; the live beat leads back",
    );
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    let stop_3 = withdraw(r2, r1, &[STOP]);
    let stop_4 = withdraw(&stop_3, r1, &[STOP]);
    life.read("3,4", &[&stop_3, &stop_4]);
    life.state("CURRENT");
    life.run(2, &[r1, r2, &stop_3, &stop_4]);
    life.beat(&start.beat(2, r3));
    life.state("FORKED");
    life.none(NotCurrent, &[r1, r2, &stop_3, &stop_4]);
    life.other("3", &[r1, r2, r3]);
    life.state("CURRENT");
    life.run(3, &[r1, r2, r3]);
    life.write();
}

fn branch_from_below(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let comment = "the other branch has statements below where this device began: links lead there";
    let mut life = start.life("branch-from-below", comment);
    life.beat(&start.beat(1, r1));
    let rival = release(Some(r2), "Summary: another\n", &[ANN]);
    life.hole("2,3", &[r2, &rival]);
    life.state("STALE");
    life.other("3", &[r1, r2, r3]);
    life.state("CURRENT");
    life.write();
}

fn restart(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let low = start.second(&Rules {
        checkpoints: vec![(OS, r1.head())],
        ..rules()
    });
    let comment = "attack 117: a checkpoint below the head, and a broker that shows no more than it: that broker is behind";
    let mut life = start.life("checkpoint-below", comment);
    let heads = |serial, head: &Statement| beat_at(serial).says(&[(LOG, &low), (OS, head)]);
    let far = release(Some(r3), "", &[BOB]);
    life.read("2,3", &[r2, r3]);
    life.trust(&low);
    life.beat(&heads(1, r3));
    life.state("STALE");
    life.none(Restart, &[r2, r3]);
    life.from(1, &[r2, r3]);
    life.read("none", &[r1]);
    life.read("none", &[r1, r2]);
    life.state("STALE");
    life.none(Restart, &[r1, r2]);
    life.from(1, &[&far]);
    life.read("none", &[r1, r2, r3]);
    life.state("CURRENT");
    life.run(3, &[r1, r2, r3]);
    life.write();

    let mut life = start.life(
        "checkpoint-on-the-chain",
        "a head that stands on the checkpoint by links that were read needs no restart",
    );
    life.read("1,2,3", &[r1, r2, r3]);
    life.trust(&low);
    life.beat(&heads(1, r3));
    life.state("CURRENT");
    life.run(3, &[r1, r2, r3]);
    life.write();

    let second = start.second(&Rules {
        checkpoints: vec![(OS, r3.head())],
        ..rules()
    });
    let mut life = start.life(
        "checkpoint-above",
        "a checkpoint above the head: the channel is read up to it before anything is installed",
    );
    life.read("1", &[r1]);
    life.trust(&second);
    life.beat(&beat_at(1).says(&[(LOG, &second), (OS, r1)]));
    life.state("STALE");
    life.none(Restart, &[r1]);
    life.from(2, &[r3]);
    life.read("2", &[r1, r2]);
    life.state("STALE");
    life.none(Restart, &[r1, r2]);
    life.read("3", &[r2, r3]);
    life.beat(&beat_at(2).says(&[(LOG, &second), (OS, r3)]));
    life.run(3, &[r1, r2, r3]);
    life.write();

    // A head below the checkpoint, and a run that begins above it.
    let r4 = release(Some(r3), "", &[BOB]);
    let mut life = start.life(
        "checkpoint-between",
        "a head below the checkpoint, and a run that begins above it",
    );
    life.read("1", &[r1]);
    life.trust(&second);
    life.from(2, &[&r4]);
    life.from(2, &[r3, &r4]);
    life.read("2,3,4", &[r2, r3, &r4]);
    life.write();
}

fn restart_unproven(start: &Start) {
    let (r1, r2, r3) = (&start.r1, &start.r2, &start.r3);
    let comment =
        "attack 119: what a thief put above the checkpoint is left when his key is taken away";
    let second = start.second(&Rules {
        release: vec![BOB],
        checkpoints: vec![(OS, r2.head())],
        ..rules()
    });
    let bobs = release_under(2, r2, &[BOB]);
    let mut life = start.life("thief-above-the-checkpoint", comment);
    life.read("1,2,3", &[r1, r2, r3]);
    life.beat(&start.beat(1, r3));
    life.run(3, &[r1, r2, r3]);
    life.applied(r3);
    life.trust(&second);
    life.none(Restart, &[r1, r2]);
    life.other("none", &[r1, r2]);
    life.beat(&beat_at(2).says(&[(LOG, &second), (OS, r2)]));
    life.state("CURRENT");
    life.run(2, &[r1, r2]);
    life.read("3", &[&bobs]);
    life.beat(&beat_at(3).says(&[(LOG, &second), (OS, &bobs)]));
    life.run(3, &[r1, r2, &bobs]);
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

/// The head's own signatures hold it, whatever stands below it.
fn restart_waits(start: &Start) {
    let r1 = &start.r1;
    let (others, _) = branch(start);
    let ours_2 = &start.r2;
    let ours_3 = &start.r3;
    let second = start.second(&Rules {
        checkpoints: vec![(OS, others.head())],
        ..rules()
    });
    let comment = "attack 117: the other branch is settled, and shown up to the checkpoint alone: a head above it that its own signatures prove waits";
    let mut life = start.life("restart-waits", comment);
    life.read("1,2,3", &[r1, ours_2, ours_3]);
    life.beat(&start.beat(1, ours_3));
    life.run(3, &[r1, ours_2, ours_3]);
    life.applied(ours_3);
    life.trust(&second);
    life.read("none", &[r1, &others]);
    life.state("STALE");
    life.none(Restart, &[r1, &others]);
    let new_3 = release_under(2, &others, &[BOB]);
    life.other("2,3", &[r1, &others, &new_3]);
    life.beat(&beat_at(3).says(&[(LOG, &second), (OS, &new_3)]));
    life.state("CURRENT");
    // What was applied is proven still, by its own signatures; this is another release of the same
    // serial.
    life.run(3, &[r1, &others, &new_3]);
    life.write();

    let comment = "the same where a live beat under the new trust names what was read: the head waits no longer, but what was applied counts";
    let mut life = start.life("restart-named", comment);
    life.read("1,2,3", &[r1, ours_2, ours_3]);
    life.beat(&start.beat(1, ours_3));
    life.run(3, &[r1, ours_2, ours_3]);
    life.applied(ours_3);
    life.trust(&second);
    life.beat(&beat_at(2).says(&[(LOG, &second), (OS, &others)]));
    life.state("FORKED");
    life.other("2", &[r1, &others]);
    life.state("CURRENT");
    life.nothing(&[r1, &others]);
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
