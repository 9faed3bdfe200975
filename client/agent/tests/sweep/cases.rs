//! What is applied: each format, as a whole and as what its tools make.

use std::{fs, path::Path, process::Command};

use tidings_agent::round::Intent;
use tidings_protocol::{Digest, statement::Payload};

use super::common::{Story, payload, write_program};

pub(super) struct Case {
    pub(super) name: String,
    pub(super) story: Story,
    pub(super) payloads: Vec<Payload>,
    pub(super) kept: Intent,
}

fn delta(tool: &str, directory: &Path, old: &[u8], new: &[u8]) -> Vec<u8> {
    let [a, b, d] = ["old", "new", "delta"].map(|name| directory.join(name).display().to_string());
    fs::write(&a, old).unwrap();
    fs::write(&b, new).unwrap();
    let (program, arguments) = match tool {
        "zstd-patch" => (
            "zstd",
            vec![
                "-q",
                "-f",
                "-19",
                "--long=27",
                "--patch-from",
                &a,
                &b,
                "-o",
                &d,
            ],
        ),
        "bsdiff" => ("bsdiff", vec![a.as_str(), &b, &d]),
        _ => ("xdelta3", vec!["-q", "-f", "-e", "-s", &a, &b, &d]),
    };
    assert!(
        Command::new(program)
            .args(arguments)
            .status()
            .unwrap()
            .success(),
        "{tool}"
    );
    fs::read(&d).unwrap()
}

pub(super) fn is_there(format: &str) -> bool {
    let tool = match format {
        "zstd-patch" => "zstd",
        "bsdiff" => "bspatch",
        "xdelta3" => "xdelta3",
        _ => return true,
    };
    Command::new("which")
        .arg(tool)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The stories for one format; an image in full is the second choice of each delta.
pub(super) fn cases(format: &str, directory: &Path, old: &[u8], new: &[u8]) -> Vec<Case> {
    let full = payload("raw", new);
    let good = if format == "raw" {
        new.to_vec()
    } else {
        delta(format, directory, old, new)
    };
    let with = |octets: &[u8], base: &[u8]| {
        let mut payload = payload(format, octets);
        if format != "raw" {
            (payload.base, payload.result, payload.mem) =
                (Some(Digest::of(base)), Some(Digest::of(new)), Some(8 << 20));
            payload.more = vec![
                ("base-size".into(), base.len().to_string()),
                ("result-size".into(), new.len().to_string()),
            ];
        }
        payload
    };
    let mut tampered = good.clone();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    let story = Story {
        served: vec![
            (Digest::of(&good), good.clone()),
            (full.digest, new.to_vec()),
        ],
        ..Story::default()
    };
    let case = |name: &str, story: Story, first: Payload, kept| {
        let payloads = if format == "raw" {
            vec![first]
        } else {
            vec![first, full.clone()]
        };
        Case {
            name: format!("{format}, {name}"),
            story,
            payloads,
            kept,
        }
    };
    let mut all = vec![
        case("well", story.clone(), with(&good, old), Intent::Kept),
        case(
            "not well",
            Story {
                ill: true,
                ..story.clone()
            },
            with(&good, old),
            Intent::Failed,
        ),
        case(
            "does not come up",
            Story {
                dead: true,
                ..story.clone()
            },
            with(&good, old),
            Intent::Failed,
        ),
        case(
            "withdrawn before going",
            Story {
                withdrawn: true,
                ..story.clone()
            },
            with(&good, old),
            Intent::Left,
        ),
    ];
    if format != "raw" {
        let served = vec![
            (Digest::of(&good), tampered.clone()),
            (full.digest, new.to_vec()),
        ];
        all.push(case(
            "changed on the way, so the full image",
            Story {
                served,
                ..story.clone()
            },
            with(&good, old),
            Intent::Kept,
        ));
        let served = vec![
            (Digest::of(&tampered), tampered.clone()),
            (full.digest, new.to_vec()),
        ];
        all.push(case(
            "signed, but of no use, so the full image",
            Story {
                served,
                ..story.clone()
            },
            with(&tampered, old),
            Intent::Kept,
        ));
        all.push(case(
            "for another base, so the full image (attack 52)",
            story,
            with(&good, new),
            Intent::Kept,
        ));
    }
    all
}

/// Every program that a handler starts is a point.
pub(super) fn shims(directory: &Path, machine: &Path, points: &Path) -> String {
    fs::create_dir_all(directory).unwrap();
    for tool in [
        "head",
        "sha256sum",
        "dd",
        "sync",
        "mv",
        "rm",
        "stat",
        "zstd",
        "xdelta3",
        "bspatch",
    ] {
        let Ok(found) = Command::new("which").arg(tool).output() else {
            continue;
        };
        let real = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let copy = format!(
            "until mkdir {0}/lock 2> /dev/null; do :; done\nread -r n < {0}/n\nn=$((n + 1))\necho $n > {0}/n\n\
             cp -a {1} {0}/$n 2> /dev/null\necho \"$n handler: {tool} $*\" >> {0}/trace\nrmdir {0}/lock\n",
            points.display(),
            machine.display()
        );
        let torn = if tool == "dd" {
            format!("{real} \"$@\" bs=32k count=1 2> /dev/null\nPATH=/usr/bin:/bin\n{copy}")
        } else {
            String::new()
        };
        let text = format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{copy}{torn}exec {real} \"$@\"\n");
        write_program(&directory.join(tool), &text);
    }
    format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", directory.display())
}
