//! Text that a person changes in an editor.

use std::{fs, process::Command};

use anyhow::{Context, ensure};

use super::exit::Exit;

/// The editor that a person has named.
pub(super) fn named() -> Option<String> {
    ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// A text as a person has left it in an editor.
pub(super) fn changed(text: &str, prefix: &str, suffix: &str) -> anyhow::Result<String> {
    let editor = named().unwrap_or_else(|| "vi".into());
    let file = tempfile::Builder::new()
        .prefix(prefix)
        .suffix(suffix)
        .tempfile()
        .context("cannot make a file for the editor")?;
    let path = file.path().to_owned();
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    // As other programs have it: the variable may hold arguments.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program).args(words).arg(&path).status();
    let status = status.with_context(|| {
        format!("cannot run the editor {editor:?}; set EDITOR, or give the text in a file")
    })?;
    ensure!(
        status.success(),
        Exit::Refused.because(format!(
            "the editor {editor:?} ended with {status}; nothing was written"
        ))
    );
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
