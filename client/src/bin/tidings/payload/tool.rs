//! The tools that make and apply payloads.

use std::{
    ffi::OsString,
    path::Path,
    process::{Child, Command, Stdio},
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
#[error("there is no {0} on this machine: install it, or leave its format out")]
pub(super) struct NoTool(String);

fn start(mut command: Command) -> anyhow::Result<(Child, String)> {
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

pub(super) fn run(command: Command) -> anyhow::Result<()> {
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
pub(super) fn run_measured(tool: &Command) -> anyhow::Result<(u64, bool)> {
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
pub(super) fn measure(command: &[OsString]) -> anyhow::Result<()> {
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
