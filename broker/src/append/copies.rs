//! What comes from other brokers: by mirror, by feed, by import.
//!
//! A copy that follows the head is appended. One that lies above a gap begins an *island*: statements that are stored, proven,
//! and not visible. An island grows downwards, each statement checked against the id that its successor names, and
//! upwards, and becomes part of the log when its lower end meets the head: the gap is filled by hashing, and nobody ever sees
//! a log with a hole. It survives a restart, so that filling goes on where it was.

use std::time::{Duration, Instant};

use tidings_protocol::{
    Channel, Head, Serial, Statement, Timestamp, Verified,
    trust::{Descent, Trust},
};

use super::{Accepted, AppendError, Pending, Writer};
use crate::store::{Batch, Marks};

/// One statement that another broker has.
pub(crate) enum Offer {
    /// Verified by its own signatures, by the trust with this serial.
    Verified(Verified<Statement>, Serial),
    /// Perhaps one that only its successor vouches for.
    Unproven(Statement),
}

impl Offer {
    fn statement(&self) -> &Statement {
        match self {
            Offer::Verified(statement, _) => statement,
            Offer::Unproven(statement) => statement,
        }
    }
}

/// Consecutive statements of one channel, newest first, each with its `Path`.
pub(crate) struct Run {
    pub(crate) channel: Channel,
    pub(crate) copies: Vec<(Offer, String)>,
    /// What lies below this is not to be had, or not wanted.
    pub(crate) floor: Serial,
    /// No upstream has what lies between our head and the floor: the log here begins anew.
    pub(crate) accept_gap: bool,
}

/// What was done with copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// Something new is stored; all of it is visible.
    New,
    /// Nothing of it was new.
    Known,
    /// It is stored, and waits for what lies below; this comes next.
    Wants(Serial),
}

/// What is stored above a gap.
pub(crate) struct Island {
    top: Head,
    lowest: Serial,
    descent: Descent,
    /// When it last grew downwards.
    since: Instant,
}

impl Writer {
    /// Takes up the islands of an earlier life; those that the trust in force does not accept any more are begun anew.
    pub(super) fn find_islands(&mut self) {
        let known = self.store.islands().unwrap_or_else(|error| {
            tracing::error!(%error, "what was being filled in is begun anew");
            Vec::new()
        });
        for (channel, top, lowest) in known {
            let read = |serial| self.store.get(&channel, serial).ok().flatten().map(|record| record.statement);
            let found = self.namespaces.trust(&channel).zip(read(top)).zip(read(lowest));
            let island = found.and_then(|((trust, top), lowest)| {
                let descent = Descent::resume(&trust, &top, &lowest).ok()?;
                Some(Island { top: top.head(), lowest: lowest.serial(), descent, since: Instant::now() })
            });
            if let Some(island) = island {
                self.islands.insert(channel, island);
            }
        }
    }

    /// What was proven by a trust that is replaced is not proven any more.
    pub(super) fn forget_islands(&mut self, of: impl Fn(&Channel) -> bool) {
        let forgotten: Vec<Channel> = self.islands.keys().filter(|channel| of(channel)).cloned().collect();
        let mut batch = Batch::default();
        for channel in &forgotten {
            self.islands.remove(channel);
            batch.set_island(channel, None);
        }
        if !forgotten.is_empty()
            && let Err(error) = self.store.commit(batch)
        {
            self.fail(&error);
        }
    }

    pub(super) fn is_mirrored(&self, channel: &Channel) -> bool {
        self.mirrored.as_ref().is_some_and(|mirrored| mirrored.matches(channel.as_str()))
    }

    /// Begins a log anew that a checkpoint has decided against, if it is only a copy.
    fn leave_branch(&mut self, pending: &Pending, channel: &Channel) -> bool {
        let can = self.is_mirrored(channel) && !pending.marks.contains_key(channel);
        if can {
            tracing::warn!(%channel, "the log here is not the one that trust has settled on: it is dropped, and copied anew");
            self.drop_log(channel);
        }
        can
    }

    /// Begins a log anew.
    pub(super) fn drop_log(&mut self, channel: &Channel) {
        let mut batch = Batch::default();
        batch.remove_marks(channel);
        batch.set_island(channel, None);
        self.islands.remove(channel);
        self.logs.remove(channel);
        if let Err(error) = self.store.commit(batch) {
            self.fail(&error);
        }
    }

    pub(super) fn take_copies(&mut self, pending: &mut Pending, now: Timestamp, run: Run) -> Result<Copied, AppendError> {
        let Run { channel, copies, floor, accept_gap } = run;
        let mut any = false;
        for (copy, path) in copies {
            any |= self.take_copy(pending, now, copy, path)?;
        }
        self.join_island(pending, now, &channel, Some((floor, accept_gap)));
        Ok(match self.islands.get(&channel).and_then(|island| island.descent.next()) {
            Some(next) => Copied::Wants(next.serial),
            None if any => Copied::New,
            None => Copied::Known,
        })
    }

    /// Whether it is new.
    fn take_copy(&mut self, pending: &mut Pending, now: Timestamp, copy: Offer, path: String) -> Result<bool, AppendError> {
        let channel = copy.statement().channel().clone();
        let trust = self.namespaces.trust(&channel).ok_or_else(|| AppendError::NoTrust(channel.clone()))?;
        let (serial, here) = (copy.statement().serial(), copy.statement().head());
        let marks = self.marks(pending, &channel);
        let next = self.islands.get(&channel).and_then(|island| island.descent.next());
        if let Some(marks) = marks.filter(|marks| serial <= marks.head.serial) {
            return self.take_old(pending, &trust, copy, marks, next == Some(here));
        }
        if let Some(island) = self.islands.get_mut(&channel) {
            if next == Some(here) {
                let statement = island.descent.take(&trust, unproven(copy))?;
                (island.lowest, island.since) = (serial, Instant::now());
                let range = (island.top.serial, serial);
                pending.hide(&statement, now, &path, Some(range));
                return Ok(true);
            }
            if (island.lowest..=island.top.serial).contains(&serial) {
                // It is here, unless somebody has signed another one; the next look at the head will tell.
                return Ok(false);
            }
        }
        let follows = copy.statement().predecessor();
        let is_next = follows == marks.map(|marks| marks.head);
        let top = self.islands.get(&channel).map(|island| island.top);
        let begins_island = !is_next && top.is_none();
        if !(is_next || begins_island || follows == top) {
            // It contradicts the head, or lies beyond what is being filled in.
            let beside_head = marks.is_some_and(|marks| marks.head.serial.next() == Some(serial));
            let statement = self.prove(&trust, copy)?;
            if beside_head {
                self.look_for_fork(pending, &statement);
                return Err(AppendError::Fork(channel, serial));
            }
            return Err(AppendError::Later);
        }
        if marks.is_none() && top.is_none() && self.logs.is_full() {
            return Err(AppendError::Channels);
        }
        if begins_island && marks.is_some_and(|marks| follows.is_some_and(|f| f.serial == marks.head.serial)) {
            // It follows another statement than our head, in the head's place.
            let statement = self.prove(&trust, copy)?;
            let settled = trust.checkpoint(&channel).is_some_and(|checkpoint| checkpoint == here);
            if settled && self.leave_branch(pending, &channel) {
                return Err(AppendError::Later);
            }
            self.look_for_fork(pending, &statement);
            return Err(AppendError::Fork(channel, serial));
        }
        let statement = self.prove(&trust, copy)?;
        if is_next {
            self.accept(pending, now, Accepted { statement, path, reply: None, trust: None });
            return Ok(true);
        }
        match self.islands.get_mut(&channel) {
            Some(island) => island.top = here,
            None => {
                let mut descent = Descent::new(channel.clone());
                descent.take(&trust, (*statement).clone())?;
                self.islands.insert(channel.clone(), Island { top: here, lowest: serial, descent, since: Instant::now() });
            }
        }
        let range = self.islands.get(&channel).map(|island| (island.top.serial, island.lowest));
        pending.hide(&statement, now, &path, range);
        Ok(true)
    }

    /// A statement at or below the head: the one that is here, or the proof of a fork.
    fn take_old(&mut self, pending: &Pending, trust: &Trust, copy: Offer, marks: Marks, linked: bool) -> Result<bool, AppendError> {
        let (channel, here) = (copy.statement().channel().clone(), copy.statement().head());
        let accepted = || pending.accepted.iter().find(|a| *a.statement.channel() == channel && a.statement.serial() == here.serial);
        let ours = match accepted() {
            Some(accepted) => Some(accepted.statement.head()),
            None if here.serial < marks.low => None,
            None if here.serial == marks.head.serial => Some(marks.head),
            None => self.store.get(&channel, here.serial).ok().flatten().map(|record| record.statement.head()),
        };
        if ours.is_none_or(|ours| ours == here) {
            return Ok(false);
        }
        let statement = unproven(copy);
        if !linked {
            trust.check(&statement)?;
        }
        // An island that has come down through a checkpoint is the log, and what is here is not.
        let settled = trust.checkpoint(&channel).is_some_and(|checkpoint| checkpoint.serial > here.serial);
        if linked && settled && self.leave_branch(pending, &channel) {
            return Err(AppendError::Later);
        }
        self.look_for_fork(pending, &statement);
        if linked {
            self.forget_islands(|island| *island == channel);
        }
        Err(AppendError::Fork(channel, here.serial))
    }

    /// By its own signatures, under the trust in force.
    fn prove(&self, trust: &Trust, copy: Offer) -> Result<Verified<Statement>, AppendError> {
        match copy {
            Offer::Verified(statement, by) if by == trust.serial() => Ok(statement),
            copy => Ok(trust.verify(unproven(copy))?),
        }
    }

    /// Makes an island part of the log, if its lower end meets the head, or whatever counts as the beginning.
    pub(super) fn join_island(&mut self, pending: &mut Pending, now: Timestamp, channel: &Channel, floor: Option<(Serial, bool)>) {
        let Some(island) = self.islands.get(channel) else { return };
        let (top, lowest, next) = (island.top, island.lowest, island.descent.next());
        let marks = self.marks(pending, channel);
        let reached = floor.is_some_and(|(floor, _)| lowest <= floor);
        let low = match marks {
            Some(marks) if next == Some(marks.head) => marks.low,
            // What was appended meanwhile has overtaken it, or is another branch.
            Some(marks) if marks.head.serial >= lowest => return self.end_island(pending, channel),
            Some(_) if reached && floor.is_some_and(|(_, accept_gap)| accept_gap) => lowest,
            None if reached || next.is_none() => lowest,
            _ => return,
        };
        if let Some(old) = marks.filter(|_| low == lowest) {
            tracing::warn!(%channel, from = %old.head.serial, to = %lowest, "what lies between is not to be had any more: the log begins anew behind it");
            let gone = old.low.number()..=old.head.serial.number();
            gone.filter_map(Serial::new).for_each(|serial| pending.batch.remove(channel, serial));
        }
        let created = marks.map_or(now, |marks| marks.created);
        pending.marks.insert(channel.clone(), Marks { low, head: top, created });
        pending.joined.insert(channel.clone());
        self.end_island(pending, channel);
    }

    /// Channels that a feed has begun in the middle: what has not come by now is not to be had, and the log begins there.
    /// A mirror asks, and knows better; and a log that has a beginning waits for what lies between.
    pub(super) fn settle_islands(&mut self, now: Timestamp, patience: Duration) {
        let due = |(channel, island): (&Channel, &Island)| {
            let waits = island.since.elapsed() > patience && self.logs.get(channel.as_str()).is_none() && !self.is_mirrored(channel);
            waits.then(|| (channel.clone(), island.lowest))
        };
        let due: Vec<_> = self.islands.iter().filter_map(due).collect();
        for (channel, lowest) in due {
            tracing::warn!(%channel, from = %lowest, "what lies below has not come: the log begins here");
            let mut pending = Pending::default();
            self.join_island(&mut pending, now, &channel, Some((lowest, false)));
            self.commit(pending, now);
        }
    }

    fn end_island(&mut self, pending: &mut Pending, channel: &Channel) {
        self.islands.remove(channel);
        pending.batch.set_island(channel, None);
        pending.hidden += 1;
    }
}

impl Pending {
    /// Stores a statement above the head, where nobody sees it.
    fn hide(&mut self, statement: &Verified<Statement>, now: Timestamp, path: &str, range: Option<(Serial, Serial)>) {
        self.batch.insert(statement, now, path);
        self.batch.set_island(statement.channel(), range);
        self.hidden += 1;
    }
}

fn unproven(copy: Offer) -> Statement {
    match copy {
        Offer::Verified(statement, _) => statement.into_inner(),
        Offer::Unproven(statement) => statement,
    }
}
