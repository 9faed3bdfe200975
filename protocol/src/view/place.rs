//! What of a proven run is new, and which branch is the log (spec 2-12 to 2-18).

use alloc::{boxed::Box, vec::Vec};

use super::{Fork, Now, Refusal, View, Withdrawal};
use crate::{
    Channel, Head, Serial, Statement, StatementId, Verified,
    limits::WITHDRAWALS,
    log::{self, Place},
    trust::{Run, Settled, Trust},
};

/// What [`View::place`] has found to be new in a channel: proven, and following what was known.
#[derive(Clone, Debug)]
pub struct News {
    pub(super) channel: Channel,
    /// Oldest first.
    pub(super) run: Vec<Verified<Statement>>,
    /// How many of them, from the beginning, were delivered before.
    delivered: usize,
    /// The checkpoint that it is known to stand on now.
    pub(super) settled: Option<Head>,
    /// Whether it takes the place of the branch that was known.
    pub(super) other_branch: bool,
    /// The trust by which it was verified.
    pub(super) trust: Serial,
}

impl News {
    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
    /// What is to be delivered, oldest first; those up to the head are known already.
    pub fn statements(&self) -> &[Verified<Statement>] {
        &self.run[self.delivered..]
    }
    /// Whether there is nothing to take note of.
    pub fn is_empty(&self) -> bool {
        self.run.is_empty()
    }
    /// Whether the log that was known has been left for another branch.
    pub fn is_other_branch(&self) -> bool {
        self.other_branch
    }
    /// The statements alone.
    pub fn into_statements(mut self) -> Vec<Verified<Statement>> {
        self.run.split_off(self.delivered)
    }
}

impl View {
    /// Notes that the head stands on the checkpoint, where that is seen without reading; and that a
    /// fork is over, because it lies below or one of the two is not proven any more.
    pub(super) fn stand(&mut self, channel: &Channel) {
        let Some(trust) = self.trust.clone() else {
            return;
        };
        let checkpoint = trust.checkpoint(channel).head();
        let on_chain = |checkpoint: &Head| {
            self.id_at(channel, checkpoint.serial) == Some(checkpoint.id)
                && self.is_head_proven(channel)
        };
        let settled = checkpoint.filter(on_chain);
        let Some(known) = self.channels.get_mut(channel) else {
            return;
        };
        known.settled = settled.or(known.settled);
        let below = |fork: &Fork| {
            checkpoint.is_some_and(|c| known.settled == Some(c) && fork.serial() <= c.serial)
        };
        if known
            .fork
            .as_ref()
            .is_some_and(|fork| below(fork) || !fork.is_proven(&trust))
        {
            known.fork = None;
        }
    }

    /// Whether the head meets its role, or is the checkpoint.
    fn is_head_proven(&self, channel: &Channel) -> bool {
        let (Some(trust), Some(newest)) = (
            self.trust(),
            self.known(channel).and_then(|known| known.newest.as_ref()),
        ) else {
            return false;
        };
        trust.checkpoint(channel).head() == Some(newest.head()) || trust.meets(newest)
    }

    /// The id of our chain at a serial, as far as links have led there, or the checkpoint on which
    /// it stands says.
    pub(super) fn id_at(&self, channel: &Channel, serial: Serial) -> Option<StatementId> {
        let known = self.known(channel)?;
        let newest = known.newest.as_ref()?;
        let all = known
            .links
            .iter()
            .copied()
            .chain([newest.head()])
            .chain(newest.predecessor())
            .chain(known.settled);
        all.into_iter()
            .find(|head| head.serial == serial)
            .map(|head| head.id)
    }

    /// The serial from which the channel has still to be read, before anything is installed from
    /// it: that of its checkpoint, if its head does not stand on that; or the first, where nothing
    /// proves the head any more.
    pub fn restart(&self, channel: &Channel) -> Option<Serial> {
        let settled = self
            .known(channel)
            .filter(|known| known.newest.is_some())?
            .settled;
        match self.trust()?.checkpoint(channel) {
            Settled::Missing(_) => None,
            Settled::Nothing => (!self.is_head_proven(channel)).then_some(Serial::FIRST),
            Settled::At(checkpoint) => (settled != Some(checkpoint)
                || !self.is_head_proven(channel))
            .then_some(checkpoint.serial),
        }
    }

    /// What the live beat names, if links that were read do not lead there from our head: then the
    /// branch of that statement is the log, once it is seen that it is another one. What a
    /// checkpoint has settled no beat decides anew.
    fn named_elsewhere(&self, channel: &Channel, now: &Now) -> Option<Head> {
        let (named, _) = self.live(channel, now)?;
        let known = self.known(channel)?;
        let linked = self.id_at(channel, named.serial) == Some(named.id);
        let settled = known
            .settled
            .is_some_and(|settled| named.serial <= settled.serial);
        (!linked && !settled).then_some(named)
    }

    /// The lowest serial that links have led to from the head.
    fn lowest(&self, channel: &Channel, head: Head) -> Serial {
        self.known(channel)
            .and_then(|known| known.links.first())
            .map_or(head.serial, |lowest| lowest.serial)
    }

    /// The serial from which a channel has to be read: after the head, after what was delivered, or
    /// from where a checkpoint or a live beat decides for another branch; none if nothing is known
    /// of the channel.
    pub fn read_from(&self, channel: &Channel, now: &Now) -> Option<Serial> {
        let head = self.head(channel)?;
        let delivered = self.known(channel)?.delivered.map_or(Serial::FIRST, after);
        let elsewhere = self
            .named_elsewhere(channel, now)
            .filter(|named| named.serial <= head.serial);
        let elsewhere = elsewhere.map(|named| named.serial.min(self.lowest(channel, head)));
        [Some(delivered), self.restart(channel), elsewhere]
            .into_iter()
            .flatten()
            .chain([after(head)])
            .min()
    }

    /// Proves consecutive statements of a channel, oldest first, all or nothing, and remembers the
    /// withdrawals among them.
    ///
    /// # Errors
    /// Which statement is refused, and why.
    pub fn judge(&mut self, channel: &Channel, run: Vec<Statement>) -> Result<Run, Refusal> {
        let trust = self.trust.clone().ok_or(Refusal::NoTrust)?;
        let run = trust
            .verify_run(channel, run)
            .map_err(|(serial, source)| Refusal::Verify { serial, source })?;
        self.signature_checks += run.signature_checks as u64;
        for mut new in run.statements.iter().filter_map(|by| Withdrawal::of(by)) {
            new.read = run
                .statements
                .iter()
                .any(|statement| statement.head() == new.release)
                || self.id_at(channel, new.release.serial) == Some(new.release.id)
                || self
                    .applied(channel)
                    .is_some_and(|applied| applied.head() == new.release);
            self.keep_withdrawal(channel, new);
        }
        Ok(run)
    }

    /// One for each release. Those of the releases with the highest serials stay: so many that were
    /// read when the withdrawal was met, and as many others, so that invented ones push out none
    /// that matters.
    fn keep_withdrawal(&mut self, channel: &Channel, new: Withdrawal) {
        let kept = &mut self
            .channels
            .entry(channel.clone())
            .or_default()
            .withdrawals;
        match kept.iter_mut().find(|old| old.release == new.release) {
            Some(old) => old.read |= new.read,
            None => kept.push(new),
        }
        kept.sort_by_key(|kept| (kept.read, kept.release.serial));
        let others = kept.partition_point(|kept| !kept.read);
        kept.drain(others..others + (kept.len() - others).saturating_sub(WITHDRAWALS));
        kept.drain(..others.saturating_sub(WITHDRAWALS));
    }

    /// What of a proven run is new, and where it belongs. It changes nothing; [`View::note`] does.
    ///
    /// The run begins at [`View::read_from`] or below. It begins later only where nobody who can be
    /// asked has anything below: then `gap` is accepted, as a signed discontinuity.
    ///
    /// # Errors
    /// A fork, or from where the log must be read instead.
    pub fn place(
        &self,
        channel: &Channel,
        run: Run,
        gap: bool,
        now: &Now,
    ) -> Result<News, Refusal> {
        let trust = self.trust().ok_or(Refusal::NoTrust)?;
        let run = run.statements;
        let Some(first) = run.first().map(|first| first.serial()) else {
            return Ok(self.nothing(channel, trust));
        };
        let checkpoint = trust.checkpoint(channel).head();
        let over_a_gap = |from: Serial| !gap && first > from;
        let Some(newest) = self.known(channel).and_then(|known| known.newest.as_ref()) else {
            return match checkpoint.filter(|checkpoint| over_a_gap(checkpoint.serial)) {
                Some(checkpoint) => Err(Refusal::ReadFrom {
                    serial: checkpoint.serial,
                }),
                None => Ok(self.replace(channel, trust, run)),
            };
        };
        let head = newest.head();
        let contradiction = run
            .iter()
            .position(|statement| self.contradicts(channel, head, statement));
        if self.restart(channel).is_some() {
            return self.place_anew(channel, run, contradiction.is_some(), gap, now);
        }
        let leads_below =
            first < head.serial && run.iter().any(|statement| statement.head() == head);
        let other_branch =
            |named: &Head| !leads_below && (named.serial <= head.serial || contradiction.is_some());
        if let Some(named) = self.named_elsewhere(channel, now).filter(other_branch) {
            let lowest = self.lowest(channel, head).min(named.serial);
            let from = checkpoint.map_or(lowest, |checkpoint| lowest.min(checkpoint.serial));
            if over_a_gap(from) {
                return Err(Refusal::ReadFrom { serial: from });
            }
            if run.iter().any(|statement| statement.head() == named) {
                return Ok(self.replace(channel, trust, run));
            }
        }
        let Some(at) = contradiction else {
            return self.append(channel, trust, head, run, gap);
        };
        match checkpoint {
            Some(checkpoint) if run[at].serial() <= checkpoint.serial => {
                Ok(self.nothing(channel, trust))
            }
            Some(checkpoint) if over_a_gap(checkpoint.serial) => Err(Refusal::ReadFrom {
                serial: checkpoint.serial,
            }),
            _ => Err(Refusal::Fork(Box::new(Fork::new(
                trust,
                newest,
                &run[at..],
            )))),
        }
    }

    fn contradicts(&self, channel: &Channel, head: Head, statement: &Statement) -> bool {
        let other = |there: Head| {
            self.id_at(channel, there.serial)
                .is_some_and(|id| id != there.id)
        };
        log::place(Some(head), statement) == Place::Fork || other(statement.head())
    }

    fn nothing(&self, channel: &Channel, trust: &Trust) -> News {
        let run = Vec::new();
        News {
            channel: channel.clone(),
            run,
            delivered: 0,
            settled: None,
            other_branch: false,
            trust: trust.serial(),
        }
    }

    /// A run that goes on with our chain.
    fn append(
        &self,
        channel: &Channel,
        trust: &Trust,
        head: Head,
        run: Vec<Verified<Statement>>,
        gap: bool,
    ) -> Result<News, Refusal> {
        if run.last().is_none_or(|last| last.serial() < head.serial) {
            // A broker that is behind (attack 24).
            return Ok(self.nothing(channel, trust));
        }
        let from = after(head);
        if !gap && run.first().is_some_and(|first| first.serial() > from) {
            return Err(Refusal::ReadFrom { serial: from });
        }
        let delivered = self
            .known(channel)
            .and_then(|known| known.delivered)
            .map(|delivered| delivered.serial.min(head.serial));
        let delivered = run
            .iter()
            .take_while(|statement| Some(statement.serial()) <= delivered)
            .count();
        Ok(News {
            channel: channel.clone(),
            run,
            delivered,
            settled: None,
            other_branch: false,
            trust: trust.serial(),
        })
    }

    /// A run that takes the place of our chain from where they part.
    fn replace(&self, channel: &Channel, trust: &Trust, run: Vec<Verified<Statement>>) -> News {
        let through = |c: &Head| {
            run.iter().any(|s| s.head() == *c)
                || run.first().is_some_and(|first| first.serial() > c.serial)
        };
        let settled = trust.checkpoint(channel).head().filter(through);
        let (mut delivered, mut other_branch) = (0, false);
        if let Some(head) = self.head(channel) {
            other_branch = run.iter().all(|statement| statement.head() != head)
                && run[0].predecessor() != Some(head);
            let last = self
                .known(channel)
                .and_then(|known| known.delivered)
                .map(|delivered| delivered.serial);
            let ours = |statement: &Statement| {
                !other_branch || self.id_at(channel, statement.serial()) == Some(statement.id())
            };
            delivered = run
                .iter()
                .rposition(|statement| ours(statement) && Some(statement.serial()) <= last)
                .map_or(0, |at| at + 1);
        }
        News {
            channel: channel.clone(),
            run,
            delivered,
            settled,
            other_branch,
            trust: trust.serial(),
        }
    }

    /// The same where our head is not proven any more, or a checkpoint lies elsewhere: the run may
    /// take its place.
    fn place_anew(
        &self,
        channel: &Channel,
        run: Vec<Verified<Statement>>,
        contradicts: bool,
        gap: bool,
        now: &Now,
    ) -> Result<News, Refusal> {
        let trust = self.trust().ok_or(Refusal::NoTrust)?;
        let newest = self.known(channel).and_then(|known| known.newest.as_ref());
        let ends = run.first().zip(run.last());
        let (Some(restart), Some(newest), Some((first, last))) =
            (self.restart(channel), newest, ends)
        else {
            return Ok(self.nothing(channel, trust));
        };
        let (head, first, last) = (newest.head(), first.serial(), last.serial());
        let goes_on = match trust.checkpoint(channel).head() {
            Some(checkpoint) => last < checkpoint.serial,
            None => last > head.serial && !contradicts,
        };
        if goes_on {
            return match contradicts {
                true => Ok(self.nothing(channel, trust)),
                false => self.append(channel, trust, head, run, gap),
            };
        }
        let from = restart.min(after(head));
        if !gap && first > from {
            return Err(Refusal::ReadFrom { serial: from });
        }
        // A broker that is behind says nothing about our head, unless a live beat says the same.
        let named = self
            .live(channel, now)
            .is_some_and(|(named, _)| run.iter().any(|statement| statement.head() == named));
        let behind = last < head.serial && trust.meets(newest) && !named;
        Ok(match behind {
            true => self.nothing(channel, trust),
            false => self.replace(channel, trust, run),
        })
    }
}

fn after(head: Head) -> Serial {
    head.serial.next().unwrap_or(head.serial)
}
