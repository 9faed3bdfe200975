//! A payload's octets: taken into a place of the applier's own, verified, and laid beside what
//! runs.

use std::{
    fs,
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, ensure};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use tidings_client::Serial;
use tidings_protocol::{Digest, statement::Payload};

use super::{Applier, Case, hex};
use crate::{
    handler::{Answer, UNUSABLE},
    journal::replace,
};

impl Applier {
    /// Brings the payload into a place of root's own, verified there, and lays what it makes beside
    /// what runs.
    pub(super) fn stage(&mut self, case: &Case) -> anyhow::Result<Answer> {
        self.forget_kept(case)?;
        fs::create_dir_all(&case.place)?;
        replace(
            &case.place.join("statement"),
            case.statement.octets(),
            &self.point,
        )?;
        let theirs = self
            .config
            .paths
            .agent
            .join("payload")
            .join(hex(&case.payload.digest));
        let own = case.place.join("payload");
        let copied = self.copy(&theirs, &own, &case.payload);
        let answer = match copied {
            Ok(Some(payload)) => self.format(case, "stage", Some(&payload)),
            Ok(None) => Ok(Answer::new(
                UNUSABLE,
                "the payload is not the one that was signed",
            )),
            Err(error) => Err(error),
        };
        fs::remove_file(&own).or_else(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        answer
    }

    /// What was kept earlier needs its place no more.
    fn forget_kept(&self, case: &Case) -> anyhow::Result<()> {
        let applied = self
            .state
            .view()
            .applied(&case.request.channel)
            .map(|applied| applied.serial());
        let Some(of_channel) = case.place.parent().filter(|directory| directory.exists()) else {
            return Ok(());
        };
        for entry in fs::read_dir(of_channel)? {
            let path = entry?.path();
            let serial = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<Serial>().ok());
            if serial <= applied && path != case.place {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// A copy that nobody else can change, read through the descriptor that was verified (attack
    /// 54); none if it is another.
    fn copy(
        &self,
        theirs: &Path,
        own: &Path,
        payload: &Payload,
    ) -> anyhow::Result<Option<fs::File>> {
        let mut from = open_theirs(theirs)?.take(payload.size.saturating_add(1));
        let mut to = fs::File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(own)?;
        let (mut hash, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 1 << 18]);
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            size += count as u64;
            to.write_all(&buffer[..count]).with_context(|| {
                format!(
                    "no room for {} octets in {}",
                    payload.size,
                    self.config.paths.applier.display()
                )
            })?;
        }
        (self.point)("the payload is copied");
        to.rewind()?;
        let same =
            size == payload.size && Digest::from_octets(hash.finalize().into()) == payload.digest;
        Ok(same.then_some(to))
    }
}

/// What lies in the agent's directory is opened as what anybody may have put there: no link, no
/// pipe, no device.
pub(super) fn open_theirs(path: &Path) -> anyhow::Result<fs::File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = fs::File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(file.metadata()?.is_file(), "{} is no file", path.display());
    Ok(file)
}
