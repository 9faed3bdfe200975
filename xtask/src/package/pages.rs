//! The manual pages: those of commands come from the commands, those of files from `docs/man/`,
//! with keys and fields from where these are defined.

use std::{fs, path::Path};

use anyhow::{Context, ensure};

use crate::{command, quietly, root};

/// Programs that write their own pages.
const PROGRAMS: [&str; 4] = ["tidingsd", "tidings", "tidings-bench", "tidings-agent"];
/// In a page of `docs/man/`: here stand the keys, or the fields, of the files that follow.
const KEYS: &str = ".\\\" The keys of ";
const FIELDS: &str = ".\\\" The fields of ";

/// Writes all of them into a directory, and has each read by man.
pub(super) fn write(programs: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into)?;
    for program in PROGRAMS {
        quietly(
            command(programs.join(program))
                .args(["man", "--into"])
                .arg(into),
        )?;
    }
    for entry in fs::read_dir(root().join("docs/man"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let mut page = String::new();
        for line in text.lines() {
            if let Some(files) = line.strip_prefix(KEYS) {
                keys(files, &mut page)?;
            } else if let Some(files) = line.strip_prefix(FIELDS) {
                fields(files, &mut page)?;
            } else {
                page.push_str(line);
                page.push('\n');
            }
        }
        fs::write(into.join(path.file_name().context("no name")?), page)?;
    }
    Ok(())
}

/// Every key of a configuration that has each in a line: `key = value  # what it is`.
fn keys(file: &str, page: &mut String) -> anyhow::Result<()> {
    let text = fs::read_to_string(root().join(file))?;
    let mut count = 0;
    // What stands above the first key is for who reads the file.
    for line in text
        .lines()
        .skip_while(|line| line.starts_with('#') || line.is_empty())
    {
        let bare = line.trim_start_matches("# ");
        let (what, about) = match comment(bare) {
            Some(at) => (bare[..at].trim(), bare[at + 1..].trim()),
            None => (bare.trim(), ""),
        };
        if line.trim_start().starts_with('#') && line.len() - line.trim_start().len() > 2 {
            // It goes on in a line of its own.
            page.push_str(&format!(
                "{}\n",
                escaped(line.trim_start().trim_start_matches('#').trim())
            ));
        } else if what.starts_with('[') && !what.contains(" = ") {
            page.push_str(&format!(".SS {}\n", escaped(what)));
            if !about.is_empty() {
                page.push_str(&format!("{}\n", escaped(about)));
            }
        } else if !what.is_empty() {
            count += 1;
            page.push_str(&format!(
                ".TP\n\\fB{}\\fR\n{}\n",
                escaped(what),
                escaped(about)
            ));
        }
    }
    ensure!(count > 20, "the keys of {file} are not found");
    Ok(())
}

/// Where the comment of a line begins: at a `#` that stands in no string.
fn comment(line: &str) -> Option<usize> {
    let mut quoted = false;
    line.bytes().position(|octet| {
        quoted ^= octet == b'"';
        octet == b'#' && !quoted
    })
}

/// Every field of statements, from the tables of the specification.
fn fields(files: &str, page: &mut String) -> anyhow::Result<()> {
    let mut count = 0;
    for file in files.split(" and ") {
        let text = fs::read_to_string(root().join(file))?;
        let table = text
            .lines()
            .skip_while(|line| !line.starts_with("| field | form | rule | meaning |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        for row in table {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [field, form, rule, meaning] = cells[..] else {
                anyhow::bail!("{file}: a row of the fields has another number of cells: {row}")
            };
            let plain = |cell: &str| escaped(&cell.replace('`', ""));
            count += 1;
            page.push_str(&format!(
                ".TP\n\\fB{}: \\fR{}\n{}.\n.br\nRule: {}.\n",
                plain(field),
                plain(form),
                plain(meaning),
                plain(rule)
            ));
        }
    }
    ensure!(count > 20, "the fields of {files} are not found");
    Ok(())
}

/// As text of roff: nothing in it is a command.
fn escaped(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('…', "\\&...");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
