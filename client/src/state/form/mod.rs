//! The state file as it is written.

mod merge;

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
