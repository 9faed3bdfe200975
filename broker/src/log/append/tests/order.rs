//! What comes out of order, or too early.

use tidings_protocol::{
    Head, Serial,
    log::Begin,
    statement::{Beat, Body, Release},
};

use super::{Bench, ROLES, Says, channel, os, releases, sign};
use crate::{
    clock,
    log::append::{AppendError, Appended},
};

/// The key that has signed the releases may do so no more; a checkpoint names one of them.
fn take_the_key_away(bench: &mut Bench, named: Head) {
    bench
        .next_trust(&Says {
            roles: &["trust * root", "release * dora"],
            checkpoints: vec![(os(), named)],
            ..Says::default()
        })
        .unwrap();
}

#[test]
fn what_a_peer_sends_out_of_order_waits_and_is_answered_when_it_hangs_together() {
    let (mut bench, all) = (Bench::new(None), releases(&os(), 6));
    let mut waiting: Vec<_> = [2, 1, 3, 5].map(|at: usize| bench.feed(&all[at])).into();
    assert!(waiting.iter_mut().all(|answer| answer.try_recv().is_err()));
    assert_eq!(bench.serials(&os()), [] as [u32; 0]);
    assert!(matches!(
        bench.feed(&all[0]).try_recv(),
        Ok(Ok(Appended::New))
    ));
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
    assert!(
        waiting[..3]
            .iter_mut()
            .all(|answer| matches!(answer.try_recv(), Ok(Ok(Appended::New))))
    );
    // The last waits for its gap; when its peer sends no more, it is durable, and hidden.
    assert!(waiting[3].try_recv().is_err());
    bench.stalled();
    assert!(matches!(waiting[3].try_recv(), Ok(Ok(Appended::New))));
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
    // What hangs together with neither has to be sent again.
    let far = releases(&os(), 9);
    let mut later = bench.feed(&far[8]);
    bench.stalled();
    assert!(matches!(later.try_recv(), Ok(Err(AppendError::Gap(_)))));
    assert!(matches!(
        bench.feed(&all[4]).try_recv(),
        Ok(Ok(Appended::New))
    ));
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_a_checkpoint_names_vouches_for_what_lies_below_whoever_signed_it() {
    let (mut bench, all) = (Bench::new(None), releases(&os(), 4));
    bench.post_all(&all[..1]);
    take_the_key_away(&mut bench, all[2].head());
    let refused = bench.feed(&all[1]).try_recv().unwrap();
    assert!(matches!(refused, Err(AppendError::Verify(_))));
    let mut named = bench.feed(&all[2]);
    assert!(named.try_recv().is_err(), "it waits for what lies below");
    let below = bench.feed(&all[1]).try_recv().unwrap();
    assert!(matches!(below, Ok(Appended::New)));
    assert!(matches!(named.try_recv(), Ok(Ok(Appended::New))));
    // What nobody vouches for is refused, above it as well.
    let above = bench.feed(&all[3]).try_recv().unwrap();
    assert!(matches!(above, Err(AppendError::Verify(_))));
    assert_eq!(bench.serials(&os()), [1, 2, 3]);
}

#[test]
fn a_log_begins_anew_above_a_gap_that_nobody_fills() {
    let (mut bench, all) = (Bench::new(None), releases(&os(), 12));
    bench.post_all(&all[..3]);
    bench
        .next_trust(&Says {
            roles: ROLES,
            checkpoints: vec![(os(), all[1].head())],
            ..Says::default()
        })
        .unwrap();
    // The feed has nothing between.
    let mut above = bench.feed(&all[8]);
    bench.stalled();
    assert!(matches!(above.try_recv(), Ok(Ok(Appended::New))));
    let since = |bench: &Bench| bench.writer.state.backfills[&os()].1;
    let began = since(&bench);
    let next = bench.feed(&all[9]).try_recv();
    assert!(matches!(next, Ok(Ok(Appended::New))));
    assert_eq!(since(&bench), began, "what is new above puts nothing off");
    bench.post_all(&all[3..4]);
    assert!(since(&bench) > began, "somebody fills the gap");
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4]);
    bench.sweep();
    assert_eq!(bench.serials(&os()), [9, 10]);
    // What a checkpoint names is kept below; and what still comes is filled in below.
    let log = bench.writer.logs.get(os().as_str()).unwrap();
    assert_eq!(log.kept(), Some(all[1].head()));
    let below = bench.feed(&all[7]).try_recv();
    assert!(matches!(below, Ok(Ok(Appended::New))));
    assert_eq!(bench.serials(&os()), [8, 9, 10]);
}

#[test]
fn a_log_begins_anew_with_what_a_checkpoint_names_whoever_signed_it() {
    let (mut bench, all) = (Bench::new(None), releases(&os(), 5));
    bench.post_all(&all[..1]);
    take_the_key_away(&mut bench, all[4].head());
    let mut named = bench.feed(&all[4]);
    assert!(named.try_recv().is_err());
    bench.stalled();
    assert!(matches!(named.try_recv(), Ok(Ok(Appended::New))));
    bench.sweep();
    assert_eq!(bench.serials(&os()), [5]);
}

#[test]
fn a_backfill_that_new_trust_does_not_prove_gives_way() {
    let (mut bench, all) = (Bench::new(None), releases(&os(), 6));
    bench.post_all(&all[..1]);
    let mut hidden = bench.feed(&all[2]);
    bench.stalled();
    assert!(matches!(hidden.try_recv(), Ok(Ok(Appended::New))));
    take_the_key_away(&mut bench, all[4].head());
    let mut named = bench.feed(&all[4]);
    bench.stalled();
    assert!(matches!(named.try_recv(), Ok(Ok(Appended::New))));
    for one in [&all[3], &all[2], &all[1]] {
        bench.feed(one).try_recv().unwrap().unwrap();
    }
    assert_eq!(bench.serials(&os()), [1, 2, 3, 4, 5]);
}

#[test]
fn what_a_beat_may_vouch_for_is_put_off_until_the_beat_is_there() {
    let (mut bench, all) = (Bench::new(None), releases(&os(), 3));
    bench.post_all(&all[..1]);
    let heads = vec![(os(), all[2].head())];
    let (expires, by) = (clock::now().plus(60), Some(Serial::FIRST));
    let body = Body::Beat(Beat { expires, heads });
    let beats = channel("acme.beat");
    let named = sign(beats.clone(), None, by, clock::now(), body, "beat");
    bench
        .next_trust(&Says {
            roles: &["trust * root", "release * dora", "beat * beat"],
            checkpoints: vec![(beats, named.head())],
            ..Says::default()
        })
        .unwrap();
    let early = bench.feed(&all[1]).try_recv().unwrap().unwrap_err();
    assert!(matches!(early, AppendError::BeatFirst(_)) && early.is_passing());
    bench.feed(&named).try_recv().unwrap().unwrap();
    let mut settled = bench.feed(&all[2]);
    assert!(settled.try_recv().is_err(), "it waits for what lies below");
    bench.feed(&all[1]).try_recv().unwrap().unwrap();
    assert!(matches!(settled.try_recv(), Ok(Ok(Appended::New))));
    assert_eq!(bench.serials(&os()), [1, 2, 3]);
}

#[test]
fn attack_110_what_is_of_the_future_is_put_off_by_whatever_way_it_comes() {
    let mut bench = Bench::new(None);
    let body = || {
        Body::Release(Release {
            version: "1".into(),
            ..Release::default()
        })
    };
    let far = sign(
        os(),
        None,
        Some(Serial::FIRST),
        clock::now().plus(200 * 86_400),
        body(),
        "ann",
    );
    let by_feed = bench.feed(&far).try_recv().unwrap().unwrap_err();
    assert!(
        matches!(by_feed, AppendError::Future { .. }) && by_feed.is_passing(),
        "{by_feed}"
    );
    assert!(matches!(
        bench.copy(&[far], Begin::Log),
        Err(AppendError::Future { .. })
    ));
    // What a checkpoint vouches for is not judged by its time.
    let settled = sign(
        os(),
        None,
        Some(Serial::FIRST),
        clock::now().plus(3 * 86_400),
        body(),
        "ann",
    );
    bench
        .next_trust(&Says {
            roles: ROLES,
            checkpoints: vec![(os(), settled.head())],
            ..Says::default()
        })
        .unwrap();
    bench.copy(&[settled], Begin::Log).unwrap();
}
