//! The rules of a device, an origin, a signer and a publisher, explored before they are built (and ever since).
#![allow(clippy::unwrap_used, dead_code)]

mod device;
mod facts;
mod invariants;
mod search;
mod world;

use device::Setting;
use facts::Role;
use search::{explore, tell};
use world::Bounds;

fn run(name: &str, s: &Setting, bounds: &Bounds, at_most: usize) {
    let found = explore(s, bounds, at_most);
    eprintln!("{name}: {} states, {:.1} s, complete {}, new releases needed {:?}", found.states, found.seconds, found.complete, found.needed);
    if let Some((what, moves, world)) = found.broken {
        eprintln!("{name}: {what:?}\n{}{:?} {:?}", tell(s, &moves), world.device, (world.logs, world.loose, world.filed, world.outbox));
        if std::env::var("GO_ON").is_err() {
            panic!("{name}: {what:?}");
        }
    }
}

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
        let bounds = bounds.from_environment();
        run(name, &Setting::new(std::env::var("CLOCK").map_or(Some(0), |text| text.parse().ok())), &bounds, std::env::var("MOST").map_or(3_000_000, |n| n.parse().unwrap()));
    }
}
