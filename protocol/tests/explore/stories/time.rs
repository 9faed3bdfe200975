//! Clocks, beats and states.

use super::*;

// ---- 5: clocks
// -------------------------------------------------------------------------------------------------

#[test]
fn story_05_a_machine_that_starts_in_1970_is_not_bricked() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::new(Setting::new(Some(200)), Bounds::default()).without(rules);
        t.w.now = 100;
        t.release();
        t.trust(|_| ());
        t.walks();
        let beat = t.signer();
        t.takes_beat(beat).map(|()| {
            t.reads_log();
            t.state()
        })
    };
    assert_eq!(play(&[]), Ok(Freshness::Current));
    assert_eq!(play(&[Rule::ClockBehindIsNone]), Err(Refusal::BeatFuture));
}

#[test]
fn story_05_a_clock_set_back_hides_no_withdrawal() {
    let mut t = Stage::new(Setting::new(Some(FUTURE + 1)), Bounds::default());
    t.w.now = 10;
    let first = t.release();
    let stop = t.says(Kind::Withdraw { release: first });
    t.reads_log();
    assert_eq!(t.head(), stop);
}

#[test]
fn story_05_a_clock_a_little_behind_is_a_clock() {
    let mut t = Stage::new(Setting::new(Some(1)), Bounds::default());
    t.w.now = 10;
    t.release();
    t.becomes_current();
    // The same beat again is as good as it was.
    t.takes_beat(t.w.beat).unwrap();
    assert_eq!(t.state(), Freshness::Current);
}

#[test]
fn story_05_old_beats_in_slow_motion_are_not_live() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::new(Setting::new(None), Bounds::default()).without(rules);
        let first = t.release();
        t.reads_log();
        // A beat for each step, each shown when twice as much has passed.
        (0..4)
            .map(|step| {
                let beat = t.beat(step + 1, step, t.w.trust, first);
                t.w.now = 2 * step;
                t.takes_beat(beat).unwrap();
                t.state() == Freshness::Current
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(play(&[]), [true, true, false, false]);
    assert_eq!(play(&[Rule::TimeRunsOn]), [true, true, true, true]);
}

#[test]
fn story_05_no_beat_of_the_future_and_none_again_after_a_start() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        let beat = t.beat(LAST, FUTURE + 1, t.w.trust, first);
        t.takes_beat(beat)
    };
    assert_eq!(
        (play(&[]), play(&[Rule::NoFutureBeats])),
        (Err(Refusal::BeatFuture), Ok(()))
    );
    // A beat as far ahead as may be is live for a life from first sight, not for two.
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        t.reads_log();
        let beat = t.beat(LAST, FUTURE, t.w.trust, first);
        t.takes_beat(beat).unwrap();
        t.w.now = LIFE;
        t.state()
    };
    assert_eq!(play(&[Rule::TimeRunsOn]), Freshness::Stale);
    assert_eq!(
        play(&[Rule::TimeRunsOn, Rule::LifeFromSight]),
        Freshness::Current
    );
    let play = |rules: &[Rule]| {
        let mut t = Stage::new(Setting::new(None), Bounds::default()).without(rules);
        t.release();
        t.becomes_current();
        t.w.now = 50;
        t.w.device.reboot(&t.s, 50);
        t.state()
    };
    assert_eq!(
        (play(&[]), play(&[Rule::SinceStart])),
        (Freshness::Stale, Freshness::Current)
    );
}

// ---- 12: the words of the states
// ---------------------------------------------------------------------------------------

#[test]
fn story_12_the_states_in_their_order() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let other = t.signs(NONE, PLAIN, Author::Second);
    let second = t.release();
    t.becomes_current();
    let (now, trust) = (t.w.now, t.w.trust);
    let later = t.s.book.write_trust(Trust {
        serial: 9,
        ..t.s.book.trust(trust)
    });
    let state = |t: &Stage, time, trust, named, at| {
        let mut device = Device {
            beat: NONE,
            ..t.w.device
        };
        device
            .take_beat(&t.s, t.beat(LAST, time, trust, named), now)
            .unwrap();
        device.freshness(&t.s, 0, at)
    };
    assert_eq!(state(&t, 0, trust, second, now), Freshness::Current);
    assert_eq!(state(&t, 0, trust, first, now), Freshness::Current);
    assert_eq!(
        state(&t, 0, trust, second, now + LIFE - 1),
        Freshness::Current
    );
    assert_eq!(state(&t, 0, trust, second, now + LIFE), Freshness::Stale);
    assert_eq!(state(&t, 0, later, second, now), Freshness::Behind);
    assert_eq!(state(&t, 0, later, other, now), Freshness::Forked);
    assert_eq!(state(&t, 0, trust, other, now + LIFE), Freshness::Forked);
    assert_eq!(
        state(
            &t,
            0,
            trust,
            t.signs(second, PLAIN, Author::Thief),
            now + LIFE
        ),
        Freshness::Behind
    );
    // A beat of older trust says BEHIND and FORKED, and never CURRENT.
    t.trust(|_| ());
    t.walks();
    assert_eq!(state(&t, 0, trust, second, now), Freshness::Stale);
    assert_eq!(state(&t, 0, trust, other, now), Freshness::Forked);
    t.s = std::mem::replace(&mut t.s, Setting::new(None)).without(Rule::BeatNamesTrust);
    assert_eq!(state(&t, 0, trust, second, now), Freshness::Current);
}

// ---- 17: a stolen beat key and a signed orphan
// -------------------------------------------------------------------------

#[test]
fn story_17_a_stolen_beat_key_chooses_among_what_was_signed_and_no_more() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let orphan = t.signs(first, PLAIN, Author::Second);
    let second = t.release();
    t.becomes_current();
    let beat = t.beat(LAST - 1, 0, t.w.trust, orphan);
    t.takes_beat(beat).unwrap();
    assert_eq!(t.reads(orphan, 1), Ok(Place::Replace));
    assert_eq!(t.clears(), Some(orphan));
    // Nothing that nobody has signed, and nothing below what was applied.
    let invented = t.invents(first);
    assert_eq!(t.reads(invented, 1), Err(Refusal::Threshold));
    t.applies(second);
    let beat = t.beat(LAST, 0, t.w.trust, first);
    t.takes_beat(beat).unwrap();
    assert_eq!((t.state(), t.clears()), (Freshness::Current, None));
}

#[test]
fn story_17_a_restored_signer_of_beats_is_not_listened_to_until_it_is_beyond_what_it_signed() {
    let mut t = Stage::with_beats();
    t.release();
    t.signer();
    t.becomes_current();
    t.w.now = LIFE;
    // Its disk is older than what it signed: what it signs now has serials that are known.
    t.w.beat = NONE;
    let beat = t.signer();
    t.takes_beat(beat).unwrap();
    assert_eq!(t.state(), Freshness::Stale);
    for _ in 0..2 {
        let beat = t.signer();
        t.takes_beat(beat).unwrap();
    }
    assert_eq!(t.state(), Freshness::Current);
}
