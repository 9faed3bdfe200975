//! A driver for `tidings-conformance device` over the library: see
//! `tests/src/bin/conformance/README.md`.
#![allow(clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../../../../protocol/tests/device/mod.rs"]
mod device;

use std::io::{BufRead, Write};

fn main() -> anyhow::Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let mut device = None;
    while let Some(line) = lines.next().transpose()? {
        let (what, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match (what, &mut device) {
            ("life", device) => {
                *device = Some(device::Device::new(rest));
                String::new()
            }
            ("step", Some(device)) => {
                let (count, step) = rest.split_once(' ').unwrap_or((rest, ""));
                let count = count.parse()?;
                let text: Vec<String> = lines.by_ref().take(count).collect::<Result<_, _>>()?;
                let text: String = text.iter().map(|line| format!("{line}\n")).collect();
                let statements = if text.is_empty() {
                    vec![]
                } else {
                    tidings_protocol::bundle::parse(text.as_bytes())?
                };
                device.answer(step, statements)
            }
            _ => "unable".into(),
        };
        println!("{}", if answer.is_empty() { "ok" } else { &answer });
        std::io::stdout().flush()?;
    }
    Ok(())
}
