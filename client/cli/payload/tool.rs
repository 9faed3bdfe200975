//! The tools that make and apply payloads.

use std::{
    ffi::OsString,
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};

use crate::{exit::Exit, output};

/// Octets of memory are said in these.
pub(super) const MEBIBYTE: u64 = 1 << 20;
/// How [`measure`] ends without the tool, as in a shell.
const NO_TOOL: u8 = 127;

/// An option and a path in one word, whatever octets the path has.
pub(super) fn joined(option: &str, path: &Path) -> OsString {
    let mut word = OsString::from(option);
    word.push(path);
    word
}

pub(super) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// A tool that is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no {0} on this machine: install it (Debian's package {package}), or leave its format \
     out", package = package(.0)
)]
pub(super) struct NoTool(String);

fn package(tool: &str) -> &str {
    match tool {
        "btrfs" => "btrfs-progs",
        "bspatch" => "bsdiff",
        tool => tool,
    }
}

pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    run_for_text(command).map(drop)
}

/// What a tool prints.
pub(super) fn run_for_text(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(NoTool(name).into()),
        ended => ended.with_context(|| format!("cannot start {name}"))?,
    };
    ensure!(
        output.status.success(),
        Exit::Failed.because(format!(
            "{name} has failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The most memory that a tool had, in octets, or why it has failed. The system adds up what all
/// children took, so the tool is the only child of another process.
pub(super) fn run_measured(tool: &Command) -> anyhow::Result<Result<u64, String>> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args(["payload", "measure", "--"]);
    command.arg(tool.get_program()).args(tool.get_args());
    command.stdin(Stdio::null());
    let output = command.output().context("cannot start this program")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(octets) = text.trim().parse().ok().filter(|_| output.status.success()) {
        return Ok(Ok(octets));
    }
    ensure!(
        output.status.code() != Some(i32::from(NO_TOOL)),
        NoTool(tool.get_program().to_string_lossy().into_owned())
    );
    let why = String::from_utf8_lossy(&output.stderr);
    Ok(Err(why.trim().trim_start_matches("tidings: ").to_owned()))
}

/// The same of a tool that must work.
pub(super) fn measured(tool: &Command) -> anyhow::Result<u64> {
    let memory = run_measured(tool)?.map_err(|why| Exit::Failed.because(why))?;
    Ok(memory.next_multiple_of(MEBIBYTE))
}

/// What the other process does.
pub(super) fn measure(command: &[OsString]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("which tool?")?;
    let mut tool = Command::new(program);
    tool.args(arguments);
    match run(&mut tool) {
        Err(error) if error.is::<NoTool>() => std::process::exit(NO_TOOL.into()),
        ended => ended?,
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("the system does not say it")?;
    output::line(&(usage.max_rss() * 1024).to_string());
    Ok(())
}
