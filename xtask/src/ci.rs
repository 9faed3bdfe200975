//! What CI does, in its order.

use std::time::Instant;

use anyhow::Context;

use super::{
    PYTHON, agent, cargo, costs, demo, fuzz, interop, lint, package, readme, run, setup, spec,
    targets, trials,
};

/// How many seeds, histories and points, of which a plain `cargo test` takes a sample.
const THOROUGH: [(&str, &str); 4] = [
    ("TIDINGS_SEEDS", "500"),
    ("TIDINGS_CLUSTER_SEEDS", "1000"),
    ("TIDINGS_MODEL_CASES", "100000"),
    ("TIDINGS_SWEEP_EACH", "1"),
];

fn tests() -> anyhow::Result<()> {
    // The clock is set back by libfaketime; certificates of peers come from openssl; FleetLock is
    // spoken by others.
    setup::packages(&["libfaketime", "openssl", "curl", "python3"])?;
    // A name server that is silent, and a terminal; an agent that has keys, and a system's file.
    setup::packages(&[
        "iproute2",
        "bsdutils",
        "openssh-client",
        "util-linux",
        "mount",
    ])?;
    // Payloads are made and applied by these; a device in Python is judged.
    setup::packages(&["zstd", "bsdiff", "xdelta3", "rsync"])?;
    setup::packages(trials::ZOOKEEPER)?;
    let (python, promtool) = (setup::python(PYTHON)?, setup::promtool()?);
    let mut tests = cargo("test --workspace --all-features");
    tests
        .env("TIDINGS_PYTHON", python)
        .env("TIDINGS_PROMTOOL", promtool);
    // Most tests of the whole wait more than they work.
    let threads = std::thread::available_parallelism().map_or(2, usize::from) * 3;
    run(tests
        .envs(THOROUGH)
        .env("RUST_TEST_THREADS", threads.to_string()))
}

type Step = fn() -> anyhow::Result<()>;

pub(super) fn ci() -> anyhow::Result<()> {
    let steps: &[(&str, Step)] = &[
        ("lint", || setup::ahead(lint)),
        ("tests", tests),
        ("agent", agent::quick),
        ("spec", spec),
        ("programs", costs::programs),
        ("instructions and sizes", costs::all),
        ("demo", demo),
        ("package", || package::package(package::Package::tested())),
        ("targets", targets::targets),
        ("readme", readme),
        ("page", trials::page),
        ("interop", || interop::run(&[])),
        ("tree", || trials::tree(None)),
        ("cluster", || trials::cluster(5, None, 300, false)),
        ("mirrors", || trials::mirrors(true)),
        ("crash", || trials::crash(40, 1)),
        ("sleeper", || trials::sleeper(1_000, 10_000)),
        ("namespace", || trials::namespace(10_000)),
        ("fanout", || trials::fanout(10_000, 1, 15)),
        ("publish", || {
            trials::publish(2, None).and_then(|()| trials::publish(2, Some(1)))
        }),
        ("fuzz", || fuzz::fuzz(30)),
    ];
    let mut times = Vec::new();
    for (name, step) in steps {
        println!("\n== {name}");
        let began = Instant::now();
        step().with_context(|| format!("`cargo xtask ci` failed in {name}"))?;
        times.push(format!("{name} {:.0} s", began.elapsed().as_secs_f64()));
    }
    println!("\nall good: {}", times.join(", "));
    Ok(())
}
