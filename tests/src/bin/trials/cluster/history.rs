//! What clients have seen, and whether it can have been so: every acknowledged statement once, one
//! order for everybody.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::ensure;
use tidings_client::{Body, Channel, Head, Statement, now};

/// How long a beat may know nothing of what was acknowledged: it is signed, and settled, within
/// that, or not at all.
const BEAT_SECONDS: u64 = 10;

/// What became of one POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 240.
    Stored,
    /// The broker has said that it was not stored.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One POST.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) channel: Channel,
    pub(crate) head: Head,
    pub(crate) outcome: Outcome,
    /// When it was known, in seconds.
    pub(crate) at: u64,
}

/// A beat: which it is, when it was signed, and what it says is newest.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) head: Head,
    pub(crate) time: u64,
    pub(crate) heads: Vec<(Channel, Head)>,
}

impl Named {
    /// None if it is no beat.
    pub(crate) fn read(statement: &Statement) -> Option<Self> {
        let Body::Beat(beat) = statement.body() else {
            return None;
        };
        Some(Self {
            head: statement.head(),
            time: statement.time().seconds(),
            heads: beat.heads.clone(),
        })
    }
}

/// What one subscriber has got, by channel.
pub(crate) type Got = BTreeMap<Channel, Vec<Head>>;

/// Everything that was seen.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Seen>>);

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) posts: Vec<Post>,
    /// By subscriber.
    pub(crate) got: BTreeMap<String, Got>,
    /// What must never be.
    pub(crate) wrong: Vec<String>,
}

impl History {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn post(&self, channel: &Channel, head: Head, outcome: Outcome) {
        self.lock().posts.push(Post {
            channel: channel.clone(),
            head,
            outcome,
            at: now().seconds(),
        });
    }

    pub(crate) fn wrong(&self, what: String) {
        self.lock().wrong.push(what);
    }

    /// A subscriber has got something; whether it is what comes next.
    pub(crate) fn got(&self, subscriber: &str, channel: &Channel, head: Head) {
        let mut seen = self.lock();
        let got = seen
            .got
            .entry(subscriber.into())
            .or_default()
            .entry(channel.clone())
            .or_default();
        let expected = u32::try_from(got.len()).unwrap_or(u32::MAX) + 1;
        got.push(head);
        if head.serial.number() != expected {
            seen.wrong.push(format!(
                "{subscriber} has got {channel} {} where {expected} comes next",
                head.serial
            ));
        }
    }

    /// Compares it with the logs that the brokers have now, by broker. Subscribers have watched
    /// some channels.
    ///
    /// # Errors
    /// The first contradiction.
    pub(crate) fn check(
        &self,
        logs: &BTreeMap<String, Got>,
        watched: &[Channel],
    ) -> anyhow::Result<String> {
        let seen = self.lock();
        ensure!(seen.wrong.is_empty(), "{}", seen.wrong.join("\n"));
        let Some((first, log)) = logs.first_key_value() else {
            anyhow::bail!("no broker")
        };
        for (broker, other) in logs {
            ensure!(other == log, "{broker} and {first} have different logs");
        }
        let mut places: HashMap<(&Channel, u32), Head> = HashMap::new();
        for (channel, heads) in log {
            for (at, head) in heads.iter().enumerate() {
                ensure!(
                    head.serial.number() as usize == at + 1,
                    "{channel} has a gap before {}",
                    head.serial
                );
                places.insert((channel, head.serial.number()), *head);
            }
        }
        let mut counts = [0; 3];
        let mut acknowledged = HashSet::new();
        for Post {
            channel,
            head,
            outcome,
            ..
        } in &seen.posts
        {
            let there = places.get(&(channel, head.serial.number())) == Some(head);
            match outcome {
                Outcome::Stored => {
                    ensure!(
                        there,
                        "{channel} {head} was acknowledged, and is not in the log"
                    );
                    ensure!(
                        acknowledged.insert((channel, head.serial)),
                        "{channel} {} was acknowledged twice",
                        head.serial
                    );
                }
                Outcome::Refused => {
                    ensure!(!there, "{channel} {head} was refused, and is in the log")
                }
                Outcome::Unknown => {}
            }
            counts[*outcome as usize] += 1;
        }
        let mut watched_log = log.clone();
        watched_log.retain(|channel, _| watched.contains(channel));
        for (subscriber, got) in &seen.got {
            ensure!(*got == watched_log, "{subscriber} has not got the log");
        }
        let statements: usize = log.values().map(Vec::len).sum();
        let [stored, refused, unknown] = counts;
        Ok(format!(
            "{statements} statements; {stored} acknowledged, {refused} refused, {unknown} unknown; {} subscribers have seen one order",
            seen.got.len()
        ))
    }

    /// Beats, by broker: one in each place, and none says that something is newest which the log
    /// does not have, or which was not the newest any more.
    ///
    /// # Errors
    /// The first contradiction.
    pub(crate) fn check_beats(
        &self,
        beats: &BTreeMap<String, Vec<Named>>,
        log: &Got,
    ) -> anyhow::Result<String> {
        let mut acknowledged: HashMap<&Channel, Vec<(u64, Head)>> = HashMap::new();
        let seen = self.lock();
        for post in seen
            .posts
            .iter()
            .filter(|post| post.outcome == Outcome::Stored)
        {
            let of_channel = acknowledged.entry(&post.channel).or_default();
            of_channel.push((post.at, post.head));
        }
        let mut places = BTreeMap::new();
        for (broker, beat) in beats
            .iter()
            .flat_map(|(broker, all)| all.iter().map(move |beat| (broker, beat)))
        {
            let (serial, id) = (beat.head.serial, beat.head.id);
            ensure!(
                *places.entry(serial).or_insert(id) == id,
                "{broker} has another beat {serial} than others"
            );
            for (channel, head) in &beat.heads {
                let Some(heads) = log.get(channel) else {
                    continue;
                };
                let at = head.serial.number() as usize - 1;
                ensure!(
                    heads.get(at) == Some(head),
                    "beat {serial} names {channel} {head}, which is not in the log"
                );
                let before = |(at, _): &&(u64, Head)| at + BEAT_SECONDS < beat.time;
                let known = acknowledged
                    .get(channel)
                    .into_iter()
                    .flatten()
                    .filter(before);
                let newest = known.map(|(_, head)| head.serial).max();
                ensure!(
                    newest.is_none_or(|newest| newest <= head.serial),
                    "beat {serial} names {channel} {}, more than {BEAT_SECONDS} s after {newest:?} \
                     was acknowledged",
                    head.serial
                );
            }
        }
        Ok(format!("{} beats name what was newest", places.len()))
    }
}

#[cfg(test)]
mod tests {
    use tidings_protocol::{Serial, StatementId};

    use super::*;

    fn channel() -> Channel {
        "test.a".parse().unwrap_or_else(|_| panic!("no channel"))
    }

    fn head(serial: u32, what: &str) -> Head {
        Head {
            serial: Serial::new(serial).unwrap_or(Serial::FIRST),
            id: StatementId::of(what.as_bytes()),
        }
    }

    fn log(heads: &[Head]) -> Got {
        Got::from([(channel(), heads.to_vec())])
    }

    fn check(history: &History, first: &[Head], second: &[Head]) -> String {
        let logs = BTreeMap::from([("a".into(), log(first)), ("b".into(), log(second))]);
        history
            .check(&logs, &[channel()])
            .map_or_else(|error| error.to_string(), |_| "good".into())
    }

    /// The checker sees each thing that must never be.
    #[test]
    fn every_contradiction_is_found() {
        let (one, two, other) = (head(1, "one"), head(2, "two"), head(2, "other"));
        let seen = |posts: &[(Head, Outcome)], got: &[Head]| {
            let history = History::default();
            posts
                .iter()
                .for_each(|(head, outcome)| history.post(&channel(), *head, *outcome));
            got.iter()
                .for_each(|head| history.got("s", &channel(), *head));
            history
        };
        use Outcome::{Refused, Stored, Unknown};
        let good = seen(
            &[(one, Stored), (two, Unknown), (other, Refused)],
            &[one, two],
        );
        assert_eq!(check(&good, &[one, two], &[one, two]), "good");
        assert!(check(&good, &[one, two], &[one]).contains("different logs"));
        assert!(check(&good, &[one, head(3, "x")], &[one, head(3, "x")]).contains("has a gap"));
        let all = [one, two];
        assert!(check(&seen(&[(other, Stored)], &all), &all, &all).contains("is not in the log"));
        assert!(
            check(&seen(&[(two, Stored), (two, Stored)], &all), &all, &all)
                .contains("acknowledged twice")
        );
        assert!(
            check(&seen(&[(two, Refused)], &all), &all, &all)
                .contains("was refused, and is in the log")
        );
        assert!(check(&seen(&[], &[one]), &all, &all).contains("has not got the log"));
        assert!(check(&seen(&[], &[two]), &all, &all).contains("where 1 comes next"));
        assert!(check(&seen(&[], &[one, other]), &all, &all).contains("has not got the log"));
        let wrong = seen(&[], &all);
        wrong.wrong("three are down".into());
        assert!(check(&wrong, &all, &all).contains("three are down"));
    }

    /// What slow lines and lost sessions could do to beats.
    #[test]
    fn every_contradiction_of_beats_is_found() {
        let (one, two, other) = (head(1, "one"), head(2, "two"), head(2, "other"));
        let log = log(&[one, two]);
        let history = History::default();
        history.post(&channel(), two, Outcome::Stored);
        let now = now().seconds();
        let beat = |what: &str, later: u64, named: Head| Named {
            head: head(7, what),
            time: now + later,
            heads: vec![(channel(), named)],
        };
        let check = |first: Named, second: Named| {
            let beats = BTreeMap::from([("a".into(), vec![first]), ("b".into(), vec![second])]);
            history
                .check_beats(&beats, &log)
                .map_or_else(|error| error.to_string(), |_| "good".into())
        };
        let (soon, late) = (1, BEAT_SECONDS + 2);
        assert_eq!(check(beat("x", late, two), beat("x", late, two)), "good");
        assert_eq!(check(beat("x", soon, one), beat("x", soon, one)), "good");
        assert!(check(beat("x", soon, two), beat("y", soon, two)).contains("another beat 7"));
        assert!(check(beat("x", soon, other), beat("x", soon, two)).contains("not in the log"));
        assert!(
            check(beat("x", soon, head(3, "three")), beat("x", soon, two))
                .contains("not in the log")
        );
        assert!(check(beat("x", late, one), beat("x", late, two)).contains("was acknowledged"));
    }
}
