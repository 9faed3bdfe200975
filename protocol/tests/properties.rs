//! What must hold for all inputs: what is written is read back, nothing panics, nothing changed
//! verifies.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use bytes::BytesMut;
use proptest::{collection::vec, option, prelude::*, sample::select};
use tidings_protocol::{
    Anchor, Digest, Head, Serial, SigningKey, Statement, StatementId, Timestamp, article,
    nntp::{codec::ServerCodec, parse_command},
    statement::{Apply, Body, Draft, Payload, Release, Rollout, Urgency, Withdraw},
    trust::Trust,
};
use tokio_util::codec::Decoder;

fn time() -> impl Strategy<Value = Timestamp> {
    (0..253_402_300_799_u64).prop_map(Timestamp::from_seconds)
}

fn serial(range: std::ops::Range<u32>) -> impl Strategy<Value = Serial> {
    range.prop_map(|n| Serial::new(n).unwrap())
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_octets)
}

fn properties() -> impl Strategy<Value = Vec<(String, String)>> {
    vec(("[a-z][a-z0-9-]{0,8}x", "[!-~]{1,12}"), 1..4).prop_map(|mut all| {
        all.dedup_by(|a, b| a.0 == b.0);
        all.sort();
        all.dedup_by(|a, b| a.0 == b.0);
        all
    })
}

fn text() -> impl Strategy<Value = String> {
    "[!-~\u{a1}-\u{2ff}\u{4e00}-\u{4fff}]([ -~\u{a1}-\u{2ff}]{0,60}[!-~])?"
}

prop_compose! {
    fn payload()(
        (format, size, digest, url) in ("[a-z]{1,8}", any::<u64>(), digest(), "https://[a-z.]{1,20}/[!#-;=?-Za-z~]{0,30}"),
        (from, base, result, mem) in (option::of("[!-~]{1,20}"), option::of(digest()), option::of(digest()), option::of(any::<u64>())),
        more in prop_oneof![Just(vec![]), properties()],
    ) -> Payload {
        Payload { format, size, digest, url, from, base, result, mem, more }
    }
}

prop_compose! {
    fn release()(
        (version, summary, details) in ("[!-~]{1,128}", option::of(text()), option::of("https://[a-z]{1,9}/[a-z?=&]{0,20}")),
        urgency in select(vec![Urgency::Routine, Urgency::Security, Urgency::Critical]),
        targets in vec(properties(), 0..3),
        (barrier, not_before, start, seconds) in (option::of(serial(1..5)), option::of(time()), time(), any::<u64>()),
        (spread, cohort, slot) in (option::of(any::<u64>()), option::of("[a-z]{1,8}"), option::of("[a-z0-9@.+_-]{0,8}".prop_map(|s| format!("g{s}")))),
        apply in option::of(prop_oneof![
            Just(Apply::Reboot), Just(Apply::Kexec), Just(Apply::Live), Just(Apply::None),
            vec("[a-z@.:]{1,20}", 1..4).prop_map(Apply::Restart),
        ]),
        payloads in vec(payload(), 0..3),
    ) -> Release {
        let rollout = Some(Rollout { start, seconds, spread, cohort });
        Release { version, summary, details, urgency, targets, barrier, not_before, deadline: None, rollout, slot, apply, payloads }
    }
}

fn body() -> impl Strategy<Value = Body> {
    let withdraw = (serial(1..42), any::<[u8; 32]>(), text());
    prop_oneof![
        release().prop_map(Body::Release),
        withdraw.prop_map(|(serial, id, reason)| {
            Body::Withdraw(Withdraw {
                withdraws: Head {
                    serial,
                    id: StatementId::from_octets(id),
                },
                reason,
            })
        }),
    ]
}

fn vectors() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for kind in ["good", "bad"] {
        for entry in fs::read_dir(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors")).join(kind),
        )
        .unwrap()
        {
            let octets = fs::read(entry.unwrap().path()).unwrap();
            let end = octets.windows(2).position(|w| w == b"\n\n").unwrap();
            found.push(octets[end + 2..].to_vec());
        }
    }
    found
}

/// Everything that reads octets from somebody else.
fn read_everything(octets: &[u8]) {
    let parsed = Statement::parse(octets);
    if let Ok(statement) = &parsed {
        assert_eq!(statement.octets(), octets);
    }
    let _ = article::parse(octets);
    let _ = parse_command(octets);
    let mut codec = ServerCodec::default();
    let mut input = BytesMut::from(octets);
    for turn in 0..8 {
        if turn == 3 {
            codec.expect_article();
        }
        if !matches!(codec.decode(&mut input), Ok(Some(_))) {
            break;
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(body in body(), id in any::<[u8; 32]>(), time in time(), trust in serial(1..1000)) {
        let after = Some(Head { serial: Serial::new(41).unwrap(), id: StatementId::from_octets(id) });
        let draft = Draft { channel: "a.b".parse().unwrap(), after, time, trust: Some(trust), body };
        // Long lines are refused, not cut.
        if let Ok(statement) = draft.write() {
            prop_assert_eq!(statement.body(), &draft.body);
            prop_assert_eq!((statement.predecessor(), statement.time(), statement.trust()), (draft.after, time, Some(trust)));
            let again = Draft { body: statement.body().clone(), ..draft }.write().unwrap();
            prop_assert_eq!(again.octets(), statement.octets());
            let signed = statement.sign(&SigningKey::from_bytes(&id)).unwrap();
            prop_assert_eq!(signed.id(), statement.id());
        }
    }

    #[test]
    fn random_octets_never_panic(octets in vec(any::<u8>(), 0..4096)) {
        read_everything(&octets);
    }

    #[test]
    fn mutated_vectors_never_panic(which in any::<prop::sample::Index>(), changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8)) {
        let vectors = vectors();
        let mut octets = which.get(&vectors).clone();
        for (at, value, how) in changes {
            if octets.is_empty() {
                break;
            }
            let at = at.index(octets.len());
            match how {
                0 => octets[at] = value,
                1 => octets.insert(at, value),
                _ => drop(octets.remove(at)),
            }
        }
        read_everything(&octets);
    }

    #[test]
    fn nothing_changed_verifies(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let vector = |name: &str| {
            let octets = fs::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors/good")).join(name)).unwrap();
            let end = octets.windows(2).position(|w| w == b"\n\n").unwrap();
            octets[end + 2..].to_vec()
        };
        let first = Statement::parse(&vector("trust-1")).unwrap();
        let anchor = Anchor { namespace: "vectors".parse().unwrap(), head: first.head() };
        let trust = Trust::first(&anchor, first).unwrap();
        let mut octets = vector("release-1-minimal");
        prop_assert!(trust.verify(Statement::parse(&octets).unwrap()).is_ok());
        let at = at.index(octets.len());
        octets[at] ^= 1 << bit;
        if let Ok(statement) = Statement::parse(&octets) {
            prop_assert!(trust.verify(statement).is_err(), "octet {} bit {}", at, bit);
        }
    }
}

/// The chain of ids vouches for a backlog, below a release (spec 2-6).
#[test]
fn a_run_costs_one_check_below_a_release_and_a_withdraw_key_smuggles_nothing() {
    let good = |name: &str| {
        let octets = fs::read(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors/good")).join(name),
        )
        .unwrap();
        let end = octets.windows(2).position(|w| w == b"\n\n").unwrap();
        Statement::parse(&octets[end + 2..]).unwrap()
    };
    let first = good("trust-1");
    let anchor = Anchor {
        namespace: "vectors".parse().unwrap(),
        head: first.head(),
    };
    let trust = Trust::first(&anchor, first).unwrap();
    let channel = "vectors.os.stable".parse().unwrap();
    let history: Vec<_> = [
        "release-1-minimal",
        "release-2-full",
        "release-3-unknown",
        "withdraw-4",
    ]
    .map(good)
    .into();
    let heads: Vec<_> = history.iter().map(Statement::head).collect();
    let run = trust.verify_run(&channel, history.clone()).unwrap();
    // One for the withdrawal, and one for the release below it.
    assert_eq!(run.signature_checks, 2);
    assert_eq!(
        run.statements.iter().map(|s| s.head()).collect::<Vec<_>>(),
        heads
    );

    let stranger = SigningKey::from_bytes(&[9; 32]);
    let stop = SigningKey::from_bytes(&[4; 32]);
    // Signed by nobody who may, but below a release that is: the link vouches for it.
    let resign = |statement: &Statement, key: &SigningKey| {
        Statement::parse_draft(statement.signed_part())
            .unwrap()
            .sign(key)
            .unwrap()
    };
    let mut retired = history.clone();
    retired[0] = resign(&history[0], &stranger);
    retired[1] = resign(&history[1], &stranger);
    assert!(trust.verify_run(&channel, retired).is_ok());
    // The same below a withdrawal alone is refused: its key may sign no release.
    let mut smuggled = history.clone();
    smuggled[2] = resign(&history[2], &stranger);
    assert_eq!(
        trust.verify_run(&channel, smuggled).unwrap_err().0.number(),
        3
    );
    let mut smuggled = history.clone();
    smuggled[2] = resign(&history[2], &stop);
    assert_eq!(
        trust.verify_run(&channel, smuggled).unwrap_err().0.number(),
        3
    );
    // A hole, an exchange, another channel.
    assert!(
        trust
            .verify_run(&channel, [&history[..1], &history[2..]].concat())
            .is_err()
    );
    assert!(
        trust
            .verify_run(&channel, vec![history[1].clone(), history[0].clone()])
            .is_err()
    );
    assert!(
        trust
            .verify_run(&"vectors.os.other".parse().unwrap(), history)
            .is_err()
    );
    assert!(
        trust
            .verify_run(&channel, vec![])
            .unwrap()
            .statements
            .is_empty()
    );
}

/// A checkpoint settles its place for one statement and for a run alike (spec 1-24).
#[test]
fn attack_28_a_checkpoint_stands_against_every_other_statement_of_its_serial() {
    let read = |name: &str| {
        let octets = fs::read(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors/good")).join(name),
        )
        .unwrap();
        let end = octets.windows(2).position(|w| w == b"\n\n").unwrap();
        octets[end + 2..].to_vec()
    };
    let (root, ann) = (
        SigningKey::from_bytes(&[1; 32]),
        SigningKey::from_bytes(&[2; 32]),
    );
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let release = Statement::parse(&read("release-1-minimal")).unwrap();
    let first = Statement::parse(&read("trust-1")).unwrap();
    let settle = |head: Head| {
        let text = String::from_utf8(first.signed_part().to_vec()).unwrap()
            + &format!("Checkpoint: vectors.os.stable {head}\n");
        let statement = Statement::parse_draft(text.as_bytes())
            .unwrap()
            .sign(&root)
            .unwrap();
        Trust::first(
            &Anchor {
                namespace: "vectors".parse().unwrap(),
                head: statement.head(),
            },
            statement,
        )
        .unwrap()
    };
    let channel = release.channel().clone();
    let settled = settle(release.head());
    assert!(settled.verify(release.clone()).is_ok());
    let other = String::from_utf8(release.signed_part().to_vec())
        .unwrap()
        .replace("1.1", "1.0");
    let other = Statement::parse_draft(other.as_bytes())
        .unwrap()
        .sign(&ann)
        .unwrap();
    assert!(settled.verify(other.clone()).is_err());
    assert!(settled.verify_run(&channel, vec![other.clone()]).is_err());
    // What the checkpoint names is authentic in a run whoever has signed it.
    let resigned = Statement::parse_draft(release.signed_part())
        .unwrap()
        .sign(&stranger)
        .unwrap();
    assert!(settled.verify_run(&channel, vec![resigned]).is_ok());
    assert!(settle(other.head()).verify(release).is_err());
}
