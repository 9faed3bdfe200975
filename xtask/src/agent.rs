//! The agent's handlers with their real tools: what wants root, loop devices, and packages that are
//! no part of CI's; and a fleet of real agents.

use std::process::Command;

use anyhow::{Context, bail, ensure};

/// A name, the tests that it stands for, and the Debian packages that it wants.
type Tool = (&'static str, &'static [&'static str], &'static str);
const TOOLS: &[Tool] = &[
    ("rsync-tree", &["trees::rsync_tree"], "btrfs-progs rsync"),
    (
        "btrfs-send",
        &[
            "trees::btrfs_send_on_a_parent",
            "trees::btrfs_send_is_made_of_sealed_subvolumes_called_root",
            "trees::btrfs_send_is_proven_and_leaves_nothing",
        ],
        "btrfs-progs rsync zstd",
    ),
    (
        "btrfs-send+zstd",
        &["trees::btrfs_send_whole_and_compressed"],
        "btrfs-progs rsync zstd",
    ),
    ("ostree", &["trees::ostree"], "ostree"),
    ("grub", &["slots::grub_with_block_devices"], "grub-common"),
    (
        "uboot",
        &["slots::uboot_with_block_devices"],
        "libubootenv-tool",
    ),
    (
        "systemd-boot",
        &[
            "slots::systemd_boot_with_block_devices",
            "slots::systemd_boot_is_killed_everywhere",
        ],
        "systemd-boot",
    ),
    (
        "rauc",
        &["bundles::rauc", "bundles::rauc_is_killed_everywhere"],
        RAUC,
    ),
    (
        "swupdate",
        &[
            "bundles::swupdate",
            "bundles::swupdate_is_killed_everywhere",
        ],
        SWUPDATE,
    ),
    ("sysupdate", &["sysupdate::sysupdate"], "mmdebstrap"),
    (
        "vm",
        &["vm::grub_falls_back_after_a_panic_and_after_a_hang_and_kexec_goes"],
        VM,
    ),
    (
        "systemd-boot-vm",
        &["vm::systemd_boot_counts_and_falls_back"],
        "qemu-system-x86 ovmf systemd-boot busybox-static cpio mtools dosfstools",
    ),
    ("livepatch", &["livepatch::livepatch"], LIVEPATCH),
    ("zfs", &["zfs::zfs_send"], ZFS),
    (
        "nspawn",
        &["vm::soft_reboot_into_another_root_and_a_unit_survives"],
        "mmdebstrap systemd-container",
    ),
    (
        "criu",
        &["criu::a_process_goes_on_in_another_kernel"],
        "qemu-system-x86 busybox-static cpio kmod e2fsprogs mmdebstrap",
    ),
    (
        "fleet",
        &["fleet::fifty_agents_take_turns_stop_and_heed_a_withdrawal"],
        "coreutils",
    ),
];
/// In the root of the repository.
const DEBIAN13: &str = "target/debian13";
const DEBIAN12: &str = "target/debian12";
const VM: &str =
    "qemu-system-x86 grub-pc-bin grub-common busybox-static kexec-tools cpio fdisk kmod e2fsprogs";
const LIVEPATCH: &str =
    "qemu-system-x86 busybox-static cpio kmod gcc make binutils lz4 libelf1 util-linux";
const ZFS: &str = "qemu-system-x86 busybox-static cpio kmod gcc make binutils libelf1 util-linux \
                   fdisk e2fsprogs dash findutils coreutils sed libtirpc3 libssl3";
/// OpenZFS itself, which lies in a component of Debian that not every machine has; unpacked, and
/// not installed.
const ZFS_UNPACKED: &[&str] = &[
    "zfs-dkms",
    "zfsutils-linux",
    "libnvpair3linux",
    "libuutil3linux",
    "libzfs4linux",
];
/// In the root of the repository: its modules, by the kernel's release.
const ZFS_MODULES: &str = "target/zfs";
const RAUC: &str = "rauc squashfs-tools dbus openssl";
const SWUPDATE: &str = "swupdate cpio openssl";
/// What the sweep wants, which runs with the agent's other tests.
const SWEEP: &str = "bsdiff xdelta3 zstd";

/// Those of CI, without what takes long.
pub(super) fn quick() -> anyhow::Result<()> {
    let packages: Vec<&str> = RAUC.split(' ').chain(SWUPDATE.split(' ')).collect();
    super::setup::packages(&packages)?;
    test(
        "tools",
        &["bundles::rauc", "bundles::swupdate"],
        &["--ignored"],
    )
}

/// Runs those that are named, or all.
pub(super) fn agent(names: &[String]) -> anyhow::Result<()> {
    if names == ["setup"] {
        let all: Vec<&str> = TOOLS
            .iter()
            .flat_map(|tool| tool.2.split(' '))
            .chain(SWEEP.split(' '))
            .collect();
        let status = Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(all)
            .status()?;
        ensure!(status.success(), "apt-get ended with {status}");
        return Ok(());
    }
    let chosen: Vec<_> = TOOLS
        .iter()
        .filter(|tool| names.is_empty() || names.iter().any(|name| name == tool.0))
        .collect();
    if let Some(name) = names
        .iter()
        .find(|name| name.as_str() != "sweep" && !TOOLS.iter().any(|tool| tool.0 == name.as_str()))
    {
        let known: Vec<&str> = TOOLS.iter().map(|tool| tool.0).collect();
        bail!(
            "{name:?} is no tool; known are setup, sweep, {}",
            known.join(", ")
        );
    }
    let sweep = names.is_empty() || names.iter().any(|name| name == "sweep");
    if sweep {
        test("sweep", &["attack_86_the_power_may_go_at_every_point"], &[]).context("the sweep")?;
    }
    if !chosen.is_empty() {
        // What tests start beside the agent's own programs; with a test, so that nothing is built
        // twice.
        let programs = "build --quiet --workspace --all-features --bin tidings --bin tidingsd";
        super::run(super::cargo(programs).args(["--test", "tools"]))?;
    }
    for (name, tests, packages) in chosen {
        println!("agent: {name}");
        match *name {
            "sysupdate" | "nspawn" => debian13()?,
            "criu" => {
                debian12()?;
                super::setup::unpacked(&kernels()?)?;
            }
            "vm" | "systemd-boot-vm" | "livepatch" => drop(super::setup::unpacked(&kernels()?)?),
            "zfs" => zfs()?,
            _ => {}
        }
        test("tools", tests, &["--ignored", "--test-threads", "1"]).with_context(|| {
            format!("{name}; it wants root and the packages {packages}: `cargo xtask agent setup`")
        })?;
    }
    Ok(())
}

/// Debian 13, whose systemd has what that of 12 has not; some 250 MB.
fn debian13() -> anyhow::Result<()> {
    let packages = "systemd,systemd-sysv,systemd-container,dbus,procps";
    tree("trixie", packages, DEBIAN13, "usr/bin/systemd-nspawn")
}

/// Debian 12 with its CRIU; some 250 MB.
fn debian12() -> anyhow::Result<()> {
    let packages = "systemd,systemd-sysv,dbus,procps,kmod,kexec-tools,criu";
    tree("bookworm", packages, DEBIAN12, "usr/sbin/criu")
}

/// A tree of a release of Debian, made once; `has` is a file of the packages in it.
fn tree(release: &str, packages: &str, at: &str, has: &str) -> anyhow::Result<()> {
    let tree = super::root().join(at);
    if tree.join(has).exists() {
        return Ok(());
    }
    super::setup::packages(&["mmdebstrap"])?;
    let status = super::command("mmdebstrap")
        .args(["--variant=minbase", "--include", packages, release])
        .arg(&tree)
        .status()?;
    ensure!(status.success(), "mmdebstrap ended with {status}");
    Ok(())
}

/// OpenZFS for Debian's kernel, built once.
fn zfs() -> anyhow::Result<()> {
    super::setup::packages(&ZFS.split_whitespace().collect::<Vec<_>>())?;
    super::setup::unpacked(&kernels()?)?;
    let unpacked = super::setup::unpacked_from("contrib", ZFS_UNPACKED)?;
    let modules = super::root().join(ZFS_MODULES);
    std::fs::create_dir_all(&modules)?;
    let script = super::root().join("client/agent/tests/tools/vm/zfs-modules.sh");
    super::run(
        super::setup::as_root("unshare")
            .args(["-m", "sh"])
            .args([&script, &unpacked])
            .current_dir(&modules),
    )
}

/// The packages of Debian's kernels for this release: two that differ, and what modules of the
/// first are built with.
fn kernels() -> anyhow::Result<Vec<String>> {
    let first = |name: &str, has: &str| {
        let output = super::command("apt-cache")
            .args(["depends", name])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|package| package.contains(has))
            .map(str::to_owned)
            .with_context(|| format!("no package {name} with {has}; is apt-get update due?"))
    };
    let headers = first("linux-headers-cloud-amd64", "linux-headers-")?;
    Ok(vec![
        first("linux-image-cloud-amd64", "linux-image-")?,
        first("linux-image-amd64", "linux-image-")?,
        first(&headers, "-common")?,
        first(&headers, "linux-kbuild-")?,
        headers,
    ])
}

/// Features are those of every other test: nothing is built twice. A name that is no test is an
/// error, and not a test that passed.
fn test(file: &str, names: &[&str], more: &[&str]) -> anyhow::Result<()> {
    let command = || {
        let mut command = super::cargo("test --quiet --workspace --all-features --test");
        let root = super::root();
        command.env("TIDINGS_DEBIAN12", root.join(DEBIAN12));
        command.env("TIDINGS_DEBIAN13", root.join(DEBIAN13));
        command.env("TIDINGS_UNPACKED", root.join("target/unpacked"));
        command.env("TIDINGS_ZFS", root.join(ZFS_MODULES));
        command.args([file, "--", "--exact"]).args(names).args(more);
        command
    };
    let listed = command().arg("--list").output()?;
    let found = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|line| line.ends_with(": test"))
        .count();
    ensure!(
        listed.status.success() && found == names.len(),
        "not all of {names:?} are tests of {file}: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let status = command().arg("--nocapture").status()?;
    ensure!(status.success(), "cargo test ended with {status}");
    Ok(())
}
