//! Slots: taking turns going down, and what operators do about it.

use std::time::Duration;

use clap::Subcommand;
use tidings_client::{Serial, Slots};
use tidings_protocol::slot::SlotName;

use super::{From, output};

#[derive(clap::Args)]
pub(super) struct Slot {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    from: From,
}

#[derive(Subcommand)]
enum What {
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
    },
    /// Ask whether the token still counts, immediately before going down; the lease begins anew
    Hold {
        /// The group
        group: SlotName,
        /// The node
        node: SlotName,
        /// What `take` has printed
        token: u64,
    },
    /// Free the slot: the node is back, and well
    Free {
        /// The group
        group: SlotName,
        /// The node
        node: SlotName,
        /// What `take` has printed last
        token: u64,
    },
    /// Show who is down, who waits, who has failed
    List {
        /// The group
        group: SlotName,
    },
    /// Show what has happened
    Log {
        /// The group
        group: SlotName,
    },
    /// Forget a node, after an operator has looked at it: it is not down, does not wait and has not failed
    Clear {
        /// The group
        group: SlotName,
        /// The node
        node: SlotName,
    },
}

impl Slot {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut slots = Slots::new(self.from.source()?);
        match self.what {
            What::Take { group, node, serial, wait } => {
                let slot = slots.wait_for(&group, &node, serial, Duration::from_secs(wait)).await?;
                output::line(&slot.token.to_string());
            }
            What::Hold { group, node, token } => drop(slots.hold(&group, &node, token).await?),
            What::Free { group, node, token } => slots.free(&group, &node, token).await?,
            What::List { group } => slots.list(&group).await?.lines().for_each(output::line),
            What::Log { group } => slots.log(&group).await?.lines().for_each(output::line),
            What::Clear { group, node } => slots.clear(&group, &node).await?,
        }
        Ok(())
    }
}
