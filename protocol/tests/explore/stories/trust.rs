//! Ceremonies, checkpoints and anchors.

use super::*;

// ---- 3: a stolen beat key writes releases
// ----------------------------------------------------------------------------

#[test]
fn story_03_a_checkpoint_names_no_beat_with_an_invented_head() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let invented = t.invents(first);
    t.w.beat = t.beat(1, 0, t.w.trust, invented);
    assert!(t.ceremony(&[Role::Beat], Ceremony::RemoveByBeat).is_empty());
    // A device has no rule against it: it is for those who sign.
    let beat = t.w.beat;
    t.trust(|trust| trust.beat_line = beat);
    t.walks();
    t.w.device.take_settling(&t.s, 0);
    t.reads(invented, 1).unwrap();
    assert_eq!(t.head(), invented);
}

#[test]
fn story_03_who_cannot_get_the_beat_installs_nothing_and_an_own_line_goes_before() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        let settled = t.signer();
        let lost = t.signs(NONE, PLAIN, Author::Second);
        t.trust(|trust| trust.beat_line = settled);
        t.walks();
        let read = t.reads(lost, 1);
        let beat = t.signer();
        t.takes_beat(beat).unwrap();
        let before = (read.is_ok(), t.clears());
        t.w.device.take_settling(&t.s, 0);
        t.reads_log();
        (before, t.clears() == Some(first))
    };
    assert_eq!(play(&[]), ((false, None), true));
    assert!(play(&[Rule::BeatAtHand]).0.0);
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        let other = t.signs(NONE, PLAIN, Author::Second);
        let beat = t.beat(1, 0, t.w.trust, other);
        t.trust(|trust| (trust.beat_line, trust.lines[0]) = (beat, first));
        t.walks();
        t.w.device.take_settling(&t.s, 0);
        t.reads(other, 1)
    };
    assert_eq!(play(&[]), Err(Refusal::Checkpoint));
    assert!(play(&[Rule::OwnLineFirst]).is_ok());
}

// ---- 4: what a thief put above the checkpoint
// ------------------------------------------------------------------------

#[test]
fn story_04_what_a_thief_put_above_the_checkpoint_is_filed_away() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        let stolen = t.signs(first, PLAIN, Author::Thief);
        assert!(t.w.append(&t.s, stolen));
        t.becomes_current();
        t.trust(|trust| {
            remove(trust, Role::Release);
            trust.lines[0] = first;
        });
        if !t.w.may_extend(&t.s, 0) {
            return None;
        }
        let next = t.w.write(&t.s, 0, t.w.logs[0], PLAIN, Author::First);
        assert!(t.w.append(&t.s, next));
        t.walks();
        let beat = t.signer();
        t.takes_beat(beat).unwrap();
        t.reads_log();
        assert_eq!(t.clears(), Some(next));
        Some(t.w.device.ours(&t.s, 0, 2) == stolen)
    };
    // Gone; a publisher that cannot go on; and a current key that vouches for the thief's release.
    assert_eq!(play(&[]), Some(false));
    assert_eq!(play(&[Rule::FiledAway]), None);
    assert_eq!(play(&[Rule::FiledAway, Rule::ExtendsProven]), Some(true));
}

// ---- 13: anchors
// -------------------------------------------------------------------------------------------------

#[test]
fn story_13_old_and_new_anchors_come_to_the_same() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let lost = t.signs(NONE, PLAIN, Author::Second);
    t.trust(|trust| {
        remove(trust, Role::Release);
        trust.lines[0] = first;
    });
    let second = t.release();
    let beat = t.signer();
    // One that has slept since the first, and one whose anchor is the second: its checkpoints are
    // new to it.
    let new = Device::default();
    for device in [t.w.device, new] {
        t.w.device = device;
        if t.w.device.trust == 0 {
            t.w.device.take_trust(&t.s, t.w.trust, t.w.now);
        }
        t.walks();
        t.takes_beat(beat).unwrap();
        assert_eq!(t.reads(lost, 1), Err(Refusal::Checkpoint));
        assert_eq!(t.reads(second, 2), Ok(Place::ReadFrom(1)));
        t.reads_log();
        assert_eq!((t.state(), t.clears()), (Freshness::Current, Some(second)));
    }
}
