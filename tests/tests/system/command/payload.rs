//! `tidings payload`: what it makes is proven with the real tools, and comes out the same twice.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use tidings_protocol::Digest;
use tidings_tests::binary;

use crate::command::desk::Said;

const USAGE: i32 = 2;
const FAILED: i32 = 1;
const BAD_FILE: i32 = 8;
const URL: &str = "https://get.example.org/os/";

fn tidings(at: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(binary("tidings"));
    let command = command.current_dir(at).args(arguments);
    command.output().unwrap().into()
}

fn payload(at: &Path, arguments: &[&str]) -> Said {
    tidings(at, &[&["payload"], arguments].concat())
}

/// Octets that no tool makes much smaller.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33).to_le_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// An old image and a new one, of which a little differs.
fn images(at: &Path) {
    let old = noise(1 << 20, 1);
    let new = [&old[..300_000], &noise(5_000, 2), &old[290_000..]].concat();
    fs::write(at.join("old"), old).unwrap();
    fs::write(at.join("new"), new).unwrap();
}

fn digest_of(path: &Path) -> String {
    Digest::of(&fs::read(path).unwrap()).to_string()
}

#[test]
fn payloads_of_images_are_proven_and_come_out_the_same_twice() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    images(at);
    let made = |out: &str| {
        let said = payload(
            at,
            &[
                "make",
                "new",
                "--from",
                "old",
                "--from-version",
                "41",
                "--out",
                out,
                "--url",
                URL,
            ],
        );
        said.good("");
        (
            said.text,
            fs::read_to_string(at.join(out).join("payloads")).unwrap(),
        )
    };
    let ((table, lines), (_, again)) = (made("one"), made("two"));
    // How much memory is taken differs a little from one time to the next.
    let without_memory = |lines: &str| -> Vec<String> {
        let cut = |line: &str| line.split(" mem=").next().unwrap_or_default().to_owned();
        lines.lines().map(cut).collect()
    };
    assert_eq!(without_memory(&lines), without_memory(&again));
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split('\t').collect()).collect();
    let formats = ["raw", "zstd-patch", "bsdiff", "xdelta3"];
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), formats);
    let (base, result) = (digest_of(&at.join("old")), digest_of(&at.join("new")));
    for (line, format) in lines.lines().zip(formats) {
        let file = at.join(format!("one/new.{format}"));
        let (size, digest) = (fs::metadata(&file).unwrap().len(), digest_of(&file));
        let begin =
            format!("Payload: {format} {size} {digest} https://get.example.org/os/new.{format}");
        assert!(line.starts_with(&begin), "{line}");
        let more = &line[begin.len()..];
        if format == "raw" {
            assert_eq!((more, &digest), ("", &result));
            continue;
        }
        let properties = format!(
            " from=41 base={base} result={result} base-size=1048576 result-size=1063576 mem="
        );
        assert!(more.starts_with(&properties), "{more}");
        // It has the old image in its memory.
        let memory: u64 = more[properties.len()..].parse().unwrap();
        assert!((1 << 20..1 << 30).contains(&memory), "{more}");
        assert!(size < 100_000, "{line}");
    }
    // They are the lines of a release.
    let place = [
        "--after",
        "-",
        "--trust",
        "1",
        "--new-channel",
        "--out",
        "draft",
    ];
    let release = [
        "release",
        "test.os.stable",
        "--version",
        "42",
        "--payload",
        "@one/payloads",
    ];
    tidings(at, &[&release[..], &place].concat()).good("");
    let draft = fs::read_to_string(at.join("draft")).unwrap();
    assert!(draft.contains(&lines), "{draft}");
    tidings(at, &[&release[..5], &["@draft"], &place[..]].concat())
        .bad(BAD_FILE, "draft: expected lines `Payload: VALUE`");
}

/// A tree with what trees have, and another in which a little differs.
fn trees(at: &Path) {
    for (name, seed) in [("v1", 1), ("v2", 2)] {
        let tree = at.join(name);
        fs::create_dir_all(tree.join("usr/lib with a blank")).unwrap();
        fs::write(tree.join("usr/same"), noise(40_000, 7)).unwrap();
        fs::write(
            tree.join("usr/lib with a blank/differs"),
            noise(20_000, seed),
        )
        .unwrap();
        symlink("usr/same", tree.join("link")).unwrap();
        fs::set_permissions(tree.join("usr/same"), fs::Permissions::from_mode(0o4755)).unwrap();
    }
    fs::write(at.join("v1/gone"), "1").unwrap();
    fs::set_permissions(at.join("v2/usr"), fs::Permissions::from_mode(0o750)).unwrap();
}

#[test]
fn payloads_of_trees_are_proven_by_the_manifest_of_the_handlers() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    trees(at);
    for out in ["one", "two"] {
        let made = ["make", "v2", "--from", "v1", "--out", out, "--url", URL];
        payload(at, &made).good("rsync-tree\t");
    }
    let lines = fs::read_to_string(at.join("one/payloads")).unwrap();
    // rsync writes into a batch how long it took; what comes out is the same.
    let again = fs::read_to_string(at.join("two/payloads")).unwrap();
    let digests = |lines: &str| -> Vec<String> {
        let words = lines
            .split(' ')
            .filter(|word| word.starts_with("base=") || word.starts_with("result="));
        words.map(str::to_owned).collect()
    };
    assert_eq!(
        (digests(&lines), digests(&lines).len()),
        (digests(&again), 2)
    );
    // As the handlers compute it.
    let manifest = |tree: &str| {
        let script = "cd \"$0\" && find . -mindepth 1 \\( -type f -printf 'f %#m %U:%G ' \
            -exec sha256sum -z {} \\; -o -type l -printf 'l %l %p\\0' \
            -o -printf '%y %#m %U:%G %p\\0' \\) | LC_ALL=C sort -z | sha256sum | cut -d' ' -f1";
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(at.join(tree))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (base, result) = (manifest("v1"), manifest("v2"));
    assert_ne!(base, result);
    assert!(
        lines.contains(&format!(" base=sha256:{base} result=sha256:{result} mem=")),
        "{lines}"
    );
    // Nothing but the payload and its line is left, and a web server may read it.
    let left = fs::read_dir(at.join("one")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    for path in left.iter().filter(|path| !path.ends_with("payloads")) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{}", path.display());
    }
}

#[test]
fn two_builds_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    trees(at);
    images(at);
    payload(at, &["compare", "v1", "v1"]).good("the same: sha256:");
    payload(at, &["compare", "new", "new"]).good(&digest_of(&at.join("new")));
    let owner = fs::metadata(at).unwrap();
    let owner = format!("{}:{}", owner.uid(), owner.gid());
    let said = payload(at, &["compare", "v1", "v2"]);
    said.bad(FAILED, "they are not the same: 3 differences");
    said.bad(FAILED, "./gone: only in the first: f 0644");
    said.bad(
        FAILED,
        &format!("./usr: d 0755 {owner} in the first, d 0750 {owner} in the second"),
    );
    said.bad(FAILED, "./usr/lib with a blank/differs: f 0644");
    let (old, new) = (
        fs::read(at.join("old")).unwrap(),
        fs::read(at.join("new")).unwrap(),
    );
    let place = old.iter().zip(&new).position(|(a, b)| a != b).unwrap();
    payload(at, &["compare", "old", "new"]).bad(FAILED, &format!("octet {place}: "));
    fs::write(at.join("short"), &old[..1000]).unwrap();
    payload(at, &["compare", "old", "short"]).bad(FAILED, "the second ends after 1000 octets");
    payload(at, &["compare", "old", "v1"]).bad(USAGE, "old is an image, and v1 is a tree");
}

#[test]
fn what_cannot_be_made_is_said_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    trees(at);
    images(at);
    let make = |more: &[&str], code: i32, says: &str| {
        let begin = ["make", "--out", "out", "--url", URL];
        payload(at, &[&begin[..], more].concat()).bad(code, says);
        assert!(!at.join("out").exists(), "{more:?}");
    };
    make(&["none"], BAD_FILE, "cannot read none");
    make(&["v2"], USAGE, "a tree is announced as a delta");
    make(
        &["new", "--format", "bsdiff"],
        USAGE,
        "--format bsdiff: from what? give --from OLD",
    );
    make(
        &["v2", "--from", "v1", "--format", "raw"],
        USAGE,
        "NEW is a tree, and raw is not for it",
    );
    make(
        &["new", "--from", "v1"],
        USAGE,
        "new is an image, and v1 is a tree: both must be of one kind",
    );
    make(
        &["v2", "--from", "v1", "--format", "btrfs-send"],
        USAGE,
        "--format btrfs-send: v2 is no subvolume of btrfs: copy it into one",
    );
    make(
        &["new", "--format", "btrfs-send+zstd"],
        USAGE,
        "NEW is an image, and btrfs-send+zstd is not for it",
    );
    make(
        &["v2", "--format", "ostree"],
        USAGE,
        "NEW is a tree: name a commit, as REPOSITORY:COMMIT",
    );
    make(&["v2:main"], BAD_FILE, "cannot read v2:main");
    payload(at, &["make", "new", "--out", "out", "--url", "here"]).bad(USAGE, "\"here\" is no URL");
    fs::create_dir(at.join("out")).unwrap();
    payload(at, &["make", "new", "--out", "out", "--url", URL]).bad(
        BAD_FILE,
        "cannot make the directory out; it must not exist yet",
    );
}

#[test]
fn without_a_tool_its_formats_are_left_out_unless_they_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    trees(at);
    images(at);
    let bare = |arguments: &str| -> Said {
        let mut command = Command::new(binary("tidings"));
        command.current_dir(at).env("PATH", at);
        command.args(["payload", "make", "--url", URL]);
        command.args(arguments.split(' ')).output().unwrap().into()
    };
    bare("new --from old --out asked --format zstd-patch").bad(
        FAILED,
        "there is no zstd on this machine: install it (Debian's package zstd), or leave",
    );
    bare("new --from old --out some").good("raw\t");
    let lines = fs::read_to_string(at.join("some/payloads")).unwrap();
    assert_eq!(lines.lines().count(), 1);
    bare("v2 --from v1 --out none").bad(FAILED, "no payload was made");
    assert!(!at.join("none/payloads").exists());
    fs::create_dir_all(at.join("a:repo/objects")).unwrap();
    fs::write(at.join("a:repo/config"), "").unwrap();
    bare("a:repo:origin:main --out out").bad(
        FAILED,
        "there is no ostree on this machine: install it (Debian's package ostree)",
    );
}
