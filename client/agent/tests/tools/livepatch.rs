//! A kernel that is patched while it runs: a module that the test builds, in a VM.

use std::fs;

use super::{
    LIB, PATH, Place, Tool,
    common::write_program,
    sh,
    vm::{console, from_environment, told},
};

#[test]
fn what_was_kept_for_another_kernel_is_swept() {
    let place = Place::new(
        "livepatch.conf",
        "LIVEPATCH_LOAD=HERE/load\nLIVEPATCH_MODULES=HERE/modules\n",
        "A",
    );
    fs::create_dir(place.path().join("bin")).unwrap();
    write_program(&place.path().join("bin/uname"), "#!/bin/sh\necho new\n");
    fs::write(place.path().join("module"), "a module").unwrap();
    place.sh(
        "mkdir -p load modules/old/updates/tidings modules/new/updates/tidings
        echo gone > load/tidings-gone.conf; : > modules/old/updates/tidings/gone.ko
        echo here > load/tidings-here.conf; : > modules/new/updates/tidings/here.ko
        echo another > load/tidings-mine.conf; echo gone > load/mine.conf",
    );
    let tool = Tool::new(&place, "livepatch", "module", &[("T_X_MODULE", "none")]);
    let path = format!("{}/bin:{PATH}", place.path().display());
    let call = |verb| {
        let code = tool.call(verb, &path).unwrap().code;
        (code, place.sh("ls load | xargs"))
    };
    let all = "mine.conf tidings-gone.conf tidings-here.conf tidings-mine.conf";
    assert_eq!(call("state"), (0, all.into()), "who looks changes nothing");
    let swept = "mine.conf tidings-here.conf tidings-mine.conf";
    assert_eq!(call("drop"), (0, swept.into()));
    // Neither does it when the patch is of no use to the kernel that runs.
    place.sh("echo gone > load/tidings-gone.conf");
    assert_eq!(call("stage"), (2, swept.into()));
    place.sh("echo gone > load/tidings-gone.conf; mv modules/new modules/hidden");
    assert_eq!(call("drop"), (0, all.into()), "nobody can tell");
}

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
    let append = "console=ttyS0 quiet no_timer_check panic=2";
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
        "after can: tidings-gone.conf tidings-mine.conf",
        "stage 2 none plain",
        &other,
        // Half of it.
        "stage 2 partial plain",
        "because it is not what was signed",
        "drop 0 none plain",
        "after drop: tidings-mine.conf",
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
        "after keep: tidings-mine.conf tidings-tidings_test.conf",
        // A boot: it is loaded again.
        "state 0 staged plain",
        "state 0 kept patched",
        "end",
    ];
    assert_eq!(told(&lines).0, expected);
}
