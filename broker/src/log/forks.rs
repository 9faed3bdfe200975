//! Evidence: two statements, both proven, for one place of one log (attack 28), and what a log has
//! lost to a checkpoint or a beat.
//!
//! A file is what `tidings verify` proves to anybody: the trust log, then the statements. Each
//! namespace has its own quota, and each channel a part of it, so that nobody uses up what others
//! need (attack 114).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidings_protocol::{Channel, Serial, Statement, StatementId, bundle, trust::Settled};

use crate::{
    limits::{FORK_OCTETS, FORKS_OF_CHANNEL},
    log::{
        namespaces::{Namespaces, Provisioned},
        store::Store,
    },
};

/// Where evidence is kept, below the data directory.
pub(crate) const DIRECTORY: &str = "forks";

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Hashes of names, since names that came from outside are never paths (attack 46).
fn hash(name: &str) -> String {
    hex(&StatementId::of(name.as_bytes()).octets()[..4])
}

/// What stands for a channel in the name of a file, between the first dash and the second.
pub(crate) fn channel_hash(channel: &Channel) -> String {
    hash(channel.as_str())
}

/// The channels of which there is evidence of a fork, and the highest serial of each.
#[derive(Clone, Default)]
pub(crate) struct Forked(Arc<Mutex<BTreeMap<Channel, Serial>>>);

impl Forked {
    /// What the files say. One that cannot be read is evidence of nothing, and is left alone.
    fn read(directory: &Path) -> Self {
        let forked = Self::default();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "fork") {
                continue;
            }
            let read = fs::read(&path).map(|octets| bundle::parse(&octets));
            match read {
                Ok(Ok(statements)) => statements.last().into_iter().for_each(|last| {
                    forked.add(last.channel(), last.serial());
                }),
                _ => {
                    tracing::warn!(file = %path.display(), "this evidence of a fork cannot be read")
                }
            }
        }
        forked
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Channel, Serial>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, channel: &Channel, serial: Serial) {
        let mut all = self.all();
        let highest = all.entry(channel.clone()).or_insert(serial);
        *highest = serial.max(*highest);
    }

    /// The channels whose fork no checkpoint has settled.
    pub(crate) fn unsettled(&self, namespaces: &Namespaces) -> Vec<Channel> {
        let is_settled = |channel: &Channel, serial: &Serial| {
            let trust = namespaces.trust(channel);
            trust.is_some_and(|trust| {
                matches!(trust.checkpoint(channel), Settled::At(head) if head.serial >= *serial)
            })
        };
        let all = self.all();
        let open = all
            .iter()
            .filter(|(channel, serial)| !is_settled(channel, serial));
        open.map(|(channel, _)| channel.clone()).collect()
    }
}

/// Where evidence is kept.
pub(crate) struct Forks {
    pub(crate) directory: PathBuf,
    store: Store,
    /// Files of each namespace.
    quota: usize,
    pub(crate) forked: Forked,
}

impl Forks {
    pub(crate) fn open(directory: PathBuf, store: Store, quota: usize) -> Self {
        Self {
            forked: Forked::read(&directory),
            directory,
            store,
            quota,
        }
    }

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
        if !is_race {
            self.forked.add(channel, serial);
        }
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
        let namespace = format!("{}-", hash(provisioned.anchor.namespace.as_str()));
        let channel = format!("{namespace}{}-", channel_hash(named.channel()));
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
