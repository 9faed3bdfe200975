//! Streams of btrfs: a sealed subvolume, whole or on top of another one.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use rustix::{
    fs::{Access, access, statfs},
    io::Errno,
    process::geteuid,
};
use tempfile::TempDir;

use super::{
    make::{Applied, unchanged},
    subject::Pair,
    tool::{measured, run, run_for_text},
    tree,
};
/// What a machine calls the tree that it receives.
const NAME: &str = "root";
/// `BTRFS_SUPER_MAGIC`, and `BTRFS_FIRST_FREE_OBJECTID`: the inode that a subvolume begins with.
const MAGIC: i128 = 0x9123_683e;
const FIRST_INODE: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Plain,
    Zstd,
}

/// Why a tree cannot be sent, and what to do.
pub(super) fn misfit(pair: &Pair<PathBuf>) -> Option<String> {
    let (new, old) = (&pair.new, pair.old.as_deref());
    let unsealed = |tree: &Path| {
        let shown = tree.display();
        if !is_subvolume(tree) {
            return Some(format!(
                "{shown} is no subvolume of btrfs: copy it into one that `btrfs subvolume create` \
                 has made, and send a snapshot of that (`btrfs subvolume snapshot -r`)"
            ));
        }
        // Where a subvolume can be written, root may.
        (access(tree, Access::WRITE_OK) != Err(Errno::ROFS)).then(|| {
            format!(
                "{shown} is not read-only: send a snapshot of it, `btrfs subvolume snapshot -r \
                 {shown} DIR/{NAME}`"
            )
        })
    };
    let misnamed = || {
        let name = fs::canonicalize(new).ok()?.file_name()?.to_owned();
        (name != NAME).then(|| {
            format!(
                "the stream would be called {}, and machines look for {NAME}: send a snapshot of \
                 that name, `btrfs subvolume snapshot -r {} DIR/{NAME}`",
                name.display(),
                new.display()
            )
        })
    };
    let powerless = || {
        (!geteuid().is_root()).then(|| "btrfs sends and receives for root alone; be root".into())
    };
    unsealed(new)
        .or_else(misnamed)
        .or_else(|| old.and_then(unsealed))
        .or_else(powerless)
}

fn is_subvolume(tree: &Path) -> bool {
    statfs(tree).is_ok_and(|about| i128::from(about.f_type) == MAGIC)
        && fs::metadata(tree).is_ok_and(|about| about.ino() == FIRST_INODE)
}

impl Stream {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "btrfs-send",
            Self::Zstd => "btrfs-send+zstd",
        }
    }

    /// Makes the stream, and receives it once: on the file system that it comes from, where its
    /// parent is, into a subvolume that is removed again.
    pub(super) fn make(self, pair: &Pair<PathBuf>, to: &Path) -> anyhow::Result<Applied> {
        let (new, old) = (&pair.new, &pair.old);
        let result = tree::digest(&tree::entries(new)?);
        let mut properties = String::new();
        let mut send = Command::new("btrfs");
        send.args(["-q", "send"]);
        if let Some(old) = old {
            properties = format!(" parent={}", uuid(old)?);
            send.arg("-p").arg(old);
        }
        properties.push_str(&format!(" result={result}"));
        let place = Received::beside(new)?;
        let plain = place.0.path().join("stream");
        let stream: &Path = if self == Self::Zstd { &plain } else { to };
        run(send.arg("-f").arg(stream).arg(new))?;
        let mut memory = 0;
        if self == Self::Zstd {
            let size = fs::metadata(&plain).context("there is no stream")?.len();
            properties.push_str(&format!(" result-size={size}"));
            run(&mut zstd(&["-19"], &plain, to))?;
            // A machine has both at work at once.
            memory = measured(&zstd(&["-d", "-f"], to, &plain))?;
        }
        memory += place.receive(stream)?;
        unchanged(to, tree::digest(&tree::entries(&place.tree())?), result)?;
        properties.push_str(&format!(" mem={memory}"));
        Ok(Applied { memory, properties })
    }
}

fn zstd(options: &[&str], from: &Path, to: &Path) -> Command {
    let mut tool = Command::new("zstd");
    tool.arg("-q").args(options).arg(from).arg("-o").arg(to);
    tool
}

/// How machines know a subvolume: by the UUID of the first that was sent.
fn uuid(subvolume: &Path) -> anyhow::Result<String> {
    let mut show = Command::new("btrfs");
    let text = run_for_text(show.args(["subvolume", "show"]).arg(subvolume))?;
    let value = |name: &str| {
        let mut values = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(name));
        values.next().map(str::trim).filter(|value| *value != "-")
    };
    let uuid = value("Received UUID:").or_else(|| value("UUID:"));
    let uuid = uuid.with_context(|| format!("btrfs says no UUID of {}", subvolume.display()))?;
    Ok(uuid.to_owned())
}

/// A directory with what was received, which is sealed and not removed as files are.
struct Received(TempDir);

impl Received {
    fn beside(tree: &Path) -> anyhow::Result<Self> {
        let place = fs::canonicalize(tree).ok();
        let parent = place.as_deref().and_then(Path::parent);
        let parent = parent.with_context(|| format!("{} lies nowhere", tree.display()))?;
        let place = tempfile::tempdir_in(parent);
        let place = place.with_context(|| format!("cannot receive it in {}", parent.display()))?;
        Ok(Self(place))
    }

    fn tree(&self) -> PathBuf {
        self.0.path().join(NAME)
    }

    fn receive(&self, stream: &Path) -> anyhow::Result<u64> {
        let mut tool = Command::new("btrfs");
        tool.args(["-q", "receive", "-e", "-f"]).arg(stream);
        measured(tool.arg(self.0.path()))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let mut delete = Command::new("btrfs");
        // Where nothing was received, there is nothing to delete.
        let _ = run(delete.args(["-q", "subvolume", "delete"]).arg(self.tree()));
    }
}
