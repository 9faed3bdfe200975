//! Signatures, names in beats, and the outbox.

use super::*;

// ---- 9: nobody displaces anybody in a beat
// -----------------------------------------------------------------------------

/// S6: the channels of the beat before in that order, then new ones as the signer met them; what
/// does not fit is not named.
fn names<'a>(before: &[&'a str], met: &[&'a str], room: usize) -> Vec<&'a str> {
    let new = met.iter().filter(|name| !before.contains(name));
    before.iter().chain(new).copied().take(room).collect()
}

/// The beat channel that speaks for a channel: that of its most specific role.
fn speaks<'a>(roles: &[&'a str], channel: &str) -> Option<&'a str> {
    let matching = roles.iter().filter(|below| {
        **below == "*"
            || channel
                .strip_prefix(**below)
                .is_some_and(|rest| rest.starts_with('.'))
    });
    matching
        .max_by_key(|below| if **below == "*" { 0 } else { below.len() })
        .copied()
}

#[test]
fn story_09_nobody_displaces_anybody() {
    let before = names(&[], &["acme.os", "acme.app"], 3);
    let after = names(
        &before,
        &["acme.testing.a", "acme.testing.b", "acme.app", "acme.os"],
        3,
    );
    assert_eq!(after, ["acme.os", "acme.app", "acme.testing.a"]);
    assert_eq!(
        speaks(&["*", "acme.testing"], "acme.testing.a"),
        Some("acme.testing")
    );
    assert_eq!(speaks(&["*", "acme.testing"], "acme.os"), Some("*"));
}

// ---- 10: the outbox
// -------------------------------------------------------------------------------------------------

#[test]
fn story_10_an_outbox_is_emptied_by_the_log_a_rival_or_trust_and_by_nothing_else() {
    let mut t = Stage::with_beats();
    let first = t.release();
    // Offered again, it is stored once.
    t.w.outbox[0] = t.signs(first, PLAIN, Author::First);
    let pending = t.w.outbox[0];
    assert!(t.w.append(&t.s, pending));
    t.w.offer(&t.s, 0);
    assert_eq!(
        (t.w.outbox[0], t.w.logs[0], t.w.loose.iter().next()),
        (NONE, pending, None)
    );
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

// ---- 11: signatures
// -------------------------------------------------------------------------------------------------

#[test]
fn story_11_distinct_listed_keys_are_counted_and_nothing_else_has_any_effect() {
    let t = Stage::with_beats();
    let (one, two, foreign) = (
        Role::Release.key(0),
        Role::Release.key(2),
        Role::Release.key(3),
    );
    let role = Listed {
        keys: one | two,
        threshold: 2,
    };
    let mut trust = t.s.book.trust(t.w.trust);
    trust.roles[Role::Release as usize] = role;
    let release = t.s.book.get(t.signs(NONE, PLAIN, Author::First));
    let meets = |keys| trust.meets(&Statement { keys, ..release });
    assert_eq!([0, foreign, one, one | foreign].map(meets), [false; 4]);
    assert_eq!([one | two, one | two | foreign].map(meets), [true; 2]);
}

// ---- 15: vouching
// -------------------------------------------------------------------------------------------------

#[test]
fn story_15_a_withdrawal_proves_only_itself() {
    let play = |rules: &[Rule]| {
        let mut t = Stage::with_beats().without(rules);
        let invented = t.invents(NONE);
        let stop = t.signs(
            invented,
            Kind::Withdraw { release: invented },
            Author::Thief,
        );
        t.reads(stop, 1)
    };
    assert_eq!(
        (play(&[]), play(&[Rule::WithdrawalProvesItself])),
        (Err(Refusal::Threshold), Ok(Place::Replace))
    );
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
