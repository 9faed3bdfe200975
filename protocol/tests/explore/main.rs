//! The rules of a device, an origin, a signer and a publisher, explored before they are built (and ever since).
#![allow(clippy::unwrap_used, dead_code)]

mod device;
mod facts;
mod invariants;
mod mutants;
mod search;
mod stories;
mod world;

use device::Setting;
use facts::{Kind, PLAIN, Role};
use search::{explore, tell};
use world::Bounds;

fn run(name: &str, s: &Setting, bounds: &Bounds, at_most: usize) {
    let found = explore(s, bounds, at_most);
    eprintln!(
        "{name}: {} states, {:.1} s, complete {}, new releases needed {:?}",
        found.states, found.seconds, found.complete, found.needed
    );
    if let Some((what, moves, world)) = found.broken {
        eprintln!("{name}: {what:?}\n{}{:?} {:?}", tell(s, &moves), world.device, (world.logs, world.loose, world.filed, world.outbox));
        if std::env::var("GO_ON").is_err() {
            panic!("{name}: {what:?}");
        }
    }
}

/// One of each: plain, behind a barrier, not due before 2, for other machines, with an unknown critical field.
const TERMS: &[Kind] = &[
    PLAIN,
    Kind::Release { barrier: 1, not_before: 0, matches: true, critical: false },
    Kind::Release { barrier: 2, not_before: 0, matches: true, critical: false },
    Kind::Release { barrier: 0, not_before: 2, matches: true, critical: false },
    Kind::Release { barrier: 0, not_before: 0, matches: false, critical: false },
    Kind::Release { barrier: 0, not_before: 0, matches: true, critical: true },
];

#[test]
fn first() {
    let sets: [(&str, &'static [Role]); 6] = [
        ("none", &[]),
        ("beat", &[Role::Beat]),
        ("withdraw", &[Role::Withdraw]),
        ("release", &[Role::Release]),
        ("beat+withdraw", &[Role::Beat, Role::Withdraw]),
        ("beat+release", &[Role::Beat, Role::Release]),
    ];
    let only = std::env::var("SET").ok();
    for (name, stolen) in sets {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let bounds = Bounds { stolen, forgeries: 1, publishers: 2, ..Bounds::default() };
        let mut bounds = bounds.from_environment();
        if std::env::var("TERMS").is_ok() {
            bounds.releases = TERMS;
        }
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u8>().unwrap());
        let mut setting = Setting::new(std::env::var("CLOCK").map_or(Some(0), |text| text.parse().ok()));
        setting.kept = number("KEPT").unwrap_or(8).into();
        setting.links = number("LINKS").unwrap_or(64);
        setting.holes = number("HOLES").is_some();
        run(name, &setting, &bounds, std::env::var("MOST").map_or(3_000_000, |n| n.parse().unwrap()));
    }
}
