//! Beats: what was newest at a time.
//!
//! The beats of a role stand in its beat channel and name the trust log and the heads of the
//! channels that the role speaks for.

use alloc::{format, vec::Vec};

use crate::{
    Channel, Head, Serial, SigningKey, Statement, StatementError, Timestamp,
    limits::BEAT_HEADS_OCTETS,
    statement::{Beat, Body, Draft},
};

impl Beat {
    /// The head that this beat names for a channel.
    pub fn head(&self, channel: &Channel) -> Option<Head> {
        self.heads
            .iter()
            .find(|(named, _)| named == channel)
            .map(|(_, head)| *head)
    }
}

/// What one beat says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The heads that it names, the trust log's first.
    pub heads: Vec<(Channel, Head)>,
    /// Channels for which there was no room.
    pub left_out: Vec<Channel>,
    /// How much of the room is taken, in percent.
    pub percent: usize,
}

/// Chooses what a beat names: the trust log, then the channels of the beat before in its order,
/// then new ones as the signer met them. What does not fit is not named; nobody displaces anybody
/// (attack 98).
pub fn plan(
    trust_log: (Channel, Head),
    before: &[(Channel, Head)],
    heads: &[(Channel, Head)],
) -> Plan {
    let now = |channel: &Channel| heads.iter().find(|(named, _)| named == channel);
    let known = before.iter().filter_map(|(channel, _)| now(channel));
    let new = heads
        .iter()
        .filter(|(channel, _)| !before.iter().any(|(named, _)| named == channel));
    let is_log = |(channel, _): &&(Channel, Head)| *channel == trust_log.0;
    let wanted: Vec<_> = known
        .chain(new)
        .filter(|head| !is_log(head))
        .cloned()
        .collect();
    let mut plan = Plan {
        heads: Vec::new(),
        left_out: Vec::new(),
        percent: 0,
    };
    let mut octets = 0;
    for (channel, head) in [trust_log].into_iter().chain(wanted) {
        let more = format!("Head: {channel} {head}\n").len();
        if octets + more > BEAT_HEADS_OCTETS {
            plan.left_out.push(channel);
            continue;
        }
        octets += more;
        plan.heads.push((channel, head));
    }
    plan.percent = octets * 100 / BEAT_HEADS_OCTETS;
    plan
}

/// Where, when and under what a beat is signed.
#[derive(Clone, Debug)]
pub struct Round {
    /// The beat channel.
    pub channel: Channel,
    /// Its present head.
    pub after: Option<Head>,
    /// The signer's time.
    pub time: Timestamp,
    /// For how long it proves that nothing is held back, in seconds.
    pub life: u64,
    /// The serial of the trust in force.
    pub trust: Serial,
}

/// Signs a beat.
///
/// # Errors
/// What the grammar refuses.
pub fn sign(
    round: Round,
    heads: Vec<(Channel, Head)>,
    key: &SigningKey,
) -> Result<Statement, StatementError> {
    let body = Body::Beat(Beat {
        expires: round.time.plus(round.life),
        heads,
    });
    let Round {
        channel,
        after,
        time,
        trust,
        ..
    } = round;
    Draft {
        channel,
        after,
        time,
        trust: Some(trust),
        body,
    }
    .write()?
    .sign(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StatementId;

    fn heads(numbers: core::ops::Range<u32>) -> Vec<(Channel, Head)> {
        let head = |n: u32| Head {
            serial: Serial::new(n + 1).unwrap(),
            id: StatementId::of(&n.to_be_bytes()),
        };
        numbers
            .map(|n| (format!("acme.product-{n}.stable").parse().unwrap(), head(n)))
            .collect()
    }

    #[test]
    fn attack_098_nobody_displaces_anybody() {
        let trust = ("acme.trust".parse::<Channel>().unwrap(), heads(0..1)[0].1);
        let first = plan(trust.clone(), &[], &heads(0..500));
        assert_eq!((first.heads.len(), first.left_out.len()), (501, 0));
        assert_eq!(first.heads[0], trust);
        // A thousand that would come first by name or by age come last.
        let mut all = heads(1_000..2_000);
        all.extend(heads(0..500));
        let second = plan(trust.clone(), &first.heads, &all);
        assert_eq!(second.heads[..501], first.heads[..]);
        assert_eq!(second.heads.len() + second.left_out.len(), 1_501);
        assert!(second.heads.len() > 550, "{}", second.heads.len());
        assert!(second.percent >= 99);
        // What is not there any more is not named any more.
        let third = plan(trust, &first.heads, &heads(1..500));
        assert_eq!(third.heads.len(), 500);
    }

    #[test]
    fn a_full_beat_is_a_statement() {
        let trust = ("acme.trust".parse::<Channel>().unwrap(), heads(0..1)[0].1);
        let plan = plan(trust, &[], &heads(0..5_000));
        let key = SigningKey::from_bytes(&[1; 32]);
        let (channel, time) = (
            "acme.beat".parse().unwrap(),
            Timestamp::from_seconds(1_800_000_000),
        );
        let round = Round {
            channel,
            after: None,
            time,
            life: 900,
            trust: Serial::FIRST,
        };
        let count = plan.heads.len();
        let beat = sign(round, plan.heads, &key).unwrap();
        assert!((580..720).contains(&count), "{count}");
        assert!(beat.octets().len() <= crate::limits::STATEMENT_OCTETS);
    }
}
