//! What is said: results on standard output, progress and errors on standard error.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};
use tidings_client::terminal::{self, Program};
use zeroize::Zeroizing;

const PROGRAM: Program = Program("tidings-bench");
/// The variable that `tidings` reads too.
pub(super) const PASSPHRASE_FILE: &str = "TIDINGS_PASSPHRASE_FILE";

pub(super) fn line(text: &str) {
    PROGRAM.line(text);
}

/// A row of a table; on anything but a terminal, fields between tabs.
pub(super) fn row(what: &str, value: &str, unit: &str) {
    match io::stdout().is_terminal() {
        true => line(&format!("{what:<40} {value:>12} {unit}")),
        false => line(&format!("{what}\t{value}\t{unit}")),
    }
}

pub(super) fn raw(octets: &[u8]) {
    PROGRAM.raw(octets);
}

pub(super) fn note(text: &str) {
    PROGRAM.note(text);
}

/// A bar with a rate of things, on a terminal only.
pub(super) fn progress(count: usize, what: &'static str) -> ProgressBar {
    if !terminal::takes_sequences(&io::stderr()) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {msg} {bar:30} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// The first line of the file that the variable names, or what is typed.
pub(super) fn passphrase() -> io::Result<Zeroizing<String>> {
    let Some(file) = std::env::var_os(PASSPHRASE_FILE) else {
        return rpassword::prompt_password("Passphrase of the key: ").map(Zeroizing::new);
    };
    let text = Zeroizing::new(std::fs::read_to_string(file)?);
    Ok(Zeroizing::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}
