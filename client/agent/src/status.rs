//! What is seen from outside: `status.json` for programs, a textfile for node_exporter, and words
//! for people.
//!
//! The file is written at each change, and read without asking the agent: it tells of the agent
//! that is broken too.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};
use tidings_client::file;

/// `status.json`. Fields are added, never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When it was written, by this machine's time.
    pub time: String,
    /// The worst of the channels.
    pub state: Overall,
    /// Each channel.
    pub channels: Vec<ChannelStatus>,
}

/// What has to be done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    /// Nothing.
    #[default]
    Well,
    /// Nothing yet: it waits.
    Waiting,
    /// Somebody has to look.
    Failed,
}

/// One channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Its name.
    pub channel: String,
    /// What of it.
    pub state: Overall,
    /// CURRENT, BEHIND, STALE or FORKED, at that time.
    pub freshness: String,
    /// The serial of its newest statement.
    pub head: Option<u32>,
    /// The serial of the release that was applied last.
    pub applied: Option<u32>,
    /// The release that is being worked on, or was last.
    pub release: Option<u32>,
    /// Its version.
    pub version: Option<String>,
    /// What the agent wants of it: stage, go, keep, fail, leave; or how it ended: kept, failed,
    /// left.
    pub intent: Option<String>,
    /// The format of the payload that is used.
    pub format: Option<String>,
    /// How often the machine has gone for it.
    pub trials: u8,
    /// Why it is so.
    pub why: String,
}

impl Status {
    /// Writes it where everybody may read it; a reader sees the one before, or this one.
    ///
    /// # Errors
    /// As the file system has them.
    pub fn write(&self, run: &Path, textfile: Option<&Path>) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        file::replace(
            &run.join("status.json"),
            format!("{text}\n").as_bytes(),
            0o644,
        )?;
        textfile.map_or(Ok(()), |path| {
            file::replace(path, self.metrics().as_bytes(), 0o644)
        })
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it is not there, or not what an agent writes.
    pub fn read(run: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(run.join("status.json"))?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }

    /// As node_exporter reads it.
    pub fn metrics(&self) -> String {
        let mut text = String::from(
            "# HELP tidings_agent_state 0 well, 1 waiting, 2 failed.\n# TYPE tidings_agent_state gauge\n",
        );
        for channel in &self.channels {
            text += &format!(
                "tidings_agent_state{{channel=\"{}\"}} {}\n",
                channel.channel, channel.state as u8
            );
        }
        for (name, help, value) in [
            (
                "current",
                "Whether nothing newer is held back.",
                (|c| u64::from(c.freshness == "CURRENT")) as fn(&ChannelStatus) -> u64,
            ),
            (
                "applied_serial",
                "The release that was applied last.",
                |c| c.applied.unwrap_or(0).into(),
            ),
            ("head_serial", "The newest statement.", |c| {
                c.head.unwrap_or(0).into()
            }),
            (
                "trials",
                "How often the machine has gone for the present release.",
                |c| c.trials.into(),
            ),
        ] {
            text +=
                &format!("# HELP tidings_agent_{name} {help}\n# TYPE tidings_agent_{name} gauge\n");
            for channel in &self.channels {
                text += &format!(
                    "tidings_agent_{name}{{channel=\"{}\"}} {}\n",
                    channel.channel,
                    value(channel)
                );
            }
        }
        text
    }

    /// For people: a line for each channel.
    pub fn lines(&self) -> Vec<String> {
        let number =
            |serial: Option<u32>| serial.map_or("-".to_owned(), |serial| serial.to_string());
        let line = |channel: &ChannelStatus| {
            let mut text = format!(
                "{}: {}, head {}, applied {}",
                channel.channel,
                channel.freshness,
                number(channel.head),
                number(channel.applied)
            );
            if let (Some(release), Some(intent)) = (channel.release, &channel.intent) {
                let version = channel.version.as_deref().unwrap_or_default();
                text += &format!("; release {release} ({version}): {intent}");
            }
            if !channel.why.is_empty() {
                text += &format!(" ({})", channel.why);
            }
            text
        };
        self.channels.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_lines() {
        let channel = ChannelStatus {
            channel: "acme.os".into(),
            state: Overall::Waiting,
            freshness: "CURRENT".into(),
            head: Some(7),
            release: Some(7),
            version: Some("2".into()),
            intent: Some("go".into()),
            why: "the next window opens at 2026-11-30T02:00:00Z".into(),
            ..ChannelStatus::default()
        };
        let status = Status {
            time: "2026-11-29T09:00:00Z".into(),
            state: Overall::Waiting,
            channels: vec![channel],
        };
        assert_eq!(
            status.lines(),
            [
                "acme.os: CURRENT, head 7, applied -; release 7 (2): go (the next window opens at 2026-11-30T02:00:00Z)"
            ]
        );
        let metrics = status.metrics();
        for line in [
            "tidings_agent_state{channel=\"acme.os\"} 1",
            "tidings_agent_current{channel=\"acme.os\"} 1",
            "tidings_agent_head_serial{channel=\"acme.os\"} 7",
        ] {
            assert!(metrics.contains(line), "{metrics}");
        }
        let place = tempfile::tempdir().unwrap();
        status
            .write(place.path(), Some(&place.path().join("agent.prom")))
            .unwrap();
        assert_eq!(Status::read(place.path()).unwrap(), status);
    }
}
