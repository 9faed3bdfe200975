//! Withdrawals: by serial and id, on whatever branch they were met.

use tidings_protocol::{Head, Requirement::*};

use super::*;
use crate::CEM;

pub(super) fn write(start: &Start) {
    good_life(start);
    by_id(start);
    steers_nobody(start);
    on_a_lost_branch(start);
    forgotten_by_nothing(start);
    of_retired_keys(start);
    unread(start);
    invented(start);
    memory(start);
}

fn good_life(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let mut life = start.life(
        "good-life",
        "read, confirmed, applied; then a withdrawal, and a new release with the old payload",
    );
    life.state("STALE");
    life.read("1,2", &[r1, r2]);
    life.state("STALE");
    life.none(NotCurrent, &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.state("CURRENT");
    life.run(2, &[r1, r2]);
    life.applied(r2);
    life.nothing(&[r1, r2]);
    let stop = withdraw(r2, r2, &[STOP]);
    life.read("3", &[&stop]);
    life.state("CURRENT");
    life.none(Withdrawn, &[r2, &stop]);
    let back = release(Some(&stop), "Summary: the payload of 1\n", &[ANN]);
    life.read("4", &[&back]);
    life.none(Withdrawn, &[r2, &stop, &back]);
    life.beat(&start.beat(2, &back));
    life.run(4, &[r2, &stop, &back]);
    life.applied(&back);
    life.nothing(&[r2, &stop, &back]);
    life.write();
}

fn by_id(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let others = release(Some(r1), "Summary: the other\n", &[BOB]);
    let stop = withdraw(r2, &others, &[STOP]);
    let mut life = start.life(
        "withdrawn-by-id",
        "a withdrawal counts against the very id that it names",
    );
    life.read("1,2,3", &[r1, r2, &stop]);
    life.beat(&start.beat(1, &stop));
    life.run(2, &[r1, r2, &stop]);
    let again = withdraw(&stop, r2, &[STOP]);
    life.read("4", &[&again]);
    // It is not named by a beat yet: to stop is safe.
    life.none(Withdrawn, &[r1, r2, &stop, &again]);
    life.write();

    let critical = withdraw_with(r2, r2.head(), "Colour: blue\nCritical: Colour\n", &[STOP]);
    let mut life = start.life(
        "withdrawn-critically",
        "a withdrawal with an unknown critical field counts all the same: to stop is safe",
    );
    life.read("1,2,3", &[r1, r2, &critical]);
    life.beat(&start.beat(1, &critical));
    life.none(Withdrawn, &[r1, r2, &critical]);
    life.write();
}

fn steers_nobody(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let stop = withdraw(r2, r2, &[STOP]);
    let mut life = start.life(
        "withdraw-key-steers-nobody",
        "attack 95: a withdrawn fix leads nobody to the older hole, nor a new device",
    );
    life.read("1,2,3", &[r1, r2, &stop]);
    life.beat(&start.beat(1, &stop));
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.applied(r1);
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.write();
}

fn on_a_lost_branch(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let stop = withdraw(r2, r2, &[STOP]);
    let riscv = release(Some(r2), "Target: arch=riscv64\n", &[ANN]);
    let mut life = start.life(
        "withdrawn-on-a-lost-branch",
        "attack 92: a withdrawal that lost a race counts on the branch that won",
    );
    life.read("1,2,3", &[r1, r2, &stop]);
    life.beat(&start.beat(1, &riscv));
    life.state("FORKED");
    life.other("3", &[r1, r2, &riscv]);
    life.state("CURRENT");
    life.none(Withdrawn, &[r1, r2, &riscv]);
    life.write();

    let mut life = start.life(
        "withdrawn-as-evidence",
        "a withdrawal that is met as the loser of a race counts too",
    );
    life.read("1,2,3", &[r1, r2, &riscv]);
    life.beat(&start.beat(1, &riscv));
    life.run(2, &[r1, r2, &riscv]);
    life.fork(&[r1, r2, &stop]);
    life.state("CURRENT");
    life.none(Withdrawn, &[r1, r2, &riscv]);
    life.step("restart", &[]);
    life.clock(NOON);
    life.none(Withdrawn, &[r1, r2, &riscv]);
    life.write();
}

fn forgotten_by_nothing(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let first = trust(None, &silent(), &[ROOT]);
    let stop = withdraw(r2, r2, &[STOP]);
    let low = trust(
        Some(&first),
        &Rules {
            checkpoints: vec![(OS, r2.head())],
            ..silent()
        },
        &[ROOT],
    );
    let comment = "attack 117: no trust with a checkpoint below, and no broker that shows less, makes a device forget a withdrawal";
    let mut life = start.life_of(&first, "withdrawal-kept", comment);
    life.read("1,2,3", &[r1, r2, &stop]);
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.trust(&low);
    life.read("none", &[r1, r2]);
    life.none(LogEnds, &[r1, r2]);
    life.read("none", &[r1, r2, &stop]);
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.write();

    // The same where the head is not on the chain of what is kept: a device that came over a hole.
    let mut life = start.life_of(
        &first,
        "withdrawal-kept-over-a-restart",
        "attack 117: the same while the channel restarts",
    );
    life.hole("3", &[&stop]);
    let settled = trust(
        Some(&first),
        &Rules {
            checkpoints: vec![(OS, r1.head())],
            ..silent()
        },
        &[ROOT],
    );
    life.trust(&settled);
    life.read("none", &[r1, r2]);
    life.none(Restart, &[r1, r2]);
    life.read("none", &[r1, r2, &stop]);
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.write();
}

fn of_retired_keys(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let stop = withdraw(r2, r2, &[STOP]);
    let above = release(Some(&stop), "Target: arch=riscv64\n", &[ANN]);
    let changed = |checkpoint: Option<&Statement>| {
        let checkpoints = checkpoint
            .map(|statement| (OS, statement.head()))
            .into_iter()
            .collect();
        start.second(&Rules {
            withdraw: CEM,
            checkpoints,
            ..rules()
        })
    };
    let named = |serial, trust: &Statement, head: &Statement| {
        beat_at(serial).says(&[(LOG, trust), (OS, head)])
    };
    let second = changed(None);
    let comment =
        "a withdrawal that was proven once counts, whatever becomes of its key and of its branch";
    let mut life = start.life("withdrawal-outlives-its-key", comment);
    life.read("1,2", &[r1, r2]);
    life.beat(&start.beat(1, r2));
    life.read("3", &[&stop]);
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.trust(&second);
    let next = release_under(2, r2, &[BOB]);
    let riscv = parse(&sign(
        String::from_utf8(next.signed_part().to_vec()).unwrap() + "Target: arch=riscv64\n",
        &[BOB],
    ));
    life.beat(&named(2, &second, &riscv));
    life.other("3", &[r1, r2, &riscv]);
    life.none(Withdrawn, &[r1, r2, &riscv]);
    life.step("restart", &[]);
    life.clock(NOON);
    life.none(Withdrawn, &[r1, r2, &riscv]);
    life.write();

    let mut life = start.life(
        "withdrawal-below-a-release",
        "a withdrawal whose key was taken away counts by the release above it in what is read",
    );
    life.read("1,2,3,4", &[r1, r2, &stop, &above]);
    life.beat(&start.beat(1, &above));
    life.none(Withdrawn, &[r1, r2, &stop, &above]);
    life.trust(&second);
    life.beat(&named(2, &second, &above));
    life.none(Withdrawn, &[r1, r2, &stop, &above]);
    life.none(LogEnds, &[&above]);
    life.write();

    let third = changed(Some(&stop));
    let mut life = start.life(
        "withdrawal-below-a-checkpoint",
        "a withdrawal whose key was taken away counts by the checkpoint at or above it",
    );
    life.read("1,2,3", &[r1, r2, &stop]);
    life.trust(&third);
    life.beat(&named(1, &third, &stop));
    life.state("CURRENT");
    life.none(Withdrawn, &[r1, r2, &stop]);
    life.write();
}

/// A withdrawal of what was not read yet.
fn unread(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let stop = withdraw(r2, r1, &[STOP]);
    let riscv = release(Some(r1), "Target: arch=riscv64\n", &[ANN]);
    let mut life = start.life(
        "withdrawn-before-it-was-read",
        "a withdrawal counts against a release that is read later, on another branch",
    );
    life.read("3", &[&stop]);
    life.beat(&start.beat(1, &riscv));
    life.state("FORKED");
    life.other("1,2", &[r1, &riscv]);
    life.state("CURRENT");
    life.none(Withdrawn, &[r1, &riscv]);
    life.step("restart", &[]);
    life.clock(NOON);
    life.none(Withdrawn, &[r1, &riscv]);
    life.write();
}

/// Withdrawals of what nobody has read push out none.
fn invented(start: &Start) {
    let (r1, r2) = (&start.r1, &start.r2);
    let stop = withdraw(r2, r2, &[STOP]);
    let riscv = release(Some(r2), "Target: arch=riscv64\n", &[ANN]);
    let mut life = start.life(
        "withdrawals-invented",
        "sixteen withdrawals of releases that nobody has read push out none of those that count",
    );
    life.read("1,2,3", &[r1, r2, &stop]);
    for n in 0..16_u8 {
        let id = tidings_protocol::StatementId::of(&[n]);
        let before = Head {
            serial: "1000".parse().unwrap(),
            id,
        };
        let text = first_lines("withdraw", OS, Some(before), NOON);
        let text = format!("{text}Trust: 1\nWithdraws: {before}\nReason: none\n");
        life.from(4, &[&parse(&sign(text, &[STOP]))]);
    }
    life.beat(&start.beat(1, &riscv));
    life.other("3", &[r1, r2, &riscv]);
    life.none(Withdrawn, &[r1, r2, &riscv]);
    life.write();
}

fn memory(start: &Start) {
    let first = trust(None, &silent(), &[ROOT]);
    let of = |n: usize| format!("Target: n={n}\n");
    let mut log = vec![release(None, &of(1), &[ANN])];
    while log.len() < 18 {
        log.push(release(log.last(), &of(log.len() + 1), &[ANN]));
    }
    // The branch that a checkpoint chooses: it has the releases, and none of the withdrawals.
    let mut branch = log.clone();
    while branch.len() < 36 {
        branch.push(release(branch.last(), &of(0), &[BOB]));
    }
    let second = trust(
        Some(&first),
        &Rules {
            checkpoints: vec![(OS, branch[18].head())],
            ..silent()
        },
        &[ROOT],
    );
    // All releases but the first are withdrawn, those of the highest serials first.
    for release in (1..18).rev() {
        log.push(withdraw(
            log.last().unwrap(),
            &log[release].clone(),
            &[STOP],
        ));
    }
    let serials = |range: std::ops::RangeInclusive<u32>| {
        range.map(|n| n.to_string()).collect::<Vec<_>>().join(",")
    };
    let comment = "the withdrawals of the 16 releases with the highest serials are kept, however many there are";
    let mut life = start.life_of(&first, "withdrawals-kept", comment);
    life.read(&serials(1..=35), &log.iter().collect::<Vec<_>>());
    life.trust(&second);
    let branch: Vec<&Statement> = branch.iter().collect();
    life.other(&serials(19..=36), &branch);
    life.profile("device-1 n=18");
    life.none(Withdrawn, &branch);
    life.profile("device-1 n=3");
    life.none(Withdrawn, &branch);
    life.profile("device-1 n=2");
    life.run(2, &branch);
    life.write();
}
