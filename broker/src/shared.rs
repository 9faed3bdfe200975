//! What every session works with.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    append::Appender, config::Settings, connections::Connections, logs::Logs, mirror::Mirror, namespaces::Namespaces, watch::Watches,
};

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) logs: Arc<Logs>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) appender: Appender,
    pub(crate) mirror: Option<Arc<Mirror>>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}
