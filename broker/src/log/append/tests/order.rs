//! What comes out of order, or too early.

use tidings_protocol::{
    Serial,
    log::Begin,
    statement::{Body, Release},
};

use super::{Bench, ROLES, Says, os, releases, sign};
use crate::{
    clock,
    log::append::{AppendError, Appended},
};

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
    // The key that has signed all of them may do so no more.
    bench
        .next_trust(&Says {
            roles: &["trust * root", "release * dora"],
            checkpoints: vec![(os(), all[2].head())],
            ..Says::default()
        })
        .unwrap();
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
