//! What the exploration has found, beyond the stories.

use super::*;

// ---- and what the exploration has found since
// --------------------------------------------------------------------------

#[test]
fn without_beats_evidence_of_a_fork_stops_until_a_checkpoint_and_what_was_settled_is_no_fork() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::without_beats().without(rules);
        let first = t.release();
        let lost = t.signs(NONE, PLAIN, Author::Second);
        t.reads_log();
        assert_eq!(t.reads(lost, 1), Ok(Place::Fork(lost)));
        let stopped = t.clears();
        t.trust(|trust| trust.lines[0] = first);
        t.walks();
        t.reads_log();
        (stopped, t.clears() == Some(first))
    };
    assert_eq!(play(&[]), (None, true));
    assert!(play(&[Rule::EvidenceStops]).0.is_some());
}

#[test]
fn while_a_channel_is_read_anew_nothing_is_installed_from_it() {
    // The device is far up the branch that was settled against: its head alone does not contradict
    // the checkpoint.
    let play = |rules: &[Rule]| {
        let mut t = Stage::without_beats().without(rules);
        let first = t.release();
        let second = t.release();
        let mut other = t.signs(first, PLAIN, Author::Second);
        for _ in 0..2 {
            other = t.signs(other, PLAIN, Author::Second);
        }
        t.reads(other, 1).unwrap();
        t.trust(|trust| trust.lines[0] = second);
        t.walks();
        t.w.device.clear(&t.s, 0, 4, t.w.now)
    };
    assert_eq!(play(&[]), None);
    assert!(play(&[Rule::RestartInstallsNothing]).is_some());
}

#[test]
fn inventions_push_no_withdrawal_out_of_memory() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        t.s.kept = 1;
        let first = t.release();
        let stop = t.signs(first, Kind::Withdraw { release: first }, Author::Second);
        t.reads(stop, 1).unwrap();
        // The withdraw key is stolen, and so is that of beats.
        let invented = t.signs_at(LAST - 1, PLAIN);
        let junk = t.signs_at(LAST, Kind::Withdraw { release: invented });
        let _ = t.reads(junk, LAST);
        let other = t.signs(first, Kind::Withdraw { release: invented }, Author::Thief);
        let beat = t.beat(LAST, 0, t.w.trust, other);
        t.takes_beat(beat).unwrap();
        assert_eq!(t.reads(other, 1), Ok(Place::Replace));
        t.clears()
    };
    assert_eq!(play(&[]), None);
    assert!(play(&[Rule::KeepsWhatWasRead]).is_some());
}

#[test]
fn a_withdrawal_counts_against_an_id_and_not_against_a_serial() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let invented = t.signs_at(1, PLAIN);
        let junk = t.signs_at(LAST, Kind::Withdraw { release: invented });
        let first = t.release();
        t.becomes_current();
        let _ = t.reads(junk, LAST);
        t.clears() == Some(first)
    };
    assert_eq!((play(&[]), play(&[Rule::WithdrawalById])), (true, false));
}

#[test]
fn a_statement_beside_the_checkpoint_is_refused() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::without_beats().without(rules);
        let first = t.release();
        let other = t.signs(NONE, PLAIN, Author::Second);
        let above = t.signs(other, PLAIN, Author::Second);
        t.trust(|trust| trust.lines[0] = first);
        t.walks();
        [t.reads(other, 1), t.reads(above, 2)].map(|read| read == Err(Refusal::Checkpoint))
    };
    assert_eq!(
        (play(&[]), play(&[Rule::CheckpointSettles])),
        ([true; 2], [false; 2])
    );
}

#[test]
fn a_later_trust_sets_no_time_back() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::new(Setting::new(None), Bounds::default()).without(rules);
        t.release();
        t.trust(|_| ());
        let beat = t.signer();
        // Both are withheld for a life.
        t.w.now = LIFE;
        t.walks();
        t.takes_beat(beat).unwrap();
        t.reads_log();
        t.state()
    };
    assert_eq!(
        (play(&[]), play(&[Rule::TimeRunsOn])),
        (Freshness::Stale, Freshness::Current)
    );
}

#[test]
fn a_beat_leads_away_from_any_number_of_forged_statements() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        t.s.links = 2;
        let first = t.release();
        t.reads_log();
        let mut stolen = first;
        for _ in 0..4 {
            stolen = t.signs(stolen, Kind::Withdraw { release: first }, Author::Thief);
        }
        t.reads(stolen, 2).unwrap();
        let beat = t.signer();
        t.takes_beat(beat).unwrap();
        t.reads_log();
        (t.head() == first, t.state())
    };
    assert_eq!(play(&[]), (true, Freshness::Current));
    assert_eq!(
        play(&[Rule::BeatDecidesUnlinked]),
        (false, Freshness::Stale)
    );
}

#[test]
fn a_beat_that_names_the_checkpoint_on_which_we_stand_makes_current() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let pending = t.signs(first, PLAIN, Author::First);
    let stolen = t.signs(pending, Kind::Withdraw { release: pending }, Author::Thief);
    t.reads(pending, 2).unwrap();
    t.trust(|trust| trust.lines[0] = first);
    t.walks();
    t.reads(stolen, 3).unwrap();
    let beat = t.signer();
    t.takes_beat(beat).unwrap();
    assert_eq!((t.head(), t.state()), (stolen, Freshness::Current));
}

#[test]
fn a_checkpoint_is_put_above_a_withdrawal_of_what_stays() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let first = t.release();
        let stolen = t.signs(first, PLAIN, Author::Thief);
        assert!(t.w.append(&t.s, stolen));
        t.says(Kind::Withdraw { release: first });
        let ways = t.ceremony(&[Role::Release], Ceremony::Remove);
        // A new device, after each of the ways in which the ceremony may end.
        let cleared = ways.into_iter().map(|way| {
            t.w = way;
            t.w.device = Device::default();
            t.w.device.take_trust(&t.s, t.w.trust, 0);
            t.becomes_current();
            t.clears() == Some(first)
        });
        cleared.collect::<Vec<_>>()
    };
    assert_eq!(play(&[]), [false]);
    assert_eq!(play(&[Rule::FiledIsLost]), [true, false]);
    assert_eq!(play(&[Rule::WithdrawalsSurvive]), [true, false]);
}
