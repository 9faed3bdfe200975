//! Brokers that statements are copied from, and offered to.

use std::{fmt, time::Duration};

use tidings_client::Address;
use tidings_protocol::Anchor;

use super::{Config, ConfigError, Feed, Login, MirrorConfig, Mirroring, Wrong, plain::is_good};

pub(super) fn mirroring(
    mirror: &MirrorConfig,
    anchors: &[Anchor],
    wrong: &Wrong,
) -> Result<Mirroring, ConfigError> {
    let wrong = |key: &str, reason: &dyn fmt::Display| wrong(format!("mirror.{key}"), reason);
    let upstreams: Result<Vec<Address>, _> = mirror
        .upstreams
        .iter()
        .map(|address| address.parse())
        .collect();
    let upstreams = upstreams.map_err(|e| wrong("upstreams", &e))?;
    if upstreams.is_empty() {
        return Err(wrong("upstreams", &"expected at least one broker"));
    }
    if !(1..=86_400).contains(&mirror.poll_seconds) {
        return Err(wrong(
            "poll_seconds",
            &format!("expected 1 to 86400, found {}", mirror.poll_seconds),
        ));
    }
    let channels = with_trust_and_beats(&mirror.channels, anchors)
        .parse()
        .map_err(|e| wrong("channels", &e))?;
    Ok(Mirroring {
        upstreams,
        channels,
        login: mirror.login.clone(),
        poll: Duration::from_secs(mirror.poll_seconds),
    })
}

/// The channels of a mirror, and the trust logs and beats of the namespaces that they are in.
fn with_trust_and_beats(channels: &str, anchors: &[Anchor]) -> String {
    let literal = |pattern: &str| {
        pattern
            .split(['*', '?'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let wanted: Vec<String> = channels
        .split(',')
        .filter(|pattern| !pattern.starts_with('!'))
        .map(literal)
        .collect();
    let mut all = channels.to_owned();
    for Anchor { namespace, .. } in anchors {
        let within = format!("{namespace}.");
        if wanted
            .iter()
            .any(|literal| literal.starts_with(&within) || within.starts_with(literal.as_str()))
        {
            all.push_str(&format!(
                ",{namespace}.trust,{namespace}.beat,{namespace}.*.beat"
            ));
        }
    }
    all
}

pub(super) fn feeds(config: &Config, wrong: &Wrong) -> Result<Vec<Feed>, ConfigError> {
    let mut feeds: Vec<Feed> = Vec::new();
    for (index, feed) in config.feed.iter().enumerate() {
        let wrong =
            |key: &str, reason: &dyn fmt::Display| wrong(format!("feed[{index}].{key}"), reason);
        if !is_good(&feed.name) || feeds.iter().any(|other| other.name == feed.name) {
            return Err(wrong(
                "name",
                &"expected a name of its own: letters, digits, `.`, `-`, `_`",
            ));
        }
        feeds.push(Feed {
            name: feed.name.clone(),
            to: feed.to.parse().map_err(|e| wrong("to", &e))?,
            channels: feed.channels.parse().map_err(|e| wrong("channels", &e))?,
            path: feed.path.clone(),
            login: feed.login.clone(),
        });
    }
    Ok(feeds)
}

/// Brokers that are asked at the start for what this one has lost.
pub(super) fn restore_from(config: &Config, wrong: &Wrong) -> Result<Mirroring, ConfigError> {
    let restore_from = config
        .restore_from
        .iter()
        .enumerate()
        .map(|(index, address)| {
            address
                .parse::<Address>()
                .map_err(|error| wrong(format!("restore_from[{index}]"), &error))
        });
    Ok(Mirroring {
        upstreams: restore_from.collect::<Result<_, _>>()?,
        channels: "*"
            .parse()
            .map_err(|error| wrong("restore_from".into(), &error))?,
        login: Login::default(),
        poll: crate::limits::RESTORE_AGAIN,
    })
}
