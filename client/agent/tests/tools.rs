//! Handlers with their real tools, on loop devices and file systems of their own: as root, by
//! `cargo xtask agent`. Each is tested by the contract; then it is killed at every program that
//! `stage` and `drop` start, and goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{octets, write_program};
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
        "rsync",
        "ostree",
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
            "#!/bin/sh\nPATH={PATH}\nuntil mkdir {d}/lock 2> /dev/null; do :; done\nread -r n < {d}/n\nn=$((n + 1))\necho $n > {d}/n\nrmdir {d}/lock\n[ $n != {n} ] || kill -9 0\nexec {real} \"$@\"\n"
        );
        write_program(&directory.join(tool), &text);
    }
    directory.display().to_string()
}

/// Two trees that differ in some files, as `v1` and `v2`.
fn trees(place: &Place) {
    place.sh("mkdir -p v1/usr/lib v1/etc; i=0; while [ $i -lt 40 ]; do head -c 20000 /dev/urandom > v1/usr/lib/f$i; i=$((i + 1)); done; ln -s usr/lib v1/lib; echo VERSION=1 > v1/etc/os-release; cp -a v1 v2; echo VERSION=2 > v2/etc/os-release; head -c 20000 /dev/urandom > v2/usr/lib/f7; rm v2/usr/lib/f9; touch -r v1/usr/lib/f7 v2/usr/lib/f7");
}

/// The digest of a tree's manifest, computed here and not by the handler.
fn manifest(root: &Path) -> String {
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
    place.sh("mkdir -p pool/roots/r1 maker/r1 maker/r7; btrfs -q subvolume create maker/w; cp -a v1/. maker/w/; btrfs -q subvolume snapshot -r maker/w maker/r1/root");
    place.sh("rsync -aHAX --delete --checksum --inplace v2/ maker/w/; btrfs -q subvolume snapshot -r maker/w maker/r7/root; sync");
    place.sh("btrfs -q send maker/r1/root 2> /dev/null | btrfs -q receive pool/roots/r1");
    place
}

#[test]
#[ignore = "root, loop devices and rsync: cargo xtask agent rsync-tree"]
fn rsync_tree() {
    let place = btrfs();
    place.sh("cp -a v1 w; rsync -aHAX --delete --checksum --no-whole-file --only-write-batch=batch v2/ w/");
    let (base, result) = (
        manifest(&place.path().join("v1")),
        manifest(&place.path().join("v2")),
    );
    let tool = Tool::new(
        &place,
        "rsync-tree",
        "batch",
        &[("T_BASE", &base), ("T_RESULT", &result)],
    );
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

fn btrfs_send(format: &str, make: &str, parent: bool) {
    let place = btrfs();
    place.sh(make);
    let result = manifest(&place.path().join("v2"));
    let uuid = place.sh("btrfs subvolume show maker/r1/root | sed -n 's/^\\s*UUID:\\s*//p'");
    let mut environment = vec![("T_RESULT", result.as_str())];
    if parent {
        environment.push(("T_X_PARENT", &uuid));
    }
    let tool = Tool::new(&place, format, "stream", &environment);
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
    btrfs_send(
        "btrfs-send",
        "btrfs -q send -p maker/r1/root -f stream maker/r7/root",
        true,
    );
}

#[test]
#[ignore = "root, loop devices and btrfs: cargo xtask agent btrfs-send"]
fn btrfs_send_whole_and_compressed() {
    btrfs_send(
        "btrfs-send+zstd",
        "btrfs -q send -f s maker/r7/root; zstd -q -19 s -o stream",
        false,
    );
}

#[test]
#[ignore = "root, loop devices and grub-editenv: cargo xtask agent grub"]
fn grub_with_block_devices() {
    slots_with_loader(
        "grub",
        "GRUBENV=HERE/grubenv\nLOADER_CMDLINE=HERE/cmdline\n",
        "grub-editenv grubenv create; grub-editenv grubenv set primary=A",
        |place| {
            // What grub.cfg does: next, once.
            place.sh("n=$(grub-editenv grubenv list | sed -n 's/^next=//p'); p=$(grub-editenv grubenv list | sed -n 's/^primary=//p'); grub-editenv grubenv unset next; echo root=x tidings.slot=${n:-$p} > cmdline; echo ${n:-$p}")
        },
    );
}

#[test]
#[ignore = "root, loop devices and libubootenv: cargo xtask agent uboot"]
fn uboot_with_block_devices() {
    let prepare = "truncate -s 16K e1 e2; printf '%s 0x0 0x4000\\n%s 0x0 0x4000\\n' $PWD/e1 $PWD/e2 > fw.config; printf 'primary=A\\n' > init; fw_setenv -c fw.config -f init -s init 2> /dev/null || :";
    slots_with_loader(
        "uboot",
        "UBOOT_CONFIG=HERE/fw.config\nLOADER_CMDLINE=HERE/cmdline\n",
        prepare,
        |place| {
            place.sh("e() { fw_printenv -c fw.config 2> /dev/null | sed -n \"s/^$1=//p\"; }; n=$(e next); p=$(e primary); fw_setenv -c fw.config next; echo root=x tidings.slot=${n:-$p} > cmdline; echo ${n:-$p}")
        },
    );
}

fn slots_with_loader(loader: &str, conf: &str, prepare: &str, boot: impl Fn(&Place) -> String) {
    let mut place = Place::new("slots.conf", "", "A");
    let (a, b) = (place.device("A", "2M"), place.device("B", "2M"));
    fs::write(
        place.path().join("etc/slots.conf"),
        format!("SLOT_A={a}\nSLOT_B={b}\n"),
    )
    .unwrap();
    let text = format!(
        "LOADER={loader}\n{}",
        conf.replace("HERE", &place.path().display().to_string())
    );
    fs::write(place.path().join("etc/loader.conf"), text).unwrap();
    fs::write(place.path().join("image"), octets("image", 1_500_000)).unwrap();
    place.sh(prepare);
    place.sh("echo root=x tidings.slot=A > cmdline");
    let tool = Tool::new(&place, "raw", "image", &[]);
    tool.check();
    let points = tool.killed_everywhere();
    eprintln!("raw with {loader}: {points} points");
    tool.done("drop");
    for verb in ["stage", "arm"] {
        tool.done(verb);
    }
    assert_eq!(
        (boot(&place).as_str(), tool.done("state").as_str()),
        ("B", "running")
    );
    assert_eq!(
        (boot(&place).as_str(), tool.done("state").as_str()),
        ("A", "staged"),
        "once, and no more"
    );
    tool.done("arm");
    assert_eq!(boot(&place), "B");
    tool.done("keep");
    assert_eq!(
        (boot(&place).as_str(), tool.done("state").as_str()),
        ("B", "kept")
    );
    assert!(
        fs::read(&b)
            .unwrap()
            .starts_with(&octets("image", 1_500_000))
    );
}

#[test]
#[ignore = "ostree: cargo xtask agent ostree"]
fn ostree() {
    let mut place = Place::new("ostree.conf", "SYSROOT=HERE/root\nOS=os\n", "none");
    place
        .undo
        .push("chattr -i root/ostree/deploy/os/deploy/*.[0-9] 2> /dev/null".into());
    place.sh("for n in 1 2; do mkdir -p t$n/usr/etc t$n/usr/lib/modules/6.$n t$n/usr/bin t$n/proc t$n/sys t$n/dev t$n/run t$n/var t$n/sysroot t$n/boot; echo kernel $n > t$n/usr/lib/modules/6.$n/vmlinuz; echo initrd $n > t$n/usr/lib/modules/6.$n/initramfs.img; printf 'ID=os\\nPRETTY_NAME=os\\nVERSION_ID=%s\\n' $n > t$n/usr/lib/os-release; ln -s usr/bin t$n/bin; done; head -c 300000 /dev/urandom > t1/usr/bin/big; { head -c 200000 t1/usr/bin/big; head -c 90000 /dev/urandom; } > t2/usr/bin/big");
    let one = place.sh("ostree --repo=pub init --mode=archive; ostree --repo=pub commit -b os/stable --timestamp=@1 --owner-uid=0 --owner-gid=0 --tree=dir=t1");
    let two = place.sh("ostree --repo=pub commit -b os/stable --timestamp=@2 --owner-uid=0 --owner-gid=0 --tree=dir=t2");
    place.sh(&format!(
        "ostree --repo=pub static-delta generate --from={one} --to={two} --inline --min-fallback-size=0 --filename=delta > /dev/null 2>&1"
    ));
    place.sh(&format!("mkdir root; ostree admin init-fs root; export OSTREE_SYSROOT=root; ostree admin os-init os > /dev/null; ostree --repo=root/ostree/repo config set sysroot.bootloader none; ostree --repo=root/ostree/repo pull-local pub {one} > /dev/null; ostree --repo=root/ostree/repo refs --create=base {one}; ostree admin deploy --os=os {one} > /dev/null 2>&1"));
    fs::write(place.path().join("env"), format!("primary={one}\nnext=\n")).unwrap();
    fs::write(place.path().join("booted"), format!("{one}\n")).unwrap();
    let tool = Tool::new(
        &place,
        "ostree",
        "delta",
        &[("T_RESULT", &two), ("T_FROM", &one)],
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
