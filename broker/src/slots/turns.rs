//! One group alone, for simulations of a fleet (feature `bench`): time is handed in.

use tidings_protocol::{Serial, Timestamp};

use super::{
    Answer, Ask, Asker,
    group::{Group, What},
};
use crate::config::Rules;

/// A group of machines that take turns.
pub struct Turns {
    group: Group,
    rules: Rules,
}

impl Turns {
    /// So many may be down at once, each for so many seconds; with so many failed nobody goes.
    pub fn new(max: usize, lease: u64, failures: usize) -> Self {
        Self {
            group: Group::default(),
            rules: Rules {
                max,
                lease,
                failures,
            },
        }
    }

    fn ask(&mut self, now: Timestamp, node: &str, ask: Ask) -> Answer {
        self.group
            .answer(self.rules, now, Asker { node, by: node }, ask)
    }

    /// A token for a node, or none: it waits then.
    pub fn take(&mut self, now: Timestamp, node: &str, serial: Serial) -> Option<u64> {
        let ask = Ask::Take {
            serial: Some(serial),
            held: true,
            nonce: 0,
            again: false,
        };
        match self.ask(now, node, ask) {
            Answer::Yours { token, .. } => Some(token),
            _ => None,
        }
    }

    /// Whether a token counts; its lease begins anew.
    pub fn hold(&mut self, now: Timestamp, node: &str, token: u64) -> bool {
        let serial = None;
        let answer = self.ask(now, node, Ask::Hold { serial, token });
        matches!(answer, Answer::Yours { .. })
    }

    /// Gives a slot back.
    pub fn free(&mut self, now: Timestamp, node: &str, token: u64) {
        self.ask(now, node, Ask::Free { token: Some(token) });
    }

    /// Nodes that have waited and whose turn it is.
    pub fn due(&self) -> Vec<String> {
        let waiting = self.group.waiting.iter().map(|waiter| &waiter.node);
        waiting
            .filter(|node| self.group.is_due(self.rules, node))
            .cloned()
            .collect()
    }

    /// How many leases have ever run out.
    pub fn failures(&self) -> usize {
        let events = self.group.history.iter();
        events.filter(|event| event.what == What::Failed).count()
    }

    /// Whether nobody gets a slot before an operator has looked.
    pub fn is_stopped(&self) -> bool {
        self.group.state(self.rules) == "stopped"
    }
}
