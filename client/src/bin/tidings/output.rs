//! What goes to standard output: for people, or one JSON object a line.
#![allow(clippy::print_stdout)]

use std::io::{IsTerminal, Write};

use comfy_table::{Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tidings_client::{Body, Statement, Verified};
use tidings_protocol::{article, trust::Trust};

/// Text that a publisher wrote, safe for a terminal: nothing that moves the cursor or turns the line round.
pub(super) fn safe(text: &str) -> String {
    let odd = |c: char| c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if odd(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A line on standard output.
pub(super) fn line(text: &str) {
    done(writeln!(std::io::stdout(), "{text}"));
}

/// Something that the user should know, and that is no result.
pub(super) fn note(text: &str) {
    eprintln!("tidings: {}", safe(text));
}

/// Everything is out.
pub(super) fn flush() {
    done(std::io::stdout().flush());
}

/// What cannot be written ends the command: quietly where the reader has enough, as in `tidings log … | head`.
fn done(written: std::io::Result<()>) {
    if let Err(error) = written {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("tidings: cannot write to standard output: {error}");
        }
        std::process::exit(1);
    }
}

pub(super) fn signers(statement: &Statement, trust: Option<&Trust>) -> Vec<String> {
    let name = |key| trust.and_then(|t| t.name_of(key)).map_or_else(|| key.to_string(), str::to_owned);
    statement.signatures().iter().map(|s| name(&s.key)).collect()
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
pub(super) fn statement(statement: &Verified<Statement>, trust: Option<&Trust>, as_json: bool) {
    if as_json {
        return line(&json(statement, trust).to_string());
    }
    line(&format!("# {} {}, signed by {}", statement.channel(), statement.id(), signers(statement, trust).join(", ")));
    String::from_utf8_lossy(statement.signed_part()).lines().for_each(|text| line(&safe(text)));
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
    let said = subject.strip_prefix(statement.channel().as_str()).unwrap_or(&subject).trim_start();
    safe(&format!(
        "{} {} {} {said} (by {}) {more}",
        statement.serial(),
        statement.time(),
        statement.kind(),
        signers(statement, trust).join(", ")
    ))
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
    table.load_preset(NOTHING).set_header(header.to_vec()).add_rows(rows);
    line(&table.to_string());
}
