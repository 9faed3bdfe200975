//! Deltas of images and trees: made, and applied as the handlers of machines do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use tidings_protocol::Digest;

use super::{
    hash,
    make::{Applied, unchanged},
    subject::Pair,
    tool::{MEBIBYTE, cannot_write, joined, run, run_measured},
    tree,
};
use crate::exit::Exit;

/// A tool that refuses to apply within the memory that was measured is given twice as much, so
/// often.
const MORE_MEMORY: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delta {
    ZstdPatch,
    Bsdiff,
    Xdelta3,
    RsyncTree,
}

/// What deltas lead from and to.
struct Ends<'a> {
    old: &'a Path,
    new: &'a Path,
    /// Digest and size, which a tree has not.
    base: (Digest, Option<u64>),
    result: (Digest, Option<u64>),
}

impl Ends<'_> {
    fn of<'a>(old: &'a Path, new: &'a Path, is_tree: bool) -> anyhow::Result<Ends<'a>> {
        let measure = |path: &Path| {
            anyhow::Ok(if is_tree {
                (tree::digest(&tree::entries(path)?), None)
            } else {
                let (size, digest) = hash(path)?;
                (digest, Some(size))
            })
        };
        let (base, result) = (measure(old)?, measure(new)?);
        Ok(Ends {
            old,
            new,
            base,
            result,
        })
    }

    fn properties(&self, memory: u64) -> String {
        let mut text = format!(" base={} result={}", self.base.0, self.result.0);
        for (name, value) in [
            ("base-size", self.base.1),
            ("result-size", self.result.1),
            ("mem", Some(memory)),
        ] {
            if let Some(value) = value {
                text.push_str(&format!(" {name}={value}"));
            }
        }
        text
    }
}

impl Delta {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ZstdPatch => "zstd-patch",
            Self::Bsdiff => "bsdiff",
            Self::Xdelta3 => "xdelta3",
            Self::RsyncTree => "rsync-tree",
        }
    }

    pub(super) fn is_of_trees(self) -> bool {
        self == Self::RsyncTree
    }

    /// Makes the delta, and applies it once.
    pub(super) fn make(self, pair: &Pair<PathBuf>, to: &Path) -> anyhow::Result<Applied> {
        let old = pair.old.as_deref().context("from what?")?;
        let ends = Ends::of(old, &pair.new, self.is_of_trees())?;
        self.write(&ends, to)?;
        let memory = self.prove(&ends, to)?;
        let properties = ends.properties(memory);
        Ok(Applied { memory, properties })
    }

    /// Makes the delta; the same files give the same octets, but for rsync, which writes how long
    /// it took.
    fn write(self, pair: &Ends<'_>, to: &Path) -> anyhow::Result<()> {
        let Ends { old, new, .. } = pair;
        let mut tool;
        match self {
            Self::ZstdPatch => {
                tool = Command::new("zstd");
                tool.args(["-q", "-19", "--long=27"])
                    .arg(joined("--patch-from=", old));
                tool.arg(new).arg("-o").arg(to);
            }
            Self::Bsdiff => {
                tool = Command::new("bsdiff");
                tool.args([old, new, to]);
            }
            Self::Xdelta3 => {
                // Without the names of the files, which differ from one build to the next.
                tool = Command::new("xdelta3");
                tool.args(["-q", "-e", "-9", "-A", "-s"])
                    .args([old, new, to]);
            }
            Self::RsyncTree => {
                // With a seed, which is the time otherwise.
                tool = Command::new("rsync");
                tool.args([
                    "-aHAX",
                    "--delete",
                    "--checksum",
                    "--no-whole-file",
                    "--checksum-seed=1",
                ]);
                tool.arg(joined("--only-write-batch=", to));
                // With a slash: what is in the tree, not the tree.
                tool.args([new.join(""), old.join("")]);
            }
        }
        run(&mut tool)?;
        if self == Self::RsyncTree {
            let mut script = to.as_os_str().to_owned();
            script.push(".sh");
            let script = PathBuf::from(script);
            fs::remove_file(&script).with_context(|| cannot_write(&script))?;
        }
        Ok(())
    }

    /// Applies the delta as the handlers of machines do, compares what comes out, and gives the
    /// octets of memory that it took.
    fn prove(self, pair: &Ends<'_>, delta: &Path) -> anyhow::Result<u64> {
        let out = delta.parent().unwrap_or(Path::new("."));
        let place = tempfile::tempdir_in(out).context("there is no room to apply it")?;
        let result = place.path().join("result");
        let (mut memory, mut why) = (0, String::new());
        for _ in 0..MORE_MEMORY {
            match run_measured(&self.applier(pair, delta, &result, memory)?)? {
                Ok(took) => {
                    self.check(pair, delta, &result)?;
                    let took = took.next_multiple_of(MEBIBYTE);
                    // What holds without a limit must hold with this one.
                    if memory > 0 || self != Self::ZstdPatch {
                        return Ok(memory.max(took));
                    }
                    memory = took;
                }
                Err(said) => {
                    memory *= 2;
                    why = said;
                }
            }
            let _ = fs::remove_file(&result);
        }
        let shown = delta.display();
        Err(Exit::Failed.because(format!("{shown} cannot be applied: {why}")))
    }

    fn check(self, pair: &Ends<'_>, delta: &Path, result: &Path) -> anyhow::Result<()> {
        let found = if self.is_of_trees() {
            tree::digest(&tree::entries(result)?)
        } else {
            hash(result)?.1
        };
        unchanged(delta, found, pair.result.0)
    }

    fn applier(
        self,
        pair: &Ends<'_>,
        delta: &Path,
        result: &Path,
        memory: u64,
    ) -> anyhow::Result<Command> {
        let mut tool;
        match self {
            Self::ZstdPatch => {
                let mebibytes = match memory / MEBIBYTE {
                    0 => 2_048,
                    some => some,
                };
                tool = Command::new("zstd");
                tool.args(["-q", "-d", "--long=27"])
                    .arg(format!("-M{mebibytes}MB"));
                tool.arg(joined("--patch-from=", pair.old))
                    .arg(delta)
                    .arg("-o")
                    .arg(result);
            }
            Self::Bsdiff => {
                tool = Command::new("bspatch");
                tool.args([pair.old, result, delta]);
            }
            Self::Xdelta3 => {
                tool = Command::new("xdelta3");
                tool.args(["-q", "-d", "-s"])
                    .args([pair.old, delta, result]);
            }
            Self::RsyncTree => {
                let mut copy = Command::new("cp");
                copy.args(["-a", "--reflink=auto", "--"])
                    .args([pair.old, result]);
                run(&mut copy)?;
                tool = Command::new("rsync");
                tool.args([
                    "-aHAX",
                    "--delete",
                    "--checksum",
                    "--inplace",
                    "--no-whole-file",
                ]);
                tool.arg(joined("--read-batch=", delta))
                    .arg(result.join(""));
            }
        }
        Ok(tool)
    }
}
