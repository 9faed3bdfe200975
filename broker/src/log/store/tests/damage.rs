//! Files that were changed, lost or copied meanwhile.

use std::sync::Arc;

use super::{Content, Life, SMALL, keys, open, read};
use crate::{
    log::store::{
        Batch, Limits, Store, StoreError,
        simulated::{Fault, Model, SimulatedDisk},
    },
    simulation::seeds::wanted,
};

/// One segment, or more, with about a hundred statements; closed in order.
fn hundred(limits: Limits) -> (SimulatedDisk, Content) {
    let disk = SimulatedDisk::new(Model::Posix);
    let store = Store::open_on(Arc::new(disk.clone()), limits).unwrap();
    let mut life = Life::new(11);
    while life.content.statements.len() < 100 {
        life.next = life.content.clone();
        let mut batch = Batch::default();
        life.append(&mut batch);
        store.commit(batch).unwrap();
        life.content = life.next.clone();
    }
    drop(store);
    (disk.copy(), life.content)
}

/// Damage is refused and named, or costs what it has hit, and that is said. Gives how many
/// statements it cost.
#[track_caller]
fn check_damaged(disk: &SimulatedDisk, limits: Limits, content: &Content, about: &str) -> usize {
    let before = disk.operations().0;
    match Store::open_on(Arc::new(disk.clone()), limits) {
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("store/0000000"), "{about}: {text}");
            assert_eq!(
                disk.operations().0,
                before,
                "{about}: something was changed"
            );
            0
        }
        Ok(store) => {
            let (found, damaged) = read(&store);
            let mut expected = content.clone();
            damaged
                .iter()
                .for_each(|one| drop(expected.statements.remove(one)));
            assert!(
                found == expected,
                "{about}: lost {damaged:?}, and {:?}",
                keys(&found)
            );
            assert_eq!(damaged.len(), store.damaged().len(), "{about}");
            damaged.len()
        }
    }
}

#[test]
fn a_flipped_octet_costs_one_statement_or_is_refused() {
    let limits = Limits {
        segment: 1 << 20,
        slice: 1 << 16,
    };
    let (disk, content) = hundred(limits);
    let octets = disk.all()["store/00000001.log"].len();
    // At a desk some of them; `TIDINGS_OCTETS_EACH=1` for all.
    let each = wanted("TIDINGS_OCTETS_EACH").map_or(5, |each| each.try_into().unwrap());
    let run = |begin: usize| {
        let mut costs = [0; 2];
        for at in (begin..octets).step_by(2 * each) {
            let disk = disk.copy();
            disk.rot("store/00000001.log", |octets| octets[at] ^= 1 << (at % 8));
            let cost = check_damaged(&disk, limits, &content, &format!("octet {at}"));
            assert!(cost <= 1, "octet {at} cost {cost} statements");
            costs[cost] += 1;
        }
        assert!(costs[0] * each > 100 && costs[1] * each > 1000, "{costs:?}");
    };
    std::thread::scope(|scope| (0..2).for_each(|begin| drop(scope.spawn(move || run(begin)))));
}

#[test]
fn who_asks_a_store_that_has_failed_for_room_is_told_so() {
    let disk = SimulatedDisk::new(Model::Posix);
    let store = Store::open_on(Arc::new(disk.clone()), SMALL).unwrap();
    disk.fail_at(disk.operations().0 + 1, Fault::Gone { is_done: false });
    let (mut life, mut batch) = (Life::new(3), Batch::default());
    life.next = life.content.clone();
    life.append(&mut batch);
    assert!(store.commit(batch).is_err());
    assert!(matches!(store.missing_octets(), Err(StoreError::Failed)));
    assert!(matches!(store.settle(), Err(StoreError::Failed)));
}

#[test]
fn a_sector_of_nothing_is_refused_or_said() {
    for (limits, what) in [
        (
            Limits {
                segment: 1 << 20,
                slice: 1 << 16,
            },
            "one segment",
        ),
        (SMALL, "several"),
    ] {
        let (disk, content) = hundred(limits);
        for (name, octets) in disk.all() {
            for at in (0..octets.len()).step_by(512) {
                for indexed in [true, false] {
                    let disk = disk.copy();
                    if !indexed {
                        crate::log::store::files::Disk::list(&disk, "store")
                            .unwrap()
                            .iter()
                            .filter(|name| name.ends_with("idx"))
                            .for_each(|name| {
                                crate::log::store::files::Disk::remove(
                                    &disk,
                                    &format!("store/{name}"),
                                )
                                .unwrap();
                            });
                    }
                    if !disk.all().contains_key(&name) {
                        continue;
                    }
                    disk.rot(&name, |octets| {
                        let end = (at + 512).min(octets.len());
                        octets[at..end].fill(0);
                    });
                    check_damaged(
                        &disk,
                        limits,
                        &content,
                        &format!("{what}, {name}, sector at {at}"),
                    );
                }
            }
        }
    }
}

#[test]
fn flips_in_many_segments_and_their_indexes() {
    let (disk, content) = hundred(SMALL);
    for (name, octets) in disk.all() {
        for at in (0..octets.len()).step_by(7) {
            let disk = disk.copy();
            disk.rot(&name, |octets| octets[at] ^= 0x40);
            let cost = check_damaged(&disk, SMALL, &content, &format!("{name} octet {at}"));
            assert!(
                cost <= 1 && (cost == 0 || name.ends_with("log")),
                "{name} octet {at}"
            );
        }
    }
}

#[test]
fn a_file_that_is_gone_is_missed_if_it_held_anything() {
    let (disk, content) = hundred(SMALL);
    let names: Vec<_> = disk.all().into_keys().collect();
    assert!(names.len() > 6, "{names:?}");
    let ahead = names.iter().rfind(|name| name.ends_with("log")).unwrap();
    for name in &names {
        let disk = disk.copy();
        crate::log::store::files::Disk::remove(&disk, name).unwrap();
        let refused = open(&disk).is_err();
        // The one that was made ahead is empty, and index files are made anew.
        assert_eq!(refused, name.ends_with("log") && name != ahead, "{name}");
        check_damaged(&disk, SMALL, &content, name);
    }
}

/// What was copied while it was written is whole up to where it ends, if the newest files are
/// copied first.
#[test]
fn a_copy_that_is_taken_meanwhile_is_a_prefix() {
    for seed in 0..40 {
        let (disk, copy) = (
            SimulatedDisk::new(Model::Posix),
            SimulatedDisk::new(Model::Posix),
        );
        let (mut life, store) = (Life::new(seed), open(&disk).unwrap());
        let mut contents = vec![life.content.clone()];
        let mut step = |life: &mut Life, count: usize| {
            for _ in 0..count {
                // Without retention, which may take away what is still to be copied.
                life.next = life.content.clone();
                let mut batch = Batch::default();
                life.append(&mut batch);
                store.commit(batch).unwrap();
                life.content = life.next.clone();
                contents.push(life.content.clone());
            }
        };
        step(&mut life, 12);
        crate::log::store::files::Disk::create_directory(&copy, "store").unwrap();
        let names: Vec<_> = disk.all().into_keys().rev().collect();
        for name in names {
            let octets = disk.all()[&name].clone();
            let file = crate::log::store::files::Disk::create(&copy, &name).unwrap();
            // The end of the file is where the copy found it, in the middle of a batch perhaps.
            let cut = if name.ends_with("log") {
                life.random.below(octets.len().min(400) + 1)
            } else {
                0
            };
            let is_growing = name
                == *disk
                    .all()
                    .keys()
                    .rfind(|name| name.ends_with("log") && !disk.all()[*name].is_empty())
                    .unwrap();
            file.write_at(
                0,
                &octets[..octets.len() - if is_growing { cut } else { 0 }],
            )
            .unwrap();
            step(&mut life, 1);
        }
        drop(store);
        let copied = open(&copy).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found = read(&copied).0;
        assert!(contents.contains(&found), "seed {seed}");
    }
}

#[test]
fn another_layout_a_foreign_file_and_half_a_copy_are_refused() {
    let refused = |names: &[&str], expected: &str| {
        let disk = SimulatedDisk::new(Model::Posix);
        crate::log::store::files::Disk::create_directory(&disk, "store").unwrap();
        names.iter().for_each(|name| {
            drop(crate::log::store::files::Disk::create(&disk, &format!("store/{name}")).unwrap())
        });
        let before = disk.all();
        let error = open(&disk).map(drop).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("nothing was changed"),
            "{error}"
        );
        assert!(disk.all() == before);
    };
    refused(&["conf", "db"], "has layout 1");
    refused(&["0.jnl", "keyspaces", "version"], "has layout 2");
    refused(
        &["00000001.log", "notes.txt"],
        "store/notes.txt is not a file of the store",
    );
    refused(&[], "lacks store/00000001.log");
    refused(&["00000002.log"], "lacks store/00000001.log");
    let (disk, _) = hundred(SMALL);
    disk.rot("store/00000001.log", |octets| octets[3] = 4);
    crate::log::store::files::Disk::remove(&disk, "store/00000001.idx").unwrap();
    let error = open(&disk).map(drop).unwrap_err().to_string();
    assert!(
        error.contains("has layout 4")
            && error.contains("start the newer one; nothing was changed"),
        "{error}"
    );
}
