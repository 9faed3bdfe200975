//! Trees: on btrfs, and in an OSTree repository.

use std::{fs, path::Path};

use tidings_agent::apply::hex;
use tidings_protocol::Digest;

use super::{Place, Tool, built};

/// Two trees that differ in some files, as `v1` and `v2`.
fn trees(place: &Place) {
    place.sh("mkdir -p v1/usr/lib v1/etc; i=0; while [ $i -lt 40 ]; \
        do head -c 20000 /dev/urandom > v1/usr/lib/f$i; i=$((i + 1)); done; ln -s usr/lib v1/lib; \
        echo VERSION=1 > v1/etc/os-release; cp -a v1 v2; echo VERSION=2 > v2/etc/os-release; \
        head -c 20000 /dev/urandom > v2/usr/lib/f7; rm v2/usr/lib/f9; \
        touch -r v1/usr/lib/f7 v2/usr/lib/f7");
}

/// What `tidings payload make` says of a payload that it makes in the directory `out`, as a handler
/// is told it.
fn make(place: &Place, out: &str, format: &str, of: &str) -> Vec<(String, String)> {
    let command = command(out, &format!("{of} --format {format}"));
    let line = place.sh(&format!("{command} > /dev/null; cat {out}/payloads"));
    let (head, properties) = line.split_once(" https://").unwrap();
    assert!(head.starts_with(&format!("Payload: {format} ")), "{line}");
    let told = |property: &str| {
        let (key, value) = property.split_once('=').unwrap();
        let name = match key {
            "from" | "base" | "result" | "mem" => format!("T_{}", key.to_uppercase()),
            _ => format!("T_X_{}", key.replace('-', "_").to_uppercase()),
        };
        (name, value.trim_start_matches("sha256:").to_owned())
    };
    properties.split(' ').skip(1).map(told).collect()
}

/// A handler with what was made.
fn made<'a>(place: &'a Place, format: &'a str, file: &str, of: &str) -> Tool<'a> {
    let environment = make(place, "made", format, of);
    let told: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (&k[..], &v[..])).collect();
    Tool::new(place, format, &format!("made/{file}"), &told)
}

/// The digest of a tree's manifest, computed here and not by the handler.
pub(super) fn manifest(root: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut places = vec![root.to_owned()];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let name = format!("./{}", path.strip_prefix(root).unwrap().display());
            let of = format!(
                "0{:o} {}:{}",
                about.mode() & 0o7777,
                about.uid(),
                about.gid()
            );
            lines.push(if about.is_symlink() {
                format!("l {} {name}\0", fs::read_link(&path).unwrap().display()).into_bytes()
            } else if about.is_dir() {
                places.push(path);
                format!("d {of} {name}\0").into_bytes()
            } else {
                format!(
                    "f {of} {}  {name}\0",
                    hex(&Digest::of(&fs::read(&path).unwrap()))
                )
                .into_bytes()
            });
        }
    }
    lines.sort();
    hex(&Digest::of(&lines.concat()))
}

fn btrfs() -> Place {
    let mut place = Place::new("trees.conf", "TREES=HERE/pool/roots\n", "r1");
    trees(&place);
    for name in ["pool", "maker"] {
        let device = place.device(name, "300M");
        let mount =
            format!("mkfs.btrfs -q {device} > /dev/null; mkdir {name}; mount {device} {name}");
        place.sh(&mount);
        place.undo.push(format!("umount {name}"));
    }
    place.sh(
        "mkdir -p pool/roots/r1 maker/r1 maker/r7; btrfs -q subvolume create maker/w; \
        cp -a v1/. maker/w/; btrfs -q subvolume snapshot -r maker/w maker/r1/root",
    );
    place.sh("rsync -aHAX --delete --checksum --inplace v2/ maker/w/; \
        btrfs -q subvolume snapshot -r maker/w maker/r7/root; sync");
    place.sh("btrfs -q send maker/r1/root 2> /dev/null | btrfs -q receive pool/roots/r1");
    place
}

#[test]
#[ignore = "root, loop devices and rsync: cargo xtask agent rsync-tree"]
fn rsync_tree() {
    let place = btrfs();
    let tool = made(&place, "rsync-tree", "v2.rsync-tree", "v2 --from v1");
    let result = manifest(&place.path().join("v2"));
    assert_eq!(tool.told("T_BASE"), manifest(&place.path().join("v1")));
    assert_eq!(tool.told("T_RESULT"), result);
    tool.check();
    let points = tool.killed_everywhere();
    tool.done("drop");
    tool.lives("r7");
    assert_eq!(manifest(&place.path().join("pool/roots/r7/root")), result);
    eprintln!(
        "rsync-tree: {points} points; batch of {} octets",
        fs::metadata(&tool.payload).unwrap().len()
    );
    assert!(points >= 10, "{points}");
}

fn btrfs_send(format: &str, of: &str) {
    let place = btrfs();
    let tool = made(&place, format, &format!("root.{format}"), of);
    let result = manifest(&place.path().join("v2"));
    assert_eq!(tool.told("T_RESULT"), result);
    tool.check();
    let points = tool.killed_everywhere();
    tool.done("drop");
    tool.lives("r7");
    assert_eq!(manifest(&place.path().join("pool/roots/r7/root")), result);
    eprintln!(
        "{format}: {points} points; stream of {} octets",
        fs::metadata(&tool.payload).unwrap().len()
    );
    assert!(points >= 10, "{points}");
}

#[test]
#[ignore = "root, loop devices and btrfs: cargo xtask agent btrfs-send"]
fn btrfs_send_on_a_parent() {
    btrfs_send("btrfs-send", "maker/r7/root --from maker/r1/root");
}

#[test]
#[ignore = "root, loop devices and btrfs: cargo xtask agent btrfs-send"]
fn btrfs_send_whole_and_compressed() {
    btrfs_send("btrfs-send+zstd", "maker/r7/root");
}

/// How a payload is made of trees, in the directory `out`.
fn command(out: &str, of: &str) -> String {
    let tidings = built("tidings");
    let url = "https://get.example.org/";
    format!(
        "{} payload make {of} --out {out} --url {url}",
        tidings.display()
    )
}

#[test]
#[ignore = "root, loop devices and btrfs: cargo xtask agent btrfs-send"]
fn btrfs_send_is_made_of_sealed_subvolumes_called_root() {
    let place = btrfs();
    place.sh("btrfs -q subvolume snapshot maker/r7/root maker/open; cp -a v2 maker/plain");
    place.sh("btrfs -q subvolume snapshot -r maker/r7/root maker/other");
    for (of, says) in [
        ("v2", "v2 is no subvolume of btrfs: copy it into one"),
        ("maker/plain", "maker/plain is no subvolume of btrfs"),
        ("maker/open", "maker/open is not read-only: send a snapshot"),
        (
            "maker/other",
            "the stream would be called other, and machines look for root",
        ),
        (
            "maker/r7/root --from maker/open",
            "maker/open is not read-only",
        ),
    ] {
        let command = command("none", of);
        let said = place.sh(&format!(
            "! {command} --format btrfs-send 2>&1; ! [ -e none ]"
        ));
        assert!(said.starts_with("tidings: --format btrfs-send: "), "{said}");
        assert!(said.contains(says), "{said}");
    }
    let said = place.sh(&format!(
        "{}; cut -d' ' -f2 made/payloads",
        command("made", "maker/open --from maker/r1/root")
    ));
    assert!(said.ends_with("\nrsync-tree"), "it is left out: {said}");
}

#[test]
#[ignore = "root, loop devices and btrfs: cargo xtask agent btrfs-send"]
fn btrfs_send_is_proven_and_leaves_nothing() {
    let place = btrfs();
    let formats = |out: &str, of: &str| {
        let lines = place.sh(&format!(
            "{} > /dev/null; cut -d' ' -f2 {out}/payloads",
            command(out, of)
        ));
        lines.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = ["rsync-tree", "btrfs-send", "btrfs-send+zstd"];
    let of = "maker/r7/root --from maker/r1/root";
    assert_eq!(formats("both", of), all);
    assert_eq!(formats("whole", "maker/r7/root"), all[1..]);
    assert_eq!(place.sh("ls -A maker/r7"), "root");
    assert_eq!(place.sh("btrfs subvolume list maker | wc -l"), "3");
    // The same octets again.
    assert_eq!(formats("again", of), all);
    place.sh("cmp both/root.btrfs-send again/root.btrfs-send");
    // A subvolume within is not sent: another tree comes out, and that is seen.
    place.sh("btrfs -q subvolume create maker/w/within; mkdir maker/r8; \
         btrfs -q subvolume snapshot -r maker/w maker/r8/root");
    let command = command("within", "maker/r8/root --format btrfs-send");
    let said = place.sh(&format!("! {command} 2>&1; ls -A maker/r8"));
    assert!(said.contains("what comes out is sha256:"), "{said}");
    assert!(said.ends_with("\nroot"), "{said}");
}

#[test]
#[ignore = "ostree: cargo xtask agent ostree"]
fn ostree() {
    let mut place = Place::new("ostree.conf", "SYSROOT=HERE/root\nOS=os\n", "none");
    place
        .undo
        .push("chattr -i root/ostree/deploy/os/deploy/*.[0-9] 2> /dev/null".into());
    place.sh(
        "for n in 1 2; do mkdir -p t$n/usr/etc t$n/usr/lib/modules/6.$n t$n/usr/bin t$n/proc \
        t$n/sys t$n/dev t$n/run t$n/var t$n/sysroot t$n/boot; \
        echo kernel $n > t$n/usr/lib/modules/6.$n/vmlinuz; \
        echo initrd $n > t$n/usr/lib/modules/6.$n/initramfs.img; \
        printf 'ID=os\\nPRETTY_NAME=os\\nVERSION_ID=%s\\n' $n > t$n/usr/lib/os-release; \
        ln -s usr/bin t$n/bin; done; head -c 300000 /dev/urandom > t1/usr/bin/big; \
        { head -c 200000 t1/usr/bin/big; head -c 90000 /dev/urandom; } > t2/usr/bin/big",
    );
    let one = place.sh("ostree --repo=pub init --mode=archive; \
        ostree --repo=pub commit -b os/stable --timestamp=@1 --owner-uid=0 --owner-gid=0 \
        --tree=dir=t1");
    let two = place.sh(
        "ostree --repo=pub commit -b os/stable --timestamp=@2 --owner-uid=0 \
        --owner-gid=0 --tree=dir=t2",
    );
    place.sh(&format!(
        "mkdir root; ostree admin init-fs root; export OSTREE_SYSROOT=root; \
        ostree admin os-init os > /dev/null; ostree --repo=root/ostree/repo config set \
        sysroot.bootloader none; ostree --repo=root/ostree/repo pull-local pub {one} > /dev/null; \
        ostree --repo=root/ostree/repo refs --create=base {one}; \
        ostree admin deploy --os=os {one} > /dev/null 2>&1"
    ));
    fs::write(place.path().join("env"), format!("primary={one}\nnext=\n")).unwrap();
    fs::write(place.path().join("booted"), format!("{one}\n")).unwrap();
    let compare = format!(
        "{} payload compare pub:os/stable",
        built("tidings").display()
    );
    let same = place.sh(&format!("{compare} pub:{two}"));
    assert_eq!(same, format!("the same: sha256:{two}"));
    let differs = place.sh(&format!("! {compare} pub:{one}"));
    assert!(
        differs.contains("/usr/bin/big: -00644 0 0 290000 "),
        "{differs}"
    );
    assert!(
        differs.contains("/usr/lib/modules/6.1: only in the second: d"),
        "{differs}"
    );
    // Whole, for a machine that has nothing of it.
    let whole = made(&place, "ostree", &format!("{two}.ostree"), "pub:os/stable");
    whole.done("stage");
    assert_eq!(whole.done("state"), "staged");
    whole.done("drop");
    place.sh("mv made whole");
    let of = format!("pub:os/stable --from pub:{one}");
    let tool = made(&place, "ostree", &format!("{two}.ostree"), &of);
    assert_eq!(
        (tool.told("T_RESULT"), tool.told("T_FROM")),
        (&two[..], &one[..])
    );
    tool.check();
    let points = tool.killed_everywhere();
    tool.done("drop");
    tool.lives(&two);
    place.sh(&format!(
        "ostree --repo=root/ostree/repo fsck --quiet {two}"
    ));
    eprintln!(
        "ostree: {points} points; delta of {} octets",
        fs::metadata(&tool.payload).unwrap().len()
    );
    assert!(points >= 10, "{points}");
}
