//! What payloads are made of, and builds that are compared: one, or two of one kind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::ostree::Commit;
use crate::exit::Exit;

pub(super) struct Pair<T> {
    pub(super) new: T,
    pub(super) old: Option<T>,
}

pub(super) enum Subject {
    /// Files, or block devices.
    Images(Pair<PathBuf>),
    Trees(Pair<PathBuf>),
    Commits(Pair<Commit>),
}

enum Build {
    Image(PathBuf),
    Tree(PathBuf),
    Commit(Commit),
}

impl Subject {
    pub(super) fn of(new: &Path, old: Option<&Path>) -> anyhow::Result<Self> {
        let (first, second) = (Build::of(new)?, old.map(Build::of).transpose()?);
        let kinds = (first.kind(), second.as_ref().map(Build::kind));
        Ok(match (first, second) {
            (Build::Image(new), None) => Self::Images(Pair { new, old: None }),
            (Build::Tree(new), None) => Self::Trees(Pair { new, old: None }),
            (Build::Commit(new), None) => Self::Commits(Pair { new, old: None }),
            (Build::Image(new), Some(Build::Image(old))) => Self::Images(Pair {
                new,
                old: Some(old),
            }),
            (Build::Tree(new), Some(Build::Tree(old))) => Self::Trees(Pair {
                new,
                old: Some(old),
            }),
            (Build::Commit(new), Some(Build::Commit(old))) => Self::Commits(Pair {
                new,
                old: Some(old),
            }),
            _ => {
                let (one, other) = (new.display(), old.unwrap_or(new).display());
                return Err(Exit::Usage.because(format!(
                    "{one} is {}, and {other} is {}: both must be of one kind",
                    kinds.0,
                    kinds.1.unwrap_or(kinds.0)
                )));
            }
        })
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Images(_) => IMAGE,
            Self::Trees(_) => TREE,
            Self::Commits(_) => COMMIT,
        }
    }
}

const IMAGE: &str = "an image";
const TREE: &str = "a tree";
const COMMIT: &str = "a commit";

impl Build {
    fn of(name: &Path) -> anyhow::Result<Self> {
        let about = fs::metadata(name);
        if about.is_err()
            && let Some(commit) = Commit::of(name)?
        {
            return Ok(Self::Commit(commit));
        }
        let about = about.with_context(|| format!("cannot read {}", name.display()))?;
        Ok(if about.is_dir() {
            Self::Tree(name.into())
        } else {
            Self::Image(name.into())
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Image(_) => IMAGE,
            Self::Tree(_) => TREE,
            Self::Commit(_) => COMMIT,
        }
    }
}
