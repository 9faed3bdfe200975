//! Who runs code that the tree of now, or the tree that comes, does not have.
//!
//! Only `maps`, `map_files` and `cgroup` below `/proc/PID` are read, never a process's environment,
//! directory or command line (attack 83). No text of `maps` is believed but a path: what is mapped
//! is opened by `map_files`, the very inode, and compared by build-id, else by digest, with what
//! lies at that path below the process's own root, or below the new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What is mapped and is no file that an update brings.
const NOT_FILES: [&str; 12] = [
    "/memfd:",
    "/dev/zero",
    "/SYSV",
    "/dev/dri",
    "/dev/shm",
    "/dev/nvidia",
    "/dev/infiniband",
    "/i915",
    "/drm ",
    "/anon_hugepage",
    "/[",
    "//",
];
/// Units that are reported, and never restarted by anybody's program.
const NEVER: [&str; 6] = [
    "init.scope",
    "dbus.service",
    "dbus-broker.service",
    "systemd-logind.service",
    "tidings-agent.service",
    "session-",
];
/// Program headers of one file that are read.
const HEADERS: u16 = 256;
/// Octets of notes that are read.
const NOTES: u64 = 64 * 1024;

/// A process that runs what is not there any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Its id.
    pub pid: u32,
    /// Its unit; `-` if it has none.
    pub unit: String,
    /// Whether restarting the unit would do.
    pub restart: bool,
    /// The files, and why.
    pub files: Vec<(String, String)>,
}

/// What to compare with.
#[derive(Clone, Debug, Default)]
pub struct Against {
    /// The new root, before it is the root; else each process's own root.
    pub new_root: Option<PathBuf>,
    /// Only what lies below this.
    pub below: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Who runs what is not there any more.
    pub stale: Vec<Stale>,
    /// How many processes are others', and may not be read.
    pub hidden: usize,
}

/// All processes, or some.
///
/// # Errors
/// If there is no `/proc`.
pub fn find(proc: &Path, pids: &[u32], against: &Against) -> io::Result<Found> {
    let mut all: Vec<u32> = fs::read_dir(proc)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    all.retain(|pid| pids.is_empty() || pids.contains(pid));
    all.sort_unstable();
    let mut identities = Identities::default();
    let mut found = Found::default();
    for pid in all {
        let place = proc.join(pid.to_string());
        let files = match files(&place, against, &mut identities) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                found.hidden += 1;
                continue;
            }
            // It has ended meanwhile.
            Err(_) => continue,
        };
        if !files.is_empty() {
            let unit = unit(&fs::read_to_string(place.join("cgroup")).unwrap_or_default());
            let restart = pid != 1
                && unit.ends_with(".service")
                && !NEVER.iter().any(|never| unit.starts_with(never));
            found.stale.push(Stale {
                pid,
                unit,
                restart,
                files: files.into_iter().collect(),
            });
        }
    }
    Ok(found)
}

fn files(
    place: &Path,
    against: &Against,
    identities: &mut Identities,
) -> io::Result<BTreeSet<(String, String)>> {
    let began = fs::metadata(place)?.mtime();
    let mut found = BTreeSet::new();
    for line in fs::read_to_string(place.join("maps"))?.lines() {
        let Some(mapping) = Mapping::read(line) else {
            continue;
        };
        if against
            .below
            .as_ref()
            .is_some_and(|below| !mapping.path.starts_with(below.as_str()))
        {
            continue;
        }
        let theirs = place
            .join("root")
            .join(mapping.path.trim_start_matches('/'));
        let now = match &against.new_root {
            None => theirs,
            Some(root) => {
                // A file of a container's root is no business of this update.
                let same = || Some(key(Path::new(mapping.path)).ok()? == key(&theirs).ok()?);
                if !mapping.deleted && same() != Some(true) {
                    continue;
                }
                root.join(mapping.path.trim_start_matches('/'))
            }
        };
        let mapped = place.join("map_files").join(&mapping.span);
        // A file may be called so.
        let literal = || {
            place.join("root").join(format!(
                "{} (deleted)",
                mapping.path.trim_start_matches('/')
            ))
        };
        if mapping.deleted
            && key(&literal())
                .ok()
                .zip(key(&mapped).ok())
                .is_some_and(|(named, mapped)| named == mapped)
        {
            continue;
        }
        let mut why = changed(identities, &mapped, &now)?;
        if why.is_none() && !mapping.deleted && fs::metadata(&now)?.mtime() > began {
            why = Some("was written in place after the process began".into());
        }
        found.extend(why.map(|why| (mapping.path.to_owned(), why)));
    }
    Ok(found)
}

/// What a file that is mapped has become; none if it is the one that is there.
fn changed(identities: &mut Identities, mapped: &Path, now: &Path) -> io::Result<Option<String>> {
    Ok(match (identities.of(mapped), identities.of(now)) {
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        (Err(error), _) => Some(format!("cannot be read: {error}")),
        (_, Err(_)) => Some("is not there any more".into()),
        (Ok(was), Ok(there)) => {
            (was != there).then(|| format!("{} was {}", there.short(), was.short()))
        }
    })
}

/// An executable mapping of a file.
struct Mapping<'a> {
    span: String,
    path: &'a str,
    deleted: bool,
}

impl<'a> Mapping<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.split_once(' ')?;
            rest = after.trim_start();
            Some(word)
        };
        let (span, rights, _, _, inode) = (word()?, word()?, word()?, word()?, word()?);
        let (path, deleted) = rest
            .strip_suffix(" (deleted)")
            .map_or((rest, false), |path| (path, true));
        let file = path.starts_with('/') && !NOT_FILES.iter().any(|no| path.starts_with(no));
        let (from, to) = span.split_once('-')?;
        let bare = |text: &str| {
            Some(text.trim_start_matches('0').to_owned())
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| "0".into())
        };
        (rights.contains('x') && inode != "0" && file).then(|| Self {
            span: format!("{}-{}", bare(from), bare(to)),
            path,
            deleted,
        })
    }
}

/// The unit of a process, as its cgroup names it.
fn unit(cgroup: &str) -> String {
    let suffixes = [".service", ".scope", ".socket"];
    let parts = cgroup.lines().flat_map(|line| line.rsplit('/'));
    parts
        .into_iter()
        .find(|part| suffixes.iter().any(|suffix| part.ends_with(suffix)))
        .unwrap_or("-")
        .to_owned()
}

/// What a file is: its build-id, or the SHA-256 of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity(Vec<u8>);

impl Identity {
    fn short(&self) -> String {
        self.0
            .iter()
            .take(6)
            .map(|octet| format!("{octet:02x}"))
            .collect()
    }
}

type Key = (u64, u64, i64, i64, u64);

#[derive(Default)]
struct Identities(BTreeMap<Key, Identity>);

fn key(path: &Path) -> io::Result<Key> {
    let about = fs::metadata(path)?;
    Ok((
        about.dev(),
        about.ino(),
        about.mtime(),
        about.mtime_nsec(),
        about.size(),
    ))
}

impl Identities {
    fn of(&mut self, path: &Path) -> io::Result<Identity> {
        let key = key(path)?;
        if let Some(known) = self.0.get(&key) {
            return Ok(known.clone());
        }
        let mut file = fs::File::open(path)?;
        let identity = match build_id(&mut file) {
            Ok(Some(id)) => Identity(id),
            _ => Identity(digest(&mut file)?),
        };
        self.0.insert(key, identity.clone());
        Ok(identity)
    }
}

fn digest(file: &mut fs::File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hash.finalize().to_vec());
        }
        hash.update(&buffer[..count]);
    }
}

/// NT_GNU_BUILD_ID of a 64-bit little-endian ELF file.
fn build_id(file: &mut fs::File) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 64];
    file.read_exact(&mut head)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let (table, size, count) = (
        number::<8>(&head, 32),
        number::<2>(&head, 54),
        number::<2>(&head, 56),
    );
    for index in 0..count.min(HEADERS.into()) {
        let mut header = [0; 56];
        file.seek(SeekFrom::Start(table.saturating_add(index * size)))?;
        file.read_exact(&mut header)?;
        if number::<4>(&header, 0) == 4 {
            let mut notes = Vec::new();
            file.seek(SeekFrom::Start(number::<8>(&header, 8)))?;
            file.by_ref()
                .take(number::<8>(&header, 32).min(NOTES))
                .read_to_end(&mut notes)?;
            if let Some(id) = gnu_build_id(&notes) {
                return Ok(Some(id));
            }
        }
    }
    Ok(None)
}

fn gnu_build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    while notes.len() >= 12 {
        let padded = |at: usize| {
            usize::try_from(number::<4>(notes, at))
                .ok()?
                .checked_next_multiple_of(4)
        };
        let (name, size, kind) = (
            padded(0)?,
            usize::try_from(number::<4>(notes, 4)).ok()?,
            number::<4>(notes, 8),
        );
        let body = 12_usize.checked_add(name)?;
        if kind == 3 && notes.get(12..15) == Some(b"GNU") {
            return notes.get(body..body.checked_add(size)?).map(<[u8]>::to_vec);
        }
        notes = notes.get(body.checked_add(padded(4)?)?..)?;
    }
    None
}

fn number<const N: usize>(octets: &[u8], at: usize) -> u64 {
    octets
        .iter()
        .skip(at)
        .take(N)
        .rev()
        .fold(0, |number, octet| number << 8 | u64::from(*octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read_for_what_it_is() {
        let of = |line| Mapping::read(line).map(|m| (m.span, m.path.to_owned(), m.deleted));
        let file = "00400000-0040b000 r-xp 00000000 08:01 1234    /usr/bin/my program";
        assert_eq!(
            of(file),
            Some(("400000-40b000".into(), "/usr/bin/my program".into(), false))
        );
        let deleted = "7f00-7f10 r-xp 00000000 08:01 99 /usr/lib/libx.so (deleted)";
        assert_eq!(
            of(deleted),
            Some(("7f00-7f10".into(), "/usr/lib/libx.so".into(), true))
        );
        for no in [
            "7f00-7f10 r--p 00000000 08:01 99 /usr/lib/libx.so",
            "7f00-7f10 r-xp 00000000 00:00 0 [vdso]",
            "7f00-7f10 r-xp 00000000 00:01 99 /memfd:jit (deleted)",
            "7f00-7f10 rwxs 00000000 00:01 99 /SYSV00000000 (deleted)",
            "7f00-7f10 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(of(no), None, "{no}");
        }
        assert_eq!(unit("0::/system.slice/ssh.service\n"), "ssh.service");
        assert_eq!(
            unit("0::/user.slice/user-0.slice/session-3.scope\n"),
            "session-3.scope"
        );
        assert_eq!(unit("0::/\n"), "-");
    }

    #[test]
    fn notes_that_lie_about_their_length_end() {
        assert_eq!(gnu_build_id(&[0xff; 64]), None);
        assert_eq!(
            gnu_build_id(b"\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0\xaa\xbb\xcc\xdd"),
            Some(vec![0xaa, 0xbb, 0xcc, 0xdd])
        );
        assert_eq!(
            gnu_build_id(b"\x04\0\0\0\xff\xff\xff\x7f\x03\0\0\0GNU\0\xaa"),
            None
        );
    }
}
