//! Calling a handler: a small executable of root's, with a clean environment, a bounded time and a
//! bounded answer.

use std::{
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process_group},
};

/// The code of an answer: done.
pub const DONE: u8 = 0;
/// Failed; again, with growing pauses.
pub const FAILED: u8 = 1;
/// Not with this payload.
pub const UNUSABLE: u8 = 2;
/// Not now.
pub const LATER: u8 = 75;

/// `PATH` as handlers have it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Octets of a handler's line that are used.
const LINE_OCTETS: usize = 512;
/// What a handler may print before it is ended.
const OUTPUT_OCTETS: u64 = 64 * 1024;
/// How long a verb that only looks may take; the digest of a slot is computed in it.
const LOOK: Duration = Duration::from_secs(600);
/// How long any other may.
const WORK: Duration = Duration::from_secs(3_600);
/// The longest pause between two looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a handler, or the applier, answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// [`DONE`], [`FAILED`], [`UNUSABLE`] or [`LATER`].
    pub code: u8,
    /// One line, printable.
    pub line: String,
}

impl Answer {
    /// One with this code.
    pub fn new(code: u8, line: impl Into<String>) -> Self {
        Self {
            code,
            line: printable(line.into().as_bytes()),
        }
    }
    /// Whether it is done.
    pub fn is_done(&self) -> bool {
        self.code == DONE
    }
    /// As it goes over the socket.
    pub fn write(&self) -> String {
        format!("{} {}\n", self.code, self.line)
    }
    /// From there.
    pub fn read(text: &str) -> Option<Self> {
        let (code, line) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self::new(code.parse().ok()?, line))
    }
}

/// The first line of what somebody else has written, safe to show (attack 112).
pub fn printable(octets: &[u8]) -> String {
    let first = octets
        .split(|octet| *octet == b'\n')
        .next()
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&first[..first.len().min(LINE_OCTETS)]);
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Where handlers are, and what they find there.
#[derive(Clone, Debug)]
pub struct Handlers {
    /// Those of this machine, which go before.
    pub etc: PathBuf,
    /// Those that were shipped.
    pub lib: PathBuf,
    /// `PATH` as handlers have it.
    pub path: String,
    /// How long a verb that only looks may take, and how long any other.
    pub limits: [Duration; 2],
}

/// One call.
pub struct Call<'a> {
    /// `format.d` or `apply.d`.
    pub folder: &'a str,
    /// The format or the way.
    pub name: &'a str,
    /// What is asked of it.
    pub verb: &'a str,
    /// `T_…`.
    pub environment: &'a [(String, String)],
    /// A directory of its own.
    pub work: &'a Path,
    /// The statement, which it has as standard input.
    pub statement: &'a Path,
    /// The payload, which it has as descriptor 3.
    pub payload: Option<&'a fs::File>,
}

impl Handlers {
    /// Those of this machine, and those that were shipped.
    pub fn new(etc: &Path, lib: &Path) -> Self {
        Self {
            etc: etc.into(),
            lib: lib.into(),
            path: PATH.into(),
            limits: [LOOK, WORK],
        }
    }

    /// The handler with a name; none means that it cannot be used here.
    ///
    /// # Errors
    /// If others than root, or who runs this, could write it.
    pub fn find(&self, folder: &str, name: &str) -> anyhow::Result<Option<PathBuf>> {
        for base in [&self.etc, &self.lib] {
            let path = base.join(folder).join(name);
            if path.exists() {
                check_owner(&path)?;
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Calls a handler, and waits for its end.
    ///
    /// # Errors
    /// If it is not there, could be written by others, does not end in time, or prints without end.
    pub fn call(&self, call: &Call<'_>) -> anyhow::Result<Answer> {
        let Some(program) = self.find(call.folder, call.name)? else {
            return Ok(Answer::new(
                UNUSABLE,
                format!("no {}/{} on this machine", call.folder, call.name),
            ));
        };
        // In a file and not in a pipe: nobody who holds it open keeps us waiting.
        let output =
            tempfile::tempfile().context("cannot make a file for what a handler prints")?;
        let mut command = match call.payload {
            None => Command::new(&program),
            Some(payload) => {
                // It stays open over exec, and the shell opens it anew as number 3: what was
                // verified, and from its beginning.
                fcntl_setfd(payload.as_fd(), FdFlags::empty())?;
                let mut shell = Command::new("/bin/sh");
                shell
                    .args([
                        "-c",
                        "exec 3< /proc/self/fd/\"$0\" \"$@\"",
                        &payload.as_raw_fd().to_string(),
                    ])
                    .arg(&program);
                shell
            }
        };
        command
            .arg(call.verb)
            .current_dir(call.work)
            .env_clear()
            .process_group(0);
        command
            .env("PATH", &self.path)
            .env("T_ETC", &self.etc)
            .env("T_LIB", &self.lib);
        command.envs(call.environment.iter().map(|(key, value)| (key, value)));
        command
            .stdin(fs::File::open(call.statement)?)
            .stdout(output.try_clone()?)
            .stderr(Stdio::inherit());
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let limit = self.limits[usize::from(!matches!(call.verb, "can" | "state"))];
        let code = wait(child, limit, &output)
            .with_context(|| format!("{} {}", program.display(), call.verb))?;
        Ok(Answer::new(code, printable(&first_octets(output)?)))
    }
}

fn first_octets(mut file: fs::File) -> io::Result<Vec<u8>> {
    io::Seek::rewind(&mut file)?;
    let mut octets = Vec::new();
    file.take(LINE_OCTETS as u64).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Waits for its end, and ends with it whatever it has left behind in its process group.
fn wait(mut child: Child, limit: Duration, output: &fs::File) -> anyhow::Result<u8> {
    let group = Pid::from_child(&child);
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_micros(500);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if waited >= limit || output.metadata()?.len() > OUTPUT_OCTETS {
            break None;
        }
        thread::sleep(pause);
        waited += pause;
        pause = (pause * 5 / 4).min(LOOK_AGAIN);
    };
    // There may be nobody left.
    let _ = kill_process_group(group, Signal::KILL);
    let Some(status) = status else {
        child.wait()?;
        bail!(
            "ended by the agent: it may take {} s and print {OUTPUT_OCTETS} octets",
            limit.as_secs()
        );
    };
    match status.code() {
        Some(code) => Ok(u8::try_from(code).unwrap_or(FAILED)),
        None => bail!("it was killed: {status}"),
    }
}

/// Whether nobody but root, and who runs this, can write a handler or put another in its place.
fn check_owner(path: &Path) -> anyhow::Result<()> {
    let whole = path
        .canonicalize()
        .with_context(|| format!("cannot use {}", path.display()))?;
    let directories = [path.parent(), whole.parent()];
    for path in directories.into_iter().flatten().chain([whole.as_path()]) {
        let about = fs::metadata(path)?;
        let mine = [0, rustix::process::geteuid().as_raw()].contains(&about.uid());
        ensure!(
            mine && about.mode() & 0o022 == 0,
            "{} can be written by others: a handler runs as root (`chown root`, `chmod go-w`)",
            path.display()
        );
    }
    ensure!(whole.is_file(), "{} is no file", path.display());
    Ok(())
}
