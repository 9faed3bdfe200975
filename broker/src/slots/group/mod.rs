//! One group of machines: who is down, who waits, who has failed. A pure function of what is asked
//! and of the time.

mod ask;
#[cfg(test)]
mod tests;

pub(crate) use ask::{Answer, Ask, Asker, Lost};

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tidings_protocol::{Serial, Timestamp};

use crate::{
    config::Rules,
    limits::{SLOT_HISTORY, SLOT_PATIENCE, SLOT_RENEWALS, SLOT_WAITERS},
};

/// A node that is down, or about to go down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) node: String,
    by: String,
    /// None if the node has named none, as a plain FleetLock client does.
    pub(crate) serial: Option<u32>,
    token: u64,
    pub(crate) since: u64,
    /// When the lease began that runs now; how long it is the present configuration says (attack
    /// 76).
    pub(crate) renewed: u64,
    /// How often the token was asked about.
    held: u32,
}

impl Holder {
    fn seconds_left(&self, rules: Rules, now: u64) -> u64 {
        self.renewed.saturating_add(rules.lease).saturating_sub(now)
    }
    fn is(&self, asker: Asker<'_>) -> bool {
        self.node == asker.node && self.by == asker.by
    }
}

/// A node whose request is held until its turn comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiter {
    pub(crate) node: String,
    pub(crate) since: u64,
    /// It loses its place then, unless a broker still holds its request.
    until: u64,
    /// That of its last request; an earlier version kept none.
    #[serde(default)]
    nonce: u32,
}

/// A node whose lease has run out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) node: String,
    by: String,
    pub(crate) serial: Option<u32>,
    token: u64,
    pub(crate) at: u64,
    /// When it was heard of again.
    pub(crate) returned: Option<u64>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) at: u64,
    pub(crate) what: What,
    pub(crate) node: String,
    pub(crate) token: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    Taken,
    /// The same node has asked again, and has a new token.
    Retaken,
    Freed,
    Failed,
    Returned,
    Cleared,
}

/// What is stored of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// How many tokens were given.
    tokens: u32,
    pub(crate) holders: Vec<Holder>,
    pub(crate) waiting: VecDeque<Waiter>,
    pub(crate) failed: Vec<Failure>,
    pub(crate) history: VecDeque<Event>,
}

impl Group {
    /// Decides. What leases and places have become by now counts in any case.
    pub(crate) fn answer(
        &mut self,
        rules: Rules,
        now: Timestamp,
        asker: Asker<'_>,
        ask: Ask,
    ) -> Answer {
        self.advance(rules, now);
        match ask {
            // The machine has crashed, say, and has asked anew: what was given to that request
            // stays its own.
            Ask::Take {
                nonce, again: true, ..
            } if self.is_superseded(asker.node, nonce) => Answer::Lost(Lost::Replaced),
            Ask::Take {
                serial,
                held,
                nonce,
                ..
            } => self.take(rules, now, asker, serial, held, nonce),
            Ask::Hold { serial, token } => self.hold(rules, now, asker, serial, token),
            Ask::Free { token } => self.free(now, asker, token),
            Ask::Clear => self.clear(now, asker.node),
            Ask::Leave { nonce } => {
                // It may have come back by another connection, or at another broker.
                let gone = |waiter: &Waiter| waiter.node == asker.node && waiter.nonce == nonce;
                self.waiting.retain(|waiter| !gone(waiter));
                Answer::Free
            }
            Ask::Look => Answer::Free,
        }
    }

    fn note(&mut self, now: u64, what: What, node: &str, token: u64) {
        // A node that asks again and again does not push everything else out.
        if what == What::Retaken
            && let Some(last) = self.history.back_mut()
            && last.what == what
            && last.node == node
        {
            (last.at, last.token) = (now, token);
            return;
        }
        self.history.push_back(Event {
            at: now,
            what,
            node: node.into(),
            token,
        });
        while self.history.len() > SLOT_HISTORY {
            self.history.pop_front();
        }
    }

    /// Leases that have run out are failures, and places whose requests are gone are given up.
    pub(crate) fn advance(&mut self, rules: Rules, now: Timestamp) {
        let now = now.seconds();
        self.waiting.retain(|waiter| waiter.until > now);
        let (gone, held) = std::mem::take(&mut self.holders)
            .into_iter()
            .partition(|holder| holder.seconds_left(rules, now) == 0);
        self.holders = held;
        for Holder {
            node,
            by,
            serial,
            token,
            ..
        } in gone
        {
            self.note(now, What::Failed, &node, token);
            self.failed.retain(|failure| failure.node != node);
            self.failed.push(Failure {
                node,
                by,
                serial,
                token,
                at: now,
                returned: None,
            });
        }
    }

    /// A failed node is down until it is heard of again, or an operator has looked at it.
    fn down(&self) -> usize {
        self.holders.len()
            + self
                .failed
                .iter()
                .filter(|failure| failure.returned.is_none())
                .count()
    }

    /// Greater than every one before, and not to be guessed.
    fn next_token(&mut self, nonce: u32) -> u64 {
        self.tokens = self.tokens.saturating_add(1).min(i32::MAX.unsigned_abs());
        u64::from(self.tokens) << 32 | u64::from(nonce)
    }

    /// How many nodes are before one that has no slot.
    fn before(&self, node: &str) -> usize {
        let place = self.waiting.iter().position(|waiter| waiter.node == node);
        place.unwrap_or(self.waiting.len())
    }

    /// The same, and how many have to come back first.
    pub(crate) fn position(&self, rules: Rules, node: &str) -> usize {
        self.before(node) + self.down().saturating_sub(rules.max.saturating_sub(1))
    }

    /// As many have failed as may. One that has failed may fail again and again: it gets no slot
    /// either, until an operator has looked.
    fn is_stopped(&self, rules: Rules, node: &str) -> bool {
        self.failed.len() >= rules.failures
            || self.failed.iter().any(|failure| failure.node == node)
    }

    /// Whether the answer to a node that waits would be another one now.
    pub(crate) fn is_due(&self, rules: Rules, node: &str) -> bool {
        self.down() + self.before(node) < rules.max
            || self.is_stopped(rules, node)
            || self.holders.iter().any(|holder| holder.node == node)
    }

    /// A slot for a node; one that has it gets it again, with another token, and for as long as it
    /// still had. If there is none, it gets a place in the queue if its request is held.
    fn take(
        &mut self,
        rules: Rules,
        now: Timestamp,
        asker: Asker<'_>,
        serial: Option<Serial>,
        held: bool,
        nonce: u32,
    ) -> Answer {
        let (now, serial, node) = (now.seconds(), serial.map(Serial::number), asker.node);
        if let Some(at) = self.holders.iter().position(|holder| holder.node == node) {
            if !self.holders[at].is(asker) || self.holders[at].serial != serial {
                return Answer::Lost(Lost::Other);
            }
            let token = self.next_token(nonce);
            self.holders[at].token = token;
            self.note(now, What::Retaken, node, token);
            return Answer::Yours {
                token,
                seconds: self.holders[at].seconds_left(rules, now),
                first: false,
            };
        }
        self.heard_of(now, |failure| {
            failure.node == node && failure.by == asker.by
        });
        if self.is_stopped(rules, node) {
            return Answer::Stopped {
                failed: self.failed.len(),
            };
        }
        if self.down() + self.before(node) >= rules.max {
            let before = self.position(rules, node);
            if held {
                self.wait(now, node, nonce);
            }
            return Answer::Wait { before };
        }
        self.waiting.retain(|waiter| waiter.node != node);
        let token = self.next_token(nonce);
        self.note(now, What::Taken, node, token);
        self.holders.push(Holder {
            node: node.to_owned(),
            by: asker.by.to_owned(),
            serial,
            token,
            since: now,
            renewed: now,
            held: 0,
        });
        Answer::Yours {
            token,
            seconds: rules.lease,
            first: true,
        }
    }

    /// Whether a request that was held is not the last one of its node any more.
    fn is_superseded(&self, node: &str, nonce: u32) -> bool {
        match self.waiting.iter().find(|waiter| waiter.node == node) {
            Some(waiter) => waiter.nonce != nonce,
            None => self.holders.iter().any(|holder| holder.node == node),
        }
    }

    /// A request of a node is held still: its place is kept, and stays that of the last one.
    pub(crate) fn keep(&mut self, now: u64, node: &str, nonce: u32) {
        let waiter = self.waiting.iter().find(|waiter| waiter.node == node);
        let last = waiter.map_or(nonce, |waiter| waiter.nonce);
        self.wait(now, node, last);
    }

    /// The request of a node is held: it keeps its place, or gets one.
    fn wait(&mut self, now: u64, node: &str, nonce: u32) {
        let patience = SLOT_PATIENCE.as_secs();
        let until = now.saturating_add(patience);
        if let Some(waiter) = self.waiting.iter_mut().find(|waiter| waiter.node == node) {
            waiter.nonce = nonce;
            // Not each time: what is kept is written anew for it.
            if waiter.until < now.saturating_add(patience / 2) {
                waiter.until = until;
            }
            return;
        }
        // Beyond what is remembered everybody is the last.
        if self.waiting.len() < SLOT_WAITERS
            && self.holders.iter().all(|holder| holder.node != node)
        {
            self.waiting.push_back(Waiter {
                node: node.into(),
                since: now,
                until,
                nonce,
            });
        }
    }

    /// A node that counts as failed is alive; that it was late is for an operator to judge.
    fn heard_of(&mut self, now: u64, is_it: impl Fn(&Failure) -> bool) {
        if let Some(failure) = self
            .failed
            .iter_mut()
            .find(|failure| is_it(failure) && failure.returned.is_none())
        {
            failure.returned = Some(now);
            let (node, token) = (failure.node.clone(), failure.token);
            self.note(now, What::Returned, &node, token);
        }
    }

    fn lost(&self, node: &str, token: u64) -> Lost {
        if self
            .failed
            .iter()
            .any(|failure| failure.node == node && failure.token == token)
        {
            return Lost::Failed;
        }
        if self.holders.iter().any(|holder| holder.node == node) {
            Lost::Replaced
        } else {
            Lost::Unknown
        }
    }

    /// Whether a token counts, for the serial too if there is one; the lease begins anew, though
    /// not for ever.
    fn hold(
        &mut self,
        rules: Rules,
        now: Timestamp,
        asker: Asker<'_>,
        serial: Option<Serial>,
        token: u64,
    ) -> Answer {
        let now = now.seconds();
        if let Some(holder) = self
            .holders
            .iter_mut()
            .find(|holder| holder.is(asker) && holder.token == token)
        {
            if serial.is_some_and(|serial| holder.serial != Some(serial.number())) {
                return Answer::Lost(Lost::Other);
            }
            if holder.held < SLOT_RENEWALS {
                holder.renewed = now;
            }
            // Something changes each time: only what is written counts as the present state.
            holder.held = holder.held.wrapping_add(1).max(1);
            return Answer::Yours {
                token,
                seconds: holder.seconds_left(rules, now),
                first: false,
            };
        }
        self.heard_of(now, |failure| {
            failure.node == asker.node && failure.by == asker.by && failure.token == token
        });
        Answer::Lost(self.lost(asker.node, token))
    }

    /// A node is back; without a token, only what was taken without a serial.
    fn free(&mut self, now: Timestamp, asker: Asker<'_>, token: Option<u64>) -> Answer {
        let (now, node) = (now.seconds(), asker.node);
        let is_its = |holder: &Holder| {
            holder.is(asker) && token.map_or(holder.serial.is_none(), |token| holder.token == token)
        };
        if let Some(at) = self.holders.iter().position(is_its) {
            let token = self.holders.remove(at).token;
            self.note(now, What::Freed, node, token);
            return Answer::Free;
        }
        let by_token = |failure: &Failure| {
            token.map_or(failure.serial.is_none(), |token| failure.token == token)
        };
        self.heard_of(now, |failure| {
            failure.node == node && failure.by == asker.by && by_token(failure)
        });
        let Some(token) = token else {
            return Answer::Free;
        };
        // Whoever asks again after a broken connection gets the same answer.
        let freed =
            |event: &Event| event.what == What::Freed && event.node == node && event.token == token;
        if self.history.iter().any(freed) {
            Answer::Free
        } else {
            Answer::Lost(self.lost(node, token))
        }
    }

    /// An operator has looked at a node: it is not down, does not wait and has not failed.
    fn clear(&mut self, now: Timestamp, node: &str) -> Answer {
        let before = (self.holders.len(), self.waiting.len(), self.failed.len());
        self.holders.retain(|holder| holder.node != node);
        self.waiting.retain(|waiter| waiter.node != node);
        self.failed.retain(|failure| failure.node != node);
        if before == (self.holders.len(), self.waiting.len(), self.failed.len()) {
            return Answer::Lost(Lost::Unknown);
        }
        self.note(now.seconds(), What::Cleared, node, 0);
        Answer::Free
    }

    /// Whether anything is under way, or waits for an operator.
    pub(crate) fn state(&self, rules: Rules) -> &'static str {
        match () {
            () if self.failed.len() >= rules.failures => "stopped",
            () if self.down() + self.waiting.len() > 0 => "busy",
            () => "idle",
        }
    }
}
