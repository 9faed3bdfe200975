//! What the command says: for people, or one JSON object a line.

use std::{io::IsTerminal, sync::OnceLock};

use comfy_table::{Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tidings_client::{
    Body, Statement, Verified,
    terminal::{self, Program, is_odd},
};
use tidings_protocol::{Requirement, article, trust::Trust};

use super::exit;

const PROGRAM: Program = Program("tidings");

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

/// A line on standard output.
pub(super) fn line(text: &str) {
    PROGRAM.line(text);
}

/// Octets on standard output as they are: a statement, a page.
pub(super) fn raw(octets: &[u8]) {
    PROGRAM.raw(octets);
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
    PROGRAM.note(text);
}

/// Asks on standard error; the answer comes by standard input.
pub(super) fn prompt(text: &str) {
    // Where it cannot be asked, no answer comes.
    drop(terminal::write_error(terminal::safe(text).as_bytes()));
}

/// Says why a command fails, and how it ends.
pub(super) fn fail(error: &anyhow::Error) -> u8 {
    let (code, word) = exit::code(error);
    let text = tidings_client::explain(error.as_ref());
    note(&text);
    if is_json() && !exit::is_told(error) {
        refusal(&text, (code, word), exit::requirement(error));
    }
    code
}

/// A refusal as JSON.
pub(super) fn refusal(text: &str, exit: impl Into<(u8, &'static str)>, by: Option<Requirement>) {
    let (code, word) = exit.into();
    let requirement = by.map(Requirement::number);
    object(&json!({"error": text, "exit": word, "code": code, "requirement": requirement}));
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
pub(super) fn bar(count: u64) -> ProgressBar {
    match terminal::takes_sequences(&std::io::stderr()) {
        true => ProgressBar::new(count),
        false => ProgressBar::hidden(),
    }
}

/// The same with a rate of things.
pub(super) fn progress(count: usize, what: &'static str) -> ProgressBar {
    let bar = bar(count as u64);
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
