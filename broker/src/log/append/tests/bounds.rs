//! What has a bound: channels, retention, evidence, memory.

use std::time::Duration;

use tidings_protocol::{
    Serial, Statement,
    log::Begin,
    statement::{Beat, Body},
};

use super::{Bench, ROLES, Says, channel, key, os, release, releases, sign};
use crate::{
    clock,
    config::{Quota, Retention},
    limits::{SWEEP_STATEMENTS, TAILS_OCTETS},
    log::append::{AppendError, Request},
};

#[test]
fn attack_100_one_namespace_uses_up_its_own_channels_alone() {
    let mut bench = Bench::new(None);
    // Its trust log is one of the three.
    for name in ["acme.a", "acme.b"] {
        bench.post(&releases(&channel(name), 1)[0]).unwrap();
    }
    let refused = bench.post(&releases(&channel("acme.c"), 1)[0]).unwrap_err();
    assert!(
        matches!(refused, AppendError::Quota(..)) && refused.is_passing(),
        "{refused}"
    );
    assert!(matches!(
        bench.copy(&releases(&channel("acme.c"), 1), Begin::Log),
        Err(AppendError::Quota(..))
    ));
    // Others are not concerned; nor is what goes on, nor beats.
    bench.post(&releases(&channel("other.a"), 1)[0]).unwrap();
    bench.post(&releases(&channel("acme.a"), 2)[1]).unwrap();
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
    // Nor is it for ever: what is closed is dropped, and its room is free.
    bench
        .next_trust(&Says {
            roles: ROLES,
            closed: vec!["acme.a", "acme.b"],
            ..Says::default()
        })
        .unwrap();
    bench.sweep();
    bench.post(&releases(&channel("acme.c"), 1)[0]).unwrap();
}

#[test]
fn attack_109_retention_has_turns_and_never_takes_the_head_a_checkpoint_or_what_is_young() {
    let keep = |count, days: u64| Retention {
        channels: "acme.*".parse().unwrap(),
        count: Some(count),
        age: Some(Duration::from_secs(days * 86_400)),
    };
    let count = SWEEP_STATEMENTS as usize + 100;
    let mut bench = Bench::with(None, Quota::default(), vec![keep(10, 0)]);
    let all = releases(&os(), count);
    bench.copy(&all, Begin::Log).unwrap();
    let checkpoint = all[4].head();
    bench
        .next_trust(&Says {
            roles: ROLES,
            checkpoints: vec![(os(), checkpoint)],
            ..Says::default()
        })
        .unwrap();
    bench.ask::<()>(|_| Request::Sweep);
    bench.writer.sweep_some(clock::now().plus(1));
    // One turn is bounded, and the rest comes in the next ones.
    let low = |bench: &Bench| {
        bench
            .writer
            .logs
            .get(os().as_str())
            .unwrap()
            .marks()
            .low
            .number()
    };
    assert_eq!(low(&bench), SWEEP_STATEMENTS + 1);
    bench.sweep();
    assert_eq!(low(&bench) as usize, count - 9);
    let log = bench.writer.logs.get(os().as_str()).unwrap();
    assert_eq!(
        log.entry(checkpoint.serial)
            .unwrap()
            .map(|entry| entry.head),
        Some(checkpoint)
    );
    assert!(log.entry(all[5].serial()).unwrap().is_none());
    // What is younger than the operator says stays, however many there are.
    let mut young = Bench::with(None, Quota::default(), vec![keep(1, 30)]);
    young.copy(&all[..5], Begin::Log).unwrap();
    young.sweep();
    assert_eq!(young.serials(&os()), [1, 2, 3, 4, 5]);
}

#[test]
fn attack_114_evidence_is_kept_of_races_too_and_each_namespace_has_its_own_quota() {
    let mut bench = Bench::with(
        None,
        Quota {
            channels: 100,
            evidence: 4,
        },
        vec![],
    );
    let all = releases(&os(), 2);
    bench.post_all(&all);
    // Two within ten seconds, with one predecessor: a race, or a thief who is quick.
    assert!(matches!(
        bench.post(&release(&os(), Some(all[0].head()), "race", "ann")),
        Err(AppendError::LostRace(_))
    ));
    assert_eq!((bench.evidence("race"), bench.evidence("fork")), (1, 0));
    assert!(matches!(
        bench.post(&release(
            &os(),
            Some(release(&os(), None, "x", "ann").head()),
            "fork",
            "ann"
        )),
        Err(AppendError::LostRace(_))
    ));
    assert_eq!(bench.evidence("fork"), 1);
    // A testing key uses up what its namespace has, and no more.
    for number in 0..10 {
        let name = channel(&format!("acme.testing{number}"));
        bench.post(&release(&name, None, "1", "ann")).unwrap();
        bench.post(&release(&name, None, "2", "ann")).unwrap_err();
    }
    assert_eq!(bench.evidence("race") + bench.evidence("fork"), 4);
    let theirs = channel("other.os");
    bench.post(&release(&theirs, None, "1", "ann")).unwrap();
    bench.post(&release(&theirs, None, "2", "ann")).unwrap_err();
    assert_eq!(bench.evidence("race") + bench.evidence("fork"), 5);
}

#[test]
fn attack_105_what_is_kept_in_memory_of_all_heads_has_a_bound_in_octets() {
    let mut bench = Bench::with(None, Quota::default(), vec![]);
    let logs = bench.writer.logs.clone();
    let details = "x".repeat(800);
    for number in 0..700 {
        let name = channel(&format!("acme.c{number}"));
        // Some 60 kB: many lines of their own, that nobody knows.
        let mut text = format!(
            "Tidings: 1 release\nChannel: {name}\nSerial: 1\nPrevious: -\nTime: {}\nTrust: 1\nVersion: 1\n",
            clock::now()
        );
        (0..70).for_each(|line| text.push_str(&format!("X-{line}: {details}\n")));
        let statement = Statement::parse_draft(text.as_bytes())
            .unwrap()
            .sign(&key("ann"))
            .unwrap();
        bench.post(&statement).unwrap();
        assert!(logs.tail_octets() <= TAILS_OCTETS, "{}", logs.tail_octets());
    }
    assert!(logs.tail_octets() > TAILS_OCTETS / 2);
    // What was given up is read again.
    let first = logs.get("acme.c0").unwrap();
    assert_eq!(
        first.entry(Serial::FIRST).unwrap().map(|entry| entry.head),
        Some(first.marks().head)
    );
}
