//! Where groups of slots are kept: compare, and set.

use std::sync::Arc;

use tidings_protocol::{Timestamp, slot::SlotName};
use tokio::{sync::Notify, time::Instant};

use crate::{
    clock,
    cluster::Cluster,
    log::{append::AppendError, store::Store},
};

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

/// One machine, or a cluster; the same tests for both (`tests/tests/system/slots.rs`).
pub(crate) enum SlotStore {
    Local(Local),
    Cluster(Arc<Cluster>),
    #[cfg(test)]
    Memory(super::tests::Memory),
}

impl SlotStore {
    /// The cluster's, or that of this machine's store.
    pub(crate) fn of(cluster: Option<&Arc<Cluster>>, store: &Store) -> Self {
        match cluster {
            Some(cluster) => Self::Cluster(cluster.clone()),
            None => Self::Local(Local::new(store.clone())),
        }
    }

    /// What is kept, and its version.
    pub(crate) async fn read(
        &self,
        group: &SlotName,
    ) -> Result<Option<(Vec<u8>, i32)>, AppendError> {
        match self {
            SlotStore::Local(local) => local
                .store
                .slots(group.as_str())
                .map_err(|_| AppendError::Store),
            SlotStore::Cluster(cluster) => cluster.slots(group.as_str()).await,
            #[cfg(test)]
            SlotStore::Memory(memory) => Ok(memory.read(group).await),
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
            SlotStore::Local(local) => {
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
            SlotStore::Cluster(cluster) => cluster.set_slots(group.as_str(), data, after).await,
            #[cfg(test)]
            SlotStore::Memory(memory) => Ok(memory.replace(group, data, after).await),
        }
    }

    /// The time that all who decide share.
    pub(crate) fn now(&self) -> Result<Timestamp, AppendError> {
        match self {
            SlotStore::Local(Local {
                began: (at, time), ..
            }) => Ok(time.plus(at.elapsed().as_secs())),
            // Its own clock may be wrong, and would fail everybody's nodes.
            SlotStore::Cluster(cluster) => cluster.now().ok_or(AppendError::NoQuorum),
            #[cfg(test)]
            SlotStore::Memory(memory) => Ok(memory.now()),
        }
    }

    /// Told when a group was changed, perhaps, by this broker or another one; on one machine it
    /// does not have to be.
    pub(crate) fn changes(&self, group: &SlotName) -> Arc<Notify> {
        match self {
            SlotStore::Local(_) => Arc::default(),
            SlotStore::Cluster(cluster) => cluster.slot_changes(group.as_str()),
            #[cfg(test)]
            SlotStore::Memory(memory) => memory.changes(group),
        }
    }
}
