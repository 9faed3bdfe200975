//! What the live beats of a namespace name: at a mirror they decide between branches.

use std::collections::HashMap;

use tidings_protocol::{
    Channel, Head, Timestamp,
    limits::{BEAT_LIFE_SECONDS, FUTURE_SECONDS},
    statement::Body,
    trust::Trust,
};

use crate::log::{logs::Logs, store::Store};

/// The newest beat of a channel, as far as it is proven.
pub(crate) struct Newest {
    beat: Head,
    trust: Head,
    pub(crate) heads: HashMap<Channel, Head>,
    /// Until when it is live.
    pub(crate) until: Timestamp,
    pub(crate) time: Timestamp,
    pub(crate) arrived: Timestamp,
}

impl Newest {
    /// Whether it is live: only one that names the trust in force is.
    pub(crate) fn is_live(&self, trust: &Trust, now: Timestamp) -> bool {
        let of_trust = self.heads.get(trust.statement().channel()) == Some(&trust.head());
        now < self.until && self.time <= now.plus(FUTURE_SECONDS) && of_trust
    }
}

/// The newest beats.
#[derive(Default)]
pub(crate) struct LiveBeats(HashMap<Channel, Newest>);

impl LiveBeats {
    /// What the live beat names for a channel.
    pub(crate) fn named(
        &mut self,
        logs: &Logs,
        store: &Store,
        trust: &Trust,
        channel: &Channel,
        now: Timestamp,
    ) -> Option<Head> {
        let beats = trust
            .beat_channel(channel)
            .filter(|_| !channel.is_beat() && !channel.is_trust())?;
        let newest = self.newest(logs, store, trust, &beats)?;
        let named = newest.heads.get(channel).copied();
        named.filter(|_| newest.is_live(trust, now))
    }

    /// The newest beat of a beat channel, live or not, if the trust in force proves it.
    pub(crate) fn newest(
        &mut self,
        logs: &Logs,
        store: &Store,
        trust: &Trust,
        beats: &Channel,
    ) -> Option<&Newest> {
        let head = logs.get(beats.as_str())?.marks().head;
        let known = self
            .0
            .get(beats)
            .filter(|newest| newest.beat == head && newest.trust == trust.head());
        if known.is_none() {
            match read(logs, store, trust, beats, head) {
                Some(newest) => drop(self.0.insert(beats.clone(), newest)),
                None => drop(self.0.remove(beats)),
            }
        }
        self.0.get(beats)
    }
}

fn read(logs: &Logs, store: &Store, trust: &Trust, beats: &Channel, head: Head) -> Option<Newest> {
    let statement = store.get(beats, head.serial).ok()??.statement;
    let Body::Beat(beat) = statement.body() else {
        return None;
    };
    if trust.check(&statement).is_err() || statement.unknown_critical().is_some() {
        return None;
    }
    let arrived = logs.get(beats.as_str())?.arrived(head.serial).ok()??;
    let life = beat
        .expires
        .seconds()
        .saturating_sub(statement.time().seconds())
        .min(BEAT_LIFE_SECONDS);
    // For as long from first sight as from its time.
    let until = statement.time().plus(life).min(arrived.plus(life));
    let heads = beat.heads.iter().cloned().collect();
    Some(Newest {
        beat: head,
        trust: trust.head(),
        heads,
        until,
        time: statement.time(),
        arrived,
    })
}
