//! Who is told that a group of slots was changed: by this member or by another one.
//!
//! A watch tells it. What it does not tell, since the connection was broken, is made good by
//! telling everybody when it is whole again: they look for themselves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::{sync::Notify, time::sleep};

use super::{Tree, TreeError, lock, session::Event};
use crate::limits::CLUSTER_RETRY;

/// By the name of the group.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<Notify>>>);

impl Turns {
    /// What is told when a group was changed, perhaps.
    pub(super) fn of(&self, group: &str) -> Arc<Notify> {
        lock(&self.0).entry(group.into()).or_default().clone()
    }

    /// Tells of changes until the session ends.
    pub(super) async fn tell(&self, tree: &Tree) -> Result<(), TreeError> {
        loop {
            match self.tell_while_connected(tree).await {
                Err(TreeError::Session(error)) if !tree.has_ended() => {
                    tracing::debug!(%error, "groups of slots are not watched");
                    sleep(CLUSTER_RETRY).await;
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
    }

    /// zookeeper-client 0.11 does not set persistent watches anew on another connection.
    async fn tell_while_connected(&self, tree: &Tree) -> Result<(), TreeError> {
        let mut events = tree.watch_slots().await?;
        lock(&self.0).values().for_each(|group| group.notify_one());
        loop {
            match events.next().await {
                Event::Made(path) | Event::Changed(path) | Event::Gone(path) => {
                    let group = path.strip_prefix("/slots/");
                    if let Some(group) = group.and_then(|group| lock(&self.0).get(group).cloned()) {
                        group.notify_one();
                    }
                }
                Event::Connected => return Ok(()),
                Event::Broken => {}
                Event::Ended => return Err(TreeError::Ended),
            }
        }
    }
}
