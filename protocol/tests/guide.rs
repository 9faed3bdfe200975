//! The guide says what the programs do: its chapters, links, messages, exit codes, variables and
//! names of objects are those of the repository.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The files of this kind in a directory and below it, but for what was built.
fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, extension, found);
        } else if path.is_file() && path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// The first cells of the rows below a head.
#[track_caller]
fn cells(page: &str, head: &str) -> Vec<String> {
    let rows = page
        .lines()
        .skip_while(|line| *line != head)
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let first = |row: &str| row.split('|').nth(1).unwrap().trim().to_owned();
    let cells: Vec<String> = rows.map(first).collect();
    assert!(!cells.is_empty(), "no table has the head {head}");
    cells
}

/// What stands between pairs of a mark.
fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

#[test]
fn each_chapter_stands_in_the_summary_once() {
    let summary = text("docs/guide/SUMMARY.md");
    let listed: Vec<&str> = summary
        .lines()
        .filter_map(|line| {
            line.strip_prefix("* [")?
                .split_once("](")?
                .1
                .strip_suffix(')')
        })
        .collect();
    let mut pages = Vec::new();
    files(&root().join("docs/guide"), "md", &mut pages);
    let mut pages: Vec<String> = pages
        .iter()
        .map(|page| page.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "SUMMARY.md")
        .collect();
    pages.sort_unstable();
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, pages);
    for page in pages {
        assert!(
            text(&format!("docs/guide/{page}")).starts_with("# "),
            "{page}"
        );
    }
}

/// The text outside of fenced blocks and of code in a line.
fn prose(page: &str) -> String {
    let outside: String = page.split("```").step_by(2).collect();
    outside.split('`').step_by(2).collect()
}

/// As the usual renderers make the names of headings.
fn heading_name(heading: &str) -> String {
    let kept = heading
        .trim_start_matches('#')
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut pages = Vec::new();
    files(root(), "md", &mut pages);
    let mut count = 0;
    for page in pages {
        let text = prose(&fs::read_to_string(&page).unwrap());
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let here = page.display();
            assert!(target.exists(), "{here}: nothing is at {link}");
            if !heading.is_empty() {
                let there = fs::read_to_string(&target).unwrap();
                let found = there
                    .lines()
                    .any(|line| line.starts_with('#') && heading_name(line) == heading);
                assert!(found, "{here}: no heading is {link}");
            }
            count += 1;
        }
    }
    assert!(count > 100, "only {count} links were found");
}

/// The code without comments, each text in one line.
fn code() -> Vec<String> {
    let mut found = Vec::new();
    for member in [
        "protocol/src",
        "client/src",
        "client/cli",
        "client/agent/src",
        "broker/src",
    ] {
        files(&root().join(member), "rs", &mut found);
    }
    let mut lines = Vec::new();
    for file in found {
        let mut goes_on = false;
        for line in fs::read_to_string(file).unwrap().lines() {
            let line = line.trim_start();
            if line.starts_with("//") {
                continue;
            }
            let (part, more) = line
                .strip_suffix('\\')
                .map_or((line, false), |part| (part, true));
            match lines.last_mut() {
                Some(last) if goes_on => *last = format!("{last}{part}"),
                _ => lines.push(part.to_owned()),
            }
            goes_on = more;
        }
    }
    lines
}

/// Whether a text of the programs has all parts of a message, in their order.
fn says(line: &str, message: &str) -> bool {
    let parts = message.split('…').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .try_fold(line, |rest, part| {
            rest.find(part).map(|at| &rest[at + part.len()..])
        })
        .is_some()
}

#[test]
fn the_messages_stand_in_the_programs() {
    let mut messages = Vec::new();
    let mut of_table = |page: &str, head: &str| {
        for cell in cells(page, head) {
            let before = messages.len();
            messages.extend(between(&cell, '*').map(str::to_owned));
            assert!(messages.len() > before, "{cell} quotes nothing");
        }
    };
    let trouble = text("docs/guide/troubleshooting.md");
    let sections: Vec<&str> = trouble.split("\n## ").skip(1).collect();
    assert!(sections.len() > 5);
    for section in sections {
        of_table(section, "| message | what it is |");
    }
    of_table(
        &text("docs/guide/backup.md"),
        "| what the broker or `tidingsd check` says | what to do |",
    );
    let cluster = text("docs/guide/cluster.md");
    let quoted = cluster.split("**\"").skip(1);
    messages.extend(quoted.map(|rest| {
        let words = rest.split_once("\"**").unwrap().0.split_whitespace();
        words.collect::<Vec<_>>().join(" ").replace('`', "")
    }));
    assert!(messages.len() > 50, "{} messages", messages.len());
    let code = code();
    let lost: Vec<_> = messages
        .iter()
        .filter(|message| !code.iter().any(|line| says(line, message)))
        .collect();
    assert!(lost.is_empty(), "no program says {lost:#?}");
}

#[test]
fn the_exit_codes_agree() {
    let reference = text("docs/guide/reference.md");
    let rows = reference
        .lines()
        .skip_while(|line| *line != "| code | name | meaning |")
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let told: Vec<String> = rows
        .map(|row| row.trim_matches(['|', ' ']).replace('`', ""))
        .collect();
    let coded: Vec<String> = text("client/cli/exit.rs")
        .lines()
        .filter_map(|line| {
            let (code, rest) = line
                .trim()
                .strip_suffix("\";")?
                .split_once(" = ")?
                .1
                .split_once(", \"")?;
            let (word, meaning) = rest.split_once("\", \"")?;
            Some(format!("{code} | {word} | {meaning}"))
        })
        .collect();
    assert!(coded.len() > 5);
    assert_eq!(told, coded);
}

/// The words between backquotes in the first cells of a table.
fn named(page: &str, head: &str) -> BTreeSet<String> {
    cells(page, head)
        .iter()
        .flat_map(|cell| between(cell, '`').map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_objects_are_those_of_the_schema() {
    let schema = text("docs/answers.schema.json");
    let (any, _) = schema.split_once("\"$defs\": {").unwrap();
    let defined: BTreeSet<String> = any
        .split("\"#/$defs/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    assert!(defined.len() > 10);
    assert_eq!(
        named(&text("docs/guide/reference.md"), "| object | of |"),
        defined
    );
}

#[test]
fn the_variables_are_those_of_the_command() {
    let mut sources = Vec::new();
    files(&root().join("client/cli"), "rs", &mut sources);
    let mut read = BTreeSet::new();
    for source in sources {
        let source = fs::read_to_string(source).unwrap();
        let names = source.split("\"TIDINGS_").skip(1);
        let names = names.filter_map(|rest| rest.split('"').next());
        let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        read.extend(names.filter(is_name).map(|name| format!("TIDINGS_{name}")));
    }
    // Set by the shell's completion, not by people.
    assert!(read.remove("TIDINGS_COMPLETE"));
    assert_eq!(
        named(
            &text("docs/guide/reference.md"),
            "| variable | option of `tidings` |"
        ),
        read
    );
}

#[test]
fn the_glossary_has_the_terms_of_the_specification() {
    let words = |page: &str, head: &str| -> BTreeSet<String> {
        let cells = cells(&text(page), head);
        let words = cells.iter().flat_map(|cell| cell.split(", "));
        words.map(str::to_owned).collect()
    };
    let glossary = words("docs/guide/glossary.md", "| word | meaning |");
    let terms = words("spec/README.md", "| term | meaning |");
    let lacking: Vec<_> = terms.difference(&glossary).collect();
    assert!(lacking.is_empty(), "the glossary lacks {lacking:?}");
}
