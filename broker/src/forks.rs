//! Evidence: two statements, both proven, for one place of one log (attack 28), and what a log has
//! lost to a checkpoint or a beat.
//!
//! A file is what `tidings verify` proves to anybody: the trust log, then the statements. Each
//! namespace has its own quota, and each channel a part of it, so that nobody uses up what others
//! need (attack 114).

use std::{fs, io, path::PathBuf};

use tidings_protocol::{Channel, Serial, Statement, StatementId};

use crate::{
    limits::{FORK_OCTETS, FORKS_OF_CHANNEL},
    namespaces::Provisioned,
    store::Store,
};

/// Where evidence is kept.
pub(crate) struct Forks {
    pub(crate) directory: PathBuf,
    pub(crate) store: Store,
    /// Files of each namespace.
    pub(crate) quota: usize,
}

impl Forks {
    /// Keeps a pair, once, and says so in the log. If both follow the same statement, one of them
    /// has lost a race: a note; any other pair is an alarm.
    pub(crate) fn remember(
        &self,
        provisioned: Option<&Provisioned>,
        ours: &Statement,
        theirs: &Statement,
    ) {
        let (Some(provisioned), channel, serial) = (provisioned, theirs.channel(), theirs.serial())
        else {
            return;
        };
        let is_race = ours.previous() == theirs.previous();
        let extension = if is_race { "race" } else { "fork" };
        match self.write(
            provisioned,
            theirs,
            extension,
            [ours.clone(), theirs.clone()].into_iter(),
        ) {
            Ok(Some(path)) if is_race => tracing::warn!(
                %channel, %serial, ours = %ours.id(), theirs = %theirs.id(), evidence = %path.display(),
                "two statements are signed for one place: the second was refused; unless two publishers raced for it, somebody else signs with their keys"
            ),
            Ok(Some(path)) => tracing::error!(
                %channel, %serial, ours = %ours.id(), theirs = %theirs.id(), evidence = %path.display(),
                "a fork: two statements are signed for one place; the second was refused. Find out who has signed both, and settle it with a checkpoint"
            ),
            Ok(None) => {
                tracing::warn!(%channel, %serial, theirs = %theirs.id(), "a fork again: its evidence is kept already, or the quota of evidence is used up");
            }
            Err(error) => {
                tracing::error!(%channel, %serial, %error, "the evidence of a fork cannot be kept")
            }
        }
    }

    /// Keeps what a log has lost.
    pub(crate) fn file(
        &self,
        provisioned: Option<&Provisioned>,
        channel: &Channel,
        mut lost: impl Iterator<Item = Statement>,
    ) {
        let (Some(provisioned), Some(first)) = (provisioned, lost.next()) else {
            return;
        };
        let serial = first.serial();
        let all = std::iter::once(first.clone()).chain(lost);
        match self.write(provisioned, &first, "lost", all) {
            Ok(Some(path)) => {
                tracing::warn!(%channel, from = %serial, file = %path.display(), "what has lost its place is filed away")
            }
            Ok(None) => {
                tracing::warn!(%channel, from = %serial, "what has lost its place is not filed: the quota of evidence is used up")
            }
            Err(error) => {
                tracing::error!(%channel, from = %serial, %error, "what has lost its place cannot be filed away")
            }
        }
    }

    fn write(
        &self,
        provisioned: &Provisioned,
        named: &Statement,
        extension: &str,
        statements: impl Iterator<Item = Statement>,
    ) -> io::Result<Option<PathBuf>> {
        fs::create_dir_all(&self.directory)?;
        // Hashes of names, since names that came from outside are never paths (attack 46).
        let hex = |octets: &[u8]| -> String {
            octets.iter().map(|octet| format!("{octet:02x}")).collect()
        };
        let hash = |name: &str| hex(&StatementId::of(name.as_bytes()).octets()[..4]);
        let namespace = format!("{}-", hash(provisioned.anchor.namespace.as_str()));
        let channel = format!("{namespace}{}-", hash(named.channel().as_str()));
        let path = self
            .directory
            .join(format!("{channel}{}.{extension}", hex(named.id().octets())));
        if path.exists() || !self.has_room(&namespace, &channel)? {
            return Ok(None);
        }
        let mut octets = Vec::new();
        for trust in self.trust_log(provisioned) {
            octets.extend_from_slice(trust.octets());
        }
        for statement in statements {
            octets.extend_from_slice(statement.octets());
            if octets.len() > FORK_OCTETS {
                break;
            }
        }
        tidings_client::file::replace(&path, &octets, 0o600)?;
        Ok(Some(path))
    }

    fn has_room(&self, namespace: &str, channel: &str) -> io::Result<bool> {
        let (mut of_namespace, mut of_channel) = (0, 0);
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            of_namespace += usize::from(name.to_string_lossy().starts_with(namespace));
            of_channel += usize::from(name.to_string_lossy().starts_with(channel));
        }
        Ok(of_namespace < self.quota && of_channel < FORKS_OF_CHANNEL)
    }

    /// The trust log, from the lowest that is here on.
    fn trust_log(&self, provisioned: &Provisioned) -> Vec<Statement> {
        let log = provisioned.anchor.namespace.trust_log();
        let read = |serial| Some(self.store.get(&log, serial).ok()??.statement);
        let anchor = provisioned.anchor.head.serial.number();
        let mut below: Vec<Statement> = (1..anchor)
            .rev()
            .map_while(Serial::new)
            .map_while(read)
            .collect();
        below.reverse();
        below
            .into_iter()
            .chain((anchor..).map_while(Serial::new).map_while(read))
            .collect()
    }
}
