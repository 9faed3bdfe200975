//! Where groups of slots are kept: compare, and set.

use std::sync::Arc;

use tidings_protocol::{Timestamp, slot::SlotName};

use crate::{append::AppendError, clock, cluster::Cluster, store::Store};

/// One machine, or a cluster; the same tests for both (`tests/tests/slots.rs`).
pub(crate) enum Keep {
    Local(Store),
    Cluster(Arc<Cluster>),
}

impl Keep {
    /// What is kept, and its version.
    pub(crate) async fn read(&self, group: &SlotName) -> Result<Option<(Vec<u8>, i32)>, AppendError> {
        match self {
            Keep::Local(store) => store.slots(group.as_str()).map_err(|_| AppendError::Store),
            Keep::Cluster(cluster) => cluster.slots(group.as_str()).await,
        }
    }

    /// Keeps something else, durably, if what was read is still what is kept; whether it was.
    pub(crate) async fn replace(&self, group: &SlotName, data: &[u8], after: Option<i32>) -> Result<bool, AppendError> {
        match self {
            Keep::Local(store) => {
                let (store, group, data) = (store.clone(), group.clone(), data.to_vec());
                let set = tokio::task::spawn_blocking(move || store.set_slots(group.as_str(), &data, after)).await;
                set.map_err(|_| AppendError::Closed)?.map_err(|_| AppendError::Store)
            }
            Keep::Cluster(cluster) => cluster.set_slots(group.as_str(), data, after).await,
        }
    }

    /// The time that all who decide share.
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Keep::Local(_) => clock::now(),
            Keep::Cluster(cluster) => cluster.now(),
        }
    }
}
