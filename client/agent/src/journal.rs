//! What the agent has written down, in one file that is replaced atomically (attack 86).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tidings_client::file;
use tidings_protocol::Digest;

use crate::round::Task;

/// The ids of releases that are not tried again: that many.
const FAILED_KEPT: usize = 16;
const MAGIC: &str = "tidings-agent 1 ";

/// Is told of each place at which the power may go. Only tests do something then.
pub type Point = Arc<dyn Fn(&str) + Send + Sync>;

/// The file as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// One release a channel.
    #[serde(default)]
    pub task: BTreeMap<String, Task>,
    /// Ids of releases that have failed here, the newest last.
    #[serde(default)]
    pub failed: Vec<String>,
}

/// The file.
pub struct Journal {
    path: PathBuf,
    /// What stands in it.
    pub records: Records,
    point: Point,
}

impl Journal {
    /// Reads it, or begins a new one.
    ///
    /// # Errors
    /// If it is damaged: it is not reset by itself (attack 87).
    pub fn open(path: impl Into<PathBuf>, point: Point) -> anyhow::Result<Self> {
        let path = path.into();
        let records = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Records::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            Ok(text) => read(&text).with_context(|| {
                format!(
                    "the journal {} is damaged; move it away to begin anew",
                    path.display()
                )
            })?,
        };
        Ok(Self {
            path,
            records,
            point,
        })
    }

    /// Changes what stands in it, durably.
    ///
    /// # Errors
    /// If it cannot be written; the file before is still there then.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Records) -> T) -> io::Result<T> {
        let before = self.records.clone();
        let result = change(&mut self.records);
        if self.records != before {
            let excess = self.records.failed.len().saturating_sub(FAILED_KEPT);
            self.records.failed.drain(..excess);
            let rest = toml::to_string(&self.records).map_err(io::Error::other)?;
            let text = format!("{MAGIC}{}\n{rest}", Digest::of(rest.as_bytes()));
            replace(&self.path, text.as_bytes(), &self.point)?;
        }
        Ok(result)
    }
}

fn read(text: &str) -> anyhow::Result<Records> {
    let (first, rest) = text.split_once('\n').context("it has no first line")?;
    let sum = first
        .strip_prefix(MAGIC)
        .context("its first line is another")?;
    ensure!(
        sum == Digest::of(rest.as_bytes()).to_string(),
        "its SHA-256 is not the one in its first line"
    );
    Ok(toml::from_str(rest)?)
}

/// Replaces a file, as [`file::replace`] does.
///
/// # Errors
/// As the file system has them.
pub fn replace(path: &Path, octets: &[u8], point: &Point) -> io::Result<()> {
    file::replace_at(path, octets, 0o600, &|at| point(at))
}
