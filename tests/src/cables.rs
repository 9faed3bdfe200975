//! A bridge, and network namespaces that hang on it; and what goes wrong in a network.
//!
//! To be used in namespaces that end with the process: `unshare --net --mount --pid`, as `cargo
//! xtask` does it.

use std::{net::IpAddr, process::Command};

use anyhow::{Context, ensure};

/// Runs a command; what it has said, if it fails.
///
/// # Errors
/// If it fails.
pub fn run(line: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = line.split(' ').collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .with_context(|| format!("cannot run {line}"))?;
    ensure!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The address of a node.
pub fn address(node: usize) -> IpAddr {
    [10, 77, 0, u8::try_from(node + 1).unwrap_or(u8::MAX)].into()
}

/// What stands before a program that is to run on a node.
pub fn launcher(node: usize) -> Vec<String> {
    ["ip", "netns", "exec"]
        .map(String::from)
        .into_iter()
        .chain([format!("n{node}")])
        .collect()
}

/// A bridge here, at 10.77.0.254, and a namespace for each node.
///
/// # Errors
/// If this process may not make namespaces.
pub fn lay(nodes: usize) -> anyhow::Result<()> {
    run("mount -t tmpfs none /run/netns").or_else(|_| {
        run("mkdir -p /run/netns").and_then(|()| run("mount -t tmpfs none /run/netns"))
    })?;
    run("ip link set lo up")?;
    run("ip link add bridge type bridge")?;
    run("ip addr add 10.77.0.254/24 dev bridge")?;
    run("ip link set bridge up")?;
    for node in 0..nodes {
        run(&format!("ip netns add n{node}"))?;
        run(&format!(
            "ip link add v{node} type veth peer name eth0 netns n{node}"
        ))?;
        run(&format!("ip link set v{node} master bridge up"))?;
        run(&format!(
            "ip -n n{node} addr add {}/24 dev eth0",
            address(node)
        ))?;
        run(&format!("ip -n n{node} link set eth0 up"))?;
        run(&format!("ip -n n{node} link set lo up"))?;
        run(&format!("ip netns exec n{node} nft add table inet faults"))?;
        run(&format!(
            "ip netns exec n{node} nft add chain inet faults in {{ type filter hook input priority 0; }}"
        ))?;
        run(&format!(
            "ip netns exec n{node} nft add chain inet faults out {{ type filter hook output priority 0; }}"
        ))?;
    }
    Ok(())
}

/// Of a hundred packets in one direction, `in` or `out`, so many are lost.
///
/// # Errors
/// If nftables refuses.
pub fn lose(node: usize, direction: &str, percent: u64) -> anyhow::Result<()> {
    let which = if percent < 100 {
        format!("numgen random mod 100 < {percent} drop")
    } else {
        "drop".into()
    };
    run(&format!(
        "ip netns exec n{node} nft add rule inet faults {direction} {which}"
    ))
}

/// A node is cut off from all others.
///
/// # Errors
/// If nftables refuses.
pub fn cut(node: usize) -> anyhow::Result<()> {
    lose(node, "in", 100)?;
    lose(node, "out", 100)
}

/// A node is cut off from these TCP ports of all others, and the others from its.
///
/// # Errors
/// If nftables refuses.
pub fn cut_ports(node: usize, ports: &[u16]) -> anyhow::Result<()> {
    for port in ports {
        for (direction, device) in [("in", "iifname"), ("out", "oifname")] {
            for end in ["sport", "dport"] {
                run(&format!(
                    "ip netns exec n{node} nft add rule inet faults {direction} {device} != lo tcp {end} {port} drop"
                ))?;
            }
        }
    }
    Ok(())
}

/// Everything arrives again.
///
/// # Errors
/// If nftables refuses.
pub fn heal(node: usize) -> anyhow::Result<()> {
    run(&format!(
        "ip netns exec n{node} nft flush table inet faults"
    ))
}
