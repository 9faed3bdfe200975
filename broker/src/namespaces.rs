//! The namespaces that this broker is provisioned with, and the trust in force in each.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tidings_protocol::{Anchor, Channel, Namespace, Statement, trust::Trust, verify::VerifyError};

use crate::store::{Store, StoreError};

/// Why a namespace cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The store has a trust log that begins otherwise.
    #[error("the anchor of {0} is not the one whose trust log is stored here; correct the anchor, or use another data directory")]
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
}

impl Provisioned {
    /// The trust that a statement of the trust log would bring into force.
    pub(crate) fn advance(&self, statement: Statement) -> Result<Trust, VerifyError> {
        match &*self.trust.load() {
            None => Trust::first(&self.anchor, statement),
            Some(trust) => trust.succeed(statement),
        }
    }
}

pub(crate) struct Namespaces(Vec<Provisioned>);

impl Namespaces {
    pub(crate) fn open(anchors: &[Anchor], store: &Store) -> Result<Self, NamespaceError> {
        let marks = store.channels()?;
        let open = |anchor: &Anchor| {
            let log = anchor.namespace.trust_log();
            let Some((_, marks)) = marks.iter().find(|(channel, _)| *channel == log) else {
                return Ok(Provisioned { anchor: anchor.clone(), trust: ArcSwapOption::empty() });
            };
            let missing = || StoreError::Damaged(log.to_string());
            let first = store.get(&log, anchor.head.serial)?.ok_or_else(missing)?;
            if first.statement.id() != anchor.head.id {
                return Err(NamespaceError::OtherAnchor(anchor.namespace.clone()));
            }
            let newest = store.get(&log, marks.head.serial)?.ok_or_else(missing)?;
            let trust = Trust::resume(&anchor.namespace, newest.statement)
                .map_err(|source| NamespaceError::Trust { namespace: anchor.namespace.clone(), source })?;
            Ok(Provisioned { anchor: anchor.clone(), trust: ArcSwapOption::from_pointee(trust) })
        };
        anchors.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// The namespace that a channel belongs to.
    pub(crate) fn of(&self, channel: &Channel) -> Option<&Provisioned> {
        let namespace = Namespace::longest(self.0.iter().map(|p| &p.anchor.namespace), channel)?;
        self.0.iter().find(|p| p.anchor.namespace == *namespace)
    }

    /// The namespace of a channel, if it is that namespace's trust log.
    pub(crate) fn of_trust_log(&self, channel: &Channel) -> Option<&Provisioned> {
        self.of(channel).filter(|p| p.anchor.namespace.trust_log() == *channel)
    }

    /// The trust in force for a channel.
    pub(crate) fn trust(&self, channel: &Channel) -> Option<Arc<Trust>> {
        self.of(channel)?.trust.load_full()
    }
}
