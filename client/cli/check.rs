//! How brokers stand, for monitoring: one line and the exit codes that Nagios and its kin read, or
//! a file for Prometheus' node exporter.

mod textfile;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tidings_client::{
    Body, Channel, Device, Error, Freshness, Head, Source, State, Timestamp, file, list, now,
};
use tokio::{task::JoinSet, time::timeout};

use super::{output, reader::Reading};

const DAY_SECONDS: u64 = 86_400;
/// Of what is wrong so many things stand in the line; the others are counted.
const SAID: usize = 5;

/// What a plugin ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok = 0,
    Warning = 1,
    Unknown = 3,
    Critical = 2,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
    /// The worse of the two; what is known to be critical is worse than what is not known.
    fn worse(self, other: Self) -> Self {
        let rank = |level| match level {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }
}

const CODES: &str = "Exit codes, as monitoring plugins have them: 0 OK, 1 WARNING, 2 CRITICAL, \
3 UNKNOWN. They are this command's own. Where other commands end with 4 not-current (a channel is \
behind, stale or forked), with 7 no-broker because none answers, or with 3 refused because what a \
broker shows does not verify, this one ends with 2 CRITICAL; where they end with 2 usage or 8 \
bad-file, with 3 UNKNOWN.\n\n\
CRITICAL: no broker answers; a channel is BEHIND, STALE, FORKED or missing; two brokers have \
different statements for one place; trust or beats are past --trust-critical or --beat-critical. \
WARNING: some broker does not answer; trust or beats are past the other two. A channel without a \
role for beats is counted as unconfirmed, and is no fault.";

/// Say how brokers stand to a monitoring system: one line, and the exit codes of Nagios' plugins
#[derive(Args)]
#[command(after_help = CODES)]
pub(super) struct Check {
    /// The channels; without any, all of the namespace that a broker has
    channels: Vec<Channel>,
    /// WARNING if trust ends within so many days
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    trust_warning: u64,
    /// CRITICAL if trust ends within so many days
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    trust_critical: u64,
    /// WARNING if the newest beat is older; half of its life unless given
    #[arg(long, value_name = "SECONDS")]
    beat_warning: Option<u64>,
    /// CRITICAL if the newest beat is older; its life unless given
    #[arg(long, value_name = "SECONDS")]
    beat_critical: Option<u64>,
    /// How long the brokers may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// Write what was found as metrics too, all or nothing, into FILE.prom of node_exporter's
    /// textfile collector
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
}

/// A beat, the newest of its channel.
struct Beat {
    channel: Channel,
    time: Timestamp,
    until: Timestamp,
}

/// What one broker has.
struct Found {
    trust_expires: Option<Timestamp>,
    beats: Vec<Beat>,
    /// How each channel stands, and its head.
    channels: BTreeMap<Channel, (&'static str, Option<Head>)>,
    /// What could not be read or verified.
    trouble: Option<Error>,
}

/// All brokers, or why one could not be used.
type Brokers = Vec<(String, Result<Found, String>)>;

/// A channel without a role for beats: nothing can confirm its head.
const UNCONFIRMED: &str = "UNCONFIRMED";
/// A channel that a broker has not.
const MISSING: &str = "MISSING";

impl Check {
    /// The exit code. Whatever happens, it is one of the four.
    pub(super) async fn run(self) -> u8 {
        let found = self.ask().await;
        let time = now();
        let (mut level, mut says, brokers) = match found {
            Ok(brokers) => {
                let (level, says) = self.judge(&brokers, time);
                (level, says, brokers)
            }
            Err(error) => {
                let why = tidings_client::explain(error.as_ref());
                (Level::Unknown, vec![why], Vec::new())
            }
        };
        if let Some(path) = &self.textfile {
            let named = !self.channels.is_empty();
            let text = textfile::of(level as u8, &brokers, named, time);
            let written = file::replace(path, text.as_bytes(), 0o644)
                .with_context(|| format!("cannot write {}", path.display()));
            if let Err(error) = written {
                level = level.worse(Level::Unknown);
                says.insert(0, tidings_client::explain(error.as_ref()));
            }
        }
        let figures = self.figures(&brokers, time);
        answer(level, &says, &figures, || objects(&brokers));
        level as u8
    }

    async fn ask(&self) -> anyhow::Result<Brokers> {
        let source = self.reading.from.source()?;
        // What is wrong with the question is no fault of a broker.
        let names = self.channels.iter().map(Channel::as_str);
        Device::with_state(source.clone(), names, State::ephemeral(source.anchor()))?;
        let missing = self.reading.state.iter().find(|path| !path.exists());
        if let Some(path) = missing {
            bail!(
                "there is no state file {}; correct the path",
                path.display()
            );
        }
        let mut tasks = JoinSet::new();
        let mut brokers = Vec::new();
        for (place, one) in source.each().enumerate() {
            let state = match &self.reading.state {
                Some(path) => State::look(path, one.anchor())?,
                None => State::ephemeral(one.anchor()),
            };
            brokers.push((one.address().to_string(), Err("it was not asked".into())));
            let (channels, patience) = (self.channels.clone(), self.timeout);
            tasks.spawn(async move {
                let patience = Duration::from_secs(patience);
                let found = timeout(patience, look(one, state, channels)).await;
                let found = found.unwrap_or(Err(Error::Silent(patience)));
                (
                    place,
                    found.map_err(|error| tidings_client::explain(&error)),
                )
            });
        }
        while let Some(done) = tasks.join_next().await {
            let (place, found) = done?;
            brokers[place].1 = found;
        }
        Ok(brokers)
    }

    /// How bad it is, and what is to be said.
    fn judge(&self, brokers: &Brokers, time: Timestamp) -> (Level, Vec<String>) {
        let mut all = Vec::new();
        let up = brokers.iter().filter(|(_, found)| found.is_ok()).count();
        let unreachable = match up {
            0 => Level::Critical,
            _ => Level::Warning,
        };
        for (name, found) in brokers {
            match found {
                Err(why) => all.push((unreachable, format!("{name}: {why}"))),
                Ok(found) => {
                    let mut here = self.judge_one(found, time);
                    if brokers.len() > 1 {
                        here.iter_mut()
                            .for_each(|(_, says)| *says = format!("{name}: {says}"));
                    }
                    all.extend(here);
                }
            }
        }
        all.extend(split(brokers).map(|says| (Level::Critical, says)));
        all.sort_by_key(|(level, _)| *level != Level::Critical);
        let worst = all
            .iter()
            .fold(Level::Ok, |worst, (level, _)| worst.worse(*level));
        (worst, all.into_iter().map(|(_, says)| says).collect())
    }

    fn judge_one(&self, found: &Found, time: Timestamp) -> Vec<(Level, String)> {
        let mut all = Vec::new();
        if let Some(error) = &found.trouble {
            all.push((Level::Critical, tidings_client::explain(error)));
        }
        for (channel, (state, _)) in &found.channels {
            if !matches!(*state, "CURRENT" | UNCONFIRMED) {
                all.push((Level::Critical, format!("{channel} is {state}")));
            }
        }
        if let Some(expires) = found.trust_expires {
            let left = expires.seconds().saturating_sub(time.seconds());
            let says = match left {
                0 => format!("trust has expired at {expires}"),
                _ => format!("trust ends at {expires}, in {} days", left / DAY_SECONDS),
            };
            if left < self.trust_critical * DAY_SECONDS || left == 0 {
                all.push((Level::Critical, says));
            } else if left < self.trust_warning * DAY_SECONDS {
                all.push((Level::Warning, says));
            }
        }
        for beat in &found.beats {
            let (age, [warning, critical]) = (beat.age(time), self.ages(beat));
            let says = format!("the beat of {} is {age} s old", beat.channel);
            if age >= critical {
                all.push((Level::Critical, says));
            } else if age >= warning {
                all.push((Level::Warning, says));
            }
        }
        all
    }

    /// From which ages of a beat on it is said.
    fn ages(&self, beat: &Beat) -> [u64; 2] {
        let life = beat.until.seconds().saturating_sub(beat.time.seconds());
        let critical = self.beat_critical.unwrap_or(life);
        [self.beat_warning.unwrap_or(life / 2), critical]
    }

    /// Performance data: `LABEL=VALUE;WARNING;CRITICAL;LEAST;MOST`.
    fn figures(&self, brokers: &Brokers, time: Timestamp) -> Vec<String> {
        let found = || brokers.iter().filter_map(|(_, found)| found.as_ref().ok());
        let channels = || found().flat_map(|found| found.channels.values());
        let in_state = |wanted: &str| channels().filter(|(state, _)| *state == wanted).count();
        let bad = channels().count() - in_state("CURRENT") - in_state(UNCONFIRMED);
        let all = brokers.len();
        let mut figures = vec![
            format!("brokers={};{all}:;1:;0;{all}", found().count()),
            format!("channels={};;;0", channels().count()),
            format!("not_current={bad};;0;0"),
            format!("unconfirmed={};;;0", in_state(UNCONFIRMED)),
        ];
        let expires = found().filter_map(|found| found.trust_expires).min();
        figures.extend(expires.map(|expires| {
            let (warning, critical) = (self.trust_warning, self.trust_critical);
            format!(
                "trust_left={}s;{}:;{}:",
                expires.seconds().saturating_sub(time.seconds()),
                warning * DAY_SECONDS,
                critical * DAY_SECONDS
            )
        }));
        let beats = found().flat_map(|found| &found.beats);
        figures.extend(beats.max_by_key(|beat| beat.age(time)).map(|beat| {
            let [warning, critical] = self.ages(beat);
            format!("beat_age={}s;{warning};{critical};0", beat.age(time))
        }));
        figures
    }
}

impl Beat {
    fn age(&self, time: Timestamp) -> u64 {
        time.seconds().saturating_sub(self.time.seconds())
    }
}

/// What a broker has, as a device finds it that asks this one alone.
async fn look(source: Source, state: State, mut channels: Vec<Channel>) -> Result<Found, Error> {
    if channels.is_empty() {
        let mut connection = source.connect().await?;
        let all = list(&mut connection, &source).await?;
        channels.extend(all.into_iter().map(|(channel, _)| channel));
    }
    let names = channels.iter().map(Channel::as_str);
    let mut device = Device::with_state(source, names, state)?.with_saving_by_hand();
    let polled = device.poll().await;
    let trust = device.state().trust();
    let trouble = match polled {
        Err(error) if trust.is_none() || is_unreachable(&error) => return Err(error),
        Err(error) => Some(error),
        Ok(_) => None,
    };
    let view = device.state().view();
    let stands = |channel: &Channel| {
        let head = view.head(channel);
        let state = match device.freshness(channel) {
            _ if head.is_none() => MISSING,
            Freshness::Stale { .. } if !view.promises_beats(channel) => UNCONFIRMED,
            freshness => freshness.as_str(),
        };
        (channel.clone(), (state, head))
    };
    let beat = |statement: &tidings_client::Statement| match statement.body() {
        Body::Beat(beat) => Some(Beat {
            channel: statement.channel().clone(),
            time: statement.time(),
            until: beat.expires,
        }),
        _ => None,
    };
    let proven = view.beats().filter(|beat| beat.is_proven());
    Ok(Found {
        trust_expires: trust.map(|trust| trust.rules().expires),
        beats: proven.filter_map(|seen| beat(&seen.statement)).collect(),
        channels: channels.iter().map(stands).collect(),
        trouble,
    })
}

/// Whether a broker could not be asked, rather than that it has something wrong.
fn is_unreachable(error: &Error) -> bool {
    match error {
        Error::Unreachable { source, .. } => is_unreachable(source),
        Error::Verify { .. } | Error::Fork(_) | Error::Refused(_) => false,
        _ => true,
    }
}

/// Channels of which two brokers have different statements for one place.
fn split(brokers: &Brokers) -> impl Iterator<Item = String> {
    let mut heads = BTreeMap::new();
    let mut all = Vec::new();
    for (name, found) in brokers {
        let channels = found.iter().flat_map(|found| &found.channels);
        for (channel, head) in channels.filter_map(|(channel, (_, head))| Some((channel, (*head)?)))
        {
            let (other, id) = *heads
                .entry((channel, head.serial))
                .or_insert((name, head.id));
            if id != head.id {
                all.push(format!(
                    "{channel} {} is forked: {other} and {name} have different statements",
                    head.serial
                ));
            }
        }
    }
    all.into_iter()
}

/// The line, or the object.
fn answer(level: Level, says: &[String], figures: &[String], brokers: impl FnOnce() -> Value) {
    output::answer(
        || {
            json!({
                "check": level.word(),
                "code": level as u8,
                "says": says,
                "figures": figures,
                "brokers": brokers(),
            })
        },
        || {
            let mut text: Vec<&str> = says.iter().take(SAID).map(String::as_str).collect();
            let more = format!("and {} more", says.len().saturating_sub(SAID));
            if says.len() > SAID {
                text.push(&more);
            }
            let text = match text.is_empty() {
                true => "all is current".to_owned(),
                false => text.join("; "),
            };
            // One line, and none of it is taken for performance data.
            let text = text.replace('|', "/").replace(['\n', '\r'], " ");
            let line = format!("TIDINGS {} - {text}", level.word());
            match figures.is_empty() {
                true => line,
                false => format!("{line} | {}", figures.join(" ")),
            }
        },
    );
}

/// What is wrong with the command line is UNKNOWN too.
pub(super) fn refuse(why: &str) -> u8 {
    answer(Level::Unknown, &[why.to_owned()], &[], || json!([]));
    Level::Unknown as u8
}

fn objects(brokers: &Brokers) -> Value {
    let one = |(name, found): &(String, Result<Found, String>)| {
        let (error, found) = match found {
            Ok(found) => (None, Some(found)),
            Err(why) => (Some(why), None),
        };
        let channel = |(channel, (state, head)): (&Channel, &(&str, Option<Head>))| json!({"channel": channel.as_str(), "state": state, "serial": head.map(|head| head.serial.number())});
        let beat = |beat: &Beat| json!({"channel": beat.channel.as_str(), "time": beat.time.to_string(), "until": beat.until.to_string()});
        let channels = found.iter().flat_map(|found| &found.channels);
        let beats = found.iter().flat_map(|found| &found.beats);
        let expires = found.and_then(|found| found.trust_expires);
        json!({
            "broker": name,
            "error": error,
            "trust_expires": expires.map(|expires| expires.to_string()),
            "beats": beats.map(beat).collect::<Vec<_>>(),
            "channels": channels.map(channel).collect::<Vec<_>>(),
        })
    };
    brokers.iter().map(one).collect()
}
