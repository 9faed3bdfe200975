//! Payloads from what runs and what is to run, each proven by applying it as a machine does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use tidings_protocol::Digest;

use super::{hash, is_tree, tree};
use crate::{exit::Exit, output};

/// Octets of memory are said in these.
const MEBIBYTE: u64 = 1 << 20;
/// How [`measure`] ends without the tool, as in a shell.
const NO_TOOL: u8 = 127;
/// A tool that refuses to apply within the memory that was measured is given twice as much, so
/// often.
const MORE_MEMORY: u32 = 6;

/// Make payloads of an image or a tree, in each format that fits, and say what each costs.
///
/// Each is applied once, as a machine does it, and what comes out is compared with NEW. The lines
/// for a release are written to DIR/payloads, for `tidings release --payload @DIR/payloads`.
#[derive(Args)]
pub(crate) struct Make {
    /// What is to run: an image, or a tree
    new: PathBuf,
    /// What runs now, for deltas: of the same kind
    #[arg(long, value_name = "OLD")]
    from: Option<PathBuf>,
    /// A new directory, for the payloads
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where that directory is served
    #[arg(long)]
    url: String,
    /// Only these; what is not there is an error then
    #[arg(long = "format", value_delimiter = ',')]
    formats: Vec<Format>,
    /// The version that OLD is
    #[arg(long, value_name = "VERSION", requires = "from")]
    from_version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Raw,
    ZstdPatch,
    Bsdiff,
    Xdelta3,
    RsyncTree,
}

/// A payload that was applied.
struct Made {
    format: Format,
    size: u64,
    /// At most so much memory was taken to apply it.
    memory: Option<u64>,
    seconds: f64,
    value: String,
}

/// What deltas lead from and to.
struct Pair<'a> {
    old: &'a Path,
    new: &'a Path,
    /// Digest and size, which a tree has not.
    base: (Digest, Option<u64>),
    result: (Digest, Option<u64>),
}

impl Make {
    pub(super) fn run(self) -> anyhow::Result<()> {
        ensure!(
            self.url.contains("://") && !self.url.contains(char::is_whitespace),
            Exit::Usage.because(format!("--url: {:?} is no URL", self.url))
        );
        let is_tree = is_tree(&self.new)?;
        if let Some(old) = &self.from {
            ensure!(
                super::is_tree(old)? == is_tree,
                Exit::Usage.because("NEW and OLD must both be images, or both be trees")
            );
        }
        let formats = self.wanted(is_tree)?;
        fs::create_dir(&self.out).with_context(|| {
            format!(
                "cannot make the directory {}; it must not exist yet",
                self.out.display()
            )
        })?;
        let mut made = Vec::new();
        for format in formats {
            match self.make(format, is_tree) {
                Ok(one) => made.push(one),
                // What was not asked for by name may be missing.
                Err(error) if self.formats.is_empty() && error.is::<NoTool>() => {
                    output::note(&error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let lines: String = made
            .iter()
            .map(|one| format!("Payload: {}\n", one.value))
            .collect();
        crate::files::write_new(&self.out.join("payloads"), lines.as_bytes())?;
        show(&made);
        Ok(())
    }

    /// The formats to make.
    fn wanted(&self, is_tree: bool) -> anyhow::Result<Vec<Format>> {
        let all = if self.formats.is_empty() {
            let fits = |format: &Format| {
                format.is_of_trees() == is_tree && (self.from.is_some() || !format.is_delta())
            };
            Format::value_variants()
                .iter()
                .copied()
                .filter(fits)
                .collect()
        } else {
            self.formats.clone()
        };
        ensure!(
            !all.is_empty(),
            Exit::Usage
                .because("a tree is announced as a delta: which tree runs now? give --from OLD")
        );
        for format in &all {
            let (name, kind) = (format.name(), if is_tree { "a tree" } else { "an image" });
            ensure!(
                format.is_of_trees() == is_tree,
                Exit::Usage.because(format!(
                    "--format {name}: NEW is {kind}, and {name} is not for it"
                ))
            );
            ensure!(
                self.from.is_some() || !format.is_delta(),
                Exit::Usage.because(format!("--format {name}: from what? give --from OLD"))
            );
        }
        Ok(all)
    }

    fn make(&self, format: Format, is_tree: bool) -> anyhow::Result<Made> {
        let began = Instant::now();
        let name = self.new.file_name().unwrap_or_default().to_string_lossy();
        ensure!(
            !name.contains(char::is_whitespace),
            Exit::Usage.because(format!("{name:?}: a URL has no blanks; rename the file"))
        );
        let name = format!("{name}.{}", format.name());
        let file = self.out.join(&name);
        let (mut memory, mut properties) = (None, String::new());
        match &self.from {
            Some(old) if format.is_delta() => {
                let pair = Pair::of(old, &self.new, is_tree)?;
                format.write(&pair, &file)?;
                memory = Some(format.prove(&pair, &file, &self.out)?);
                properties = pair.properties(memory);
                if let Some(version) = &self.from_version {
                    properties = format!(" from={version}{properties}");
                }
            }
            _ => drop(fs::copy(&self.new, &file).with_context(|| cannot_write(&file))?),
        }
        let (size, digest) = hash(&file)?;
        let url = self.url.trim_end_matches('/');
        Ok(Made {
            format,
            size,
            memory,
            seconds: began.elapsed().as_secs_f64(),
            value: format!("{} {size} {digest} {url}/{name}{properties}", format.name()),
        })
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

fn show(made: &[Made]) {
    if output::is_json() {
        for one in made {
            output::object(&json!({
                "format": one.format.name(),
                "size": one.size,
                "memory": one.memory,
                "seconds": one.seconds,
                "payload": one.value,
            }));
        }
        return;
    }
    let row = |one: &Made| {
        let memory = |octets: u64| format!("{} MiB", octets / MEBIBYTE);
        vec![
            one.format.name().to_owned(),
            one.size.to_string(),
            one.memory.map_or_else(|| "-".into(), memory),
            format!("{:.1}", one.seconds),
        ]
    };
    let header = [
        "format",
        "octets",
        "memory to apply",
        "seconds to make and apply",
    ];
    output::table(&header, made.iter().map(row).collect());
}

impl Pair<'_> {
    fn of<'a>(old: &'a Path, new: &'a Path, is_tree: bool) -> anyhow::Result<Pair<'a>> {
        let measure = |path: &Path| {
            anyhow::Ok(if is_tree {
                (tree::digest(&tree::entries(path)?), None)
            } else {
                let (size, digest) = hash(path)?;
                (digest, Some(size))
            })
        };
        let (base, result) = (measure(old)?, measure(new)?);
        Ok(Pair {
            old,
            new,
            base,
            result,
        })
    }

    fn properties(&self, memory: Option<u64>) -> String {
        let mut text = format!(" base={} result={}", self.base.0, self.result.0);
        for (name, value) in [
            ("base-size", self.base.1),
            ("result-size", self.result.1),
            ("mem", memory),
        ] {
            if let Some(value) = value {
                text.push_str(&format!(" {name}={value}"));
            }
        }
        text
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::ZstdPatch => "zstd-patch",
            Self::Bsdiff => "bsdiff",
            Self::Xdelta3 => "xdelta3",
            Self::RsyncTree => "rsync-tree",
        }
    }

    fn is_of_trees(self) -> bool {
        self == Self::RsyncTree
    }

    fn is_delta(self) -> bool {
        self != Self::Raw
    }

    /// Makes the delta; the same files give the same octets, but for rsync, which writes how long
    /// it took.
    fn write(self, pair: &Pair<'_>, to: &Path) -> anyhow::Result<()> {
        let Pair { old, new, .. } = pair;
        let mut tool;
        match self {
            Self::Raw => return Ok(()),
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
        run(tool)?;
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
    fn prove(self, pair: &Pair<'_>, delta: &Path, out: &Path) -> anyhow::Result<u64> {
        let place = tempfile::tempdir_in(out).context("there is no room to apply it")?;
        let result = place.path().join("result");
        let mut memory = 0;
        for _ in 0..MORE_MEMORY {
            let (took, worked) = run_measured(&self.applier(pair, delta, &result, memory)?)?;
            if worked {
                let digest = if self.is_of_trees() {
                    tree::digest(&tree::entries(&result)?)
                } else {
                    hash(&result)?.1
                };
                ensure!(
                    digest == pair.result.0,
                    Exit::Failed.because(format!(
                        "{}: what comes out is {digest}, and should be {}",
                        delta.display(),
                        pair.result.0
                    ))
                );
                // What holds without a limit must hold with this one.
                if memory > 0 || self != Self::ZstdPatch {
                    return Ok(memory.max(took.next_multiple_of(MEBIBYTE)));
                }
                memory = took.next_multiple_of(MEBIBYTE);
            } else {
                memory *= 2;
            }
            let _ = fs::remove_file(&result);
        }
        Err(Exit::Failed.because(format!("{} cannot be applied", delta.display())))
    }

    fn applier(
        self,
        pair: &Pair<'_>,
        delta: &Path,
        result: &Path,
        memory: u64,
    ) -> anyhow::Result<Command> {
        let mut tool;
        match self {
            Self::Raw | Self::ZstdPatch => {
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
                run(copy)?;
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

/// An option and a path in one word, whatever octets the path has.
fn joined(option: &str, path: &Path) -> std::ffi::OsString {
    let mut word = std::ffi::OsString::from(option);
    word.push(path);
    word
}

/// A tool that is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("there is no {0} on this machine: install it, or leave its format out")]
struct NoTool(String);

fn start(mut command: Command) -> anyhow::Result<(std::process::Child, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => Ok((child, name)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(NoTool(name).into()),
        Err(error) => Err(error).with_context(|| format!("cannot start {name}")),
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let (child, name) = start(command)?;
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {name}"))?;
    ensure!(
        output.status.success(),
        Exit::Failed.because(format!(
            "{name} has failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    );
    Ok(())
}

/// The most memory that a tool had, in octets, and whether it has worked. The system adds up what
/// all children took, so the tool is the only child of another process.
fn run_measured(tool: &Command) -> anyhow::Result<(u64, bool)> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args(["payload", "measure", "--"]);
    command.arg(tool.get_program()).args(tool.get_args());
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().context("cannot start this program")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(octets) = text.trim().parse().ok().filter(|_| output.status.success()) {
        return Ok((octets, true));
    }
    ensure!(
        output.status.code() != Some(i32::from(NO_TOOL)),
        NoTool(tool.get_program().to_string_lossy().into_owned())
    );
    Ok((0, false))
}

/// What the other process does.
pub(super) fn measure(command: &[std::ffi::OsString]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("which tool?")?;
    let mut tool = Command::new(program);
    tool.args(arguments);
    match run(tool) {
        Err(error) if error.is::<NoTool>() => std::process::exit(NO_TOOL.into()),
        ended => ended?,
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("the system does not say it")?;
    output::line(&(usage.max_rss() * 1024).to_string());
    Ok(())
}
