//! Committing many steps at once, showing what is durable, and answering.

use std::sync::Arc;

use tidings_protocol::{Channel, Statement, Timestamp, Verified, log::Span};
use tokio::time::Instant;

use super::Writer;
use crate::{
    limits::TAIL_ENTRIES,
    log::{
        append::{
            AppendError,
            pending::{Draft, Pending},
        },
        logs::Log,
        store::{Marks, StoreError},
    },
};

impl Writer {
    /// Makes everything durable, then visible, then answers.
    pub(in crate::log::append) fn commit(&mut self, mut pending: Pending, now: Timestamp) {
        if let Err(error) = self.make_durable(&mut pending, now) {
            self.fail(&error);
            #[cfg(test)]
            if tidings_protocol::simulated::has(tidings_protocol::simulated::Fault::FailedCommit) {
                return self.answer_all(pending, now);
            }
            pending
                .answers
                .into_iter()
                .for_each(|(reply, _)| drop(reply.send(Err(AppendError::Store))));
            pending
                .copied
                .into_iter()
                .for_each(|(reply, _)| drop(reply.send(Err(AppendError::Store))));
            return;
        }
        self.answer_all(pending, now);
    }

    /// What is durable becomes visible, and those who wait are answered.
    fn answer_all(&mut self, pending: Pending, now: Timestamp) {
        self.counts.stored.add(pending.inserted.len());
        let Pending {
            drafts,
            inserted,
            answers,
            copied,
            trust,
            ..
        } = pending;
        let mut touched = Vec::new();
        for (channel, draft) in drafts {
            touched.extend(self.show(&channel, draft, &inserted, now));
        }
        let new_trust = trust.map(|trust| self.bring_into_force(trust));
        // Whoever asked may be gone; what is stored is stored.
        answers
            .into_iter()
            .for_each(|(reply, said)| drop(reply.send(said)));
        copied
            .into_iter()
            .for_each(|(reply, said)| drop(reply.send(said)));
        let any = !touched.is_empty();
        for (log, new) in touched {
            self.watches.notify(&log, new);
        }
        if any {
            self.logs.tell();
        }
        if let Some(namespace) = new_trust {
            self.judge_window(now, &namespace);
        }
    }

    fn make_durable(&self, pending: &mut Pending, now: Timestamp) -> Result<(), StoreError> {
        if !pending.changed {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut pending.batch);
        for (channel, draft) in &pending.drafts {
            let created = self
                .logs
                .get(channel.as_str())
                .map_or(now, |log| log.marks().created);
            match draft.log.span() {
                span if span == draft.before => {}
                Some(Span { low, head }) => batch.set_marks(channel, &Marks { low, head, created }),
                None => batch.remove_marks(channel),
            }
            if draft.left {
                self.store.forget_feed_cursors(&mut batch, channel)?;
            }
            let backfill = draft.log.backfill();
            if draft.has_backfill || backfill.is_some() {
                batch.set_backfill(
                    channel,
                    backfill.map(|backfill| (backfill.top.serial, backfill.lowest)),
                );
            }
        }
        self.store.commit(batch)
    }

    /// What is being filled in, or is whole again.
    fn show_backfill(&mut self, channel: &Channel, draft: &Draft) {
        match draft.log.backfill() {
            Some(backfill) => {
                // Since when the gap is as wide as it is: what is new above does not narrow it.
                let is_same_below = draft.before.map(|span| span.head) == draft.log.head();
                let since = self
                    .state
                    .backfills
                    .get(channel)
                    .filter(|(known, _)| is_same_below && known.lowest == backfill.lowest)
                    .map(|(_, since)| *since);
                self.logs
                    .set_backfill(channel, Some((backfill.lowest, backfill.top.serial)));
                self.state.backfills.insert(
                    channel.clone(),
                    (*backfill, since.unwrap_or_else(Instant::now)),
                );
            }
            None if draft.has_backfill => {
                self.logs.set_backfill(channel, None);
                self.state.backfills.remove(channel);
            }
            None => {}
        }
    }

    /// What is durable of one log becomes visible; the log, and whether it is new, if there is
    /// something to tell of.
    fn show(
        &mut self,
        channel: &Channel,
        draft: Draft,
        inserted: &[(Verified<Statement>, String)],
        now: Timestamp,
    ) -> Option<(Arc<Log>, bool)> {
        self.show_backfill(channel, &draft);
        let known = self.logs.get(channel.as_str());
        let created = known.as_ref().map_or(now, |log| log.marks().created);
        if let Some(log) = known
            .as_ref()
            .filter(|_| draft.left || draft.log.span().is_none())
        {
            self.forget(log);
        }
        let Span { low, head } = draft.log.span()?;
        let marks = Marks { low, head, created };
        let known = known.filter(|_| !draft.left);
        let new = known.is_none();
        // Readers see it grow from its first statement on.
        let first = draft
            .inserted()
            .first()
            .filter(|_| draft.grows)
            .map_or(head, |at| inserted[*at].0.head());
        let log = known.unwrap_or_else(|| {
            self.begin(
                channel,
                Marks {
                    head: first,
                    ..marks
                },
            )
        });
        log.set_kept(draft.log.kept());
        if draft.before == draft.log.span() {
            return None;
        }
        if draft.grows {
            let unseen = draft.inserted().len().saturating_sub(TAIL_ENTRIES);
            for (count, at) in draft.inserted().iter().enumerate() {
                let (statement, path) = &inserted[*at];
                // Of very many the oldest would be given up again at once.
                if count >= unseen {
                    log.push(statement, path);
                }
                tracing::debug!(%channel, serial = %statement.serial(), id = %statement.id(), "stored");
            }
        } else {
            log.jump(
                marks,
                draft
                    .before
                    .filter(|_| !draft.left)
                    .map(|span| (span.low, span.head.serial)),
                now,
            );
            tracing::debug!(%channel, low = %marks.low, head = %marks.head.serial, "filled in");
        }
        Some((log, new))
    }

    pub(super) fn begin(&mut self, channel: &Channel, marks: Marks) -> Arc<Log> {
        if let Some(provisioned) = self.namespaces.of(channel) {
            *self
                .state
                .channels
                .entry(provisioned.anchor.namespace.clone())
                .or_default() += 1;
        }
        self.logs.add(channel.clone(), marks)
    }

    /// A log that is begun anew, or is gone: whoever watches it has to ask.
    pub(in crate::log::append) fn forget(&mut self, log: &Arc<Log>) {
        if self.logs.remove(&log.channel).is_none() {
            return;
        }
        self.watches.drop_log(log);
        let namespace = self
            .namespaces
            .of(&log.channel)
            .map(|provisioned| &provisioned.anchor.namespace);
        if let Some(count) = namespace.and_then(|namespace| self.state.channels.get_mut(namespace))
        {
            *count = count.saturating_sub(1);
        }
    }

    pub(in crate::log::append) fn fail(&self, error: &StoreError) {
        tracing::error!(%error, "the store failed; the broker stops, and opens what is durable when it is started again");
        (self.on_failure)();
    }
}
