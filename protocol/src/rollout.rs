//! A device's place in a rollout window (spec part 2).

use sha2::{Digest, Sha256};

use crate::{Channel, StatementId, Timestamp, statement::Rollout};

/// The label that keeps this hash apart from every other.
const LABEL: &[u8] = b"tidings rollout 1\n";

/// [2-30]: when a device may apply a release: `start` plus its share of the window.
///
/// The share is the first 64 bits of SHA-256(label, channel, LF, the *previous* statement's id, LF,
/// identity) over 2^64: even, new for each release, and fixed before the release was written, so
/// that nobody can be picked (attacks 70 and 71).
pub fn turn(
    rollout: &Rollout,
    channel: &Channel,
    previous: Option<StatementId>,
    identity: &str,
) -> Timestamp {
    rollout
        .start
        .plus(share(channel, previous, identity, rollout.seconds))
}

/// A device's share of some seconds: from 0 up to, and not including, `seconds`.
pub fn share(
    channel: &Channel,
    previous: Option<StatementId>,
    identity: &str,
    seconds: u64,
) -> u64 {
    let mut hash = Sha256::new();
    hash.update(LABEL);
    hash.update(channel.as_str());
    hash.update(b"\n");
    match previous {
        Some(id) => hash.update(alloc::format!("{id}")),
        None => hash.update(b"-"),
    }
    hash.update(b"\n");
    hash.update(identity);
    fraction(&hash.finalize().into(), seconds)
}

/// The share that a hash takes of a whole: its first 64 bits over 2^64, so 0 up to, and not
/// including, `whole`.
pub(crate) fn fraction(hash: &[u8; 32], whole: u64) -> u64 {
    let first = hash
        .iter()
        .take(8)
        .fold(0_u64, |n, octet| n << 8 | u64::from(*octet));
    let product = u128::from(first) * u128::from(whole);
    u64::try_from(product >> 64).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_71_waves_are_even_and_new_for_each_release() {
        let channel: Channel = "a.b".parse().unwrap();
        let mut tenths = [0_u32; 10];
        let mut first_twice = 0;
        for device in 0..10_000 {
            let identity = alloc::format!("device-{device}");
            let one = share(&channel, Some(StatementId::of(b"1")), &identity, 10);
            let two = share(&channel, Some(StatementId::of(b"2")), &identity, 10);
            tenths[usize::try_from(one).unwrap()] += 1;
            first_twice += u32::from(one == 0 && two == 0);
        }
        assert!(tenths.iter().all(|n| (850..1150).contains(n)), "{tenths:?}");
        assert!((50..150).contains(&first_twice), "{first_twice}");
    }

    #[test]
    fn an_empty_window_is_its_start() {
        assert_eq!(share(&"a.b".parse().unwrap(), None, "x", 0), 0);
    }
}
