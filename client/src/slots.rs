//! Slots: asking whether this machine may go down (spec part 6).

use std::time::Duration;

use tidings_protocol::{
    Serial,
    nntp::{Response, code},
    slot::SlotName,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Error, Source,
    limits::{LOOK, SLOT_AGAIN},
};

/// A slot that was given.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// What [`Slots::hold`] and [`Slots::free`] want. A later one of the same node takes its place.
    pub token: u64,
    /// From then on it does not count any more. Measured from before it was asked for, so that a
    /// late answer promises nothing.
    pub until: Instant,
}

/// Why there is no slot. The machine must not go down then, whatever it is (attack 78).
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Others are down, or were there earlier.
    #[error("{before} are before this node; ask again in {again:?}")]
    Wait {
        /// How many.
        before: u64,
        /// When to ask again; without asking the place is lost.
        again: Duration,
    },
    /// As many have failed as may.
    #[error("the group is stopped: {0}")]
    Stopped(String),
    /// The token does not count any more.
    #[error("the slot is lost: {0}")]
    Lost(String),
    /// No broker has such a group.
    #[error("no broker has a group {0}")]
    NoGroup(SlotName),
    /// It could not be decided, or this node may not ask.
    #[error(transparent)]
    Ask(#[from] Error),
}

/// Asks brokers for slots. Several brokers have to be members of one cluster: only then have they
/// the same slots.
pub struct Slots(Source);

impl Slots {
    /// Asks the brokers of a source, in turn.
    pub fn new(source: Source) -> Self {
        Self(source)
    }

    /// A slot for a node that is about to apply a serial; after a reboot the same slot again, with
    /// another token.
    ///
    /// # Errors
    /// [`SlotError`]; with [`SlotError::Wait`] the node has a place in the queue.
    pub async fn take(
        &mut self,
        group: &SlotName,
        node: &SlotName,
        serial: Serial,
    ) -> Result<Slot, SlotError> {
        self.slot(group, &format!("XSLOT TAKE {group} {node} {serial}"))
            .await
    }

    /// The same, and waits for its turn for as long as `patience`.
    ///
    /// # Errors
    /// As [`Slots::take`].
    pub async fn wait_for(
        &mut self,
        group: &SlotName,
        node: &SlotName,
        serial: Serial,
        patience: Duration,
    ) -> Result<Slot, SlotError> {
        let until = Instant::now() + patience;
        loop {
            let again = match self.take(group, node, serial).await {
                Err(SlotError::Wait { again, .. }) => again,
                // Brokers that cannot decide now may be able to in a moment.
                Err(SlotError::Ask(_)) => SLOT_AGAIN,
                other => return other,
            };
            if Instant::now() + again >= until {
                return self.take(group, node, serial).await;
            }
            sleep(again).await;
        }
    }

    /// Whether a token still counts, which is to be asked immediately before going down; the lease
    /// begins anew.
    ///
    /// # Errors
    /// [`SlotError`]: do not go down then.
    pub async fn hold(
        &mut self,
        group: &SlotName,
        node: &SlotName,
        token: u64,
    ) -> Result<Slot, SlotError> {
        self.slot(group, &format!("XSLOT HOLD {group} {node} {token}"))
            .await
    }

    /// The node is back, and well.
    ///
    /// # Errors
    /// [`SlotError::Lost`] if it was late: then it counts as failed.
    pub async fn free(
        &mut self,
        group: &SlotName,
        node: &SlotName,
        token: u64,
    ) -> Result<(), SlotError> {
        self.ask(group, &format!("XSLOT FREE {group} {node} {token}"))
            .await
            .map(drop)
    }

    /// An operator has looked at a node.
    ///
    /// # Errors
    /// [`SlotError::Lost`] if nothing is known of it.
    pub async fn clear(&mut self, group: &SlotName, node: &SlotName) -> Result<(), SlotError> {
        self.ask(group, &format!("XSLOT CLEAR {group} {node}"))
            .await
            .map(drop)
    }

    /// Who is down, who waits, who has failed: a line each, as spec part 6 has them.
    ///
    /// # Errors
    /// [`SlotError`].
    pub async fn list(&mut self, group: &SlotName) -> Result<String, SlotError> {
        self.listing(group, &format!("XSLOT LIST {group}")).await
    }

    /// What has happened in a group.
    ///
    /// # Errors
    /// [`SlotError`].
    pub async fn log(&mut self, group: &SlotName) -> Result<String, SlotError> {
        self.listing(group, &format!("XSLOT LOG {group}")).await
    }

    async fn slot(&mut self, group: &SlotName, line: &str) -> Result<Slot, SlotError> {
        let asked = Instant::now();
        let response = self.ask(group, line).await?;
        let numbers: Vec<u64> = response
            .text
            .split(' ')
            .take(2)
            .filter_map(|word| word.parse().ok())
            .collect();
        let [token, seconds] = numbers[..] else {
            return Err(Error::Refused(response).into());
        };
        Ok(Slot {
            token,
            until: asked + Duration::from_secs(seconds.min(30 * 86_400)),
        })
    }

    async fn ask(&mut self, group: &SlotName, line: &str) -> Result<Response, SlotError> {
        let response = self.in_turn(group, line).await?;
        let numbers: Vec<u64> = response
            .text
            .split(' ')
            .map_while(|word| word.parse().ok())
            .collect();
        match (response.code, &numbers[..]) {
            (code::SLOT_WAIT, [before, again, ..]) => Err(SlotError::Wait {
                before: *before,
                again: Duration::from_secs((*again).clamp(1, 3_600)),
            }),
            (code::SLOT_STOPPED, _) => Err(SlotError::Stopped(response.text)),
            (code::SLOT_LOST, _) => Err(SlotError::Lost(response.text)),
            _ => Ok(response),
        }
    }

    /// One broker after the other, until one has decided.
    async fn in_turn(&mut self, group: &SlotName, line: &str) -> Result<Response, SlotError> {
        let mut failed = SlotError::NoGroup(group.clone());
        for _ in 0..self.0.brokers.len() {
            let asked = async { self.0.connect().await?.command(line).await };
            failed = match timeout(LOOK, asked)
                .await
                .unwrap_or(Err(Error::Silent(LOOK)))
            {
                Ok(response) => match response.code {
                    code::SLOT
                    | code::SLOT_FREE
                    | code::SLOT_WAIT
                    | code::SLOT_STOPPED
                    | code::SLOT_LOST => return Ok(response),
                    code::NO_SUCH_SLOTS | code::UNKNOWN => SlotError::NoGroup(group.clone()),
                    _ => Error::Refused(response).into(),
                },
                Err(error) => error.at(self.0.address()).into(),
            };
            self.0.turn();
        }
        Err(failed)
    }

    async fn listing(&mut self, group: &SlotName, line: &str) -> Result<String, SlotError> {
        let mut failed = SlotError::NoGroup(group.clone());
        for _ in 0..self.0.brokers.len() {
            let asked = async { self.0.connect().await?.listing(line, code::LIST).await };
            failed = match timeout(LOOK, asked)
                .await
                .unwrap_or(Err(Error::Silent(LOOK)))
            {
                Ok(listing) => return Ok(listing),
                Err(Error::Refused(response))
                    if matches!(response.code, code::NO_SUCH_SLOTS | code::UNKNOWN) =>
                {
                    SlotError::NoGroup(group.clone())
                }
                Err(error) => error.at(self.0.address()).into(),
            };
            self.0.turn();
        }
        Err(failed)
    }
}
