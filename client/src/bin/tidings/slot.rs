//! Slots: taking turns going down, and what operators do about it.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use tidings_client::{Serial, Slots};
use tidings_protocol::slot::SlotName;

use super::{From, output};

#[derive(Subcommand)]
pub(super) enum Slot {
    /// Take a slot for a node that is about to go down, or the one that it has; prints the token
    Take {
        /// The group, as `Slot:` of the release names it
        group: SlotName,
        /// The node
        node: SlotName,
        /// The serial of the release that is to be applied
        serial: Serial,
        /// For how many seconds to wait for its turn
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
        #[command(flatten)]
        from: From,
    },
    /// Ask whether the token still counts, immediately before going down; the lease begins anew
    Hold {
        /// The group
        group: SlotName,
        /// The node
        node: SlotName,
        /// What `take` has printed
        token: u64,
        #[command(flatten)]
        from: From,
    },
    /// Free the slot: the node is back, and well
    Free {
        /// The group
        group: SlotName,
        /// The node
        node: SlotName,
        /// What `take` has printed last
        token: u64,
        #[command(flatten)]
        from: From,
    },
    /// Show who is down, who waits, who has failed: group MAX LEASE-SECONDS FAILURES, holder NODE
    /// SERIAL SINCE UNTIL, waiting NODE SINCE, failed NODE SERIAL AT RETURNED
    List {
        /// The group
        group: SlotName,
        #[command(flatten)]
        from: From,
    },
    /// Show what has happened
    Log {
        /// The group
        group: SlotName,
        #[command(flatten)]
        from: From,
    },
    /// Forget a node, after an operator has looked at it: it is not down, does not wait and has not
    /// failed
    Clear {
        /// The group
        group: SlotName,
        /// The node
        node: SlotName,
        #[command(flatten)]
        from: From,
    },
}

impl Slot {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Slot::Take {
                group,
                node,
                serial,
                wait,
                from,
            } => {
                let slot = slots(&from)?
                    .wait_for(&group, &node, serial, Duration::from_secs(wait))
                    .await?;
                output::answer(|| json!({"token": slot.token}), || slot.token.to_string());
            }
            Slot::Hold {
                group,
                node,
                token,
                from,
            } => drop(slots(&from)?.hold(&group, &node, token).await?),
            Slot::Free {
                group,
                node,
                token,
                from,
            } => slots(&from)?.free(&group, &node, token).await?,
            Slot::List { group, from } => show(&slots(&from)?.list(&group).await?),
            Slot::Log { group, from } => show(&slots(&from)?.log(&group).await?),
            Slot::Clear { group, node, from } => slots(&from)?.clear(&group, &node).await?,
        }
        Ok(())
    }
}

fn show(lines: &str) {
    for line in lines.lines() {
        output::answer(|| json!({"line": line}), || line.to_owned());
    }
}

fn slots(from: &From) -> anyhow::Result<Slots> {
    Ok(Slots::new(from.source()?))
}
