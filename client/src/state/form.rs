//! The state file as it is written, and what is made of it when two programs have changed it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidings_protocol::{
    Anchor, Channel, Head, Serial, Statement, View, bundle,
    statement::StatementError,
    trust::Trust,
    view::{Fork, Known, Moment, Withdrawal},
};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) anchor: String,
    trust: Option<String>,
    /// When it was seen first.
    trust_seen: Option<String>,
    /// The newest beat of each beat channel.
    #[serde(default)]
    beat: Vec<FileBeat>,
    /// Beats that checkpoints name.
    #[serde(default)]
    settled: Vec<String>,
    #[serde(default)]
    channel: Vec<FileChannel>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBeat {
    statement: String,
    seen: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileChannel {
    name: String,
    head: Option<String>,
    statement: Option<String>,
    /// What lies below the head, oldest first.
    #[serde(default)]
    links: Vec<String>,
    /// The checkpoint that the head is known to stand on.
    settled: Option<String>,
    /// The last that was delivered.
    delivered: Option<String>,
    /// The release that was applied last.
    applied: Option<String>,
    /// The serial that the machine's image came with.
    came_with: Option<String>,
    #[serde(default)]
    withdrawal: Vec<FileWithdrawal>,
    /// The evidence of a fork that nothing has decided.
    fork: Option<FileFork>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWithdrawal {
    release: String,
    by: String,
    reason: String,
    read: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFork {
    ours: String,
    theirs: String,
}

fn text(statement: &Statement) -> String {
    String::from_utf8_lossy(statement.octets()).into_owned()
}

fn read_statement(text: &str) -> Result<Statement, String> {
    Statement::parse(text.as_bytes()).map_err(|e: StatementError| e.to_string())
}

fn read_head(text: &str) -> Result<Head, String> {
    let head = || {
        let (serial, id) = text.split_once(' ')?;
        Some(Head {
            serial: serial.parse().ok()?,
            id: id.parse().ok()?,
        })
    };
    head().ok_or_else(|| format!("{text:?} is no serial and id"))
}

fn write_moment(moment: &Moment) -> String {
    let clock = moment.clock.map_or("-".into(), |clock| clock.to_string());
    format!(
        "{} {clock} {} {:016x}",
        moment.time, moment.monotonic, moment.boot
    )
}

fn read_moment(text: &str) -> Result<Moment, String> {
    let moment = || {
        let mut parts = text.split(' ');
        let time = parts.next()?.parse().ok()?;
        let clock = match parts.next()? {
            "-" => None,
            clock => Some(clock.parse().ok()?),
        };
        let (monotonic, boot) = (parts.next()?.parse().ok()?, parts.next()?);
        Some(Moment {
            time,
            clock,
            monotonic,
            boot: u64::from_str_radix(boot, 16).ok()?,
        })
    };
    moment().ok_or_else(|| format!("{text:?} is no moment"))
}

impl FileChannel {
    fn write(channel: &Channel, known: &Known) -> Self {
        let withdrawal = |kept: &Withdrawal| FileWithdrawal {
            release: kept.release.to_string(),
            by: kept.by.to_string(),
            reason: kept.reason.clone(),
            read: kept.read,
        };
        Self {
            name: channel.to_string(),
            head: known
                .newest
                .as_ref()
                .map(|statement| statement.head().to_string()),
            statement: known.newest.as_ref().map(text),
            links: known.links.iter().map(ToString::to_string).collect(),
            settled: known.settled.map(|head| head.to_string()),
            delivered: known.delivered.map(|head| head.to_string()),
            applied: known.applied.as_ref().map(text),
            came_with: known.came_with.map(|serial| serial.to_string()),
            withdrawal: known.withdrawals.iter().map(withdrawal).collect(),
            fork: known.fork.as_ref().map(|fork| FileFork {
                ours: text(&fork.ours),
                theirs: std::iter::once(&fork.theirs)
                    .chain(&fork.above)
                    .map(text)
                    .collect(),
            }),
        }
    }

    fn read(self) -> Result<(Channel, Known), String> {
        let channel: Channel = self.name.parse().map_err(|_| "its name is no channel")?;
        let newest = self.statement.as_deref().map(read_statement).transpose()?;
        let applied = self.applied.as_deref().map(read_statement).transpose()?;
        let here = |statement: &Statement| *statement.channel() == channel;
        if newest.as_ref().map(|s| s.head().to_string()) != self.head
            || !newest.iter().chain(&applied).all(here)
        {
            return Err("its head is not the statement that is kept".into());
        }
        let fork = self.fork.map(|fork| {
            let mut branch = bundle::parse(fork.theirs.as_bytes()).map_err(|e| e.to_string())?;
            let theirs = branch.remove(0);
            Ok::<_, String>(Fork {
                ours: read_statement(&fork.ours)?,
                theirs,
                above: branch,
            })
        });
        let withdrawal = |kept: FileWithdrawal| {
            let by = kept.by.parse::<Serial>().map_err(|e| e.to_string())?;
            Ok::<_, String>(Withdrawal {
                release: read_head(&kept.release)?,
                by,
                reason: kept.reason,
                read: kept.read,
            })
        };
        let head = |text: Option<String>| text.as_deref().map(read_head).transpose();
        let known = Known {
            newest,
            links: self
                .links
                .iter()
                .map(|text| read_head(text))
                .collect::<Result<_, _>>()?,
            settled: head(self.settled)?,
            fork: fork.transpose()?,
            withdrawals: self
                .withdrawal
                .into_iter()
                .map(withdrawal)
                .collect::<Result<_, _>>()?,
            applied,
            came_with: self
                .came_with
                .map(|text| text.parse::<Serial>().map_err(|e| e.to_string()))
                .transpose()?,
            delivered: head(self.delivered)?,
        };
        Ok((channel, known))
    }
}

impl File {
    pub(super) fn write(view: &View) -> Self {
        let beat = |beat: &tidings_protocol::view::SeenBeat| FileBeat {
            statement: text(&beat.statement),
            seen: write_moment(&beat.seen),
        };
        let channels = view
            .channels()
            .filter_map(|channel| Some(FileChannel::write(channel, view.known(channel)?)));
        Self {
            anchor: view.anchor().to_string(),
            trust: view.trust().map(|trust| text(trust.statement())),
            trust_seen: view.trust_seen().as_ref().map(write_moment),
            beat: view.beats().map(beat).collect(),
            settled: view
                .trust()
                .into_iter()
                .flat_map(Trust::settled_beats)
                .map(text)
                .collect(),
            channel: channels.collect(),
        }
    }

    pub(super) fn read(self, anchor: &Anchor) -> Result<View, String> {
        let trust = self.trust.map(|text| {
            Trust::resume(&anchor.namespace, read_statement(&text)?).map_err(|e| e.to_string())
        });
        let seen = self.trust_seen.as_deref().map(read_moment).transpose()?;
        let mut view = View::new(anchor.clone()).resume(
            trust.transpose().map_err(|why| format!("trust: {why}"))?,
            seen,
        );
        for text in self.settled {
            view.take_settled_beat(read_statement(&text)?);
        }
        for beat in self.beat {
            view.resume_beat(read_statement(&beat.statement)?, read_moment(&beat.seen)?);
        }
        for channel in self.channel {
            let name = channel.name.clone();
            let (channel, known) = channel.read().map_err(|why| format!("{name}: {why}"))?;
            view.resume_channel(channel, known);
        }
        Ok(view)
    }
}

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
    pub(super) fn merged(self, base: &Self, theirs: Self) -> Self {
        let by_trust = |ours: &(Option<String>, Option<String>), other: &(_, _)| {
            serial_of(&ours.0) >= serial_of(&other.0)
        };
        let (trust, trust_seen) = chosen(
            &(base.trust.clone(), base.trust_seen.clone()),
            (self.trust, self.trust_seen),
            (theirs.trust, theirs.trust_seen),
            by_trust,
        );
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
        if newest
            .get(&channel)
            .is_none_or(|(known, _)| *known < serial)
        {
            newest.insert(channel, (serial, beat));
        }
    }
    newest.into_values().map(|(_, beat)| beat).collect()
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
        let is_new =
            |kept: &FileWithdrawal| !withdrawal.iter().any(|known| known.release == kept.release);
        let new: Vec<_> = theirs
            .withdrawal
            .iter()
            .filter(|kept| is_new(kept))
            .cloned()
            .collect();
        withdrawal.extend(new);
        // Head, links and fork belong together.
        let log = |channel: &Self| {
            let Self {
                head,
                statement,
                links,
                settled,
                fork,
                ..
            } = channel.clone();
            (head, statement, links, settled, fork)
        };
        let (head, statement, links, settled, fork) =
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
