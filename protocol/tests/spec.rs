//! The specification and the code say the same: commands, responses, limits, and the sections that code cites.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use tidings_protocol::{
    limits,
    nntp::{COMMANDS, RESPONSES},
};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn spec() -> String {
    fs::read_to_string(root().join("spec/tidings.md")).unwrap()
}

/// The rows stand under their head, and nothing else does.
#[track_caller]
fn has_rows(head: &str, rows: &str) {
    let spec = spec();
    let found: Vec<&str> = spec.lines().skip_while(|line| *line != head).skip(2).take_while(|line| !line.is_empty()).collect();
    assert!(found == rows.lines().collect::<Vec<_>>(), "under {head}, spec/tidings.md should have exactly these rows:\n{rows}");
}

#[test]
fn the_tables_of_commands_agree() {
    let mut rows = String::new();
    for entry in COMMANDS {
        let syntax = entry.syntax.replace('|', "\\|");
        let arguments = if syntax.is_empty() { String::new() } else { format!("`{syntax}`") };
        writeln!(rows, "| `{}` | {arguments} | {} |", entry.keyword, entry.source).unwrap();
    }
    has_rows("| command | arguments | source |", &rows);
}

#[test]
fn the_tables_of_responses_agree() {
    let rows: String = RESPONSES.iter().map(|(code, meaning)| format!("| {code} | {meaning} |\n")).collect();
    has_rows("| code | meaning |", &rows);
}

#[test]
fn the_tables_of_limits_agree() {
    let rows: String = limits::ALL.iter().map(|(name, value, unit)| format!("| `{name}` | {value} | {unit} |\n")).collect();
    has_rows("| limit | value | unit |", &rows);
}

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_cited_section_exists() {
    let spec = spec();
    let headings: BTreeSet<&str> =
        spec.lines().filter(|l| l.starts_with('#')).filter_map(|l| l.split(' ').nth(1)).map(|n| n.trim_end_matches('.')).collect();
    let mut files = Vec::new();
    for member in ["protocol/src", "client/src", "broker/src", "tests"] {
        sources(&root().join(member), &mut files);
    }
    let mut cited = 0;
    for (file, text) in &files {
        for marker in ["spec section ", "spec sections "] {
            for (at, _) in text.match_indices(marker) {
                let rest = &text[at + marker.len()..];
                let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                let number = number.trim_end_matches('.');
                assert!(headings.contains(number), "{file} cites spec section {number:?}, which does not exist");
                cited += 1;
            }
        }
    }
    assert!(cited > 20, "only {cited} citations were found: is this test looking in the right place?");
}

/// Whether this is the number of a requirement: section, hyphen, number.
fn is_requirement(text: &str) -> bool {
    text.split_once('-').is_some_and(|(section, number)| {
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        section.split('.').all(digits) && digits(number)
    })
}

#[test]
fn every_cited_requirement_exists() {
    let bracketed = |text: &str| -> Vec<String> {
        let parts = text.split('[').skip(1).filter_map(|rest| rest.split_once(']'));
        parts.map(|(number, _)| number.to_owned()).filter(|number| is_requirement(number)).collect()
    };
    let stated: BTreeSet<String> = bracketed(&spec()).into_iter().collect();
    assert!(stated.len() > 40, "{stated:?}");
    let mut files = Vec::new();
    for member in ["protocol/src", "client/src", "broker/src"] {
        sources(&root().join(member), &mut files);
    }
    let mut cited = 0;
    for (file, text) in &files {
        let comments: String = text.lines().filter(|l| l.trim_start().starts_with("//")).collect();
        for number in bracketed(&comments) {
            assert!(stated.contains(&number), "{file} cites requirement [{number}], which does not exist");
            cited += 1;
        }
    }
    assert!(cited >= 20, "only {cited} citations were found");
}

#[test]
fn dependencies_point_one_way() {
    let manifest = |member: &str| fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
    let uses = |member: &str, other: &str| manifest(member).lines().any(|l| l.starts_with(other));
    assert!(!uses("protocol", "tidings-"), "protocol depends on no other member");
    assert!(!uses("client", "tidings-broker"), "nothing uses the broker");
    assert!(!manifest("protocol").contains("tokio =") && !uses("protocol", "tokio."), "protocol does no I/O");
}
