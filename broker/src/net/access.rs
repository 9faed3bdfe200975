//! Who is known here, and what they may read and offer. What somebody may not read does not exist
//! for him.
//!
//! Nothing rests on this for what is true: statements prove themselves, whoever brings them (attack
//! 66).

use std::net::IpAddr;

use ipnet::IpNet;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use sha2::{Digest, Sha256};
use tidings_protocol::{Channel, Wildmat};

/// Somebody who is known.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the log calls them, and AUTHINFO USER.
    pub name: String,
    /// Where they come from, if that is enough to know them.
    pub networks: Vec<IpNet>,
    /// SHA-256 of their certificates.
    pub certificates: Vec<[u8; 32]>,
    /// The hash of their password, as crypt(5) has it.
    pub password: Option<String>,
    /// SHA-256 of their bearer tokens for HTTP.
    pub tokens: Vec<[u8; 32]>,
    /// What they may offer by IHAVE, CHECK and TAKETHIS.
    pub feeds: Option<Wildmat>,
}

/// Channels that not everybody may read.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which.
    pub channels: Wildmat,
    /// Who may, by their place among the peers.
    pub readers: Vec<usize>,
}

/// Everybody who is known, and the rules; the first rule that matches a channel decides, without
/// one all may read.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Who is known.
    pub peers: Vec<Peer>,
    /// Who may read what.
    pub rules: Vec<Rule>,
}

/// As whom somebody is known: places among the peers.
pub(crate) type Known = Vec<usize>;

impl Access {
    /// As whom a connection is known before it has said anything.
    pub(crate) fn who(&self, address: IpAddr, certificate: Option<&[u8]>) -> Known {
        let address = address.to_canonical();
        let fingerprint: Option<[u8; 32]> = certificate.map(|der| Sha256::digest(der).into());
        let is = |peer: &Peer| {
            peer.networks
                .iter()
                .any(|network| network.contains(&address))
                || fingerprint.is_some_and(|fingerprint| peer.certificates.contains(&fingerprint))
        };
        self.peers
            .iter()
            .enumerate()
            .filter(|(_, peer)| is(peer))
            .map(|(index, _)| index)
            .collect()
    }

    /// Who has this bearer token. It is compared by its hash, so that no time tells how much of it
    /// is right.
    pub(crate) fn bearer(&self, token: &str) -> Option<usize> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.peers
            .iter()
            .position(|peer| peer.tokens.contains(&hash))
    }

    /// Whether anybody here has a password.
    pub(crate) fn has_passwords(&self) -> bool {
        self.peers.iter().any(|peer| peer.password.is_some())
    }

    /// Who has this name and this password. Takes some milliseconds, whoever it is.
    pub(crate) fn login(&self, name: &str, password: &str) -> Option<usize> {
        // Somebody unknown costs as much as somebody known.
        const NOBODY: &str = "$6$tidings$kAFI1asLjcTHOmAiZxznKuelyn.a1ovEjVicazrdT7sqt90wnGrjmxm23GX9mZUYZlRzcfyntVN3PB1LY8Vob0";
        let found = self
            .peers
            .iter()
            .position(|peer| peer.name == name && peer.password.is_some());
        let hash = found
            .and_then(|index| self.peers[index].password.as_deref())
            .unwrap_or(NOBODY);
        let matches = ShaCrypt::default()
            .verify_password(password.as_bytes(), hash)
            .is_ok();
        found.filter(|_| matches)
    }

    /// Whether somebody may read a channel.
    pub(crate) fn may_read(&self, known: &[usize], channel: &Channel) -> bool {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.channels.matches(channel.as_str()));
        rule.is_none_or(|rule| rule.readers.iter().any(|reader| known.contains(reader)))
    }

    /// Whether somebody may offer statements of a channel that another broker has.
    pub(crate) fn may_feed(&self, known: &[usize], channel: &Channel) -> bool {
        self.feeders(known)
            .any(|feeds| feeds.matches(channel.as_str()))
    }

    /// Whether somebody may offer anything.
    pub(crate) fn may_feed_something(&self, known: &[usize]) -> bool {
        self.feeders(known).next().is_some()
    }

    fn feeders<'a>(&'a self, known: &'a [usize]) -> impl Iterator<Item = &'a Wildmat> {
        known
            .iter()
            .filter_map(|index| self.peers.get(*index)?.feeds.as_ref())
    }

    /// What the log calls somebody.
    pub(crate) fn name(&self, known: &[usize]) -> &str {
        known
            .first()
            .and_then(|index| self.peers.get(*index))
            .map_or("-", |peer| peer.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, feeds: Option<&str>) -> Peer {
        let feeds = feeds.map(|feeds| feeds.parse().unwrap());
        Peer {
            name: name.into(),
            networks: vec![],
            certificates: vec![],
            password: None,
            tokens: vec![],
            feeds,
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let inn = Peer {
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            ..peer("inn", Some("a.*"))
        };
        // `openssl passwd -6 -salt saltsalt secret`
        let hash = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";
        let ann = Peer {
            password: Some(hash.into()),
            ..peer("ann", None)
        };
        let rule = |channels: &str, readers: &[usize]| Rule {
            channels: channels.parse().unwrap(),
            readers: readers.into(),
        };
        let access = Access {
            peers: vec![inn, ann],
            rules: vec![rule("a.secret.open", &[0, 1]), rule("a.secret.*", &[1])],
        };
        let channel = |name: &str| name.parse::<Channel>().unwrap();
        let known = access.who("::ffff:192.0.2.7".parse().unwrap(), None);
        assert_eq!(known, [0]);
        assert!(
            access.may_read(&known, &channel("a.b"))
                && access.may_read(&known, &channel("a.secret.open"))
        );
        assert!(
            !access.may_read(&known, &channel("a.secret.x"))
                && access.may_read(&[1], &channel("a.secret.x"))
        );
        assert!(
            access.may_feed(&known, &channel("a.b"))
                && !access.may_feed(&known, &channel("b.b"))
                && !access.may_feed(&[1], &channel("a.b"))
        );
        assert_eq!(
            (access.login("ann", "secret"), access.login("ann", "Secret")),
            (Some(1), None)
        );
        assert_eq!(
            (access.login("inn", ""), access.login("nobody", "secret")),
            (None, None)
        );
    }
}
