//! The specification stays short: the words of each part, and their budgets.

use anyhow::{Context, ensure};

use super::root;

/// Each file of the specification, and how many words it may have.
const BUDGETS: &[(&str, usize)] = &[
    ("README.md", 600),
    ("1-listener.md", 1_500),
    ("2-installer.md", 1_800),
    ("3-publisher.md", 500),
    ("4-broker.md", 900),
    ("5-relaying.md", 450),
    ("6-slots.md", 450),
    ("7-security.md", 500),
    ("8-limits.md", 500),
];

/// All of them together have fewer.
const TOTAL: usize = 6_600;

/// The words of a page: runs of characters other than space that have a letter or a digit. Tables
/// count; fenced blocks, which are examples, pseudocode and grammar, do not.
fn words(page: &str) -> usize {
    let mut fenced = false;
    let outside = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    });
    outside
        .flat_map(str::split_whitespace)
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .count()
}

/// Counts, shows, and fails above the budgets.
pub(super) fn count() -> anyhow::Result<()> {
    let directory = root().join("spec");
    let mut pages: Vec<_> = std::fs::read_dir(&directory)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    pages.retain(|name| {
        std::path::Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "md")
    });
    ensure!(
        pages.len() == BUDGETS.len(),
        "spec/ has the pages {pages:?}; xtask/src/words.rs has budgets for {}",
        BUDGETS.len()
    );
    let mut total = 0;
    let mut above = Vec::new();
    for (name, budget) in BUDGETS {
        let path = directory.join(name);
        let page = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            page.matches("\n```").count().is_multiple_of(2),
            "a fenced block of spec/{name} has no end"
        );
        let count = words(&page);
        println!("{count:6} of {budget:5} words  spec/{name}");
        total += count;
        if count > *budget {
            above.push(format!(
                "spec/{name} has {count} words, and may have {budget}"
            ));
        }
    }
    println!("{total:6} of {TOTAL:5} words  together");
    if total >= TOTAL {
        above.push(format!(
            "the specification has {total} words, and must have fewer than {TOTAL}"
        ));
    }
    ensure!(above.is_empty(), "too many words: {}", above.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn tables_count_and_fences_do_not() {
        assert_eq!(
            words("# One\n\ntwo, three-four — 5\n\n| a | `b c` |\n| --- | --- |\n"),
            7
        );
        assert_eq!(words("one\n```text\nnot this\n```\ntwo\n"), 2);
    }
}
