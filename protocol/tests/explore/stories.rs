//! The ways in which an earlier wording of the rules was broken, each played against the rules of now; and, where a rule alone
//! bars the way, against the rules without it. Serials are small here: where a story speaks of 40, 41 and 42 it is 1, 2 and 3.

use crate::{
    device::{Device, Freshness, Place, Refusal, Rule, Setting},
    facts::{Author, FUTURE, Id, Kind, LAST, LIFE, LOST, Listed, NONE, PLAIN, ROLES, Role, Serial, Statement, Trust},
    world::{Bounds, Ceremony, World},
};

struct Stage {
    s: Setting,
    bounds: Bounds,
    w: World,
}

impl Stage {
    fn new(s: Setting, bounds: Bounds) -> Self {
        let w = World::new(&s, &bounds);
        Self { s, bounds, w }
    }
    fn with_beats() -> Self {
        Self::new(Setting::new(Some(0)), Bounds::default())
    }
    fn without_beats() -> Self {
        Self::new(Setting::new(Some(0)), Bounds { beats: false, ..Bounds::default() })
    }
    /// The same without some rules.
    fn without(mut self, rules: &[Rule]) -> Self {
        for rule in rules {
            self.s = self.s.without(*rule);
        }
        self
    }
    /// An honest statement that the origin stores.
    fn says(&mut self, kind: Kind) -> Id {
        let id = self.w.write(&self.s, 0, self.w.logs[0], kind, Author::First);
        assert!(self.w.append(&self.s, id));
        id
    }
    fn release(&mut self) -> Id {
        self.says(PLAIN)
    }
    /// Something signed that no log has.
    fn signs(&self, parent: Id, kind: Kind, author: Author) -> Id {
        self.w.write(&self.s, 0, parent, kind, author)
    }
    /// The same at any serial, with a `Previous` that nobody has.
    fn signs_at(&self, serial: Serial, kind: Kind) -> Id {
        let keys = kind.role().key(0);
        self.s.book.write(Statement { channel: 0, serial, parent: LOST, kind, under: 1, keys, author: Author::Thief })
    }
    fn invents(&self, parent: Id) -> Id {
        let serial = self.s.book.get(parent).serial + 1;
        self.s.book.write(Statement { channel: 0, serial, parent, kind: PLAIN, under: 1, keys: 0, author: Author::Thief })
    }
    /// The honest signer's beat.
    fn signer(&mut self) -> Id {
        self.w.sign_beat(&self.s, self.w.logs)
    }
    /// A beat that says anything, by the key that is listed.
    fn beat(&self, serial: Serial, time: u8, trust: u16, named: Id) -> Id {
        let kind = Kind::Beat { time, trust, heads: [named, NONE] };
        let under = self.s.book.trust(self.w.trust).serial;
        let keys = self.s.book.trust(self.w.trust).roles[Role::Beat as usize].keys;
        self.s.book.write(Statement { channel: 2, serial, parent: NONE, kind, under, keys, author: Author::Thief })
    }
    fn takes_beat(&mut self, id: Id) -> Result<(), Refusal> {
        self.w.device.take_beat(&self.s, id, self.w.now)
    }
    fn reads(&mut self, top: Id, from: Serial) -> Result<Place, Refusal> {
        let run = self.s.book.run(top, from);
        self.w.device.take_run(&self.s, 0, &run, self.w.now)
    }
    fn reads_log(&mut self) {
        let _ = self.reads(self.w.logs[0], 1);
    }
    /// Another trust statement at the origin.
    fn trust(&mut self, change: impl FnOnce(&mut Trust)) {
        let mut next = self.s.book.trust(self.w.trust);
        change(&mut next);
        self.w.bring_into_force(&self.s, next);
    }
    fn walks(&mut self) {
        while let Some(next) = self.w.next_trust(&self.s) {
            self.w.device.take_trust(&self.s, next, self.w.now);
        }
    }
    fn head(&self) -> Id {
        self.w.device.channels[0].head
    }
    fn applies(&mut self, id: Id) {
        self.w.device.channels[0].applied = id;
    }
    fn state(&self) -> Freshness {
        self.w.device.freshness(&self.s, 0, self.w.now)
    }
    fn clears(&self) -> Option<Id> {
        self.w.device.clear(&self.s, 0, 1, self.w.now)
    }
    fn becomes_current(&mut self) {
        let beat = self.signer();
        self.takes_beat(beat).unwrap();
        self.reads_log();
        assert_eq!(self.state(), Freshness::Current);
    }
    fn ceremony(&self, stolen: &'static [Role], what: Ceremony) -> Vec<World> {
        self.w.ceremony(&self.s, &Bounds { stolen, ..self.bounds.clone() }, what)
    }
}

fn remove(trust: &mut Trust, role: Role) {
    trust.roles[role as usize].keys = role.key(1);
}

// ---- 1: brokers alone roll back, or make a device forget -------------------------------------------------------------

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
    let (mut t, [_, second, _]) = story_1(&[Rule::ChainStands, Rule::HeadStays, Rule::WithdrawalsKept]);
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

// ---- 2: the accident that still waited for the root keys -------------------------------------------------------------

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

// ---- 3: a stolen beat key writes releases ----------------------------------------------------------------------------

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

// ---- 4: what a thief put above the checkpoint ------------------------------------------------------------------------

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

// ---- 5: clocks ---------------------------------------------------------------------------------------------------------

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
    assert_eq!((play(&[]), play(&[Rule::NoFutureBeats])), (Err(Refusal::BeatFuture), Ok(())));
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
    assert_eq!(play(&[Rule::TimeRunsOn, Rule::LifeFromSight]), Freshness::Current);
    let play = |rules: &[Rule]| {
        let mut t = Stage::new(Setting::new(None), Bounds::default()).without(rules);
        t.release();
        t.becomes_current();
        t.w.now = 50;
        t.w.device.reboot(&t.s, 50);
        t.state()
    };
    assert_eq!((play(&[]), play(&[Rule::SinceStart])), (Freshness::Stale, Freshness::Current));
}

// ---- 6: the newest release hides the one that is due -------------------------------------------------------------------

#[test]
fn story_06_what_is_not_due_hides_no_fix() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let fix = t.release();
        t.says(Kind::Release { barrier: 0, not_before: 9, matches: true, critical: false });
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
    let third = t.says(Kind::Release { barrier: 1, not_before: 0, matches: true, critical: false });
    t.becomes_current();
    assert_eq!(t.clears(), Some(barrier));
    t.applies(second);
    assert_eq!(t.clears(), Some(third));
    t.says(Kind::Release { barrier: 0, not_before: 0, matches: true, critical: true });
    t.becomes_current();
    assert_eq!(t.clears(), None);
}

// ---- 7: closed ---------------------------------------------------------------------------------------------------------

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
    assert!(!Trust { closed: [false; 2], ..closed }.may_follow(&closed));
    assert!(Trust { closed: [true; 2], ..closed }.may_follow(&closed));
    let first = t.w.write(&t.s, 0, NONE, PLAIN, Author::First);
    assert!(!t.w.append(&t.s, first));
}

// ---- 8: retention, and a log that is cut -------------------------------------------------------------------------------

#[test]
fn story_08_where_the_log_at_hand_ends_there_is_none() {
    let mut t = Stage::with_beats();
    let ours = t.release();
    t.says(Kind::Release { barrier: 0, not_before: 0, matches: false, critical: false });
    t.becomes_current();
    assert_eq!(t.w.device.clear(&t.s, 0, 2, t.w.now), None);
    assert_eq!(t.w.device.clear(&t.s, 0, 1, t.w.now), Some(ours));
}

// ---- 9: nobody displaces anybody in a beat -----------------------------------------------------------------------------

/// S6: the channels of the beat before in that order, then new ones as the signer met them; what does not fit is not named.
fn names<'a>(before: &[&'a str], met: &[&'a str], room: usize) -> Vec<&'a str> {
    let new = met.iter().filter(|name| !before.contains(name));
    before.iter().chain(new).copied().take(room).collect()
}

/// The beat channel that speaks for a channel: that of its most specific role.
fn speaks<'a>(roles: &[&'a str], channel: &str) -> Option<&'a str> {
    let matching = roles.iter().filter(|below| **below == "*" || channel.strip_prefix(**below).is_some_and(|rest| rest.starts_with('.')));
    matching.max_by_key(|below| if **below == "*" { 0 } else { below.len() }).copied()
}

#[test]
fn story_09_nobody_displaces_anybody() {
    let before = names(&[], &["acme.os", "acme.app"], 3);
    let after = names(&before, &["acme.testing.a", "acme.testing.b", "acme.app", "acme.os"], 3);
    assert_eq!(after, ["acme.os", "acme.app", "acme.testing.a"]);
    assert_eq!(speaks(&["*", "acme.testing"], "acme.testing.a"), Some("acme.testing"));
    assert_eq!(speaks(&["*", "acme.testing"], "acme.os"), Some("*"));
}

// ---- 10: the outbox ----------------------------------------------------------------------------------------------------

#[test]
fn story_10_an_outbox_is_emptied_by_the_log_a_rival_or_trust_and_by_nothing_else() {
    let mut t = Stage::with_beats();
    let first = t.release();
    // Offered again, it is stored once.
    t.w.outbox[0] = t.signs(first, PLAIN, Author::First);
    let pending = t.w.outbox[0];
    assert!(t.w.append(&t.s, pending));
    t.w.offer(&t.s, 0);
    assert_eq!((t.w.outbox[0], t.w.logs[0], t.w.loose.iter().next()), (NONE, pending, None));
    // A proven rival has the place.
    t.w.outbox[0] = t.signs(pending, PLAIN, Author::First);
    let rival = t.signs(pending, PLAIN, Author::Second);
    assert!(t.w.append(&t.s, rival));
    t.w.offer(&t.s, 0);
    assert_eq!((t.w.outbox[0], t.w.logs[0]), (NONE, rival));
    // Trust cannot take it any more.
    t.w.outbox[0] = t.signs(rival, PLAIN, Author::First);
    t.trust(|trust| {
        remove(trust, Role::Release);
        trust.lines[0] = rival;
    });
    t.w.offer(&t.s, 0);
    assert_eq!((t.w.outbox[0], t.w.logs[0]), (NONE, rival));
    t.release();
}

#[test]
fn story_10_an_outbox_is_emptied_when_what_it_stands_on_is_filed_away() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let stolen = t.signs(first, Kind::Withdraw { release: first }, Author::Thief);
    assert!(t.w.append(&t.s, stolen));
    t.w.outbox[0] = t.signs(stolen, PLAIN, Author::First);
    t.trust(|trust| {
        remove(trust, Role::Withdraw);
        trust.lines[0] = first;
    });
    assert_eq!(t.w.logs[0], first);
    t.w.offer(&t.s, 0);
    assert_eq!(t.w.outbox[0], NONE);
    t.release();
}

// ---- 11: signatures ----------------------------------------------------------------------------------------------------

#[test]
fn story_11_distinct_listed_keys_are_counted_and_nothing_else_has_any_effect() {
    let t = Stage::with_beats();
    let (one, two, foreign) = (Role::Release.key(0), Role::Release.key(2), Role::Release.key(3));
    let role = Listed { keys: one | two, threshold: 2 };
    let mut trust = t.s.book.trust(t.w.trust);
    trust.roles[Role::Release as usize] = role;
    let release = t.s.book.get(t.signs(NONE, PLAIN, Author::First));
    let meets = |keys| trust.meets(&Statement { keys, ..release });
    assert_eq!([0, foreign, one, one | foreign].map(meets), [false; 4]);
    assert_eq!([one | two, one | two | foreign].map(meets), [true; 2]);
}

// ---- 12: the words of the states ---------------------------------------------------------------------------------------

#[test]
fn story_12_the_states_in_their_order() {
    let mut t = Stage::with_beats();
    let first = t.release();
    let other = t.signs(NONE, PLAIN, Author::Second);
    let second = t.release();
    t.becomes_current();
    let (now, trust) = (t.w.now, t.w.trust);
    let later = t.s.book.write_trust(Trust { serial: 9, ..t.s.book.trust(trust) });
    let state = |t: &Stage, time, trust, named, at| {
        let mut device = Device { beat: NONE, ..t.w.device };
        device.take_beat(&t.s, t.beat(LAST, time, trust, named), now).unwrap();
        device.freshness(&t.s, 0, at)
    };
    assert_eq!(state(&t, 0, trust, second, now), Freshness::Current);
    assert_eq!(state(&t, 0, trust, first, now), Freshness::Current);
    assert_eq!(state(&t, 0, trust, second, now + LIFE - 1), Freshness::Current);
    assert_eq!(state(&t, 0, trust, second, now + LIFE), Freshness::Stale);
    assert_eq!(state(&t, 0, later, second, now), Freshness::Behind);
    assert_eq!(state(&t, 0, later, other, now), Freshness::Forked);
    assert_eq!(state(&t, 0, trust, other, now + LIFE), Freshness::Forked);
    assert_eq!(state(&t, 0, trust, t.signs(second, PLAIN, Author::Thief), now + LIFE), Freshness::Behind);
    // A beat of older trust says BEHIND and FORKED, and never CURRENT.
    t.trust(|_| ());
    t.walks();
    assert_eq!(state(&t, 0, trust, second, now), Freshness::Stale);
    assert_eq!(state(&t, 0, trust, other, now), Freshness::Forked);
    t.s = std::mem::replace(&mut t.s, Setting::new(None)).without(Rule::BeatNamesTrust);
    assert_eq!(state(&t, 0, trust, second, now), Freshness::Current);
}

// ---- 13: anchors -------------------------------------------------------------------------------------------------------

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
    // One that has slept since the first, and one whose anchor is the second: its checkpoints are new to it.
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

// ---- 14: delivery ------------------------------------------------------------------------------------------------------

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

// ---- 15: vouching ------------------------------------------------------------------------------------------------------

#[test]
fn story_15_a_withdrawal_proves_only_itself() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let invented = t.invents(NONE);
        let stop = t.signs(invented, Kind::Withdraw { release: invented }, Author::Thief);
        t.reads(stop, 1)
    };
    assert_eq!((play(&[]), play(&[Rule::WithdrawalProvesItself])), (Err(Refusal::Threshold), Ok(Place::Replace)));
    // By a retired key it is proven below a release, or a checkpoint.
    let mut t = Stage::with_beats();
    let first = t.release();
    let stop = t.says(Kind::Withdraw { release: first });
    t.trust(|trust| remove(trust, Role::Withdraw));
    t.walks();
    assert_eq!(t.reads(stop, 1), Err(Refusal::Threshold));
    let next = t.release();
    assert_eq!(t.reads(next, 1), Ok(Place::Replace));
}

// ---- 17: a stolen beat key and a signed orphan -------------------------------------------------------------------------

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

// ---- and what the exploration has found since --------------------------------------------------------------------------

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
    // The device is far up the branch that was settled against: its head alone does not contradict the checkpoint.
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
    assert_eq!((play(&[]), play(&[Rule::CheckpointSettles])), ([true; 2], [false; 2]));
}

#[test]
fn roles_are_three() {
    assert_eq!(ROLES.map(|role| role.key(0)), [1, 16, 256]);
}
