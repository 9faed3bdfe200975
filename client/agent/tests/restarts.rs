//! Who runs what is not there any more, on real processes (attack 83: nothing but maps is read).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tidings_agent::restarts::{Against, Stale, find};

struct Sleeper(Child, PathBuf);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program, copied by another process: what another thread starts in that moment would have it
/// open for writing until it is another program, and nobody could run it.
fn install(from: &str, to: &Path) {
    let mut install = Command::new("install");
    let status = install.args(["-m", "755", from]).arg(to).status().unwrap();
    assert!(status.success());
}

/// A program of our own that runs: it waits for an input that does not come.
fn sleeper(directory: &Path, name: &str) -> Sleeper {
    let path = directory.join(name);
    install("/bin/cat", &path);
    let mut child = Command::new(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // When it has given something back it is mapped.
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
    Sleeper(child, path)
}

fn stale(sleeper: &Sleeper, against: &Against) -> Vec<Stale> {
    let found = find(Path::new("/proc"), &[sleeper.0.id()], against).unwrap();
    assert_eq!(found.hidden, 0);
    found.stale
}

/// The same file under a new inode.
fn put(path: &Path, from: &str) {
    let new = path.with_extension("new");
    fs::copy(from, &new).unwrap();
    fs::rename(&new, path).unwrap();
}

#[test]
fn what_was_replaced_removed_or_is_the_same_is_told_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let own = Against::default();
    let process = sleeper(scratch.path(), "program");
    assert_eq!(stale(&process, &own), [], "nothing has changed");
    put(&process.1, "/bin/cat");
    assert_eq!(
        stale(&process, &own),
        [],
        "the same build under another inode"
    );
    put(&process.1, "/bin/ls");
    let found = stale(&process, &own);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].files[0].0.ends_with("/program") && found[0].files[0].1.contains(" was "),
        "{found:?}"
    );
    fs::remove_file(&process.1).unwrap();
    assert_eq!(stale(&process, &own)[0].files[0].1, "is not there any more");
}

#[test]
fn a_root_that_comes_is_compared_before_it_is_there() {
    let scratch = tempfile::tempdir().unwrap();
    let process = sleeper(scratch.path(), "program");
    let root = scratch.path().join("root");
    let there = root.join(process.1.strip_prefix("/").unwrap());
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    let below = Some(scratch.path().display().to_string());
    let against = Against {
        new_root: Some(root),
        below,
    };
    put(&there, "/bin/cat");
    assert_eq!(stale(&process, &against), []);
    put(&there, "/bin/ls");
    assert_eq!(stale(&process, &against).len(), 1);
}

#[test]
fn attack_83_what_a_process_says_of_itself_is_not_read() {
    let scratch = tempfile::tempdir().unwrap();
    let process = sleeper(scratch.path(), "a (deleted)");
    assert_eq!(
        stale(&process, &Against::default()),
        [],
        "a name that looks deleted, and is not"
    );
    let source =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/restarts.rs")).unwrap();
    for no in [
        "\"environ\"",
        "\"cwd\"",
        "\"exe\"",
        "\"cmdline\"",
        "Command",
    ] {
        assert!(!source.contains(no), "{no}");
    }
}

/// Whoever may not look is not told that all is well.
#[test]
fn who_may_not_look_is_told_so() {
    let scratch = tempfile::tempdir().unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(scratch.path(), mode).unwrap();
    let program = scratch.path().join("tidings-agent");
    install(env!("CARGO_BIN_EXE_tidings-agent"), &program);
    let own = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = match own {
        true => Command::new("setpriv"),
        false => Command::new(&program),
    };
    if own {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        command.args(nobody).arg(&program);
    }
    let output = command.args(["restarts", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("processes that could not be read, since they are others': 1; ask as root"),
        "{said}"
    );
}
