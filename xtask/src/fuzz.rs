//! The fuzzers, and what they begin with.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, ensure};

use super::{cargo, root, run, setup};

const FUZZED: [&str; 2] = ["statement", "session"];

/// All targets beside each other: each is one thread.
pub(super) fn fuzz(seconds: u32) -> anyhow::Result<()> {
    setup::cargo_tool("cargo-fuzz", "0.13.2")?;
    let seeds = fuzz_seeds()?;
    // The sanitizers want a nightly compiler; without them the instrumentation works with every
    // compiler.
    let fuzz = |what: &str, target: &str| {
        let mut fuzz = cargo(&format!("fuzz {what} --sanitizer none {target}"));
        fuzz.env("RUSTC_BOOTSTRAP", "1");
        fuzz
    };
    for target in FUZZED {
        run(&mut fuzz("build", target))?;
    }
    let mut running = Vec::new();
    for target in FUZZED {
        let corpus = root().join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus)?;
        let mut fuzz = fuzz("run", target);
        fuzz.arg(corpus)
            .arg(&seeds)
            .args(["--", "-verbosity=0", "-print_final_stats=1"])
            .arg(format!("-max_total_time={seconds}"))
            .stderr(Stdio::piped());
        println!("$ cargo fuzz run {target}, for {seconds} s");
        running.push((target, fuzz.spawn()?));
    }
    let mut failed = Vec::new();
    for (target, fuzz) in running {
        let output = fuzz.wait_with_output()?;
        println!("{target}:\n{}", String::from_utf8_lossy(&output.stderr));
        failed.extend((!output.status.success()).then_some(target));
    }
    ensure!(failed.is_empty(), "fuzzing has failed: {failed:?}");
    Ok(())
}

/// The statements of the vectors, in a directory of their own.
fn fuzz_seeds() -> anyhow::Result<PathBuf> {
    let seeds = root().join("target/fuzz-seeds");
    std::fs::create_dir_all(&seeds)?;
    for kind in ["good", "bad"] {
        for entry in std::fs::read_dir(root().join("spec/vectors").join(kind))? {
            let path = entry?.path();
            let octets = std::fs::read(&path)?;
            let body = octets
                .windows(2)
                .position(|w| w == b"\n\n")
                .map_or(&octets[..], |end| &octets[end + 2..]);
            std::fs::write(seeds.join(path.file_name().context("no name")?), body)?;
        }
    }
    Ok(seeds)
}
