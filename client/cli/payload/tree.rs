//! A tree of files as its manifest: a line for each, ended by NUL, in the order of octets. Its
//! SHA-256 is what `base` and `result` of a tree say.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::Context;
use tidings_protocol::Digest;

use super::{hash, hex};

/// What a manifest says of one file, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Below the tree, beginning with `./`.
    pub(super) path: Vec<u8>,
    /// Type, mode, owner, and what is in it.
    pub(super) about: Vec<u8>,
}

impl Entry {
    fn line(&self) -> Vec<u8> {
        [&self.about[..], b" ", &self.path, b"\0"].concat()
    }
}

/// All that is below a directory, in the order of paths.
pub(super) fn entries(root: &Path) -> anyhow::Result<Vec<Entry>> {
    let (mut all, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        let context = || format!("cannot read the tree {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let entry =
                entry_of(root, &path).with_context(|| format!("cannot read {}", path.display()))?;
            if entry.about.starts_with(b"d ") {
                directories.push(path);
            }
            all.push(entry);
        }
    }
    all.sort();
    Ok(all)
}

/// The manifest's digest.
pub(super) fn digest(entries: &[Entry]) -> Digest {
    let mut lines: Vec<Vec<u8>> = entries.iter().map(Entry::line).collect();
    lines.sort();
    Digest::of(&lines.concat())
}

fn entry_of(root: &Path, path: &Path) -> anyhow::Result<Entry> {
    let about = fs::symlink_metadata(path)?;
    let kind = about.file_type();
    let mode = match about.mode() & 0o7777 {
        0 => "0".to_owned(),
        mode => format!("0{mode:o}"),
    };
    let owned = format!("{mode} {}:{}", about.uid(), about.gid());
    let said = if kind.is_symlink() {
        let target: PathBuf = fs::read_link(path)?;
        [b"l ", target.as_os_str().as_bytes()].concat()
    } else if kind.is_file() {
        format!("f {owned} {} ", hex(&hash(path)?.1)).into_bytes()
    } else {
        let letter = match () {
            () if kind.is_dir() => 'd',
            () if kind.is_fifo() => 'p',
            () if kind.is_socket() => 's',
            () if kind.is_char_device() => 'c',
            () => 'b',
        };
        format!("{letter} {owned}").into_bytes()
    };
    let below = path.strip_prefix(root)?.as_os_str().as_bytes();
    Ok(Entry {
        path: [b"./", below].concat(),
        about: said,
    })
}
