//! Devices that know one broker alone, which is away for a while: they come back by the client's
//! own pauses.

use std::{collections::BTreeMap, time::Duration};

use tidings_client::pauses_from;
use tidings_tests::Random;

pub(crate) struct Outage {
    /// Connections that were tried in vain, of one device: the fewest and the most.
    pub(crate) tried: (u32, u32),
    /// When the last is back, after the broker went away.
    pub(crate) last: Duration,
    /// Connections that the broker has to take in one second, at most.
    pub(crate) peak: u32,
}

pub(crate) fn run(devices: u32, away: Duration, seed: u64) -> Outage {
    let mut random = Random::new(seed);
    let (mut tried, mut last) = ((u32::MAX, 0), Duration::ZERO);
    let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
    for _ in 0..devices {
        // The first attempt is made at once; asking and watching each try to connect.
        let (mut at, mut in_vain) = (Duration::ZERO, 0);
        let mut pauses = pauses_from(random.below(u64::MAX));
        while at < away {
            in_vain += 2;
            at += pauses.next().unwrap();
        }
        tried = (tried.0.min(in_vain), tried.1.max(in_vain));
        last = last.max(at);
        *seconds.entry(at.as_secs()).or_default() += 1;
    }
    Outage {
        tried,
        last,
        peak: seconds.into_values().max().unwrap_or(0),
    }
}
