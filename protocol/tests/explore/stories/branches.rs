//! Branches, and what becomes of what was known.

use super::*;

// ---- 1: brokers alone roll back, or make a device forget
// -------------------------------------------------------------

fn story_1(rules: &[Rule]) -> (Stage, [Id; 3]) {
    let mut t = Stage::without_beats().without(rules);
    let first = t.release();
    let second = t.release();
    let stop = t.says(Kind::Withdraw { release: second });
    t.reads_log();
    t.trust(|trust| trust.lines[0] = first);
    t.walks();
    (t, [first, second, stop])
}

#[test]
fn story_01_a_routine_trust_and_brokers_alone_undo_no_withdrawal() {
    let (mut t, [_, second, stop]) = story_1(&[]);
    assert_eq!(t.reads(second, 1), Ok(Place::Behind));
    assert_eq!((t.head(), t.clears()), (stop, None));
    // Even a device that goes back knows the withdrawal.
    let (mut t, [_, second, _]) = story_1(&[Rule::ChainStands, Rule::HeadStays]);
    assert_eq!(t.reads(second, 1), Ok(Place::Replace));
    assert_eq!((t.head(), t.clears()), (second, None));
    let (mut t, [_, second, _]) =
        story_1(&[Rule::ChainStands, Rule::HeadStays, Rule::WithdrawalsKept]);
    t.reads(second, 1).unwrap();
    assert_eq!(t.clears(), Some(second));
}

#[test]
fn story_01_nor_do_they_roll_back_what_was_applied() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::without_beats().without(rules);
        let first = t.release();
        let second = t.release();
        t.reads_log();
        t.applies(second);
        t.trust(|trust| trust.lines[0] = first);
        t.walks();
        t.reads(first, 1).unwrap();
        // What was applied is as good as nothing to do.
        (t.clears().filter(|id| *id != second), first)
    };
    assert_eq!(play(&[]).0, None);
    assert_eq!(play(&[Rule::ChainStands, Rule::HeadStays]).0, None);
    let (cleared, first) = play(&[Rule::ChainStands, Rule::HeadStays, Rule::NotBelowApplied]);
    assert_eq!(cleared, Some(first));
}

#[test]
fn story_01_nor_does_a_stolen_beat_key_with_them() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        let second = t.release();
        t.becomes_current();
        t.applies(second);
        t.trust(|trust| trust.lines[0] = first);
        t.walks();
        let beat = t.beat(LAST, 0, t.w.trust, first);
        t.takes_beat(beat).unwrap();
        t.reads(first, 1).unwrap();
        assert_eq!(t.state(), Freshness::Current);
        (t.clears(), first)
    };
    assert_eq!(play(&[]).0, None);
    let (cleared, first) = play(&[Rule::NotBelowApplied]);
    assert_eq!(cleared, Some(first));
}

// ---- 2: the accident that still waited for the root keys
// -------------------------------------------------------------

#[test]
fn story_02_a_mirror_leaves_the_branch_that_lost_the_race() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        let lost = t.signs(first, PLAIN, Author::Second);
        let won = t.release();
        // The mirror is what follows by the same rules and serves what it has.
        t.reads(lost, 1).unwrap();
        let beat = t.signer();
        t.takes_beat(beat).unwrap();
        let _ = t.reads(won, 1);
        (t.head() == won, t.clears() == Some(won))
    };
    assert_eq!(play(&[]), (true, true));
    assert_eq!(play(&[Rule::BeatDecides]), (false, false));
}

#[test]
fn story_02_a_signer_goes_on_naming_the_log_of_the_origin() {
    let mut t = Stage::with_beats();
    let first = t.release();
    t.becomes_current();
    let lost = t.signs(first, Kind::Withdraw { release: first }, Author::Thief);
    assert_eq!(t.reads(lost, 1), Ok(Place::Append));
    let won = t.release();
    t.becomes_current();
    assert_eq!((t.head(), t.w.device.named(&t.s, 0)), (won, Some(won)));
    assert_eq!(t.clears(), Some(won));
}

#[test]
fn story_02_a_beat_channel_has_no_forks() {
    let mut t = Stage::with_beats();
    t.release();
    t.becomes_current();
    // The signer is restored, and signs that serial again.
    let twin = t.beat(t.s.book.get(t.w.beat).serial, 0, t.w.trust, NONE);
    t.takes_beat(twin).unwrap();
    assert_eq!(t.state(), Freshness::Current);
    t.release();
    t.becomes_current();
}

#[test]
fn story_02_an_origin_follows_no_beat() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let orphan = t.signs(first, PLAIN, Author::Second);
    let second = t.release();
    let beat = t.beat(LAST, 0, t.w.trust, orphan);
    t.takes_beat(beat).unwrap();
    assert!(!t.w.append(&t.s, orphan));
    assert_eq!(t.w.logs[0], second);
}

// ---- 14: delivery
// -------------------------------------------------------------------------------------------------

#[test]
fn story_14_delivery_goes_on_above_the_last_that_is_on_the_chain() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let lost = t.signs(first, PLAIN, Author::Second);
    t.reads(lost, 1).unwrap();
    t.release();
    t.release();
    t.becomes_current();
    assert_eq!(t.w.device.delivered(&t.s, 0, lost), 1);
    assert_eq!(t.w.device.delivered(&t.s, 0, t.w.logs[0]), 3);
    let log = t.w.logs[0];
    t.trust(|trust| trust.lines[0] = log);
    t.walks();
    let foreign = t.signs_at(LAST, PLAIN);
    assert_eq!(t.w.device.delivered(&t.s, 0, foreign), 3);
}
