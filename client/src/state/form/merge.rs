//! What is made of a state file that two programs have changed.

use std::collections::BTreeMap;

use tidings_protocol::Serial;

use super::{
    File, FileBeat, FileChannel, FileFork, FileWithdrawal, read_head, read_moment, read_statement,
};

/// What two programs have made of one file: what one of them alone has changed, else the newer.
fn chosen<T: PartialEq>(base: &T, ours: T, theirs: T, newer: impl FnOnce(&T, &T) -> bool) -> T {
    if ours == *base {
        theirs
    } else if theirs == *base || newer(&ours, &theirs) {
        ours
    } else {
        theirs
    }
}

fn serial(text: &Option<String>) -> Option<Serial> {
    let head = text.as_deref().and_then(|text| read_head(text).ok());
    head.map(|head| head.serial)
}

fn serial_of(text: &Option<String>) -> Option<Serial> {
    let statement = text.as_deref().and_then(|text| read_statement(text).ok());
    statement.map(|statement| statement.serial())
}

impl File {
    /// What this program knows, and what another one has written since this one read `base`. No
    /// withdrawal of either is forgotten; what one of the two alone has learnt stays.
    pub(in crate::state) fn merged(self, base: &Self, theirs: Self) -> Self {
        // Trust never goes back, whoever has begun with what.
        let (trust, trust_seen) = match serial_of(&self.trust) >= serial_of(&theirs.trust) {
            true => (self.trust, self.trust_seen),
            false => (theirs.trust, theirs.trust_seen),
        };
        let mut settled = theirs.settled;
        settled.extend(self.settled);
        settled.sort();
        settled.dedup();
        Self {
            anchor: self.anchor,
            trust,
            trust_seen,
            beat: merged_beats(self.beat, theirs.beat),
            settled,
            channel: merged_channels(&base.channel, self.channel, theirs.channel),
        }
    }
}

/// The newest beat of each channel.
fn merged_beats(ours: Vec<FileBeat>, theirs: Vec<FileBeat>) -> Vec<FileBeat> {
    let mut newest: BTreeMap<String, (Serial, FileBeat)> = BTreeMap::new();
    for beat in theirs.into_iter().chain(ours) {
        let Ok(statement) = read_statement(&beat.statement) else {
            continue;
        };
        let (channel, serial) = (statement.channel().to_string(), statement.serial());
        // Of two copies the one that was seen first: a beat lives from then on.
        if newest.get(&channel).is_none_or(|(known, kept)| {
            *known < serial || *known == serial && is_seen_before(&beat, kept)
        }) {
            newest.insert(channel, (serial, beat));
        }
    }
    newest.into_values().map(|(_, beat)| beat).collect()
}

/// By the monotonic clock, or by the clock if the machine has stopped in between.
fn is_seen_before(one: &FileBeat, other: &FileBeat) -> bool {
    let (Ok(one), Ok(other)) = (read_moment(&one.seen), read_moment(&other.seen)) else {
        return false;
    };
    if one.boot == other.boot {
        return one.monotonic < other.monotonic;
    }
    let clocks = one.clock.zip(other.clock);
    clocks.is_some_and(|(one, other)| one < other)
}

fn merged_channels(
    base: &[FileChannel],
    ours: Vec<FileChannel>,
    theirs: Vec<FileChannel>,
) -> Vec<FileChannel> {
    let mut others: BTreeMap<String, FileChannel> = theirs
        .into_iter()
        .map(|channel| (channel.name.clone(), channel))
        .collect();
    let none = FileChannel::default();
    let merge = |ours: FileChannel| match others.remove(&ours.name) {
        None => ours,
        Some(theirs) => {
            let base = base.iter().find(|base| base.name == ours.name);
            ours.merged(base.unwrap_or(&none), theirs)
        }
    };
    let mut all: Vec<FileChannel> = ours.into_iter().map(merge).collect();
    all.extend(others.into_values());
    all
}

impl FileChannel {
    fn merged(self, base: &Self, theirs: Self) -> Self {
        let by_serial =
            |ours: &Option<String>, other: &Option<String>| serial(ours) >= serial(other);
        let delivered = chosen(
            &base.delivered,
            self.delivered.clone(),
            theirs.delivered.clone(),
            by_serial,
        );
        let by_release =
            |ours: &Option<String>, other: &Option<String>| serial_of(ours) >= serial_of(other);
        let applied = chosen(
            &base.applied,
            self.applied.clone(),
            theirs.applied.clone(),
            by_release,
        );
        let came_with = chosen(
            &base.came_with,
            self.came_with.clone(),
            theirs.came_with.clone(),
            |_, _| true,
        );
        let mut withdrawal = self.withdrawal.clone();
        for kept in &theirs.withdrawal {
            let of = |known: &&mut FileWithdrawal| known.release == kept.release;
            match withdrawal.iter_mut().find(of) {
                Some(known) => known.read |= kept.read,
                None => withdrawal.push(kept.clone()),
            }
        }
        // As the view keeps them: those of releases that were read come last.
        withdrawal.sort_by_key(|kept| kept.read);
        let fork = self.merged_fork(base, &theirs);
        // Head and links belong together.
        let log = |channel: &Self| {
            let Self {
                head,
                statement,
                links,
                settled,
                ..
            } = channel.clone();
            (head, statement, links, settled)
        };
        let (head, statement, links, settled) =
            chosen(&log(base), log(&self), log(&theirs), |ours, other| {
                serial(&ours.0) >= serial(&other.0)
            });
        Self {
            name: self.name,
            head,
            statement,
            links,
            settled,
            delivered,
            applied,
            came_with,
            withdrawal,
            fork,
        }
    }

    /// The evidence of a fork that either has met since, unless the other one has seen it decided;
    /// or the heads themselves, if they stand on two branches that each has read on.
    fn merged_fork(&self, base: &Self, theirs: &Self) -> Option<FileFork> {
        let kept = if self.fork == base.fork {
            theirs.fork.clone()
        } else if theirs.fork == base.fork {
            self.fork.clone()
        } else {
            self.fork.clone().or(theirs.fork.clone())
        };
        kept.or_else(|| {
            let both_moved = self.head != base.head && theirs.head != base.head;
            (both_moved && self.contradicts(theirs)).then_some(())?;
            Some(FileFork {
                ours: self.statement.clone()?,
                theirs: theirs.statement.clone()?,
            })
        })
    }

    /// Whether the chain of the one with the higher head has another id where the other's head is.
    fn contradicts(&self, other: &Self) -> bool {
        let (lower, higher) = match serial(&self.head) < serial(&other.head) {
            true => (self, other),
            false => (other, self),
        };
        let Some(low) = lower.head.as_deref().and_then(|text| read_head(text).ok()) else {
            return false;
        };
        let newest = higher.statement.as_deref();
        let newest = newest.and_then(|text| read_statement(text).ok());
        let links = higher.links.iter().chain(&higher.head);
        links
            .filter_map(|text| read_head(text).ok())
            .chain(newest.and_then(|newest| newest.predecessor()))
            .any(|head| head.serial == low.serial && head.id != low.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::form::{text, write_moment};
    use tidings_protocol::{
        SigningKey, Statement, Timestamp,
        statement::{Body, Draft, Release},
        view::Moment,
    };

    #[test]
    fn what_two_programs_have_learnt_stays() {
        let withdrawal = |release: &str| FileWithdrawal {
            release: release.into(),
            ..FileWithdrawal::default()
        };
        let base = FileChannel {
            name: "acme.os".into(),
            delivered: Some(format!("1 sha256:{}", "a".repeat(64))),
            withdrawal: vec![withdrawal("one")],
            ..FileChannel::default()
        };
        let file = |channel: &FileChannel| File {
            channel: vec![channel.clone()],
            ..File::default()
        };
        // One has applied something, the other was told something.
        let applies = FileChannel {
            applied: Some("release".into()),
            withdrawal: vec![withdrawal("one"), withdrawal("two")],
            ..base.clone()
        };
        let watches = FileChannel {
            head: Some(format!("2 sha256:{}", "b".repeat(64))),
            delivered: Some(format!("2 sha256:{}", "b".repeat(64))),
            withdrawal: vec![withdrawal("one"), withdrawal("three")],
            ..base.clone()
        };
        let both = |ours: &FileChannel, theirs: &FileChannel| {
            let mut merged = file(ours)
                .merged(&file(&base), file(theirs))
                .channel
                .remove(0);
            merged.withdrawal.sort_by(|a, b| a.release.cmp(&b.release));
            merged
        };
        let merged = both(&applies, &watches);
        assert_eq!(merged, both(&watches, &applies));
        assert_eq!(
            (&merged.applied, &merged.head),
            (&applies.applied, &watches.head)
        );
        assert_eq!(merged.delivered, watches.delivered);
        assert_eq!(merged.withdrawal.len(), 3, "{merged:?}");
        let other = FileChannel {
            name: "acme.web".into(),
            ..FileChannel::default()
        };
        let merged = file(&other).merged(&File::default(), file(&applies));
        assert_eq!(merged.channel.len(), 2);
    }

    fn statement(after: Option<&Statement>, version: &str) -> Statement {
        let release = Release {
            version: version.into(),
            ..Release::default()
        };
        let draft = Draft {
            channel: "acme.os".parse().unwrap(),
            after: after.map(Statement::head),
            time: Timestamp::from_seconds(1_800_000_000),
            trust: Some(Serial::FIRST),
            body: Body::Release(release),
        };
        let key = SigningKey::from_bytes(&[1; 32]);
        draft.write().unwrap().sign(&key).unwrap()
    }

    /// What is known of a channel whose log is this.
    fn known(log: &[&Statement]) -> FileChannel {
        let (newest, links) = log.split_last().unwrap();
        FileChannel {
            name: "acme.os".into(),
            head: Some(newest.head().to_string()),
            statement: Some(text(newest)),
            links: links.iter().map(|link| link.head().to_string()).collect(),
            ..FileChannel::default()
        }
    }

    fn both_ways(base: &FileChannel, one: &FileChannel, other: &FileChannel) -> [FileChannel; 2] {
        [(one, other), (other, one)].map(|(ours, theirs)| ours.clone().merged(base, theirs.clone()))
    }

    #[test]
    fn a_fork_that_one_of_two_has_met_stays() {
        let one = statement(None, "1");
        let (two, three) = (statement(Some(&one), "2"), statement(Some(&one), "3"));
        let above = statement(Some(&two), "4");
        let fork = FileFork {
            ours: text(&two),
            theirs: text(&three),
        };
        let forked = FileChannel {
            fork: Some(fork.clone()),
            ..known(&[&one, &two])
        };
        let base = known(&[&one]);
        for merged in both_ways(&base, &forked, &known(&[&one, &two, &above])) {
            assert_eq!(merged.head, Some(above.head().to_string()));
            assert_eq!(merged.fork, Some(fork.clone()));
        }
        // Nor does one that knows nothing new take it away.
        for merged in both_ways(&base, &forked, &base) {
            assert_eq!(merged.fork, Some(fork.clone()));
        }
    }

    #[test]
    fn heads_that_contradict_each_other_are_a_fork() {
        let one = statement(None, "1");
        let (two, other) = (statement(Some(&one), "2"), statement(Some(&one), "3"));
        let above = statement(Some(&two), "4");
        let base = known(&[&one]);
        // With nothing read below the head, its own predecessor says so.
        for log in [&[&one, &two][..], &[&one, &two, &above], &[&above]] {
            for merged in both_ways(&base, &known(log), &known(&[&one, &other])) {
                let fork = merged.fork.unwrap();
                let mut pair = [fork.ours, fork.theirs];
                let mut expected = [text(log.last().unwrap()), text(&other)];
                pair.sort();
                expected.sort();
                assert_eq!(pair, expected);
            }
            for merged in both_ways(&base, &known(log), &known(&[&one, &two])) {
                assert_eq!(merged.fork, None);
            }
        }
        // One that was left for another branch is no contradiction.
        let left = known(&[&one, &two]);
        for merged in both_ways(&left, &left, &known(&[&one, &other])) {
            assert_eq!(
                (merged.fork, merged.head),
                (None, Some(other.head().to_string()))
            );
        }
    }

    #[test]
    fn trust_never_goes_back() {
        let one = statement(None, "1");
        let two = statement(Some(&one), "2");
        let file = |trust: &Statement| File {
            trust: Some(text(trust)),
            trust_seen: Some(trust.serial().to_string()),
            ..File::default()
        };
        let (older, newer) = (file(&one), file(&two));
        // Also if the other one has not begun with what this one has written.
        for base in [File::default(), older.clone(), newer.clone()] {
            assert_eq!(newer.clone().merged(&base, older.clone()), newer);
            assert_eq!(older.clone().merged(&base, newer.clone()), newer);
        }
    }

    #[test]
    fn a_release_that_was_read_stays_read() {
        let withdrawal = |release: &str, read| FileWithdrawal {
            release: release.into(),
            read,
            ..FileWithdrawal::default()
        };
        let channel = |withdrawal| FileChannel {
            withdrawal,
            ..FileChannel::default()
        };
        let base = channel(vec![withdrawal("one", false), withdrawal("two", false)]);
        let read = channel(vec![withdrawal("two", false), withdrawal("one", true)]);
        for merged in both_ways(&base, &read, &base) {
            assert_eq!(merged.withdrawal, read.withdrawal);
        }
    }

    #[test]
    fn a_beat_lives_from_when_it_was_seen_first() {
        let beat = statement(None, "1");
        let seen = |monotonic, boot| FileBeat {
            statement: text(&beat),
            seen: write_moment(&Moment {
                time: beat.time(),
                clock: Some(beat.time().plus(monotonic)),
                monotonic,
                boot,
            }),
        };
        for (first, later) in [(seen(1, 7), seen(2, 7)), (seen(3, 7), seen(4, 8))] {
            for (ours, theirs) in [(&first, &later), (&later, &first)] {
                let merged = merged_beats(vec![ours.clone()], vec![theirs.clone()]);
                assert_eq!(merged, std::slice::from_ref(&first));
            }
        }
    }
}
