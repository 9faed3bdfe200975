//! Evidence of forks: two statements, both signed, for one place of one log (spec section 6, attack 28).
//!
//! The second is refused; both are kept in a file that `tidings verify` proves to anybody: the trust log, then the two.

use std::{fs, io, path::PathBuf};

use tidings_protocol::{Serial, Statement};

use crate::{
    limits::{FORKS, RACE_SECONDS},
    store::Store,
};

/// Where evidence is kept.
pub(crate) struct Forks {
    pub(crate) directory: PathBuf,
    pub(crate) store: Store,
}

impl Forks {
    /// Keeps a pair, once, and says so in the log. Two publishers who were quicker than they could learn of each other
    /// are no fork: the one who lost signs again.
    pub(crate) fn remember(&self, ours: &Statement, theirs: &Statement) {
        let apart = ours.time().seconds().abs_diff(theirs.time().seconds());
        if ours.previous() == theirs.previous() && apart <= RACE_SECONDS {
            return;
        }
        let (channel, serial) = (theirs.channel(), theirs.serial());
        match self.write(ours, theirs) {
            Ok(Some(path)) => tracing::error!(
                %channel, %serial, ours = %ours.id(), theirs = %theirs.id(), evidence = %path.display(),
                "a fork: two statements are signed for one place; the second was refused. Find out who has signed both, and settle it with a checkpoint"
            ),
            Ok(None) => {
                tracing::warn!(%channel, %serial, theirs = %theirs.id(), "a fork again: its evidence is kept already, or there is too much of it")
            }
            Err(error) => tracing::error!(%channel, %serial, %error, "the evidence of a fork cannot be kept"),
        }
    }

    fn write(&self, ours: &Statement, theirs: &Statement) -> io::Result<Option<PathBuf>> {
        fs::create_dir_all(&self.directory)?;
        // Named by the id, since names that came from outside are never paths (attack 46).
        let hex: String = theirs.id().octets().iter().map(|octet| format!("{octet:02x}")).collect();
        let path = self.directory.join(format!("{hex}.fork"));
        if path.exists() || fs::read_dir(&self.directory)?.count() >= FORKS {
            return Ok(None);
        }
        let mut octets = Vec::new();
        for trust in self.trust_log(theirs) {
            octets.extend_from_slice(trust.octets());
        }
        octets.extend_from_slice(ours.octets());
        octets.extend_from_slice(theirs.octets());
        let mut new = tempfile::NamedTempFile::new_in(&self.directory)?;
        io::Write::write_all(&mut new, &octets)?;
        new.persist(&path)?;
        Ok(Some(path))
    }

    /// The trust log of the namespace with the longest name that has one here.
    fn trust_log(&self, statement: &Statement) -> Vec<Statement> {
        let name = statement.channel().as_str();
        let prefixes = name.rmatch_indices('.').map(|(at, _)| &name[..at]);
        let logs = prefixes.filter_map(|prefix| format!("{prefix}.trust").parse().ok());
        for log in logs {
            let serials = (1..).map_while(Serial::new);
            let found: Vec<_> = serials.map_while(|serial| Some(self.store.get(&log, serial).ok()??.statement)).collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }
}
