//! What every session works with.

use std::sync::Arc;

use tidings_protocol::Timestamp;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::counts::Counts,
    cluster::Cluster,
    config::Settings,
    log::{append::Appender, forks::Forked, logs::Logs, namespaces::Namespaces, store::Store},
    net::{connections::Connections, identity::Identity},
    origin::Origin,
    relay::{mirror::Mirror, watch::Watches},
    slots::Slots,
};

pub(crate) struct Shared {
    pub(crate) started: Timestamp,
    pub(crate) settings: Settings,
    /// Certificates, keys and passwords.
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) logs: Arc<Logs>,
    pub(crate) namespaces: Arc<Namespaces>,
    /// The writer: takes what other brokers have settled.
    pub(crate) appender: Appender,
    /// Where what is new is settled.
    pub(crate) origin: Arc<dyn Origin>,
    /// Those who are one origin with this broker.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// Groups of machines that take turns going down.
    pub(crate) slots: Arc<Slots>,
    /// The upstreams of a mirror.
    pub(crate) mirror: Option<Arc<Mirror>>,
    /// Channels of which there is evidence of a fork.
    pub(crate) forked: Forked,
    pub(crate) watches: Arc<Watches>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// Goes on with something beside, until it ends by itself.
    pub(crate) fn spawn(&self, run: impl Future<Output = ()> + Send + 'static) {
        #[cfg(test)]
        let run = tidings_client::simulated::here(run);
        drop(self.tasks.spawn(run));
    }
}
