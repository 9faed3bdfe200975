//! What the store costs, beside a bare file on the same disk in the same run.
//!
//! Everything lies in a directory below `target/`, so that it is a disk and not memory.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![allow(missing_docs)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tidings_broker::store_bench::Stored;

const CHANNELS: usize = 1_000;
const OCTETS: usize = 1_024;
const ROUNDS: usize = 5;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).unwrap()
}

/// Octets that this process has handed to the system for writing.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines()
        .find_map(|line| line.strip_prefix("wchar: "))
        .unwrap()
        .parse()
        .unwrap()
}

fn spread(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    (all[0], all[all.len() / 2], all[all.len() - 1])
}

/// `(channel, octets)` for the next statements, round the channels.
fn next<'a>(
    from: &mut usize,
    count: usize,
    octets: &'a [u8],
) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
    let begin = *from;
    *from += count;
    (begin..begin + count).map(move |at| (at % CHANNELS, octets))
}

fn speed() {
    println!(
        "| batch | store, statements/s | write + fdatasync, statements/s | ratio: median (lowest, highest) | octets written / payload |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: |");
    let payload = vec![b'x'; OCTETS];
    for batch in [16, 64, 1_024] {
        let batches = (32_768 / batch).min(1_500);
        let (mut stores, mut files, mut ratios, mut octets) = (vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let directory = directory();
            let mut stored = Stored::open(directory.path(), CHANNELS).unwrap();
            let mut from = 0;
            // Every channel has begun, as in a broker that is in use.
            stored
                .commit(next(&mut from, CHANNELS, &payload), None)
                .unwrap();
            let (before, began) = (written(), Instant::now());
            for _ in 0..batches {
                stored
                    .commit(next(&mut from, batch, &payload), None)
                    .unwrap();
            }
            let store = began.elapsed();
            octets.push((written() - before) as f64 / (batches * batch * OCTETS) as f64);
            drop(stored);
            let mut file = fs::File::create(directory.path().join("bare")).unwrap();
            let all = vec![b'x'; OCTETS * batch];
            let began = Instant::now();
            for _ in 0..batches {
                file.write_all(&all).unwrap();
                file.sync_data().unwrap();
            }
            let bare = began.elapsed();
            let rate = |took: Duration| (batches * batch) as f64 / took.as_secs_f64();
            stores.push(rate(store));
            files.push(rate(bare));
            ratios.push(rate(store) / rate(bare));
        }
        let (low, ratio, high) = spread(ratios);
        let (store, file, octets) = (spread(stores).1, spread(files).1, spread(octets).1);
        println!(
            "| {batch} | {store:.0} | {file:.0} | {ratio:.2} ({low:.2}, {high:.2}) | {octets:.3} |"
        );
    }
}

/// Several segments, of which retention keeps little.
fn retention() {
    let (directory, payload) = (directory(), vec![b'x'; OCTETS]);
    let mut stored = Stored::open(directory.path(), CHANNELS).unwrap();
    let (mut from, mut took, mut bare_took, batch) = (0, vec![], vec![], 16);
    let mut bare = fs::File::create(directory.path().join("bare")).unwrap();
    let all = vec![b'x'; OCTETS * batch];
    let before = written();
    while from < 400_000 {
        let began = Instant::now();
        stored
            .commit(next(&mut from, batch, &payload), Some(20))
            .unwrap();
        took.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        bare.write_all(&all).unwrap();
        bare.sync_data().unwrap();
        bare_took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let octets = (written() - before) as f64 / (from * OCTETS) as f64 - 1.0;
    let left: u64 = fs::read_dir(directory.path().join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    bare_took.sort_by(f64::total_cmp);
    took.sort_by(f64::total_cmp);
    let at = |permille: usize| took[(took.len() - 1) * permille / 1_000];
    let bare = |permille: usize| bare_took[(bare_took.len() - 1) * permille / 1_000];
    println!(
        "With retention (20 of each channel kept, {from} published, {:.0} MiB left on the disk): {octets:.3} octets written for each of payload; a commit of {batch}: median {:.0} µs, p99.9 {:.0} µs ({:.1} times), at most {:.0} µs; a write and fdatasync of the same octets in turns with it: median {:.0} µs, p99.9 {:.0} µs ({:.1} times)",
        left as f64 / f64::from(1 << 20),
        at(500),
        at(999),
        at(999) / at(500),
        at(1_000),
        bare(500),
        bare(999),
        bare(999) / bare(500)
    );
}

/// Another process opens the store, so that its memory is that of a start.
fn start(channels: usize, statements: usize, octets: usize) {
    let (directory, payload) = (directory(), vec![b'x'; octets]);
    let mut stored = Stored::open(directory.path(), channels).unwrap();
    let mut from = 0;
    while from < statements {
        let begin = from;
        let count = 4_096.min(statements - begin);
        stored
            .commit(
                (begin..begin + count).map(|at| (at % channels, &payload[..])),
                None,
            )
            .unwrap();
        from += count;
    }
    drop(stored);
    let mut lines = vec![];
    for _ in 0..ROUNDS {
        let output = Command::new(std::env::current_exe().unwrap())
            .arg("open")
            .arg(directory.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        lines.push(String::from_utf8(output.stdout).unwrap());
    }
    let column = |at: usize| {
        spread(
            lines
                .iter()
                .map(|line| line.split(' ').nth(at).unwrap().trim().parse().unwrap())
                .collect(),
        )
    };
    let ((low, time, high), resident, most, count) =
        (column(0), column(1).1, column(2).1, column(3).1);
    println!(
        "Start with {count} statements of {octets} octets in {channels} channels: {time:.0} ms ({low:.0} to {high:.0}); {resident:.0} MiB resident after it, {most:.0} MiB at most"
    );
}

fn open(directory: &Path) {
    let began = Instant::now();
    let stored = Stored::open(directory, 0).unwrap();
    let took = began.elapsed().as_secs_f64() * 1e3;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mebibytes = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim()
            .split(' ')
            .next()
            .unwrap()
            .parse::<f64>()
            .unwrap()
            / 1024.0
    };
    println!(
        "{took} {} {} {}",
        mebibytes("VmRSS:"),
        mebibytes("VmHWM:"),
        stored.count()
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, directory] = &arguments[..]
        && command == "open"
    {
        return open(&PathBuf::from(directory));
    }
    if arguments.iter().any(|argument| argument == "retention") {
        return retention();
    }
    speed();
    retention();
    start(1_000, 2_000_000, OCTETS);
    start(10_000, 100_000, OCTETS);
}
