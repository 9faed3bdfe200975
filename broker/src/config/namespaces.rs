//! Anchors, the beats that are signed here, and what is kept.

use std::{fmt, time::Duration};

use tidings_protocol::{Anchor, limits::BEAT_LIFE_SECONDS};

use super::{Beat, BeatConfig, Config, ConfigError, Mirroring, Retention, Wrong};

pub(super) fn anchors(config: &Config, wrong: &Wrong) -> Result<Vec<Anchor>, ConfigError> {
    let mut anchors: Vec<Anchor> = Vec::new();
    for (index, line) in config.anchors.iter().enumerate() {
        let anchor: Anchor = line
            .parse()
            .map_err(|e: tidings_protocol::NameError| wrong(format!("anchors[{index}]"), &e))?;
        if anchors
            .iter()
            .any(|known| known.namespace == anchor.namespace)
        {
            return Err(wrong(
                format!("anchors[{index}]"),
                &format!("{} has an anchor already", anchor.namespace),
            ));
        }
        anchors.push(anchor);
    }
    Ok(anchors)
}

pub(super) fn beats(
    config: &Config,
    anchors: &[Anchor],
    mirror: Option<&Mirroring>,
    wrong: &Wrong,
) -> Result<Vec<Beat>, ConfigError> {
    let mut beats: Vec<Beat> = Vec::new();
    for (index, written) in config.beat.iter().enumerate() {
        let wrong =
            |key: &str, reason: &dyn fmt::Display| wrong(format!("beat[{index}].{key}"), reason);
        let beat = beat(written, anchors, mirror, &wrong)?;
        let namespace = &beat.namespace;
        if beats
            .iter()
            .any(|other| other.namespace == *namespace && other.key_file == beat.key_file)
        {
            return Err(wrong(
                "key_file",
                &format!("{namespace} has a signer with this key already"),
            ));
        }
        beats.push(beat);
    }
    Ok(beats)
}

fn beat(
    written: &BeatConfig,
    anchors: &[Anchor],
    mirror: Option<&Mirroring>,
    wrong: &dyn Fn(&str, &dyn fmt::Display) -> ConfigError,
) -> Result<Beat, ConfigError> {
    let named = |anchor: &&Anchor| anchor.namespace.as_str() == written.namespace;
    let Some(anchor) = anchors.iter().find(named) else {
        let expected = format!("{} has no anchor in anchors", written.namespace);
        return Err(wrong("namespace", &expected));
    };
    let namespace = anchor.namespace.clone();
    if mirror.is_some_and(|mirror| mirror.channels.matches(namespace.beat().as_str())) {
        return Err(wrong(
            "namespace",
            &format!(
                "the beats of {namespace} are copied by [mirror]; they are signed at the origin"
            ),
        ));
    }
    let (every, life, most) = (
        written.every_seconds,
        written.life_seconds,
        BEAT_LIFE_SECONDS,
    );
    if !(1..most).contains(&every) {
        let expected = format!("expected 1 to {}, found {every}", most - 1);
        return Err(wrong("every_seconds", &expected));
    }
    if !(every + 1..=most).contains(&life) {
        let expected = format!("expected more than every_seconds and at most {most}, found {life}");
        return Err(wrong("life_seconds", &expected));
    }
    Ok(Beat {
        namespace,
        key_file: written.key_file.clone(),
        every: Duration::from_secs(every),
        life_seconds: life,
    })
}

pub(super) fn retention(config: &Config, wrong: &Wrong) -> Result<Vec<Retention>, ConfigError> {
    let mut retention = Vec::new();
    for (index, entry) in config.retention.iter().enumerate() {
        let channels = entry
            .channels
            .parse()
            .map_err(|e| wrong(format!("retention[{index}].channels"), &e))?;
        if entry.count == Some(0) || (entry.count.is_none() && entry.age_days.is_none()) {
            return Err(wrong(
                format!("retention[{index}]"),
                &"expected count (1 or more), age_days, or both",
            ));
        }
        retention.push(Retention {
            channels,
            count: entry.count,
            age: entry
                .age_days
                .map(|days| Duration::from_secs(u64::from(days) * 86_400)),
        });
    }
    let every_beat = "*.beat"
        .parse()
        .map_err(|e| wrong("retention".into(), &e))?;
    retention.push(Retention {
        channels: every_beat,
        count: Some(16),
        age: None,
    });
    Ok(retention)
}
