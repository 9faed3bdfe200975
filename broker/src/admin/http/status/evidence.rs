//! The files of evidence: which there are, and what is in one (attack 28).

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use tidings_protocol::{Channel, Timestamp};

use crate::{
    limits::{STATUS_EVIDENCE, STATUS_EVIDENCE_OCTETS},
    log::{forks, logs::Log},
};

/// What a file may be called: digits in hex, and what it is evidence of.
pub(in crate::admin::http) const KINDS: [&str; 3] = ["fork", "race", "lost"];

/// One file.
pub(in crate::admin::http) struct Evidence {
    pub(super) file: String,
    pub(in crate::admin::http) kind: &'static str,
    /// None if the channel is not here any more.
    pub(super) channel: Option<Channel>,
    pub(super) octets: u64,
    pub(super) time: Timestamp,
}

fn kind(file: &str) -> Option<&'static str> {
    let (name, extension) = file.split_once('.')?;
    let is_name = |octet: u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f' | b'-');
    let kind = KINDS.into_iter().find(|kind| *kind == extension)?;
    (!name.is_empty() && name.bytes().all(is_name)).then_some(kind)
}

/// The newest files; a directory that cannot be read has none.
pub(super) fn list(data_dir: &Path, logs: &[Arc<Log>]) -> Vec<Evidence> {
    let entries = fs::read_dir(data_dir.join(forks::DIRECTORY));
    let one = |entry: fs::DirEntry| {
        let (file, about) = (entry.file_name().into_string().ok()?, entry.metadata());
        let about = about.ok().filter(fs::Metadata::is_file)?;
        let since = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Evidence {
            kind: kind(&file)?,
            file,
            channel: None,
            octets: about.len(),
            time: Timestamp::from_seconds(since.as_secs()),
        })
    };
    let mut all: Vec<Evidence> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(one)
        .collect();
    all.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.file.cmp(&b.file)));
    if !all.is_empty() {
        // Names of files are hashes of the channels' names.
        let named = |log: &Arc<Log>| (forks::channel_hash(&log.channel), log.channel.clone());
        let names: HashMap<String, Channel> = logs.iter().map(named).collect();
        for one in &mut all {
            let hash = one.file.split('-').nth(1);
            one.channel = hash.and_then(|hash| names.get(hash)).cloned();
        }
    }
    all
}

/// As many of them as are shown at once.
pub(super) fn shown(all: &[Evidence]) -> &[Evidence] {
    &all[..all.len().min(STATUS_EVIDENCE)]
}

/// What is in a file; nothing of any other name.
pub(in crate::admin::http) fn read(data_dir: &Path, file: &str) -> io::Result<Option<Vec<u8>>> {
    if kind(file).is_none() {
        return Ok(None);
    }
    let path: PathBuf = data_dir.join(forks::DIRECTORY).join(file);
    match fs::symlink_metadata(&path) {
        Ok(about) if about.is_file() && about.len() <= STATUS_EVIDENCE_OCTETS => {
            fs::read(path).map(Some)
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_46_a_file_is_read_only_by_a_name_that_we_give() {
        let directory = tempfile::tempdir().unwrap();
        let forks = directory.path().join("forks");
        fs::create_dir(&forks).unwrap();
        fs::write(directory.path().join("secret.fork"), "secret").unwrap();
        fs::write(forks.join("00-11-22.fork"), "evidence").unwrap();
        std::os::unix::fs::symlink("../secret.fork", forks.join("33.fork")).unwrap();
        let read = |file| read(directory.path(), file).unwrap();
        assert_eq!(read("00-11-22.fork").unwrap(), b"evidence");
        for file in [
            "../secret.fork",
            "33.fork",
            "44.fork",
            ".fork",
            "00-11-22.fork.fork",
            "00-11-22",
            "",
            "..",
        ] {
            assert_eq!(read(file), None, "{file}");
        }
    }
}
