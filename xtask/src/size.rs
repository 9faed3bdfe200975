//! How much code there is: the budgets of the design, and what a function and a file may have.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::root;

/// A part, where its code is, what of that belongs to another part, how many lines it has at most,
/// and how many the design meant it to have.
struct Part {
    name: &'static str,
    at: &'static str,
    without: &'static [&'static str],
    /// More fails the lint. Whoever raises it adds something: is there anything that it replaces?
    now: usize,
    goal: usize,
}

/// Lines of code; comments, blank lines and tests are counted beside them.
const PARTS: &[Part] = &[
    Part {
        name: "protocol",
        at: "protocol/src",
        without: &[],
        now: 6_980,
        goal: 3_600,
    },
    Part {
        name: "client library",
        at: "client/src",
        without: &[],
        now: 5_810,
        goal: 1_900,
    },
    Part {
        name: "broker without cluster and slots",
        at: "broker/src",
        without: &["cluster", "slots", "bin/tidingsd/demo"],
        now: 15_730,
        goal: 5_500,
    },
    Part {
        name: "cluster",
        at: "broker/src/cluster",
        without: &[],
        now: 3_200,
        goal: 900,
    },
    Part {
        name: "slots",
        at: "broker/src/slots",
        without: &[],
        now: 970,
        goal: 700,
    },
    Part {
        name: "tidings",
        at: "client/cli",
        without: &[],
        now: 8_800,
        goal: 2_200,
    },
];

/// Lines of code that a function may have, from `fn` to its closing brace; blank lines and comments
/// are not counted. Tests and examples may have more: a dialogue is read from top to bottom.
const FUNCTION: usize = 60;

/// Lines that a file may have, of whatever kind, tests and examples too.
const FILE: usize = 500;

/// Where functions and files are measured.
const MEASURED: [&str; 5] = ["protocol", "client", "broker", "tests", "xtask"];

/// What may be longer: where, the function, or none if it is all that is there, and why.
const EXCEPTIONS: &[(&str, Option<&str>, &str)] = &[
    (
        "broker/src/admin/http/metrics/relays.rs",
        Some("cluster"),
        "a table of metrics",
    ),
    ("broker/src/admin/manual.rs", Some("manual"), "a text"),
    (
        "broker/src/log/store/batch.rs",
        Some("read_table"),
        "a table of the kinds of records",
    ),
    ("client/agent/src/manual.rs", Some("manual"), "a text"),
];

#[derive(Default)]
struct Lines {
    code: usize,
    comments: usize,
    tests: usize,
}

/// What a file has. Tests are what follows `#[cfg(test)]`, which stands last in a file; and all of
/// a file of tests.
fn count(path: &Path, lines: &mut Lines) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut in_tests = is_test(path);
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

/// Whether a file is of tests: it is named `tests.rs`, or lies in a folder named so, or of a
/// simulation, or is what simulations alone have.
fn is_test(path: &Path) -> bool {
    let path = path.strip_prefix(root()).unwrap_or(path);
    let is_of_tests = |part| {
        let parts = ["tests", "simulation", "simulated", "simulated.rs"];
        parts.iter().any(|known| part == *known)
    };
    path.ends_with("tests.rs") || path.iter().any(is_of_tests)
}

/// Calls `each` with the Rust files below a directory, but for what Cargo has made.
fn walk(
    directory: &Path,
    without: &[PathBuf],
    each: &mut dyn FnMut(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for entry in
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() && !without.contains(&path) && !path.ends_with("target") {
            walk(&path, without, each)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path)?;
        }
    }
    Ok(())
}

/// The name of the function that a line begins.
fn name(line: &str) -> Option<&str> {
    let (before, rest) = line.trim_start().split_once("fn ")?;
    let qualifies = |word: &str| {
        word.starts_with("pub")
            || word.ends_with(')')
            || ["const", "async", "unsafe", "extern", "\"C\""].contains(&word)
    };
    let name = rest.split(['(', '<']).next()?;
    before.split_whitespace().all(qualifies).then_some(name)
}

/// The functions of a file that `cargo fmt` has formatted, but for those of its tests: the number
/// of the line, the name, and lines of code. One ends with the first line that has the indentation
/// of its `fn`, and is a closing brace or ends with a semicolon.
fn functions(text: &str) -> Vec<(usize, &str, usize)> {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next();
    let lines: Vec<&str> = code.unwrap_or(text).lines().collect();
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = name(line).filter(|_| !line.ends_with(['}', ';'])) else {
            continue;
        };
        let ends = |other: &&str| {
            indentation(other) == indentation(line) && (other.trim() == "}" || other.ends_with(';'))
        };
        let length = lines[at..].iter().position(ends).unwrap_or(0);
        let is_code = |line: &&&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let count = lines[at..=at + length].iter().filter(is_code).count();
        found.push((at + 1, name, count));
    }
    found
}

/// What of a file is too long: the function, or none if it is the file, and what to print.
fn long<'a>(file: &str, text: &'a str, is_measured: bool) -> Vec<(Option<&'a str>, String)> {
    let lines = text.lines().count();
    let mut long = Vec::new();
    if lines > FILE {
        long.push((None, format!("{file}: {lines} lines, at most {FILE}")));
    }
    for (line, name, count) in functions(text) {
        if is_measured && count > FUNCTION {
            let what =
                format!("{file}:{line}: {name} has {count} lines of code, at most {FUNCTION}");
            long.push((Some(name), what));
        }
    }
    long
}

/// Fails where a function or a file is longer than it may be, and where an exception is none any
/// more.
pub(super) fn lint() -> anyhow::Result<()> {
    keep()?;
    let (mut wrong, mut unused) = (Vec::new(), EXCEPTIONS.to_vec());
    for at in MEASURED {
        walk(&root().join(at), &[], &mut |path| {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let file = path.strip_prefix(root())?.display().to_string();
            let is_measured = !is_test(path) && !path.iter().any(|part| part == "examples");
            for (name, what) in long(&file, &text, is_measured) {
                let is_meant = |(at, of, _): &(&str, Option<&str>, &str)| {
                    file.starts_with(at) && (of.is_none() || *of == name)
                };
                if !EXCEPTIONS.iter().any(is_meant) {
                    wrong.push(what);
                }
                unused.retain(|one| !is_meant(one));
            }
            Ok(())
        })?;
    }
    wrong.extend(unused.iter().map(|(at, of, _)| {
        let what = of.unwrap_or("all");
        format!("{at}: {what} is short enough by now: EXCEPTIONS in xtask/src/size.rs names it")
    }));
    ensure!(
        wrong.is_empty(),
        "split what is too long, or, if it is a table, name it in xtask/src/size.rs:\n{}",
        wrong.join("\n")
    );
    let exceptions = EXCEPTIONS.len();
    println!(
        "no function above {FUNCTION} lines, no file above {FILE}, but {exceptions} exceptions"
    );
    Ok(())
}

/// What a part has.
fn lines(part: &Part) -> anyhow::Result<Lines> {
    let at = root().join(part.at);
    let without: Vec<PathBuf> = part.without.iter().map(|name| at.join(name)).collect();
    let mut lines = Lines::default();
    walk(&at, &without, &mut |path| count(path, &mut lines))?;
    Ok(lines)
}

/// Fails where a part has grown.
fn keep() -> anyhow::Result<()> {
    for part in PARTS {
        let (name, has, most) = (part.name, lines(part)?.code, part.now);
        ensure!(
            has <= most,
            "{name} has {has} lines of code, at most {most}: delete some, or raise `now` in xtask/src/size.rs and say why"
        );
    }
    Ok(())
}

/// Prints what each part has.
pub(super) fn print() -> anyhow::Result<()> {
    println!("| part | code | at most | goal | comments | tests |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let mut total = 0;
    for part in PARTS {
        let (lines, now, goal) = (lines(part)?, part.now, part.goal);
        let (code, comments, tests) = (lines.code, lines.comments, lines.tests);
        println!(
            "| {} | {code} | {now} | {goal} | {comments} | {tests} |",
            part.name
        );
        total += code;
    }
    let goal: usize = PARTS.iter().map(|part| part.goal).sum();
    println!("| all of the above | {total} | | {goal} | | |");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FILE, FUNCTION, functions, long};

    /// A function with so many lines of code.
    fn made_up(code: usize) -> String {
        let body = "        // why\n\n        work();\n".repeat(code - 3);
        format!(
            "impl Any {{\n    pub(super) async fn far<T>(\n    ) {{\n{body}    }}\n\n    fn near() {{\n    }}\n}}\n"
        )
    }

    #[test]
    fn a_long_function_is_named_with_its_file_and_line() {
        assert_eq!(long("a.rs", &made_up(FUNCTION), true), []);
        let text = made_up(FUNCTION + 1);
        let what = "a.rs:2: far has 61 lines of code, at most 60".to_owned();
        assert_eq!(long("a.rs", &text, true), [(Some("far"), what)]);
        assert_eq!(long("a.rs", &text, false), []);
    }

    #[test]
    fn a_long_file_is_named() {
        assert_eq!(long("a.rs", &"//\n".repeat(FILE), false), []);
        let what = "a.rs: 501 lines, at most 500".to_owned();
        assert_eq!(
            long("a.rs", &"//\n".repeat(FILE + 1), false),
            [(None, what)]
        );
    }

    #[test]
    fn a_function_ends_where_it_ends() {
        let text = "trait Any {\n    fn declared(\n        &self,\n    ) -> u8;\n    fn one(&self) {}\n}\n\nconst fn two() -> u8 {\n    let fn_ = 1;\n    fn_\n}\n";
        assert_eq!(functions(text), [(2, "declared", 3), (8, "two", 4)]);
    }
}
