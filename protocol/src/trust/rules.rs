//! What the rules of a trust statement say of a channel or a statement.

use alloc::{string::String, vec::Vec};

use crate::{
    Channel, Namespace, PublicKey, Statement,
    statement::{Kind, Role, TrustRules},
};

impl TrustRules {
    /// Of the roles of a kind whose patterns match a channel, the most specific alone counts. A
    /// beat is allowed in the beat channel of a role only, and by that role.
    pub fn role(&self, kind: Kind, channel: &Channel, namespace: &Namespace) -> Option<&Role> {
        let of_kind = self.roles.iter().filter(|role| role.kind == kind);
        if kind == Kind::Beat {
            return of_kind
                .into_iter()
                .find(|role| role.pattern.beat_channel(namespace).as_ref() == Some(channel));
        }
        of_kind
            .filter(|role| role.pattern.matches(channel))
            .max_by_key(|role| role.pattern.specificity())
    }
    /// The channel of the beats that speak for a channel: that of its most specific beat role.
    pub fn beat_channel(&self, channel: &Channel, namespace: &Namespace) -> Option<Channel> {
        let matches = |role: &&Role| {
            role.kind == Kind::Beat && role.pattern.matches(channel) && namespace.contains(channel)
        };
        let matching = self.roles.iter().filter(matches);
        matching
            .max_by_key(|role| role.pattern.specificity())?
            .pattern
            .beat_channel(namespace)
    }
    /// Whether a channel is closed for good. Trust logs and beats never are.
    pub fn is_closed(&self, channel: &Channel) -> bool {
        let closes = |line: &crate::statement::Closed| {
            line.pattern.matches(channel) && !line.except.contains(channel)
        };
        !channel.is_trust() && !channel.is_beat() && self.closed.iter().any(closes)
    }
    /// The names of a role's keys that have truly signed a statement.
    pub fn signers<'a>(&'a self, role: &'a Role, statement: &Statement) -> Vec<&'a str> {
        let signed = |name: &&str| {
            self.keys
                .iter()
                .any(|key| key.name == *name && statement.is_truly_signed_by(&key.key))
        };
        role.names
            .iter()
            .map(String::as_str)
            .filter(signed)
            .collect()
    }
    /// Whether these rules may no longer prove what others have proven in a channel: somebody who
    /// may sign there a release or a withdrawal would not be enough any more.
    pub fn narrows(&self, old: &TrustRules, channel: &Channel, namespace: &Namespace) -> bool {
        [Kind::Release, Kind::Withdraw].into_iter().any(|kind| {
            let Some(before) = old.role(kind, channel, namespace) else {
                return false;
            };
            let Some(after) = self.role(kind, channel, namespace) else {
                return true;
            };
            let keys = |rules: &TrustRules, role: &Role| -> Vec<PublicKey> {
                rules
                    .keys
                    .iter()
                    .filter(|key| role.names.contains(&key.name))
                    .map(|key| key.key)
                    .collect()
            };
            let (lost, kept) = (keys(old, before), keys(self, after));
            after.threshold > before.threshold || lost.iter().any(|key| !kept.contains(key))
        })
    }
}
