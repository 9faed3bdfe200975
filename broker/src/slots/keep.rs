//! Where groups of slots are kept: compare, and set.

use std::{sync::Arc, time::Instant};

use tidings_protocol::{Timestamp, slot::SlotName};

use crate::{append::AppendError, clock, cluster::Cluster, store::Store};

/// On one machine.
pub(crate) struct Local {
    store: Store,
    /// What the clock showed at the start: that it is set afterwards ends nobody's lease.
    began: (Instant, Timestamp),
}

impl Local {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            began: (Instant::now(), clock::now()),
        }
    }
}

/// One machine, or a cluster; the same tests for both (`tests/tests/slots.rs`).
pub(crate) enum Keep {
    Local(Local),
    Cluster(Arc<Cluster>),
}

impl Keep {
    /// What is kept, and its version.
    pub(crate) async fn read(
        &self,
        group: &SlotName,
    ) -> Result<Option<(Vec<u8>, i32)>, AppendError> {
        match self {
            Keep::Local(local) => local
                .store
                .slots(group.as_str())
                .map_err(|_| AppendError::Store),
            Keep::Cluster(cluster) => cluster.slots(group.as_str()).await,
        }
    }

    /// Keeps something else, durably, if what was read is still what is kept; whether it was.
    pub(crate) async fn replace(
        &self,
        group: &SlotName,
        data: &[u8],
        after: Option<i32>,
    ) -> Result<bool, AppendError> {
        match self {
            Keep::Local(local) => {
                if let Some(missing) = local
                    .store
                    .missing_octets()
                    .map_err(|_| AppendError::Store)?
                {
                    return Err(AppendError::DiskFull(missing));
                }
                let (store, group, data) = (local.store.clone(), group.clone(), data.to_vec());
                let set = tokio::task::spawn_blocking(move || {
                    store.set_slots(group.as_str(), &data, after)
                })
                .await;
                set.map_err(|_| AppendError::Closed)?
                    .map_err(|_| AppendError::Store)
            }
            Keep::Cluster(cluster) => cluster.set_slots(group.as_str(), data, after).await,
        }
    }

    /// The time that all who decide share.
    pub(crate) fn now(&self) -> Result<Timestamp, AppendError> {
        match self {
            Keep::Local(Local {
                began: (at, time), ..
            }) => Ok(time.plus(at.elapsed().as_secs())),
            // Its own clock may be wrong, and would fail everybody's nodes.
            Keep::Cluster(cluster) => cluster.now().ok_or(AppendError::NoQuorum),
        }
    }
}
