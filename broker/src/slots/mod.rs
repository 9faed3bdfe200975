//! Slots: how many machines of a group may be down at once (spec part 6).
//!
//! `group.rs` decides, `keep.rs` keeps: in the store of this broker, or in its cluster's tree. A
//! decision counts when what it was made from is still what is kept; otherwise it is made again.

mod group;
mod keep;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use tidings_protocol::{Serial, Timestamp, slot::SlotName};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) use group::{Answer, Asker, Event, Group, Lost};
pub(crate) use keep::{Keep, Local};

use crate::{
    append::AppendError,
    config::{Rules, SlotGroup},
    limits::{
        SLOT_AGAIN, SLOT_FLEETLOCK_PATIENCE, SLOT_PATIENCE, SLOT_PAUSE, SLOT_RACES, SLOT_SWEEP,
    },
    origin::Origin,
};

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("there is no group {0} here")]
    NoGroup(SlotName),
    #[error(
        "what is kept of {0} cannot be read; somebody has written there by hand, or a newer version"
    )]
    Damaged(SlotName),
    #[error("the system has no random numbers")]
    Random,
    #[error("too many ask at once")]
    Crowded,
    #[error(transparent)]
    Keep(#[from] AppendError),
}

/// All groups of this broker.
pub(crate) struct Slots {
    /// Each with the turn of those who change it: they would only make each other try again.
    groups: Vec<(SlotGroup, Mutex<()>)>,
    keep: Keep,
}

impl Slots {
    pub(crate) fn new(groups: Vec<SlotGroup>, keep: Keep) -> Self {
        for group in groups
            .iter()
            .filter(|group| group.takers.is_none() && !group.certificate)
        {
            tracing::warn!(group = %group.name, "everybody who reaches this broker may take slots of this group: say who, with takers or certificate");
        }
        for group in groups.iter().filter(|group| group.operators.is_empty()) {
            tracing::warn!(group = %group.name, "nobody may clear what fails in this group: say who, with operators");
        }
        Self {
            groups: groups
                .into_iter()
                .map(|group| (group, Mutex::default()))
                .collect(),
            keep,
        }
    }

    /// What the configuration says of a group.
    pub(crate) fn rules(&self, group: &SlotName) -> Result<&SlotGroup, SlotError> {
        self.find(group).map(|(group, _)| group)
    }

    fn find(&self, group: &SlotName) -> Result<&(SlotGroup, Mutex<()>), SlotError> {
        self.groups
            .iter()
            .find(|(known, _)| known.name == *group)
            .ok_or_else(|| SlotError::NoGroup(group.clone()))
    }

    /// All groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &SlotGroup> {
        self.groups.iter().map(|(group, _)| group)
    }

    /// A slot for a node.
    pub(crate) async fn take(
        &self,
        group: &SlotName,
        asker: Asker<'_>,
        serial: Option<Serial>,
    ) -> Result<Answer, SlotError> {
        let patience = if serial.is_some() {
            SLOT_PATIENCE
        } else {
            SLOT_FLEETLOCK_PATIENCE
        };
        let nonce = nonce()?;
        self.ask(group, |state, rules, now| {
            state.take(rules, now, asker, serial, patience.as_secs(), nonce)
        })
        .await
    }

    /// Whether a token counts.
    pub(crate) async fn hold(
        &self,
        group: &SlotName,
        asker: Asker<'_>,
        token: u64,
    ) -> Result<Answer, SlotError> {
        self.ask(group, |state, rules, now| {
            state.hold(rules, now, asker, token)
        })
        .await
    }

    /// A node is back.
    pub(crate) async fn free(
        &self,
        group: &SlotName,
        asker: Asker<'_>,
        token: Option<u64>,
    ) -> Result<Answer, SlotError> {
        self.ask(group, |state, rules, now| {
            state.free(rules, now, asker, token)
        })
        .await
    }

    /// An operator has looked at a node.
    pub(crate) async fn clear(&self, group: &SlotName, node: &str) -> Result<Answer, SlotError> {
        self.ask(group, |state, rules, now| state.clear(rules, now, node))
            .await
    }

    /// Each request may be a write; who asks without end, however, waits for himself.
    async fn ask(
        &self,
        name: &SlotName,
        decide: impl Fn(&mut Group, Rules, Timestamp) -> Answer,
    ) -> Result<Answer, SlotError> {
        let answer = self.change(name, decide).await;
        tokio::time::sleep(SLOT_PAUSE).await;
        answer
    }

    /// How a group stands.
    pub(crate) async fn look(&self, group: &SlotName) -> Result<Group, SlotError> {
        self.change(group, |state, rules, now| {
            state.advance(rules, now);
            state.clone()
        })
        .await
    }

    /// How a group was when it was last changed.
    pub(crate) async fn read(&self, name: &SlotName) -> Result<Group, SlotError> {
        match self.keep.read(name).await? {
            Some((data, _)) => {
                serde_json::from_slice(&data).map_err(|_| SlotError::Damaged(name.clone()))
            }
            None => Ok(Group::default()),
        }
    }

    async fn change<T>(
        &self,
        name: &SlotName,
        decide: impl Fn(&mut Group, Rules, Timestamp) -> T,
    ) -> Result<T, SlotError> {
        let (group, turn) = self.find(name)?;
        let rules = group.rules;
        let _turn = turn.lock().await;
        for race in 0..SLOT_RACES {
            let kept = self.keep.read(name).await?;
            let mut group = match &kept {
                Some((data, _)) => {
                    serde_json::from_slice(data).map_err(|_| SlotError::Damaged(name.clone()))?
                }
                None => Group::default(),
            };
            let before = group.clone();
            let decided = decide(&mut group, rules, self.keep.now()?);
            for failure in group
                .failed
                .iter()
                .filter(|failure| !before.failed.contains(failure) && failure.returned.is_none())
            {
                tracing::error!(group = %name, node = failure.node, "a node has not come back within its lease: it counts as failed until an operator has looked at it");
            }
            if group == before {
                return Ok(decided);
            }
            let data = serde_json::to_vec(&group).map_err(|_| SlotError::Damaged(name.clone()))?;
            if self
                .keep
                .replace(name, &data, kept.map(|(_, version)| version))
                .await?
            {
                return Ok(decided);
            }
            // Somebody else was quicker; they take turns sooner if they do not all come back at
            // once.
            let jitter = RandomState::new().build_hasher().finish() % (1 + 4 * race);
            tokio::time::sleep(Duration::from_millis(jitter)).await;
        }
        Err(SlotError::Crowded)
    }
}

/// What makes a token one that cannot be guessed.
fn nonce() -> Result<u32, SlotError> {
    getrandom::u32().map_err(|_| SlotError::Random)
}

/// After how many seconds a node that waits asks again: a few times within a lease.
pub(crate) fn again(rules: Rules) -> u64 {
    (rules.lease / 8).clamp(1, SLOT_AGAIN.as_secs())
}

/// Turns leases that have run out into failures also when nobody asks.
pub(crate) async fn sweep(slots: Arc<Slots>, origin: Arc<dyn Origin>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SLOT_SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        // One member is enough.
        if origin.term().is_none() {
            continue;
        }
        for group in slots.groups() {
            if let Err(error) = slots.look(&group.name).await {
                tracing::debug!(group = %group.name, %error, "leases were not looked at");
            }
        }
    }
}
