//! Drives a device through lives, and judges its answers.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::report::{Outcome, Report};

/// Lines of answers that are kept before the driver has to wait.
const ANSWERS: usize = 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The driver, and the lines that it answers.
struct Driver {
    child: Child,
    answers: Receiver<String>,
}

impl Driver {
    fn start(command: &[String]) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("no command")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.with_context(|| format!("cannot run {program}"))?;
        let output = child.stdout.take().context("no output")?;
        let (told, answers) = sync_channel(ANSWERS);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, answers })
    }

    /// What it answers; an error if it does not.
    fn ask(&mut self, text: &str) -> Result<String, String> {
        let input = self.child.stdin.as_mut().ok_or("the driver has no input")?;
        input
            .write_all(text.as_bytes())
            .and_then(|()| input.flush())
            .map_err(|error| format!("the driver takes nothing: {error}"))?;
        self.answers
            .recv_timeout(PATIENCE)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    format!("no answer within {} seconds", PATIENCE.as_secs())
                }
                RecvTimeoutError::Disconnected => "the driver has ended".into(),
            })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The requirement that a step is about: the one in its outcome, or none.
fn requirement(outcome: &str) -> &str {
    let number = |word: &&str| {
        word.split_once('-')
            .is_some_and(|(a, b)| [a, b].iter().all(|n| n.parse::<u32>().is_ok()))
    };
    outcome.split(' ').rev().find(number).unwrap_or("-")
}

/// One life; the requirement that a wrong step is about.
fn live(driver: &mut Driver, text: &str) -> (String, Outcome) {
    let mut blocks = text.split("\n\n");
    let head = blocks.next().unwrap_or_default();
    let of = |key: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
            .unwrap_or_default()
    };
    let none = || "-".to_owned();
    match driver.ask(&format!("life {}\n", of("anchor"))).as_deref() {
        Ok("ok") => {}
        Ok(other) => {
            return (
                none(),
                Outcome::Wrong(format!("a new life was answered {other:?}")),
            );
        }
        Err(error) => return (none(), Outcome::Wrong(error.to_owned())),
    }
    for (number, block) in (1..).zip(blocks) {
        let (line, statements) = block
            .trim_end_matches('\n')
            .split_once('\n')
            .unwrap_or((block.trim_end_matches('\n'), ""));
        let (step, expected) = line.split_once(" => ").unwrap_or((line, "ok"));
        let count = statements.lines().count();
        let end = if statements.is_empty() { "" } else { "\n" };
        let found = match driver.ask(&format!("step {count} {step}\n{statements}{end}")) {
            Ok(found) => found,
            Err(error) => {
                return (
                    none(),
                    Outcome::Wrong(format!("step {number}, {step}: {error}")),
                );
            }
        };
        if found == "unable" {
            return (none(), Outcome::LeftOut(format!("step {number}, {step}")));
        }
        if found != expected {
            let about = if requirement(expected) == "-" {
                requirement(&found)
            } else {
                requirement(expected)
            };
            return (
                about.into(),
                Outcome::Wrong(format!(
                    "step {number}, {step}: expected {expected:?}, found {found:?}"
                )),
            );
        }
    }
    (none(), Outcome::Good)
}

pub(crate) fn run(lives: &Path, command: &[String], report: &mut Report) -> anyhow::Result<()> {
    let entries = fs::read_dir(lives).with_context(|| {
        format!(
            "cannot read the lives in {}; name the directory with --lives",
            lives.display()
        )
    })?;
    let mut paths: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    ensure!(
        !paths.is_empty(),
        "there are no lives in {}",
        lives.display()
    );
    let mut driver = Driver::start(command)?;
    for path in paths {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (about, outcome) = live(&mut driver, &text);
        let comment = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("comment: "))
            .unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        report.note(&about, &format!("{name} ({comment})"), outcome);
    }
    Ok(())
}
