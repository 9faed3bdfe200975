//! The index, in memory: where each statement lies, and the values of all marks.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
};

use tidings_protocol::Timestamp;

use super::{Marks, batch::Change, files::File};

/// Where a statement lies; it has no octets if they were damaged when its segment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) at: u32,
    pub(super) octets: u32,
}

/// What of a table belongs to one statement, about.
const TABLE_OCTETS: u64 = 44;

type Key = Box<[u8]>;
/// Consecutive statements from a serial on.
type Run = (u32, VecDeque<Place>);

#[derive(Default)]
pub(super) struct ChannelIndex {
    /// The marks, and the segment in which they stand whole.
    pub(super) marks: Option<(Marks, u32)>,
    /// In order, with gaps between them.
    runs: Vec<Run>,
}

impl ChannelIndex {
    fn get(&self, serial: u32) -> Option<Place> {
        let (first, run) = &self.runs[self
            .runs
            .partition_point(|(first, _)| *first <= serial)
            .checked_sub(1)?];
        run.get((serial - first) as usize).copied()
    }

    /// Gives what was there.
    fn set(&mut self, serial: u32, place: Place) -> Option<Place> {
        let next = self.runs.partition_point(|(first, _)| *first <= serial);
        let meets_next = self
            .runs
            .get(next)
            .is_some_and(|(first, _)| *first == serial + 1);
        if let Some((first, run)) = next.checked_sub(1).map(|at| &mut self.runs[at]) {
            let at = (serial - *first) as usize;
            if let Some(here) = run.get_mut(at) {
                return Some(std::mem::replace(here, place));
            }
            if at == run.len() {
                run.push_back(place);
                if meets_next {
                    let (_, above) = self.runs.remove(next);
                    self.runs[next - 1].1.extend(above);
                }
                return None;
            }
        }
        if meets_next {
            self.runs[next].0 = serial;
            self.runs[next].1.push_front(place);
        } else {
            self.runs.insert(next, (serial, VecDeque::from([place])));
        }
        None
    }

    fn remove(&mut self, serials: RangeInclusive<u32>, mut gone: impl FnMut(Place)) {
        let (from, to) = serials.into_inner();
        let mut kept = Vec::with_capacity(self.runs.len());
        for (first, mut run) in self.runs.drain(..) {
            let end = u64::from(first) + run.len() as u64;
            let within = |serial: u64| {
                usize::try_from(serial.clamp(first.into(), end) - u64::from(first))
                    .unwrap_or(run.len())
            };
            let (begin, stop) = (within(from.into()), within(u64::from(to) + 1));
            if begin >= stop {
                kept.push((first, run));
                continue;
            }
            if begin == 0 {
                run.drain(..stop).for_each(&mut gone);
                if !run.is_empty() {
                    kept.push((to + 1, run));
                }
                continue;
            }
            let above = run.split_off(stop);
            run.drain(begin..).for_each(&mut gone);
            kept.push((first, run));
            if !above.is_empty() {
                kept.push((to + 1, above));
            }
        }
        self.runs = kept;
    }

    /// All statements with their places.
    pub(super) fn statements(&self) -> impl Iterator<Item = (u32, Place)> {
        self.runs
            .iter()
            .flat_map(|(first, run)| (*first..).zip(run.iter().copied()))
    }
}

/// A segment, and how much of it counts.
pub(super) struct Segment {
    pub(super) file: Arc<dyn File>,
    pub(super) used: u64,
    pub(super) live: u64,
}

#[derive(Default)]
pub(super) struct Index {
    pub(super) channels: HashMap<Box<str>, ChannelIndex>,
    /// Everything else, and the segment in which it stands.
    pub(super) values: BTreeMap<Key, (Box<[u8]>, u32)>,
    pub(super) segments: BTreeMap<u32, Segment>,
}

impl Index {
    pub(super) fn place(&self, channel: &str, serial: u32) -> Option<Place> {
        self.channels.get(channel)?.get(serial)
    }

    pub(super) fn marks(&self, channel: &str) -> Option<(Marks, u32)> {
        self.channels.get(channel)?.marks
    }

    fn channel(&mut self, name: &str) -> &mut ChannelIndex {
        if !self.channels.contains_key(name) {
            self.channels.insert(name.into(), ChannelIndex::default());
        }
        self.channels.entry(name.into()).or_default()
    }

    fn count(&mut self, name: &str, place: Place, is_new: bool) {
        let octets = u64::from(place.octets) + name.len() as u64 + TABLE_OCTETS;
        // Of a segment that is gone nothing counts.
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live = if is_new {
                segment.live + octets
            } else {
                segment.live.saturating_sub(octets)
            };
        }
    }

    /// Does what a line of a table says that stands in a segment.
    pub(super) fn apply(&mut self, segment: u32, change: &Change<'_>) {
        match *change {
            Change::Statement {
                channel,
                serial,
                at,
                octets,
            } => self.set(
                channel,
                serial,
                Place {
                    segment,
                    at,
                    octets,
                },
            ),
            Change::Lost { channel, serial } => self.set(
                channel,
                serial,
                Place {
                    segment,
                    at: 0,
                    octets: 0,
                },
            ),
            Change::Remove { channel, from, to } => {
                let mut gone = Vec::new();
                self.channel(channel)
                    .remove(from..=to, |place| gone.push(place));
                gone.into_iter()
                    .for_each(|place| self.count(channel, place, false));
                self.forget_if_empty(channel);
            }
            Change::Head { channel, head } => {
                // They stand in a segment before, or further up in this one.
                let unknown = Marks {
                    low: head.serial,
                    head,
                    created: Timestamp::from_seconds(0),
                };
                self.channel(channel)
                    .marks
                    .get_or_insert((unknown, segment))
                    .0
                    .head = head;
            }
            Change::Marks { channel, marks } => {
                self.channel(channel).marks = marks.map(|marks| (marks, segment));
                self.forget_if_empty(channel);
            }
            Change::Put {
                key,
                value: Some(value),
            } => drop(self.values.insert(key.into(), (value.into(), segment))),
            Change::Put { key, value: None } => drop(self.values.remove(key)),
            Change::Seal => {}
        }
    }

    fn set(&mut self, channel: &str, serial: u32, place: Place) {
        let before = self.channel(channel).set(serial, place);
        self.count(channel, place, true);
        if let Some(before) = before {
            self.count(channel, before, false);
        }
    }

    fn forget_if_empty(&mut self, channel: &str) {
        if self
            .channels
            .get(channel)
            .is_some_and(|channel| channel.marks.is_none() && channel.runs.is_empty())
        {
            self.channels.remove(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Random insertions and removals, beside a map.
    #[test]
    fn places_are_those_of_a_map() {
        let (mut seed, mut map, mut channel) = (1_u64, BTreeMap::new(), ChannelIndex::default());
        let mut below = |bound: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            u32::try_from((seed >> 33) % bound).unwrap()
        };
        for step in 0..20_000 {
            let serial = 1 + below(40);
            let place = Place {
                segment: 1,
                at: step,
                octets: 1,
            };
            if below(4) > 0 {
                assert_eq!(channel.set(serial, place), map.insert(serial, place));
            } else {
                let to = serial + below(8);
                let mut gone = Vec::new();
                channel.remove(serial..=to, |place| gone.push(place));
                let expected: Vec<_> = (serial..=to)
                    .filter_map(|serial| map.remove(&serial))
                    .collect();
                assert_eq!(gone, expected);
            }
            assert!(
                channel
                    .statements()
                    .eq(map.iter().map(|(serial, place)| (*serial, *place)))
            );
            assert!((0..50).all(|serial| channel.get(serial) == map.get(&serial).copied()));
            // Runs do not touch, and none is empty.
            assert!(
                channel
                    .runs
                    .windows(2)
                    .all(|two| (two[0].0 as usize) + two[0].1.len() < two[1].0 as usize)
            );
            assert!(channel.runs.iter().all(|(_, run)| !run.is_empty()));
        }
    }
}
