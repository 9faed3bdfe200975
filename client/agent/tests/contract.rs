//! The handlers that are shipped keep the contract that `check-handler` tests; one that does not is
//! found.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Machine, Publisher, octets, write_program};
use tidings_agent::{apply::hex, contract::Contract};
use tidings_protocol::Digest;

const IMAGE: usize = 60_000;

fn machine(scratch: &Path) -> Machine {
    let publisher = Publisher::new(common::time());
    Machine::new(
        &scratch.join("m"),
        &publisher.anchor,
        &octets("old", IMAGE),
        65_536,
    )
}

fn contract(
    machine: &Machine,
    handler: PathBuf,
    payload: PathBuf,
    environment: Vec<(String, String)>,
) -> Contract {
    let (etc, lib) = (
        machine.config.paths.etc.clone(),
        machine.config.paths.lib.clone(),
    );
    Contract {
        handler,
        payload,
        environment,
        lib,
        etc,
    }
}

#[test]
fn the_handlers_of_slots_keep_the_contract() {
    let (old, mut new) = (octets("old", IMAGE), octets("old", IMAGE));
    new[20_000..24_000].copy_from_slice(&octets("new", 4_000));
    for format in ["raw", "zstd-patch", "bsdiff", "xdelta3"] {
        let scratch = tempfile::tempdir().unwrap();
        let machine = machine(scratch.path());
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("old"), &old).unwrap();
        fs::write(path("new"), &new).unwrap();
        let make = match format {
            "raw" => "cp new payload",
            "zstd-patch" => "zstd -q --long=27 --patch-from old new -o payload",
            "bsdiff" => "bsdiff old new payload",
            _ => "xdelta3 -q -e -s old new payload",
        };
        assert!(
            Command::new("sh")
                .args(["-c", make])
                .current_dir(scratch.path())
                .status()
                .unwrap()
                .success(),
            "{format}"
        );
        let mut environment = Vec::new();
        if format != "raw" {
            let sizes = [
                ("T_X_BASE_SIZE", IMAGE.to_string()),
                ("T_X_RESULT_SIZE", IMAGE.to_string()),
                ("T_MEM", (8 << 20).to_string()),
            ];
            let digests = [
                ("T_BASE", hex(&Digest::of(&old))),
                ("T_RESULT", hex(&Digest::of(&new))),
            ];
            environment.extend(
                sizes
                    .into_iter()
                    .chain(digests)
                    .map(|(key, value)| (key.to_owned(), value)),
            );
        }
        let handler = machine.config.paths.lib.join("format.d").join(format);
        let mut held = Vec::new();
        let checked = contract(&machine, handler, path("payload"), environment)
            .check(|line| held.push(line.to_owned()));
        checked.unwrap_or_else(|error| panic!("{format}: {error:#}, after {held:?}"));
        assert!(held.len() >= 9, "{held:?}");
    }
}

/// What bspatch does: a wrong payload, no complaint, rubbish as a result.
#[test]
fn a_handler_that_believes_its_tool_is_found() {
    let scratch = tempfile::tempdir().unwrap();
    let machine = machine(scratch.path());
    fs::create_dir_all(scratch.path().join("format.d")).unwrap();
    fs::write(scratch.path().join("payload"), octets("new", IMAGE)).unwrap();
    for (text, said) in [
        (
            "case $1 in can) echo 1 ;; state) if [ -e staged ]; then echo staged; else echo none; fi ;; stage) : > staged ;; drop) rm -f staged ;; *) exit 2 ;; esac",
            "stage of a changed payload",
        ),
        (
            "case $1 in can) echo 1 ;; state) echo none ;; *) exit 0 ;; esac",
            "a verb that it does not know",
        ),
        (
            "case $1 in can) echo lots ;; *) exit 2 ;; esac",
            "octets to fetch",
        ),
        (
            "case $1 in can) echo 1 ;; drop) exit 0 ;; state) echo done ;; *) exit 2 ;; esac",
            "state says \"done\"",
        ),
        ("exit 3", "ends with 3"),
    ] {
        let handler = scratch.path().join("format.d/mine");
        write_program(&handler, &format!("#!/bin/sh\n{text}\n"));
        let error = contract(&machine, handler, scratch.path().join("payload"), vec![])
            .check(|_| ())
            .unwrap_err();
        assert!(
            format!("{error:#}").contains(said),
            "{error:#}, and not {said:?}"
        );
    }
}

#[test]
fn the_command_says_what_holds() {
    let scratch = tempfile::tempdir().unwrap();
    let machine = machine(scratch.path());
    let payload = scratch.path().join("payload");
    fs::write(&payload, octets("new", IMAGE)).unwrap();
    let file = machine.root.join("agent.toml");
    let text = format!(
        "anchor = \"{}\"\nbrokers = [\"nntp://127.0.0.1:1\"]\nchannels = [\"acme.os.stable\"]\n[paths]\netc = \"{}/etc\"\nlib = \"{}/handlers\"\n",
        machine.config.anchor,
        machine.root.display(),
        env!("CARGO_MANIFEST_DIR")
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-agent"));
    command
        .arg("--config")
        .arg(&file)
        .args(["check-handler", "--payload"])
        .arg(&payload);
    let output = command
        .arg(machine.config.paths.lib.join("format.d/raw"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("ok: drop from armed: none"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
