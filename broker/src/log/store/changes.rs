//! What a batch will change, as the rest of the broker says it.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use tidings_protocol::{Channel, Serial, Statement, Timestamp};

use super::{
    Marks,
    batch::{Change, Value, write_head_of_last},
    index::Index,
};

enum Entry {
    Statement {
        channel: Box<str>,
        serial: u32,
        octets: u32,
    },
    Lost {
        channel: Box<str>,
        serial: u32,
    },
    Remove {
        channel: Box<str>,
        from: u32,
        to: u32,
    },
    Marks {
        channel: Box<str>,
        marks: Option<Marks>,
    },
    Put {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
}

/// Changes that become durable together or not at all; of several to one thing, the last.
#[derive(Default)]
pub(crate) struct Batch {
    entries: Vec<Entry>,
    /// The statements, and where each lies among them.
    pub(super) values: Vec<u8>,
    pub(super) ranges: Vec<Range<usize>>,
    /// All marks are written whole, since the ones before go.
    saves_marks: bool,
}

pub(super) fn gap_key(channel: &str) -> Box<[u8]> {
    [b"f", channel.as_bytes()].concat().into()
}

pub(super) fn group_key(group: &str) -> Vec<u8> {
    [b"g", group.as_bytes()].concat()
}

pub(super) fn feed_key(peer: &str, channel: &Channel) -> Vec<u8> {
    [b"p", peer.as_bytes(), &[0], channel.as_str().as_bytes()].concat()
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    pub(super) fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.entries.push(Entry::Put { key, value });
    }
    pub(crate) fn insert(&mut self, statement: &Statement, arrived: Timestamp, path: &str) {
        self.insert_octets(
            statement.channel(),
            statement.serial(),
            arrived,
            path,
            statement.octets(),
        );
    }
    pub(super) fn insert_octets(
        &mut self,
        channel: &Channel,
        serial: Serial,
        arrived: Timestamp,
        path: &str,
        statement: &[u8],
    ) {
        self.add(channel.as_str(), serial.number(), |values| {
            Value {
                arrived,
                path,
                statement,
            }
            .write(values)
        });
    }
    fn add(&mut self, channel: &str, serial: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let begin = self.values.len();
        write(&mut self.values);
        let octets = u32::try_from(self.values.len() - begin).unwrap_or(u32::MAX);
        self.ranges.push(begin..self.values.len());
        self.entries.push(Entry::Statement {
            channel: channel.into(),
            serial,
            octets,
        });
    }
    /// Writes a stored statement once more; if it is damaged, that is what is written.
    pub(super) fn save(&mut self, channel: &str, serial: u32, value: Option<&[u8]>) {
        match value {
            Some(value) => self.add(channel, serial, |values| values.extend_from_slice(value)),
            None => self.entries.push(Entry::Lost {
                channel: channel.into(),
                serial,
            }),
        }
    }
    /// Writes all marks once more that stand in a segment.
    pub(super) fn save_marks(&mut self, index: &Index, segment: u32) {
        self.saves_marks = true;
        for (name, channel) in &index.channels {
            if let Some((marks, _)) = channel.marks.filter(|(_, stands_in)| *stands_in == segment) {
                self.entries.push(Entry::Marks {
                    channel: name.clone(),
                    marks: Some(marks),
                });
            }
        }
        let values = index
            .values
            .iter()
            .filter(|(_, (_, stands_in))| *stands_in == segment);
        values.for_each(|(key, (value, _))| self.put(key.to_vec(), Some(value.to_vec())));
    }
    pub(crate) fn remove(&mut self, channel: &Channel, serial: Serial) {
        let serial = serial.number();
        if let Some(Entry::Remove {
            channel: known, to, ..
        }) = self.entries.last_mut()
            && **known == *channel.as_str()
            && *to + 1 == serial
        {
            *to = serial;
            return;
        }
        self.entries.push(Entry::Remove {
            channel: channel.as_str().into(),
            from: serial,
            to: serial,
        });
    }
    pub(crate) fn remove_marks(&mut self, channel: &Channel) {
        self.entries.push(Entry::Marks {
            channel: channel.as_str().into(),
            marks: None,
        });
    }
    pub(crate) fn set_marks(&mut self, channel: &Channel, marks: &Marks) {
        self.entries.push(Entry::Marks {
            channel: channel.as_str().into(),
            marks: Some(*marks),
        });
    }
    /// Remembers what is stored of a channel above a gap, and not visible yet: its highest and its
    /// lowest serial.
    pub(crate) fn set_backfill(&mut self, channel: &Channel, backfill: Option<(Serial, Serial)>) {
        let octets = |(top, lowest): (Serial, Serial)| {
            [top, lowest]
                .iter()
                .flat_map(|serial| serial.number().to_be_bytes())
                .collect()
        };
        self.put(gap_key(channel.as_str()).into(), backfill.map(octets));
    }

    /// Marks of which only the head is new, and that the last statement of the channel here is: by
    /// the place of that statement.
    fn moved_heads(&self, index: &Index) -> HashMap<usize, usize> {
        let (mut last, mut told, mut moved) = (HashMap::new(), HashSet::new(), HashMap::new());
        for (at, entry) in self.entries.iter().enumerate() {
            match entry {
                Entry::Statement {
                    channel, serial, ..
                } => drop(last.insert(&**channel, (at, *serial))),
                Entry::Marks { channel, marks } => {
                    let before = index
                        .marks(channel)
                        .map(|(before, _)| before)
                        .filter(|_| told.insert(&**channel));
                    let statement = last.get(&**channel);
                    if let Some(((marks, before), (statement, serial))) =
                        marks.zip(before).zip(statement)
                        && (Marks {
                            head: marks.head,
                            ..before
                        }) == marks
                        && marks.head.serial.number() == *serial
                    {
                        moved.insert(*statement, at);
                    }
                }
                _ => {}
            }
        }
        moved
    }

    /// The table of the batch.
    pub(super) fn table(&self, index: &Index) -> Vec<u8> {
        let moved = if self.saves_marks {
            HashMap::new()
        } else {
            self.moved_heads(index)
        };
        let told: HashSet<usize> = moved.values().copied().collect();
        let mut table = Vec::with_capacity(self.entries.len() * 64);
        for (at, entry) in self.entries.iter().enumerate() {
            match entry {
                Entry::Statement {
                    channel,
                    serial,
                    octets,
                } => {
                    Change::Statement {
                        channel,
                        serial: *serial,
                        at: 0,
                        octets: *octets,
                    }
                    .write(&mut table);
                    if let Some(Entry::Marks {
                        marks: Some(marks), ..
                    }) = moved.get(&at).map(|at| &self.entries[*at])
                    {
                        write_head_of_last(&mut table, &marks.head.id);
                    }
                }
                Entry::Lost { channel, serial } => Change::Lost {
                    channel,
                    serial: *serial,
                }
                .write(&mut table),
                Entry::Remove { channel, from, to } => Change::Remove {
                    channel,
                    from: *from,
                    to: *to,
                }
                .write(&mut table),
                Entry::Marks { .. } if told.contains(&at) => {}
                Entry::Marks { channel, marks } => Change::Marks {
                    channel,
                    marks: *marks,
                }
                .write(&mut table),
                Entry::Put { key, value } => Change::Put {
                    key,
                    value: value.as_deref(),
                }
                .write(&mut table),
            }
        }
        table
    }
}
