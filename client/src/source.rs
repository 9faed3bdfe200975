//! Where statements come from, and what proves them: several brokers, one anchor.

use backon::{BackoffBuilder, ExponentialBuilder};
use std::time::Duration;
use tidings_protocol::{Anchor, Serial, trust::Trust};

use crate::{
    Address, Connection, Error, Tls,
    limits::{BACKLOG_OCTETS, RETRY_FIRST, RETRY_LAST},
};

/// The brokers of one namespace, any of which will do, and its anchor.
#[derive(Clone)]
pub struct Source {
    pub(crate) brokers: Vec<Address>,
    pub(crate) anchor: Anchor,
    tls: Tls,
    /// The broker that is asked first: the last that could be used.
    pub(crate) first: usize,
}

impl Source {
    /// Brokers as `nntps://HOST[:PORT]` or `nntp://HOST[:PORT]`, and the anchor line.
    ///
    /// # Errors
    /// If one of them is none.
    pub fn new<'a>(brokers: impl IntoIterator<Item = &'a str>, anchor: &str) -> Result<Self, Error> {
        let brokers = brokers.into_iter().map(str::parse).collect::<Result<Vec<Address>, _>>()?;
        if brokers.is_empty() {
            return Err(Error::NoBroker);
        }
        Ok(Self { brokers, anchor: anchor.parse()?, tls: Tls::system()?, first: 0 })
    }

    /// The same with other roots for TLS.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls, ..self }
    }

    /// The anchor.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// A connection to the broker that is first now.
    ///
    /// # Errors
    /// If it cannot be used.
    pub async fn connect(&self) -> Result<Connection, Error> {
        Connection::open(self.address(), &self.tls).await
    }

    /// The broker that is first now.
    pub fn address(&self) -> &Address {
        &self.brokers[self.first]
    }

    /// Makes another broker the first.
    pub(crate) fn turn(&mut self) {
        self.first = (self.first + 1) % self.brokers.len();
    }

    /// Pauses after failures: doubling, with full jitter, so that a fleet does not come back at once (attack 59).
    pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
        // backon adds jitter on top of its delay; drawing from the doubled range keeps the mean.
        ExponentialBuilder::default()
            .with_min_delay(RETRY_FIRST / 2)
            .with_max_delay(RETRY_LAST / 2)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// Walks the trust log from what is known to its newest statement, each step checked by signature.
pub(crate) async fn walk_trust(connection: &mut Connection, anchor: &Anchor, known: Option<Trust>) -> Result<Trust, Error> {
    let log = anchor.namespace.trust_log();
    let refused = |serial: Serial| {
        let channel = log.clone();
        move |source| Error::Verify { channel, serial, source }
    };
    let Some((group, _)) = connection.group(&log, None).await? else {
        // A broker without the log is no help to a device that has none yet.
        return known.ok_or(Error::NoTrustLog(log));
    };
    let from = known.as_ref().map_or(1, |trust| trust.serial().number() + 1);
    let mut trust = known;
    if group.high >= from {
        for statement in connection.articles(&log, from..=group.high, BACKLOG_OCTETS).await? {
            let serial = statement.serial();
            trust = Some(match trust {
                None => Trust::first(anchor, statement).map_err(refused(serial))?,
                Some(trust) => trust.succeed(statement).map_err(refused(serial))?,
            });
        }
    }
    trust.ok_or(Error::NoTrustLog(log))
}
