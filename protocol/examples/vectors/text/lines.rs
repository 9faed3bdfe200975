//! Lines, and the fields that begin every statement.

use tidings_protocol::StatementId;

use super::Base;
use crate::{ANN, Vectors, sign};

#[allow(clippy::too_many_lines)] // a list
pub(super) fn lines(v: &mut Vectors, base: &Base) {
    let (end, text) = (base.end, base.text.as_bytes());
    let signed = sign(text, &[ANN]);
    v.about("1-7");
    v.text(
        "no-final-line-feed",
        "grammar",
        end,
        "",
        &signed[..signed.len() - 1],
    );
    v.text(
        "crlf",
        "grammar",
        1,
        "",
        &String::from_utf8(signed.clone())
            .unwrap()
            .replace('\n', "\r\n")
            .into_bytes(),
    );
    v.text(
        "byte-order-mark-first",
        "grammar",
        1,
        "",
        &sign(["\u{feff}".as_bytes(), text].concat(), &[ANN]),
    );
    v.text(
        "control-character",
        "grammar",
        end,
        "",
        &base.with("Summary: a\u{7}b"),
    );
    v.text(
        "delete",
        "grammar",
        end,
        "",
        &base.with("Summary: a\u{7f}b"),
    );
    v.text("nul", "grammar", end, "", &base.with("Summary: a\0b"));
    v.text("bare-cr", "grammar", end, "", &base.with("Summary: a\rb"));
    v.text(
        "c1-control",
        "grammar",
        end,
        "",
        &base.with("Summary: a\u{85}b"),
    );
    v.text(
        "c1-control-last",
        "grammar",
        end,
        "",
        &base.with("Summary: a\u{9f}b"),
    );
    v.text(
        "latin-1",
        "grammar",
        end,
        "",
        &sign([text, b"Summary: caf\xe9\n"].concat(), &[ANN]),
    );
    v.text(
        "overlong-utf-8",
        "grammar",
        end,
        "",
        &sign([text, b"Summary: a\xc0\xafb\n"].concat(), &[ANN]),
    );
    v.text(
        "surrogate",
        "grammar",
        end,
        "",
        &sign([text, b"Summary: a\xed\xa0\x80b\n"].concat(), &[ANN]),
    );
    v.text(
        "line-901",
        "statement",
        end,
        "",
        &base.with(&format!("Reasons: {}", "9".repeat(892))),
    );
    v.text(
        "too-large",
        "statement",
        end + 72,
        "",
        &base.with(
            format!("Filler: {}\n", "x".repeat(890))
                .repeat(80)
                .trim_end(),
        ),
    );
    let mut text = format!("{}F: {}\n", base.text, "x".repeat(796)).into_bytes();
    while text.len() <= 65536 - 1600 {
        text.extend_from_slice(format!("F: {}\n", "x".repeat(796)).as_bytes());
    }
    let line = text.iter().filter(|&&octet| octet == b'\n').count() + 2;
    let tail = sign(base.text.as_bytes(), &[ANN]).len() - base.text.len();
    let left = 65537 - text.len() - tail;
    assert!((5..900).contains(&left) || left > 900);
    let (first, second) = (left / 2, left - left / 2);
    text.extend_from_slice(
        format!(
            "F: {}\nF: {}\n",
            "x".repeat(first - 4),
            "x".repeat(second - 4)
        )
        .as_bytes(),
    );
    let large = sign(text, &[ANN]);
    assert_eq!(large.len(), 65537);
    v.text("octets-65537", "statement", line + 1, "", &large);
    v.about("1-8");
    v.text("empty", "grammar", 1, "Tidings", b"");
    v.text("empty-line", "grammar", end, "", &base.with(""));
    v.text("no-colon", "grammar", end, "", &base.with("Summary"));
    v.text("no-space", "grammar", end, "", &base.with("Summary:text"));
    v.text(
        "two-spaces",
        "grammar",
        end,
        "",
        &base.with("Summary:  text"),
    );
    v.text(
        "tab-for-space",
        "grammar",
        end,
        "",
        &base.with("Summary:\ttext"),
    );
    v.text(
        "space-before-colon",
        "grammar",
        end,
        "",
        &base.with("Summary : text"),
    );
    v.text(
        "trailing-space",
        "grammar",
        end,
        "",
        &base.with("Summary: text "),
    );
    v.text(
        "leading-space",
        "grammar",
        end,
        "",
        &base.with(" Summary: text"),
    );
    v.text("no-value", "grammar", end, "", &base.with("Summary: "));
    v.text(
        "name-begins-with-digit",
        "grammar",
        end,
        "",
        &base.with("1st: x"),
    );
    v.text(
        "name-with-underscore",
        "grammar",
        end,
        "",
        &base.with("Not_Before: x"),
    );
    v.text(
        "name-65",
        "grammar",
        end,
        "",
        &base.with(&format!("{}: x", "N".repeat(65))),
    );
}

pub(super) fn first_lines(v: &mut Vectors, base: &Base) {
    v.about("1-9");
    for name in ["Channel", "Serial", "Previous", "Time", "Trust"] {
        let line = base.text.lines().position(|l| l.starts_with(name)).unwrap() + 1;
        let without: String = base
            .text
            .lines()
            .filter(|l| !l.starts_with(name))
            .map(|l| format!("{l}\n"))
            .collect();
        let layer = if name == "Trust" {
            "statement"
        } else {
            "grammar"
        };
        v.text(
            &format!("no-{}", name.to_lowercase()),
            layer,
            line,
            name,
            &sign(without, &[ANN]),
        );
    }
    let lines: Vec<&str> = base.text.lines().collect();
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]]
        .concat()
        .join("\n")
        + "\n";
    v.text(
        "wrong-order",
        "grammar",
        3,
        "Serial",
        &sign(swapped, &[ANN]),
    );
    v.text(
        "first-line-again",
        "statement",
        base.end,
        "Trust",
        &base.with("Trust: 1"),
    );
    v.text(
        "tidings-again",
        "statement",
        base.end,
        "Tidings",
        &base.with("Tidings: 1 release"),
    );
    let digest = StatementId::of(b"payload");
    v.text(
        "previous-in-first",
        "statement",
        4,
        "Previous",
        &base.swap("Previous: -", &format!("Previous: {digest}")),
    );
    v.text(
        "no-previous-in-second",
        "statement",
        4,
        "Previous",
        &base.swap("Serial: 1", "Serial: 2"),
    );
    v.about("1-12");
    v.text(
        "version-2",
        "grammar",
        1,
        "Tidings",
        &base.swap("1 release", "2 release"),
    );
    v.text(
        "version-01",
        "grammar",
        1,
        "Tidings",
        &base.swap("1 release", "01 release"),
    );
    v.text(
        "unknown-kind",
        "grammar",
        1,
        "Tidings",
        &base.swap("1 release", "1 rumour"),
    );
    v.about("1-11");
    v.text(
        "version-twice",
        "statement",
        base.end,
        "Version",
        &base.with("Version: 1.1"),
    );
    v.text(
        "summary-twice",
        "statement",
        base.end + 1,
        "Summary",
        &base.with("Summary: one\nSummary: two"),
    );
    v.text(
        "critical-twice",
        "statement",
        base.end + 1,
        "Critical",
        &base.with("Critical: Version\nCritical: Version"),
    );
    v.text(
        "name-in-lower-case",
        "statement",
        base.end,
        "payload",
        &base.with("payload: raw 1 x y"),
    );
    v.text(
        "critical-in-lower-case",
        "statement",
        base.end,
        "critical",
        &base.with("critical: Version"),
    );
    v.text(
        "name-of-another-kind-in-upper-case",
        "statement",
        base.end,
        "WITHDRAWS",
        &base.with("WITHDRAWS: 1"),
    );
    v.text(
        "field-of-another-kind",
        "statement",
        base.end,
        "Withdraws",
        &base.with(&format!("Withdraws: 1 {digest}")),
    );
    v.text(
        "closed-in-a-release",
        "statement",
        base.end,
        "Closed",
        &base.with("Closed: vectors.os.*"),
    );
}
