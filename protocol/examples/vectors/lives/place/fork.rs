//! Two branches.

use tidings_protocol::Requirement::*;

use crate::lives::*;

/// Another statement of the second place, and its successor.
pub(super) fn branch(start: &Start) -> (Statement, Statement) {
    let others = release(Some(&start.r1), "Summary: the other\n", &[BOB]);
    let next = release(Some(&others), "", &[BOB]);
    (others, next)
}

pub(super) fn forks(start: &Start) {
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

pub(super) fn fork_settled(start: &Start) {
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

pub(super) fn fork_named(start: &Start) {
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

pub(super) fn lost_race(start: &Start) {
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

pub(super) fn run_ahead(start: &Start) {
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

pub(super) fn branch_from_below(start: &Start) {
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
