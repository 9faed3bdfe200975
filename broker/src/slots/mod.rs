//! Slots: how many machines of a group may be down at once (spec part 6).
//!
//! `group` decides, `worker.rs` settles what is asked, and `store.rs` keeps it: in the store of
//! this broker, or in its cluster's tree. A request that is held waits here for its turn.

mod group;
mod held;
mod store;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(feature = "bench")]
pub mod turns;
mod worker;

use std::{sync::Arc, time::Duration};

use tidings_protocol::{Serial, slot::SlotName};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use group::{Answer, Ask, Asker, Group, Lost};
pub(crate) use store::SlotStore;

use crate::{
    config::SlotGroup,
    limits::{SLOT_PAUSE, SLOT_QUEUE, SLOT_RETAKE_PAUSE},
    log::append::AppendError,
};
use held::{Held, Place};
use worker::{Request, Worker};

/// Why nothing was decided.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("there is no group {0} here")]
    NoGroup(SlotName),
    #[error(
        "what is kept of {0} cannot be read; somebody has written there by hand, or a newer version"
    )]
    Damaged(SlotName),
    #[error("the operating system's random number generator failed")]
    Random,
    #[error("too many brokers change {0} at once")]
    Crowded(SlotName),
    #[error(transparent)]
    Store(#[from] AppendError),
}

/// One group: what is configured, where it is asked, and how it stands.
struct Entry {
    group: SlotGroup,
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<Arc<Group>>,
    held: Arc<Held>,
}

impl Entry {
    async fn ask(&self, asker: Asker<'_>, ask: Ask) -> Result<Answer, SlotError> {
        let (request, answer) = Request::new(asker, ask);
        let closed = || SlotError::from(AppendError::Closed);
        self.requests.send(request).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// All groups of this broker.
pub(crate) struct Slots {
    groups: Vec<Entry>,
    store: Arc<SlotStore>,
}

impl Slots {
    /// Begins to settle requests, until it is told to stop.
    pub(crate) fn start(
        groups: Vec<SlotGroup>,
        store: SlotStore,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let store = Arc::new(store);
        let groups = groups.into_iter().map(|group| {
            if group.takers.is_none() && !group.certificate {
                tracing::warn!(group = %group.name, "every client that reaches this broker may take slots of this group: restrict it with takers or certificate");
            }
            if group.operators.is_empty() {
                tracing::warn!(group = %group.name, "no client may clear what fails in this group: name some with operators");
            }
            let (requests, queue) = mpsc::channel(SLOT_QUEUE);
            let (publish, state) = watch::channel(Arc::default());
            let held = Arc::new(Held::new(requests.clone()));
            let worker = Worker::new(&group, store.clone(), queue, publish, held.clone());
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled_owned(worker.run()).await });
            Entry { group, requests, state, held }
        });
        Self {
            groups: groups.collect(),
            store,
        }
    }

    /// What the configuration says of a group.
    pub(crate) fn rules(&self, group: &SlotName) -> Result<&SlotGroup, SlotError> {
        self.find(group).map(|entry| &entry.group)
    }

    fn find(&self, group: &SlotName) -> Result<&Entry, SlotError> {
        self.groups
            .iter()
            .find(|entry| entry.group.name == *group)
            .ok_or_else(|| SlotError::NoGroup(group.clone()))
    }

    /// All groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &SlotGroup> {
        self.groups.iter().map(|entry| &entry.group)
    }

    /// A slot for a node, as soon as its turn comes within `wait`. If the caller gives up before,
    /// the node does not wait any more.
    pub(crate) async fn take(
        &self,
        group: &SlotName,
        asker: Asker<'_>,
        serial: Option<Serial>,
        wait: Duration,
    ) -> Result<Answer, SlotError> {
        let entry = self.find(group)?;
        let (rules, held) = (entry.group.rules, !wait.is_zero());
        let begun = Instant::now();
        let (until, mut state) = (begun + wait, entry.state.clone());
        // It makes the token one that cannot be guessed.
        let nonce = getrandom::u32().map_err(|_| SlotError::Random)?;
        // It counts as held before it is asked: nothing that changes afterwards is overlooked.
        let mut place = held.then(|| entry.held.enter(asker.node, nonce));
        let mut again = false;
        loop {
            let ask = Ask::Take {
                serial,
                held,
                again,
                nonce,
            };
            let answer = entry.ask(asker, ask).await?;
            let Some(place) = place
                .as_mut()
                .filter(|_| matches!(answer, Answer::Wait { .. }))
            else {
                place.iter_mut().for_each(Place::answer);
                match answer {
                    Answer::Yours { first: true, .. } => {}
                    Answer::Yours { .. } => sleep_until(begun + SLOT_RETAKE_PAUSE).await,
                    _ => sleep_until(begun + SLOT_PAUSE).await,
                }
                return Ok(answer);
            };
            again = true;
            let due = state.wait_for(|state| state.is_due(rules, asker.node));
            match timeout_at(until, due).await.map(|due| due.map(drop)) {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(AppendError::Closed.into()),
                // It keeps its place for a moment: it will ask again.
                Err(_) => {
                    place.answer();
                    let before = state.borrow().position(rules, asker.node);
                    return Ok(Answer::Wait { before });
                }
            }
        }
    }

    /// Everything else. Each request may be a write: a client that asks without end waits for
    /// itself.
    pub(crate) async fn ask(
        &self,
        group: &SlotName,
        asker: Asker<'_>,
        ask: Ask,
    ) -> Result<Answer, SlotError> {
        let begun = Instant::now();
        let answer = self.find(group)?.ask(asker, ask).await;
        sleep_until(begun + SLOT_PAUSE).await;
        answer
    }

    /// How a group stands.
    pub(crate) async fn look(&self, group: &SlotName) -> Result<Arc<Group>, SlotError> {
        let entry = self.find(group)?;
        entry.ask(Asker { node: "", by: "" }, Ask::Look).await?;
        let state = entry.state.borrow().clone();
        Ok(state)
    }

    /// How a group was when it was last changed.
    pub(crate) async fn read(&self, name: &SlotName) -> Result<Group, SlotError> {
        worker::read(&self.store, name)
            .await
            .map(|(group, _)| group)
    }
}
