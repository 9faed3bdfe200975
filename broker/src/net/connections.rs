//! How many connections there are, in all and from each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::limits::{LOGIN_ADDRESSES, LOGIN_WINDOW, LOGINS_OF_ADDRESS};

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, OfAddress>,
    /// Logins that have failed, and since when they are counted.
    failed: HashMap<IpAddr, (u32, Instant)>,
}

/// What is known of an address while it has connections.
#[derive(Default)]
struct OfAddress {
    connections: usize,
    /// Whose turn it is to log in, once somebody has.
    login: Option<Arc<tokio::sync::Mutex<()>>>,
}

/// The counter.
pub(crate) struct Connections {
    counts: Mutex<Counts>,
    most: usize,
    most_per_address: usize,
}

/// One counted connection; it is uncounted when this is dropped.
pub(crate) struct Permit {
    connections: Arc<Connections>,
    address: IpAddr,
}

/// An IPv4 address, or the /64 that one customer has of IPv6.
fn payer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Connections {
    pub(crate) fn new(most: usize, most_per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::default(),
            most,
            most_per_address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection, or says why there may be no more.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, &'static str> {
        let address = payer(address);
        let mut counts = self.lock();
        if counts.all >= self.most {
            return Err("too many connections, try again later or elsewhere");
        }
        let ours = counts.by_address.entry(address).or_default();
        if ours.connections >= self.most_per_address {
            return Err("too many connections from your address, close some first");
        }
        ours.connections += 1;
        counts.all += 1;
        Ok(Permit {
            connections: self.clone(),
            address,
        })
    }

    /// Whether an address has tried too many passwords, over all of its connections (attack 115).
    pub(crate) fn is_guessing(&self, address: IpAddr) -> bool {
        let counts = self.lock();
        let failed = counts.failed.get(&payer(address));
        failed.is_some_and(|(count, since)| {
            *count >= LOGINS_OF_ADDRESS && since.elapsed() < LOGIN_WINDOW
        })
    }

    /// Takes note of a login that has failed.
    pub(crate) fn note_failed_login(&self, address: IpAddr) {
        let mut counts = self.lock();
        counts
            .failed
            .retain(|_, (_, since)| since.elapsed() < LOGIN_WINDOW);
        if counts.failed.len() >= LOGIN_ADDRESSES {
            counts.failed.clear();
        }
        counts
            .failed
            .entry(payer(address))
            .or_insert_with(|| (0, Instant::now()))
            .0 += 1;
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().all
    }
}

impl Permit {
    /// The turn of one connection of an address to log in: were those of all looked at at once, all
    /// would be before the first has failed (attack 115).
    pub(crate) async fn login_turn(&self) -> OwnedMutexGuard<()> {
        let turn = {
            let mut counts = self.connections.lock();
            let ours = counts.by_address.entry(self.address).or_default();
            ours.login.get_or_insert_default().clone()
        };
        turn.lock_owned().await
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        counts.all -= 1;
        if let Some(ours) = counts.by_address.get_mut(&self.address) {
            ours.connections -= 1;
            if ours.connections == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_115_an_address_that_guesses_passwords_is_known_over_all_of_its_connections() {
        let connections = Connections::new(3, 2);
        let (guesser, neighbour) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8:0:1::1".parse().unwrap(),
        );
        for _ in 0..LOGINS_OF_ADDRESS {
            assert!(!connections.is_guessing(guesser));
            connections.note_failed_login(guesser);
        }
        assert!(
            connections.is_guessing(guesser)
                && connections.is_guessing("2001:db8::2".parse().unwrap())
        );
        assert!(!connections.is_guessing(neighbour));
        (0..=u32::try_from(LOGIN_ADDRESSES).unwrap())
            .for_each(|n| connections.note_failed_login(std::net::Ipv4Addr::from(n).into()));
        assert!(connections.counts.lock().unwrap().failed.len() <= LOGIN_ADDRESSES);
    }

    #[test]
    fn connections_are_counted_in_all_and_per_address() {
        let connections = Connections::new(3, 2);
        let admit = |address: &str| connections.admit(address.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_err());
        let _third = admit("2001:db8::1").unwrap();
        assert!(admit("10.0.0.2").is_err());
        drop(first);
        let _fourth = admit("2001:db8::2").unwrap();
        assert_eq!(connections.count(), 3);
        assert!(admit("2001:db8::3").is_err());
    }
}
