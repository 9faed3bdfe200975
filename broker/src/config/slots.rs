//! `[[slot]]` and `[fleetlock]`: groups of machines, and where they are served.

use std::fmt;

use tidings_protocol::slot::SlotName;

use super::{Config, ConfigError, FleetLockConfig, Rules, SlotGroup, Wrong};
use crate::access::Access;

pub(super) fn slots(
    config: &Config,
    access: &Access,
    wrong: &Wrong,
) -> Result<Vec<SlotGroup>, ConfigError> {
    let mut groups: Vec<SlotGroup> = Vec::new();
    for (index, slot) in config.slot.iter().enumerate() {
        let wrong =
            |key: &str, reason: &dyn fmt::Display| wrong(format!("slot[{index}].{key}"), reason);
        let name: SlotName = slot.group.parse().map_err(|e| wrong("group", &e))?;
        if groups.iter().any(|known| known.name == name) {
            return Err(wrong("group", &format!("{name} is there already")));
        }
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
        let peer = |key: &'static str| {
            move |name: &String| {
                let found = access.peers.iter().position(|peer| peer.name == *name);
                found.ok_or_else(|| wrong(key, &format!("{name} is none of the peers")))
            }
        };
        if slot.certificate
            && config
                .tls
                .as_ref()
                .is_none_or(|tls| tls.client_ca_file.is_none())
        {
            return Err(wrong("certificate", &"needs tls.client_ca_file"));
        }
        let in_tls = config.fleetlock.as_ref().is_none_or(|served| served.tls);
        if slot.certificate && !in_tls {
            return Err(wrong("certificate", &"needs fleetlock.tls"));
        }
        groups.push(SlotGroup {
            name,
            rules: Rules {
                max: slot.max as usize,
                lease: slot.lease_seconds,
                failures: slot.failures as usize,
            },
            takers: slot
                .takers
                .as_ref()
                .map(|takers| takers.iter().map(peer("takers")).collect())
                .transpose()?,
            operators: slot
                .operators
                .iter()
                .map(peer("operators"))
                .collect::<Result<_, _>>()?,
            certificate: slot.certificate,
        });
    }
    if !groups.is_empty()
        && config
            .fleetlock
            .as_ref()
            .is_none_or(|fleetlock| fleetlock.listen.is_empty())
    {
        return Err(wrong(
            "fleetlock.listen".into(),
            &"groups of slots are served by FleetLock: give an address",
        ));
    }
    let is_open = |served: &FleetLockConfig| {
        !served.tls && served.listen.iter().any(|at| !at.ip().is_loopback())
    };
    if config.fleetlock.as_ref().is_some_and(is_open)
        && access.peers.iter().any(|peer| !peer.tokens.is_empty())
    {
        return Err(wrong(
            "fleetlock.tls".into(),
            &"peers have bearer tokens, which are not for clear text: set it, or listen on this machine alone",
        ));
    }
    if config
        .fleetlock
        .as_ref()
        .is_some_and(|fleetlock| fleetlock.tls)
        && config.tls.is_none()
    {
        return Err(wrong(
            "fleetlock.tls".into(),
            &"needs [tls] with certificate_file and key_file",
        ));
    }
    Ok(groups)
}
