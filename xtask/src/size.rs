//! How much code there is: the budgets of the design, kept by CI.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::root;

/// A part, where its code is, what of that belongs to another part, and how many lines it may have.
struct Part {
    name: &'static str,
    at: &'static str,
    without: &'static [&'static str],
    most: usize,
}

/// Lines of code; comments, blank lines and tests are counted beside them.
const PARTS: &[Part] = &[
    Part {
        name: "protocol",
        at: "protocol/src",
        without: &[],
        most: 3_600,
    },
    Part {
        name: "client library",
        at: "client/src",
        without: &["bin", "bench"],
        most: 1_900,
    },
    Part {
        name: "broker without cluster and slots",
        at: "broker/src",
        without: &["cluster", "slots", "demo"],
        most: 5_500,
    },
    Part {
        name: "cluster",
        at: "broker/src/cluster",
        without: &[],
        most: 900,
    },
    Part {
        name: "slots",
        at: "broker/src/slots",
        without: &[],
        most: 700,
    },
    Part {
        name: "tidings",
        at: "client/src/bin/tidings",
        without: &["bench"],
        most: 2_200,
    },
];

#[derive(Default)]
struct Lines {
    code: usize,
    comments: usize,
    tests: usize,
}

/// What a file has. Tests are what follows `#[cfg(test)]`, which stands last in a file; and files
/// named `tests.rs`.
fn count(path: &Path, lines: &mut Lines) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut in_tests = path.ends_with("tests.rs");
    let mut all = text.lines().peekable();
    while let Some(line) = all.next() {
        let line = line.trim();
        in_tests |=
            line == "#[cfg(test)]" && all.peek().is_some_and(|next| next.trim().ends_with('{'));
        match () {
            () if line.is_empty() => {}
            () if in_tests => lines.tests += 1,
            () if line.starts_with("//") => lines.comments += 1,
            () => lines.code += 1,
        }
    }
    Ok(())
}

fn walk(directory: &Path, without: &[PathBuf], lines: &mut Lines) -> anyhow::Result<()> {
    for entry in
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() && !without.contains(&path) {
            walk(&path, without, lines)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            count(&path, lines)?;
        }
    }
    Ok(())
}

/// Prints what each part has; `keep` fails where there is more than there may be.
pub(super) fn print(keep: bool) -> anyhow::Result<()> {
    println!("| part | code | at most | comments | tests |\n| --- | ---: | ---: | ---: | ---: |");
    let mut over = Vec::new();
    let mut total = 0;
    for part in PARTS {
        let at = root().join(part.at);
        let without: Vec<PathBuf> = part.without.iter().map(|name| at.join(name)).collect();
        let mut lines = Lines::default();
        walk(&at, &without, &mut lines)?;
        println!(
            "| {} | {} | {} | {} | {} |",
            part.name, lines.code, part.most, lines.comments, lines.tests
        );
        total += lines.code;
        if lines.code > part.most {
            over.push(part.name);
        }
    }
    println!("| all of the above | {total} | | | |");
    ensure!(
        !keep || over.is_empty(),
        "more code than there may be: {}",
        over.join(", ")
    );
    Ok(())
}
