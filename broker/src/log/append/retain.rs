//! Retention: what is not kept any more goes from below, in bounded turns with other work in
//! between (attack 109).

use std::time::Duration;

#[cfg(test)]
use tidings_protocol::simulated::{Fault, has};
use tidings_protocol::{Channel, Head, Serial, Timestamp};
use tokio::time::Instant;

use super::{pending::Pending, writer::Writer};
use crate::{
    config::Retention,
    limits::{SWEEP_LOGS, SWEEP_STATEMENTS},
    log::{logs::Log, store::StoreError},
};

impl Writer {
    /// Has every log looked at, in turns; and what has waited long enough is settled.
    pub(super) fn begin_sweep(&mut self, pending: &mut Pending, now: Timestamp) {
        self.state.window.forget_the_gone();
        if let Err(error) = self.store.settle() {
            return self.fail(&error);
        }
        self.logs.tidy_tails();
        self.begin_overdue(pending, now);
        if self.state.to_sweep.is_empty() {
            self.state.to_sweep.extend(self.logs.all());
        }
    }

    /// Channels of which a feed has brought what lies above a gap: what has not come by now is not
    /// to be had, and the log begins there. A mirror asks, and knows better.
    fn begin_overdue(&mut self, pending: &mut Pending, now: Timestamp) {
        let patience = self.gap_patience;
        let due = |(channel, (_, since)): (&Channel, &(_, Instant))| {
            let is_due = since.elapsed() > patience;
            (is_due && !self.is_mirrored(channel) && !self.clustered).then(|| channel.clone())
        };
        let due: Vec<Channel> = self.state.backfills.iter().filter_map(due).collect();
        for channel in due {
            // What is shown is proven by the trust in force.
            if !self.has_backfill(pending, now, &channel) {
                continue;
            }
            let settled = self.settled(&channel);
            let log = self.draft(pending, &channel).log.clone();
            if let Some(step) = log.begin_with_backfill(settled) {
                tracing::warn!(%channel, "what lies below has not come: the log begins here");
                pending.take(&channel, step, now, |_| String::new());
            }
        }
    }

    /// One turn.
    pub(super) fn sweep_some(&mut self, now: Timestamp) {
        let (mut pending, mut budget) = (Pending::default(), SWEEP_STATEMENTS);
        for _ in 0..SWEEP_LOGS {
            let Some(log) = self.state.to_sweep.pop_front() else {
                break;
            };
            log.shorten_tail();
            match self.sweep_log(&mut pending, &log, now, &mut budget) {
                Ok(true) => {}
                Ok(false) => {
                    self.state.to_sweep.push_front(log);
                    break;
                }
                Err(error) => {
                    self.state.to_sweep.clear();
                    return self.fail(&error);
                }
            }
        }
        self.commit(pending, now);
    }

    /// Whether nothing more is to be removed of a log.
    fn sweep_log(
        &mut self,
        pending: &mut Pending,
        log: &std::sync::Arc<Log>,
        now: Timestamp,
        budget: &mut u32,
    ) -> Result<bool, StoreError> {
        let channel = &log.channel;
        if channel.is_trust()
            || self
                .logs
                .get(channel.as_str())
                .is_none_or(|known| !std::sync::Arc::ptr_eq(&known, log))
        {
            return Ok(true);
        }
        if self.is_closed_for_long(channel, now)? {
            self.drop_closed(pending, log, now, budget);
            return Ok(*budget > 0);
        }
        let Some(retention) = self
            .retention
            .iter()
            .find(|r| r.channels.matches(channel.as_str()))
            .cloned()
        else {
            return Ok(true);
        };
        let settled = self.settled(channel);
        let low = self.lowest_kept(log, &retention, settled, now, budget)?;
        if low > log.marks().low
            && let Some(step) = self.draft(pending, channel).log.trim(low, settled)
        {
            // Invisible before it is gone, so that no reader finds a hole.
            log.set_kept(step.after().kept());
            log.raise_low(low);
            pending.take(channel, step, now, |_| String::new());
            tracing::info!(%channel, %low, "expired");
        }
        Ok(*budget > 0)
    }

    /// What a checkpoint names in a channel.
    fn settled(&self, channel: &Channel) -> Option<Head> {
        let trust = self.namespaces.trust(channel)?;
        if channel.is_beat() {
            trust.named_beat(channel)
        } else {
            trust.checkpoint(channel).head()
        }
    }

    /// Down to where a log is kept: everything that is nearer the head, or younger, than the
    /// operator says.
    fn lowest_kept(
        &self,
        log: &Log,
        retention: &Retention,
        settled: Option<Head>,
        now: Timestamp,
        budget: &mut u32,
    ) -> Result<Serial, StoreError> {
        let marks = log.marks();
        let count = retention.count;
        #[cfg(test)]
        let count = count.map(|count| count.saturating_sub(has(Fault::Retention).into()));
        let by_count = count.map(|count| (marks.head.serial.number() + 1).saturating_sub(count));
        let oldest = retention
            .age
            .map(|age| now.seconds().saturating_sub(age.as_secs()));
        let mut low = marks.low;
        while low < marks.head.serial && *budget > 0 {
            let near = by_count.is_some_and(|first| low.number() >= first);
            let young = || {
                Ok::<_, StoreError>(
                    oldest.is_some() && log.arrived(low)?.map(Timestamp::seconds) >= oldest,
                )
            };
            // What a checkpoint names is kept apart, however late it has come.
            let is_settled = settled.is_some_and(|settled| settled.serial == low);
            if near || (!is_settled && young()?) {
                break;
            }
            *budget -= 1;
            low = low.next().unwrap_or(marks.head.serial);
        }
        Ok(low)
    }

    /// Whether a channel is closed for good, and has been for as long as it is kept.
    fn is_closed_for_long(&self, channel: &Channel, now: Timestamp) -> Result<bool, StoreError> {
        let Some(trust) = self
            .namespaces
            .trust(channel)
            .filter(|trust| trust.rules().is_closed(channel))
        else {
            return Ok(false);
        };
        let trust_log = trust.statement().channel();
        let Some(log) = self.logs.get(trust_log.as_str()) else {
            return Ok(false);
        };
        // Since the first trust statement that closes it.
        let mut since = log.arrived(trust.serial())?;
        for serial in (log.marks().low.number()..trust.serial().number())
            .rev()
            .filter_map(Serial::new)
        {
            let Some(record) = self.store.get(trust_log, serial)? else {
                break;
            };
            let tidings_protocol::statement::Body::Trust(rules) = record.statement.body() else {
                break;
            };
            if !rules.is_closed(channel) {
                break;
            }
            since = log.arrived(serial)?;
        }
        let kept: Duration = self.closed_kept;
        Ok(since.is_some_and(|since| since.plus(kept.as_secs()) <= now))
    }

    fn drop_closed(
        &mut self,
        pending: &mut Pending,
        log: &std::sync::Arc<Log>,
        now: Timestamp,
        budget: &mut u32,
    ) {
        let (channel, marks) = (&log.channel, log.marks());
        let count = marks.head.serial.number() - marks.low.number() + 1;
        let step = match count > *budget {
            true => {
                let low = Serial::new(marks.low.number() + *budget);
                *budget = 0;
                low.and_then(|low| {
                    log.raise_low(low);
                    self.draft(pending, channel).log.trim(low, None)
                })
            }
            false => {
                *budget -= count;
                tracing::warn!(%channel, "this channel is closed for good: it is dropped");
                Some(self.draft(pending, channel).log.clear())
            }
        };
        if let Some(step) = step {
            pending.take(channel, step, now, |_| String::new());
        }
    }
}
