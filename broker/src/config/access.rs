//! `[[peer]]` and `[[access]]`.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::{Config, ConfigError, PeerConfig, Wrong};
use crate::net::access::{Access, Peer, Rule};

/// Who is known, and may read and offer what.
pub(super) fn access(config: &Config, wrong: &Wrong) -> Result<Access, ConfigError> {
    let mut peers: Vec<Peer> = Vec::new();
    for (index, written) in config.peer.iter().enumerate() {
        let wrong =
            |key: &str, reason: &dyn fmt::Display| wrong(format!("peer[{index}].{key}"), reason);
        let peer = peer(written, &wrong)?;
        if peers.iter().any(|other| other.name == peer.name) {
            return Err(wrong("name", &OWN_NAME));
        }
        peers.push(peer);
    }
    let mut rules = Vec::new();
    for (index, rule) in config.access.iter().enumerate() {
        let wrong =
            |key: &str, reason: &dyn fmt::Display| wrong(format!("access[{index}].{key}"), reason);
        let reader = |name: &String| {
            let found = peers.iter().position(|peer| peer.name == *name);
            found.ok_or_else(|| wrong("readers", &format!("{name} is none of the peers")))
        };
        let channels = rule.channels.parse().map_err(|e| wrong("channels", &e))?;
        rules.push(Rule {
            channels,
            readers: rule.readers.iter().map(reader).collect::<Result<_, _>>()?,
        });
    }
    Ok(Access { peers, rules })
}

const OWN_NAME: &str = "expected a name of its own, without spaces";

fn peer(
    peer: &PeerConfig,
    wrong: &dyn Fn(&str, &dyn fmt::Display) -> ConfigError,
) -> Result<Peer, ConfigError> {
    if peer.name.is_empty() || peer.name.contains(char::is_whitespace) {
        return Err(wrong("name", &OWN_NAME));
    }
    let network = |text: &String| {
        text.parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|e| wrong("networks", &e))
    };
    let hashes = |key: &'static str, texts: &[String]| {
        let hash = |text: &String| {
            let digits = text.trim_start_matches("sha256:").replace(':', "");
            fingerprint(&digits)
                .ok_or_else(|| wrong(key, &"expected 64 hexadecimal digits, a SHA-256"))
        };
        texts.iter().map(hash).collect::<Result<Vec<_>, _>>()
    };
    let sha_crypt = |hash: &&String| hash.starts_with("$6$") || hash.starts_with("$5$");
    if peer.password.is_some() && peer.password.as_ref().filter(sha_crypt).is_none() {
        return Err(wrong(
            "password",
            &"expected a hash as `openssl passwd -6` prints it",
        ));
    }
    let feeds = peer.feeds.as_ref().map(|feeds| feeds.parse()).transpose();
    let networks = peer.networks.iter().map(network);
    Ok(Peer {
        name: peer.name.clone(),
        networks: networks.collect::<Result<_, _>>()?,
        certificates: hashes("certificates", &peer.certificates)?,
        password: peer.password.clone(),
        tokens: hashes("tokens", &peer.tokens)?,
        feeds: feeds.map_err(|e| wrong("feeds", &e))?,
    })
}

fn fingerprint(digits: &str) -> Option<[u8; 32]> {
    let octet = |at: usize| {
        digits
            .get(2 * at..2 * at + 2)
            .and_then(|two| u8::from_str_radix(two, 16).ok())
    };
    let octets: Vec<u8> = (0..digits.len().div_ceil(2))
        .map(octet)
        .collect::<Option<_>>()?;
    octets.try_into().ok()
}
