//! What comes from other brokers: by mirror, by feed, by import.
//!
//! A copy that follows the head is appended. One that lies above a gap begins an *island*: statements that are stored, proven,
//! and not visible. An island grows downwards, each statement checked against the id that its successor names, and
//! upwards; two that meet become one, and one that meets the head becomes part of the log: the gap is filled by hashing, and
//! nobody ever sees a log with a hole. Islands survive a restart, and a change of trust: that their statements hang together
//! does not depend on it, and who vouches for them is judged anew when they are next looked at.

use std::time::{Duration, Instant};

use tidings_protocol::{
    Channel, Head, Serial, Statement, Timestamp, Verified,
    trust::{Descent, Trust},
};

use super::{Accepted, AppendError, Pending, Writer};
use crate::{
    limits::{CHANNELS, ISLANDS},
    store::{Batch, Marks, Store},
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
    /// The last of these is as low as this log can or shall go.
    pub(crate) is_floor: bool,
    /// Also if there is a log here that ends below: it begins anew.
    pub(crate) accept_gap: bool,
}

/// What was done with copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// Something new is stored; all of it is visible.
    New,
    /// Nothing of it was new.
    Known,
    /// It is stored, and waits for what lies below.
    Wants {
        /// What comes next.
        next: Serial,
        /// The highest of what hangs together with it.
        top: Serial,
    },
}

/// What is stored above a gap: consecutive statements, each named by the one above it.
pub(crate) struct Island {
    top: Head,
    lowest: Serial,
    /// What the lowest names.
    below: Option<Head>,
    proof: Proof,
    /// When it last grew downwards.
    since: Instant,
}

/// Who vouches for an island, by which trust.
enum Proof {
    Unjudged,
    /// Nobody, by the trust with this serial; what comes above it may.
    Failed(Serial),
    Proven(Serial, Descent),
}

impl Island {
    fn range(&self) -> (Serial, Serial) {
        (self.top.serial, self.lowest)
    }
    fn holds(&self, serial: Serial) -> bool {
        (self.lowest..=self.top.serial).contains(&serial)
    }
    fn is_proven(&self) -> bool {
        matches!(self.proof, Proof::Proven(..))
    }
}

impl Writer {
    /// Takes up the islands of an earlier life.
    pub(super) fn find_islands(&mut self) {
        let known = self.store.islands().unwrap_or_else(|error| {
            tracing::error!(%error, "what was being filled in is begun anew");
            Vec::new()
        });
        for (channel, top, lowest) in known {
            let read = |serial| self.store.get(&channel, serial).ok().flatten().map(|record| record.statement);
            let Some((top, low)) = read(top).zip(read(lowest)) else { continue };
            let island = Island { top: top.head(), lowest, below: low.predecessor(), proof: Proof::Unjudged, since: Instant::now() };
            self.islands.entry(channel).or_default().push(island);
        }
    }

    /// Judges islands by the trust in force that were last judged by another.
    fn judge(&mut self, channel: &Channel, trust: &Trust) {
        let Some(islands) = self.islands.get_mut(channel) else { return };
        for island in islands {
            let judged = match &island.proof {
                Proof::Unjudged => None,
                Proof::Failed(by) | Proof::Proven(by, _) => Some(*by),
            };
            if judged != Some(trust.serial()) {
                let proven = descend(&self.store, trust, channel, island, Descent::new(channel.clone()));
                island.proof = proven.map_or(Proof::Failed(trust.serial()), |descent| Proof::Proven(trust.serial(), descent));
            }
        }
    }

    pub(super) fn is_mirrored(&self, channel: &Channel) -> bool {
        self.mirrored.as_ref().is_some_and(|mirrored| mirrored.matches(channel.as_str()))
    }

    /// Leaves a log that a checkpoint has decided against, if it is only a copy.
    fn leave_branch(&mut self, pending: &mut Pending, channel: &Channel) -> bool {
        let can = self.is_mirrored(channel) && !pending.marks.contains_key(channel);
        if can {
            tracing::warn!(%channel, "the log here is not the one that trust has settled on: it is dropped, and copied anew");
            self.drop_log(&mut pending.batch, channel);
            pending.hidden += 1;
        }
        can
    }

    /// Begins a log anew: what was visible is not any more, and feeds offer it from the beginning.
    pub(super) fn drop_log(&mut self, batch: &mut Batch, channel: &Channel) {
        batch.remove_marks(channel);
        if let Err(error) = self.store.forget_feed_cursors(batch, channel) {
            self.fail(&error);
        }
        if let Some(log) = self.logs.remove(channel) {
            self.watches.drop_log(&log);
        }
    }

    pub(super) fn take_copies(&mut self, pending: &mut Pending, now: Timestamp, run: Run) -> Result<Copied, AppendError> {
        let Run { channel, copies, is_floor, accept_gap } = run;
        let trust = self.namespaces.trust(&channel).ok_or_else(|| AppendError::NoTrust(channel.clone()))?;
        self.judge(&channel, &trust);
        let last = copies.last().map(|(copy, _)| copy.statement().serial());
        let mut any = false;
        for (copy, path) in copies {
            any |= self.take_copy(pending, now, &trust, copy, path)?;
        }
        self.join_islands(pending, now, &channel, last.filter(|_| is_floor).map(|floor| (floor, accept_gap)));
        let islands = self.islands.get(&channel);
        let holds = |island: &&Island| island.is_proven() && last.is_none_or(|last| island.holds(last));
        let island = islands.and_then(|islands| islands.iter().rfind(holds));
        Ok(match island.and_then(|island| Some((island.below?.serial, island.top.serial))) {
            Some((next, top)) => Copied::Wants { next, top },
            None if any => Copied::New,
            None => Copied::Known,
        })
    }

    /// What stands in a place, whether it is visible, hidden, or in the commit that is being made.
    fn in_place(&self, pending: &Pending, channel: &Channel, serial: Serial) -> Result<Option<Head>, AppendError> {
        if let Some(id) = pending.ids.get(channel).and_then(|ids| ids.get(&serial)) {
            return Ok(Some(Head { serial, id: *id }));
        }
        let marks = self.marks(pending, channel);
        let visible = marks.is_some_and(|marks| serial <= marks.head.serial);
        if visible && marks.is_some_and(|marks| serial < marks.low) {
            return Err(AppendError::Expired(channel.clone(), serial));
        }
        let hidden = || self.islands.get(channel).is_some_and(|islands| islands.iter().any(|island| island.holds(serial)));
        if !visible && !hidden() {
            return Ok(None);
        }
        let record = self.store.get(channel, serial).map_err(|error| {
            tracing::error!(%error, "what is stored cannot be compared");
            AppendError::Store
        })?;
        Ok(record.map(|record| record.statement.head()))
    }

    /// Whether it is new.
    fn take_copy(&mut self, pending: &mut Pending, now: Timestamp, trust: &Trust, copy: Offer, path: String) -> Result<bool, AppendError> {
        let channel = copy.statement().channel().clone();
        let (here, follows) = (copy.statement().head(), copy.statement().predecessor());
        let marks = self.marks(pending, &channel);
        let mut none = Vec::new();
        // What nobody vouches for is hidden, and in nobody's way.
        let islands = self.islands.get(&channel);
        let unproven_there = islands.is_some_and(|islands| islands.iter().any(|island| island.holds(here.serial) && !island.is_proven()));
        match self.in_place(pending, &channel, here.serial)? {
            Some(there) if there == here && !(unproven_there && follows == marks.map(|marks| marks.head)) => return Ok(false),
            Some(there) if there == here => {}
            Some(_) if unproven_there => {
                if self.linked_from(&channel, here).is_none() {
                    trust.check(copy.statement())?;
                }
                self.look_for_fork(pending, copy.statement());
                self.cut_islands(pending, &channel, here.serial);
            }
            Some(_) => return self.take_contradiction(pending, trust, copy, marks),
            None => {}
        }
        let islands = self.islands.get_mut(&channel).unwrap_or(&mut none);
        if let Some(island) = islands.iter_mut().find(|island| island.below == Some(here))
            && let Proof::Proven(_, descent) = &mut island.proof
        {
            let statement = descent.take(trust, unproven(copy))?;
            (island.lowest, island.below, island.since) = (here.serial, follows, Instant::now());
            self.hide(pending, now, trust, &statement, &path);
            return Ok(true);
        }
        let begins = marks.is_none() && islands.is_empty();
        let full = islands.len() >= ISLANDS;
        if begins && self.logs.count() + self.islands.len() >= CHANNELS {
            return Err(AppendError::Channels);
        }
        let statement = self.prove(trust, copy)?;
        if follows == marks.map(|marks| marks.head) {
            self.accept(pending, now, Accepted { statement, path, reply: None, trust: None });
            return Ok(true);
        }
        if marks.is_some_and(|marks| follows.is_some_and(|f| f.serial == marks.head.serial)) {
            // It follows another statement than our head, in the head's place.
            if trust.checkpoint(&channel).head().is_some_and(|checkpoint| checkpoint == here) && self.leave_branch(pending, &channel) {
                return Err(AppendError::Later);
            }
            self.look_for_fork(pending, &statement);
            return Err(AppendError::Fork(channel, here.serial));
        }
        let mut above = Descent::new(channel.clone());
        above.take(trust, (*statement).clone())?;
        let islands = self.islands.entry(channel.clone()).or_default();
        let below = islands.iter_mut().find(|island| follows == Some(island.top));
        let grows = below.is_some_and(|island| {
            let descent = match &mut island.proof {
                Proof::Proven(_, descent) => {
                    descent.follow(&above);
                    return std::mem::replace(&mut island.top, here) != here;
                }
                // What nobody vouched for, the new one may.
                _ => descend(&self.store, trust, &channel, island, above.clone()),
            };
            let Some(descent) = descent else { return false };
            (island.top, island.proof) = (here, Proof::Proven(trust.serial(), descent));
            true
        });
        if !grows && full {
            return Err(AppendError::Later);
        }
        if !grows {
            let place = islands.partition_point(|island| island.lowest < here.serial);
            let proof = Proof::Proven(trust.serial(), above);
            islands.insert(place, Island { top: here, lowest: here.serial, below: follows, proof, since: Instant::now() });
        }
        self.hide(pending, now, trust, &statement, &path);
        Ok(true)
    }

    /// The proven island that names a statement as what comes below it.
    fn linked_from(&self, channel: &Channel, here: Head) -> Option<&Island> {
        let names_it = |island: &&Island| island.below == Some(here) && island.is_proven();
        self.islands.get(channel)?.iter().find(names_it)
    }

    /// Gives up what hangs on a statement in which nobody believes any more; what lies below it stays.
    fn cut_islands(&mut self, pending: &mut Pending, channel: &Channel, serial: Serial) {
        let Some(islands) = self.islands.get_mut(channel) else { return };
        let store = &self.store;
        islands.retain_mut(|island| {
            if !island.holds(serial) {
                return true;
            }
            let below = (serial > island.lowest).then(|| Serial::new(serial.number() - 1)).flatten();
            let top = below.and_then(|below| store.get(channel, below).ok()?).map(|record| record.statement.head());
            top.is_some_and(|top| {
                (island.top, island.proof) = (top, Proof::Unjudged);
                true
            })
        });
        pending.batch.set_islands(channel, islands.iter().map(Island::range));
        pending.hidden += 1;
    }

    /// A statement in whose place another one stands: the proof of a fork, or the branch that trust has settled on.
    fn take_contradiction(&mut self, pending: &mut Pending, trust: &Trust, copy: Offer, marks: Option<Marks>) -> Result<bool, AppendError> {
        let (channel, here) = (copy.statement().channel().clone(), copy.statement().head());
        let checkpoint = trust.checkpoint(&channel).head();
        let linked = self.linked_from(&channel, here);
        // An island that has come down through a checkpoint is the log, and what is here is not.
        let through = |island: &Island| checkpoint.is_some_and(|c| here.serial < c.serial && c.serial <= island.top.serial);
        let (settled, is_linked) = (linked.is_some_and(through) || checkpoint == Some(here), linked.is_some());
        let statement = unproven(copy);
        if !is_linked {
            trust.check(&statement)?;
        }
        let visible = marks.is_some_and(|marks| here.serial <= marks.head.serial);
        if settled && visible && self.leave_branch(pending, &channel) {
            return Err(AppendError::Later);
        }
        self.look_for_fork(pending, &statement);
        Err(AppendError::Fork(channel, here.serial))
    }

    /// By its own signatures, under the trust in force.
    fn prove(&self, trust: &Trust, copy: Offer) -> Result<Verified<Statement>, AppendError> {
        match copy {
            Offer::Verified(statement, by) if by == trust.serial() => Ok(statement),
            copy => Ok(trust.verify(unproven(copy))?),
        }
    }

    /// Stores a statement above the head, where nobody sees it; what hangs together now becomes one.
    fn hide(&mut self, pending: &mut Pending, now: Timestamp, trust: &Trust, statement: &Verified<Statement>, path: &str) {
        let channel = statement.channel();
        pending.batch.insert(statement, now, path);
        pending.note(channel, statement.head());
        pending.hidden += 1;
        let Some(islands) = self.islands.get_mut(channel) else { return };
        let met = (1..islands.len()).find(|&at| islands[at].is_proven() && islands[at].below == Some(islands[at - 1].top));
        if let Some(upper) = met
            && let Proof::Proven(_, above) = &islands[upper].proof
        {
            let above = above.clone();
            let lower = &mut islands[upper - 1];
            let descent = match &mut lower.proof {
                Proof::Proven(_, descent) => {
                    descent.follow(&above);
                    Some(descent.clone())
                }
                _ => descend(&self.store, trust, channel, lower, above),
            };
            if let Some(descent) = descent {
                let top = islands.remove(upper).top;
                let lower = &mut islands[upper - 1];
                (lower.top, lower.proof) = (top, Proof::Proven(trust.serial(), descent));
            }
        }
        pending.batch.set_islands(channel, islands.iter().map(Island::range));
    }

    /// What is appended in a place that an island holds: the same statement, which the island gives up, or the proof of a fork.
    pub(super) fn take_from_islands(&mut self, pending: &mut Pending, statement: &Statement) {
        let (channel, here) = (statement.channel(), statement.head());
        let Some(islands) = self.islands.get_mut(channel) else { return };
        let Some(at) = islands.iter().position(|island| island.holds(here.serial)) else { return };
        let in_commit = pending.ids.get(channel).and_then(|ids| ids.get(&here.serial)).copied();
        let stored = self.store.get(channel, here.serial).ok().flatten().map(|record| record.statement);
        let same = in_commit.or_else(|| stored.as_ref().map(|stored| stored.id())) == Some(here.id);
        let island = &mut islands[at];
        if same && island.lowest == here.serial && island.top.serial > here.serial {
            (island.lowest, island.below) = (here.serial.next().unwrap_or(here.serial), Some(here));
        } else {
            islands.remove(at);
        }
        pending.batch.set_islands(channel, islands.iter().map(Island::range));
        match stored.filter(|_| in_commit.is_none()) {
            _ if same => {}
            Some(stored) => self.forks.remember(statement, &stored),
            None => tracing::error!(%channel, serial = %here.serial, "a fork within one commit: what was hidden is given up"),
        }
    }

    /// Makes the lowest island part of the log, if it meets the head; or the one that has come down to the floor, if nothing
    /// below that is to be had, or wanted.
    pub(super) fn join_islands(&mut self, pending: &mut Pending, now: Timestamp, channel: &Channel, floor: Option<(Serial, bool)>) {
        if let Some(trust) = self.islands.get(channel).and_then(|_| self.namespaces.trust(channel)) {
            self.judge(channel, &trust);
        }
        let marks = self.marks(pending, channel);
        let Some(islands) = self.islands.get_mut(channel) else { return };
        let before = islands.len();
        if let Some(marks) = marks {
            // What was appended meanwhile has overtaken them.
            islands.retain(|island| island.top.serial > marks.head.serial);
        }
        let meets = |island: &Island| island.is_proven() && island.below == marks.map(|marks| marks.head);
        let reached = |island: &Island| {
            island.is_proven() && floor.is_some_and(|(floor, accept_gap)| island.holds(floor) && (marks.is_none() || accept_gap))
        };
        let joins = match islands.first().is_some_and(meets) {
            true => Some((0, marks.map(|marks| marks.low))),
            false => islands.iter().position(reached).map(|at| (at, None)),
        };
        if let Some((at, low)) = joins {
            let Island { top, lowest, .. } = islands.remove(at);
            islands.drain(..at);
            let low = low.unwrap_or(lowest);
            if let Some(old) = marks.filter(|_| low == lowest) {
                tracing::warn!(%channel, from = %old.head.serial, to = %lowest, "what lies between is not to be had, or not wanted: the log begins anew behind it");
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
            let begins = islands.iter().find(|island| !matches!(island.proof, Proof::Failed(_)))?;
            let waits = islands.iter().all(|island| island.since.elapsed() > patience)
                && self.logs.get(channel.as_str()).is_none()
                && !self.is_mirrored(channel)
                && !self.clustered;
            waits.then(|| (channel.clone(), begins.lowest))
        };
        let due: Vec<_> = self.islands.iter().filter_map(due).collect();
        let mut pending = Pending::default();
        for (channel, lowest) in due {
            if self.logs.count() + pending.joined.len() >= CHANNELS {
                break;
            }
            tracing::warn!(%channel, from = %lowest, "what lies below has not come: the log begins here");
            self.join_islands(&mut pending, now, &channel, Some((lowest, false)));
        }
        self.commit(pending, now);
    }
}

/// Goes down an island with what vouches for it from above; none if that is not enough.
fn descend(store: &Store, trust: &Trust, channel: &Channel, island: &Island, mut descent: Descent) -> Option<Descent> {
    for serial in (island.lowest.number()..=island.top.serial.number()).rev().filter_map(Serial::new) {
        let record = store.get(channel, serial).ok()??;
        descent.take(trust, record.statement).ok()?;
    }
    Some(descent)
}

fn unproven(copy: Offer) -> Statement {
    match copy {
        Offer::Verified(statement, _) => statement.into_inner(),
        Offer::Unproven(statement) => statement,
    }
}
