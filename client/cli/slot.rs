//! Slots: taking turns going down, and what operators do about it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use tidings_client::{Serial, SlotServer, SlotStatus, Slots, Tls};
use tidings_protocol::slot::SlotName;

use super::{TlsFiles, exit::Exit, output};

/// Which slot servers.
#[derive(Args)]
pub(super) struct SlotServers {
    /// A slot server, https://HOST[:PORT] or http://HOST[:PORT]: a broker that has [fleetlock];
    /// several (or with commas between) have to be members of one cluster, and are tried in turn
    #[arg(
        long = "slot-server",
        value_name = "URL",
        env = "TIDINGS_SLOT_SERVERS",
        value_delimiter = ','
    )]
    servers: Vec<String>,
    /// A file with the bearer token by which slot servers know us, and nothing else; sent over TLS
    /// only
    #[arg(long, value_name = "FILE", env = "TIDINGS_SLOT_BEARER_FILE")]
    slot_bearer_file: Option<PathBuf>,
}

impl SlotServers {
    pub(super) fn slots(&self, tls: &TlsFiles) -> anyhow::Result<Slots> {
        let urls = self.servers.iter().map(|url| url.trim());
        let servers: Vec<SlotServer> = urls
            .filter(|url| !url.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ensure!(
            !servers.is_empty(),
            Exit::Usage
                .because("which slot server? give --slot-server URL, or set TIDINGS_SLOT_SERVERS")
        );
        let slots = Slots::new(servers, tls.tls()?.map_or_else(Tls::system, Ok)?);
        let Some(file) = &self.slot_bearer_file else {
            return Ok(slots);
        };
        let token = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the bearer token from {}", file.display()))?;
        Ok(slots.with_bearer(token.trim()))
    }
}

/// Where a group is asked about.
#[derive(Args)]
pub(super) struct At {
    #[command(flatten)]
    servers: SlotServers,
    #[command(flatten)]
    tls: TlsFiles,
}

impl At {
    fn slots(&self) -> anyhow::Result<Slots> {
        self.servers.slots(&self.tls)
    }
}

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
        at: At,
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
        at: At,
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
        at: At,
    },
    /// Show who is down, who waits, who has failed: group STATE MAX LEASE-SECONDS FAILURES, holder
    /// NODE SERIAL SINCE UNTIL, waiting NODE SINCE, failed NODE SERIAL AT RETURNED
    List {
        /// The group
        group: SlotName,
        #[command(flatten)]
        at: At,
    },
    /// Show what has happened
    Log {
        /// The group
        group: SlotName,
        #[command(flatten)]
        at: At,
    },
    /// Forget a node, after an operator has looked at it: it is not down, does not wait and has not
    /// failed
    Clear {
        /// The group
        group: SlotName,
        /// The node
        node: SlotName,
        #[command(flatten)]
        at: At,
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
                at,
            } => {
                let patience = Duration::from_secs(wait);
                let slot = at
                    .slots()?
                    .wait_for(&group, &node, serial, patience)
                    .await?;
                let token = slot.token.to_string();
                output::answer(|| json!({"token": token}), || token.clone());
            }
            Slot::Hold {
                group,
                node,
                token,
                at,
            } => drop(at.slots()?.hold(&group, &node, token).await?),
            Slot::Free {
                group,
                node,
                token,
                at,
            } => at.slots()?.free(&group, &node, token).await?,
            Slot::List { group, at } => {
                let status = at.slots()?.status(&group).await?;
                output::answer(|| json!(status), || lines(&status).join("\n"));
            }
            Slot::Log { group, at } => {
                for event in at.slots()?.status(&group).await?.history {
                    output::answer(
                        || json!(event),
                        || format!("{} {} {}", event.at, event.what, event.id),
                    );
                }
            }
            Slot::Clear { group, node, at } => at.slots()?.clear(&group, &node).await?,
        }
        Ok(())
    }
}

/// A line for the group, and one for each node.
fn lines(status: &SlotStatus) -> Vec<String> {
    let serial = |serial: Option<u32>| serial.map_or("-".into(), |serial| serial.to_string());
    let mut lines = vec![format!(
        "group {} {} {} {}",
        status.state, status.max, status.lease_seconds, status.failures
    )];
    lines.extend(status.holders.iter().map(|holder| {
        let serial = serial(holder.serial);
        format!(
            "holder {} {serial} {} {}",
            holder.id, holder.since, holder.until
        )
    }));
    let waiting = status.waiting.iter();
    lines.extend(waiting.map(|waiter| format!("waiting {} {}", waiter.id, waiter.since)));
    lines.extend(status.failed.iter().map(|failure| {
        let (serial, returned) = (serial(failure.serial), failure.returned.as_deref());
        let returned = returned.unwrap_or("-");
        format!("failed {} {serial} {} {returned}", failure.id, failure.at)
    }));
    lines
}
