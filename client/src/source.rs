//! Where statements come from, and what proves them: several brokers, one anchor.

use backon::{BackoffBuilder, ExponentialBuilder};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tidings_protocol::{Anchor, Channel, Serial, verify::VerifyError};
use tokio::time::timeout;

use crate::{
    Address, Connection, Error, State, Tls, chance, explain,
    limits::{BACKLOG_OCTETS, RETRY_FIRST, RETRY_LAST, TRUST_CHUNK},
};

/// The brokers of one namespace, any of which will do, and its anchor.
#[derive(Clone)]
pub struct Source {
    pub(crate) brokers: Vec<Address>,
    pub(crate) anchor: Anchor,
    tls: Tls,
    account: Option<(String, String)>,
    /// Whether certificates, a key or a password were given: then statements are posted over TLS
    /// only.
    secured: bool,
    /// The broker that is asked first: the last that could be used.
    pub(crate) first: usize,
    received: Arc<AtomicU64>,
}

impl Source {
    /// Brokers as `nntps://HOST[:PORT]` or `nntp://HOST[:PORT]`, and the anchor line.
    ///
    /// # Errors
    /// If one of them is none.
    pub fn new<'a>(
        brokers: impl IntoIterator<Item = &'a str>,
        anchor: &str,
    ) -> Result<Self, Error> {
        let brokers = brokers
            .into_iter()
            .map(str::parse)
            .collect::<Result<Vec<Address>, _>>()?;
        if brokers.is_empty() {
            return Err(Error::NoBroker);
        }
        Ok(Self {
            brokers,
            anchor: anchor.parse()?,
            tls: Tls::system()?,
            account: None,
            secured: false,
            first: 0,
            received: Arc::default(),
        })
    }

    /// The same with other roots for TLS.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self {
            tls,
            secured: true,
            ..self
        }
    }

    /// The same with a name and a password, which brokers get over TLS only: for channels that not
    /// everybody may read.
    #[must_use]
    pub fn with_account(self, user: &str, password: &str) -> Self {
        Self {
            account: Some((user.into(), password.into())),
            secured: true,
            ..self
        }
    }

    /// What TLS trusts, and what is shown to brokers.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// The name and the password that brokers get over TLS.
    pub fn account(&self) -> Option<(&str, &str)> {
        self.account
            .as_ref()
            .map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// The anchor.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// A connection to the broker that is first now, and to no other.
    ///
    /// # Errors
    /// If it cannot be used.
    pub async fn connect(&self) -> Result<Connection, Error> {
        self.open(self.address()).await
    }

    /// As [`Source::connect`], to post statements.
    ///
    /// # Errors
    /// Also if credentials or a CA were given, and the connection would be in clear text.
    pub(crate) async fn connect_to_post(&self) -> Result<Connection, Error> {
        if self.secured && !self.address().tls {
            return Err(Error::ClearText(self.address().clone()));
        }
        self.connect().await
    }

    /// Asks brokers in turn, the last good one first, until one has an answer; each for so long.
    ///
    /// # Errors
    /// The last one's, with its address.
    pub async fn any<T>(
        &mut self,
        each: Duration,
        ask: impl AsyncFn(Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.in_turn(each, async |source: &Self| {
            ask(source.connect().await?).await
        })
        .await
    }

    /// The same before there is a connection.
    pub(crate) async fn in_turn<T>(
        &mut self,
        each: Duration,
        ask: impl AsyncFn(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut failed = Error::NoBroker;
        for _ in 0..self.brokers.len() {
            match timeout(each, ask(self))
                .await
                .unwrap_or(Err(Error::Silent(each)))
            {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = self.passed_over(error),
            }
            self.turn();
        }
        Err(failed)
    }

    /// The error of the broker that is first now. It is said, if there are others: it would stay
    /// unknown where the next one can be used.
    pub(crate) fn passed_over(&self, error: Error) -> Error {
        let address = self.address();
        if self.brokers.len() > 1 {
            tracing::warn!(broker = %address, error = explain(&error), "this broker cannot be used; the next one is asked");
        }
        error.at(address)
    }

    async fn open(&self, address: &Address) -> Result<Connection, Error> {
        let mut connection = Connection::open(address, &self.tls)
            .await?
            .counting(self.received.clone());
        if let Some((user, password)) = &self.account {
            connection.login(user, password).await?;
        }
        Ok(connection)
    }

    /// Octets that came from all brokers so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The same with one of its brokers alone.
    pub fn each(&self) -> impl Iterator<Item = Self> + '_ {
        self.brokers.iter().map(|broker| Self {
            brokers: vec![broker.clone()],
            first: 0,
            ..self.clone()
        })
    }

    /// The broker that is first now.
    pub fn address(&self) -> &Address {
        &self.brokers[self.first]
    }

    /// Makes another broker the first.
    pub(crate) fn turn(&mut self) {
        self.first = (self.first + 1) % self.brokers.len();
    }
}

/// Pauses after failures: doubling, with full jitter, so that a fleet does not come back at once
/// (attack 59).
pub fn pauses() -> impl Iterator<Item = Duration> + Send {
    // Without a seed of its own every device of a fleet would draw the same.
    // Without randomness the process is still not the same on every machine.
    pauses_from(chance::draw().unwrap_or_else(|| std::process::id().into()))
}

/// The same from a seed: what was drawn in simulated time can be drawn again.
pub fn pauses_from(seed: u64) -> impl Iterator<Item = Duration> + Send {
    // backon adds jitter on top of its delay; drawing from the doubled range keeps the mean.
    ExponentialBuilder::default()
        .with_min_delay(RETRY_FIRST / 2)
        .with_max_delay(RETRY_LAST / 2)
        .with_jitter()
        .with_jitter_seed(seed)
        .without_max_times()
        .build()
}

/// Walks the trust log from what is known to its newest statement, each step checked by signature;
/// what was walked stays walked, also if the broker ends in a lie (attacks 11, 12 and 16).
pub(crate) async fn walk_trust(
    connection: &mut Connection,
    state: &mut State,
) -> Result<(), Error> {
    let log = state.anchor().namespace.trust_log();
    let Some((group, _)) = connection.group(&log, None).await? else {
        // A broker without the log is no help to a device that has none yet.
        return state.trust().map(drop).ok_or(Error::NoTrustLog(log));
    };
    let walked = walk(connection, state, &log, group.high).await;
    if walked.as_ref().is_ok_and(|steps| *steps > 0) || walked.is_err() {
        state.save()?;
    }
    match walked {
        // We stay with the trust before.
        Err(Error::Verify {
            serial,
            source: VerifyError::Critical { field },
            ..
        }) if state.trust().is_some() => {
            warn_of_critical(&log, serial, &field);
            Ok(())
        }
        walked => walked.map(drop),
    }
}

pub(crate) fn warn_of_critical(log: &Channel, serial: Serial, field: &str) {
    tracing::warn!(%log, %serial, field, "this trust statement needs a newer Tidings; the one before stays in force here");
}

async fn walk(
    connection: &mut Connection,
    state: &mut State,
    log: &Channel,
    high: u32,
) -> Result<u32, Error> {
    let anchored = state.anchor().head.serial.number();
    let first = state
        .trust()
        .map_or(anchored, |trust| trust.serial().number() + 1);
    let mut from = first;
    while from <= high {
        let until = high.min(from + TRUST_CHUNK - 1);
        let chunk = connection
            .articles(log, from..=until, BACKLOG_OCTETS)
            .await?;
        let refused = |(serial, source)| Error::Verify {
            channel: log.clone(),
            serial,
            source,
        };
        state
            .change(|view, now| view.take_trust(chunk, now))
            .map_err(refused)?;
        from = until + 1;
    }
    state
        .trust()
        .map(|_| from - first)
        .ok_or_else(|| Error::AnchorAhead {
            log: log.clone(),
            anchor: state.anchor().head.serial,
            high,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_59_a_fleet_that_has_lost_its_broker_does_not_come_back_at_once() {
        let mut first_tenths = [0_u32; 10];
        let mut longest = Duration::ZERO;
        for _ in 0..2_000 {
            let pauses: Vec<Duration> = pauses().take(12).collect();
            let share = (pauses[0].as_secs_f64() - RETRY_FIRST.as_secs_f64() / 2.0)
                / (RETRY_FIRST.as_secs_f64() / 2.0);
            let tenth = (0..10)
                .rev()
                .find(|tenth| share * 10.0 >= f64::from(*tenth))
                .unwrap_or(0);
            first_tenths[usize::try_from(tenth).unwrap()] += 1;
            longest = longest.max(pauses[11]);
        }
        assert!(
            first_tenths.iter().all(|n| (100..320).contains(n)),
            "{first_tenths:?}"
        );
        assert!(
            longest > RETRY_LAST / 2 && longest <= RETRY_LAST,
            "{longest:?}"
        );
    }
}
