//! The writer without its thread, for the benches (feature `bench`).

use std::{path::Path, sync::Arc, time::Duration};

use tidings_protocol::{Anchor, Statement, Verified, trust::Trust};

use super::{Copy, pending::Pending, writer::Writer};
use crate::{
    clock,
    log::{forks::Forks, logs::Logs, namespaces::Namespaces, store::Store},
    relay::watch::Watches,
};

/// A writer on a fresh store.
pub struct Appends(Writer);

impl Appends {
    /// In an empty directory, with the trust in force.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn new(directory: &Path, anchor: &Anchor, trust: Trust) -> anyhow::Result<Self> {
        let store = Store::open(directory)?;
        let logs = Arc::new(Logs::open(store.clone())?);
        let namespaces = Arc::new(Namespaces::open(std::slice::from_ref(anchor), &store)?);
        if let Some(provisioned) = namespaces.of_trust_log(&anchor.namespace.trust_log()) {
            provisioned.trust.store(Some(Arc::new(trust)));
        }
        let on_failure: crate::failure::OnFailure = Arc::new(|| ());
        let watches = Watches::start(0, 0, Duration::from_secs(60), &logs, &on_failure)?;
        let forks = Forks::open(directory.join("forks"), store.clone(), 16);
        Ok(Self(Writer {
            forks,
            store,
            logs,
            namespaces,
            watches,
            retention: Vec::new(),
            quota: Default::default(),
            gap_patience: Duration::from_secs(1),
            closed_kept: Duration::from_secs(1),
            mirrored: None,
            clustered: false,
            counts: Arc::default(),
            on_failure,
            state: Default::default(),
        }))
    }

    /// Checks each against the head, makes all of them durable at once, and shows them; how many
    /// were stored.
    pub fn append(&mut self, statements: Vec<Verified<Statement>>) -> usize {
        let (now, mut pending) = (clock::now(), Pending::default());
        for statement in statements {
            let (channel, trust) = (statement.channel().clone(), statement.trust());
            let copy = trust.map(|by| Copy::proven(statement, by, "bench.invalid".into()));
            let _ = copy.map(|copy| self.0.append(&mut pending, now, &channel, copy));
        }
        let stored = pending.inserted.len();
        self.0.commit(pending, now);
        stored
    }
}
