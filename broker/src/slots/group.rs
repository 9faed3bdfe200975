//! One group of machines: who is down, who waits, who has failed. A pure function of what is asked
//! and of the time.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tidings_protocol::{Serial, Timestamp};

use crate::{
    config::Rules,
    limits::{SLOT_HISTORY, SLOT_RENEWALS, SLOT_WAITERS},
};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) node: &'a str,
    /// As whom the broker knows it: what one has taken, another one cannot take again or free
    /// (attack 77).
    pub(crate) by: &'a str,
}

/// A node that is down, or about to go down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) node: String,
    by: String,
    /// None if it came by FleetLock, which knows none.
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

/// A node that has asked and has to ask again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiter {
    pub(crate) node: String,
    pub(crate) since: u64,
    /// Without another request it loses its place then.
    pub(crate) until: u64,
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

impl What {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            What::Taken => "taken",
            What::Retaken => "retaken",
            What::Freed => "freed",
            What::Failed => "failed",
            What::Returned => "returned",
            What::Cleared => "cleared",
        }
    }
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

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The token, and for how many seconds.
    Yours {
        token: u64,
        seconds: u64,
    },
    Free,
    /// So many are before the node.
    Wait {
        before: usize,
    },
    /// As many have failed as may.
    Stopped {
        failed: usize,
    },
    /// The token does not count.
    Lost(Lost),
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It ran out; the node counts as failed.
    Failed,
    /// The same node has another one by now.
    Replaced,
    /// The node has a slot that was taken by somebody else, for another serial, or by FleetLock.
    Other,
    /// There is no such thing.
    Unknown,
}

impl Group {
    fn note(&mut self, now: u64, what: What, node: &str, token: u64) {
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

    /// Leases that have run out are failures, and those who have not asked for long do not wait any
    /// more.
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

    /// A slot for a node; one that has it gets it again, with another token, and for as long as it
    /// still had. It waits for `patience` seconds without asking again.
    pub(crate) fn take(
        &mut self,
        rules: Rules,
        now: Timestamp,
        asker: Asker<'_>,
        serial: Option<Serial>,
        patience: u64,
        nonce: u32,
    ) -> Answer {
        self.advance(rules, now);
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
            };
        }
        self.heard_of(now, |failure| {
            failure.node == node && failure.by == asker.by
        });
        // One that has failed may fail again and again: it gets none either, until somebody has
        // looked.
        if self.failed.len() >= rules.failures
            || self.failed.iter().any(|failure| failure.node == node)
        {
            return Answer::Stopped {
                failed: self.failed.len(),
            };
        }
        let place = self.waiting.iter().position(|waiter| waiter.node == node);
        let before = place.unwrap_or(self.waiting.len());
        if self.down() + before >= rules.max {
            let until = now.saturating_add(patience);
            match place {
                // Not at every request: what is kept is written anew each time.
                Some(place) if self.waiting[place].until < now.saturating_add(patience * 2 / 3) => {
                    self.waiting[place].until = until
                }
                Some(_) => {}
                // Beyond what is remembered everybody is the last.
                None if self.waiting.len() < SLOT_WAITERS => self.waiting.push_back(Waiter {
                    node: node.into(),
                    since: now,
                    until,
                }),
                None => {}
            }
            return Answer::Wait {
                before: before + self.down().saturating_sub(rules.max.saturating_sub(1)),
            };
        }
        self.waiting.retain(|waiter| waiter.node != node);
        let token = self.next_token(nonce);
        let (node, by) = (node.to_owned(), asker.by.to_owned());
        self.note(now, What::Taken, &node, token);
        self.holders.push(Holder {
            node,
            by,
            serial,
            token,
            since: now,
            renewed: now,
            held: 0,
        });
        Answer::Yours {
            token,
            seconds: rules.lease,
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

    /// Whether a token counts; the lease begins anew, though not for ever.
    pub(crate) fn hold(
        &mut self,
        rules: Rules,
        now: Timestamp,
        asker: Asker<'_>,
        token: u64,
    ) -> Answer {
        self.advance(rules, now);
        let now = now.seconds();
        if let Some(holder) = self
            .holders
            .iter_mut()
            .find(|holder| holder.is(asker) && holder.token == token)
        {
            if holder.held < SLOT_RENEWALS {
                holder.renewed = now;
            }
            // Something changes each time: only what is written counts as the present state.
            holder.held = holder.held.wrapping_add(1).max(1);
            return Answer::Yours {
                token,
                seconds: holder.seconds_left(rules, now),
            };
        }
        self.heard_of(now, |failure| {
            failure.node == asker.node && failure.by == asker.by && failure.token == token
        });
        Answer::Lost(self.lost(asker.node, token))
    }

    /// A node is back; without a token, as FleetLock has it, only what was taken that way.
    pub(crate) fn free(
        &mut self,
        rules: Rules,
        now: Timestamp,
        asker: Asker<'_>,
        token: Option<u64>,
    ) -> Answer {
        self.advance(rules, now);
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
    pub(crate) fn clear(&mut self, rules: Rules, now: Timestamp, node: &str) -> Answer {
        self.advance(rules, now);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        max: 2,
        lease: 100,
        failures: 2,
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn asker(node: &str) -> Asker<'_> {
        Asker { node, by: "-" }
    }

    fn take(group: &mut Group, now: u64, node: &str) -> Answer {
        group.take(RULES, at(now), asker(node), Serial::new(7), 60, 0)
    }

    fn token(answer: Answer) -> u64 {
        match answer {
            Answer::Yours { token, .. } => token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slots_are_given_in_the_order_of_asking() {
        let mut group = Group::default();
        let (a, b) = (
            token(take(&mut group, 0, "a")),
            token(take(&mut group, 0, "b")),
        );
        assert!(b > a);
        assert_eq!(take(&mut group, 1, "c"), Answer::Wait { before: 1 });
        assert_eq!(take(&mut group, 2, "d"), Answer::Wait { before: 2 });
        assert_eq!(group.free(RULES, at(3), asker("a"), Some(a)), Answer::Free);
        // Whoever came later does not overtake.
        assert_eq!(take(&mut group, 4, "d"), Answer::Wait { before: 1 });
        assert!(token(take(&mut group, 5, "c")) > b);
        // Asking again for what is free is no harm, and frees nothing that somebody else has.
        assert_eq!(group.free(RULES, at(6), asker("a"), Some(a)), Answer::Free);
        assert_eq!(group.holders.len(), 2);
    }

    #[test]
    fn one_who_does_not_ask_again_loses_its_place() {
        let mut group = Group::default();
        let a = token(take(&mut group, 0, "a"));
        take(&mut group, 0, "b");
        take(&mut group, 0, "c");
        take(&mut group, 50, "d");
        group.free(RULES, at(61), asker("a"), Some(a));
        token(take(&mut group, 61, "d"));
        assert_eq!(take(&mut group, 62, "c"), Answer::Wait { before: 1 });
    }

    #[test]
    fn a_node_that_comes_back_has_its_slot_and_another_token() {
        let mut group = Group::default();
        let before = token(take(&mut group, 0, "a"));
        let after = token(take(&mut group, 99, "a"));
        assert!(after > before && group.holders.len() == 1);
        // A second machine with the same name: the first must not go down.
        assert_eq!(
            group.hold(RULES, at(99), asker("a"), before),
            Answer::Lost(Lost::Replaced)
        );
        assert_eq!(
            group.free(RULES, at(99), asker("a"), Some(before)),
            Answer::Lost(Lost::Replaced)
        );
        assert_eq!(
            group.hold(RULES, at(99), asker("a"), after),
            Answer::Yours {
                token: after,
                seconds: 100
            }
        );
        assert_eq!(
            group.free(RULES, at(198), asker("a"), Some(after)),
            Answer::Free
        );
    }

    #[test]
    fn a_lease_that_runs_out_is_a_failure_and_enough_of_them_stop_the_group() {
        let mut group = Group::default();
        let a = token(take(&mut group, 0, "a"));
        take(&mut group, 50, "b");
        // It is down, and not free.
        assert_eq!(take(&mut group, 100, "c"), Answer::Wait { before: 1 });
        assert_eq!(
            group.hold(RULES, at(101), asker("a"), a),
            Answer::Lost(Lost::Failed)
        );
        // It is alive, so another one may go down; that it was late counts all the same.
        let c = token(take(&mut group, 102, "c"));
        assert_eq!(take(&mut group, 150, "d"), Answer::Stopped { failed: 2 });
        // Who is down already may come back.
        assert_eq!(
            group.free(RULES, at(151), asker("c"), Some(c)),
            Answer::Free
        );
        assert_eq!(take(&mut group, 152, "c"), Answer::Stopped { failed: 2 });
        // The limits are those of now, whatever they were, and so is the lease.
        let larger = Rules {
            failures: 3,
            max: 3,
            ..RULES
        };
        assert_eq!(larger.lease, 100);
        token(group.take(larger, at(153), asker("d"), None, 60, 0));
        assert_eq!(take(&mut group, 154, "e"), Answer::Stopped { failed: 2 });
        assert_eq!(group.clear(RULES, at(155), "a"), Answer::Free);
        assert_eq!(
            group.clear(RULES, at(155), "a"),
            Answer::Lost(Lost::Unknown)
        );
        assert_eq!(take(&mut group, 156, "e"), Answer::Wait { before: 1 });
        assert_eq!(group.clear(RULES, at(157), "b"), Answer::Free);
        token(take(&mut group, 158, "e"));
    }

    #[test]
    fn the_lease_is_that_of_the_present_configuration() {
        let mut group = Group::default();
        take(&mut group, 0, "a");
        let (longer, shorter) = (
            Rules {
                lease: 1_000,
                ..RULES
            },
            Rules { lease: 10, ..RULES },
        );
        group.advance(longer, at(500));
        assert_eq!(group.holders.len(), 1);
        group.advance(shorter, at(500));
        assert_eq!((group.holders.len(), group.failed.len()), (0, 1));
    }

    #[test]
    fn a_machine_that_loops_fails_in_the_end() {
        let mut group = Group::default();
        let mut now = 0;
        while let Answer::Yours { token, .. } = take(&mut group, now, "a") {
            now += 50;
            group.hold(RULES, at(now), asker("a"), token);
            assert!(now < 1_000, "its lease never runs out");
        }
        assert_eq!(group.failed.len(), 1);
        token(take(&mut group, now, "b"));
    }

    #[test]
    fn what_one_has_taken_another_one_does_not_take_again_or_free() {
        let mut group = Group::default();
        let mine = Asker {
            node: "a",
            by: "mine",
        };
        let token = token(group.take(RULES, at(0), mine, Serial::new(7), 60, 5));
        assert_eq!(take(&mut group, 1, "a"), Answer::Lost(Lost::Other));
        assert_eq!(
            group.free(RULES, at(1), asker("a"), Some(token)),
            Answer::Lost(Lost::Replaced)
        );
        assert_eq!(group.free(RULES, at(1), asker("a"), None), Answer::Free);
        assert_eq!(
            group.hold(RULES, at(1), asker("a"), token),
            Answer::Lost(Lost::Replaced)
        );
        // Nor for another serial, nor by FleetLock.
        assert_eq!(
            group.take(RULES, at(1), mine, Serial::new(8), 60, 6),
            Answer::Lost(Lost::Other)
        );
        assert_eq!(
            group.take(RULES, at(1), mine, None, 60, 7),
            Answer::Lost(Lost::Other)
        );
        assert_eq!(group.holders.len(), 1);
        // Nor makes one a dead machine of another alive.
        group.advance(RULES, at(200));
        take(&mut group, 201, "a");
        group.free(RULES, at(201), asker("a"), Some(token));
        assert_eq!(group.failed[0].returned, None);
        group.hold(RULES, at(202), mine, token);
        assert_eq!(group.failed[0].returned, Some(202));
    }

    #[test]
    fn without_a_token_only_what_was_taken_without_one_is_freed() {
        let mut group = Group::default();
        take(&mut group, 0, "a");
        assert_eq!(group.free(RULES, at(1), asker("a"), None), Answer::Free);
        assert_eq!(group.holders.len(), 1);
        group.take(RULES, at(2), asker("f"), None, 60, 0);
        assert_eq!(group.free(RULES, at(3), asker("f"), None), Answer::Free);
        assert_eq!(group.holders.len(), 1);
        assert_eq!(
            group.free(RULES, at(3), asker("a"), Some(9)),
            Answer::Lost(Lost::Replaced)
        );
        assert_eq!(
            group.free(RULES, at(3), asker("x"), Some(1)),
            Answer::Lost(Lost::Unknown)
        );
    }

    #[test]
    fn what_is_stored_is_bounded() {
        let mut group = Group::default();
        for n in 0..5_000 {
            take(&mut group, 0, &format!("{}{n}", "n".repeat(100)));
        }
        for _ in 0..1_000 {
            take(&mut group, 0, &format!("{}0", "n".repeat(100)));
        }
        assert!(serde_json::to_vec(&group).unwrap().len() < 512 * 1024);
    }
}
