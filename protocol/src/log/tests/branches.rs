//! Two branches, and what decides between them.

use alloc::vec;

use super::{
    Broker, LATER, ROLES, broker, first_trust, next_trust, os, release, releases, withdraw,
};
use crate::{log::*, trust::Settled};

#[test]
fn attack_028_two_branches_are_evidence_and_ours_stays() {
    let (mut broker, all) = (broker(), releases(None, 3, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let theirs = releases(Some(all[1].head()), 2, "x", "ann");
    for run in [&theirs[..1], &theirs[..], &theirs[1..]] {
        assert!(
            matches!(broker.offer(run, Begin::Backfill), Err(Refused::Fork(_))),
            "{}",
            run.len()
        );
    }
    // What nobody who may has signed is no evidence.
    let forged = release(Some(all[1].head()), "x", "eve");
    assert!(matches!(
        broker.offer(&[forged], Begin::Backfill),
        Err(Refused::Verify(..))
    ));
}

#[test]
fn the_live_beat_decides_at_a_mirror_down_to_where_the_branches_part() {
    let (mut broker, all) = (broker(), releases(None, 6, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let theirs = releases(Some(all[1].head()), 6, "x", "ann");
    broker.live = Some(theirs[4].head());
    // In one run, or from above downwards.
    let mut whole = broker.clone();
    whole.take(&theirs, Begin::Backfill).unwrap();
    assert_eq!(whole.visible()[2..], theirs[..]);
    for chunk in theirs.chunks(2).rev() {
        broker.take(chunk, Begin::Backfill).unwrap();
    }
    assert_eq!(broker.visible()[2..], theirs[..]);
    assert_eq!(broker.filed.len(), 4);
    // An origin leaves its branch for a checkpoint only: nothing is handed in that decides.
    let mut origin = self::broker();
    origin.take(&all, Begin::Nothing).unwrap();
    assert!(matches!(
        origin.offer(&theirs, Begin::Backfill),
        Err(Refused::Fork(_))
    ));
}

#[test]
fn a_checkpoint_decides_and_the_places_above_are_free() {
    let (mut broker, all) = (broker(), releases(None, 4, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let theirs = releases(Some(all[1].head()), 3, "x", "ann");
    let settled = next_trust(&broker.trust, ROLES, &[(os(), theirs[1].head())]);
    assert!(matches!(settled.checkpoint(&os()), Settled::At(_)));
    broker.bring_into_force(settled);
    assert_eq!(broker.serials(), [1, 2, 3]);
    broker.take(&theirs, Begin::Nothing).unwrap();
    assert_eq!(broker.visible()[2..], theirs[..]);
    assert_eq!(broker.filed.len(), 2);
    // The other branch is refused for good.
    assert!(matches!(
        broker.offer(&all[3..], Begin::Nothing),
        Err(Refused::Verify(_, VerifyError::Checkpoint { .. }))
    ));
}

#[test]
fn attack_119_what_a_thief_put_above_the_checkpoint_is_filed_away() {
    let (mut broker, all) = (broker(), releases(None, 4, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let rotated = next_trust(&broker.trust, LATER, &[(os(), all[1].head())]);
    broker.bring_into_force(rotated);
    assert_eq!((broker.serials(), broker.filed.len()), (vec![1, 2], 2));
    broker
        .take(
            &releases(Some(all[1].head()), 1, "2.", "dora"),
            Begin::Nothing,
        )
        .unwrap();
    assert_eq!(broker.serials(), [1, 2, 3]);
    // Without a checkpoint nothing is taken away: a ceremony that forgets one must not empty logs.
    let mut forgetful = self::broker();
    forgetful.take(&all, Begin::Nothing).unwrap();
    let rotated = next_trust(&forgetful.trust, LATER, &[]);
    forgetful.bring_into_force(rotated);
    assert_eq!(forgetful.serials(), [1, 2, 3, 4]);
}

#[test]
fn a_withdrawal_of_a_release_that_stays_is_issued_anew_first() {
    let trust = first_trust();
    let (mut broker, all) = (broker(), releases(None, 3, "1.", "ann"));
    broker.take(&all, Begin::Nothing).unwrap();
    let withdrawal = withdraw(all[2].head(), all[1].head());
    broker
        .take(std::slice::from_ref(&withdrawal), Begin::Nothing)
        .unwrap();
    let lost = |broker: &Broker, next: &Trust| {
        let stored = |serial| Ok(broker.store.get(&serial).cloned());
        broker.log.would_lose(&broker.trust, next, &stored).unwrap()
    };
    // The checkpoint lies below a thief's release, and the withdrawal above it.
    let below = next_trust(&trust, LATER, &[(os(), all[1].head())]);
    assert_eq!(lost(&broker, &below), Some(withdrawal.head()));
    let above = next_trust(&trust, LATER, &[(os(), withdrawal.head())]);
    assert_eq!(lost(&broker, &above), None);
    // Of a release that does not stay nothing has to be said.
    let all_gone = next_trust(&trust, LATER, &[(os(), all[0].head())]);
    assert_eq!(lost(&broker, &all_gone), None);
}

#[test]
fn a_backfill_that_hangs_on_another_branch_is_given_up_with_evidence() {
    let (mut broker, all) = (broker(), releases(None, 6, "1.", "ann"));
    let theirs = releases(Some(all[1].head()), 4, "x", "ann");
    broker.take(&all[..2], Begin::Nothing).unwrap();
    broker.take(&theirs[2..], Begin::Backfill).unwrap();
    let step = broker.offer(&all[2..5], Begin::Nothing).unwrap();
    assert!(step.evidence.is_some());
    broker.commit(&step);
    assert_eq!(
        (broker.serials(), broker.log.backfill()),
        (vec![1, 2, 3, 4, 5], None)
    );
}
