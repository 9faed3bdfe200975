//! What was measured, under which conditions: a table, JSON, a chart.

use std::{path::Path, time::Duration};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tidings_tests::bench::{
    Process, Spread,
    chart::{Bar, bars, number},
};
use tokio::time::Instant;

use super::output;

/// The parts of a spread that are shown.
const PARTS: &[(&str, f64)] = &[
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

pub(super) struct Report {
    what: &'static str,
    broker: String,
    process: Option<Process>,
    conditions: Vec<(&'static str, String)>,
    figures: Vec<(&'static str, f64, &'static str)>,
    delays: Option<(&'static str, Spread)>,
}

/// Time and CPU time since the start.
pub(super) struct Stopwatch {
    began: Instant,
    cpu: Option<(Process, Duration)>,
}

impl Stopwatch {
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Report {
    pub(super) fn new(what: &'static str, broker: String, process: Option<Process>) -> Self {
        Self {
            what,
            broker,
            process,
            conditions: Vec::new(),
            figures: Vec::new(),
            delays: None,
        }
    }

    pub(super) fn condition(&mut self, name: &'static str, value: impl ToString) {
        self.conditions.push((name, value.to_string()));
    }

    pub(super) fn figure(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.figures.push((name, value, unit));
    }

    pub(super) fn delays(&mut self, what: &'static str, delays: Spread) {
        self.delays = Some((what, delays));
    }

    /// Begins to measure.
    pub(super) fn begin(&self) -> anyhow::Result<Stopwatch> {
        let cpu = self
            .process
            .map(|process| anyhow::Ok((process, process.cpu().context("--pid")?)))
            .transpose()?;
        Ok(Stopwatch {
            began: Instant::now(),
            cpu,
        })
    }

    /// How many there were a second, and what each has cost the broker.
    pub(super) fn rate(
        &mut self,
        what: &'static str,
        count: usize,
        stopwatch: &Stopwatch,
    ) -> anyhow::Result<()> {
        let elapsed = stopwatch.elapsed();
        self.figure("count", count as f64, what);
        self.figure("time", elapsed.as_secs_f64(), "s");
        self.figure("rate", count as f64 / elapsed.as_secs_f64(), "/s");
        if let Some((process, before)) = stopwatch.cpu {
            let used = process.cpu().context("--pid")?.saturating_sub(before);
            self.figure(
                "broker CPU each",
                used.as_secs_f64() * 1e6 / count.max(1) as f64,
                "µs",
            );
        }
        Ok(())
    }

    /// The broker's memory now, if its process is known.
    pub(super) fn memory(&self) -> anyhow::Result<Option<u64>> {
        self.process
            .map(|process| process.memory().context("--pid"))
            .transpose()
    }

    fn json(&self) -> Value {
        let conditions: Map<_, _> = self
            .conditions
            .iter()
            .map(|(name, value)| ((*name).into(), value.as_str().into()))
            .collect();
        let figure = |(name, value, unit): &(&str, f64, &str)| {
            ((*name).into(), json!({"value": value, "unit": unit}))
        };
        let figures: Map<_, _> = self.figures.iter().map(figure).collect();
        let delays = self.delays.as_ref().map(|(what, delays)| {
            let parts: Map<_, _> = PARTS
                .iter()
                .map(|(name, part)| ((*name).into(), delays.at(*part).into()))
                .collect();
            json!({"of": what, "count": delays.count(), "milliseconds": parts})
        });
        json!({"bench": self.what, "broker": self.broker, "conditions": conditions, "figures": figures, "delays": delays})
    }

    pub(super) fn show(&self, as_json: bool, svg: Option<&Path>) -> anyhow::Result<()> {
        if let (Some(path), Some((what, delays))) = (svg, &self.delays) {
            let bar = |(name, part): &(&str, f64)| Bar {
                label: (*name).into(),
                value: delays.at(*part),
                spread: None,
                ours: true,
            };
            let all: Vec<Bar> = PARTS.iter().map(bar).collect();
            let conditions: Vec<String> = self
                .conditions
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            let title = format!("{}: {what}", self.what);
            let chart = bars(&title, &format!("ms; {}", conditions.join(", ")), &all);
            std::fs::write(path, chart)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if as_json {
            output::line(&self.json().to_string());
            return Ok(());
        }
        let conditions: Vec<String> = self
            .conditions
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        output::line(&format!(
            "{} of {}: {}",
            self.what,
            self.broker,
            conditions.join(", ")
        ));
        let mut rows: Vec<[String; 3]> = self
            .figures
            .iter()
            .map(|(name, value, unit)| [(*name).into(), number(*value), (*unit).into()])
            .collect();
        if let Some((what, delays)) = &self.delays {
            rows.extend(PARTS.iter().map(|(name, part)| {
                [
                    format!("{what}, {name}"),
                    number(delays.at(*part)),
                    "ms".into(),
                ]
            }));
        }
        for [what, value, unit] in rows {
            output::row(&what, &value, &unit);
        }
        Ok(())
    }
}
