//! A batch as it lies in a segment: a head, a table of changes, and the octets of its statements.
//!
//! | octets | head |
//! | ---: | --- |
//! | 4 | `TDS` and the layout's version |
//! | 4, 4 | octets of the table, octets of the statements |
//! | 4 | the oldest segment that still counts |
//! | 8 | checksum of the head of the batch before |
//! | 8 | checksum of the table |
//! | 8 | checksum of the head up to here |
//!
//! The table says what changes; each statement lies behind it as a [`Value`], with a checksum of
//! its own, so that a damaged statement is one statement. Checksums begin with the place: what lies
//! elsewhere than it was written is not whole. All numbers are little-endian.

use tidings_protocol::{Head, Serial, StatementId, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Marks, VERSION, index::Place};

pub(super) const MAGIC: [u8; 3] = *b"TDS";
pub(super) const HEAD_OCTETS: u32 = 40;
/// Before a statement: its checksum, when it arrived, the octets of its `Path`.
const VALUE_HEAD: usize = 8 + 8 + 2;
/// What a disk may lose as a whole.
const PAGE_OCTETS: u32 = 4096;
pub(super) const WITNESS_OCTETS: u32 = 2 * HEAD_OCTETS + PAGE_OCTETS;
/// A line of a table that says nothing.
const PADDING: u8 = 0;

/// A checksum of octets that begin at a place.
pub(super) fn checksum(segment: u32, at: u32, octets: &[u8]) -> u64 {
    xxh3_64_with_seed(octets, u64::from(segment) << 32 | u64::from(at))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHead {
    pub(super) table: u32,
    pub(super) values: u32,
    pub(super) oldest: u32,
    pub(super) before: u64,
    pub(super) table_checksum: u64,
    pub(super) own: u64,
}

impl BatchHead {
    /// All octets of the batch.
    pub(super) fn octets(&self) -> u64 {
        u64::from(HEAD_OCTETS) + u64::from(self.table) + u64::from(self.values)
    }
    /// A whole batch, but for its statements, whose octets follow.
    pub(super) fn write(
        oldest: u32,
        before: u64,
        (segment, at): (u32, u32),
        table: &[u8],
        values: u32,
        into: &mut Vec<u8>,
    ) -> u64 {
        let begin = into.len();
        into.extend_from_slice(&MAGIC);
        into.push(VERSION);
        into.numbers(&[
            u32::try_from(table.len()).unwrap_or(u32::MAX),
            values,
            oldest,
        ]);
        into.extend_from_slice(&before.to_le_bytes());
        into.extend_from_slice(&checksum(segment, at, table).to_le_bytes());
        let own = checksum(segment, at, &into[begin..]);
        into.extend_from_slice(&own.to_le_bytes());
        into.extend_from_slice(table);
        own
    }
    /// None if there is no whole head at the beginning of these octets.
    pub(super) fn read(segment: u32, at: u32, octets: &[u8]) -> Option<Self> {
        let octets = octets.get(..HEAD_OCTETS as usize)?;
        let mut from = octets;
        let magic: [u8; 4] = from.take()?;
        let head = Self {
            table: from.number()?,
            values: from.number()?,
            oldest: from.number()?,
            before: from.wide()?,
            table_checksum: from.wide()?,
            own: from.wide()?,
        };
        let whole = magic[..3] == MAGIC
            && magic[3] == VERSION
            && head.own == checksum(segment, at, &octets[..32]);
        whole.then_some(head)
    }
}

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// A statement, and where it lies.
    Statement {
        channel: &'a str,
        serial: u32,
        at: u32,
        octets: u32,
    },
    /// A statement whose octets were damaged when its segment went.
    Lost { channel: &'a str, serial: u32 },
    /// Statements that are gone, the last one included.
    Remove {
        channel: &'a str,
        from: u32,
        to: u32,
    },
    /// The head of a channel whose other marks stay.
    Head { channel: &'a str, head: Head },
    Marks {
        channel: &'a str,
        marks: Option<Marks>,
    },
    Put {
        key: &'a [u8],
        value: Option<&'a [u8]>,
    },
    /// The segment ends here, and the next one is there.
    Seal,
}

/// What a table is written to.
pub(super) trait Write {
    fn text(&mut self, kind: u8, text: &[u8]);
    fn numbers(&mut self, numbers: &[u32]);
}

impl Write for Vec<u8> {
    fn text(&mut self, kind: u8, text: &[u8]) {
        self.push(kind);
        // Names and keys are short: the protocol's limits are far below.
        self.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.extend_from_slice(text);
    }
    fn numbers(&mut self, numbers: &[u32]) {
        numbers
            .iter()
            .for_each(|number| self.extend_from_slice(&number.to_le_bytes()));
    }
}

/// What a table is read from.
pub(super) trait Read<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]>;
    fn octets(&mut self, count: usize) -> Option<&'a [u8]>;
    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn wide(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn text(&mut self) -> Option<&'a [u8]> {
        let count = self.take().map(u16::from_le_bytes)?;
        self.octets(count.into())
    }
    fn name(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }
    fn head(&mut self) -> Option<Head> {
        Some(Head {
            serial: Serial::new(self.number()?)?,
            id: StatementId::from_octets(self.take()?),
        })
    }
}

impl<'a> Read<'a> for &'a [u8] {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.split_first_chunk::<N>()?;
        *self = rest;
        Some(*head)
    }
    fn octets(&mut self, count: usize) -> Option<&'a [u8]> {
        let (octets, rest) = self.split_at_checked(count)?;
        *self = rest;
        Some(octets)
    }
}

impl Change<'_> {
    pub(super) fn write(&self, table: &mut Vec<u8>) {
        match self {
            Self::Statement {
                channel,
                serial,
                octets,
                ..
            } => {
                table.text(1, channel.as_bytes());
                table.numbers(&[*serial, *octets]);
            }
            Self::Lost { channel, serial } => {
                table.text(3, channel.as_bytes());
                table.numbers(&[*serial]);
            }
            Self::Remove { channel, from, to } => {
                table.text(4, channel.as_bytes());
                table.numbers(&[*from, *to]);
            }
            Self::Head { channel, head } => {
                table.text(5, channel.as_bytes());
                table.numbers(&[head.serial.number()]);
                table.extend_from_slice(head.id.octets());
            }
            Self::Marks {
                channel,
                marks: Some(marks),
            } => {
                table.text(6, channel.as_bytes());
                table.numbers(&[marks.head.serial.number()]);
                table.extend_from_slice(marks.head.id.octets());
                table.numbers(&[marks.low.number()]);
                table.extend_from_slice(&marks.created.seconds().to_le_bytes());
            }
            Self::Marks {
                channel,
                marks: None,
            } => table.text(7, channel.as_bytes()),
            Self::Put {
                key,
                value: Some(value),
            } => {
                table.text(8, key);
                table.numbers(&[u32::try_from(value.len()).unwrap_or(u32::MAX)]);
                table.extend_from_slice(value);
            }
            Self::Put { key, value: None } => table.text(9, key),
            Self::Seal => table.push(10),
        }
    }
}

/// The head follows the statement before it: the id says the rest.
pub(super) fn write_head_of_last(table: &mut Vec<u8>, id: &StatementId) {
    table.push(11);
    table.extend_from_slice(id.octets());
}

/// The tables of two batches that change nothing, and reach into the next page: what lies before
/// them is not the last batch any more, and if it is not whole, it is damaged, not torn.
pub(super) const WITNESS: [&[u8]; 2] = [&[PADDING; PAGE_OCTETS as usize], &[]];

/// Where the statements of a channel lie that are not behind this table, but in the segment.
pub(super) fn write_places(
    table: &mut Vec<u8>,
    channel: &str,
    places: impl Iterator<Item = (u32, Place)>,
) {
    table.text(2, channel.as_bytes());
    for (serial, place) in places {
        table.push(12);
        table.numbers(&[serial, place.at, place.octets]);
    }
}

/// Reads a table, whose statements begin at a place; none if it is not one.
pub(super) fn read_table<'a>(
    mut table: &'a [u8],
    mut at: u32,
    mut each: impl FnMut(Change<'a>),
) -> Option<()> {
    let (mut last, mut named) = (None, None);
    while let Some([kind]) = table.take() {
        let change = match kind {
            1 => {
                let (channel, serial, octets) = (table.name()?, table.number()?, table.number()?);
                last = Some((channel, serial));
                let change = Change::Statement {
                    channel,
                    serial,
                    at,
                    octets,
                };
                at = at.checked_add(octets)?;
                change
            }
            2 => {
                named = Some(table.name()?);
                continue;
            }
            12 => Change::Statement {
                channel: named?,
                serial: table.number()?,
                at: table.number()?,
                octets: table.number()?,
            },
            3 => Change::Lost {
                channel: table.name()?,
                serial: table.number()?,
            },
            4 => Change::Remove {
                channel: table.name()?,
                from: table.number()?,
                to: table.number()?,
            },
            5 => Change::Head {
                channel: table.name()?,
                head: table.head()?,
            },
            6 => {
                let (channel, head) = (table.name()?, table.head()?);
                let (low, created) = (
                    Serial::new(table.number()?)?,
                    Timestamp::from_seconds(table.wide()?),
                );
                Change::Marks {
                    channel,
                    marks: Some(Marks { low, head, created }),
                }
            }
            7 => Change::Marks {
                channel: table.name()?,
                marks: None,
            },
            8 => {
                let (key, octets) = (table.text()?, table.number()?);
                Change::Put {
                    key,
                    value: Some(table.octets(octets as usize)?),
                }
            }
            9 => Change::Put {
                key: table.text()?,
                value: None,
            },
            10 => Change::Seal,
            11 => {
                let (channel, serial) = last?;
                Change::Head {
                    channel,
                    head: Head {
                        serial: Serial::new(serial)?,
                        id: StatementId::from_octets(table.take()?),
                    },
                }
            }
            PADDING => continue,
            _ => return None,
        };
        each(change);
    }
    Some(())
}

/// A statement with what belongs to it, as it lies behind a table.
pub(super) struct Value<'a> {
    pub(super) arrived: Timestamp,
    pub(super) path: &'a str,
    pub(super) statement: &'a [u8],
}

impl<'a> Value<'a> {
    /// Without a checksum yet: [`seal_value`] sets it once the place is known.
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        let path = u16::try_from(self.path.len()).map_or(&[][..], |_| self.path.as_bytes());
        into.extend_from_slice(&[0; 8]);
        into.extend_from_slice(&self.arrived.seconds().to_le_bytes());
        into.extend_from_slice(&u16::try_from(path.len()).unwrap_or(0).to_le_bytes());
        into.extend_from_slice(path);
        into.extend_from_slice(self.statement);
    }
    /// None if it is not whole.
    pub(super) fn read(segment: u32, at: u32, octets: &'a [u8]) -> Option<Self> {
        if !is_whole_value(segment, at, octets) {
            return None;
        }
        let mut from = octets.get(8..)?;
        let arrived = Timestamp::from_seconds(from.wide()?);
        let path = from.name()?;
        Some(Self {
            arrived,
            path,
            statement: from,
        })
    }
}

pub(super) fn seal_value(segment: u32, at: u32, octets: &mut [u8]) {
    let sum = checksum(segment, at, &octets[8..]);
    octets[..8].copy_from_slice(&sum.to_le_bytes());
}

pub(super) fn is_whole_value(segment: u32, at: u32, octets: &[u8]) -> bool {
    octets.len() >= VALUE_HEAD && octets[..8] == checksum(segment, at, &octets[8..]).to_le_bytes()
}
