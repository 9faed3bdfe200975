//! Commits of OSTree: a static delta in one file, and what differs between two.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use tidings_protocol::Digest;

use super::{
    file, hex,
    make::Applied,
    subject::Pair,
    tool::{joined, measured, run, run_for_text},
    tree::Entry,
};
use crate::exit::Exit;

/// `REPOSITORY:COMMIT`.
pub(super) struct Commit {
    repository: PathBuf,
    pub(super) digest: Digest,
}

impl Commit {
    /// None where no repository stands before a colon. What follows may be a ref, with colons of
    /// its own.
    pub(super) fn of(name: &Path) -> anyhow::Result<Option<Self>> {
        let octets = name.as_os_str().as_bytes();
        let colons = (0..octets.len()).filter(|at| octets[*at] == b':');
        let mut splits = colons.map(|at| (file(&octets[..at]), file(&octets[at + 1..])));
        let is_repository =
            |path: &Path| path.join("config").is_file() && path.join("objects").is_dir();
        let Some((repository, reference)) = splits.find(|split| is_repository(split.0)) else {
            return Ok(None);
        };
        let text = run_for_text(ostree(repository, &["rev-parse"]).arg(reference))?;
        let digest = format!("sha256:{}", text.trim()).parse::<Digest>();
        let digest =
            digest.with_context(|| format!("ostree says {text:?} of {}", name.display()))?;
        let repository = repository.to_owned();
        Ok(Some(Self { repository, digest }))
    }

    pub(super) fn checksum(&self) -> String {
        hex(&self.digest)
    }

    fn ostree(&self, arguments: &[&str]) -> Command {
        ostree(&self.repository, arguments)
    }

    /// All its files. A directory is told by what it is, and not by what is in it.
    pub(super) fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let text = run_for_text(self.ostree(&["ls", "-R", "-C"]).arg(self.checksum()))?;
        let entry = |line: &str| {
            let (about, path) = line.split_at(line.find(" /")?);
            let mut words: Vec<&str> = about.split_whitespace().collect();
            if about.starts_with('d') && words.len() > 4 {
                words.remove(4);
            }
            let (path, about) = (path.trim_start().into(), words.join(" ").into_bytes());
            Some(Entry { path, about })
        };
        Ok(text.lines().filter_map(entry).collect())
    }
}

fn ostree(repository: &Path, arguments: &[&str]) -> Command {
    let mut tool = Command::new("ostree");
    tool.arg(joined("--repo=", repository)).args(arguments);
    tool
}

impl Pair<Commit> {
    /// ostree makes a delta within one repository.
    pub(super) fn lie_together(&self) -> anyhow::Result<()> {
        let Some(old) = &self.old else { return Ok(()) };
        let [there, here] = [&old.repository, &self.new.repository];
        ensure!(
            fs::canonicalize(there).ok() == fs::canonicalize(here).ok(),
            Exit::Usage.because(format!(
                "NEW and OLD must lie in one repository: `ostree --repo={} pull-local {} {}` \
                 brings OLD there",
                here.display(),
                there.display(),
                old.checksum()
            ))
        );
        Ok(())
    }

    /// Makes the delta, and applies it to a repository that has OLD alone.
    pub(super) fn make(&self, to: &Path) -> anyhow::Result<Applied> {
        let (commit, old) = (self.new.checksum(), self.old.as_ref().map(Commit::checksum));
        let from = old.as_ref().map(|old| format!("--from={old}"));
        run(self
            .new
            .ostree(&[
                "static-delta",
                "generate",
                "--inline",
                "--min-fallback-size=0",
            ])
            .arg(from.unwrap_or_else(|| "--empty".into()))
            .arg(format!("--to={commit}"))
            .arg(joined("--filename=", to)))?;
        let out = to.parent().unwrap_or(Path::new("."));
        let place = tempfile::tempdir_in(out).context("there is no room to apply it")?;
        // As a machine's, but that owners are written down: not everybody may give files away.
        run(&mut ostree(place.path(), &["init", "--mode=bare-user"]))?;
        if let Some(old) = &old {
            let repository = self.new.repository.as_os_str();
            run(ostree(place.path(), &["pull-local"])
                .arg(repository)
                .arg(old))?;
        }
        let memory = measured(ostree(place.path(), &["static-delta", "apply-offline"]).arg(to))?;
        run(&mut ostree(place.path(), &["fsck", "--quiet", &commit]))?;
        let from = old.map(|old| format!(" from={old}")).unwrap_or_default();
        let properties = format!("{from} result={} mem={memory}", self.new.digest);
        Ok(Applied { memory, properties })
    }
}
