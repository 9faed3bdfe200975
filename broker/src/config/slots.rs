//! `[[slot]]` and `[fleetlock]`: groups of machines, and where they are served.

use std::fmt;

use tidings_protocol::slot::SlotName;

use super::{Config, ConfigError, FleetLockConfig, Rules, SlotConfig, SlotGroup, Wrong};
use crate::net::access::Access;

pub(super) fn slots(
    config: &Config,
    access: &Access,
    wrong: &Wrong,
) -> Result<Vec<SlotGroup>, ConfigError> {
    let mut groups: Vec<SlotGroup> = Vec::new();
    for (index, slot) in config.slot.iter().enumerate() {
        let wrong =
            |key: &str, reason: &dyn fmt::Display| wrong(format!("slot[{index}].{key}"), reason);
        let group = group(slot, config, access, &wrong)?;
        if groups.iter().any(|known| known.name == group.name) {
            return Err(wrong("group", &format!("{} is there already", group.name)));
        }
        groups.push(group);
    }
    served(config, access, !groups.is_empty(), wrong)?;
    Ok(groups)
}

/// One group.
fn group(
    slot: &SlotConfig,
    config: &Config,
    access: &Access,
    wrong: &dyn Fn(&str, &dyn fmt::Display) -> ConfigError,
) -> Result<SlotGroup, ConfigError> {
    let name: SlotName = slot.group.parse().map_err(|e| wrong("group", &e))?;
    let ranges = [
        ("max", slot.max.into(), 1, 1_000),
        ("lease_seconds", slot.lease_seconds, 1, 7 * 86_400),
        ("failures", slot.failures.into(), 1, 1_000),
    ];
    for (key, value, low, high) in ranges {
        if !(low..=high).contains(&value) {
            return Err(wrong(
                key,
                &format!("expected {low} to {high}, found {value}"),
            ));
        }
    }
    let peers = |key: &'static str, names: &[String]| {
        let peer = |name: &String| {
            let found = access.peers.iter().position(|peer| peer.name == *name);
            found.ok_or_else(|| wrong(key, &format!("{name} is none of the peers")))
        };
        names.iter().map(peer).collect::<Result<Vec<_>, _>>()
    };
    let authority = config
        .tls
        .as_ref()
        .and_then(|tls| tls.client_ca_file.as_ref());
    if slot.certificate && authority.is_none() {
        return Err(wrong("certificate", &"needs tls.client_ca_file"));
    }
    let in_tls = config.fleetlock.as_ref().is_none_or(|served| served.tls);
    if slot.certificate && !in_tls {
        return Err(wrong("certificate", &"needs fleetlock.tls"));
    }
    let takers = slot.takers.as_ref();
    Ok(SlotGroup {
        name,
        rules: Rules {
            max: slot.max as usize,
            lease: slot.lease_seconds,
            failures: slot.failures as usize,
        },
        takers: takers.map(|takers| peers("takers", takers)).transpose()?,
        operators: peers("operators", &slot.operators)?,
        certificate: slot.certificate,
    })
}

/// Where groups are served, and that nobody on the way can read what is secret.
fn served(
    config: &Config,
    access: &Access,
    are_there: bool,
    wrong: &Wrong,
) -> Result<(), ConfigError> {
    let served = config.fleetlock.as_ref();
    if are_there && served.is_none_or(|served| served.listen.is_empty()) {
        return Err(wrong(
            "fleetlock.listen".into(),
            &"groups of slots are served by FleetLock: give an address",
        ));
    }
    let is_open = |served: &FleetLockConfig| {
        !served.tls && served.listen.iter().any(|at| !at.ip().is_loopback())
    };
    let has_tokens = || access.peers.iter().any(|peer| !peer.tokens.is_empty());
    if served.is_some_and(is_open) && has_tokens() {
        return Err(wrong(
            "fleetlock.tls".into(),
            &"peers have bearer tokens, which are not for clear text: set it, or listen on this machine alone",
        ));
    }
    if served.is_some_and(|served| served.tls) && config.tls.is_none() {
        return Err(wrong(
            "fleetlock.tls".into(),
            &"needs [tls] with certificate_file and key_file",
        ));
    }
    Ok(())
}
