//! The release to run.

use super::*;

// ---- 6: the newest release hides the one that is due
// -------------------------------------------------------------------

#[test]
fn story_06_what_is_not_due_hides_no_fix() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let fix = t.release();
        t.says(Kind::Release {
            barrier: 0,
            not_before: 9,
            matches: true,
            critical: false,
        });
        t.becomes_current();
        (t.clears(), fix)
    };
    let (cleared, fix) = play(&[]);
    assert_eq!(cleared, Some(fix));
    assert_eq!(play(&[Rule::DueOnly]).0, None);
}

#[test]
fn story_06_a_release_key_shows_nothing_to_one_device_alone() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let fix = t.release();
        t.becomes_current();
        let stolen = t.signs(fix, PLAIN, Author::Thief);
        t.reads(stolen, 2).unwrap();
        assert_eq!((t.head(), t.state()), (stolen, Freshness::Current));
        (t.clears() == Some(fix), t.clears() == Some(stolen))
    };
    assert_eq!(play(&[]), (true, false));
    assert_eq!(play(&[Rule::Covered]), (false, true));
}

#[test]
fn story_06_what_was_begun_is_finished_unless_it_is_withdrawn() {
    let mut t = Stage::with_beats();
    let begun = t.release();
    t.becomes_current();
    let next = t.release();
    t.becomes_current();
    assert_eq!(t.clears(), Some(next));
    assert!(t.w.device.may_finish(&t.s, 0, begun, t.w.now));
    t.says(Kind::Withdraw { release: begun });
    t.becomes_current();
    assert!(!t.w.device.may_finish(&t.s, 0, begun, t.w.now));
}

#[test]
fn story_06_without_beats_all_up_to_the_head_is_covered() {
    let mut t = Stage::without_beats();
    let first = t.release();
    t.reads_log();
    assert_eq!(t.clears(), Some(first));
}

#[test]
fn story_06_a_barrier_is_met_by_what_is_later_and_a_critical_field_hides_nothing_older() {
    let mut t = Stage::with_beats();
    let barrier = t.release();
    let second = t.release();
    let third = t.says(Kind::Release {
        barrier: 1,
        not_before: 0,
        matches: true,
        critical: false,
    });
    t.becomes_current();
    assert_eq!(t.clears(), Some(barrier));
    t.applies(second);
    assert_eq!(t.clears(), Some(third));
    t.says(Kind::Release {
        barrier: 0,
        not_before: 0,
        matches: true,
        critical: true,
    });
    t.becomes_current();
    assert_eq!(t.clears(), None);
}

// ---- 7: closed
// -------------------------------------------------------------------------------------------------

#[test]
fn story_07_a_closed_channel_stays_closed() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        t.becomes_current();
        t.trust(|trust| trust.closed[0] = true);
        t.walks();
        let beat = t.beat(LAST, 0, t.w.trust, first);
        t.takes_beat(beat).unwrap();
        (t.reads(first, 1), t.clears())
    };
    assert_eq!(play(&[]), (Err(Refusal::Closed), None));
    assert!(play(&[Rule::Closed]).1.is_some());
    let mut t = Stage::with_beats();
    t.trust(|trust| trust.closed[0] = true);
    let closed = t.s.book.trust(t.w.trust);
    assert!(
        !Trust {
            closed: [false; 2],
            ..closed
        }
        .may_follow(&closed)
    );
    assert!(
        Trust {
            closed: [true; 2],
            ..closed
        }
        .may_follow(&closed)
    );
    let first = t.w.write(&t.s, 0, NONE, PLAIN, Author::First);
    assert!(!t.w.append(&t.s, first));
}

// ---- 8: retention, and a log that is cut
// -------------------------------------------------------------------------------

#[test]
fn story_08_where_the_log_at_hand_ends_there_is_none() {
    let mut t = Stage::with_beats();
    let ours = t.release();
    t.says(Kind::Release {
        barrier: 0,
        not_before: 0,
        matches: false,
        critical: false,
    });
    t.becomes_current();
    assert_eq!(t.w.device.clear(&t.s, 0, 2, t.w.now), None);
    assert_eq!(t.w.device.clear(&t.s, 0, 1, t.w.now), Some(ours));
}
