//! The namespaces that this broker is provisioned with, and the trust in force in each.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use tidings_protocol::{
    Anchor, Channel, Namespace, PublicKey, Statement, Timestamp, limits::FUTURE_SECONDS,
    trust::Trust, verify::VerifyError,
};

use crate::log::{
    append::AppendError,
    store::{Store, StoreError},
};

/// Why a namespace cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The store has a trust log that begins otherwise.
    #[error(
        "the anchor of {0} is not the one whose trust log is stored here; correct the anchor, or use another data directory"
    )]
    OtherAnchor(Namespace),
    /// The stored trust cannot be taken up.
    #[error("the stored trust of {namespace} cannot be used: {source}")]
    Trust {
        /// The namespace.
        namespace: Namespace,
        /// Why.
        source: VerifyError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) struct Provisioned {
    pub(crate) anchor: Anchor,
    pub(crate) trust: ArcSwapOption<Trust>,
    /// The latest time of the trust in force and of the beats.
    signed: AtomicU64,
}

impl Provisioned {
    fn new(anchor: &Anchor, trust: Option<Trust>) -> Self {
        let signed = trust
            .as_ref()
            .map_or(0, |trust| trust.statement().time().seconds());
        Self {
            anchor: anchor.clone(),
            trust: ArcSwapOption::from_pointee(trust),
            signed: AtomicU64::new(signed),
        }
    }

    /// The trust that a statement of the trust log would bring into force.
    pub(crate) fn advance(&self, statement: Statement) -> Result<Trust, VerifyError> {
        match &*self.trust.load() {
            None => Trust::first(&self.anchor, statement),
            Some(trust) => trust.succeed(statement),
        }
    }

    /// Of the signatures of a trust statement those that count for the trust role of the one
    /// before, or for its own.
    pub(crate) fn with_what_counts(&self, statement: Statement) -> Statement {
        let (in_force, next) = (self.trust.load_full(), self.advance(statement.clone()));
        let Ok(next) = next else { return statement };
        let counts = |key: &PublicKey| {
            in_force
                .as_ref()
                .is_some_and(|trust| trust.counts(&statement, key))
                || next.counts(&statement, key)
        };
        statement.with_signatures(counts)
    }

    /// Takes note of a time that was signed by the trust role, or in a proven beat.
    pub(crate) fn note_signed(&self, time: Timestamp) {
        self.signed.fetch_max(time.seconds(), Ordering::Relaxed);
    }

    /// The latest time of a statement that is taken by its own signatures; none while the clock is
    /// so far behind what was signed that it is none.
    pub(crate) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = now.plus(FUTURE_SECONDS);
        (until.seconds() >= self.signed.load(Ordering::Relaxed)).then_some(until)
    }

    /// *What is of the future is not taken*, unless what follows it or a checkpoint vouches for it.
    pub(crate) fn check_time(&self, time: Timestamp, clock: Timestamp) -> Result<(), AppendError> {
        match self.until(clock).is_some_and(|until| time > until) {
            true => Err(AppendError::Future { time, clock }),
            false => Ok(()),
        }
    }
}

pub(crate) struct Namespaces(Vec<Provisioned>);

impl Namespaces {
    pub(crate) fn open(anchors: &[Anchor], store: &Store) -> Result<Self, NamespaceError> {
        let marks = store.channels()?;
        let open = |anchor: &Anchor| {
            let log = anchor.namespace.trust_log();
            let Some((_, log_marks)) = marks.iter().find(|(channel, _)| *channel == log) else {
                return Ok(Provisioned::new(anchor, None));
            };
            let missing = || StoreError::Damaged(log.to_string());
            let first = store.get(&log, anchor.head.serial)?;
            if first.is_none_or(|first| first.statement.head() != anchor.head) {
                return Err(NamespaceError::OtherAnchor(anchor.namespace.clone()));
            }
            let newest = store
                .get(&log, log_marks.head.serial)?
                .ok_or_else(missing)?;
            let mut trust =
                Trust::resume(&anchor.namespace, newest.statement).map_err(|source| {
                    NamespaceError::Trust {
                        namespace: anchor.namespace.clone(),
                        source,
                    }
                })?;
            let named: Vec<_> = trust
                .missing_beats()
                .map(|(channel, head)| (channel.clone(), head))
                .collect();
            for (channel, head) in named {
                store
                    .get(&channel, head.serial)?
                    .map(|record| trust.take_settled_beat(record.statement));
            }
            let provisioned = Provisioned::new(anchor, Some(trust));
            let is_of = |channel: &Channel| {
                let all = anchors.iter().map(|anchor| &anchor.namespace);
                Namespace::longest(all, channel) == Some(&anchor.namespace)
            };
            for (channel, marks) in marks
                .iter()
                .filter(|(channel, _)| channel.is_beat() && is_of(channel))
            {
                store
                    .get(channel, marks.head.serial)?
                    .inspect(|record| provisioned.note_signed(record.statement.time()));
            }
            Ok(provisioned)
        };
        anchors.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Provisioned> {
        self.0.iter()
    }

    /// The namespace that a channel belongs to.
    pub(crate) fn of(&self, channel: &Channel) -> Option<&Provisioned> {
        let namespace = Namespace::longest(self.0.iter().map(|p| &p.anchor.namespace), channel)?;
        self.0.iter().find(|p| p.anchor.namespace == *namespace)
    }

    /// Whether a channel belongs to this namespace, and not to one below it that is known here too.
    pub(crate) fn is_of(&self, channel: &Channel, namespace: &Namespace) -> bool {
        self.of(channel)
            .is_some_and(|p| p.anchor.namespace == *namespace)
    }

    /// The namespace of a channel, if it is that namespace's trust log.
    pub(crate) fn of_trust_log(&self, channel: &Channel) -> Option<&Provisioned> {
        self.of(channel)
            .filter(|p| p.anchor.namespace.trust_log() == *channel)
    }

    /// The trust in force for a channel.
    pub(crate) fn trust(&self, channel: &Channel) -> Option<Arc<Trust>> {
        self.of(channel)?.trust.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_belongs_to_the_namespace_that_names_most_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let anchor = |namespace: &str| -> Anchor {
            let line = format!("{namespace} 1 sha256:{}", "0".repeat(64));
            line.parse().unwrap()
        };
        let namespaces = Namespaces::open(&[anchor("acme"), anchor("acme.lab")], &store).unwrap();
        let is_of = |channel: &str, namespace: &str| {
            namespaces.is_of(&channel.parse().unwrap(), &namespace.parse().unwrap())
        };
        assert!(is_of("acme.os.stable", "acme") && is_of("acme.lab.stable", "acme.lab"));
        assert!(!is_of("acme.lab.stable", "acme") && !is_of("acme.os.stable", "acme.lab"));
        assert!(is_of("acme.trust", "acme") && !is_of("acme.lab.trust", "acme"));
        assert!(!is_of("other.os", "acme"));
    }
}
