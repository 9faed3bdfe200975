//! `tidingsd demo`: every step is shown, and the node agent's says so where the agent is not there.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use tidings_tests::binary;

fn demo(program: &Path) -> String {
    let output = Command::new(program).arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    for step in 1..=9 {
        assert!(text.contains(&format!("\n{step}. ")), "no {step}: {text}");
    }
    text
}

#[test]
fn it_ends_with_an_agent_that_falls_back_and_keeps() {
    binary("tidings-agent");
    binary("tidings-apply");
    let text = demo(&binary("tidingsd"));
    let (_, step) = text.split_once("\n9. ").unwrap();
    for part in [
        "2.0 is verified, written into slot B, and booted once",
        "back in slot A, which is 1.0; 2.0 has failed",
        "2.1 is verified, written into slot B, booted once, well, and kept",
    ] {
        assert!(step.contains(part), "no {part:?}: {step}");
    }
}

#[test]
fn it_says_what_is_missing_where_there_is_no_agent() {
    let alone = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = alone.path().join("tidingsd");
    fs::hard_link(binary("tidingsd"), &program).unwrap();
    let said = demo(&program).contains("`cargo build --release` makes them");
    assert_eq!(said, !Path::new("/usr/bin/tidings-agent").exists());
}
