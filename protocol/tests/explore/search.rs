//! Breadth first, every state once.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    time::Instant,
};

use crate::{
    facts::Id,
    invariants::{Broken, check, heals},
    moves::Move,
    rules::Setting,
    world::{Bounds, World},
};

/// 128 bits for a state: with 100 million states two of them are taken for one with a chance of 1
/// in 10^22.
#[derive(Clone, Copy, Default)]
struct Fingerprint(u64, u64);

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[allow(clippy::cast_possible_truncation)]
    let (low, high) = (product as u64, (product >> 64) as u64);
    low ^ high
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 60);
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }
    fn write_u16(&mut self, n: u16) {
        self.write_u64(u64::from(n));
    }
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = mix(
            self.0 ^ n ^ 0x9e37_79b9_7f4a_7c15,
            0xd6e8_feb8_6659_fd93 ^ self.1.rotate_left(17),
        );
        self.1 = mix(
            self.1 ^ n.rotate_left(32) ^ 0xa076_1d64_78bd_642f,
            0xe703_7ed1_a0b4_28db,
        ) ^ self.0.rotate_left(29);
    }
}

fn fingerprint(world: &World) -> u128 {
    let mut hasher = Fingerprint(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
    world.hash(&mut hasher);
    u128::from(hasher.0) << 64 | u128::from(hasher.1)
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct Plain(u64);
impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u128(&mut self, n: u128) {
        #[allow(clippy::cast_possible_truncation)]
        let low = n as u64;
        self.0 = low;
    }
}

/// What came of it.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) seconds: f64,
    /// Whether all states within the bounds were seen.
    pub(crate) complete: bool,
    /// States that healed without a new release, with one, and with two.
    pub(crate) needed: [usize; 3],
    pub(crate) broken: Option<(Broken, Vec<Move>, World)>,
}

/// Explores all states within bounds; ends at the first that breaks an invariant, or after so many
/// states.
pub(crate) fn explore(s: &Setting, bounds: &Bounds, at_most: usize) -> Found {
    // What it takes is told; nothing depends on it.
    #[allow(clippy::disallowed_methods)]
    let begun = Instant::now();
    let first = World::new(s, bounds);
    let mut seen: HashMap<u128, u128, BuildHasherDefault<Plain>> = HashMap::default();
    seen.insert(fingerprint(&first), 0);
    let mut level = vec![first];
    let (mut needed, mut complete) = ([0; 3], true);
    let mut broken = None;
    'all: while !level.is_empty() {
        let mut next = Vec::new();
        for world in &level {
            let found = check(s, bounds, world).and_then(|()| heals(s, bounds, world));
            match found {
                Ok(releases) => needed[releases] += 1,
                Err(what) => {
                    broken = Some((what, *world));
                    break 'all;
                }
            }
            if seen.len() >= at_most {
                complete = false;
                continue;
            }
            let from = fingerprint(world);
            for (_, successor) in world.successors(s, bounds) {
                let to = fingerprint(&successor);
                if let std::collections::hash_map::Entry::Vacant(place) = seen.entry(to) {
                    place.insert(from);
                    next.push(successor);
                }
            }
        }
        level = next;
    }
    let states = seen.len();
    let broken = broken.map(|(what, world)| {
        let mut path = vec![fingerprint(&world)];
        while let Some(from) = path
            .last()
            .and_then(|at| seen.get(at))
            .filter(|from| **from != 0)
        {
            path.push(*from);
        }
        path.reverse();
        (what, walk(s, bounds, &path), world)
    });
    Found {
        states,
        seconds: begun.elapsed().as_secs_f64(),
        complete,
        needed,
        broken,
    }
}

/// The moves along a path of fingerprints.
fn walk(s: &Setting, bounds: &Bounds, path: &[u128]) -> Vec<Move> {
    let mut world = World::new(s, bounds);
    let mut moves = vec![];
    for to in &path[1..] {
        let step = world
            .successors(s, bounds)
            .into_iter()
            .find(|(_, next)| fingerprint(next) == *to);
        let Some((by, next)) = step else { break };
        moves.push(by);
        world = next;
    }
    moves
}

fn short(s: &Setting, id: Id) -> String {
    let statement = s.book.get(id);
    format!(
        "{} = {:?}, above {}, {:?}, keys {:x}, {:?}",
        id, statement.serial, statement.parent, statement.kind, statement.keys, statement.author
    )
}

/// A trace that a person can read.
pub(crate) fn tell(s: &Setting, moves: &[Move]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for by in moves {
        let _ = match by {
            Move::Sign { id, .. }
            | Move::Forge { id }
            | Move::Post { id }
            | Move::GiveBeat { id }
            | Move::Apply { id, .. }
            | Move::GiveRun { top: id, .. } => {
                writeln!(text, "  {by:?}: {}", short(s, *id))
            }
            Move::Ceremony { trust } => writeln!(
                text,
                "  {by:?}: {:?}",
                (s.book.trust(*trust).lines, s.book.trust(*trust).beat_line)
            ),
            _ => writeln!(text, "  {by:?}"),
        };
    }
    text
}
