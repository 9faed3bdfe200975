//! Machines that go: a VM with GRUB (emulated, without KVM), and systemd as the first process of a
//! container. What is measured is the time in which a service does not serve.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use super::{LIB, sh};

/// A whole life in the VM may take so long.
const LIMIT: Duration = Duration::from_secs(2_400);

pub(super) fn from_environment(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is set by `cargo xtask agent vm` and `… nspawn`"))
        .into()
}

/// One line of the console, and when it came.
pub(super) struct Line {
    at: Instant,
    text: String,
}

/// Ends a machine at the end of the test, or when it has had its time.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a machine prints until it ends. Its kernels have `no_timer_check`: where the host is busy,
/// the emulated timer is late, and a kernel that looks for it at its start panics.
pub(super) fn console(place: &Path, machine: &[&str]) -> Vec<Line> {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args("-no-user-config -nodefaults -M q35,accel=tcg -cpu max -m 512 -smp 1".split(' '))
        .args("-display none -monitor none -serial stdio".split(' '))
        .args(machine)
        .current_dir(place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-system-x86 is wanted: cargo xtask agent setup");
    let output = BufReader::new(qemu.stdout.take().unwrap());
    let machine = Ended(qemu);
    let (send, lines) = std::sync::mpsc::sync_channel(1_000);
    let reader = thread::spawn(move || {
        for line in output.split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).into_owned();
            let at = Instant::now();
            if send.send(Line { at, text }).is_err() {
                break;
            }
        }
    });
    let (began, mut all) = (Instant::now(), Vec::new());
    while let Ok(line) = lines.recv_timeout(LIMIT.saturating_sub(began.elapsed())) {
        if line.text.contains("VM ") && !line.text.contains("VM tick") {
            let of = line.text.rsplit("VM ").next().unwrap_or_default();
            eprintln!("{:7.1} {}", began.elapsed().as_secs_f32(), of.trim());
        }
        all.push(line);
    }
    drop((machine, lines));
    reader.join().unwrap();
    all
}

/// What was said, without ticks; and between two lives, what came before and the seconds in which
/// nothing ticked.
pub(super) fn told(lines: &[Line]) -> (Vec<String>, Vec<(String, f32)>) {
    let (mut said, mut gaps) = (Vec::new(), Vec::new());
    let (mut last, mut gone): (Option<Instant>, String) = (None, String::new());
    let mut before = None;
    for line in lines {
        let Some((_, text)) = line.text.split_once("VM ") else {
            continue;
        };
        let text = text.trim();
        if text.starts_with("tick") {
            if let (Some(from), Some(what)) = (last, before.take()) {
                gaps.push((what, line.at.duration_since(from).as_secs_f32()));
            }
            last = Some(line.at);
            continue;
        }
        if text.starts_with("go ") || ["panics", "hangs"].contains(&text) {
            gone = text.to_owned();
        }
        if text.starts_with("up ") {
            before = last.map(|_| gone.clone());
        }
        said.push(text.to_owned());
    }
    (said, gaps)
}

#[test]
#[ignore = "a VM, some minutes: cargo xtask agent vm"]
fn grub_falls_back_after_a_panic_and_after_a_hang_and_kexec_goes() {
    let unpacked = from_environment("TIDINGS_UNPACKED");
    let scratch = tempfile::tempdir().unwrap();
    let make = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/vm/make.sh");
    sh(
        scratch.path(),
        &format!("sh {make} {} {LIB} 2>&1", unpacked.display()),
    );
    let lines = console(
        scratch.path(),
        &[
            "-device",
            "i6300esb",
            "-drive",
            "file=disk.img,if=virtio,format=raw",
        ],
    );
    let (said, gaps) = told(&lines);
    let kernel = |slot: &str| {
        let up = format!("up slot={slot} kernel=");
        said.iter()
            .find_map(|line| line.strip_prefix(&up).map(str::to_owned))
            .unwrap_or_default()
    };
    let up = |slot: &str| format!("up slot={slot} kernel={}", kernel(slot));
    assert_ne!(kernel("A"), kernel("B"), "{said:#?}");
    let expected = [
        // Boots once, panics, and the old one is back.
        "grub boots A",
        &up("A"),
        "release=2 (panics) state=none",
        "go 2 reboot",
        "grub boots B",
        &up("B"),
        "release=2 (panics) state=running",
        "panics",
        "grub boots A",
        &up("A"),
        "release=2 (panics) state=staged",
        "fell back from 2",
        // The same after a hang, by the watchdog.
        "release=3 (hangs) state=none",
        "go 3 reboot",
        "grub boots B",
        &up("B"),
        "release=3 (hangs) state=running",
        "hangs",
        "grub boots A",
        &up("A"),
        "release=3 (hangs) state=staged",
        "fell back from 3",
        // Well, and kept.
        "release=4 (serves) state=none",
        "go 4 reboot",
        "grub boots B",
        &up("B"),
        "release=4 (serves) state=running",
        "kept 4: kept",
        // Into the announced kernel, without the loader.
        "release=5 (serves) state=none",
        "go 5 kexec",
        &up("A"),
        "release=5 (serves) state=running",
        "kept 5: kept",
        // What was kexeced and panics is not booted again.
        "release=6 (panics) state=none",
        "go 6 kexec",
        &up("B"),
        "release=6 (panics) state=running",
        "panics",
        "grub boots A",
        &up("A"),
        "release=6 (panics) state=staged",
        "fell back from 6",
        "end slot=A loader=A A -",
    ];
    assert_eq!(said, expected);
    for (what, seconds) in &gaps {
        eprintln!("without service: {seconds:6.1} s  {what}");
    }
    assert_eq!(gaps.len(), 8, "{gaps:?}");
}

/// The longest time between two ticks.
fn longest_gap(path: &Path) -> f32 {
    let text = fs::read_to_string(path).unwrap();
    let ticks: Vec<f32> = text.lines().map(|line| line.parse().unwrap()).collect();
    let gaps = ticks.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.fold(0.0, f32::max)
}

#[test]
#[ignore = "root, a container and a tree of Debian 13: cargo xtask agent nspawn"]
fn soft_reboot_into_another_root_and_a_unit_survives() {
    let tree = from_environment("TIDINGS_DEBIAN13");
    let scratch = tempfile::tempdir().unwrap();
    let make = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/vm/nspawn.sh");
    sh(
        scratch.path(),
        &format!(
            "unshare -m sh {make} {} {LIB} > console 2>&1 || {{ cat console; exit 1; }}",
            tree.display()
        ),
    );
    let state = scratch.path().join("state");
    let said = fs::read_to_string(state.join("said")).unwrap();
    let said: Vec<&str> = said
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    let pid = said[1].rsplit(' ').next().unwrap();
    let expected = [
        "root-1 soft-reboots=0 survivor=inactive 0",
        &format!("survivor=active {pid}"),
        "go",
        &format!("root-2 soft-reboots=1 survivor=active {pid}"),
        "end",
    ];
    assert_eq!(said, expected);
    let [service, survivor] = ["service", "survivor"].map(|name| longest_gap(&state.join(name)));
    eprintln!("without service: {service:.2} s, and {survivor:.2} s of the unit that survives");
    assert!(survivor < service, "{survivor} {service}");
}

#[test]
#[ignore = "a VM with UEFI: cargo xtask agent systemd-boot-vm"]
fn systemd_boot_counts_and_falls_back() {
    let unpacked = from_environment("TIDINGS_UNPACKED");
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path();
    let make = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/tools/vm/systemd-boot.sh"
    );
    sh(here, &format!("sh {make} {} 2>&1", unpacked.display()));
    sh(
        here,
        "mkdir etc; printf 'ESP=%s/now\\nLOADER_CMDLINE=%s/cmdline\\n' \"$PWD\" \"$PWD\" > \
         etc/loader.conf; echo tidings.slot=A > cmdline",
    );
    // The loader's script on the ESP as it is: mounted, where the kernel has vfat.
    let call = |arguments: &str| {
        sh(
            here,
            &format!(
                "rm -rf now; mkdir -p now; mcopy -s -i disk.img ::loader now/; \
                 T_ETC=$PWD/etc {LIB}/loader.d/systemd-boot {arguments}; \
                 mdeltree -i disk.img ::loader; mcopy -s -i disk.img now/loader ::"
            ),
        )
    };
    let boot = || {
        let code = "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
        let vars = "if=pflash,format=raw,file=vars.fd";
        let disk = "file=disk.img,if=ide,format=raw";
        let lines = console(here, &["-drive", code, "-drive", vars, "-drive", disk]);
        let slot = told(&lines).0.pop().unwrap_or_default();
        sh(
            here,
            &format!("echo tidings.{} > cmdline", slot.replace(' ', "=")),
        );
        slot
    };
    call("next B");
    assert_eq!(call("get"), "A A B");
    assert_eq!(boot(), "slot B");
    assert_eq!(call("get"), "B A -", "the loader has counted");
    assert_eq!(boot(), "slot A", "once");
    call("next B");
    assert_eq!(boot(), "slot B");
    call("primary B");
    assert_eq!(call("get"), "B B -");
    assert_eq!(boot(), "slot B", "kept");
}
