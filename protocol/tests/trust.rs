//! What brokers and publishers ask of trust, beside what devices do: who has signed, what a change
//! takes away, which beats settle.
#![allow(clippy::unwrap_used)]

use tidings_protocol::{
    Anchor, Channel, Head, PublicKey, Serial, SigningKey, Statement, StatementId,
    statement::{Body, Kind},
    trust::{Descent, Settled, Trust},
    verify::VerifyError,
};

const NAMES: [&str; 7] = ["root", "ann", "bob", "stop", "beat", "lab", "stranger"];
const ROOT: usize = 0;
const ANN: usize = 1;
const BOB: usize = 2;
const STOP: usize = 3;
const BEAT: usize = 4;
const LAB: usize = 5;
const STRANGER: usize = 6;

fn key(number: usize) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(number).unwrap() + 1; 32])
}
fn public(number: usize) -> PublicKey {
    PublicKey::of(&key(number))
}
fn sign(text: &str, signers: &[usize]) -> Statement {
    let draft =
        Statement::parse_draft(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    signers
        .iter()
        .fold(draft, |draft, signer| draft.sign(&key(*signer)).unwrap())
}
fn first_lines(kind: &str, channel: &str, after: Option<Head>) -> String {
    let (serial, previous) = after.map_or((1, "-".into()), |head| {
        (head.serial.number() + 1, head.id.to_string())
    });
    format!(
        "Tidings: 1 {kind}\nChannel: {channel}\nSerial: {serial}\nPrevious: {previous}\nTime: 2026-02-01T12:00:00Z\n"
    )
}
/// A trust statement with these lines after its keys.
fn trust_text(after: Option<Head>, roles: &str) -> Statement {
    let keys: String = (0..6)
        .map(|n| format!("Key: {} {}\n", public(n), NAMES[n]))
        .collect();
    let roles = format!("Role: trust * 1 root\n{roles}");
    sign(
        &format!(
            "{}Expires: 2036-01-01T00:00:00Z\n{keys}{roles}",
            first_lines("trust", "acme.trust", after)
        ),
        &[ROOT],
    )
}
const ROLES: &str = "Role: release * 1 ann bob\nRole: withdraw * 1 stop\nRole: beat * 1 beat\nRole: beat acme.lab.* 1 lab\n";

fn trust(more: &str) -> Trust {
    let statement = trust_text(None, &format!("{ROLES}{more}"));
    Trust::first(&anchor(&statement), statement).unwrap()
}
fn anchor(statement: &Statement) -> Anchor {
    Anchor {
        namespace: "acme".parse().unwrap(),
        head: statement.head(),
    }
}
fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}
fn release(after: Option<&Statement>, signers: &[usize]) -> Statement {
    sign(
        &(first_lines("release", "acme.os", after.map(Statement::head)) + "Trust: 1\nVersion: 1\n"),
        signers,
    )
}
fn withdraw(after: &Statement, signers: &[usize]) -> Statement {
    let text = first_lines("withdraw", "acme.os", Some(after.head()));
    sign(
        &format!("{text}Trust: 1\nWithdraws: {}\nReason: bad\n", after.head()),
        signers,
    )
}
fn beat(channel: &str, heads: &[(&str, Head)], signer: usize) -> Statement {
    let heads: String = heads
        .iter()
        .map(|(channel, head)| format!("Head: {channel} {head}\n"))
        .collect();
    sign(
        &(first_lines("beat", channel, None)
            + "Trust: 1\nExpires: 2026-02-01T12:10:00Z\n"
            + &heads),
        &[signer],
    )
}

#[test]
fn who_has_signed_is_told_by_name_and_only_what_holds_counts() {
    let trust = trust("");
    let statement = release(None, &[STRANGER, STOP, BOB]);
    let role = trust.role(Kind::Release, statement.channel()).unwrap();
    assert_eq!(trust.rules().signers(role, &statement), ["bob"]);
    let both = release(None, &[BOB, ANN]);
    assert_eq!(trust.rules().signers(role, &both), ["ann", "bob"]);
    // A line of Ann's that does not hold.
    let other = release(Some(&both), &[ANN]);
    let line = &other.octets()[other.signed_part().len()..];
    let spoilt = Statement::parse(&[statement.octets(), line].concat()).unwrap();
    assert_eq!(trust.rules().signers(role, &spoilt), ["bob"]);
    for (signer, counts) in [
        (ROOT, false),
        (ANN, false),
        (BOB, true),
        (STOP, false),
        (STRANGER, false),
    ] {
        assert_eq!(
            trust.counts(&spoilt, &public(signer)),
            counts,
            "{}",
            NAMES[signer]
        );
    }
    assert_eq!(
        (
            trust.signature_checks(&spoilt),
            trust.signature_checks(&statement),
            trust.signature_checks(&both)
        ),
        (2, 1, 2)
    );
    assert!(trust.meets(&spoilt) && !trust.meets(&release(None, &[STOP])));
    // What counts is kept, and the statement is the same one.
    let kept = spoilt.with_signatures(|key| trust.counts(&spoilt, key));
    assert_eq!(
        (kept.octets(), kept.id()),
        (release(None, &[BOB]).octets(), spoilt.id())
    );
    let names = [(ANN, Some("ann")), (LAB, Some("lab")), (STRANGER, None)];
    names
        .iter()
        .for_each(|(number, name)| assert_eq!(trust.name_of(&public(*number)), *name));
    assert!(
        !trust.counts(&beat("acme.x.beat", &[], BEAT), &public(BEAT)),
        "there is no role for that channel"
    );
    assert_eq!(trust.signature_checks(&beat("acme.x.beat", &[], BEAT)), 0);
}

#[test]
fn what_a_change_takes_away_is_seen() {
    let rules = |roles: &str| match trust_text(None, roles).body() {
        Body::Trust(rules) => rules.clone(),
        _ => panic!("no trust"),
    };
    let (namespace, os) = ("acme".parse().unwrap(), channel("acme.os"));
    let narrows = |old: &str, new: &str| rules(new).narrows(&rules(old), &os, &namespace);
    let both = "Role: release * 1 ann bob\nRole: withdraw * 1 stop\n";
    for (new, is_narrower) in [
        (both, false),
        (
            "Role: release * 1 bob ann root\nRole: withdraw * 1 stop\n",
            false,
        ),
        ("Role: release * 1 ann\nRole: withdraw * 1 stop\n", true),
        ("Role: release * 2 ann bob\nRole: withdraw * 1 stop\n", true),
        ("Role: release * 1 ann bob\nRole: withdraw * 1 root\n", true),
        ("Role: release * 1 ann bob\n", true),
        (
            "Role: release * 1 ann bob\nRole: release acme.os 1 ann\nRole: withdraw * 1 stop\n",
            true,
        ),
        (
            "Role: release * 1 ann bob\nRole: release acme.x 1 ann\nRole: withdraw * 1 stop\n",
            false,
        ),
    ] {
        assert_eq!(narrows(both, new), is_narrower, "{new}");
    }
    assert!(!narrows(
        "Role: release * 2 ann bob\n",
        "Role: release * 1 ann bob\n"
    ));
    assert!(!narrows("", both));
}

#[test]
fn what_lies_below_the_anchor_is_proven_by_links_alone() {
    let first = trust_text(None, ROLES);
    let second = trust_text(Some(first.head()), ROLES);
    let third = trust_text(Some(second.head()), ROLES);
    let anchor = anchor(&third);
    let below = |run: &[&Statement]| {
        Trust::verify_below(&anchor, run.iter().map(|s| (*s).clone()).collect())
    };
    assert_eq!(below(&[&first, &second, &third]).unwrap().len(), 3);
    assert_eq!(below(&[&second, &third]).unwrap()[0].head(), second.head());
    assert!(below(&[]).unwrap().is_empty());
    // Nobody has signed it: the link is its proof.
    let text = String::from_utf8(second.signed_part().to_vec()).unwrap();
    assert_eq!(
        below(&[&first, &sign(&text, &[STRANGER]), &third])
            .unwrap()
            .len(),
        3
    );
    let other = trust_text(Some(first.head()), &format!("{ROLES}Closed: acme.x\n"));
    let link = |run: &[&Statement]| matches!(below(run), Err((_, VerifyError::Link { .. })));
    assert!(
        link(&[&other, &third])
            && link(&[&first, &third])
            && link(&[&second])
            && link(&[&first, &second, &second, &third])
    );
    let elsewhere = sign(
        &text
            .replace("acme.trust", "acme.x.trust")
            .replace("Role: beat acme.lab.* 1 lab\n", ""),
        &[ROOT],
    );
    assert!(link(&[&elsewhere, &third]));
    let fourth = trust_text(Some(third.head()), ROLES);
    assert!(link(&[&third, &fourth]));
    assert!(matches!(
        below(&[&first, &first, &second, &third]),
        Err((_, VerifyError::Beginning { .. }))
    ));
}

#[test]
fn beats_settle_what_they_may_speak_for() {
    let head = |n: u32| Head {
        serial: Serial::new(n).unwrap(),
        id: StatementId::of(&n.to_be_bytes()),
    };
    let wide = beat(
        "acme.beat",
        &[
            ("acme.trust", head(1)),
            ("acme.os", head(2)),
            ("acme.lab.x", head(3)),
            ("beta.os", head(4)),
        ],
        STRANGER,
    );
    let narrow = beat(
        "acme.lab.beat",
        &[("acme.lab.x", head(5)), ("acme.os", head(6))],
        STRANGER,
    );
    let lines = format!(
        "Checkpoint: acme.beat {}\nCheckpoint: acme.lab.beat {}\nCheckpoint: acme.none.beat {}\nCheckpoint: acme.own {}\n",
        wide.head(),
        narrow.head(),
        head(7),
        head(8)
    );
    let mut trust = trust(&lines);
    let missing: Vec<String> = trust
        .missing_beats()
        .map(|(channel, head)| format!("{channel} {}", head.serial))
        .collect();
    assert_eq!(missing, ["acme.beat 1", "acme.lab.beat 1"]);
    assert_eq!(
        trust.checkpoint(&channel("acme.os")),
        Settled::Missing(wide.head())
    );
    assert_eq!(
        trust.checkpoint(&channel("acme.lab.x")),
        Settled::Missing(narrow.head())
    );
    assert_eq!(trust.checkpoint(&channel("acme.own")), Settled::At(head(8)));
    assert_eq!(
        [
            trust.named_beat(wide.channel()),
            trust.named_beat(&channel("acme.none.beat"))
        ],
        [Some(wide.head()), None]
    );
    assert_eq!(
        [
            trust.named_beat(&channel("acme.own")),
            trust.named_beat(&channel("acme.x.beat"))
        ],
        [None, None]
    );
    assert!(
        trust.verify_settled_beat(wide.clone()).is_some(),
        "its id is its proof, whoever signed it"
    );
    assert!(
        trust
            .verify_settled_beat(beat("acme.beat", &[], BEAT))
            .is_none()
    );
    assert!(!trust.take_settled_beat(beat("acme.beat", &[], BEAT)));
    assert!(trust.take_settled_beat(wide.clone()) && trust.take_settled_beat(narrow.clone()));
    assert_eq!(
        (trust.missing_beats().count(), trust.settled_beats().count()),
        (0, 2)
    );
    for (name, settled) in [
        ("acme.os", Settled::At(head(2))),
        ("acme.lab.x", Settled::At(head(5))),
        ("acme.unnamed", Settled::Nothing),
        ("acme.own", Settled::At(head(8))),
        ("acme.trust", Settled::Nothing),
        ("acme.beat", Settled::Nothing),
    ] {
        assert_eq!(trust.checkpoint(&channel(name)), settled, "{name}");
    }
    let Body::Beat(said) = wide.body() else {
        panic!("no beat")
    };
    let names: Vec<&str> = trust
        .named(wide.channel(), said)
        .map(|(channel, _)| channel.as_str())
        .collect();
    assert_eq!(names, ["acme.trust", "acme.os"]);
    let Body::Beat(said) = narrow.body() else {
        panic!("no beat")
    };
    let names: Vec<&str> = trust
        .named(narrow.channel(), said)
        .map(|(channel, _)| channel.as_str())
        .collect();
    assert_eq!(names, ["acme.lab.x"]);
}

#[test]
fn a_log_is_proven_on_its_way_down_as_a_run_is() {
    let trust = trust("");
    let first = release(None, &[STRANGER]);
    let second = withdraw(&first, &[STRANGER]);
    let third = release(Some(&second), &[ANN]);
    let fourth = withdraw(&third, &[STOP]);
    let mut descent = Descent::new(channel("acme.os"));
    assert!(!descent.vouches() && descent.next().is_none());
    assert!(
        descent.take(&trust, second.clone()).is_err(),
        "nothing vouches for it"
    );
    descent.take(&trust, fourth.clone()).unwrap();
    assert!(!descent.vouches() && descent.next() == Some(third.head()));
    assert!(matches!(
        descent.take(&trust, second.clone()),
        Err(VerifyError::Link { .. })
    ));
    assert!(
        descent.next() == Some(third.head()),
        "what was refused changes nothing"
    );
    descent.take(&trust, third.clone()).unwrap();
    assert!(descent.vouches());
    descent.take(&trust, second.clone()).unwrap();
    descent.take(&trust, first.clone()).unwrap();
    assert!(descent.next().is_none());
    assert!(matches!(
        descent.take(&trust, first.clone()),
        Err(VerifyError::Beginning { .. })
    ));
    let run = trust
        .verify_run(
            &channel("acme.os"),
            vec![first.clone(), second.clone(), third.clone(), fourth],
        )
        .unwrap();
    assert_eq!((run.statements.len(), run.signature_checks), (4, 2));
    // Taken up again below what was accepted.
    let mut again = Descent::resume(&trust, &third, &second).unwrap();
    assert!(again.vouches() && again.next() == Some(first.head()));
    again.take(&trust, first.clone()).unwrap();
    assert!(Descent::resume(&trust, &second, &second).is_err());
}

#[test]
fn beats_prove_themselves_one_by_one() {
    let trust = trust("");
    let beats = channel("acme.beat");
    let (one, two) = (
        beat("acme.beat", &[], BEAT),
        beat("acme.beat", &[("acme.os", trust.head())], BEAT),
    );
    let run = trust
        .verify_run(&beats, vec![one.clone(), two.clone()])
        .unwrap();
    assert_eq!((run.statements.len(), run.signature_checks), (2, 2));
    let lab = beat("acme.lab.beat", &[], LAB);
    assert!(matches!(
        trust.verify_run(&beats, vec![one.clone(), lab]),
        Err((_, VerifyError::Channel { .. }))
    ));
    assert!(matches!(
        trust.verify_run(&beats, vec![one, beat("acme.beat", &[], LAB)]),
        Err((_, VerifyError::Threshold { .. }))
    ));
}
