//! Two slots with a boot loader's own variables.

use std::{fs, process::Command};

use super::{LIB, PATH, Place, Tool, common::octets, killer};

#[test]
#[ignore = "root, loop devices and grub-editenv: cargo xtask agent grub"]
fn grub_with_block_devices() {
    slots_with_loader(
        "grub",
        "GRUBENV=HERE/grubenv\nLOADER_CMDLINE=HERE/cmdline\n",
        "grub-editenv grubenv create; grub-editenv grubenv set primary=A",
        |place| {
            // What grub.cfg does: next, once.
            place.sh("n=$(grub-editenv grubenv list | sed -n 's/^next=//p'); \
                p=$(grub-editenv grubenv list | sed -n 's/^primary=//p'); \
                grub-editenv grubenv unset next; echo root=x tidings.slot=${n:-$p} > cmdline; \
                echo ${n:-$p}")
        },
    );
}

#[test]
#[ignore = "root, loop devices and libubootenv: cargo xtask agent uboot"]
fn uboot_with_block_devices() {
    let prepare = "truncate -s 16K e1 e2; \
        printf '%s 0x0 0x4000\\n%s 0x0 0x4000\\n' $PWD/e1 $PWD/e2 > fw.config; \
        printf 'primary=A\\n' > init; fw_setenv -c fw.config -f init -s init 2> /dev/null || :";
    slots_with_loader(
        "uboot",
        "UBOOT_CONFIG=HERE/fw.config\nLOADER_CMDLINE=HERE/cmdline\n",
        prepare,
        |place| {
            place.sh(
                "e() { fw_printenv -c fw.config 2> /dev/null | sed -n \"s/^$1=//p\"; }; \
                n=$(e next); p=$(e primary); fw_setenv -c fw.config next; \
                echo root=x tidings.slot=${n:-$p} > cmdline; echo ${n:-$p}",
            )
        },
    );
}

/// The entries as an operator lays them, beside another one that sorts before them.
const ENTRIES: &str = "rm -f esp/loader/entries/*; mkdir -p esp/loader/entries; \
    echo 'default tidings-*' > esp/loader/loader.conf; echo kernel > esp/k
for s in A B; do printf 'title %s\nsort-key tidings\nversion %s\nlinux /k\n\
    options root=x tidings.slot=%s\n' $s \
    $([ $s = A ] && echo 1 || echo 0) $s > esp/loader/entries/tidings-$s.conf; done
printf 'title other\nsort-key a\nversion 9\nlinux /k\noptions tidings.slot=other\n' \
    > esp/loader/entries/other.conf";

#[test]
fn an_entry_of_systemd_boot_is_copied_as_it_is() {
    let place = Place::new("slots.conf", "", "A");
    let here = place.path().display().to_string();
    let conf = format!("ESP={here}/esp\nLOADER_CMDLINE={here}/cmdline\n");
    fs::write(place.path().join("etc/loader.conf"), conf).unwrap();
    place.sh(&format!("echo tidings.slot=A > cmdline; {ENTRIES}"));
    // What some shells' `echo` takes for a newline, an end, an option.
    let rest = "title B\nsort-key tidings\nlinux /k\n-n x\n\
                options root=PARTLABEL=b\\x2d\\n\\c \\\\ %s tidings.slot=B\n";
    let entries = place.path().join("esp/loader/entries");
    fs::write(entries.join("tidings-B.conf"), format!("version 0\n{rest}")).unwrap();
    place.sh(&format!(
        "T_ETC={here}/etc {LIB}/loader.d/systemd-boot next B"
    ));
    let written = fs::read_to_string(entries.join("tidings-B+1-0.conf")).unwrap();
    assert_eq!(written, format!("{rest}version 2\n"));
}

/// What systemd-boot does: the entry that systemd's own code takes for the default, after its
/// counter has been moved.
fn systemd_boot(place: &Place) -> String {
    let listed = place.sh("SYSTEMD_RELAX_ESP_CHECKS=1 bootctl --esp-path=$PWD/esp --no-pager list");
    let entry = listed
        .split("title:")
        .find(|entry| entry.contains("(default)"));
    let path = entry.and_then(|entry| entry.split("source: ").nth(1)?.lines().next());
    let path = path.unwrap_or_else(|| panic!("no default: {listed}"));
    place.sh(&format!(
        "p='{path}'; sed -n 's/^options //p' \"$p\" > cmdline; case $p in *+*) left=${{p##*+}}; \
         left=${{left%%-*}}; done=${{p##*-}}; done=${{done%.conf}}; [ $left -gt 0 ] && \
         mv \"$p\" \"${{p%+*}}+$((left - 1))-$((done + 1)).conf\" ;; esac; \
         sed -n 's/.*tidings.slot=//p' cmdline"
    ))
}

#[test]
#[ignore = "root, loop devices and bootctl: cargo xtask agent systemd-boot"]
fn systemd_boot_with_block_devices() {
    // bootctl wants a file system of its own; this kernel may have no vfat.
    slots_with_loader(
        "systemd-boot",
        "ESP=HERE/esp\nLOADER_CMDLINE=HERE/cmdline\n",
        &format!("mkdir esp; mount -t tmpfs esp esp; {ENTRIES}"),
        systemd_boot,
    );
}

/// The loader's script, killed at the n-th program that it starts; whether it was.
fn loader_is_killed(place: &Place, arguments: &str, n: u32) -> bool {
    let shims = killer(place.path(), n);
    let status = Command::new("setsid")
        .args(["--wait", &format!("{LIB}/loader.d/systemd-boot")])
        .args(arguments.split(' '))
        .env_clear()
        .env("PATH", format!("{shims}:{PATH}"))
        .env("T_ETC", place.path().join("etc"))
        .current_dir(place.path())
        .status()
        .unwrap();
    !status.success()
}

#[test]
#[ignore = "root and bootctl: cargo xtask agent systemd-boot"]
fn systemd_boot_is_killed_everywhere() {
    let mut place = Place::new("slots.conf", "", "A");
    let here = place.path().display().to_string();
    let conf = format!("ESP={here}/esp\nLOADER_CMDLINE={here}/cmdline\n");
    fs::write(place.path().join("etc/loader.conf"), conf).unwrap();
    place.sh("mkdir esp; mount -t tmpfs esp esp; echo tidings.slot=A > cmdline");
    place.undo.push("umount esp".into());
    let call = |arguments: &str| {
        place.sh(&format!(
            "PATH={PATH} T_ETC={here}/etc {LIB}/loader.d/systemd-boot {arguments}"
        ))
    };
    // What is done before; what is killed; what may boot after it; what `get` says when it was
    // done again; what boots then, twice.
    let stories = [
        ("next -", "next B", ["A", "B"], "A B", ["B", "A"]),
        ("next B", "next -", ["A", "B"], "A -", ["A", "A"]),
        ("next B", "primary B", ["A", "B"], "B -", ["B", "B"]),
        ("primary B", "next A", ["A", "B"], "B A", ["A", "B"]),
    ];
    let mut points = 0;
    for (before, verb, may, says, boots) in stories {
        for n in 1..100 {
            let mut killed = false;
            for again in [false, true] {
                place.sh(ENTRIES);
                call(before);
                if verb == "primary B" {
                    assert_eq!(systemd_boot(&place), "B");
                }
                killed = loader_is_killed(&place, verb, n);
                if again {
                    call(verb);
                    let got = call("get");
                    assert!(got.ends_with(says), "{verb} at {n}: {got}");
                    let booted = [systemd_boot(&place), systemd_boot(&place)];
                    assert_eq!(booted, boots, "{verb} at {n}");
                } else {
                    let booted = systemd_boot(&place);
                    assert!(may.contains(&booted.as_str()), "{verb} at {n}: {booted}");
                }
            }
            if !killed {
                break;
            }
            assert!(n < 99, "{verb} has no end");
            points += 1;
        }
    }
    eprintln!("systemd-boot: {points} points");
    assert!(points >= 10, "{points}");
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
    place.undo.push("! mountpoint -q esp || umount esp".into());
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
