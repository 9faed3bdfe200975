//! Tables and charts.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, ensure};
use tidings_tests::bench::{
    Spread,
    chart::{Bar, bars, number},
};

use super::Line;

const BEGIN: &str = "<!-- what follows is written by `cargo xtask peers` -->\n";
const END: &str = "<!-- end of what is written by `cargo xtask peers` -->\n";

/// The measurements of one suite, of one size, of one contestant.
fn of<'a>(
    lines: &'a [Line],
    suite: &'a str,
    size: usize,
    what: &'a str,
) -> impl Iterator<Item = &'a Line> {
    lines
        .iter()
        .filter(move |line| line.suite == suite && line.size == size && line.what == what)
}

fn names(lines: &[Line], suite: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines.iter().filter(|line| line.suite == suite) {
        if !found.contains(&line.what) {
            found.push(line.what.clone());
        }
    }
    found
}

fn sizes(lines: &[Line], suite: &str) -> Vec<usize> {
    let mut found: Vec<usize> = lines
        .iter()
        .filter(|line| line.suite == suite)
        .map(|line| line.size)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn shown(spread: &Spread) -> String {
    format!(
        "{} ({} to {})",
        number(spread.median()),
        number(spread.least()),
        number(spread.most())
    )
}

/// The ratios to a contestant within each round.
fn ratios(
    lines: &[Line],
    suite: &str,
    size: usize,
    what: &str,
    to: &str,
    value: impl Fn(&Line) -> f64,
) -> Spread {
    let other = |round| of(lines, suite, size, to).find(|line| line.round == round);
    of(lines, suite, size, what)
        .filter_map(|line| Some(value(line) / value(other(line.round)?)))
        .collect()
}

fn chart(
    charts: &Path,
    name: &str,
    title: &str,
    unit: &str,
    all: &[(String, Spread)],
) -> anyhow::Result<String> {
    let bar = |(label, spread): &(String, Spread)| Bar {
        label: label.clone(),
        value: spread.median(),
        spread: Some((spread.least(), spread.most())),
        ours: label.starts_with("tidings"),
    };
    let all: Vec<Bar> = all.iter().map(bar).collect();
    fs::create_dir_all(charts)?;
    fs::write(charts.join(format!("{name}.svg")), bars(title, unit, &all))?;
    Ok(format!("![{title}](charts/{name}.svg)\n\n"))
}

fn table(text: &mut String, header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    writeln!(text, "| {} |", header.join(" | "))?;
    writeln!(text, "| --- |{}", " ---: |".repeat(header.len() - 1))?;
    for row in rows {
        writeln!(text, "| {} |", row.join(" | "))?;
    }
    writeln!(text)?;
    Ok(())
}

fn fan_out(
    text: &mut String,
    lines: &[Line],
    charts: &Path,
    suite: &str,
    reference: &str,
    what: &str,
) -> anyhow::Result<()> {
    for size in sizes(lines, suite) {
        let spread = |name: &str, value: &dyn Fn(&Line) -> f64| {
            of(lines, suite, size, name).map(value).collect::<Spread>()
        };
        let mut rows = Vec::new();
        let mut all = Vec::new();
        for name in names(lines, suite) {
            let cpu = spread(&name, &|line| line.cpu_us);
            let idle: Spread = of(lines, suite, size, &name)
                .filter_map(|line| line.idle_octets)
                .collect();
            rows.push(vec![
                name.clone(),
                shown(&cpu),
                shown(&ratios(lines, suite, size, &name, reference, |line| {
                    line.cpu_us
                })),
                shown(&spread(&name, &|line| line.p99_ms)),
                shown(&spread(&name, &|line| line.last_p99_ms)),
                if idle.count() > 0 {
                    shown(&idle)
                } else {
                    String::new()
                },
            ]);
            all.push((name, cpu));
        }
        writeln!(text, "{size} subscribers, {what}:\n")?;
        let ratio = format!("ratio to *{reference}*");
        table(
            text,
            &[
                "",
                "CPU µs per delivery",
                &ratio,
                "p99 ms to a subscriber",
                "p99 ms to the last",
                "octets per idle subscriber",
            ],
            &rows,
        )?;
        let title = format!("CPU per delivery, {size} subscribers, {what}");
        text.push_str(&chart(
            charts,
            &format!("{suite}-{size}"),
            &title,
            "µs, median and spread",
            &all,
        )?);
    }
    Ok(())
}

fn rates(
    text: &mut String,
    lines: &[Line],
    charts: &Path,
    suite: &str,
    reference: &str,
    what: &str,
) -> anyhow::Result<()> {
    let sizes = sizes(lines, suite);
    for &size in &sizes {
        let (title, chart_name) = match sizes.len() {
            1 => (what.to_owned(), suite.to_owned()),
            _ => (format!("{what}, {size}"), format!("{suite}-{size}")),
        };
        if sizes.len() > 1 {
            writeln!(text, "{size} connections:\n")?;
        }
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        for name in names(lines, suite) {
            let spread = |value: &dyn Fn(&Line) -> f64| {
                of(lines, suite, size, &name).map(value).collect::<Spread>()
            };
            let (rate, delay) = (spread(&|line| line.rate), spread(&|line| line.p99_ms));
            rows.push(vec![
                name.clone(),
                shown(&rate),
                shown(&ratios(lines, suite, size, &name, reference, |line| {
                    line.rate
                })),
                shown(&spread(&|line| line.cpu_us)),
                if delay.most() > 0.0 {
                    shown(&delay)
                } else {
                    String::new()
                },
            ]);
            all.push((name, rate));
        }
        let ratio = format!("ratio to *{reference}*");
        table(
            text,
            &["", "a second", &ratio, "CPU µs each", "p99 ms"],
            &rows,
        )?;
        text.push_str(&chart(
            charts,
            &chart_name,
            &title,
            "a second, median and spread",
            &all,
        )?);
    }
    Ok(())
}

/// Writes the part of a page that is between two marks anew.
pub(super) fn write(of: &Path, into: &Path, charts: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(of).with_context(|| format!("cannot read {}", of.display()))?;
    let lines: Vec<Line> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(!lines.is_empty(), "{} has no measurements", of.display());
    let rounds = |suite: &str| {
        lines
            .iter()
            .filter(|line| line.suite == suite)
            .map(|line| line.round)
            .max()
            .unwrap_or(0)
    };
    let mut page = String::new();
    writeln!(page, "### Push to many\n\n{} rounds.\n", rounds("fanout"))?;
    fan_out(
        &mut page,
        &lines,
        charts,
        "fanout",
        "raw, a statement's octets",
        "clear text",
    )?;
    if rounds("tls") > 0 {
        writeln!(page, "{} rounds.\n", rounds("tls"))?;
        fan_out(
            &mut page,
            &lines,
            charts,
            "tls",
            "nats-server, TLS",
            "TLS 1.3",
        )?;
    }
    if rounds("publish") > 0 {
        writeln!(
            page,
            "### Durable publications, 16 publishers\n\n{} rounds; nobody is pinned.\n",
            rounds("publish")
        )?;
        rates(
            &mut page,
            &lines,
            charts,
            "publish",
            "Ed25519, all cores",
            "Durable publications, 16 publishers",
        )?;
    }
    if rounds("poll") > 0 {
        writeln!(
            page,
            "### Polls on connections that stand\n\n{} rounds.\n",
            rounds("poll")
        )?;
        rates(
            &mut page,
            &lines,
            charts,
            "poll",
            "nginx, 304",
            "Polls on connections that stand",
        )?;
    }
    if rounds("storm") > 0 {
        writeln!(
            page,
            "### Polls, a new TLS connection for each\n\n{} rounds; 32 connections at once.\n",
            rounds("storm")
        )?;
        rates(
            &mut page,
            &lines,
            charts,
            "storm",
            "nginx, full",
            "Polls, each on a new TLS connection",
        )?;
    }
    let before = fs::read_to_string(into)?;
    let (head, rest) = before
        .split_once(BEGIN)
        .with_context(|| format!("{} has lost its marks", into.display()))?;
    let (_, tail) = rest
        .split_once(END)
        .with_context(|| format!("{} has lost its marks", into.display()))?;
    fs::write(into, [head, BEGIN, &page, END, tail].concat())?;
    Ok(())
}
