//! The units, and what the guide and the package say of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a unit says after `KEY=`, each time.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

fn drop_ins() -> Vec<PathBuf> {
    let directory = Path::new(ROOT).join("client/agent/units/examples");
    let mut all: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    all
}

#[test]
fn each_drop_in_is_in_the_package_and_in_the_guide() {
    let packaged = read("xtask/debian/tidings-agent.examples");
    let guide = [
        read("docs/guide/install.md"),
        read("docs/guide/update-a-machine.md"),
    ];
    assert_eq!(drop_ins().len(), 5);
    for path in drop_ins() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let listed = format!("debian/{name}");
        assert!(packaged.lines().any(|line| line == listed), "{listed}");
        // A link, which `cargo xtask package` follows.
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(read(&format!("xtask/{listed}")), text, "{name}");
        let named = format!("`{name}`");
        assert!(guide.iter().all(|page| page.contains(&named)), "{name}");
    }
}

/// What each of them is for, and no more.
#[test]
fn a_drop_in_gives_what_its_handler_needs() {
    let text = |name: &str| read(&format!("client/agent/units/examples/apply-{name}.conf"));
    let unit = read("client/agent/units/tidings-apply@.service");
    let livepatch = text("livepatch");
    let writes = values(&livepatch, "ReadWritePaths").join(" ");
    for path in [
        "/sys/kernel/livepatch",
        "/lib/modules",
        "/etc/modules-load.d",
    ] {
        assert!(
            writes
                .split(' ')
                .any(|word| word.trim_start_matches('-') == path),
            "{path}"
        );
        let handler = read("client/agent/handlers/format.d/livepatch");
        assert!(handler.contains(path), "{path}");
    }
    assert_eq!(
        values(&livepatch, "CapabilityBoundingSet"),
        ["CAP_SYS_MODULE"]
    );
    assert_eq!(values(&livepatch, "ProtectKernelModules"), ["no"]);
    assert_eq!(values(&livepatch, "SystemCallFilter"), ["@module"]);
    let kexec = text("kexec");
    assert_eq!(values(&kexec, "CapabilityBoundingSet"), ["CAP_SYS_BOOT"]);
    assert_eq!(
        values(&kexec, "SystemCallFilter"),
        ["kexec_file_load kexec_load"]
    );
    let sysupdate = text("sysupdate");
    assert_eq!(
        values(&sysupdate, "StateDirectory"),
        ["tidings-apply/sysupdate"]
    );
    let zfs = text("zfs");
    assert_eq!(values(&zfs, "DeviceAllow"), ["/dev/zfs rw"]);
    for (name, keys) in [(&livepatch, 4), (&kexec, 2), (&sysupdate, 1), (&zfs, 1)] {
        let all = name
            .lines()
            .filter(|line| line.contains('=') && !line.starts_with('#'));
        assert_eq!(all.count(), keys, "{name}");
    }
    // None of it is the unit's own.
    for word in [
        "CAP_SYS_MODULE",
        "CAP_SYS_BOOT",
        "@module",
        "kexec_file_load",
        "/dev/zfs",
    ] {
        let settings = unit.lines().filter(|line| !line.starts_with('#'));
        assert!(
            !settings.into_iter().any(|line| line.contains(word)),
            "{word}"
        );
    }
    assert_eq!(values(&unit, "ProtectKernelModules"), ["yes"]);
}

/// The broker's user owns /var/lib/tidings: root would follow the links that are laid there.
#[test]
fn root_writes_nothing_into_the_brokers_directory() {
    let mut left = vec![Path::new(ROOT).join("client/agent/handlers")];
    left.push(Path::new(ROOT).join("docs/guide/update-a-machine.md"));
    left.extend(drop_ins());
    let mut files = 0;
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains("/var/lib/tidings/"), "{}", path.display());
            files += 1;
        }
    }
    assert!(files > 20, "{files}");
}

#[test]
fn a_reload_is_checked_by_the_brokers_user() {
    let unit = read("docs/units/tidingsd.service").replace("\\\n", " ");
    let [user] = values(&unit, "User")[..] else {
        panic!("who runs it?")
    };
    let reload = values(&unit, "ExecReload");
    let words: Vec<&str> = reload[0].split_whitespace().collect();
    let at = |word: &str| words.iter().position(|one| *one == word);
    let wanted = [
        format!("--reuid={user}"),
        format!("--regid={user}"),
        "--init-groups".into(),
        "--bounding-set=-all".into(),
        "--inh-caps=-all".into(),
        "--ambient-caps=-all".into(),
        "--no-new-privs".into(),
    ];
    for word in &wanted {
        assert!(
            at(word).is_some() && at(word) < at("/usr/bin/tidingsd"),
            "{word}"
        );
    }
    assert!(at("/usr/bin/setpriv") < at("--no-new-privs"), "{words:?}");
}

/// Users and directories, without which systemd does not start a unit.
#[test]
fn the_guide_makes_what_the_units_want() {
    let guide = read("docs/guide/install.md");
    let (_, elsewhere) = guide.split_once("\n## Elsewhere\n").unwrap();
    for path in [
        "docs/units/tidingsd.service",
        "client/agent/units/tidings-agent.service",
    ] {
        let unit = read(path);
        let [user] = values(&unit, "User")[..] else {
            panic!("{path}: no user")
        };
        assert!(elsewhere.contains(&format!("'u {user} - ")), "{user}");
        assert!(
            elsewhere.contains(&format!("/var/lib/{user} {user}\n")),
            "{user}"
        );
        let [keys] = values(&unit, "LoadCredential")[..] else {
            panic!("{path}: no keys")
        };
        let (_, directory) = keys.split_once(':').unwrap();
        let made = format!("install -d -m 0700 {directory}\n");
        assert!(elsewhere.contains(&made), "{made}");
    }
}
