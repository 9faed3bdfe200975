//! What is true: what was settled, in its one order, and what publishers were told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidings_protocol::{Channel, Head, Statement, StatementId};

use super::{
    super::{batch::Seen, kept, session::Change, tree::read_head},
    brokers::Life,
    znodes::Znodes,
};
use crate::log::append::{Answer, AppendError};

/// What is known of a statement since it was signed.
#[derive(Clone)]
pub(super) struct Signed {
    /// The key that has signed it.
    pub(super) key: &'static str,
    /// The key that may sign releases from then on, if it is trust.
    pub(super) brings: Option<&'static str>,
    /// Which broker has signed it, if it is a beat.
    pub(super) broker: Option<usize>,
}

/// How much has happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) settled: usize,
    pub(super) acknowledged: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
    pub(super) trust: usize,
    pub(super) beats: usize,
    pub(super) crashes: usize,
    pub(super) expired: usize,
    pub(super) caught_up: usize,
    pub(super) filled: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.settled += other.settled;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.trust += other.trust;
        self.beats += other.beats;
        self.crashes += other.crashes;
        self.expired += other.expired;
        self.caught_up += other.caught_up;
        self.filled += other.filled;
    }
}

#[derive(Default)]
struct Known {
    settled: BTreeMap<Channel, Vec<Head>>,
    signed: HashMap<StatementId, Signed>,
    acknowledged: Vec<(Channel, Head)>,
    refused: HashMap<StatementId, String>,
    /// The key that may sign releases now.
    key: Option<&'static str>,
    failure: Option<String>,
    counts: Counts,
}

#[derive(Clone, Default)]
pub(super) struct Oracle(Arc<Mutex<Known>>);

/// How far the logs of one broker were looked at.
pub(super) type Checked = BTreeMap<Channel, u32>;

impl Oracle {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first thing that is wrong is what is reported.
    pub(super) fn fail(&self, why: String) {
        self.known().failure.get_or_insert(why);
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.known().failure.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        self.known().counts
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.known().counts);
    }

    /// A statement is signed, or is to be offered once more, and may be settled from now on.
    pub(super) fn note_signed(&self, statement: &Statement, signed: Signed) {
        let mut known = self.known();
        known.refused.remove(&statement.id());
        known.signed.insert(statement.id(), signed);
    }

    /// The heads of all channels.
    pub(super) fn heads(&self) -> Vec<(Channel, Head)> {
        let known = self.known();
        let heads = known.settled.iter();
        heads
            .filter_map(|(channel, log)| Some((channel.clone(), *log.last()?)))
            .collect()
    }

    /// Judges what one multi-operation settles, by what was before.
    pub(super) fn judge(&self, nodes: &Znodes, changes: &[Change]) {
        let mut known = self.known();
        let judged = changes.iter().try_for_each(|change| match change {
            Change::Create(path, data) if path.starts_with("/settled/") => {
                known.judge_node(nodes, changes, data)
            }
            Change::Create(path, data) | Change::Set(path, data, _) => {
                known.judge_head(nodes, path, data)
            }
            _ => Ok(()),
        });
        if let Err(why) = judged {
            known.failure.get_or_insert(why);
        }
    }

    /// What a publisher was told of a statement; whether it knows now what became of it.
    pub(super) fn note_answer(
        &self,
        statement: &Statement,
        answer: &Answer,
        perhaps: bool,
    ) -> bool {
        let mut known = self.known();
        let (channel, head) = (statement.channel(), statement.head());
        let is_settled = known.is_settled(channel, head);
        let wrong = |what: &str| format!("{channel} {} {} {what}", head.serial, head.id);
        match answer {
            Ok(_) => {
                known.counts.acknowledged += 1;
                known.acknowledged.push((channel.clone(), head));
                if !is_settled {
                    let why = wrong("is acknowledged, and not settled");
                    known.failure.get_or_insert(why);
                }
                true
            }
            Err(AppendError::Unknown | AppendError::Store) => false,
            // Of beats a broker may have the newest alone, and not know what was before.
            Err(AppendError::LostRace(there))
                if channel.is_beat() && there.serial > head.serial =>
            {
                true
            }
            // An earlier attempt may have been made all the same, or be made later.
            Err(AppendError::LostRace(there)) if perhaps && there.serial < head.serial => false,
            Err(error) if perhaps && !matches!(error, AppendError::LostRace(_)) => false,
            Err(error) => {
                known.counts.refused += 1;
                if is_settled {
                    let why = wrong(&format!("is refused, and settled: {error}"));
                    known.failure.get_or_insert(why);
                }
                known.refused.insert(statement.id(), error.to_string());
                true
            }
        }
    }

    /// Whether what a broker shows is what was settled, in its order; what was looked at before is
    /// not looked at again.
    pub(super) fn look(&self, broker: usize, life: &Life, checked: &mut Checked) {
        let known = self.known();
        let mut failure = None;
        for log in life.logs.all() {
            let marks = log.marks();
            let low = marks.low.number();
            let from = checked.get(&log.channel).map_or(low, |last| last + 1);
            // Of beats that others have forgotten, the newest is enough.
            let from = if log.channel.is_beat() {
                from.max(low)
            } else {
                from
            };
            let settled = known
                .settled
                .get(&log.channel)
                .map_or(&[][..], Vec::as_slice);
            for number in from..=marks.head.serial.number() {
                let serial = tidings_protocol::Serial::new(number).unwrap();
                // A disk that has failed reads nothing.
                let Ok(there) = log.head_at(serial) else {
                    return;
                };
                let there = there.map(|(head, _)| head);
                let expected = settled.get(number as usize - 1).copied();
                if there != expected || there.is_none() {
                    failure = Some(format!(
                        "{}: broker {broker} has {there:?}, and settled is {expected:?}",
                        log.channel
                    ));
                }
            }
            checked.insert(log.channel.clone(), marks.head.serial.number());
        }
        drop(known);
        if let Some(why) = failure {
            self.fail(why);
        }
    }

    /// What a broker still lacks.
    pub(super) fn lacks(&self, life: &Life) -> Option<String> {
        let known = self.known();
        for (channel, settled) in &known.settled {
            let ours = life.logs.get(channel.as_str()).map(|log| log.marks());
            let wanted = settled.last().copied();
            let is_whole = ours.is_some_and(|marks| {
                Some(marks.head) == wanted && (marks.low.number() == 1 || channel.is_beat())
            });
            if !is_whole {
                return Some(format!(
                    "{channel}: it has {ours:?}, and settled is {wanted:?}"
                ));
            }
        }
        let lost = known.acknowledged.iter();
        let lost = lost.filter(|(channel, head)| !known.is_settled(channel, *head));
        lost.map(|lost| format!("{lost:?} was acknowledged")).next()
    }
}

impl Known {
    fn is_settled(&self, channel: &Channel, head: Head) -> bool {
        let log = self.settled.get(channel);
        log.and_then(|log| log.get(head.serial.number() as usize - 1)) == Some(&head)
    }

    /// What a node says is what becomes true with it, its versions included.
    fn judge_node(
        &mut self,
        nodes: &Znodes,
        changes: &[Change],
        data: &[u8],
    ) -> Result<(), String> {
        let records = kept::read(data).ok_or("a node cannot be read")?;
        for record in records {
            let path = format!("/heads/{}", record.channel);
            let set = changes.iter().find_map(|change| match change {
                Change::Create(of, _) if *of == path => Some(0),
                Change::Set(of, _, after) if *of == path => after.map(|after| after + 1),
                _ => None,
            });
            match record.entry {
                Some((statement, _)) if set == Some(record.version) => {
                    self.judge_entry(nodes, &statement)?;
                }
                _ => return Err(format!("{path} is not set as its node says: {set:?}")),
            }
        }
        Ok(())
    }

    fn judge_entry(&mut self, nodes: &Znodes, statement: &Statement) -> Result<(), String> {
        let (channel, head) = (statement.channel().clone(), statement.head());
        let wrong = |what: &str| Err(format!("{channel} {} is settled {what}", head.serial));
        let log = self.settled.entry(channel.clone()).or_default();
        if statement.predecessor() != log.last().copied()
            || head.serial.number() as usize != log.len() + 1
        {
            return wrong("out of its order");
        }
        log.push(head);
        self.counts.settled += 1;
        if let Some(error) = self.refused.get(&head.id) {
            return wrong(&format!("after it was refused: {error}"));
        }
        let Some(signed) = self.signed.get(&head.id) else {
            return wrong("and nobody has signed it");
        };
        if let Some(key) = signed.brings {
            self.key = Some(key);
            self.counts.trust += 1;
        } else if let Some(broker) = signed.broker {
            self.counts.beats += 1;
            let term = nodes.newest("/term").map(|(data, _)| data.to_vec());
            let name = format!("b{broker} ");
            if !term.is_some_and(|term| term.starts_with(name.as_bytes())) {
                return wrong("as a beat of a broker that does not sign");
            }
        } else if self.key != Some(signed.key) {
            return wrong("and trust does not allow it any more");
        }
        Ok(())
    }

    /// A head names what was settled last.
    fn judge_head(&self, nodes: &Znodes, path: &str, data: &[u8]) -> Result<(), String> {
        let Some(name) = path.strip_prefix("/heads/") else {
            return Ok(());
        };
        let stat = nodes.newest("/layout").unwrap().1;
        let Some(Seen { head, .. }) = read_head(data, &stat) else {
            return Err(format!("the head of {name} cannot be read"));
        };
        let last = self.settled.get(&name.parse::<Channel>().unwrap());
        let last = last.and_then(|log| log.last().copied());
        match last == Some(head) {
            true => Ok(()),
            false => Err(format!(
                "the head of {name} is {head:?}, and settled is {last:?}"
            )),
        }
    }
}
