//! What the live beats of a namespace name: at a mirror they decide between branches.

use std::collections::HashMap;

use tidings_protocol::{
    Channel, Head, Timestamp,
    limits::{BEAT_LIFE_SECONDS, FUTURE_SECONDS},
    statement::Body,
    trust::Trust,
};

use crate::{logs::Logs, store::Store};

/// The newest beat of a channel, as far as it is proven.
struct Newest {
    beat: Head,
    trust: Head,
    heads: HashMap<Channel, Head>,
    /// Until when it is live.
    until: Timestamp,
    time: Timestamp,
}

/// The newest beats.
#[derive(Default)]
pub(crate) struct LiveBeats(HashMap<Channel, Newest>);

impl LiveBeats {
    /// What the live beat names for a channel; only one that names the trust in force is.
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
        let head = logs.get(beats.as_str())?.marks().head;
        let known = self
            .0
            .get(&beats)
            .filter(|newest| newest.beat == head && newest.trust == trust.head());
        if known.is_none() {
            match read(logs, store, trust, &beats, head) {
                Some(newest) => drop(self.0.insert(beats.clone(), newest)),
                None => drop(self.0.remove(&beats)),
            }
        }
        let newest = self.0.get(&beats)?;
        let live = now < newest.until && newest.time <= now.plus(FUTURE_SECONDS);
        let of_trust = newest.heads.get(trust.statement().channel()) == Some(&trust.head());
        newest
            .heads
            .get(channel)
            .copied()
            .filter(|_| live && of_trust)
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
    })
}
