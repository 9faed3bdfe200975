//! Whether a namespace has room for what would begin a channel.

use std::collections::{HashMap, HashSet};

use tidings_protocol::{Channel, Namespace};

use super::{
    Cluster,
    append::{Outcome, Waiting},
    lock,
};
use crate::log::append::AppendError;

impl Cluster {
    /// Refuses what waits and would begin a channel above the quota: many may have been judged
    /// while there was room for one. What other members begin in the same moment is not known.
    pub(super) fn refuse_above_quota(&self, waiting: &mut Vec<Waiting>) {
        let (mut counts, mut begun) = (HashMap::new(), HashSet::new());
        let begins = |one: &Waiting| {
            let channel = &one.item.channel;
            one.item.after.is_none()
                && !(channel.is_trust() || channel.is_beat())
                && !lock(&self.seen).contains_key(channel)
        };
        let has_no_room = |one: &mut Waiting| {
            let channel = &one.item.channel;
            let provisioned = self.namespaces.of(channel);
            let namespace = provisioned.map(|provisioned| &provisioned.anchor.namespace);
            let Some(namespace) = namespace.filter(|_| begins(one) && !begun.contains(channel))
            else {
                return false;
            };
            let count = counts
                .entry(namespace)
                .or_insert_with(|| self.count(namespace));
            if *count >= self.quota {
                return true;
            }
            *count += 1;
            begun.insert(channel.clone());
            false
        };
        for one in waiting.extract_if(.., has_no_room) {
            let namespace = self.namespaces.of(&one.item.channel);
            let Some(namespace) = namespace.map(|of| of.anchor.namespace.clone()) else {
                continue;
            };
            let refused = AppendError::Quota(namespace, self.quota);
            // The one who asked may be gone.
            drop(one.reply.send(Outcome::Failed(refused)));
        }
    }

    /// Channels of a namespace, here and in the tree.
    fn count(&self, namespace: &Namespace) -> usize {
        let is_of = |channel: &Channel| self.namespaces.is_of(channel, namespace);
        let here = self
            .logs
            .all()
            .iter()
            .filter(|log| is_of(&log.channel))
            .count();
        let seen = lock(&self.seen);
        let elsewhere =
            |channel: &&Channel| is_of(channel) && self.logs.get(channel.as_str()).is_none();
        here + seen.keys().filter(elsewhere).count()
    }
}
