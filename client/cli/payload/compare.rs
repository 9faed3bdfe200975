//! Whether two builds came to the same, and what differs if they did not.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;

use super::{
    hash,
    subject::{Pair, Subject},
    tree,
};
use crate::{exit::Exit, output};

/// Say whether two images, two trees or two commits are the same, and what differs.
#[derive(Args)]
pub(crate) struct Compare {
    /// An image, a tree, or a commit of OSTree as REPOSITORY:COMMIT
    one: PathBuf,
    /// Another of the same kind
    other: PathBuf,
}

impl Compare {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (digests, differences) = match Subject::of(&self.one, Some(&self.other))? {
            Subject::Commits(Pair {
                new: one,
                old: Some(other),
            }) => {
                let mut differences = differing(&one.entries()?, &other.entries()?);
                if one.digest != other.digest && differences.is_empty() {
                    differences.push("the trees are the same; what the commits say of them is not, as their time".into());
                }
                ([one.digest, other.digest], differences)
            }
            Subject::Trees(_) => {
                let (one, other) = (tree::entries(&self.one)?, tree::entries(&self.other)?);
                let digests = [tree::digest(&one), tree::digest(&other)];
                (digests, differing(&one, &other))
            }
            _ => {
                let digests = [hash(&self.one)?.1, hash(&self.other)?.1];
                let differs = digests[0] != digests[1];
                let first = || first_difference(&self.one, &self.other);
                (
                    digests,
                    differs.then(first).transpose()?.into_iter().collect(),
                )
            }
        };
        let same = digests[0] == digests[1];
        let [one, other] = digests.map(|digest| digest.to_string());
        if output::is_json() {
            output::object(
                &json!({"same": same, "digests": [one, other], "differences": differences}),
            );
        } else if same {
            output::line(&format!("the same: {one}"));
        } else {
            differences.iter().for_each(|line| output::line(line));
        }
        let count = differences.len();
        ensure!(
            same,
            Exit::Failed.as_told(format!("they are not the same: {count} differences"))
        );
        Ok(())
    }
}

/// A line for each path whose entries are not the same.
fn differing(one: &[tree::Entry], other: &[tree::Entry]) -> Vec<String> {
    let mut all: BTreeMap<&[u8], [Option<&[u8]>; 2]> = BTreeMap::new();
    for (at, entries) in [one, other].into_iter().enumerate() {
        for entry in entries {
            all.entry(&entry.path).or_default()[at] = Some(&entry.about);
        }
    }
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).trim_end().to_owned();
    all.into_iter()
        .filter(|(_, [one, other])| one != other)
        .map(|(path, about)| match about {
            [Some(one), None] => format!("{}: only in the first: {}", text(path), text(one)),
            [None, Some(other)] => format!("{}: only in the second: {}", text(path), text(other)),
            [one, other] => format!(
                "{}: {} in the first, {} in the second",
                text(path),
                text(one.unwrap_or_default()),
                text(other.unwrap_or_default())
            ),
        })
        .collect()
}

/// Where two files part.
fn first_difference(one: &Path, other: &Path) -> anyhow::Result<String> {
    let open = |path: &Path| {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok((
            BufReader::with_capacity(1 << 20, file).bytes(),
            path.to_owned(),
        ))
    };
    let (mut one, mut other) = (open(one)?, open(other)?);
    let mut at = 0_u64;
    loop {
        let read = |(octets, path): &mut (std::io::Bytes<BufReader<File>>, PathBuf)| {
            let next = octets.next().transpose();
            next.with_context(|| format!("cannot read {}", path.display()))
        };
        return Ok(match (read(&mut one)?, read(&mut other)?) {
            (Some(a), Some(b)) if a == b => {
                at += 1;
                continue;
            }
            (Some(a), Some(b)) => {
                format!("octet {at}: {a:#04x} in the first, {b:#04x} in the second")
            }
            (Some(_), None) => format!("the second ends after {at} octets"),
            (None, Some(_)) => format!("the first ends after {at} octets"),
            (None, None) => "they changed while they were read".into(),
        });
    }
}
