//! Trees on OpenZFS, which the kernel of this machine need not have: the tests run in a VM, where
//! Debian's kernel has it, as this same program.

use std::fs;

use super::{
    LIB, sh,
    vm::{console, from_environment, told},
};

#[test]
#[ignore = "a VM: cargo xtask agent zfs"]
fn zfs_send() {
    let (unpacked, modules) = (
        from_environment("TIDINGS_UNPACKED"),
        from_environment("TIDINGS_ZFS"),
    );
    let scratch = tempfile::tempdir().unwrap();
    let make = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/vm/zfs.sh");
    let test = std::env::current_exe().unwrap();
    sh(
        scratch.path(),
        &format!(
            "sh {make} {} {} {LIB} {} 2>&1",
            unpacked.display(),
            modules.display(),
            test.display()
        ),
    );
    let machine = "-m 1024 -kernel kernel -initrd initrd -drive file=disk.img,if=virtio,format=raw";
    let mut machine: Vec<&str> = machine.split(' ').collect();
    machine.extend(["-append", "console=ttyS0 quiet no_timer_check panic=2"]);
    let lines = console(scratch.path(), &machine);
    let (said, _) = told(&lines);
    let (tests, life): (Vec<_>, Vec<_>) = said.iter().partition(|line| line.starts_with("said"));
    assert!(
        tests
            .iter()
            .any(|line| line.starts_with("said test result: ok. 7 passed; 0 failed;")),
        "{tests:#?}"
    );
    assert!(life[0].starts_with("up zfs 2."), "{life:#?}");
    let expected = [
        "can 0 none",
        // ZFS forgets what was received by half.
        "the power goes: partial",
        "boots r1, version 1, state none",
        "stage 0 staged",
        "arm 0 armed",
        // Once.
        "boots r7, version 2, state running",
        "boots r1, version 1, state staged",
        "arm 0 armed",
        "boots r7, version 2, state running",
        "keep 0 kept",
        "boots r7, version 2, state kept",
        "drop 0 kept",
        // It was made on the old one.
        "the old one is gone",
        "trees: tank/ROOT tank/ROOT/r7",
        "end",
    ];
    assert_eq!(life[1..], expected);
}

mod inside {
    use std::{
        io::Write,
        os::unix::process::CommandExt,
        process::{Child, Command},
    };

    use rustix::process::{Pid, Signal, kill_process_group};
    use tidings_agent::handler::{FAILED, UNUSABLE};

    use super::{
        super::{PATH, Place, Tool, common::octets, trees::manifest},
        *,
    };

    /// Two small trees that differ, a pool of this size with the first, and the streams of both.
    fn place(size: &str, new: usize) -> Place {
        let mut place = Place::new("zfs.conf", "ZFS=tank/ROOT\n", "r1");
        place
            .undo
            .push("for p in tank maker; do zpool destroy -f $p 2> /dev/null; done".into());
        for (tree, version) in [("v1", "1"), ("v2", "2")] {
            let tree = place.path().join(tree);
            fs::create_dir_all(tree.join("usr/lib")).unwrap();
            fs::write(tree.join("usr/lib/same"), octets("same", 100_000)).unwrap();
            fs::write(tree.join("usr/lib/new"), octets(version, new)).unwrap();
            fs::write(tree.join("version"), version).unwrap();
            std::os::unix::fs::symlink("usr/lib", tree.join("lib")).unwrap();
        }
        place.sh(&format!(
            "for p in tank maker; do truncate -s {size} $p.img
                zpool create -o cachefile=none -O mountpoint=none $p $PWD/$p.img; done
            zfs create tank/ROOT; zfs create -o mountpoint=legacy maker/os
            mkdir os; mount -t zfs maker/os os; cp -a v1/. os/; zfs snapshot maker/os@1
            rm os/lib; cp -a v2/. os/; zfs snapshot maker/os@2; umount os
            zfs send maker/os@2 > whole; zfs send -i @1 maker/os@2 > stream
            zfs send maker/os@1 | zfs receive -u -o readonly=on -o canmount=noauto \
                -o mountpoint=/ tank/ROOT/r1@r1"
        ));
        place
    }

    fn parent(place: &Place) -> String {
        place.sh("zfs get -Hpo value guid maker/os@1")
    }

    fn datasets(place: &Place) -> String {
        place.sh("zfs list -Ho name -t all -r tank/ROOT | tail -n +2 | xargs")
    }

    /// The contract, a kill at each program, and the whole life.
    fn lives(payload: &str, on_parent: bool) {
        let place = place("192M", 200_000);
        let result = manifest(&place.path().join("v2"));
        let base = manifest(&place.path().join("v1"));
        let parent = parent(&place);
        let mut environment = vec![("T_RESULT", result.as_str())];
        if on_parent {
            environment.extend([("T_X_PARENT", parent.as_str()), ("T_BASE", base.as_str())]);
        }
        let tool = Tool::new(&place, "zfs-send", payload, &environment);
        tool.check();
        let points = tool.killed_everywhere();
        tool.done("drop");
        assert_eq!(datasets(&place), "tank/ROOT/r1 tank/ROOT/r1@r1");
        tool.lives("r7");
        place.sh("mkdir m; mount -t zfs -o zfsutil tank/ROOT/r7 m");
        assert_eq!(manifest(&place.path().join("m")), result);
        place.sh("umount m; zfs destroy -r tank/ROOT/r1");
        eprintln!(
            "zfs-send of {payload}: {points} points; {} octets",
            fs::metadata(&tool.payload).unwrap().len()
        );
        assert!(points >= 10, "{points}");
    }

    #[test]
    #[ignore = "in the VM: cargo xtask agent zfs"]
    fn whole() {
        lives("whole", false);
    }

    #[test]
    #[ignore = "in the VM: cargo xtask agent zfs"]
    fn on_a_parent() {
        lives("stream", true);
    }

    /// `stage` refuses a payload for good, and nothing is left of it.
    fn refused(place: &Place, payload: &str, environment: &[(&str, &str)]) {
        let before = datasets(place);
        let tool = Tool::new(place, "zfs-send", payload, environment);
        let answer = tool.call("stage", PATH).unwrap();
        eprintln!("{payload} {environment:?}: {} {}", answer.code, answer.line);
        assert_eq!(answer.code, UNUSABLE, "{payload}: {}", answer.line);
        tool.done("drop");
        assert_eq!(tool.done("state"), "none");
        assert_eq!(datasets(place), before);
    }

    #[test]
    #[ignore = "in the VM: cargo xtask agent zfs"]
    fn what_is_not_for_this_machine_is_refused() {
        let place = place("192M", 200_000);
        let guid = parent(&place);
        for (guid, what) in [
            ("1", "no snapshot with the guid 1 in tank/ROOT"),
            ("x; true", "parent= is the guid of a snapshot, in digits"),
        ] {
            let tool = Tool::new(&place, "zfs-send", "stream", &[("T_X_PARENT", guid)]);
            let answer = tool.call("can", PATH).unwrap();
            assert_eq!((answer.code, answer.line.as_str()), (UNUSABLE, what));
            refused(&place, "stream", &[("T_X_PARENT", guid)]);
        }
        // It is made on a snapshot, and says on which; it is not said to the handler, or another.
        refused(&place, "stream", &[]);
        place.sh("zfs create tank/ROOT/other; zfs snapshot tank/ROOT/other@1");
        let other = place.sh("zfs get -Hpo value guid tank/ROOT/other@1");
        refused(&place, "stream", &[("T_X_PARENT", &other)]);
        // Another tree than was promised.
        let nought = "0".repeat(64);
        refused(&place, "whole", &[("T_RESULT", &nought)]);
        refused(
            &place,
            "stream",
            &[("T_X_PARENT", &guid), ("T_BASE", &nought)],
        );
    }

    #[test]
    #[ignore = "in the VM: cargo xtask agent zfs"]
    fn what_is_not_one_whole_tree_is_refused() {
        let place = place("192M", 200_000);
        let whole = fs::read(place.path().join("whole")).unwrap();
        let lengths = [10, 400, whole.len() / 2, whole.len() - 312, whole.len() - 1];
        for length in lengths {
            fs::write(place.path().join("short"), &whole[..length]).unwrap();
            refused(&place, "short", &[]);
        }
        fs::write(place.path().join("noise"), octets("noise", 100_000)).unwrap();
        refused(&place, "noise", &[]);
        // Several snapshots; no file system.
        place.sh(
            "zfs send -R maker/os@2 > many; zfs create -V 1M maker/volume
            zfs snapshot maker/volume@1; zfs send maker/volume@1 > volume",
        );
        for payload in ["many", "volume"] {
            refused(&place, payload, &[]);
        }
        // Where a tree is mounted is not for the stream to say.
        place.sh(
            "zfs set canmount=off maker/os; zfs set mountpoint=/etc maker/os
            zfs send -p maker/os@2 > properties",
        );
        Tool::new(&place, "zfs-send", "properties", &[]).done("stage");
        let got = place.sh("zfs get -Ho value readonly,canmount,mountpoint tank/ROOT/r7 | xargs");
        assert_eq!(got, "on noauto /");
    }

    #[test]
    #[ignore = "in the VM: cargo xtask agent zfs"]
    fn no_room_is_said_before_and_tried_again_after() {
        let place = place("80M", 900_000);
        let free = |more: u64| {
            let free: u64 = place
                .sh("zfs get -Hpo value available tank/ROOT")
                .parse()
                .unwrap();
            place.sh(&format!("zfs set quota={} tank/ROOT", used(&place) + more));
            free
        };
        let tool = Tool::new(&place, "zfs-send", "whole", &[]);
        free(500_000);
        let answer = tool.call("can", PATH).unwrap();
        assert!(
            answer.line.starts_with("no room in tank/ROOT: "),
            "{answer:?}"
        );
        assert_eq!(answer.code, UNUSABLE);
        let answer = tool.call("stage", PATH).unwrap();
        eprintln!("{answer:?}");
        assert_eq!(answer.code, FAILED, "{}", answer.line);
        assert_eq!(tool.done("state"), "none");
        free(20_000_000);
        tool.done("stage");
        assert_eq!(tool.done("state"), "staged");
        // What was written into it since is not what was staged.
        place.sh("zfs set readonly=off tank/ROOT/r7; mkdir m
            mount -t zfs -o zfsutil tank/ROOT/r7 m; echo x > m/version; umount m
            zfs set readonly=on tank/ROOT/r7; zpool sync tank");
        assert_eq!(tool.done("state"), "partial");
        assert_eq!(tool.call("arm", PATH).unwrap().code, FAILED);
        tool.done("stage");
        assert_eq!(tool.done("state"), "staged");
    }

    fn used(place: &Place) -> u64 {
        place
            .sh("zfs get -Hpo value used tank/ROOT")
            .parse()
            .unwrap()
    }

    /// `stage`, to which half of the payload has come.
    fn half_staged(place: &Place, tool: &Tool<'_>) -> (Child, Child) {
        let payload = fs::read(&tool.payload).unwrap();
        place.sh("rm -f half; mkfifo half; mkdir -p work");
        let script = format!(
            "exec {LIB}/format.d/zfs-send stage 3< {}/half",
            place.path().display()
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .current_dir(place.path().join("work"))
            .process_group(0);
        command.env_clear().env("PATH", PATH).env("T_LIB", LIB);
        command
            .env("T_ETC", place.path().join("etc"))
            .env("T_FORMAT", "zfs-send")
            .env("T_SERIAL", "7")
            .env("T_SIZE", payload.len().to_string());
        command.envs(tool.environment.iter().cloned());
        let stage = command.spawn().unwrap();
        let mut pipe = fs::OpenOptions::new()
            .write(true)
            .open(place.path().join("half"))
            .unwrap();
        // All of it but what the pipe holds has been received when this is done.
        pipe.write_all(&payload[..payload.len() / 2]).unwrap();
        // Somebody else holds it open.
        let holder = Command::new("sleep").arg("1000").stdout(pipe).spawn();
        (stage, holder.unwrap())
    }

    #[test]
    #[ignore = "in the VM: cargo xtask agent zfs"]
    fn killed_in_the_middle_of_a_stream_it_begins_anew() {
        // A pipe holds 64 KiB in this VM.
        let place = place("192M", 600_000);
        let parent = parent(&place);
        let result = manifest(&place.path().join("v2"));
        let environment = [("T_X_PARENT", parent.as_str()), ("T_RESULT", &result)];
        let on_parent = Tool::new(&place, "zfs-send", "stream", &environment);
        let whole = Tool::new(&place, "zfs-send", "whole", &[("T_RESULT", &result)]);
        for tool in [&whole, &on_parent] {
            let (mut stage, mut holder) = half_staged(&place, tool);
            let during = tool.done("state");
            kill_process_group(Pid::from_child(&stage), Signal::KILL).unwrap();
            stage.wait().unwrap();
            let after = tool.done("state");
            holder.kill().unwrap();
            holder.wait().unwrap();
            eprintln!("{:?}: {during}, then {after}", tool.payload.file_name());
            assert_eq!(during, "partial");
            assert!(["partial", "none"].contains(&after.as_str()), "{after}");
            tool.done("stage");
            assert_eq!(tool.done("state"), "staged");
            tool.done("drop");
            assert_eq!(datasets(&place), "tank/ROOT/r1 tank/ROOT/r1@r1");
        }
    }

    #[test]
    #[ignore = "in the VM: cargo xtask agent zfs"]
    fn what_hangs_on_a_tree_is_never_removed_with_it() {
        let place = place("192M", 200_000);
        let tool = Tool::new(&place, "zfs-send", "whole", &[]);
        tool.done("stage");
        place.sh("zfs clone tank/ROOT/r7@r7 tank/ROOT/r8");
        let answer = tool.call("drop", PATH).unwrap();
        assert_eq!(
            (answer.code, answer.line.as_str()),
            (FAILED, "tank/ROOT/r7 cannot be removed")
        );
        assert!(datasets(&place).ends_with("tank/ROOT/r7 tank/ROOT/r7@r7 tank/ROOT/r8"));
        place.sh("zfs destroy tank/ROOT/r8");
        tool.done("drop");
        assert_eq!(tool.done("state"), "none");
    }
}
