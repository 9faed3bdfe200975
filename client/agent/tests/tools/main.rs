//! Handlers with their real tools, on loop devices and file systems of their own: as root, by
//! `cargo xtask agent`. Each is tested by the contract; then it is killed at every program that
//! `stage` and `drop` start, and goes on. What wants neither root nor tools runs with `cargo test`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod bundles;
#[path = "../common/mod.rs"]
mod common;
mod criu;
mod fleet;
mod livepatch;
mod slots;
mod sysupdate;
mod trees;
mod units;
mod vm;
mod zfs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::write_program;
use tidings_agent::{
    apply::hex,
    contract::Contract,
    handler::{Answer, Call, Handlers},
};
use tidings_protocol::Digest;

/// Runs a shell script that must end well; what it prints.
fn sh(directory: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A program that is built beside this test.
fn built(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let beside = here.ancestors().map(|path| path.with_file_name(name));
    beside
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("{name} is not built; run `cargo build --workspace --all-features`")
        })
}

/// A directory with `etc`, a loader in files, and whatever must be undone at the end.
struct Place {
    scratch: tempfile::TempDir,
    undo: Vec<String>,
}

impl Drop for Place {
    fn drop(&mut self) {
        for script in self.undo.iter().rev() {
            let _ = Command::new("sh")
                .args(["-c", script])
                .current_dir(self.scratch.path())
                .status();
        }
    }
}

impl Place {
    fn new(conf: &str, text: &str, running: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path();
        fs::create_dir(path.join("etc")).unwrap();
        let loader = format!(
            "LOADER=file\nLOADER_ENV={0}/env\nLOADER_RUNNING={0}/booted\n",
            path.display()
        );
        fs::write(path.join("etc/loader.conf"), loader).unwrap();
        fs::write(
            path.join("etc").join(conf),
            text.replace("HERE", &path.display().to_string()),
        )
        .unwrap();
        fs::write(path.join("env"), format!("primary={running}\nnext=\n")).unwrap();
        fs::write(path.join("booted"), format!("{running}\n")).unwrap();
        Self {
            scratch,
            undo: Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    fn sh(&self, script: &str) -> String {
        sh(self.path(), script)
    }

    /// A file as a loop device, `$NAME` for scripts.
    fn device(&mut self, name: &str, size: &str) -> String {
        let device = self.sh(&format!(
            "truncate -s {size} {name}.img; losetup -f --show {name}.img"
        ));
        self.undo.push(format!("losetup -d {device}"));
        device
    }

    fn boot(&self) -> String {
        let env = fs::read_to_string(self.path().join("env")).unwrap();
        let get = |name: &str| {
            env.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
                .to_owned()
        };
        let (primary, next) = (get("primary"), get("next"));
        let slot = if next.is_empty() {
            primary.clone()
        } else {
            next
        };
        fs::write(
            self.path().join("env"),
            format!("primary={primary}\nnext=\n"),
        )
        .unwrap();
        fs::write(self.path().join("booted"), format!("{slot}\n")).unwrap();
        slot
    }
}

/// A handler with one payload.
struct Tool<'a> {
    place: &'a Place,
    format: &'a str,
    payload: PathBuf,
    environment: Vec<(String, String)>,
}

const LIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/handlers");
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl<'a> Tool<'a> {
    fn new(place: &'a Place, format: &'a str, payload: &str, environment: &[(&str, &str)]) -> Self {
        let environment = environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            place,
            format,
            payload: place.path().join(payload),
            environment,
        }
    }

    /// What the payload's line says.
    fn told(&self, name: &str) -> &str {
        let found = self.environment.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    fn check(&self) {
        let (etc, lib) = (self.place.path().join("etc"), PathBuf::from(LIB));
        let handler = lib.join("format.d").join(self.format);
        let contract = Contract {
            handler,
            payload: self.payload.clone(),
            environment: self.environment.clone(),
            lib,
            etc,
        };
        contract
            .check(|line| eprintln!("{}: {line}", self.format))
            .unwrap_or_else(|error| panic!("{}: {error:#}", self.format));
    }

    fn call(&self, verb: &str, path: &str) -> anyhow::Result<Answer> {
        let work = self.place.path().join("work");
        fs::create_dir_all(&work).unwrap();
        let octets = fs::read(&self.payload).unwrap();
        let mut environment = self.environment.clone();
        let own = [
            ("T_FORMAT", self.format.to_owned()),
            ("T_SIZE", octets.len().to_string()),
            ("T_DIGEST", hex(&Digest::of(&octets))),
            ("T_SERIAL", "7".into()),
        ];
        environment.extend(own.map(|(key, value)| (key.to_owned(), value)));
        let mut handlers = Handlers::new(&self.place.path().join("etc"), Path::new(LIB));
        handlers.path = path.into();
        let file = fs::File::open(&self.payload).unwrap();
        let statement = self.place.path().join("etc");
        let payload = (verb == "stage").then_some(&file);
        handlers.call(&Call {
            folder: "format.d",
            name: self.format,
            verb,
            environment: &environment,
            work: &work,
            statement: &statement,
            payload,
        })
    }

    fn done(&self, verb: &str) -> String {
        let answer = self.call(verb, PATH).unwrap();
        assert!(answer.is_done(), "{} {verb}: {answer:?}", self.format);
        answer.line
    }

    /// `stage` and `drop` are killed at each program that they start; how many points there were.
    fn killed_everywhere(&self) -> u32 {
        let mut points = 0;
        for (verb, before, end) in [("stage", "drop", "staged"), ("drop", "stage", "none")] {
            for n in 1.. {
                self.done(before);
                let shims = killer(self.place.path(), n);
                let killed = self.call(verb, &format!("{shims}:{PATH}"));
                if killed.is_ok() {
                    break;
                }
                assert!(n < 200, "{verb} has no end: {killed:?}");
                let state = self.done("state");
                assert!(
                    ["none", "partial", "staged"].contains(&state.as_str()),
                    "{verb} killed at {n}: {state}"
                );
                self.done(verb);
                assert_eq!(
                    self.done("state"),
                    end,
                    "{verb} again, after it was killed at {n}"
                );
                points += 1;
            }
        }
        points
    }

    /// The whole way: staged, armed, booted, kept.
    fn lives(&self, name: &str) {
        for verb in ["stage", "arm"] {
            self.done(verb);
        }
        assert_eq!(self.done("state"), "armed");
        assert_eq!(self.place.boot(), name);
        assert_eq!(self.done("state"), "running");
        self.done("keep");
        assert_eq!(
            (self.done("state"), self.place.boot()),
            ("kept".into(), name.to_owned())
        );
        self.done("drop");
        assert_eq!(self.done("state"), "kept", "what runs is not dropped");
    }
}

/// Programs that kill the handler, all of it, at the n-th that it starts.
fn killer(place: &Path, n: u32) -> String {
    let directory = place.join("killer");
    fs::create_dir_all(&directory).unwrap();
    // One that was killed may have left it.
    let _ = fs::remove_dir(directory.join("lock"));
    fs::write(directory.join("n"), "0\n").unwrap();
    let tools = [
        "btrfs",
        "zfs",
        "rsync",
        "ostree",
        "rauc",
        "dbus-send",
        "swupdate",
        "unshare",
        "cp",
        "zstd",
        "xdelta3",
        "bspatch",
        "dd",
        "head",
        "sha256sum",
        "mv",
        "rm",
        "rmdir",
        "mkdir",
        "sync",
        "find",
        "sort",
        "cut",
        "stat",
    ];
    for tool in tools {
        let real = sh(place, &format!("PATH={PATH}; command -v {tool} || :"));
        let d = directory.display();
        let text = format!(
            "#!/bin/sh\nPATH={PATH}\nuntil mkdir {d}/lock 2> /dev/null; do :; done\n\
             read -r n < {d}/n\nn=$((n + 1))\necho $n > {d}/n\nrmdir {d}/lock\n\
             [ $n != {n} ] || kill -9 0\nexec {real} \"$@\"\n"
        );
        write_program(&directory.join(tool), &text);
    }
    directory.display().to_string()
}
