//! The requests of one group that are held here until their turn comes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    group::{Ask, Asker, Group},
    worker::Request,
};

/// The nonce of each, by its node; of several of one node, that of the last.
pub(super) struct Held {
    nodes: Mutex<HashMap<String, u32>>,
    requests: mpsc::Sender<Request>,
}

impl Held {
    pub(super) fn new(requests: mpsc::Sender<Request>) -> Self {
        Self {
            nodes: Mutex::default(),
            requests,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, for as long as what is returned is kept.
    pub(super) fn enter(self: &Arc<Self>, node: &str, nonce: u32) -> Place {
        self.lock().insert(node.into(), nonce);
        Place {
            held: self.clone(),
            node: node.into(),
            nonce,
            answered: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Those who wait keep their places.
    pub(super) fn renew(&self, group: &mut Group, now: u64) {
        let nodes = self.lock();
        nodes
            .iter()
            .for_each(|(node, nonce)| group.keep(now, node, *nonce));
    }
}

/// A request that is held. One that is given up before it was answered gives its place up, at once.
pub(super) struct Place {
    held: Arc<Held>,
    node: String,
    nonce: u32,
    answered: bool,
}

impl Place {
    /// It gets its answer.
    pub(super) fn answer(&mut self) {
        self.answered = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (node, nonce) = (self.node.as_str(), self.nonce);
        let mut nodes = self.held.lock();
        if nodes.get(node) == Some(&nonce) {
            nodes.remove(node);
        }
        drop(nodes);
        if !self.answered {
            let (gone, _) = Request::new(Asker { node, by: "" }, Ask::Leave { nonce });
            // If there is no room for it, the place ends by itself soon.
            let _ = self.held.requests.try_send(gone);
        }
    }
}
