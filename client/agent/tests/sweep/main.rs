//! The sweep (attack 86): the power goes at every point of agent, applier and handlers, one by one;
//! then the loader chooses, and the agent goes on. A point is each place between two changes that
//! any of them makes: each durable write of the agent and the applier, and each program that a
//! handler starts; a write into a slot is torn in its middle too.
//!
//! The machine's directory is copied at each point of one life without a fault. That copy is the
//! disk as it was when everything died there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cases;
#[path = "../common/mod.rs"]
mod common;

use std::{fs, path::Path, process::Command, sync::Arc};

use cases::{Case, cases, is_there, shims};
use common::{Machine, Publisher, Story, TestWorld, octets};
use tidings_agent::{
    journal::Point,
    round::{Intent, Task},
    world::{End, go_on},
};
use tidings_client::Release;
use tidings_protocol::Digest;
use tokio::time::Instant;

const IMAGE: usize = 60_000;
const SLOT: usize = 65_536;
/// More than any story needs.
const BOOTS: u32 = 16;
/// Of so many points that differ one is gone on from: at a desk; `TIDINGS_SWEEP_EACH=1` for all.
const EACH: usize = 8;

/// How a life of a machine has ended.
#[derive(Debug)]
struct Outcome {
    intent: Intent,
    into_b: u32,
}

/// Boots, and goes on, until the agent rests. What boots must be whole.
fn live(
    machine: &Machine,
    story: &Story,
    statement: &str,
    images: [&[u8]; 2],
    point: &Point,
) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut into_b = 0;
    for _ in 0..BOOTS {
        let slot = machine.boot(point);
        let whole = fs::read(machine.slot(&slot)).unwrap();
        if !images.iter().any(|image| whole.starts_with(image)) {
            return Err(format!("slot {slot} was booted, and is not whole"));
        }
        if slot == "B" {
            into_b += 1;
            if story.dead {
                continue;
            }
        }
        let mut journal = machine.journal(point.clone());
        let known = journal.records.task.get("acme.os.stable").cloned();
        let mut task = known.unwrap_or_else(|| Task::new(statement.into()));
        let _ = journal
            .change(|records| drop(records.task.insert("acme.os.stable".into(), task.clone())));
        let mut world = TestWorld {
            machine,
            story,
            point: point.clone(),
            journal,
        };
        let end = runtime
            .block_on(go_on(&mut world, &mut task))
            .map_err(|error| error.to_string())?;
        match end {
            End::Gone => {}
            End::Rest => {
                return Ok(Outcome {
                    intent: task.intent,
                    into_b,
                });
            }
            End::Later(why) => return Err(format!("it waits: {why}")),
        }
    }
    Err("no end".into())
}

fn publish(case: &Case) -> (Publisher, String) {
    let mut publisher = Publisher::new(common::time());
    let statement = publisher.release(Release {
        version: "2".into(),
        payloads: case.payloads.clone(),
        ..Release::default()
    });
    (
        publisher,
        String::from_utf8_lossy(statement.octets()).into_owned(),
    )
}

/// Lives once without a fault, with a copy of the machine at each point; how many there are.
fn record(case: &Case, directory: &Path, old: &[u8], new: &[u8]) -> usize {
    let (publisher, statement) = publish(case);
    let points = directory.join("points");
    fs::create_dir_all(&points).unwrap();
    fs::write(points.join("n"), "0\n").unwrap();
    let root = directory.join("machine");
    let mut machine = Machine::new(&root, &publisher.anchor, old, SLOT);
    machine.path = shims(&directory.join("bin"), &root, &points);
    machine.hand_over(&publisher.news());
    let place = points.clone();
    let point: Point = Arc::new(move |what: &str| {
        let n: usize = fs::read_to_string(place.join("n"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let n = n + 1;
        fs::write(place.join("n"), format!("{n}\n")).unwrap();
        assert!(
            Command::new("cp")
                .arg("-a")
                .arg(&root)
                .arg(place.join(n.to_string()))
                .status()
                .unwrap()
                .success()
        );
        let mut trace = fs::File::options()
            .create(true)
            .append(true)
            .open(place.join("trace"))
            .unwrap();
        std::io::Write::write_all(&mut trace, format!("{n} agent: {what}\n").as_bytes()).unwrap();
    });
    let outcome = live(&machine, &case.story, &statement, [old, new], &point)
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    check(&machine, case, &outcome, old, new)
        .unwrap_or_else(|error| panic!("{}: without a fault: {error}", case.name));
    let count: usize = fs::read_to_string(points.join("n"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (mut before, mut distinct) = (None, String::new());
    for n in 1..=count {
        let now = Some(disk(&points.join(n.to_string())));
        if now != before {
            distinct.push_str(&format!("{n}\n"));
        }
        before = now;
    }
    fs::write(points.join("distinct"), distinct).unwrap();
    count
}

/// What must be true at the end of every life.
fn check(
    machine: &Machine,
    case: &Case,
    outcome: &Outcome,
    old: &[u8],
    new: &[u8],
) -> Result<(), String> {
    let (slot, primary) = (
        machine.read("booted").trim().to_owned(),
        machine.variable("primary"),
    );
    let expected = if case.kept == Intent::Kept { "B" } else { "A" };
    let image = if expected == "B" { new } else { old };
    let freed = machine.root.join("freed").exists();
    let holds = |what: &str, holds: bool| {
        if holds {
            Ok(())
        } else {
            Err(format!(
                "{what}: {outcome:?}, runs {slot}, default {primary}"
            ))
        }
    };
    holds("it ends as it should", outcome.intent == case.kept)?;
    holds(
        "what runs is the default",
        slot == expected && primary == expected,
    )?;
    holds("nothing else is armed", machine.variable("next").is_empty())?;
    holds(
        "what runs is the image",
        fs::read(machine.slot(&slot)).is_ok_and(|whole| whole.starts_with(image)),
    )?;
    holds(
        "at most three boots of a bad one",
        case.kept == Intent::Kept || outcome.into_b <= 3,
    )?;
    holds(
        "the slot of a failed one is not freed",
        freed == (case.kept == Intent::Kept),
    )
}

/// Goes on from one point, in a directory of its own.
#[allow(clippy::too_many_arguments)]
fn resume(
    case: &Case,
    publisher: &Publisher,
    statement: &str,
    points: &Path,
    n: usize,
    place: &Path,
    old: &[u8],
    new: &[u8],
) -> Option<String> {
    let _ = fs::remove_dir_all(place);
    fs::rename(points.join(n.to_string()), place).unwrap();
    let machine = Machine::at(place, &publisher.anchor);
    machine.write_conf();
    let silent: Point = Arc::new(|_| {});
    let ended = live(&machine, &case.story, statement, [old, new], &silent)
        .and_then(|outcome| check(&machine, case, &outcome, old, new));
    let name = || {
        fs::read_to_string(points.join("trace"))
            .unwrap()
            .lines()
            .nth(n - 1)
            .unwrap_or_default()
            .to_owned()
    };
    ended
        .err()
        .map(|error| format!("{}: point {}: {error}", case.name, name()))
}

fn asked_for(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lives each case of a format once, and goes on from its points; how many there are, and what went
/// wrong. In a process of its own: handlers inherit the applier's lock.
fn sweep(format: &str, directory: &Path) {
    let began = Instant::now();
    let (old, new) = images();
    let each = asked_for("TIDINGS_SWEEP_EACH").unwrap_or(EACH);
    let (mut points, mut bad) = (0, Vec::new());
    for (number, case) in cases(format, directory, &old, &new).iter().enumerate() {
        let place = directory.join(number.to_string());
        let count = record(case, &place, &old, &new);
        let (publisher, statement) = publish(case);
        let (all, resumed) = (place.join("points"), place.join("resumed"));
        let distinct = fs::read_to_string(all.join("distinct")).unwrap();
        let some = distinct.lines().step_by(each).map(|n| n.parse().unwrap());
        bad.extend(
            some.filter_map(|n| {
                resume(case, &publisher, &statement, &all, n, &resumed, &old, &new)
            }),
        );
        eprintln!(
            "{}: {count} points, {} bad so far, {:.1} s",
            case.name,
            bad.len(),
            began.elapsed().as_secs_f32()
        );
        points += count;
        fs::remove_dir_all(&place).unwrap();
    }
    fs::write(directory.join("bad"), bad.join("\n")).unwrap();
    fs::write(directory.join("count"), points.to_string()).unwrap();
}

/// In memory, where there is such a place: what is synced is not the question here, what was
/// written is.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// The disk at a point, as one digest: from the same disk the same follows.
fn disk(root: &Path) -> Digest {
    let mut all = Vec::new();
    let mut places = vec![root.to_owned()];
    while let Some(place) = places.pop() {
        let mut entries: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            // A name that was drawn says nothing.
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            all.extend_from_slice(if name.starts_with(".new") {
                b".new"
            } else {
                name.as_bytes()
            });
            match path.is_dir() {
                true => places.push(path),
                false => all.extend_from_slice(Digest::of(&fs::read(&path).unwrap()).octets()),
            }
        }
    }
    Digest::of(&all)
}

fn images() -> (Vec<u8>, Vec<u8>) {
    let old = octets("old", IMAGE);
    let mut new = old.clone();
    new[20_000..24_000].copy_from_slice(&octets("new", 4_000));
    (old, new)
}

#[test]
fn attack_86_the_power_may_go_at_every_point() {
    if let Ok(format) = std::env::var("TIDINGS_SWEEP") {
        return sweep(
            &format,
            Path::new(&std::env::var("TIDINGS_SWEEP_AT").unwrap()),
        );
    }
    let scratch = scratch();
    let start = |format: &'static str| {
        assert!(
            is_there(format),
            "the sweep wants the tools zstd, bsdiff and xdelta3"
        );
        let directory = scratch.path().join(format);
        fs::create_dir(&directory).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "attack_86_the_power_may_go_at_every_point"])
            .arg("--nocapture")
            .env("TIDINGS_SWEEP", format)
            .env("TIDINGS_SWEEP_AT", &directory)
            .stdout(std::process::Stdio::null());
        (command.spawn().unwrap(), directory)
    };
    let started = ["raw", "zstd-patch", "bsdiff", "xdelta3"].map(start);
    let (mut points, mut bad) = (0, String::new());
    for (mut process, directory) in started {
        assert!(process.wait().unwrap().success(), "{}", directory.display());
        let read = |name| fs::read_to_string(directory.join(name)).unwrap();
        points += read("count").parse::<usize>().unwrap();
        bad += &(read("bad") + "\n");
    }
    assert!(bad.trim().is_empty(), "of {points} points:\n{bad}");
    assert!(points > 1_000, "{points} points are too few to be all");
}
