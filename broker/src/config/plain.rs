//! Values that stay as they are written.

use tidings_protocol::limits::HEARTBEAT_SECONDS;

use super::{Config, ConfigError, Wrong, addresses};

pub(super) fn check(config: &Config, wrong: &Wrong) -> Result<(), ConfigError> {
    names(config, wrong)?;
    level(config, wrong)?;
    listen(config, wrong)?;
    limits(config, wrong)
}

/// What a broker, and a feed, may be called.
pub(super) fn is_good(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_of_name)
}

fn is_of_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':')
}

fn names(config: &Config, wrong: &Wrong) -> Result<(), ConfigError> {
    if config.name.len() > 128 || !is_good(&config.name) {
        return Err(wrong(
            "name".into(),
            &"expected a host name: letters, digits, `.`, `-`, `_`",
        ));
    }
    let is_host = |name: &&String| is_good(name) && !name.contains(':');
    if let Some(odd) = config.admin.names.iter().find(|name| !is_host(name)) {
        return Err(wrong(
            "admin.names".into(),
            &format!("expected host names without a port, found {odd:?}"),
        ));
    }
    Ok(())
}

fn level(config: &Config, wrong: &Wrong) -> Result<(), ConfigError> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let level = config
        .log
        .level
        .split(',')
        .find(|part| !part.contains('=') && !levels.contains(part));
    if let Some(unknown) = level {
        return Err(wrong(
            "log.level".into(),
            &format!("expected error, warn, info, debug or trace, found {unknown:?}"),
        ));
    }
    Ok(())
}

fn listen(config: &Config, wrong: &Wrong) -> Result<(), ConfigError> {
    if config.listen.nntp.is_empty() && config.listen.nntps.is_empty() {
        return Err(wrong(
            "listen".into(),
            &"expected at least one address in nntp or nntps",
        ));
    }
    let mut every = addresses(config);
    every.retain(|address| address.port() != 0);
    every.sort();
    if let Some(twice) = every.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(wrong(
            "listen".into(),
            &format!("{} is named twice; each address is for one thing", twice[0]),
        ));
    }
    if !config.listen.nntps.is_empty() && config.tls.is_none() {
        return Err(wrong(
            "listen.nntps".into(),
            &"needs [tls] with certificate_file and key_file",
        ));
    }
    Ok(())
}

fn limits(config: &Config, wrong: &Wrong) -> Result<(), ConfigError> {
    let limits = &config.limits;
    let ranges = [
        ("connections", limits.connections as u64, 1, 1_000_000),
        (
            "connections_per_address",
            limits.connections_per_address as u64,
            1,
            1_000_000,
        ),
        ("watches", limits.watches as u64, 0, 1_000_000),
        // RFC 3977 section 3.1 asks for three minutes at least.
        ("idle_seconds", limits.idle_seconds, 180, 86_400),
        ("handshake_seconds", limits.handshake_seconds, 1, 600),
        (
            "heartbeat_seconds",
            limits.heartbeat_seconds,
            2,
            HEARTBEAT_SECONDS,
        ),
        ("gap_seconds", limits.gap_seconds, 1, 30 * 86_400),
        ("closed_days", limits.closed_days, 0, 10_000),
    ];
    for (key, value, low, high) in ranges {
        if !(low..=high).contains(&value) {
            return Err(wrong(
                format!("limits.{key}"),
                &format!("expected {low} to {high}, found {value}"),
            ));
        }
    }
    for (key, value, most) in [
        ("channels", config.quota.channels, crate::limits::CHANNELS),
        ("evidence", config.quota.evidence, 100_000),
    ] {
        if !(1..=most).contains(&value) {
            return Err(wrong(
                format!("quota.{key}"),
                &format!("expected 1 to {most}, found {value}"),
            ));
        }
    }
    Ok(())
}
