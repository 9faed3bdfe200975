//! How a device stands, and how brokers stand.

use anyhow::ensure;
use clap::Args;
use serde_json::json;
use tidings_client::{Channel, Device, Freshness, Serial, State};

use super::{
    exit::Exit,
    fleet, output,
    reader::{Reading, note_if_unknown},
};

/// For how many days before its end the expiry of trust is pointed out.
const EXPIRY_WARNING_DAYS: u64 = 30;

#[derive(Args)]
pub(super) struct Status {
    /// The channels; without any, all that the state file knows. Or brokers, nntp://HOST or
    /// nntps://HOST: then their heads are compared, of all channels or of those that are named too
    #[arg(value_name = "CHANNEL|BROKER")]
    what: Vec<String>,
    /// Compare brokers again and again until Ctrl-C; without naming any, all of --broker
    #[arg(long, conflicts_with = "state")]
    watch: bool,
    #[command(flatten)]
    reading: Reading,
}

impl Status {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (brokers, channels): (Vec<String>, Vec<String>) = self
            .what
            .iter()
            .cloned()
            .partition(|what| what.contains("://"));
        let mut channels = channels
            .iter()
            .map(|name| name.parse())
            .collect::<Result<Vec<Channel>, _>>()?;
        if self.watch || !brokers.is_empty() {
            let mut from = self.reading.from;
            if !brokers.is_empty() {
                from.brokers = brokers;
            }
            return fleet::compare(&from, &channels, self.watch).await;
        }
        if channels.is_empty() {
            channels = self.known_channels()?;
        }
        let which = || {
            Exit::Usage.because(
                "which channels? name them, or give --state FILE of a device that knows some",
            )
        };
        ensure!(!channels.is_empty(), which());
        // Who looks changes nothing, and leaves nothing behind.
        let mut device = self
            .reading
            .device_that_looks(&channels)?
            .with_saving_by_hand();
        // With a state file: how the device stands. Without one: how the brokers stand.
        let asked = match &self.reading.state {
            Some(_) => device.refresh().await,
            None => device.poll().await.map(drop),
        };
        if let Err(error) = &asked {
            output::note(&tidings_client::explain(error));
        }
        if asked.is_ok() && self.reading.state.is_none() {
            channels
                .iter()
                .for_each(|channel| note_if_unknown(&device, channel));
        }
        let states: Vec<(Channel, Freshness)> = channels
            .iter()
            .map(|channel| (channel.clone(), device.freshness(channel)))
            .collect();
        match output::is_json() {
            true => output::object(&json(&device, &states)),
            false => print(&device, &states),
        }
        judge(&device, &states)
    }

    /// Those of the state file, if there is one.
    fn known_channels(&self) -> anyhow::Result<Vec<Channel>> {
        let Some(path) = &self.reading.state else {
            return Ok(vec![]);
        };
        let anchor = self.reading.from.must_anchor()?;
        let none = || {
            Exit::BadFile.because(format!(
                "there is no state file {}; name the channels, or correct the path",
                path.display()
            ))
        };
        ensure!(path.exists(), none());
        let known = State::look(path, &anchor)?;
        let channels = known.view().channels().filter(|channel| !channel.is_beat());
        Ok(channels.cloned().collect())
    }
}

fn json(device: &Device, states: &[(Channel, Freshness)]) -> serde_json::Value {
    let state = device.state();
    let row = |(channel, freshness): &(Channel, Freshness)| {
        let until = match freshness {
            Freshness::Current { until } => Some(until.to_string()),
            _ => None,
        };
        let behind = match freshness {
            Freshness::Behind { head } => Some(head.serial.number()),
            _ => None,
        };
        json!({
            "channel": channel.as_str(),
            "state": freshness.as_str(),
            "until": until,
            "beats": state.view().promises_beats(channel),
            "behind": behind,
            "serial": state.head(channel).map(|head| head.serial.number()),
            "id": state.head(channel).map(|head| head.id.to_string()),
            "applied": state.view().applied(channel).map(|applied| applied.serial().number()),
            "withdrawn_by": recalled(state, channel).map(Serial::number),
            "fork": state.view().fork(channel).map(|fork| json!({
                "serial": fork.serial().number(), "ours": fork.ours.id().to_string(), "theirs": fork.theirs.id().to_string()
            })),
        })
    };
    let time = state.time(&state.anchor().namespace.trust_log());
    let trust = state.trust().map(
        |trust| json!({"serial": trust.serial().number(), "expires": trust.rules().expires.to_string(), "expired": trust.is_expired(time)}),
    );
    json!({
        "time": time.to_string(),
        "trust": trust,
        "channels": states.iter().map(row).collect::<Vec<_>>(),
    })
}

/// With what exit code it ends.
fn judge(device: &Device, states: &[(Channel, Freshness)]) -> anyhow::Result<()> {
    let bad = states
        .iter()
        .filter(|(_, freshness)| !freshness.is_current())
        .count();
    ensure!(
        bad == 0,
        Exit::NotCurrent.as_told(format!("{bad} of {} not CURRENT", states.len()))
    );
    let withdrawn = states
        .iter()
        .filter(|(channel, _)| recalled(device.state(), channel).is_some())
        .count();
    ensure!(
        withdrawn == 0,
        Exit::Withdrawn.as_told(format!(
            "what is applied in {withdrawn} channel(s) was withdrawn"
        ))
    );
    Ok(())
}

fn print(device: &Device, states: &[(Channel, Freshness)]) {
    let state = device.state();
    let serial = |serial: Option<Serial>| serial.map_or("-".into(), |serial| serial.to_string());
    let row = |(channel, freshness): &(Channel, Freshness)| {
        let (head, applied) = (
            state.head(channel).map(|head| head.serial),
            state
                .view()
                .applied(channel)
                .map(|applied| applied.serial()),
        );
        let recalled =
            recalled(state, channel).map_or(String::new(), |by| format!(", WITHDRAWN by {by}"));
        vec![
            channel.to_string(),
            freshness.to_string(),
            serial(head),
            serial(applied) + &recalled,
        ]
    };
    output::table(
        &["channel", "state", "head", "applied"],
        states.iter().map(row).collect(),
    );
    for fork in states
        .iter()
        .filter_map(|(channel, _)| state.view().fork(channel))
    {
        let channel = fork.ours.channel();
        output::line(&format!(
            "{channel} at {}: {} or {}; `tidings evidence {channel}` writes the proof",
            fork.serial(),
            fork.ours.id(),
            fork.theirs.id()
        ));
    }
    print_trust(state);
    for (channel, _) in states
        .iter()
        .filter(|(channel, _)| !state.view().promises_beats(channel))
    {
        output::line(&format!(
            "{channel} has no role for beats: nothing can confirm its head"
        ));
    }
}

/// Until when trust lasts.
fn print_trust(state: &State) {
    let time = state.time(&state.anchor().namespace.trust_log());
    match state.trust() {
        Some(trust) if trust.is_expired(time) => {
            output::line(&format!(
                "trust {} has EXPIRED at {}: nothing is installed until it is renewed",
                trust.serial(),
                trust.rules().expires
            ));
        }
        Some(trust) => {
            let left = trust
                .rules()
                .expires
                .seconds()
                .saturating_sub(time.seconds())
                / 86_400;
            let soon = if left < EXPIRY_WARNING_DAYS {
                format!(", in {left} days: renew it (`tidings trust renew`)")
            } else {
                String::new()
            };
            output::line(&format!(
                "trust {} until {}{soon}",
                trust.serial(),
                trust.rules().expires
            ));
        }
        None => output::line("no trust is known yet"),
    }
}

/// The withdrawal that has called back what is applied.
fn recalled(state: &State, channel: &Channel) -> Option<Serial> {
    let applied = state.view().applied(channel)?;
    state
        .view()
        .withdrawn(applied)
        .map(|withdrawn| withdrawn.by)
}
