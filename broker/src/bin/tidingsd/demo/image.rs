//! Two versions of a small root-file-system image, and a delta of changed blocks between them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use tidings_protocol::{Digest, statement::Payload};

const BLOCK: usize = 4096;
const BLOCKS: usize = 256;

pub(super) struct Images {
    pub(super) first: Payload,
    pub(super) second: Payload,
    pub(super) delta: Payload,
}

/// Blocks that look like files: a name, then lines that differ from block to block.
fn content(version: &str, changed: &[usize]) -> Vec<u8> {
    let block = |index: usize| {
        let edition = if changed.contains(&index) {
            version
        } else {
            "1.0"
        };
        let line = format!("/usr/lib/file{index:03} of edition {edition}\n");
        line.bytes().cycle().take(BLOCK).collect::<Vec<u8>>()
    };
    (0..BLOCKS).flat_map(block).collect()
}

fn announce(format: &str, path: &Path, octets: &[u8]) -> anyhow::Result<Payload> {
    fs::write(path, octets).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Payload {
        format: format.into(),
        size: octets.len() as u64,
        digest: Digest::of(octets),
        url: format!("file://{}", path.display()),
        from: None,
        base: None,
        result: None,
        mem: None,
        more: vec![],
    })
}

pub(super) fn make(directory: &Path) -> anyhow::Result<Images> {
    let changed = [3, 77, 200];
    let (old, new) = (content("1.0", &[]), content("1.1", &changed));
    let mut delta = Vec::new();
    for index in changed {
        delta.extend_from_slice(&u32::try_from(index)?.to_be_bytes());
        delta.extend_from_slice(&new[index * BLOCK..][..BLOCK]);
    }
    let first = announce("raw", &directory.join("root-1.0.img"), &old)?;
    let second = announce("raw", &directory.join("root-1.1.img"), &new)?;
    let bare = announce("blocks", &directory.join("root-1.0-1.1.delta"), &delta)?;
    let delta = Payload {
        from: Some("1.0".into()),
        base: Some(first.digest),
        result: Some(second.digest),
        ..bare
    };
    Ok(Images {
        first,
        second,
        delta,
    })
}

/// An image of which every block is of this version.
pub(super) fn whole(directory: &Path, version: &str) -> anyhow::Result<Payload> {
    let all: Vec<usize> = (0..BLOCKS).collect();
    let path = directory.join(format!("system-{version}.img"));
    announce("raw", &path, &content(version, &all))
}

fn path(payload: &Payload) -> anyhow::Result<PathBuf> {
    Ok(payload
        .url
        .strip_prefix("file://")
        .context("a payload of the demonstration is a file")?
        .into())
}

/// The file is what was signed.
pub(super) fn check(payload: &Payload) -> anyhow::Result<Vec<u8>> {
    let octets = fs::read(path(payload)?)?;
    ensure!(
        octets.len() as u64 == payload.size && Digest::of(&octets) == payload.digest,
        "{} is not what was signed",
        payload.url
    );
    Ok(octets)
}

/// The delta, applied to its base, gives its result.
pub(super) fn apply(images: &Images) -> anyhow::Result<usize> {
    let mut image = check(&images.first)?;
    ensure!(
        images.delta.base == Some(Digest::of(&image)),
        "the delta is for another base"
    );
    for change in check(&images.delta)?.chunks_exact(4 + BLOCK) {
        let (index, block) = change.split_first_chunk::<4>().context("a short delta")?;
        let at = usize::try_from(u32::from_be_bytes(*index))? * BLOCK;
        image
            .get_mut(at..at + BLOCK)
            .context("a block outside the image")?
            .copy_from_slice(block);
    }
    ensure!(
        images.delta.result == Some(Digest::of(&image)),
        "the delta gives something else"
    );
    Ok(image.len())
}
