//! What the tree does not keep any more comes from other members, by the path of mirrors.

use std::collections::BTreeSet;

use tidings_protocol::Channel;
use tokio_util::sync::CancellationToken;

use super::{Cluster, Fill};

/// Fills from other members what the servers have forgotten, for as long as there is something.
#[derive(Default)]
pub(super) struct Backfill(Option<Filling>);

/// From where, which channels, and how it is ended.
struct Filling {
    from: Vec<String>,
    channels: BTreeSet<Channel>,
    stop: CancellationToken,
}

impl Backfill {
    pub(super) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn adjust(&mut self, cluster: &Cluster, fill: &Fill) {
        let (from, channels): (Vec<String>, BTreeSet<Channel>) = {
            let standing = cluster.standing();
            let others = standing
                .members
                .iter()
                .filter(|member| !member.ours)
                .map(|member| member.address.clone());
            (others.collect(), standing.gaps.keys().cloned().collect())
        };
        let wanted = !from.is_empty() && !channels.is_empty();
        let goes_on = self.0.as_ref().is_some_and(|filling| {
            wanted && filling.from == from && channels.is_subset(&filling.channels)
        });
        if goes_on || (!wanted && self.0.is_none()) {
            return;
        }
        if let Some(Filling { stop, .. }) = self.0.take() {
            stop.cancel();
        }
        if !wanted {
            tracing::info!("nothing is filled from other members any more");
            return;
        }
        tracing::info!(
            channels = channels.len(),
            from = from.join(" "),
            "the servers have forgotten what this broker has not: it comes from other members"
        );
        match fill(
            from.iter()
                .filter_map(|address| address.parse().ok())
                .collect(),
        ) {
            Ok(stop) => {
                self.0 = Some(Filling {
                    from,
                    channels,
                    stop,
                })
            }
            Err(error) => {
                tracing::error!(%error, "cluster.login cannot be used: nothing can be had from other members")
            }
        }
    }
}

impl Drop for Backfill {
    fn drop(&mut self) {
        if let Some(Filling { stop, .. }) = self.0.take() {
            stop.cancel();
        }
    }
}
