//! How many connections there are, in all and from each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
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
        Arc::new(Self { counts: Mutex::default(), most, most_per_address })
    }

    /// Counts a connection, or says why there may be no more.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, &'static str> {
        let address = payer(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.most {
            return Err("too many connections, try again later or elsewhere");
        }
        let ours = counts.by_address.entry(address).or_default();
        if *ours >= self.most_per_address {
            return Err("too many connections from your address, close some first");
        }
        *ours += 1;
        counts.all += 1;
        Ok(Permit { connections: self.clone(), address })
    }

    pub(crate) fn count(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.connections.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(ours) = counts.by_address.get_mut(&self.address) {
            *ours -= 1;
            if *ours == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
