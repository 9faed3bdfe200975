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
    eprintln!("{name}: {} states, {:.1} s, complete {}, new release needed in {}", found.states, found.seconds, found.complete, found.needed_release);
    if let Some((what, moves, world)) = found.broken {
        panic!("{name}: {what:?}\n{}{world:?}", tell(s, &moves));
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
        run(name, &Setting::new(Some(0)), &bounds, 3_000_000);
    }
}
