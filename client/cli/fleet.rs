//! Many brokers in one table: who has which head, how far behind the others, and on which tier.

use std::{collections::BTreeSet, io::IsTerminal, time::Duration};

use anyhow::ensure;
use serde_json::json;
use tidings_client::{Channel, Lookout, Seen, Survey, now, terminal};

use super::{From, ends::Ends, exit::Exit, output};

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(2);

/// Looks once, or again and again.
pub(super) async fn compare(from: &From, channels: &[Channel], watch: bool) -> anyhow::Result<()> {
    let mut lookout = Lookout::new(&from.source()?);
    if !watch {
        return judge(&lookout.look(channels).await, channels);
    }
    let mut ends = Ends::new()?;
    loop {
        let survey = tokio::select! {
            survey = lookout.look(channels) => survey,
            _ = ends.told() => return Ok(()),
        };
        if !output::is_json() && terminal::takes_sequences(&std::io::stdout()) {
            // The cursor goes home, and what stood there goes away.
            output::raw(b"\x1b[H\x1b[2J");
        }
        show(&survey, channels);
        tokio::select! {
            _ = ends.told() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Shows how brokers stand; that some are not as they should be is no success.
fn judge(survey: &Survey, channels: &[Channel]) -> anyhow::Result<()> {
    let bad = show(survey, channels);
    let some = || {
        Exit::NotCurrent.as_told(format!(
            "{bad} of {} broker(s) are behind, forked, or cannot be asked",
            survey.0.len()
        ))
    };
    ensure!(bad == 0, some());
    Ok(())
}

/// What one broker has of one channel, beside what the others have.
enum Cell {
    /// The newest that anybody has.
    Newest(u32),
    /// Fewer statements than somebody else, and for how many seconds it could have had more.
    Behind {
        serial: u32,
        statements: u32,
        seconds: u64,
    },
    /// None of it.
    Nothing,
    /// It is not accepted.
    Wrong,
    /// Another broker has something else in its place: one of the two is wrong, and nothing here
    /// says which.
    Forked,
    /// The broker cannot be asked.
    Unknown,
}

fn cell(survey: &Survey, seen: &Seen, channel: &Channel) -> Cell {
    let Ok(view) = &seen.view else {
        return Cell::Unknown;
    };
    if seen.failed.iter().any(|(failed, _)| failed == channel) {
        return Cell::Wrong;
    }
    let Some(here) = view.newest(channel) else {
        return Cell::Nothing;
    };
    let others = || survey.views().filter_map(|(_, view)| view.newest(channel));
    if others().any(|other| other.serial() == here.serial() && other.id() != here.id()) {
        return Cell::Forked;
    }
    let Some(newest) = others().max_by_key(|statement| statement.serial()) else {
        return Cell::Nothing;
    };
    let serial = here.serial().number();
    match newest.serial().number() - serial {
        0 => Cell::Newest(serial),
        statements => Cell::Behind {
            serial,
            statements,
            seconds: now().seconds().saturating_sub(newest.time().seconds()),
        },
    }
}

/// Prints the table; how many brokers are not as they should be.
fn show(survey: &Survey, channels: &[Channel]) -> usize {
    let found = survey.channels();
    let all: BTreeSet<&Channel> = channels.iter().chain(&found).collect();
    let cells: Vec<Vec<Cell>> = survey
        .0
        .iter()
        .map(|seen| {
            all.iter()
                .map(|channel| cell(survey, seen, channel))
                .collect()
        })
        .collect();
    let is_good = |cells: &Vec<Cell>| cells.iter().all(|cell| matches!(cell, Cell::Newest(_)));
    let bad = survey
        .0
        .iter()
        .zip(&cells)
        .filter(|(seen, cells)| seen.view.is_err() || !is_good(cells))
        .count();
    match output::is_json() {
        true => objects(survey, &all, &cells),
        false => table(survey, &all, &cells),
    }
    bad
}

fn objects(survey: &Survey, all: &BTreeSet<&Channel>, cells: &[Vec<Cell>]) {
    let broker = |(seen, cells): (&Seen, &Vec<Cell>)| {
        let cell = |(channel, cell): (&&Channel, &Cell)| {
            let (state, serial, statements, seconds) = match cell {
                Cell::Newest(serial) => ("newest", Some(*serial), 0, 0),
                Cell::Behind {
                    serial,
                    statements,
                    seconds,
                } => ("behind", Some(*serial), *statements, *seconds),
                Cell::Nothing => ("nothing", None, 0, 0),
                Cell::Wrong => ("wrong", None, 0, 0),
                Cell::Forked => ("forked", None, 0, 0),
                Cell::Unknown => ("unknown", None, 0, 0),
            };
            json!({"channel": channel.as_str(), "state": state, "serial": serial, "statements_behind": statements, "seconds_behind": seconds})
        };
        json!({
            "broker": seen.address.to_string(),
            "tier": seen.tier,
            "path": seen.path,
            "error": seen.view.as_ref().err().map(ToString::to_string),
            "channels": all.iter().zip(cells).map(cell).collect::<Vec<_>>(),
        })
    };
    let brokers: Vec<_> = survey.0.iter().zip(cells).map(broker).collect();
    output::object(&json!({"time": now().to_string(), "brokers": brokers}));
}

fn table(survey: &Survey, all: &BTreeSet<&Channel>, cells: &[Vec<Cell>]) {
    let row = |(seen, cells): (&Seen, &Vec<Cell>)| {
        let text = |cell: &Cell| match cell {
            Cell::Newest(serial) => serial.to_string(),
            Cell::Behind {
                serial,
                statements,
                seconds,
            } => format!("{serial} (-{statements}, {seconds} s)"),
            Cell::Nothing => "-".into(),
            Cell::Wrong => "WRONG".into(),
            Cell::Forked => "FORKED".into(),
            Cell::Unknown => "?".into(),
        };
        let tier = seen.tier.map_or("-".into(), |tier| tier.to_string());
        let mut row = vec![seen.address.to_string(), tier];
        row.extend(cells.iter().map(text));
        row
    };
    let header: Vec<&str> = ["broker", "tier"]
        .into_iter()
        .chain(all.iter().map(|channel| channel.as_str()))
        .collect();
    let mut rows: Vec<Vec<String>> = survey.0.iter().zip(cells).map(row).collect();
    if !std::io::stdout().is_terminal() {
        rows.insert(0, header.iter().map(|text| (*text).to_owned()).collect());
    }
    output::table(&header, rows);
    for seen in &survey.0 {
        if let Err(error) = &seen.view {
            output::note(&format!("{}: {error}", seen.address));
        }
        seen.failed.iter().for_each(|(channel, error)| {
            output::note(&format!("{}: {channel}: {error}", seen.address))
        });
    }
}
