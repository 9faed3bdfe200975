//! What checkpoints settle, and the beats that they name.

use alloc::collections::BTreeSet;

use super::Trust;
use crate::{
    Channel, Head, Statement, Verified,
    statement::{Beat, Body, Kind},
};

/// What a trust statement has settled about a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing.
    Nothing,
    /// This statement is part of it.
    At(Head),
    /// What the beat with this head names, and that beat is not at hand: nothing is installed from
    /// the channel before it is.
    Missing(Head),
}

impl Settled {
    /// What it has settled on, as far as that is at hand.
    pub fn head(self) -> Option<Head> {
        match self {
            Self::At(head) => Some(head),
            Self::Nothing | Self::Missing(_) => None,
        }
    }
}

impl Trust {
    /// What it has settled about a channel's log: by a line of the channel's own, or else by what
    /// the beat says that a line names, for the channels that beats of that channel may speak for.
    pub fn checkpoint(&self, channel: &Channel) -> Settled {
        let line = |channel: &Channel| {
            self.rules()
                .checkpoints
                .iter()
                .find(|c| c.channel == *channel)
                .map(|c| c.head)
        };
        if channel.is_trust() || channel.is_beat() {
            return Settled::Nothing;
        }
        if let Some(head) = line(channel) {
            return Settled::At(head);
        }
        let Some((beats, head)) = self
            .beat_channel(channel)
            .and_then(|beats| Some((line(&beats)?, beats)))
            .map(|(h, b)| (b, h))
        else {
            return Settled::Nothing;
        };
        match self.beats.get(&beats).map(Statement::body) {
            Some(Body::Beat(beat)) => beat.head(channel).map_or(Settled::Nothing, Settled::At),
            _ => Settled::Missing(head),
        }
    }
    /// All statements that it has settled on, as far as that is at hand: what
    /// [`Trust::checkpoint`] says of each channel.
    pub fn checkpoints(&self) -> impl Iterator<Item = (&Channel, Head)> {
        let lines = || self.rules().checkpoints.iter();
        let own: BTreeSet<&Channel> = lines().map(|line| &line.channel).collect();
        let beats = self
            .beats
            .iter()
            .filter_map(|(channel, beat)| match beat.body() {
                Body::Beat(beat) => Some(self.named(channel, beat)),
                _ => None,
            });
        lines()
            .map(|line| (&line.channel, line.head))
            .chain(
                beats
                    .flatten()
                    .filter(move |(channel, _)| !own.contains(channel)),
            )
            .filter(|(channel, _)| !channel.is_beat() && !channel.is_trust())
    }
    /// The beats that its checkpoints name and that are not at hand: they are to be read, each at
    /// the very serial.
    pub fn missing_beats(&self) -> impl Iterator<Item = (&Channel, Head)> {
        let of_a_role = |channel: &Channel| self.role(Kind::Beat, channel).is_some();
        let named = self
            .rules()
            .checkpoints
            .iter()
            .filter(move |c| c.channel.is_beat() && of_a_role(&c.channel));
        named
            .filter(|c| !self.beats.contains_key(&c.channel))
            .map(|c| (&c.channel, c.head))
    }
    /// The beat of a beat channel that a checkpoint names.
    pub fn named_beat(&self, channel: &Channel) -> Option<Head> {
        let named = self
            .rules()
            .checkpoints
            .iter()
            .find(|c| c.channel == *channel)?;
        (channel.is_beat() && self.role(Kind::Beat, channel).is_some()).then_some(named.head)
    }
    /// Proves a beat that a checkpoint names: its id is the proof.
    pub fn verify_settled_beat(&self, statement: Statement) -> Option<Verified<Statement>> {
        let named = self.named_beat(statement.channel()) == Some(statement.head())
            && statement.kind() == Kind::Beat;
        named.then(|| Verified::new(statement))
    }
    /// Takes a beat that a checkpoint names; its id is the proof, and another one is not taken.
    pub fn take_settled_beat(&mut self, statement: Statement) -> bool {
        let named = self
            .rules()
            .checkpoints
            .iter()
            .any(|c| c.channel == *statement.channel() && c.head == statement.head());
        let taken =
            named && statement.kind() == Kind::Beat && statement.unknown_critical().is_none();
        if taken {
            self.beats.insert(statement.channel().clone(), statement);
        }
        taken
    }
    /// The beats that its checkpoints name, as far as they are at hand.
    pub fn settled_beats(&self) -> impl Iterator<Item = &Statement> {
        self.beats.values()
    }
    /// What a beat says, as far as it may: its heads of channels whose most specific beat role is
    /// that of its channel, and that of the trust log.
    pub fn named<'a>(
        &'a self,
        beats: &'a Channel,
        beat: &'a Beat,
    ) -> impl Iterator<Item = (&'a Channel, Head)> {
        let may = |channel: &Channel| {
            self.beat_channel(channel).as_ref() == Some(beats)
                || channel == self.statement.channel()
        };
        beat.heads
            .iter()
            .filter(move |(channel, _)| may(channel))
            .map(|(channel, head)| (channel, *head))
    }
}
