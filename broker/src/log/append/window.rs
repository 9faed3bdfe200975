//! What peers have sent before what lies below it: it waits here until it hangs together with the
//! log, and is answered then.
//!
//! A peer that sends no more before it has an answer is stalled: then its statements begin a
//! backfill, or have to be sent again.

use std::collections::BTreeMap;

use tidings_protocol::{Channel, Head, Serial, trust::Trust};

use super::{Appended, Copy, Peer, Reply};
use crate::limits::FEED_WAITING_OCTETS;

/// One statement that waits.
pub(super) struct Waiting {
    pub(super) copy: Copy,
    /// Whether the trust in force proves it by its own signatures, or names it.
    own: bool,
    replies: Vec<(Peer, Reply<Appended>)>,
}

impl Waiting {
    fn head(&self) -> Head {
        self.copy.statement().head()
    }
    /// What it is, and who is to be told.
    pub(super) fn split(self) -> (Copy, Vec<Reply<Appended>>) {
        (
            self.copy,
            self.replies.into_iter().map(|(_, reply)| reply).collect(),
        )
    }
}

/// Whether a checkpoint of the trust in force names a statement: whoever signed it, it stands, and
/// vouches for what lies below.
pub(super) fn is_named(trust: &Trust, channel: &Channel, head: Head) -> bool {
    trust.checkpoint(channel).head() == Some(head)
}

/// All that waits.
#[derive(Default)]
pub(super) struct Window {
    channels: BTreeMap<Channel, BTreeMap<Serial, Waiting>>,
    octets: usize,
}

impl Window {
    /// Whether anything of a channel waits.
    pub(super) fn has(&self, channel: &Channel) -> bool {
        self.channels.contains_key(channel)
    }

    /// The channels of which something waits that a peer has sent, or anybody.
    pub(super) fn channels(&self, peer: Option<Peer>) -> Vec<Channel> {
        let of = |waiting: &Waiting| {
            peer.is_none_or(|peer| waiting.replies.iter().any(|(known, _)| *known == peer))
        };
        self.channels
            .iter()
            .filter(|(_, all)| all.values().any(of))
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    /// Whether what waits vouches for a statement: the next one does, which names it, and is
    /// vouched for, or proven.
    pub(super) fn vouches_for(&self, channel: &Channel, head: Head) -> bool {
        let Some(all) = self.channels.get(channel) else {
            return false;
        };
        let mut named = head;
        while let Some(above) = named.serial.next().and_then(|next| all.get(&next)) {
            if above.copy.statement().predecessor() != Some(named) {
                return false;
            }
            if above.own {
                return true;
            }
            named = above.head();
        }
        false
    }

    /// Has a statement wait, if there is room, and nothing else waits in its place.
    pub(super) fn put(
        &mut self,
        copy: Copy,
        own: bool,
        peer: Peer,
        reply: Reply<Appended>,
    ) -> Result<(), Reply<Appended>> {
        let (head, octets) = (copy.statement().head(), copy.statement().octets().len());
        let all = self
            .channels
            .entry(copy.statement().channel().clone())
            .or_default();
        match all.get_mut(&head.serial) {
            Some(there) if there.head() == head => there.replies.push((peer, reply)),
            Some(_) => return Err(reply),
            None if self.octets + octets > FEED_WAITING_OCTETS => return Err(reply),
            None => {
                self.octets += octets;
                all.insert(
                    head.serial,
                    Waiting {
                        copy,
                        own,
                        replies: vec![(peer, reply)],
                    },
                );
            }
        }
        Ok(())
    }

    /// Judges what waits by another trust.
    pub(super) fn judge(&mut self, channel: &Channel, trust: &Trust) {
        for waiting in self
            .channels
            .get_mut(channel)
            .into_iter()
            .flat_map(BTreeMap::values_mut)
        {
            waiting.own = is_named(trust, channel, waiting.head())
                || trust.check(waiting.copy.statement()).is_ok();
        }
    }

    /// What has been overtaken by the log.
    pub(super) fn overtaken(&mut self, channel: &Channel, head: Head) -> Vec<Waiting> {
        let Some(all) = self.channels.get(channel) else {
            return Vec::new();
        };
        let serials: Vec<Serial> = all
            .range(..=head.serial)
            .map(|(serial, _)| *serial)
            .collect();
        self.remove(channel, &serials)
    }

    /// What follows a head, oldest first, up to the last that proves itself.
    pub(super) fn above(&mut self, channel: &Channel, head: Option<Head>) -> Vec<Waiting> {
        let Some(all) = self.channels.get(channel) else {
            return Vec::new();
        };
        let (mut before, mut found, mut proven) = (head, Vec::new(), 0);
        let mut next = head.map_or(Some(Serial::FIRST), |head| head.serial.next());
        while let Some(waiting) = next.and_then(|next| all.get(&next)) {
            if waiting.copy.statement().predecessor() != before {
                break;
            }
            before = Some(waiting.head());
            found.push(waiting.head().serial);
            if waiting.own {
                proven = found.len();
            }
            next = waiting.head().serial.next();
        }
        found.truncate(proven);
        self.remove(channel, &found)
    }

    /// What ends with a statement, oldest first.
    pub(super) fn below(&mut self, channel: &Channel, named: Option<Head>) -> Vec<Waiting> {
        let Some(all) = self.channels.get(channel) else {
            return Vec::new();
        };
        let (mut next, mut found) = (named, Vec::new());
        while let Some((head, waiting)) = next.and_then(|head| Some((head, all.get(&head.serial)?)))
        {
            if waiting.head() != head {
                break;
            }
            found.push(head.serial);
            next = waiting.copy.statement().predecessor();
        }
        found.reverse();
        self.remove(channel, &found)
    }

    /// The highest that proves itself, and all that hangs together below it, oldest first.
    pub(super) fn top(&mut self, channel: &Channel) -> Vec<Waiting> {
        let top = self
            .channels
            .get(channel)
            .and_then(|all| all.values().rfind(|waiting| waiting.own))
            .map(Waiting::head);
        self.below(channel, top)
    }

    /// What a peer has sent.
    pub(super) fn of_peer(&mut self, channel: &Channel, peer: Peer) -> Vec<Waiting> {
        let Some(all) = self.channels.get(channel) else {
            return Vec::new();
        };
        let of_peer = |waiting: &&Waiting| waiting.replies.iter().any(|(known, _)| *known == peer);
        let serials: Vec<Serial> = all
            .values()
            .filter(of_peer)
            .map(|waiting| waiting.head().serial)
            .collect();
        self.remove(channel, &serials)
    }

    /// Forgets what nobody waits for any more: its peers are gone.
    pub(super) fn forget_the_gone(&mut self) {
        let gone = |all: &BTreeMap<Serial, Waiting>| -> Vec<Serial> {
            let nobody =
                |waiting: &&Waiting| waiting.replies.iter().all(|(_, reply)| reply.is_closed());
            all.values()
                .filter(nobody)
                .map(|waiting| waiting.head().serial)
                .collect()
        };
        let gone: Vec<_> = self
            .channels
            .iter()
            .map(|(channel, all)| (channel.clone(), gone(all)))
            .collect();
        gone.iter()
            .for_each(|(channel, serials)| drop(self.remove(channel, serials)));
    }

    fn remove(&mut self, channel: &Channel, serials: &[Serial]) -> Vec<Waiting> {
        let Some(all) = self.channels.get_mut(channel) else {
            return Vec::new();
        };
        let found: Vec<Waiting> = serials
            .iter()
            .filter_map(|serial| all.remove(serial))
            .collect();
        self.octets -= found
            .iter()
            .map(|waiting| waiting.copy.statement().octets().len())
            .sum::<usize>();
        if all.is_empty() {
            self.channels.remove(channel);
        }
        found
    }
}
