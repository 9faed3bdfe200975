//! Completions: the shell asks this command, which knows its own arguments and the channels that
//! were met on this machine. It asks no broker.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::Shells,
};
use tidings_client::Channel;

use super::{Arguments, output, publishing};

/// By this variable the shell says that it asks for completions, and which shell it is.
const ASKED: &str = "TIDINGS_COMPLETE";
/// A larger state file is not read while somebody waits for a completion.
const STATE_OCTETS: u64 = 16 * 1024 * 1024;

/// Answers a shell that asks, and ends then.
pub(super) fn answer() {
    CompleteEnv::with_factory(|| with_channels(Arguments::command()))
        .var(ASKED)
        .complete();
}

/// What a shell is to read once.
pub(super) fn print(shell: Shell) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let shell = shells.completer(&name).context("no such shell")?;
    let mut text = Vec::new();
    shell.write_registration(ASKED, "tidings", "tidings", "tidings", &mut text)?;
    output::raw(&text);
    Ok(())
}

fn with_channels(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_id().as_str() {
        "channel" | "channels" => arg.add(ArgValueCandidates::new(candidates)),
        _ => arg,
    });
    command.mut_subcommands(with_channels)
}

fn candidates() -> Vec<CompletionCandidate> {
    let words: Vec<_> = std::env::args_os().collect();
    let given = |option: &str, variable: &str| {
        let after = words.windows(2).find(|pair| pair[0] == OsStr::new(option));
        let joined = words
            .iter()
            .find_map(|word| word.to_str()?.strip_prefix(option)?.strip_prefix('='));
        let value = after.map(|pair| PathBuf::from(&pair[1]));
        value
            .or_else(|| joined.map(PathBuf::from))
            .or_else(|| std::env::var_os(variable).map(PathBuf::from))
    };
    let mut found = BTreeSet::new();
    if let Some(state) = given("--state", "TIDINGS_STATE") {
        found.extend(in_state(&state));
    }
    let outbox = given("--outbox", "TIDINGS_OUTBOX");
    for directory in outbox.into_iter().chain(publishing::outboxes()) {
        found.extend(in_outbox(&directory));
    }
    found
        .into_iter()
        .map(|channel| CompletionCandidate::new(channel.to_string()))
        .collect()
}

/// The channels that a device has met.
fn in_state(path: &Path) -> Vec<Channel> {
    let small = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= STATE_OCTETS);
    let text = small.then(|| fs::read_to_string(path).ok()).flatten();
    let state: Option<toml::Table> = text.and_then(|text| text.parse().ok());
    let channels = state.and_then(|state| state.get("channel")?.as_array().cloned());
    let name = |channel: toml::Value| channel.get("name")?.as_str()?.parse().ok();
    channels.into_iter().flatten().filter_map(name).collect()
}

/// The channels that were published to from here: each has its lock there.
fn in_outbox(directory: &Path) -> Vec<Channel> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| entry.path().file_stem()?.to_str()?.parse().ok();
    entries.filter_map(name).collect()
}
