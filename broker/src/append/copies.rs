//! What comes from other brokers: by mirror, by feed, by import.
//!
//! A copy that follows the head is appended. One that lies above a gap begins an *island*: statements that are stored, proven,
//! and not visible. An island grows downwards, each statement checked against the id that its successor names, and
//! upwards; two that meet become one, and one that meets the head becomes part of the log: the gap is filled by hashing, and
//! nobody ever sees a log with a hole. Islands survive a restart, so that filling goes on where it was.

use std::time::{Duration, Instant};

use tidings_protocol::{
    Channel, Head, Serial, Statement, Timestamp, Verified,
    trust::{Descent, Trust},
};

use super::{Accepted, AppendError, Pending, Writer};
use crate::{
    limits::ISLANDS,
    store::{Batch, Marks},
};

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

/// What is stored above a gap: consecutive statements.
pub(crate) struct Island {
    top: Head,
    lowest: Serial,
    descent: Descent,
    /// When it last grew downwards.
    since: Instant,
}

impl Island {
    fn range(&self) -> (Serial, Serial) {
        (self.top.serial, self.lowest)
    }
    fn holds(&self, serial: Serial) -> bool {
        (self.lowest..=self.top.serial).contains(&serial)
    }
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
            self.islands.entry(channel).or_default().extend(island);
        }
    }

    /// What was proven by a trust that is replaced is not proven any more.
    pub(super) fn forget_islands(&mut self, of: impl Fn(&Channel) -> bool) {
        let forgotten: Vec<Channel> = self.islands.keys().filter(|channel| of(channel)).cloned().collect();
        let mut batch = Batch::default();
        for channel in &forgotten {
            self.islands.remove(channel);
            batch.set_islands(channel, std::iter::empty());
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
        batch.set_islands(channel, std::iter::empty());
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
        self.join_islands(pending, now, &channel, Some((floor, accept_gap)));
        Ok(match self.islands.get(&channel).and_then(|islands| islands.last()?.descent.next()) {
            Some(next) => Copied::Wants(next.serial),
            None if any => Copied::New,
            None => Copied::Known,
        })
    }

    /// Whether it is new.
    fn take_copy(&mut self, pending: &mut Pending, now: Timestamp, copy: Offer, path: String) -> Result<bool, AppendError> {
        let channel = copy.statement().channel().clone();
        let trust = self.namespaces.trust(&channel).ok_or_else(|| AppendError::NoTrust(channel.clone()))?;
        let here = copy.statement().head();
        let marks = self.marks(pending, &channel);
        let mut none = Vec::new();
        let islands = self.islands.get_mut(&channel).unwrap_or(&mut none);
        let above = islands.iter_mut().find(|island| island.descent.next() == Some(here));
        if let Some(marks) = marks.filter(|marks| here.serial <= marks.head.serial) {
            let linked = above.is_some();
            return self.take_old(pending, &trust, copy, marks, linked);
        }
        if let Some(island) = above {
            let statement = island.descent.take(&trust, unproven(copy))?;
            (island.lowest, island.since) = (here.serial, Instant::now());
            self.hide(pending, now, &statement, &path);
            return Ok(true);
        }
        if islands.iter().any(|island| island.holds(here.serial)) {
            // It is here, unless somebody has signed another one; the next look at the head will tell.
            return Ok(false);
        }
        let follows = copy.statement().predecessor();
        if follows == marks.map(|marks| marks.head) {
            if marks.is_none() && islands.is_empty() && self.logs.is_full() {
                return Err(AppendError::Channels);
            }
            let statement = self.prove(&trust, copy)?;
            self.accept(pending, now, Accepted { statement, path, reply: None, trust: None });
            return Ok(true);
        }
        let below = islands.iter().position(|island| follows == Some(island.top));
        let full = islands.len() >= ISLANDS || (marks.is_none() && islands.is_empty() && self.logs.is_full());
        let statement = self.prove(&trust, copy)?;
        if marks.is_some_and(|marks| follows.is_some_and(|f| f.serial == marks.head.serial)) {
            // It follows another statement than our head, in the head's place.
            let settled = trust.checkpoint(&channel).is_some_and(|checkpoint| checkpoint == here);
            if settled && self.leave_branch(pending, &channel) {
                return Err(AppendError::Later);
            }
            self.look_for_fork(pending, &statement);
            return Err(AppendError::Fork(channel, here.serial));
        }
        let islands = self.islands.entry(channel.clone()).or_default();
        match below {
            Some(below) => islands[below].top = here,
            None if full => return Err(AppendError::Later),
            None => {
                let mut descent = Descent::new(channel);
                descent.take(&trust, (*statement).clone())?;
                let place = islands.partition_point(|island| island.lowest < here.serial);
                islands.insert(place, Island { top: here, lowest: here.serial, descent, since: Instant::now() });
            }
        }
        self.hide(pending, now, &statement, &path);
        Ok(true)
    }

    /// Stores a statement above the head, where nobody sees it; what hangs together now becomes one.
    fn hide(&mut self, pending: &mut Pending, now: Timestamp, statement: &Verified<Statement>, path: &str) {
        let channel = statement.channel();
        pending.batch.insert(statement, now, path);
        pending.hidden += 1;
        let Some(islands) = self.islands.get_mut(channel) else { return };
        let met = (1..islands.len()).find(|&at| islands[at].descent.next() == Some(islands[at - 1].top));
        if let Some(upper) = met {
            let above = islands.remove(upper);
            let below = &mut islands[upper - 1];
            below.descent.follow(&above.descent);
            below.top = above.top;
        }
        pending.batch.set_islands(channel, islands.iter().map(Island::range));
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

    /// Makes the lowest island part of the log, if it meets the head; or the highest, if it has come down to what counts as
    /// the beginning: nothing below is to be had.
    pub(super) fn join_islands(&mut self, pending: &mut Pending, now: Timestamp, channel: &Channel, floor: Option<(Serial, bool)>) {
        let marks = self.marks(pending, channel);
        let Some(islands) = self.islands.get_mut(channel) else { return };
        let before = islands.len();
        if let Some(marks) = marks {
            // What was appended meanwhile has overtaken them, or they are another branch.
            islands.retain(|island| island.lowest > marks.head.serial);
        }
        let meets = |island: &Island| island.descent.next() == marks.map(|marks| marks.head);
        let reached = |island: &Island| floor.is_some_and(|(floor, accept_gap)| island.lowest <= floor && (marks.is_none() || accept_gap));
        let joins = match islands.first().is_some_and(meets) {
            true => Some((0, marks.map(|marks| marks.low))),
            false => islands.last().is_some_and(reached).then(|| (islands.len() - 1, None)),
        };
        if let Some((at, low)) = joins {
            let Island { top, lowest, .. } = islands.remove(at);
            islands.drain(..at);
            let low = low.unwrap_or(lowest);
            if let Some(old) = marks.filter(|_| low == lowest) {
                tracing::warn!(%channel, from = %old.head.serial, to = %lowest, "what lies between is not to be had any more: the log begins anew behind it");
                let gone = old.low.number()..=old.head.serial.number();
                gone.filter_map(Serial::new).for_each(|serial| pending.batch.remove(channel, serial));
            }
            let created = marks.map_or(now, |marks| marks.created);
            pending.marks.insert(channel.clone(), Marks { low, head: top, created });
            pending.joined.insert(channel.clone());
        }
        if islands.len() != before {
            pending.batch.set_islands(channel, islands.iter().map(Island::range));
            pending.hidden += 1;
        }
        if islands.is_empty() {
            self.islands.remove(channel);
        }
    }

    /// Channels that a feed has begun in the middle: what has not come by now is not to be had, and the log begins there.
    /// A mirror asks, and knows better; and a log that has a beginning waits for what lies between.
    pub(super) fn settle_islands(&mut self, now: Timestamp, patience: Duration) {
        let due = |(channel, islands): (&Channel, &Vec<Island>)| {
            let highest = islands.last().filter(|_| islands.iter().all(|island| island.since.elapsed() > patience))?;
            let waits = self.logs.get(channel.as_str()).is_none() && !self.is_mirrored(channel);
            waits.then(|| (channel.clone(), highest.lowest))
        };
        let due: Vec<_> = self.islands.iter().filter_map(due).collect();
        for (channel, lowest) in due {
            tracing::warn!(%channel, from = %lowest, "what lies below has not come: the log begins here");
            let mut pending = Pending::default();
            self.join_islands(&mut pending, now, &channel, Some((lowest, false)));
            self.commit(pending, now);
        }
    }
}

fn unproven(copy: Offer) -> Statement {
    match copy {
        Offer::Verified(statement, _) => statement.into_inner(),
        Offer::Unproven(statement) => statement,
    }
}
