//! The one place that writes to standard output and standard error: for people, or one JSON object
//! a line.

use std::{io::IsTerminal, os::fd::AsFd, sync::OnceLock, time::Duration};

use comfy_table::{Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};
use serde_json::{Map, Value, json};
use tidings_client::{Body, Statement, Verified};
use tidings_protocol::{article, trust::Trust};

use super::exit::{self, Exit};

/// How long standard error is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

static JSON: OnceLock<bool> = OnceLock::new();

/// Says once whether answers and refusals are wanted as JSON.
pub(super) fn wants_json(wanted: bool) {
    // A second time would be the same.
    let _ = JSON.set(wanted);
}

/// Whether they are.
pub(super) fn is_json() -> bool {
    JSON.get().is_some_and(|wanted| *wanted)
}

fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Text that others wrote, safe for a terminal: nothing that moves the cursor or turns the line
/// round.
fn safe(text: &str) -> String {
    text.chars()
        .map(|c| {
            if is_odd(c) && !matches!(c, '\n' | '\t') {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// A line on standard output.
pub(super) fn line(text: &str) {
    raw(format!("{}\n", safe(text)).as_bytes());
}

/// Octets on standard output as they are: a statement, a page.
pub(super) fn raw(octets: &[u8]) {
    done(write_all(std::io::stdout(), octets, None));
}

/// An answer, in one of its two forms.
pub(super) fn answer(value: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
    if is_json() {
        object(&value())
    } else {
        line(&text())
    }
}

/// One JSON object in a line of its own; what a terminal would take for more than text is escaped.
pub(super) fn object(value: &Value) {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match u32::from(c) {
            code if is_odd(c) => text.push_str(&format!("\\u{code:04x}")),
            _ => text.push(c),
        }
    }
    text.push('\n');
    raw(text.as_bytes());
}

/// Something that the user should know, and that is no result.
pub(super) fn note(text: &str) {
    // Where it cannot be said there is no one to be told so.
    let _ = write_all(
        std::io::stderr(),
        format!("tidings: {}\n", safe(text)).as_bytes(),
        Some(PATIENCE),
    );
}

/// Asks on standard error; the answer comes by standard input.
pub(super) fn prompt(text: &str) {
    let _ = write_all(std::io::stderr(), safe(text).as_bytes(), Some(PATIENCE));
}

/// Says why a command fails, and how it ends.
pub(super) fn fail(error: &anyhow::Error) -> u8 {
    let (code, word) = exit::code(error);
    let text = tidings_client::explain(error.as_ref());
    note(&text);
    if is_json() && !exit::is_told(error) {
        let requirement = exit::requirement(error).map(|requirement| requirement.number());
        object(&json!({"error": text, "exit": word, "code": code, "requirement": requirement}));
    }
    code
}

/// Standard error for the log: what cannot be written there is lost, and nothing else.
#[derive(Default)]
pub(super) struct Log;

impl std::io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        write_all(std::io::stderr(), octets, Some(PATIENCE)).map(|()| octets.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes all of it, past the buffers of the library, also where a reader has set the file to
/// answer at once (`EAGAIN`): it is waited for, if need be only so long.
fn write_all(to: impl AsFd, mut octets: &[u8], patience: Option<Duration>) -> std::io::Result<()> {
    let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
    while !octets.is_empty() {
        match rustix::io::write(&to, octets) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => octets = &octets[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if poll(&mut [PollFd::new(&to, PollFlags::OUT)], timeout.as_ref())? == 0 {
                    return Err(Errno::AGAIN.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What cannot be written ends the command: quietly where the reader has enough, as in `tidings log
/// … | head`.
fn done(written: std::io::Result<()>) {
    if let Err(error) = written {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            note(&format!("cannot write to standard output: {error}"));
        }
        std::process::exit(i32::from(Exit::Failed as u8));
    }
}

pub(super) fn signers(statement: &Statement, trust: Option<&Trust>) -> Vec<String> {
    let name = |key| {
        trust
            .and_then(|t| t.name_of(key))
            .map_or_else(|| key.to_string(), str::to_owned)
    };
    statement
        .signatures()
        .iter()
        .map(|s| name(&s.key))
        .collect()
}

/// A statement as JSON: the fixed fields by name, and every field as it is written.
pub(super) fn json(statement: &Statement, trust: Option<&Trust>) -> Value {
    let text = String::from_utf8_lossy(statement.signed_part());
    let mut fields = Map::new();
    for (name, value) in text.lines().filter_map(|l| l.split_once(": ")) {
        if let Value::Array(values) = fields.entry(name).or_insert_with(|| json!([])) {
            values.push(value.into());
        }
    }
    json!({
        "kind": statement.kind().as_str(),
        "channel": statement.channel().as_str(),
        "serial": statement.serial().number(),
        "id": statement.id().to_string(),
        "previous": statement.previous().map(|id| id.to_string()),
        "time": statement.time().to_string(),
        "trust": statement.trust().map(|t| t.number()),
        "signed_by": signers(statement, trust),
        "fields": fields,
    })
}

/// A verified statement, as JSON or as its text with a line about it.
pub(super) fn statement(statement: &Verified<Statement>, trust: Option<&Trust>) {
    if is_json() {
        return object(&json(statement, trust));
    }
    line(&format!(
        "# {} {}, signed by {}",
        statement.channel(),
        statement.id(),
        signers(statement, trust).join(", ")
    ));
    String::from_utf8_lossy(statement.signed_part())
        .lines()
        .for_each(line);
    line("");
}

/// One line about a verified statement.
pub(super) fn summary(statement: &Verified<Statement>, trust: Option<&Trust>) -> String {
    let more = match statement.body() {
        Body::Release(r) => r.summary.clone().unwrap_or_default(),
        Body::Withdraw(w) => w.reason.clone(),
        _ => String::new(),
    };
    let subject = article::subject(statement);
    let said = subject
        .strip_prefix(statement.channel().as_str())
        .unwrap_or(&subject)
        .trim_start();
    let by = signers(statement, trust).join(", ");
    format!(
        "{} {} {} {said} (by {by}) {more}",
        statement.serial(),
        statement.time(),
        statement.kind()
    )
    .trim_end()
    .to_owned()
}

/// A bar for long work, on a terminal only.
pub(super) fn progress(count: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {msg} {bar:30} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// Columns for people; on anything but a terminal, fields between tabs.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) {
    if !std::io::stdout().is_terminal() {
        rows.iter().for_each(|row| line(&row.join("\t")));
        return;
    }
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_header(header.to_vec())
        .add_rows(rows);
    line(&table.to_string());
}
