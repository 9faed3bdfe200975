//! The programs for other machines than this one: static ones, and those for another processor.

use std::{path::PathBuf, process::Command};

use anyhow::Context;

use super::{cargo, command, run, setup};

/// A target, what cargo is to do for it, and what Debian calls its C compiler: ring has C.
struct Target {
    name: &'static str,
    what: &'static str,
    compiler: &'static str,
}

const TARGETS: [Target; 2] = [
    // A device's programs without a library of the system's.
    Target {
        name: "x86_64-unknown-linux-musl",
        what: "build --release --workspace --bin tidings --bin tidings-agent --bin tidings-apply",
        compiler: "musl-tools",
    },
    Target {
        name: "aarch64-unknown-linux-gnu",
        what: "check --workspace --bin tidings --bin tidingsd --bin tidings-agent --bin \
            tidings-apply",
        compiler: "gcc-aarch64-linux-gnu",
    },
];

/// Those whose standard library is installed; of the others it says that they were not checked.
pub(super) fn targets() -> anyhow::Result<()> {
    for Target {
        name,
        what,
        compiler,
    } in &TARGETS
    {
        if !library(name)?.exists() {
            println!(
                "NOT CHECKED: {name}. Its standard library is not here; \
                 `rustup target add {name}` installs it."
            );
            continue;
        }
        setup::packages(&[compiler])?;
        run(cargo(what).args(["--target", name]))?;
        println!("{name}: good");
    }
    Ok(())
}

fn library(target: &str) -> anyhow::Result<PathBuf> {
    let mut rustc: Command = command("rustc");
    let output = rustc
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .context("cannot run rustc")?;
    Ok(String::from_utf8(output.stdout)?.trim().into())
}
