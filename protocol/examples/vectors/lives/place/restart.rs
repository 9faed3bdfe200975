//! A log that begins again above a checkpoint.

use tidings_protocol::Requirement::*;

use super::fork::branch;
use crate::lives::*;

pub(super) fn restart(start: &Start) {
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

pub(super) fn restart_unproven(start: &Start) {
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

/// The head's own signatures hold it, whatever stands below it.
pub(super) fn restart_waits(start: &Start) {
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
