//! What CI does, in its order.

use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::{
    PYTHON, agent, cargo, command, costs, demo, fuzz, interop, lint, package, readme, run, setup,
    spec, targets, trials,
};

/// How many seeds, histories and points, of which a plain `cargo test` takes a sample.
const THOROUGH: [(&str, &str); 6] = [
    ("TIDINGS_SEEDS", "2000"),
    ("TIDINGS_CLUSTER_SEEDS", "1000"),
    ("TIDINGS_MODEL_CASES", "100000"),
    ("TIDINGS_SWEEP_EACH", "1"),
    ("TIDINGS_OCTETS_EACH", "1"),
    ("TIDINGS_MACHINES", "3000"),
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

/// What is compiled, and looked at.
const FIRST: &[(&str, Step)] = &[
    ("lint", || setup::ahead(lint)),
    ("tests", tests),
    ("agent", agent::quick),
    ("spec", spec),
    ("programs", costs::programs),
    ("instructions and sizes", costs::all),
    ("demo", demo),
];

/// What waits more than it works, and is alone in its network namespaces: it runs beside what
/// follows here.
const BESIDE: &[&[&str]] = &[&["tree"], &["cluster", "--seeds", "5", "--channels", "300"]];

const MEANWHILE: &[(&str, Step)] = &[
    ("package", || package::package(package::Package::tested())),
    ("targets", targets::targets),
    ("readme", readme),
    ("page", trials::page),
    ("interop", || interop::run(&[])),
];

/// What measures, and wants the machine for itself.
const LAST: &[(&str, Step)] = &[
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

/// Does one after the other, and notes how long each took.
fn perform(steps: &[(&str, Step)], times: &mut Vec<String>) -> anyhow::Result<()> {
    for (name, step) in steps {
        println!("\n== {name}");
        let began = Instant::now();
        step().with_context(|| format!("`cargo xtask ci` failed in {name}"))?;
        times.push(format!("{name} {:.0} s", began.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// Chores of this program, one after the other; what they have said, or of the one that failed.
fn chores(all: &[&[&str]]) -> anyhow::Result<String> {
    let mut said = String::new();
    for arguments in all {
        let mut chore = command(std::env::current_exe()?);
        let output = chore.args(*arguments).output()?;
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        let name = arguments.join(" ");
        ensure!(
            output.status.success(),
            "`cargo xtask {name}` ended with {}:\n{said}",
            output.status
        );
    }
    Ok(said)
}

pub(super) fn ci() -> anyhow::Result<()> {
    let mut times = Vec::new();
    perform(FIRST, &mut times)?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| chores(BESIDE));
        let meanwhile = perform(MEANWHILE, &mut times);
        println!("\n== tree and cluster, beside these");
        let beside = match beside.join() {
            Ok(Ok(said)) => {
                print!("{said}");
                Ok(())
            }
            Ok(Err(error)) => {
                // Also where what ran meanwhile has failed too.
                println!("{error:#}");
                Err(error.context("`cargo xtask ci` failed beside these"))
            }
            Err(_) => bail!("the steps beside these have panicked"),
        };
        meanwhile.and(beside)
    })?;
    let beside = began.elapsed().as_secs_f64();
    times.push(format!("these with tree and cluster {beside:.0} s"));
    perform(LAST, &mut times)?;
    println!("\nall good: {}", times.join(", "));
    Ok(())
}
