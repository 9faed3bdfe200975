//! The rules of protocol 0.2 as a model that is explored breadth first, every state once.
//!
//! One namespace with two channels; an honest origin, its publishers (who may race and crash), its
//! signer of beats and its ceremonies; a device; and between origin and device an adversary who has
//! everything that was ever signed, decides what the device gets and when, and has each set of
//! stolen keys in turn. [`device`] has the rules of a device as one struct and the four functions
//! `judge`, `place`, `freshness` and `clear`, to be read beside `src/view`; [`world`] the rules of
//! everybody else and all that may happen; [`invariants`] what must hold in every state, and that
//! every state heals. [`mutants`] takes the rules away one by one, and sees an invariant break;
//! [`stories`] plays known attacks.
//!
//! Time is counted in steps: a beat is live for two of them, and may be as far ahead. Signatures,
//! hashes and the grammar are not modelled, nor are stolen root keys. `cargo test` explores small
//! bounds. With `EXPLORE=full` in the environment the same test explores wide ones, up to
//! `EXPLORE_STATES` states (30,000,000) for each set of keys, and says how far it came:
//!
//! ```text
//! EXPLORE=full cargo test --release -p tidings-protocol --test explore explored -- --nocapture
//! --test-threads=2
//! ```
#![allow(clippy::unwrap_used)]

mod device;
mod facts;
mod invariants;
mod learn;
mod moves;
mod mutants;
mod rules;
mod search;
mod stories;
mod world;

use facts::{Kind, PLAIN, Role};
use rules::Setting;
use search::{explore, tell};
use world::{Bounds, Ceremony};

/// The sets of stolen keys.
const STOLEN: [(&str, &[Role]); 6] = [
    ("none", &[]),
    ("beat", &[Role::Beat]),
    ("withdraw", &[Role::Withdraw]),
    ("release", &[Role::Release]),
    ("beat and withdraw", &[Role::Beat, Role::Withdraw]),
    ("beat and release", &[Role::Beat, Role::Release]),
];

/// Releases of every sort: plain, behind a barrier, not due before 2, for other machines, with an
/// unknown critical field.
const TERMS: &[Kind] = &[
    PLAIN,
    Kind::Release {
        barrier: 1,
        not_before: 0,
        matches: true,
        critical: false,
    },
    Kind::Release {
        barrier: 2,
        not_before: 0,
        matches: true,
        critical: false,
    },
    Kind::Release {
        barrier: 0,
        not_before: 2,
        matches: true,
        critical: false,
    },
    Kind::Release {
        barrier: 0,
        not_before: 0,
        matches: false,
        critical: false,
    },
    Kind::Release {
        barrier: 0,
        not_before: 0,
        matches: true,
        critical: true,
    },
];

/// In small bounds at most so many states of each set of keys: what lies nearest to the beginning.
const SMALL_STATES: usize = 60_000;

/// Explores within the small bounds, or, if asked to, within the wide ones, for each set of keys.
fn each_set(name: &str, setting: fn() -> Setting, small: &Bounds, wide: &Bounds) {
    let full = std::env::var("EXPLORE").is_ok_and(|asked| asked == "full");
    let most = std::env::var("EXPLORE_STATES")
        .map_or(30_000_000, |most| most.parse().expect("a number of states"));
    let (bounds, most) = if full {
        (wide, most)
    } else {
        (small, SMALL_STATES)
    };
    for (keys, stolen) in STOLEN {
        let forgeries = if stolen.is_empty() {
            0
        } else {
            bounds.forgeries
        };
        let (setting, bounds) = (
            setting(),
            Bounds {
                stolen,
                forgeries,
                ..bounds.clone()
            },
        );
        let found = explore(&setting, &bounds, most);
        let all = if found.complete { "all" } else { "the first" };
        eprintln!(
            "{name}, stolen {keys}: {all} {} states, {:.1} s; new releases needed {:?}",
            found.states, found.seconds, found.needed
        );
        if let Some((what, moves, world)) = found.broken {
            panic!(
                "{name}, stolen {keys}: {what:?}\n{}{:?}",
                tell(&setting, &moves),
                world.device
            );
        }
    }
}

fn clocked() -> Setting {
    Setting::new(Some(0))
}

fn small() -> Bounds {
    Bounds {
        serials: [2, 0],
        time: 1,
        signs: 1,
        forgeries: 1,
        ..Bounds::default()
    }
}

fn wide() -> Bounds {
    Bounds {
        serials: [3, 0],
        time: 3,
        signs: 3,
        forgeries: 1,
        ..Bounds::default()
    }
}

#[test]
fn explored_before_a_rotation() {
    let small = Bounds {
        publishers: 2,
        ..small()
    };
    each_set(
        "before a rotation",
        clocked,
        &small,
        &Bounds {
            publishers: 2,
            ..wide()
        },
    );
}

#[test]
fn explored_up_to_five_serials_and_eight_steps() {
    let with = |time, serials| Bounds {
        serials: [serials, 0],
        time,
        signs: time,
        forgeries: 1,
        withdrawals: false,
        ..Bounds::default()
    };
    each_set("long", clocked, &with(2, 2), &with(8, 5));
}

#[test]
fn explored_over_a_rotation() {
    let over = |bounds| Bounds {
        ceremonies: &[Ceremony::Remove],
        ..bounds
    };
    each_set(
        "over a rotation",
        clocked,
        &over(Bounds { time: 0, ..small() }),
        &over(wide()),
    );
}

#[test]
fn explored_over_a_rotation_by_beat() {
    let over = |bounds| Bounds {
        ceremonies: &[Ceremony::RemoveByBeat],
        ..bounds
    };
    let small = Bounds {
        serials: [1, 1],
        time: 0,
        withdrawals: false,
        ..small()
    };
    each_set(
        "over a rotation by beat, two channels",
        clocked,
        &over(small),
        &over(Bounds {
            serials: [3, 2],
            ..wide()
        }),
    );
}

#[test]
fn explored_over_a_third_trust() {
    let over = |bounds| Bounds {
        ceremonies: &[Ceremony::Routine, Ceremony::Remove],
        ..bounds
    };
    let small = Bounds {
        serials: [2, 0],
        time: 0,
        withdrawals: false,
        ..small()
    };
    each_set("over a third trust", clocked, &over(small), &over(wide()));
}

#[test]
fn explored_with_a_closing() {
    let over = |bounds| Bounds {
        ceremonies: &[Ceremony::Close, Ceremony::Remove],
        ..bounds
    };
    let small = Bounds {
        serials: [1, 1],
        time: 0,
        withdrawals: false,
        ..small()
    };
    each_set(
        "with a closing, two channels",
        clocked,
        &over(small),
        &over(Bounds {
            serials: [2, 2],
            ..wide()
        }),
    );
}

#[test]
fn explored_without_beats() {
    let over = |bounds| Bounds {
        beats: false,
        ceremonies: &[Ceremony::Routine, Ceremony::Remove],
        time: 0,
        ..bounds
    };
    each_set(
        "without beats",
        clocked,
        &over(small()),
        &over(Bounds {
            publishers: 2,
            ..wide()
        }),
    );
}

#[test]
fn explored_without_a_clock() {
    let over = |bounds| Bounds {
        reboots: true,
        ceremonies: &[Ceremony::Remove],
        ..bounds
    };
    let small = Bounds {
        serials: [1, 0],
        time: 1,
        ..small()
    };
    each_set(
        "without a clock",
        || Setting::new(None),
        &over(small),
        &over(Bounds {
            serials: [2, 0],
            ..wide()
        }),
    );
}

#[test]
fn explored_with_releases_of_every_sort() {
    let over = |bounds| Bounds {
        releases: TERMS,
        ceremonies: &[Ceremony::Remove],
        ..bounds
    };
    let small = Bounds {
        releases: &TERMS[..2],
        time: 0,
        withdrawals: false,
        ..small()
    };
    each_set(
        "with releases of every sort",
        clocked,
        &Bounds {
            ceremonies: &[Ceremony::Remove],
            ..small
        },
        &over(wide()),
    );
}

#[test]
fn explored_with_few_links_and_holes() {
    let setting = || Setting {
        links: 2,
        holes: true,
        ..clocked()
    };
    let over = |bounds| Bounds {
        ceremonies: &[Ceremony::Remove],
        ..bounds
    };
    let small = Bounds {
        time: 0,
        withdrawals: false,
        ..small()
    };
    each_set(
        "with few links and holes",
        setting,
        &over(small),
        &over(Bounds {
            serials: [5, 0],
            time: 2,
            ..wide()
        }),
    );
}
