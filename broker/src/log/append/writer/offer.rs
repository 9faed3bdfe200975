//! Offering a request to the log of its channel.

use tidings_protocol::{
    Channel, Serial, Statement, Timestamp,
    log::{self, Begin, Judge, Offered, Refused, Step},
    trust::Trust,
};

use super::Writer;
use crate::log::{
    append::{
        Answer, AppendError, Appended, Copied, Copy, Run,
        pending::{Draft, Pending},
    },
    namespaces::Provisioned,
};

/// The path of each statement of a run, by serial, and the statements. What another trust has
/// verified is judged anew.
fn split_paths(run: Vec<Copy>, trust: &Trust) -> (Vec<(Serial, String)>, Vec<Offered>) {
    let apart = |copy: Copy| {
        let path = (copy.statement().serial(), copy.path);
        let offered = match copy.offered {
            Offered::Proven(statement) if copy.by != Some(trust.serial()) => {
                Offered::Unproven(statement.into_inner())
            }
            offered => offered,
        };
        (path, offered)
    };
    run.into_iter().map(apart).unzip()
}

impl Writer {
    /// Offers a run to its log, and takes what comes of it into the commit.
    pub(in crate::log::append) fn offer(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        channel: &Channel,
        run: Vec<Copy>,
        begin: Begin,
    ) -> Result<bool, Refusal> {
        let namespaces = self.namespaces.clone();
        let Some(provisioned) = namespaces.of(channel) else {
            return Err(AppendError::NoTrust(channel.clone()).into());
        };
        let trust = provisioned
            .trust
            .load_full()
            .ok_or_else(|| AppendError::NoTrust(channel.clone()))?;
        let live = if self.is_mirrored(channel) {
            self.state
                .live
                .named(&self.logs, &self.store, &trust, channel, now)
        } else {
            None
        };
        let judge = Judge {
            trust: &trust,
            live,
            until: provisioned.until(now),
        };
        let (mut paths, mut offered) = split_paths(run, &trust);
        let log = self.draft(pending, channel).log.clone();
        self.has_room(pending, &log, provisioned)?;
        let step = {
            let stored = |serial| pending.stored(&self.store, channel, serial);
            match channel.is_beat() {
                true => match offered.pop() {
                    Some(beat) => log.offer_beat(judge, beat),
                    None => return Ok(false),
                },
                false => log.offer(judge, offered, begin, &stored),
            }
        };
        let step = step.map_err(|refused| Refusal::Log(refused, now))?;
        let news = !step.is_nothing(&log);
        self.note_evidence(pending, channel, &step);
        if channel.is_beat() && news {
            self.note_beats(pending, now, provisioned, &trust, &step);
        }
        pending.take(channel, step, now, |serial| {
            // They are consecutive.
            let known = paths.binary_search_by_key(&serial, |(known, _)| *known);
            known.map_or_else(|_| String::new(), |at| std::mem::take(&mut paths[at].1))
        });
        Ok(news)
    }

    /// Whether one channel more may begin.
    fn has_room(
        &self,
        pending: &Pending,
        log: &log::Log,
        provisioned: &Provisioned,
    ) -> Result<(), AppendError> {
        if log.span().is_some() || log.backfill().is_some() {
            return Ok(());
        }
        let begun = pending.drafts.values().filter(|draft| {
            draft.before.is_none() && !draft.has_backfill && draft.log.span().is_some()
        });
        let begun: Vec<&Draft> = begun.collect();
        if self.logs.count() + begun.len() >= crate::limits::CHANNELS {
            return Err(AppendError::Channels);
        }
        let namespace = &provisioned.anchor.namespace;
        let ours = begun
            .iter()
            .filter(|draft| self.namespaces.is_of(draft.log.channel(), namespace))
            .count();
        let there = self.state.channels.get(namespace).copied().unwrap_or(0);
        let reserved = log.channel().is_trust() || log.channel().is_beat();
        // All members store what their cluster has settled; the one that has settled it has asked
        // before.
        let settled = self.clustered && !pending.is_scratch && !self.is_mirrored(log.channel());
        match there + ours >= self.quota.channels && !(reserved || settled) {
            true => Err(AppendError::Quota(namespace.clone(), self.quota.channels)),
            false => Ok(()),
        }
    }

    /// Keeps what has lost, and the proof of forks.
    pub(in crate::log::append) fn note_evidence(
        &self,
        pending: &Pending,
        channel: &Channel,
        step: &Step,
    ) {
        if let Some(pair) = &step.evidence {
            self.forks
                .remember(self.namespaces.of(channel), &pair.0, &pair.1);
        }
        if let Some((from, to)) = step.filed {
            let serials = (from.number()..=to.number()).filter_map(Serial::new);
            let lost =
                serials.filter_map(|serial| pending.stored(&self.store, channel, serial).ok()?);
            self.forks.file(self.namespaces.of(channel), channel, lost);
        }
    }

    /// A beat that a checkpoint names may decide about logs; and any tells the time.
    fn note_beats(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        provisioned: &Provisioned,
        trust: &Trust,
        step: &Step,
    ) {
        for beat in &step.insert {
            provisioned.note_signed(beat.time());
            if trust
                .missing_beats()
                .any(|(channel, head)| channel == beat.channel() && head == beat.head())
            {
                let mut trust = pending
                    .trust
                    .take()
                    .filter(|newer| newer.head() == trust.head())
                    .unwrap_or_else(|| trust.clone());
                trust.take_settled_beat((**beat).clone());
                self.settle_all(pending, now, &trust);
                pending.trust = Some(trust);
            }
        }
    }

    /// What is posted here, or was settled in the cluster.
    pub(in crate::log::append) fn append(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        channel: &Channel,
        copy: Copy,
    ) -> Answer {
        match self.offer(pending, now, channel, vec![copy], Begin::Nothing) {
            Ok(true) => Ok(Appended::New),
            Ok(false) => Ok(Appended::Known),
            Err(Refusal::Append(error)) => Err(error),
            Err(Refusal::Log(refused, now)) => {
                let head = self.draft(pending, channel).log.head();
                match (refused, head) {
                    (Refused::Fork(pair), head) => {
                        self.forks
                            .remember(self.namespaces.of(channel), &pair.0, &pair.1);
                        Err(head.map_or(AppendError::NotFirst, AppendError::LostRace))
                    }
                    (Refused::Gap { .. } | Refused::Expired(_), Some(head)) => {
                        Err(AppendError::LostRace(head))
                    }
                    (Refused::Gap { .. } | Refused::Expired(_), None) => Err(AppendError::NotFirst),
                    (refused, _) => Err(explain(channel, refused, now)),
                }
            }
        }
    }

    /// The answer to a statement that is not what comes next.
    pub(super) fn judge(&mut self, now: Timestamp, statement: Statement) -> Option<Answer> {
        let (mut scratch, channel) = (
            Pending {
                is_scratch: true,
                ..Pending::default()
            },
            statement.channel().clone(),
        );
        if channel.is_trust() {
            let mut said = None;
            self.take_trust(
                &mut scratch,
                now,
                vec![(statement, String::new())],
                false,
                |_, answer| said = Some(answer),
            );
            return said.filter(|answer| !matches!(answer, Ok(Appended::New)));
        }
        let answer = self.append(
            &mut scratch,
            now,
            &channel,
            Copy::unproven(statement, String::new()),
        );
        Some(answer).filter(|answer| !matches!(answer, Ok(Appended::New)))
    }

    pub(super) fn take_copies(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        run: Run,
    ) -> Result<Copied, AppendError> {
        let Run {
            channel,
            copies,
            begin,
        } = run;
        let news = match self.offer(pending, now, &channel, copies, begin) {
            Ok(news) => news,
            Err(Refusal::Append(error)) => return Err(error),
            Err(Refusal::Log(Refused::Fork(pair), now)) => {
                self.forks
                    .remember(self.namespaces.of(&channel), &pair.0, &pair.1);
                return Err(explain(&channel, Refused::Fork(pair), now));
            }
            // What there is says what it wants.
            Err(Refusal::Log(Refused::Gap { from }, _)) => {
                return self.wants(pending, &channel).ok_or(AppendError::Gap(from));
            }
            Err(Refusal::Log(refused, now)) => return Err(explain(&channel, refused, now)),
        };
        Ok(self
            .wants(pending, &channel)
            .unwrap_or(if news { Copied::New } else { Copied::Known }))
    }

    fn wants(&self, pending: &mut Pending, channel: &Channel) -> Option<Copied> {
        let backfill = self.draft(pending, channel).log.backfill().copied()?;
        Some(Copied::Wants {
            next: backfill.below?.serial,
            top: backfill.top.serial,
        })
    }
}

/// Why nothing came of an offer.
pub(crate) enum Refusal {
    Append(AppendError),
    Log(Refused, Timestamp),
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

/// The same as an answer.
pub(in crate::log::append) fn explain(
    channel: &Channel,
    refused: Refused,
    clock: Timestamp,
) -> AppendError {
    match refused {
        Refused::Verify(_, error) => error.into(),
        Refused::Gap { from } => AppendError::Gap(from),
        Refused::Fork(pair) => AppendError::Fork(channel.clone(), pair.1.serial()),
        Refused::Expired(serial) => AppendError::Expired(channel.clone(), serial),
        Refused::Future { time } => AppendError::Future { time, clock },
        Refused::Unreadable => AppendError::Store,
    }
}
