//! The chores of this repository: `cargo xtask` lists them, `cargo xtask ci` is exactly what CI
//! does.
#![allow(clippy::print_stdout)]

mod agent;
mod ci;
mod costs;
mod fuzz;
mod interop;
mod languages;
mod package;
mod setup;
mod simulate;
mod size;
mod targets;
mod trials;
mod waiting;
mod words;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The chores of this repository")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that CI does, in its order; installs what is missing
    Ci,
    /// Formatting, lengths of functions and files, clippy, documentation, the no_std build,
    /// dependencies
    Lint,
    /// Dependencies alone: licences, sources, duplicates, advisories
    Deny,
    /// The verifier in a program without the standard library
    Nostd,
    /// The ABNF of the specification against its vectors, with a parser that is not ours; the lives
    /// of devices in another implementation
    Spec,
    /// The walk-through of the README, command by command
    Readme,
    /// Write the test vectors of the specification anew
    Vectors,
    /// Other people's software against ours: all of it, or what is named
    Interop {
        /// nntplib, net-nntp, device, c, python, inn, or a reader: slrn, slrnpull, suck, tin,
        /// fetchnews, pullnews, nntpget, actsync
        names: Vec<String>,
    },
    /// Put the library for other languages where compilers look: header, shared and static library,
    /// and a file for pkg-config
    Capi {
        /// Below this directory
        #[arg(long, default_value = "target/capi")]
        prefix: PathBuf,
    },
    /// Write the header of the library for other languages anew, from its code
    Header,
    /// Make the wheel for Python, with the library in it, in target/wheel
    Wheel,
    /// The agent's handlers with their real tools, as root; `setup` installs those
    Agent {
        /// setup, sweep, rsync-tree, btrfs-send, btrfs-send+zstd, ostree, grub, uboot,
        /// systemd-boot, rauc, swupdate, sysupdate, vm, systemd-boot-vm, livepatch, zfs, nspawn,
        /// fleet; all but setup if none is named
        names: Vec<String>,
    },
    /// The packages for Debian, made twice and compared; with --test they are installed and used
    Package(package::Package),
    /// The programs for other machines: static ones (musl), and a check for aarch64; only where the
    /// targets are installed
    Targets,
    /// A tree of brokers and devices in network namespaces, with everything that goes wrong in a
    /// network
    Tree {
        /// Repeats a run
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Three brokers that are one origin and their ZooKeeper servers, in network namespaces, and
    /// everything that goes wrong with them
    Cluster {
        /// How many schedules of faults, one after the other
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        /// The first of them: repeats a run
        #[arg(long)]
        seed: Option<u64>,
        /// How many channels begin in the first of them; a cluster has at most 10,000 in all
        #[arg(long, default_value_t = 9_900)]
        channels: usize,
        /// Also have late, and hold, what the ZooKeeper servers say to each other: 3.8.0 may lose
        /// what is settled then
        #[arg(long)]
        servers: bool,
    },
    /// An origin, mirrors, devices, publishers and a mirror that lies in one thread, on a network,
    /// disks, clocks and chance that are simulated: the same seed does the same
    Simulate {
        /// How many runs, the seeds from 0 on
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// One run alone, with all that happens
        #[arg(long)]
        seed: Option<u64>,
    },
    /// What mirrors cost: latency over four tiers, cold starts beside INN, catching up, 75,000
    /// subscribers; takes some minutes
    Mirrors {
        /// A tenth of everything, and without INN
        #[arg(long)]
        quick: bool,
    },
    /// The power goes under load, again and again: a broker on a file system that forgets what was
    /// not synced (FUSE, as root)
    Crash {
        /// How often
        #[arg(long, default_value_t = 300)]
        rounds: u32,
        /// Repeats a run
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// What the store costs, beside a bare file on the same disk: speed, octets written, starts,
    /// memory; takes some minutes
    Store,
    /// A device that slept through trust rotations and releases, between a hostile mirror and an
    /// honest one
    Sleeper {
        /// How many rotations
        #[arg(long, default_value_t = 1_000)]
        rotations: u32,
        /// How many releases
        #[arg(long, default_value_t = 10_000)]
        releases: u32,
    },
    /// Many channels in one namespace: beats, a rotation of the release key, a new mirror, new
    /// devices
    Namespace {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        channels: u32,
    },
    /// The status page in a real browser, with ten thousand channels too; pictures go to
    /// target/page
    Page,
    /// Many subscribers on one broker, in clear text and over TLS, beside a bare send loop; one
    /// that stops reading
    Fanout {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        subscribers: u32,
        /// How often everything is measured
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Each inner loop once, and the instructions that it executes; fails if one has become a tenth
    /// dearer than recorded
    Instructions {
        /// Record them anew
        #[arg(long)]
        record: bool,
    },
    /// Lines of code of each part, beside what it may have and what it was meant to have
    Size,
    /// How large is what is shipped: the daemon, a device's program and memory, the agent's too
    /// and how often it wakes up, the verifier without the standard library
    Sizes,
    /// What publications, polls and deliveries cost while channels grow to 99,000 and statements to
    /// two million; takes some minutes
    Growth,
    /// What somebody polite waits for while others send trains of commands or hardly read, and
    /// while retention is at work; takes some minutes
    Hostile,
    /// Tidings beside mosquitto, nats-server, Redis, nginx and INN, in turns; writes
    /// docs/performance.md; takes an hour
    Peers {
        /// How often each is measured
        #[arg(long, default_value_t = 10)]
        rounds: u32,
        /// fanout, tls, publish, poll or storm; repeatable; all of them if none is named
        #[arg(long = "suite")]
        suites: Vec<String>,
        /// Only write the page, of what was measured before
        #[arg(long)]
        page: bool,
    },
    /// Durable, verified POSTs a second
    Publish {
        /// For how long each number of publishers
        #[arg(long, default_value_t = 5)]
        seconds: u32,
        /// Beside each other: one broker, a cluster of three, and ZooKeeper alone; so many rounds
        #[arg(long, value_name = "ROUNDS", num_args = 0..=1, default_missing_value = "1")]
        cluster: Option<u32>,
    },
    /// Fuzz each target for so many seconds
    Fuzz {
        /// For how long
        #[arg(default_value_t = 60)]
        seconds: u32,
    },
}

/// Words of the README.
const README_WORDS: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// A command in the root of the repository.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("PATH", setup::path());
    command
}

/// Runs a command; shows it first.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let text = format!("{command:?}").replace('"', "");
    let text = text
        .split_once(" cargo")
        .map_or(text.clone(), |(_, rest)| format!("cargo{rest}"));
    println!("$ {}", text.trim());
    let status = command
        .status()
        .with_context(|| format!("cannot run {text}"))?;
    ensure!(status.success(), "{text} ended with {status}");
    Ok(())
}

/// Runs a command that says something only if it fails.
fn quietly(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn cargo(arguments: &str) -> Command {
    let mut command = command("cargo");
    command.args(arguments.split(' '));
    command
}

fn release(name: &str) -> Command {
    command(root().join("target/release").join(name))
}

/// One of the trials in `tests/src/bin/trials/`.
fn trial(name: &str) -> Command {
    let mut command = release("trials");
    command.arg(name);
    command
}

fn lint() -> anyhow::Result<()> {
    run(&mut cargo("fmt --all --check"))?;
    size::lint()?;
    words::count()?;
    run(&mut cargo(
        "clippy --workspace --all-targets --all-features -- -D warnings",
    ))?;
    // With an example, features are those that clippy has checked what is below with.
    run(
        cargo("doc --workspace --lib --example vectors --no-deps --all-features")
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    nostd()?;
    deny()
}

/// The library without its default features is compiled for this program.
fn nostd() -> anyhow::Result<()> {
    costs::verifier().map(drop)
}

/// The advisory database is on another host than the crates; where that cannot be reached, this
/// says so.
fn deny() -> anyhow::Result<()> {
    setup::cargo_tool("cargo-deny", "0.20.2")?;
    run(&mut cargo(
        "deny --all-features check bans licenses sources",
    ))?;
    let output = cargo("deny --all-features check advisories")
        .output()
        .context("cannot run cargo deny")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        println!("advisories ok");
    } else if text.contains("advisory database") && text.contains("fetch") {
        println!(
            "NOT CHECKED: advisories. The database could not be fetched; run `cargo deny check advisories` where it can."
        );
    } else {
        bail!("advisories:\n{text}");
    }
    Ok(())
}

/// What a foreign parser and a foreign device need.
const PYTHON: &[&str] = &["abnf==2.9.1", "cryptography==50.0.2"];

fn spec() -> anyhow::Result<()> {
    let python = setup::python(PYTHON)?;
    run(command(&python).arg("spec/check.py"))?;
    run(command(&python).arg("interop/life.py"))?;
    // Features are those of every other test: nothing is built twice.
    run(&mut cargo(
        "test --quiet --workspace --all-features --test spec --test vectors",
    ))
}

fn build() -> anyhow::Result<()> {
    run(&mut cargo("build --release --workspace"))
}

/// The agent and its applier.
const AGENT: [&str; 2] = ["tidings-agent", "tidings-apply"];

/// Builds those for size.
const SMALL_AGENT: &str = "build --profile small --package tidings-agent";

/// Where those are as they are shipped, built for size.
fn small_agent() -> anyhow::Result<PathBuf> {
    run(&mut cargo(SMALL_AGENT))?;
    Ok(root().join("target/small"))
}

/// The README's first command; every step is shown.
fn demo() -> anyhow::Result<()> {
    build()?;
    let output = release("tidingsd").arg("demo").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}{}", String::from_utf8_lossy(&output.stderr));
    let is_shown = |step: u32| text.contains(&format!("\n{step}. "));
    ensure!(
        output.status.success() && (1..=9).all(is_shown) && !text.contains("NOT SHOWN"),
        "a step of the demonstration is missing"
    );
    Ok(())
}

/// Every block of the README and of the guide's chapters that is marked as part of the
/// walk-through, in one shell, in a directory of its own.
fn readme() -> anyhow::Result<()> {
    setup::packages(&["openssh-client", "curl"])?;
    build()?;
    let guide = root().join("docs/guide");
    let summary = std::fs::read_to_string(guide.join("SUMMARY.md"))?;
    let chapters = summary
        .lines()
        .filter(|line| line.starts_with("* ["))
        .filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    let mut text = std::fs::read_to_string(root().join("README.md"))?;
    ensure!(
        text.split_whitespace().count() <= README_WORDS,
        "the README has more than {README_WORDS} words"
    );
    for chapter in chapters {
        text.push_str(
            &std::fs::read_to_string(guide.join(chapter))
                .with_context(|| format!("the guide has no {chapter}"))?,
        );
    }
    let blocks: Vec<&str> = text
        .split("```sh walkthrough\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    ensure!(
        blocks.len() >= 10,
        "the README and the guide have lost their walk-through"
    );
    let directory = root().join("target/readme");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    let mut path = root().join("target/release").into_os_string();
    path.push(":");
    path.push(setup::path());
    println!("$ the walk-through of the README and the guide");
    // Whatever it comes to, no broker of it stays.
    let script = format!("trap 'kill $(jobs -p) || true' EXIT\n{}", blocks.concat());
    let mut shell = Command::new("timeout");
    shell
        .args(["300", "bash", "-eux", "-c", &script])
        .current_dir(&directory)
        .env("PATH", path);
    // What a person keeps below his home is not this test's.
    let status = shell
        .env("XDG_STATE_HOME", directory.join("state"))
        .env("XDG_CONFIG_HOME", directory.join("config"))
        .status()?;
    ensure!(status.success(), "the walk-through ended with {status}");
    Ok(())
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Ci => ci::ci(),
        Task::Lint => lint(),
        Task::Deny => deny(),
        Task::Nostd => nostd(),
        Task::Spec => spec(),
        Task::Readme => readme(),
        Task::Vectors => run(&mut cargo(
            "run --quiet --package tidings-protocol --example vectors -- spec/vectors",
        )),
        Task::Interop { names } => interop::run(&names),
        Task::Capi { prefix } => languages::install(&prefix),
        Task::Header => languages::header(),
        Task::Wheel => languages::wheel().map(drop),
        Task::Agent { names } => agent::agent(&names),
        Task::Package(arguments) => package::package(arguments),
        Task::Targets => targets::targets(),
        Task::Tree { seed } => trials::tree(seed),
        Task::Cluster {
            seeds,
            seed,
            channels,
            servers,
        } => trials::cluster(seeds, seed, channels, servers),
        Task::Mirrors { quick } => trials::mirrors(quick),
        Task::Crash { rounds, seed } => trials::crash(rounds, seed),
        Task::Simulate { seeds, seed } => simulate::simulate(seeds, seed),
        Task::Store => costs::bench("store").and_then(|store| run(&mut command(store))),
        Task::Sleeper {
            rotations,
            releases,
        } => trials::sleeper(rotations, releases),
        Task::Namespace { channels } => trials::namespace(channels),
        Task::Page => trials::page(),
        Task::Fanout {
            subscribers,
            rounds,
        } => trials::fanout(subscribers, rounds, 60),
        Task::Instructions { record } => costs::instructions(record),
        Task::Size => size::print(),
        Task::Sizes => costs::sizes(),
        Task::Hostile => build().and_then(|()| run(&mut trial("hostile"))),
        Task::Growth => build().and_then(|()| run(&mut trial("growth"))),
        Task::Peers {
            rounds,
            suites,
            page,
        } => trials::peers(rounds, &suites, page),
        Task::Publish { seconds, cluster } => trials::publish(seconds, cluster),
        Task::Fuzz { seconds } => fuzz::fuzz(seconds),
    }
}
