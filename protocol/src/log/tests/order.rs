//! Any order, gaps, and where a log begins.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::{
    Broker, LATER, NOW, ROLES, beat, broker, first_trust, next_trust, os, release, releases,
};
use crate::log::*;

/// Offers statements one by one, and what is put off again, until nothing changes any more.
fn offer_all(broker: &mut Broker, mut order: Vec<Statement>) -> Vec<Statement> {
    loop {
        let before = order.len();
        order.retain(|statement| {
            match broker.take(core::slice::from_ref(statement), Begin::Backfill) {
                Ok(()) => false,
                Err(Refused::Gap { .. } | Refused::Verify(..)) => true,
                Err(other) => panic!("{other}"),
            }
        });
        if order.is_empty() || order.len() == before {
            return order;
        }
    }
}

proptest! {
    #[test]
    fn any_order_ends_in_the_same_log(seed in proptest::collection::vec(any::<prop::sample::Index>(), 24), runs in 1_usize..5) {
        let all = releases(None, 24, "1.", "ann");
        let mut left: Vec<Vec<Statement>> = all.chunks(runs).map(<[Statement]>::to_vec).collect();
        let mut order = Vec::new();
        for index in seed.iter().take(left.len()) {
            order.push(left.remove(index.index(left.len())));
        }
        let mut broker = broker();
        while !order.is_empty() {
            let before = order.len();
            order.retain(|run| broker.take(run, Begin::Backfill).is_err());
            prop_assert!(order.len() < before, "nothing goes on, {:?} is there", broker.serials());
        }
        prop_assert_eq!(broker.visible(), all);
        prop_assert_eq!(broker.log.backfill(), None);
    }

    #[test]
    fn retired_history_is_proven_from_above_in_any_order(seed in proptest::collection::vec(any::<prop::sample::Index>(), 12)) {
        let old = releases(None, 10, "1.", "ann");
        let new = releases(Some(old[9].head()), 2, "2.", "dora");
        let mut broker = Broker::new(os(), next_trust(&first_trust(), LATER, &[]));
        let all: Vec<Statement> = old.into_iter().chain(new).collect();
        let mut left = all.clone();
        let order = seed.iter().map(|index| left.remove(index.index(left.len()))).collect();
        let rest = offer_all(&mut broker, order);
        prop_assert!(rest.is_empty(), "{} are left", rest.len());
        prop_assert_eq!(broker.visible(), all);
    }

    #[test]
    fn a_crash_between_offer_and_apply_changes_nothing(crashes in proptest::collection::vec(any::<bool>(), 64), seed in any::<u64>()) {
        let all = releases(None, 12, "1.", "ann");
        let mut broker = broker();
        let mut next = seed;
        for crash in crashes {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(next >> 33).unwrap() % all.len();
            let (before, store) = (broker.log.clone(), broker.store.clone());
            if let Ok(step) = broker.offer(&all[at..=at], Begin::Backfill) {
                if crash {
                    // After the restart, the same as before; what was stored is judged anew.
                    prop_assert_eq!((&broker.log, &broker.store), (&before, &store));
                    let backfill = broker.log.backfill().map(|backfill| Backfill::stored(backfill.top, &broker.store[&backfill.lowest]));
                    broker.log = Log::stored(os(), broker.log.span(), backfill, None);
                } else {
                    broker.commit(&step);
                }
            }
        }
        offer_all(&mut broker, all.clone());
        prop_assert_eq!(broker.visible(), all);
    }

    #[test]
    fn a_beat_channel_has_the_highest_proven_serial_whatever_comes(order in proptest::collection::vec(1_u32..40, 1..30)) {
        let channel: Channel = "acme.beat".parse().unwrap();
        let mut broker = Broker::new(channel.clone(), first_trust());
        for serial in &order {
            let beat = beat(*serial, "beat");
            let _ = broker.take(&[beat], Begin::Nothing);
        }
        let highest = order.iter().max().copied();
        prop_assert_eq!(broker.log.head().map(|head| head.serial.number()), highest);
    }
}

#[test]
fn what_follows_is_taken_and_what_is_there_is_known() {
    let (mut broker, all) = (broker(), releases(None, 3, "1.", "ann"));
    broker.take(&all[..2], Begin::Nothing).unwrap();
    assert!(
        broker
            .offer(&all[..1], Begin::Nothing)
            .unwrap()
            .is_nothing(&broker.log)
    );
    let step = broker.offer(&all, Begin::Nothing).unwrap();
    assert_eq!(
        (step.insert.len(), step.shown(&broker.log)),
        (1, Some(all[2].serial()..=all[2].serial()))
    );
    // Unsigned, by others, not linked.
    let other = release(Some(all[1].head()), "x", "eve");
    assert!(matches!(
        broker.offer(&[other], Begin::Nothing),
        Err(Refused::Verify(_, VerifyError::Threshold { .. }))
    ));
    let unlinked = [all[0].clone(), all[2].clone()];
    assert!(matches!(
        broker.offer(&unlinked, Begin::Nothing),
        Err(Refused::Verify(_, VerifyError::Link { .. }))
    ));
}

#[test]
fn a_gap_waits_and_one_backfill_grows_down_until_it_meets_the_head() {
    let (mut broker, all) = (broker(), releases(None, 10, "1.", "ann"));
    broker.take(&all[..2], Begin::Nothing).unwrap();
    assert_eq!(
        broker.offer(&all[8..9], Begin::Nothing),
        Err(Refused::Gap {
            from: all[2].serial()
        })
    );
    broker.take(&all[7..9], Begin::Backfill).unwrap();
    assert_eq!(broker.serials(), [1, 2]);
    // There is one, and it wants what lies below it.
    assert_eq!(
        broker.offer(&all[4..5], Begin::Backfill),
        Err(Refused::Gap {
            from: all[6].serial()
        })
    );
    broker.take(&all[5..7], Begin::Backfill).unwrap();
    broker.take(&all[9..], Begin::Backfill).unwrap();
    broker.take(&all[2..5], Begin::Backfill).unwrap();
    assert_eq!((broker.visible(), broker.log.backfill()), (all, None));
}

#[test]
fn a_log_begins_where_nothing_below_is_to_be_had_and_is_filled_below_later() {
    let (mut broker, all) = (broker(), releases(None, 10, "1.", "ann"));
    broker.take(&all[5..8], Begin::Log).unwrap();
    assert_eq!(broker.serials(), [6, 7, 8]);
    // Attack 111: what lies below comes from another one.
    assert_eq!(
        broker.offer(&all[..3], Begin::Nothing),
        Err(Refused::Expired(all[2].serial()))
    );
    broker.take(&all[2..5], Begin::Nothing).unwrap();
    assert_eq!(broker.serials(), [3, 4, 5, 6, 7, 8]);
    let forged = release(Some(all[0].head()), "x", "ann");
    assert!(matches!(
        broker.offer(&[forged], Begin::Nothing),
        Err(Refused::Verify(_, VerifyError::Link { .. }))
    ));
    // A hole is accepted only if it has to be.
    let far = releases(Some(all[9].head()), 3, "2.", "ann");
    broker.take(&far[1..], Begin::Log).unwrap();
    assert_eq!(broker.serials(), [3, 4, 5, 6, 7, 8]);
    broker.take(&far[1..], Begin::Anew).unwrap();
    assert_eq!(broker.serials(), [12, 13]);
}

#[test]
fn attack_110_what_is_of_the_future_is_put_off_unless_it_is_vouched_for() {
    let (mut broker, all) = (broker(), releases(None, 2, "1.", "ann"));
    broker.until = Some(Timestamp::from_seconds(NOW - 1));
    assert!(matches!(
        broker.offer(&all, Begin::Nothing),
        Err(Refused::Future { .. })
    ));
    broker.trust = next_trust(&broker.trust, ROLES, &[(os(), all[1].head())]);
    broker.take(&all, Begin::Nothing).unwrap();
    // A broker whose clock is none judges nothing by it.
    let mut timeless = self::broker();
    timeless.take(&all, Begin::Nothing).unwrap();
}
