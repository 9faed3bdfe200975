//! What is applied.

use std::sync::atomic::{AtomicBool, Ordering};

use tidings_client::{Error, NotNow};
use tidings_protocol::{Requirement, statement::Release};
use tidings_tests::realm::{ROLES, Realm};

use crate::attacks::stage::{
    BOTH, ROOTS, Stage, clear, device, os, poll, releases, serial, target,
};

#[tokio::test]
async fn attack_51_a_downgrade_is_a_new_release_and_a_barrier_comes_first() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let first = releases(&realm, None, 2, BOTH);
    let barrier = Release {
        version: "2.0".into(),
        barrier: Some(serial(2)),
        ..Release::default()
    };
    let third = realm.release_with(&os(), Some(first[1].head()), barrier, BOTH);
    let beat = realm.beat(None, &[(&os(), third.head())], 600, &["beat"]);
    stage
        .publish(&[
            first[0].clone(),
            first[1].clone(),
            third.clone(),
            beat.clone(),
        ])
        .await;
    let mut device = device(&realm, &[stage.address()]);
    poll(&mut device).await.unwrap();
    assert_eq!(clear(&mut device, 3).await, Err(Requirement::NoRelease));
    for number in [2, 3] {
        assert_eq!(target(&mut device).await, Ok(Some(number)));
        device
            .apply(&os(), serial(number), async |_| Ok::<_, Error>(()))
            .await
            .unwrap();
    }
    assert_eq!(target(&mut device).await, Ok(None));
    assert_eq!(clear(&mut device, 2).await, Err(Requirement::NoRelease));
    // 95: withdrawn, it sends nobody back, whoever has signed that.
    let withdrawal = realm.withdraw(&os(), third.head(), third.head(), &["stop", "ann", "bob"]);
    stage.publish(std::slice::from_ref(&withdrawal)).await;
    assert_eq!(clear(&mut device, 2).await, Err(Requirement::Withdrawn));
    let back = realm.release(&os(), Some(withdrawal.head()), "1.2", BOTH);
    stage
        .publish(&[
            back.clone(),
            realm.beat(Some(beat.head()), &[(&os(), back.head())], 600, &["beat"]),
        ])
        .await;
    assert_eq!(target(&mut device).await, Ok(Some(5)));
}

#[tokio::test]
async fn attack_81_a_withdrawal_that_comes_after_staging_stops_it_before_the_reboot() {
    let realm = Realm::new(ROLES, ROOTS);
    let mut stage = Stage::new(&realm).await;
    let all = releases(&realm, None, 1, BOTH);
    stage
        .publish(&[
            all[0].clone(),
            realm.beat(None, &[(&os(), all[0].head())], 600, &["beat"]),
        ])
        .await;
    let mut device = device(&realm, &[stage.address()]);
    poll(&mut device).await.unwrap();
    let (fetched, rebooted) = (AtomicBool::new(false), AtomicBool::new(false));
    let result = device
        .apply(&os(), serial(1), async |cleared| {
            fetched.store(true, Ordering::Relaxed);
            let withdrawal = realm.withdraw(&os(), all[0].head(), all[0].head(), &["stop"]);
            stage.publish(&[withdrawal]).await;
            cleared.confirm().await?;
            rebooted.store(true, Ordering::Relaxed);
            Ok::<_, Error>(())
        })
        .await;
    assert!(
        matches!(&result, Err(Error::NotNow { reason, .. }) if matches!(**reason, NotNow::Withdrawn { .. })),
        "{result:?}"
    );
    assert!(fetched.into_inner() && !rebooted.into_inner());
    assert_eq!(device.state().view().applied(&os()), None);
    // Withdrawn already, it is not even begun.
    poll(&mut device).await.unwrap();
    let begun = device
        .apply(&os(), serial(1), async |_| -> Result<(), Error> {
            panic!("it was begun")
        })
        .await;
    assert!(begun.is_err());
}
