//! What was found, in Prometheus' text format.

use std::{collections::BTreeMap, fmt::Write};

use tidings_client::Timestamp;

use super::{Brokers, Found};

/// A value of a label (text format 0.0.4).
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

struct Text(String);

impl Text {
    fn metric(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, String)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP tidings_check_{name} {help}\n# TYPE tidings_check_{name} gauge"
        );
        for (labels, value) in samples {
            let _ = writeln!(self.0, "tidings_check_{name}{labels} {value}");
        }
    }
}

/// All of it; each channel only where they were named, else how many stand how.
pub(super) fn of(code: u8, brokers: &Brokers, named: bool, time: Timestamp) -> String {
    let mut text = Text(String::new());
    let alone = |value: String| [(String::new(), value)];
    text.metric(
        "status",
        "How the check has ended: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN",
        alone(code.to_string()),
    );
    text.metric(
        "timestamp_seconds",
        "When it was made",
        alone(time.seconds().to_string()),
    );
    let label = |broker: &str| format!("{{broker=\"{}\"}}", escaped(broker));
    text.metric(
        "broker_up",
        "1 if a broker could be used",
        brokers
            .iter()
            .map(|(name, found)| (label(name), u8::from(found.is_ok()).to_string())),
    );
    text.metric(
        "trust_expires_timestamp_seconds",
        "When the trust that a broker has expires",
        usable(brokers).filter_map(|(name, found)| {
            Some((label(name), found.trust_expires?.seconds().to_string()))
        }),
    );
    beats(&mut text, brokers);
    channels(&mut text, brokers, named);
    text.0
}

/// The brokers that could be used, and what they have.
fn usable(brokers: &Brokers) -> impl Iterator<Item = (&str, &Found)> {
    brokers
        .iter()
        .filter_map(|(name, found)| Some((name.as_str(), found.as_ref().ok()?)))
}

/// The labels of something that a broker has.
fn labels(broker: &str, name: &str, value: &str) -> String {
    let broker = escaped(broker);
    format!("{{broker=\"{broker}\",{name}=\"{}\"}}", escaped(value))
}

fn beats(text: &mut Text, brokers: &Brokers) {
    let beats =
        || usable(brokers).flat_map(|(name, found)| found.beats.iter().map(move |one| (name, one)));
    text.metric(
        "beat_timestamp_seconds",
        "When the newest beat of a beat channel was signed",
        beats().map(|(name, beat)| {
            let labels = labels(name, "channel", beat.channel.as_str());
            (labels, beat.time.seconds().to_string())
        }),
    );
    text.metric(
        "beat_expires_timestamp_seconds",
        "When it ends",
        beats().map(|(name, beat)| {
            let labels = labels(name, "channel", beat.channel.as_str());
            (labels, beat.until.seconds().to_string())
        }),
    );
}

/// Each channel only where they were named, else how many stand how.
fn channels(text: &mut Text, brokers: &Brokers, named: bool) {
    let mut states: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (name, found) in usable(brokers) {
        for (state, _) in found.channels.values() {
            *states.entry((name, *state)).or_default() += 1;
        }
    }
    text.metric(
        "channel_states",
        "Channels in this state",
        states
            .iter()
            .map(|((name, state), count)| (labels(name, "state", state), count.to_string())),
    );
    let channels = usable(brokers)
        .filter(|_| named)
        .flat_map(|(name, found)| found.channels.iter().map(move |one| (name, one)));
    text.metric(
        "channel_current",
        "1 if nothing of a channel is held back",
        channels.map(|(name, (channel, (state, _)))| {
            let labels = labels(name, "channel", channel.as_str());
            (labels, u8::from(*state == "CURRENT").to_string())
        }),
    );
}
