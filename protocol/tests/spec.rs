//! The specification and the code say the same: commands, responses, limits, requirements, and its
//! example verifies.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use tidings_protocol::{
    Anchor, Channel, Requirement, Statement, Timestamp, limits,
    nntp::{COMMANDS, RESPONSES},
    statement::{self, Kind},
    view::{Now, View},
};

/// The parts, each with the number that its requirements begin with.
const PARTS: &[(&str, &str)] = &[
    ("1", "1-listener.md"),
    ("2", "2-installer.md"),
    ("3", "3-publisher.md"),
    ("4", "4-broker.md"),
    ("5", "5-relaying.md"),
    ("6", "6-slots.md"),
    ("7", "7-security.md"),
    ("8", "8-limits.md"),
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("spec").join(name)).unwrap()
}

/// The cells of the rows that stand under a head, without the backquotes and escapes of Markdown.
#[track_caller]
fn rows(page: &str, head: &str) -> Vec<Vec<String>> {
    let lines = page
        .lines()
        .skip_while(|line| *line != head)
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cell = |text: &str| text.trim().trim_matches('`').replace('\u{1}', "|");
    let cells = |line: &str| {
        let line = line.replace("\\|", "\u{1}");
        line.trim_matches('|')
            .split('|')
            .map(cell)
            .collect::<Vec<_>>()
    };
    let rows: Vec<_> = lines.map(cells).collect();
    assert!(!rows.is_empty(), "no table has the head {head}");
    rows
}

#[test]
fn the_commands_agree() {
    let own: Vec<_> = COMMANDS
        .iter()
        .filter(|entry| entry.source.starts_with("Tidings"))
        .map(|entry| vec![entry.keyword, entry.syntax])
        .collect();
    let broker = page("4-broker.md");
    assert_eq!(rows(&broker, "| command | arguments |"), own);
    let list = broker
        .split_once("commands of the RFCs:\n\n")
        .unwrap()
        .1
        .split_once("\n\n")
        .unwrap()
        .0;
    let listed: Vec<String> = list
        .split(',')
        .map(|name| name.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let of_rfcs: Vec<_> = COMMANDS
        .iter()
        .filter(|entry| entry.source.starts_with("RFC"))
        .map(|entry| entry.keyword)
        .collect();
    assert_eq!(listed, of_rfcs);
}

/// Each field has one row in the specification, with the form that the code reads, how often it may
/// stand, and the kinds that have it.
#[test]
fn the_fields_agree() {
    let head = "| field | form | rule | meaning |";
    let mut stated = rows(&page("1-listener.md"), head);
    stated.extend(rows(&page("2-installer.md"), head));
    let once: BTreeSet<&str> = stated.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(once.len(), stated.len(), "a field has two rows");
    let mut names: Vec<&str> = Vec::new();
    for row in statement::rows() {
        let stated = stated.iter().find(|stated| stated[0] == row.name);
        let stated = stated.unwrap_or_else(|| panic!("no row for {}", row.name));
        assert_eq!(stated[1], row.form, "{}", row.name);
        let (kinds, rule) = stated[2].split_once("; ").unwrap_or((&stated[2], ""));
        let rule = |word: &str| rule.split("; ").chain([kinds]).any(|part| part == word);
        match row.kind {
            // What stands in each statement has rules of its own.
            None => assert!(row.often != "required" || rule("required"), "{}", row.name),
            Some(kind) => {
                let kinds: Vec<&str> = kinds.split(", ").collect();
                assert!(kinds.contains(&kind.as_str()), "{}: {kinds:?}", row.name);
                for often in ["required", "repeatable"] {
                    assert_eq!(rule(often), row.often == often, "{}: {often}", row.name);
                }
            }
        }
        names.push(row.name);
    }
    for row in &stated {
        assert!(
            names.contains(&row[0].as_str()),
            "the code has no {}",
            row[0]
        );
        let kinds = row[2].split("; ").next().unwrap();
        let kinds = kinds
            .split(", ")
            .filter_map(|kind| kind.parse::<Kind>().ok());
        for kind in kinds {
            let has = |of: &statement::Row| of.kind == Some(kind) && of.name == row[0];
            assert!(statement::rows().any(has), "{kind} has no {}", row[0]);
        }
    }
}

#[test]
fn the_responses_agree() {
    let rows = rows(&page("4-broker.md"), "| code | meaning |");
    for row in &rows {
        let meaning = RESPONSES
            .iter()
            .find(|(code, _)| code.to_string() == row[0])
            .map(|(_, meaning)| *meaning);
        assert_eq!(meaning, Some(row[1].as_str()), "code {}", row[0]);
    }
    for own in ["290", "490"] {
        assert!(
            rows.iter().any(|row| row[0] == own),
            "{own} is a code of Tidings' own"
        );
    }
}

#[test]
fn the_limits_agree() {
    let rows = rows(
        &page("8-limits.md"),
        "| limit | value | unit | enforced by, on | then |",
    );
    let code: Vec<_> = limits::ALL
        .iter()
        .map(|(name, value, unit)| vec![(*name).to_owned(), value.to_string(), (*unit).to_owned()])
        .collect();
    assert_eq!(
        rows.iter().map(|row| row[..3].to_vec()).collect::<Vec<_>>(),
        code
    );
    for row in &rows {
        assert!(
            row.len() == 5 && !row[3].is_empty() && !row[4].is_empty(),
            "who enforces {} on what, and what then?",
            row[0]
        );
    }
}

/// What stands in brackets and has the form of a requirement's number.
fn bracketed(text: &str) -> Vec<String> {
    let parts = text
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']'));
    parts
        .map(|(number, _)| number.to_owned())
        .filter(|number| is_number(number))
        .collect()
}

fn is_number(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    text.split_once('-')
        .is_some_and(|(part, number)| digits(part) && digits(number))
}

/// The numbers that the specification states, in their order.
fn stated() -> Vec<String> {
    let of = |(_, name): &(&str, &str)| {
        let page = page(name);
        let begins = page
            .lines()
            .filter_map(|line| line.strip_prefix("**[")?.split_once("]**"));
        begins
            .map(|(number, _)| number.to_owned())
            .collect::<Vec<_>>()
    };
    PARTS.iter().flat_map(of).collect()
}

#[test]
fn requirements_are_numbered_in_order() {
    let stated = stated();
    assert!(stated.len() > 120, "{stated:?}");
    for (part, _) in PARTS {
        let of_part: Vec<&String> = stated
            .iter()
            .filter(|number| number.split('-').next() == Some(part))
            .collect();
        let expected: Vec<String> = (1..=of_part.len()).map(|n| format!("{part}-{n}")).collect();
        assert_eq!(of_part, expected.iter().collect::<Vec<_>>());
    }
}

#[test]
fn every_requirement_of_the_code_is_stated() {
    let stated: BTreeSet<String> = stated().into_iter().collect();
    let mut numbers = BTreeSet::new();
    for requirement in Requirement::ALL {
        let number = requirement.number();
        assert!(
            stated.contains(number),
            "{requirement:?} is [{number}], which the specification does not state"
        );
        assert!(numbers.insert(number), "[{number}] has two names");
        assert_eq!(requirement.to_string(), format!("spec {number}"));
    }
}

/// Numbers that the parts refer to, in running text, tables and pseudocode.
#[test]
fn the_parts_refer_to_what_they_state() {
    let stated: BTreeSet<String> = stated().into_iter().collect();
    for (_, name) in PARTS {
        for word in page(name).split(|c: char| !c.is_ascii_digit() && c != '-') {
            // Two digits on either side of the hyphen at most: a time has four.
            let short = word.split('-').all(|digits| digits.len() <= 2);
            if is_number(word)
                && short
                && PARTS
                    .iter()
                    .any(|(part, _)| word.split('-').next() == Some(part))
            {
                assert!(
                    stated.contains(word),
                    "spec/{name} refers to {word}, which is not stated"
                );
            }
        }
    }
}

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((
                path.display().to_string(),
                fs::read_to_string(&path).unwrap(),
            ));
        }
    }
}

#[test]
fn every_citation_exists() {
    let stated: BTreeSet<String> = stated().into_iter().collect();
    let mut files = Vec::new();
    for member in [
        "protocol/src",
        "client/src",
        "client/cli",
        "broker/src",
        "tests/src",
        "tests/tests",
    ] {
        sources(&root().join(member), &mut files);
    }
    let mut cited = 0;
    for (file, text) in &files {
        let comments: String = text
            .lines()
            .filter(|l| l.trim_start().starts_with("//"))
            .collect();
        for number in bracketed(&comments) {
            assert!(
                stated.contains(&number),
                "{file} cites requirement [{number}], which does not exist"
            );
            cited += 1;
        }
        for (at, _) in comments.match_indices("spec part ") {
            let number = &comments[at + "spec part ".len()..][..1];
            assert!(
                PARTS.iter().any(|(part, _)| *part == number),
                "{file} cites part {number}, which does not exist"
            );
            cited += 1;
        }
        assert!(
            !comments.contains("spec section"),
            "{file} cites a section: the specification has parts and numbered requirements"
        );
    }
    assert!(
        cited > 20,
        "only {cited} citations were found: is this test looking in the right place?"
    );
}

/// The blocks of the complete example: the anchor, and the statements.
fn example() -> (Anchor, Vec<Statement>) {
    let page = page("README.md");
    let mut blocks = page
        .split("```text\n")
        .skip(1)
        .map(|rest| rest.split_once("```").unwrap().0);
    let anchor = blocks.next().unwrap().trim_end().parse().unwrap();
    (
        anchor,
        blocks
            .map(|block| Statement::parse(block.as_bytes()).unwrap())
            .collect(),
    )
}

#[test]
fn the_example_verifies() {
    let (anchor, statements) = example();
    let [trust, release, beat] = <[Statement; 3]>::try_from(statements).unwrap();
    let channel: Channel = "acme.os".parse().unwrap();
    let at = |text: &str| Now::at(text.parse::<Timestamp>().unwrap());
    let eleven = at("2026-11-22T11:00:00Z");
    let mut device = View::new(anchor);
    device.take_trust([trust], &eleven).unwrap();
    let run = device.judge(&channel, vec![release]).unwrap();
    let news = device.place(&channel, run, false, &eleven).unwrap();
    device.note(&news, &eleven);
    assert_eq!(device.freshness(&channel, &eleven).as_str(), "STALE");
    device.take_beat(beat, &eleven).unwrap();
    assert_eq!(device.freshness(&channel, &eleven).as_str(), "CURRENT");
    assert_eq!(
        device
            .freshness(&channel, &at("2026-11-22T12:00:04Z"))
            .as_str(),
        "CURRENT"
    );
    assert_eq!(
        device
            .freshness(&channel, &at("2026-11-22T12:00:05Z"))
            .as_str(),
        "STALE"
    );
}

/// Each attack has one row, and the tests that a row names exist; or it says that it is open, and
/// is.
#[test]
fn the_attacks_have_answers() {
    let mut files = Vec::new();
    for member in ["protocol", "client", "broker", "tests"] {
        for directory in
            ["src", "tests", "examples"].map(|directory| root().join(member).join(directory))
        {
            if directory.exists() {
                sources(&directory, &mut files);
            }
        }
    }
    let exists = |name: &str| {
        files
            .iter()
            .any(|(_, text)| text.contains(&format!("fn {name}")))
    };
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let of_row = |row: &[String]| -> Vec<u32> {
        let of_row: Vec<u32> = row[0]
            .split([',', ' '])
            .filter_map(|n| n.parse().ok())
            .collect();
        if row[0].contains("to") {
            (of_row[0]..=of_row[1]).collect()
        } else {
            of_row
        }
    };
    let mut numbers = Vec::new();
    for row in rows(&page, "| # | attack | answer |") {
        numbers.extend(of_row(&row));
        let missing: Vec<_> = row[2]
            .split('`')
            .filter(|name| name.starts_with("attack") && !exists(name))
            .collect();
        let open = row[2].contains("*open*");
        assert!(
            open || missing.is_empty(),
            "attack {}: there is no test {missing:?}",
            row[0]
        );
        assert!(
            !open || !missing.is_empty(),
            "attack {} is not open any more: its tests exist",
            row[0]
        );
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=123).collect::<Vec<_>>());
    let adversaries = rows(&page, "| # | keys | brokers | clock |");
    let mut told: Vec<u32> = adversaries.iter().flat_map(|row| of_row(row)).collect();
    told.sort_unstable();
    assert_eq!(told, (91..=123).collect::<Vec<_>>());
}

/// What an operator can write stands in the example, with its default; manual pages are made of
/// that.
#[test]
fn the_documented_configurations_have_every_key() {
    let files = [
        ("broker/src/config/written.rs", "docs/tidingsd.toml", 50),
        ("client/agent/src/config.rs", "docs/agent.toml", 25),
    ];
    for (written, example, least) in files {
        let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
        let (code, text) = (read(written), read(example));
        let keys = code
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub "));
        let keys: Vec<&str> = keys
            .filter_map(|line| line.split_once(": "))
            .map(|key| key.0)
            .filter(|key| !key.contains([' ', '(']))
            .collect();
        assert!(keys.len() > least, "the keys of {written} are not found");
        let missing: Vec<_> = keys.into_iter().filter(|key| !stands(key, &text)).collect();
        assert!(missing.is_empty(), "{example} lacks {missing:?}");
    }
}

/// As a key, or as a table.
fn stands(key: &str, example: &str) -> bool {
    let table = |line: &str| {
        line.trim_matches(['[', ' '])
            .split(['.', ']'])
            .any(|part| part == key)
    };
    let lines = example
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']));
    lines
        .into_iter()
        .any(|line| line.starts_with(&format!("{key} = ")) || line.starts_with('[') && table(line))
}

#[test]
fn dependencies_point_one_way() {
    let manifest =
        |member: &str| fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
    let uses = |member: &str, other: &str| manifest(member).lines().any(|l| l.starts_with(other));
    assert!(
        !uses("protocol", "tidings-"),
        "protocol depends on no other member"
    );
    assert!(!uses("client", "tidings-broker"), "nothing uses the broker");
    assert!(
        !manifest("protocol").contains("tokio =") && !uses("protocol", "tokio."),
        "protocol does no I/O"
    );
}
