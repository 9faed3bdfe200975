//! Trust statements: what comes into force, and what it takes away, in one commit.

use std::sync::Arc;

use tidings_protocol::{
    Channel, Namespace, Statement, Timestamp,
    log::{Log, Refused, Step, TrustStep},
    trust::Trust,
    verify::VerifyError,
};

use super::{
    Answer, AppendError, Appended, Copy, Peer, Reply,
    pending::Pending,
    writer::{Writer, explain},
};
use crate::log::namespaces::Provisioned;

impl Writer {
    /// Judges trust statements, oldest first, by what is in force; what comes into force does so
    /// before anything else is judged.
    pub(super) fn take_trust(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        run: Vec<(Statement, String)>,
        posted: bool,
        answer: impl FnOnce(&mut Pending, Answer),
    ) {
        let Some(channel) = run
            .first()
            .map(|(statement, _)| statement.channel().clone())
        else {
            return;
        };
        // What was verified under the old trust is settled before the new one begins.
        if !pending.is_scratch {
            self.commit(std::mem::take(pending), now);
        }
        let said = self.offer_trust(pending, now, &channel, run, posted);
        answer(pending, said);
        if !pending.is_scratch {
            self.commit(std::mem::take(pending), now);
        }
    }

    pub(super) fn offer_trust(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        channel: &Channel,
        run: Vec<(Statement, String)>,
        posted: bool,
    ) -> Answer {
        let namespaces = self.namespaces.clone();
        let provisioned = namespaces
            .of_trust_log(channel)
            .ok_or(AppendError::NotFirst)?;
        let in_force = provisioned.trust.load_full();
        let (mut statements, mut paths): (Vec<Statement>, Vec<_>) = (Vec::new(), Vec::new());
        for (statement, path) in run {
            paths.push((statement.serial(), path));
            statements.push(if posted {
                provisioned.with_what_counts(statement)
            } else {
                statement
            });
        }
        let log = self.draft(pending, channel).log.clone();
        let first_new = log
            .head()
            .map_or(provisioned.anchor.head.serial, |head| head.serial);
        let new = statements
            .iter()
            .filter(|statement| statement.serial() >= first_new)
            .map(Statement::time)
            .max();
        new.map_or(Ok(()), |time| provisioned.check_time(time, now))?;
        let last = statements.last().cloned();
        let offered = {
            let stored = |serial| pending.stored(&self.store, channel, serial);
            log.offer_trust(
                &provisioned.anchor,
                in_force.as_deref(),
                statements,
                &stored,
            )
        };
        let TrustStep { step, trust } =
            offered.map_err(|refused| self.refuse_trust(provisioned, &log, refused, last, now))?;
        if step.is_nothing(&log) {
            return Ok(Appended::Known);
        }
        if let Some(trust) = trust {
            self.prepare_force(pending, now, in_force.as_deref(), trust)?;
        }
        pending.take(channel, step, now, |serial| {
            paths
                .iter_mut()
                .find(|(known, _)| *known == serial)
                .map(|(_, path)| std::mem::take(path))
                .unwrap_or_default()
        });
        Ok(Appended::New)
    }

    /// A trust statement that a peer has sent; one that hangs together with nothing here waits.
    pub(super) fn feed_trust(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        copy: Copy,
        peer: Peer,
        reply: Reply<Appended>,
    ) {
        self.commit(std::mem::take(pending), now);
        let (channel, serial) = (
            copy.statement().channel().clone(),
            copy.statement().serial(),
        );
        let anchor = self
            .namespaces
            .of_trust_log(&channel)
            .map(|provisioned| provisioned.anchor.head.serial);
        let waits = match self.logs.get(channel.as_str()).map(|log| log.marks()) {
            None => anchor.is_some_and(|anchor| anchor != serial),
            Some(marks) => {
                marks.head.serial.next().is_some_and(|next| serial > next)
                    || serial.next().is_some_and(|next| next < marks.low)
            }
        };
        if waits {
            if let Err(reply) = self.state.window.put(copy, true, peer, reply) {
                let _ = reply.send(Err(AppendError::WindowFull));
            }
            return;
        }
        let run = vec![(copy.offered.into_statement(), copy.path)];
        let said = self.offer_trust(pending, now, &channel, run, false);
        pending.answers.push((reply, said));
        self.commit(std::mem::take(pending), now);
        self.drain_trust(pending, now, &channel);
    }

    /// Takes trust statements that have waited and hang together with the log now.
    pub(super) fn drain_trust(&mut self, pending: &mut Pending, now: Timestamp, channel: &Channel) {
        while self.state.window.has(channel) {
            let Some(marks) = self.logs.get(channel.as_str()).map(|log| log.marks()) else {
                return;
            };
            let below = self
                .store
                .get(channel, marks.low)
                .ok()
                .flatten()
                .and_then(|record| record.statement.predecessor());
            let mut run = self.state.window.above(channel, Some(marks.head));
            if run.is_empty() {
                run = self.state.window.below(channel, below);
            }
            if run.is_empty() {
                return;
            }
            let (mut statements, mut replies) = (Vec::new(), Vec::new());
            for waiting in run {
                let (copy, waits) = waiting.split();
                statements.push((copy.offered.into_statement(), copy.path));
                replies.extend(waits);
            }
            let said = self.offer_trust(pending, now, channel, statements, false);
            pending
                .answers
                .extend(replies.into_iter().map(|reply| (reply, said.clone())));
            self.commit(std::mem::take(pending), now);
        }
    }

    fn refuse_trust(
        &self,
        provisioned: &Provisioned,
        log: &Log,
        refused: Refused,
        last: Option<Statement>,
        now: Timestamp,
    ) -> AppendError {
        let lost = |head: Option<_>| {
            head.map_or(
                AppendError::AnchorFirst(provisioned.anchor.head.serial),
                AppendError::LostRace,
            )
        };
        match refused {
            Refused::Fork(pair) => {
                let (ours, theirs) = *pair;
                // Two successors of one trust statement, both signed by the thresholds: worse than
                // any other fork.
                let before = theirs
                    .predecessor()
                    .and_then(|before| self.store.get(log.channel(), before.serial).ok()?);
                let before = before.and_then(|before| {
                    Trust::resume(&provisioned.anchor.namespace, before.statement).ok()
                });
                if before.is_some_and(|before| before.succeed(theirs.clone()).is_ok()) {
                    self.forks.remember(Some(provisioned), &ours, &theirs);
                }
                lost(log.head())
            }
            Refused::Gap { .. } => lost(log.head()),
            Refused::Verify(_, VerifyError::TrustOrder { .. } | VerifyError::Link { .. })
                if last.is_some() && log.head().is_some() =>
            {
                lost(log.head())
            }
            refused => explain(log.channel(), refused, now),
        }
    }

    /// What comes into force with this commit: the beats that it names, and what it takes away.
    fn prepare_force(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        in_force: Option<&Trust>,
        mut trust: Trust,
    ) -> Result<(), AppendError> {
        let named: Vec<_> = trust
            .missing_beats()
            .map(|(channel, head)| (channel.clone(), head))
            .collect();
        for (channel, head) in named {
            if let Ok(Some(record)) = self.store.get(&channel, head.serial) {
                trust.take_settled_beat(record.statement);
            }
        }
        if let Some(in_force) = in_force.filter(|_| !self.is_mirrored(trust.statement().channel()))
        {
            self.logs
                .keep_withdrawals(in_force, &trust, &self.namespaces)?;
        }
        self.settle_all(pending, now, &trust);
        pending.trust = Some(trust);
        Ok(())
    }

    fn is_of(&self, channel: &Channel, namespace: &Namespace) -> bool {
        self.namespaces
            .of(channel)
            .is_some_and(|provisioned| provisioned.anchor.namespace == *namespace)
    }

    /// What a trust statement takes away from the logs of its namespace.
    pub(super) fn settle_all(&mut self, pending: &mut Pending, now: Timestamp, trust: &Trust) {
        for log in self.logs.all() {
            let channel = &log.channel;
            if !self.is_of(channel, trust.namespace())
                || !(channel.is_beat() || trust.checkpoint(channel).head().is_some())
            {
                continue;
            }
            let log = self.draft(pending, channel).log.clone();
            let step: Result<Option<Step>, _> = {
                let stored = |serial| pending.stored(&self.store, channel, serial);
                log.settle(trust, &stored)
            };
            match step {
                Ok(None) => {}
                Ok(Some(step)) => {
                    tracing::warn!(
                        %channel, trust = %trust.serial(), from = %step.filed.map_or(0, |(from, _)| from.number()),
                        "trust has settled on another log, or proves this one no more from here on: it is filed away, and its place is free"
                    );
                    self.note_evidence(pending, channel, &step);
                    pending.take(channel, step, now, |_| String::new());
                }
                Err(_) => {
                    tracing::error!(%channel, "what trust takes away from this log cannot be read")
                }
            }
        }
    }

    /// What is durable comes into force.
    pub(super) fn bring_into_force(&self, trust: Trust) -> Namespace {
        let namespace = trust.namespace().clone();
        if let Some(provisioned) = self.namespaces.of_trust_log(&namespace.trust_log()) {
            let known = provisioned.trust.load().as_ref().map(|known| known.head());
            if known != Some(trust.head()) {
                tracing::info!(%namespace, serial = %trust.serial(), expires = %trust.rules().expires, "trust in force");
            }
            provisioned.note_signed(trust.statement().time());
            provisioned.trust.store(Some(Arc::new(trust)));
        }
        namespace
    }

    /// What waits in the windows of peers is judged by the trust that is in force now.
    pub(super) fn judge_window(&mut self, now: Timestamp, namespace: &Namespace) {
        let Some(trust) = self.namespaces.trust(&namespace.trust_log()) else {
            return;
        };
        let mut pending = Pending::default();
        for channel in self.state.window.channels(None) {
            if self.is_of(&channel, namespace) && !channel.is_trust() {
                self.state.window.judge(&channel, &trust);
                self.drain(&mut pending, now, &channel);
            }
        }
        self.commit(pending, now);
    }
}
