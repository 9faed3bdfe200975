//! What one commit holds: the steps of many logs, and the answers that wait for it.

use std::collections::BTreeMap;

use tidings_protocol::{
    Channel, Serial, Statement, Verified,
    log::{Log, Span, Step, Unreadable},
    trust::Trust,
};

use super::{Appended, Copied, Reply};
use crate::log::store::{Batch, Store};

/// One log as it will be after the commit.
pub(super) struct Draft {
    pub(super) before: Option<Span>,
    pub(super) log: Log,
    /// What is to be stored of it, by its places among all.
    inserted: Vec<usize>,
    /// Whether it grows at its head alone, by what is inserted.
    pub(super) grows: bool,
    /// Whether it has left its branch.
    pub(super) left: bool,
    pub(super) has_backfill: bool,
}

/// What one commit holds.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) batch: Batch,
    pub(super) drafts: BTreeMap<Channel, Draft>,
    /// What is to be stored, with its `Path`.
    pub(super) inserted: Vec<(Verified<Statement>, String)>,
    pub(super) answers: Vec<(Reply<Appended>, super::Answer)>,
    pub(super) copied: Vec<(Reply<Copied>, super::CopyAnswer)>,
    /// What comes into force with it.
    pub(super) trust: Option<Trust>,
    /// Whether anything is to be made durable.
    pub(super) changed: bool,
    /// Whether it is never to be committed.
    pub(super) is_scratch: bool,
}

impl Pending {
    /// The log of a channel as it will be; `read` gives it as it is.
    pub(super) fn draft(&mut self, channel: &Channel, read: impl FnOnce() -> Log) -> &mut Draft {
        if !self.drafts.contains_key(channel) {
            let log = read();
            let has_backfill = log.backfill().is_some();
            let draft = Draft {
                before: log.span(),
                log,
                inserted: Vec::new(),
                grows: true,
                left: false,
                has_backfill,
            };
            self.drafts.insert(channel.clone(), draft);
        }
        // It was put there a moment ago.
        self.drafts
            .entry(channel.clone())
            .or_insert_with(|| unreachable!("there is a draft"))
    }

    /// The statement in a place as it will be.
    pub(super) fn stored(
        &self,
        store: &Store,
        channel: &Channel,
        serial: Serial,
    ) -> Result<Option<Statement>, Unreadable> {
        let inserted = self
            .drafts
            .get(channel)
            .map_or(&[][..], |draft| &draft.inserted);
        let found = inserted
            .iter()
            .rev()
            .map(|at| &self.inserted[*at].0)
            .find(|statement| statement.serial() == serial);
        if let Some(statement) = found {
            return Ok(Some((**statement).clone()));
        }
        let record = store.get(channel, serial).map_err(|error| {
            tracing::error!(%error, "what is stored cannot be compared");
            Unreadable
        })?;
        Ok(record.map(|record| record.statement))
    }

    /// Takes a step into the commit.
    pub(super) fn take(
        &mut self,
        channel: &Channel,
        step: Step,
        now: tidings_protocol::Timestamp,
        mut path: impl FnMut(Serial) -> String,
    ) {
        let Some(draft) = self.drafts.get_mut(channel) else {
            return;
        };
        let before = draft.log.clone();
        if step.is_nothing(&before) {
            return;
        }
        self.changed = true;
        let first = step.insert.first().map(|statement| statement.serial());
        let follows = first
            .zip(before.head())
            .is_none_or(|(first, head)| first > head.serial);
        let same_low = before.span().is_none_or(|span| {
            step.after()
                .span()
                .is_some_and(|after| after.low == span.low)
        });
        draft.grows &= follows
            && same_low
            && step.drop.is_empty()
            && before.backfill() == step.after().backfill();
        draft.left |= step.filed.is_some();
        for (from, to) in &step.drop {
            for serial in (from.number()..=to.number()).filter_map(Serial::new) {
                self.batch.remove(channel, serial);
            }
            let inserted = &self.inserted;
            draft
                .inserted
                .retain(|at| !(*from..=*to).contains(&inserted[*at].0.serial()));
        }
        draft.log.apply(&step);
        for statement in step.insert {
            let path = path(statement.serial());
            self.batch.insert(&statement, now, &path);
            draft.inserted.push(self.inserted.len());
            self.inserted.push((statement, path));
        }
    }
}

impl Draft {
    /// What is to be stored, by its places among all.
    pub(super) fn inserted(&self) -> &[usize] {
        &self.inserted
    }
}
