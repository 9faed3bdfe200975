//! The agent's handlers with their real tools: what wants root, loop devices, and packages that are
//! no part of CI's.

use std::process::Command;

use anyhow::{Context, bail, ensure};

/// A name, the test that it stands for, and the Debian packages that it wants.
const TOOLS: [(&str, &str, &str); 6] = [
    ("rsync-tree", "rsync_tree", "btrfs-progs rsync"),
    ("btrfs-send", "btrfs_send_on_a_parent", "btrfs-progs rsync"),
    (
        "btrfs-send+zstd",
        "btrfs_send_whole_and_compressed",
        "btrfs-progs rsync zstd",
    ),
    ("ostree", "ostree", "ostree"),
    ("grub", "grub_with_block_devices", "grub-common"),
    ("uboot", "uboot_with_block_devices", "libubootenv-tool"),
];
/// What the sweep wants, which runs with the agent's other tests.
const SWEEP: &str = "bsdiff xdelta3 zstd";

/// Runs those that are named, or all.
pub(super) fn agent(names: &[String]) -> anyhow::Result<()> {
    if names == ["setup"] {
        let all: Vec<&str> = TOOLS
            .iter()
            .flat_map(|tool| tool.2.split(' '))
            .chain(SWEEP.split(' '))
            .collect();
        let status = Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(all)
            .status()?;
        ensure!(status.success(), "apt-get ended with {status}");
        return Ok(());
    }
    let mut chosen: Vec<_> = TOOLS
        .iter()
        .filter(|tool| names.is_empty() || names.iter().any(|name| name == tool.0))
        .collect();
    if let Some(name) = names
        .iter()
        .find(|name| name.as_str() != "sweep" && !TOOLS.iter().any(|tool| tool.0 == name.as_str()))
    {
        let known: Vec<&str> = TOOLS.iter().map(|tool| tool.0).collect();
        bail!(
            "{name:?} is no tool; known are setup, sweep, {}",
            known.join(", ")
        );
    }
    let sweep = names.is_empty() || names.iter().any(|name| name == "sweep");
    if sweep {
        test("sweep", "attack_86_the_power_may_go_at_every_point", &[]).context("the sweep")?;
    }
    for (name, test_name, packages) in chosen.drain(..) {
        println!("agent: {name}");
        test("tools", test_name, &["--ignored"]).with_context(|| {
            format!("{name}; it wants root and the packages {packages}: `cargo xtask agent setup`")
        })?;
    }
    Ok(())
}

fn test(file: &str, name: &str, more: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command.args([
        "test",
        "--quiet",
        "-p",
        "tidings-agent",
        "--test",
        file,
        "--",
        "--exact",
        name,
        "--nocapture",
        "--test-threads",
        "1",
    ]);
    let status = command.args(more).status()?;
    ensure!(status.success(), "cargo test ended with {status}");
    Ok(())
}
