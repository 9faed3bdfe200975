//! Settles what is asked of one group: all requests that wait are decided together, and kept with
//! one write. A decision counts when what it was made from is still what is kept; otherwise it is
//! made again.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tidings_protocol::slot::SlotName;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use super::{
    SlotError,
    group::{Answer, Ask, Asker, Group},
    held::Held,
    store::SlotStore,
};
use crate::{
    config::{Rules, SlotGroup},
    limits::{SLOT_QUEUE, SLOT_RACES, SLOT_SWEEP},
};

type Answered = Result<Answer, SlotError>;

/// One request, and where its answer goes.
pub(super) struct Request {
    node: String,
    by: String,
    ask: Ask,
    answer: oneshot::Sender<Answered>,
}

impl Request {
    pub(super) fn new(asker: Asker<'_>, ask: Ask) -> (Self, oneshot::Receiver<Answered>) {
        let (answer, receiver) = oneshot::channel();
        let request = Self {
            node: asker.node.into(),
            by: asker.by.into(),
            ask,
            answer,
        };
        (request, receiver)
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            node: &self.node,
            by: &self.by,
        }
    }

    /// Answers. A client that is gone does not know that it has a slot, or a place: it does not go
    /// down, and does not wait, and this takes it back.
    fn answer(self, answer: Answered) -> Option<Self> {
        let back = match (self.answer.send(answer).err()?, self.ask) {
            (Ok(Answer::Yours { token, first, .. }), _) if first => {
                Ask::Free { token: Some(token) }
            }
            (Ok(Answer::Wait { .. }), Ask::Take { nonce, .. }) => Ask::Leave { nonce },
            _ => return None,
        };
        let asker = Asker {
            node: &self.node,
            by: &self.by,
        };
        Some(Self::new(asker, back).0)
    }
}

/// Settles the requests of one group.
pub(super) struct Worker {
    name: SlotName,
    rules: Rules,
    store: Arc<SlotStore>,
    requests: mpsc::Receiver<Request>,
    state: watch::Sender<Arc<Group>>,
    held: Arc<Held>,
    /// Another broker has changed the group, perhaps.
    changed: Arc<Notify>,
    renewed: Instant,
}

impl Worker {
    pub(super) fn new(
        group: &SlotGroup,
        store: Arc<SlotStore>,
        requests: mpsc::Receiver<Request>,
        state: watch::Sender<Arc<Group>>,
        held: Arc<Held>,
    ) -> Self {
        Self {
            name: group.name.clone(),
            rules: group.rules,
            changed: store.changes(&group.name),
            store,
            requests,
            state,
            held,
            renewed: Instant::now(),
        }
    }

    /// For ever. Leases run out, and places are kept, also when nothing is asked.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    _ = self.requests.recv_many(&mut batch, SLOT_QUEUE) => {}
                    // Only those who wait have to know at once.
                    () = self.changed.notified(), if !self.held.is_empty() => {}
                    () = sleep(SLOT_SWEEP) => {}
                }
            }
            let answers = self.settle(&batch).await;
            if let (Err(error), true) = (&answers, batch.is_empty()) {
                tracing::debug!(group = %self.name, %error, "leases were not looked at");
            }
            let mut unheard = Vec::new();
            for (at, request) in batch.drain(..).enumerate() {
                let answer = answers.as_ref().map(|answers| answers[at]);
                unheard.extend(request.answer(answer.map_err(Clone::clone)));
            }
            batch = unheard;
        }
    }

    async fn settle(&mut self, batch: &[Request]) -> Result<Vec<Answer>, SlotError> {
        for race in 0..SLOT_RACES {
            // What is told of now, is read.
            let _ = self.changed.notified().now_or_never();
            let (mut group, version) = read(&self.store, &self.name).await?;
            let (before, now) = (group.clone(), self.store.now()?);
            group.advance(self.rules, now);
            let is_due = self.renewed.elapsed() >= SLOT_SWEEP;
            if is_due {
                self.held.renew(&mut group, now.seconds());
            }
            let decide =
                |request: &Request| group.answer(self.rules, now, request.asker(), request.ask);
            let answers = batch.iter().map(decide).collect();
            if group == before || self.replace(&group, version).await? {
                if is_due {
                    self.renewed = Instant::now();
                }
                self.tell(&before, group);
                return Ok(answers);
            }
            // Another broker was quicker; they take turns sooner if they do not all come back at
            // once.
            let jitter = RandomState::new().build_hasher().finish() % (1 + 4 * race);
            sleep(Duration::from_millis(jitter)).await;
        }
        Err(SlotError::Crowded(self.name.clone()))
    }

    async fn replace(&self, group: &Group, version: Option<i32>) -> Result<bool, SlotError> {
        let data = serde_json::to_vec(group).map_err(|_| SlotError::Damaged(self.name.clone()))?;
        Ok(self.store.replace(&self.name, &data, version).await?)
    }

    /// Tells operators what has failed, and those who wait how the group stands.
    fn tell(&self, before: &Group, group: Group) {
        for failure in group
            .failed
            .iter()
            .filter(|failure| !before.failed.contains(failure) && failure.returned.is_none())
        {
            tracing::error!(group = %self.name, node = failure.node, "a node has not come back within its lease: it counts as failed until an operator has looked at it");
        }
        self.state.send_if_modified(|known| {
            let is_new = **known != group;
            *known = Arc::new(group);
            is_new
        });
    }
}

/// What is kept of a group, and its version.
pub(super) async fn read(
    store: &SlotStore,
    name: &SlotName,
) -> Result<(Group, Option<i32>), SlotError> {
    match store.read(name).await? {
        Some((data, version)) => {
            let group =
                serde_json::from_slice(&data).map_err(|_| SlotError::Damaged(name.clone()))?;
            Ok((group, Some(version)))
        }
        None => Ok((Group::default(), None)),
    }
}
