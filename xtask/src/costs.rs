//! What must not grow unnoticed: the instructions of the inner loops, and the sizes of what is
//! shipped.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail, ensure};

use super::{
    SMALL_AGENT, build, cargo, command, quietly, release, root, run, setup, small_agent, waiting,
};

/// How much dearer than recorded an inner loop may become, in parts of a hundred.
const DEARER: u64 = 10;
/// Loops, and how often they run: the difference of the two runs is what so many turns execute.
const LOOPS: &[(&str, u64, u64)] = &[
    ("parse", 20, 220),
    ("verify", 4, 44),
    ("render", 20, 220),
    ("command", 20, 220),
    ("receive", 20, 220),
    ("append", 4, 24),
];

/// A program of `broker/benches/`, built in one go with every other release program.
pub(super) fn bench(name: &str) -> anyhow::Result<PathBuf> {
    let build = format!("build --release --workspace --features tidings-benches/{name}");
    run(&mut cargo(&build))?;
    Ok(root().join("target/release").join(name))
}

fn executed(loops: &Path, name: &str, turns: u64) -> anyhow::Result<u64> {
    let mut valgrind = command("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(loops)
        .args(["--count", name, &turns.to_string()]);
    let output = valgrind.output().context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "the loop {name} failed under valgrind: {said}"
    );
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    collected
        .and_then(|(_, number)| number.trim().parse().ok())
        .with_context(|| format!("valgrind counted nothing: {said}"))
}

/// Runs each bench once, and compares the instructions of each loop with what is recorded.
pub(super) fn instructions(record: bool) -> anyhow::Result<()> {
    setup::packages(&["valgrind"])?;
    let loops = bench("loops")?;
    run(command(&loops).args(["--bench", "--test"]))?;
    let file = root().join("broker/benches/instructions");
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    let recorded: BTreeMap<&str, u64> = recorded
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
        .collect();
    let (mut text, mut dearer) = (String::new(), Vec::new());
    let mut table =
        "| inner loop | instructions a turn | recorded | |\n| --- | ---: | ---: | ---: |\n"
            .to_owned();
    for (name, few, many) in LOOPS {
        let each = (executed(&loops, name, *many)? - executed(&loops, name, *few)?) / (many - few);
        let before = recorded.get(name).copied();
        let change = before.map_or(String::new(), |before| {
            format!("{:+.1} %", (each as f64 / before as f64 - 1.0) * 100.0)
        });
        table.push_str(&format!(
            "| {name} | {each} | {} | {change} |\n",
            before.map_or("nothing".into(), |before| before.to_string())
        ));
        text.push_str(&format!("{name} {each}\n"));
        if before.is_none_or(|before| each * 100 > before * (100 + DEARER)) {
            dearer.push(*name);
        }
    }
    print!("{table}");
    if record {
        fs::write(&file, text)?;
        println!("recorded in {}", file.display());
    } else if !dearer.is_empty() {
        bail!(
            "dearer by more than {DEARER} %: {}. If it is worth it, record the new figures in the same commit: `cargo xtask instructions --record`",
            dearer.join(", ")
        );
    }
    Ok(())
}

/// What was measured, and what it may be.
struct Size {
    what: &'static str,
    octets: u64,
    most: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Octets of a section's code.
fn code(program: &Path) -> anyhow::Result<u64> {
    let output = command("size")
        .arg("-A")
        .arg(program)
        .output()
        .context("cannot run size, of binutils")?;
    let text = String::from_utf8(output.stdout)?;
    let line = text
        .lines()
        .find(|line| line.starts_with(".text"))
        .context("no .text")?;
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .context("no size of .text")
}

/// The verifier in a program without the standard library: links only if nothing below it needs
/// that. For processors without vector units, which is what such programs run on; with tables and
/// unrolled rounds it would be twice as large, and quicker.
pub(super) fn verifier() -> anyhow::Result<PathBuf> {
    let flags = "--cfg curve25519_dalek_backend=\"serial\" --cfg sha2_backend=\"soft\" --cfg sha2_backend_soft=\"compact\" -C force-unwind-tables=no";
    let workspace = root().join("tests/nostd");
    let mut build = cargo("build --quiet --release");
    run(build.current_dir(&workspace).env("RUSTFLAGS", flags))?;
    let program = workspace.join("target/release/nostd-verifier");
    run(&mut command(&program))?;
    println!("the verifier links and works without the standard library");
    Ok(program)
}

/// A device's program, built for size as the agent is: much of what is below both is compiled once.
const DEVICE: &str = "build --profile small --package tidings-device --features program";

fn device() -> anyhow::Result<PathBuf> {
    run(&mut cargo(DEVICE))?;
    Ok(root().join("target/small/device"))
}

/// Compiles what the steps of CI want that is optimized. What is built for size is compiled beside
/// the rest: each leaves processors idle where it has come to a large crate, or to a last program.
pub(super) fn programs() -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let small = scope.spawn(|| {
            quietly(&mut cargo(SMALL_AGENT))?;
            quietly(&mut cargo(DEVICE))
        });
        let large = bench("loops");
        match small.join() {
            Ok(small) => small.and(large.map(drop)),
            Err(_) => bail!("the build for size has panicked"),
        }
    })
}

/// The proportional set size of a device that watches over TLS and has got a release.
fn device_memory(program: &Path) -> anyhow::Result<u64> {
    let directory = root().join("target/device");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let mut demo = release("tidingsd")
        .args(["demo", "--releases", "3", "--keep"])
        .arg(&directory)
        .stdout(Stdio::piped())
        .spawn()?;
    let measured = (|| {
        let mut said = BTreeMap::new();
        for line in BufReader::new(demo.stdout.take().context("no output")?).lines() {
            let line = line?;
            if line == "ready" {
                break;
            }
            if let Some((name, value)) = line.split_once('=') {
                said.insert(name.to_owned(), value.to_owned());
            }
        }
        pss_of_device(program, &said, &directory.join("small.state"))
    })();
    demo.kill()?;
    demo.wait()?;
    measured
}

/// The same, of a device that is started with what the demonstration has said.
fn pss_of_device(
    program: &Path,
    said: &BTreeMap<String, String>,
    state: &Path,
) -> anyhow::Result<u64> {
    let of = |name: &str| {
        said.get(name)
            .cloned()
            .with_context(|| format!("the demonstration did not say {name}"))
    };
    let port = of("nntps")?
        .rsplit_once(':')
        .map(|(_, port)| port.to_owned())
        .context("no port")?;
    let mut device = command(program)
        .args([
            format!("nntps://localhost:{port}"),
            of("anchor")?,
            of("ca")?,
            of("channel")?,
        ])
        .arg(state)
        .stdout(Stdio::piped())
        .spawn()?;
    let first = BufReader::new(device.stdout.take().context("no output")?)
        .lines()
        .next();
    let memory = fs::read_to_string(format!("/proc/{}/smaps_rollup", device.id()));
    // It would watch for ever.
    device.kill()?;
    device.wait()?;
    println!(
        "the device got release {}",
        first.context("the device got nothing")??
    );
    let memory = memory?;
    let kibibytes = memory
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|line| line.split_whitespace().next());
    anyhow::Ok(
        kibibytes
            .and_then(|n| n.parse::<u64>().ok())
            .context("no Pss")?
            * KIB,
    )
}

/// A program without what is for debuggers.
fn stripped(program: &Path) -> anyhow::Result<PathBuf> {
    let name = program.file_name().context("no name")?.display();
    let to = root().join("target").join(format!("{name}-stripped"));
    run(command("strip").arg(program).arg("-o").arg(&to))?;
    Ok(to)
}

/// What is shipped, and how large it may be.
pub(super) fn sizes() -> anyhow::Result<()> {
    setup::packages(&["binutils"])?;
    build()?;
    let daemon = stripped(&root().join("target/release/tidingsd"))?;
    let shipped = small_agent()?;
    let agent = stripped(&shipped.join("tidings-agent"))?;
    let (waiting, woken) = waiting::cost(&shipped)?;
    let verifier = verifier()?;
    let device = device()?;
    let octets = |path: &Path| fs::metadata(path).map(|file| file.len());
    let all = [
        Size {
            what: "tidingsd, stripped",
            octets: octets(&daemon)?,
            most: 11 * MIB,
        },
        Size {
            what: "a device program: library, TLS, push",
            octets: octets(&device)?,
            most: 5 * MIB / 2,
        },
        Size {
            what: "its memory while it watches",
            octets: device_memory(&device)?,
            most: 6 * MIB,
        },
        Size {
            what: "tidings-agent, stripped",
            octets: octets(&agent)?,
            most: 5 * MIB,
        },
        Size {
            what: "the agent's memory while it waits",
            octets: waiting * KIB,
            most: 8 * MIB,
        },
        Size {
            what: "code of the verifier without the standard library",
            octets: code(&verifier)?,
            most: 100 * KIB,
        },
    ];
    keep(&all)?;
    ensure!(
        woken == 0,
        "the agent wakes up between heartbeats, {woken} times"
    );
    Ok(())
}

/// Both: while instructions are counted, which takes one processor, the agent waits.
pub(super) fn all() -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let counted = scope.spawn(|| instructions(false));
        let sizes = sizes().context("sizes");
        match counted.join() {
            Ok(counted) => counted.context("instructions").and(sizes),
            Err(_) => bail!("counting instructions has panicked"),
        }
    })
}

/// Prints them, and fails where one is larger than it may be.
fn keep(all: &[Size]) -> anyhow::Result<()> {
    let mut table = "| what | KiB | at most |\n| --- | ---: | ---: |\n".to_owned();
    for Size { what, octets, most } in all {
        let kib = *octets as f64 / KIB as f64;
        table.push_str(&format!("| {what} | {kib:.0} | {} |\n", most / KIB));
    }
    print!("{table}");
    let over: Vec<_> = all
        .iter()
        .filter(|size| size.octets > size.most)
        .map(|size| size.what)
        .collect();
    ensure!(
        over.is_empty(),
        "larger than it may be: {}",
        over.join(", ")
    );
    Ok(())
}
