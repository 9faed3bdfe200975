//! What a change of trust, a checkpoint or a beat decides.

use std::time::Duration;

use tidings_protocol::{
    Anchor, Channel, Head, Serial,
    log::Begin,
    statement::{Beat, Body, Withdraw},
    verify::VerifyError,
};

use super::{Bench, ROLES, Says, channel, key, os, release, releases, sign, trust};
use crate::{
    clock,
    config::{Quota, Retention},
    log::{
        append::{AppendError, Request},
        logs::Logs,
        namespaces::Namespaces,
    },
};

const LATER: &[&str] = &[
    "trust * root",
    "release * dora",
    "withdraw * stop",
    "beat * beat2",
];

#[test]
fn attack_119_above_a_checkpoint_places_are_free_and_what_stood_there_is_filed_away() {
    let mut bench = Bench::new(None);
    let all = releases(&os(), 4);
    bench.post_all(&all);
    bench
        .next_trust(&Says {
            roles: LATER,
            checkpoints: vec![(os(), all[1].head())],
            ..Says::default()
        })
        .unwrap();
    assert_eq!(
        (bench.serials(&os()), bench.evidence("lost")),
        (vec![1, 2], 1)
    );
    bench
        .post(&release(&os(), Some(all[1].head()), "2", "dora"))
        .unwrap();
    assert_eq!(bench.serials(&os()), [1, 2, 3]);
    // The store has it so, too.
    let again = Logs::open(bench.writer.store.clone()).unwrap();
    assert_eq!(
        again
            .get(os().as_str())
            .map(|log| log.marks().head.serial.number()),
        Some(3)
    );
}

#[test]
fn a_trust_statement_that_would_lose_a_withdrawal_is_refused_by_an_origin() {
    let mut bench = Bench::new(None);
    let all = releases(&os(), 3);
    bench.post_all(&all);
    let body = Body::Withdraw(Withdraw {
        withdraws: all[0].head(),
        reason: "it does not boot".into(),
    });
    let withdrawal = sign(
        os(),
        Some(all[2].head()),
        Some(Serial::FIRST),
        clock::now(),
        body,
        "stop",
    );
    bench.post(&withdrawal).unwrap();
    let below = Says {
        roles: LATER,
        checkpoints: vec![(os(), all[1].head())],
        ..Says::default()
    };
    assert!(
        matches!(bench.next_trust(&below), Err(AppendError::LosesWithdrawal(_, serial)) if serial == withdrawal.serial())
    );
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
    let above = Says {
        roles: LATER,
        checkpoints: vec![(os(), withdrawal.head())],
        ..Says::default()
    };
    bench.next_trust(&above).unwrap();
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
}

#[test]
fn attack_091_post_keeps_the_signatures_that_count_and_a_copy_stays_as_it_came() {
    let mut bench = Bench::new(None);
    let next = trust(
        "acme",
        Some(bench.trust.head()),
        &Says {
            roles: LATER,
            ..Says::default()
        },
    );
    let grafted = next.sign(&key("eve")).unwrap();
    bench.post_trust(&grafted).unwrap();
    let stored = |bench: &Bench| {
        bench
            .writer
            .store
            .get(&channel("acme.trust"), Serial::new(2).unwrap())
            .unwrap()
            .unwrap()
            .statement
    };
    assert_eq!(stored(&bench), next);
    let mut mirror = Bench::new(Some("*"));
    let next = trust(
        "acme",
        Some(mirror.trust.head()),
        &Says {
            roles: LATER,
            ..Says::default()
        },
    )
    .sign(&key("eve"))
    .unwrap();
    mirror
        .ask(|reply| Request::Trust {
            run: vec![(next.clone(), String::new())],
            posted: false,
            reply,
        })
        .unwrap()
        .unwrap();
    assert_eq!(stored(&mirror), next);
}

#[test]
fn attack_122_a_closed_channel_takes_nothing_and_is_dropped_after_some_days() {
    let mut bench = Bench::new(None);
    let all = releases(&os(), 2);
    bench.post(&all[0]).unwrap();
    bench
        .next_trust(&Says {
            roles: ROLES,
            closed: vec!["*"],
            ..Says::default()
        })
        .unwrap();
    let refused = bench.copy(&all[1..], Begin::Nothing).unwrap_err();
    assert!(
        matches!(refused, AppendError::Verify(VerifyError::Closed { .. })) && !refused.is_passing(),
        "{refused}"
    );
    bench.writer.closed_kept = Duration::from_secs(3_600);
    bench.sweep();
    assert_eq!(bench.serials(&os()), [1]);
    bench.writer.closed_kept = Duration::ZERO;
    bench.sweep();
    assert_eq!(bench.head(&os()), None);
    // It does not begin again from 1, by whatever way.
    for refused in [
        bench.copy(&all, Begin::Log).map(drop),
        bench.feed(&all[0]).try_recv().unwrap().map(drop),
    ] {
        assert!(
            matches!(
                refused,
                Err(AppendError::Verify(VerifyError::Closed { .. }))
            ),
            "{refused:?}"
        );
    }
    assert_eq!(bench.head(&os()), None);
    // Trust and beats go on.
    let body = Body::Beat(Beat {
        expires: clock::now().plus(60),
        heads: vec![],
    });
    bench
        .post(&sign(
            channel("acme.beat"),
            None,
            Some(Serial::FIRST),
            clock::now(),
            body,
            "beat",
        ))
        .unwrap();
    bench.sweep();
    assert_eq!(bench.serials(&channel("acme.trust")), [1, 2]);
}

#[test]
fn the_beat_that_a_checkpoint_names_is_kept_and_decides_when_it_comes() {
    let beats = channel("acme.beat");
    let beat = |after: Option<Head>, heads: Vec<(Channel, Head)>, by: &str| {
        let body = Body::Beat(Beat {
            expires: clock::now().plus(60),
            heads,
        });
        sign(
            beats.clone(),
            after,
            Some(Serial::FIRST),
            clock::now(),
            body,
            by,
        )
    };
    let all = releases(&os(), 3);
    let named = beat(None, vec![(os(), all[1].head())], "beat");
    let retention = Retention {
        channels: "*".parse().unwrap(),
        count: Some(1),
        age: None,
    };
    let mut bench = Bench::with(None, Quota::default(), vec![retention]);
    bench.post_all(&all);
    // The beat is not there yet when trust names it: nothing is known of what it has settled.
    bench
        .next_trust(&Says {
            roles: LATER,
            checkpoints: vec![(beats.clone(), named.head())],
            ..Says::default()
        })
        .unwrap();
    assert_eq!(bench.serials(&os()), [1, 2, 3]);
    bench
        .copy(std::slice::from_ref(&named), Begin::Nothing)
        .unwrap();
    assert_eq!(
        (bench.serials(&os()), bench.evidence("lost")),
        (vec![1, 2], 1)
    );
    // Newer ones come, retention goes by, and it is still served.
    let mut after = named.head();
    for _ in 0..3 {
        let next = beat(Some(after), vec![], "beat2");
        after = next.head();
        bench.post(&next).unwrap();
    }
    let next = release(&os(), Some(all[1].head()), "2", "dora");
    bench.post(&next).unwrap();
    bench.sweep();
    let log = bench.writer.logs.get(beats.as_str()).unwrap();
    assert_eq!(
        (bench.serials(&beats), bench.serials(&os())),
        (vec![4], vec![3])
    );
    assert_eq!(
        log.entry(named.serial()).unwrap().map(|entry| entry.head),
        Some(named.head())
    );
    // After a restart, too; and so is what it names.
    let anchors = [Anchor {
        namespace: "acme".parse().unwrap(),
        head: bench.trust.head(),
    }];
    let namespaces = Namespaces::open(&anchors, &bench.writer.store).unwrap();
    assert_eq!(namespaces.trust(&os()).unwrap().missing_beats().count(), 0);
    let logs = Logs::open(bench.writer.store.clone()).unwrap();
    logs.take_up_kept(&namespaces).unwrap();
    assert_eq!(logs.get(beats.as_str()).unwrap().kept(), Some(named.head()));
    assert_eq!(logs.get(os().as_str()).unwrap().kept(), Some(all[1].head()));
}

#[test]
fn a_mirror_follows_the_live_beat_and_an_origin_does_not() {
    let ours = releases(&os(), 3);
    let theirs = [release(&os(), Some(ours[0].head()), "x", "ann")];
    let theirs = [
        theirs[0].clone(),
        release(&os(), Some(theirs[0].head()), "y", "ann"),
    ];
    for mirrored in [None, Some("*")] {
        let mut bench = Bench::new(mirrored);
        bench.copy(&ours, Begin::Log).unwrap();
        assert!(matches!(
            bench.copy(&theirs, Begin::Backfill),
            Err(AppendError::Fork(..))
        ));
        let heads = vec![
            (channel("acme.trust"), bench.trust.head()),
            (os(), theirs[1].head()),
        ];
        let body = Body::Beat(Beat {
            expires: clock::now().plus(60),
            heads,
        });
        let beat = sign(
            channel("acme.beat"),
            None,
            Some(Serial::FIRST),
            clock::now(),
            body,
            "beat",
        );
        bench.copy(&[beat], Begin::Nothing).unwrap();
        let copied = bench.copy(&theirs, Begin::Backfill);
        assert_eq!(copied.is_ok(), mirrored.is_some(), "{copied:?}");
        let expected = if mirrored.is_some() {
            theirs[1].head()
        } else {
            ours[2].head()
        };
        assert_eq!(
            (bench.head(&os()), bench.evidence("lost")),
            (Some(expected), usize::from(mirrored.is_some()))
        );
    }
}
