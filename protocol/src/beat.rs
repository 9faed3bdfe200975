//! Beats: what was newest at a time, for more channels than one statement has room for (spec section 4.4).
//!
//! The beat of a namespace stands in `NAMESPACE.beat`. It names the heads of channels or, where those are too many, the
//! heads of *shards*: further beats of the namespace that name them. One signature every few minutes is then enough for
//! any number of channels, and a shard is only signed again when something in it has changed.

use alloc::{collections::BTreeMap, format, vec, vec::Vec};

use sha2::{Digest, Sha256};

use crate::{
    Channel, Head, Namespace, Serial, SigningKey, Statement, StatementError, Timestamp,
    limits::{BEAT_HEADS_OCTETS, BEAT_SHARDS},
    rollout::fraction,
    statement::{Beat, Body, Draft},
};

/// The label that keeps this hash apart from every other.
const LABEL: &[u8] = b"tidings beat 1\n";

/// [4.4-2]: which of `count` shards speaks for a channel.
pub fn shard(channel: &Channel, count: usize) -> usize {
    let mut hash = Sha256::new();
    hash.update(LABEL);
    hash.update(channel.as_str());
    let place = fraction(&hash.finalize().into(), count as u64);
    usize::try_from(place).unwrap_or_default()
}

impl Beat {
    /// The head that this beat itself names for a channel.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        self.heads.iter().find(|(named, _)| named == channel).map(|(_, head)| *head)
    }

    /// [4.4-2]: the shard that speaks for a channel which this beat does not name itself, and the shard's head.
    pub fn shard(&self, channel: &Channel) -> Option<(&Channel, Head)> {
        let shards: Vec<_> = self.heads.iter().filter(|(named, _)| named.is_beat()).collect();
        let (named, head) = shards.get(shard(channel, shards.len().max(1)))?;
        Some((named, *head))
    }
}

/// What one round of beats says: the shards, empty where one beat has room for all, and what the namespace's beat names
/// beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// A beat channel each, and the heads that it names.
    pub shards: Vec<(Channel, Vec<(Channel, Head)>)>,
    /// Heads that stand in the namespace's beat itself.
    pub heads: Vec<(Channel, Head)>,
}

/// Why heads cannot be shared out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Too many channels.
    #[error("{0} channels do not fit into {BEAT_SHARDS} shards of a beat")]
    TooMany(usize),
    /// A statement that the grammar refuses.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A namespace whose name leaves no room for that of a shard.
    #[error("the name of namespace {0} leaves no room for that of a shard")]
    Name(Namespace),
}

/// Shares the heads of a namespace's channels out over as many shards as they need.
///
/// # Errors
/// If there are too many even so.
pub fn plan(namespace: &Namespace, heads: &[(Channel, Head)]) -> Result<Plan, PlanError> {
    let octets = |heads: &[(Channel, Head)]| heads.iter().map(|(channel, head)| format!("Head: {channel} {head}\n").len()).sum::<usize>();
    if octets(heads) <= BEAT_HEADS_OCTETS {
        return Ok(Plan { shards: vec![], heads: heads.to_vec() });
    }
    let (trust, rest): (Vec<_>, Vec<_>) = heads.iter().cloned().partition(|(channel, _)| channel.is_trust());
    let mut count = 2;
    while count <= BEAT_SHARDS {
        let mut shards = vec![Vec::new(); count];
        for (channel, head) in &rest {
            shards[shard(channel, count)].push((channel.clone(), *head));
        }
        if shards.iter().all(|heads| octets(heads) <= BEAT_HEADS_OCTETS) {
            let name = |at: usize| format!("{namespace}.shard-{at}.beat").parse().map_err(|_| PlanError::Name(namespace.clone()));
            let shards =
                shards.into_iter().enumerate().map(|(at, heads)| Ok::<_, PlanError>((name(at)?, heads))).collect::<Result<_, _>>()?;
            return Ok(Plan { shards, heads: trust });
        }
        count *= 2;
    }
    Err(PlanError::TooMany(heads.len()))
}

/// When and under what a round is signed.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// The signer's time.
    pub time: Timestamp,
    /// For how long it proves that nothing is held back, in seconds.
    pub life: u64,
    /// The serial of the trust in force.
    pub trust: Serial,
}

/// Signs the beats of a namespace, round by round.
pub struct Signer {
    namespace: Namespace,
    key: SigningKey,
    /// What each shard said last.
    shards: BTreeMap<Channel, Statement>,
}

impl Signer {
    /// A signer that has signed nothing yet.
    pub fn new(namespace: Namespace, key: SigningKey) -> Self {
        Self { namespace, key, shards: BTreeMap::new() }
    }

    /// One round: the beats to publish, in their order; shards come before the beat that names them, and only those in
    /// which something has changed.
    ///
    /// `heads` are those of all channels of the namespace but for beats, `after` gives the present head of a beat channel.
    ///
    /// # Errors
    /// If there are too many channels.
    pub fn round(
        &mut self,
        round: Round,
        heads: &[(Channel, Head)],
        after: impl Fn(&Channel) -> Option<Head>,
    ) -> Result<Vec<Statement>, PlanError> {
        let Plan { shards, heads: mut named } = plan(&self.namespace, heads)?;
        let sign = |channel: &Channel, heads: Vec<(Channel, Head)>| {
            let body = Body::Beat(Beat { expires: round.time.plus(round.life), heads });
            let draft = Draft { channel: channel.clone(), after: after(channel), time: round.time, trust: Some(round.trust), body };
            draft.write()?.sign(&self.key)
        };
        let mut signed = Vec::new();
        for (channel, heads) in shards {
            let said = |statement: &&Statement| match statement.body() {
                Body::Beat(beat) => beat.heads == heads && Some(statement.head()) == after(&channel),
                _ => false,
            };
            let head = match self.shards.get(&channel).filter(said) {
                Some(statement) => statement.head(),
                None => {
                    let statement = sign(&channel, heads)?;
                    let head = statement.head();
                    signed.push(statement.clone());
                    self.shards.insert(channel.clone(), statement);
                    head
                }
            };
            named.push((channel, head));
        }
        signed.push(sign(&self.namespace.beat(), named)?);
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StatementId;

    fn heads(count: u32) -> Vec<(Channel, Head)> {
        let head = |n: u32| Head { serial: Serial::new(n + 1).unwrap(), id: StatementId::of(&n.to_be_bytes()) };
        let mut all: Vec<_> = (0..count).map(|n| (format!("acme.product-{n}.stable").parse().unwrap(), head(n))).collect();
        all.push(("acme.trust".parse().unwrap(), head(count)));
        all
    }

    #[test]
    fn every_channel_is_found_through_the_namespaces_beat() {
        let namespace: Namespace = "acme".parse().unwrap();
        let few = heads(100);
        assert_eq!(plan(&namespace, &few).unwrap(), Plan { shards: vec![], heads: few.clone() });
        for count in [1_000, 20_000] {
            let all = heads(count);
            let Plan { shards, heads } = plan(&namespace, &all).unwrap();
            let expires = Timestamp::from_seconds(0);
            let id = StatementId::of(b"shard");
            let named = shards.iter().map(|(channel, _)| (channel.clone(), Head { serial: Serial::FIRST, id }));
            let root = Beat { expires, heads: heads.into_iter().chain(named).collect() };
            for (channel, head) in &all {
                let found = root.head(channel).or_else(|| {
                    let (shard, _) = root.shard(channel)?;
                    let (_, heads) = shards.iter().find(|(name, _)| name == shard)?;
                    Beat { expires, heads: heads.clone() }.head(channel)
                });
                assert_eq!(found, Some(*head), "{channel}");
            }
        }
        assert!(matches!(plan(&namespace, &heads(150_000)), Err(PlanError::TooMany(_))));
    }
}
