//! A kernel that is patched while it runs: a module that the test builds, in a VM.

use std::fs;

use super::{
    LIB, sh,
    vm::{console, from_environment, told},
};

#[test]
#[ignore = "a VM: cargo xtask agent livepatch"]
fn livepatch() {
    let unpacked = from_environment("TIDINGS_UNPACKED");
    let scratch = tempfile::tempdir().unwrap();
    let make = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/vm/livepatch.sh");
    sh(
        scratch.path(),
        &format!("unshare -m sh {make} {} {LIB} 2>&1", unpacked.display()),
    );
    let id = fs::read_to_string(scratch.path().join("build-id")).unwrap();
    let append = "console=ttyS0 quiet panic=2";
    let lines = console(
        scratch.path(),
        &[
            "-no-reboot",
            "-kernel",
            "kernel",
            "-initrd",
            "initrd",
            "-append",
            append,
        ],
    );
    let other = format!(
        "because the kernel that runs is {}, and not what is patched",
        id.trim()
    );
    let expected = [
        "up",
        "can 0 none plain",
        // For another build of this kernel.
        "can 2 none plain",
        &other,
        "stage 2 none plain",
        &other,
        // Half of it.
        "stage 2 partial plain",
        "because it is not what was signed",
        "drop 0 none plain",
        "stage 0 staged plain",
        "stage 0 staged plain",
        "arm 0 running patched",
        "arm 0 running patched",
        "drop 0 none plain",
        "drop 0 none plain",
        "stage 0 staged plain",
        "arm 0 running patched",
        "keep 0 kept patched",
        "keep 0 kept patched",
        "drop 0 kept patched",
        "loads tidings_test, reboot by 2026-12-24T00:00:00Z vm 7",
        // A boot: it is loaded again.
        "state 0 staged plain",
        "state 0 kept patched",
        "end",
    ];
    assert_eq!(told(&lines).0, expected);
}
