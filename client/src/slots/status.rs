//! How a group stands, as a slot server tells it (spec part 6). Times are as in statements.

use serde::{Deserialize, Serialize};

/// A group.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SlotStatus {
    /// Its name.
    pub group: String,
    /// `idle`, `busy`, or `stopped`.
    pub state: String,
    /// How many may be down at once.
    pub max: u64,
    /// For how long, before it counts as failed.
    pub lease_seconds: u64,
    /// With so many failed no node gets a slot.
    pub failures: u64,
    /// The nodes that are down, or about to go down.
    pub holders: Vec<SlotHolder>,
    /// The nodes that wait, in their order.
    pub waiting: Vec<SlotWaiter>,
    /// The nodes whose lease has run out.
    pub failed: Vec<SlotFailure>,
    /// What has happened, the oldest first.
    pub history: Vec<SlotEvent>,
}

/// A node that is down.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SlotHolder {
    /// The node.
    pub id: String,
    /// What it applies, if it has said so.
    pub serial: Option<u32>,
    /// When it got its slot.
    pub since: String,
    /// When it counts as failed.
    pub until: String,
}

/// A node that waits.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SlotWaiter {
    /// The node.
    pub id: String,
    /// Since when.
    pub since: String,
}

/// A node that has failed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SlotFailure {
    /// The node.
    pub id: String,
    /// What it was to apply, if it has said so.
    pub serial: Option<u32>,
    /// When its lease ran out.
    pub at: String,
    /// When it was heard of again.
    pub returned: Option<String>,
}

/// What has happened.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SlotEvent {
    /// When.
    pub at: String,
    /// `taken`, `retaken`, `freed`, `failed`, `returned`, `cleared`.
    pub what: String,
    /// The node.
    pub id: String,
}
