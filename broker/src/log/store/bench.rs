//! The store alone, for its measurements (feature `bench`): octets instead of statements, since it
//! looks into neither.

use std::path::Path;

use tidings_protocol::{Channel, Head, Serial, StatementId, Timestamp};

use super::{Batch, Marks, Store, StoreError};

/// A store, and the heads of its channels.
pub struct Stored {
    store: Store,
    channels: Vec<Channel>,
    marks: Vec<Option<Marks>>,
}

impl Stored {
    /// Opens the store in a directory, with so many channels.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(directory: &Path, channels: usize) -> Result<Self, StoreError> {
        let store = Store::open(directory)?;
        let channels = (0..channels)
            .filter_map(|at| format!("bench.store.channel{at:05}").parse().ok())
            .collect::<Vec<Channel>>();
        let marks = channels
            .iter()
            .map(|channel| {
                store
                    .index()
                    .marks(channel.as_str())
                    .map(|(marks, _)| marks)
            })
            .collect();
        Ok(Self {
            store,
            channels,
            marks,
        })
    }

    /// Appends octets to the logs of channels, durably and at once; of each only so many newest are
    /// kept, if that is said.
    ///
    /// # Errors
    /// If the store fails.
    pub fn commit<'a>(
        &mut self,
        all: impl Iterator<Item = (usize, &'a [u8])>,
        keep: Option<u32>,
    ) -> Result<(), StoreError> {
        let (mut batch, time) = (Batch::default(), Timestamp::from_seconds(1_800_000_000));
        let mut touched = Vec::new();
        for (at, octets) in all {
            let serial = self.marks[at]
                .map_or(Some(Serial::FIRST), |marks| marks.head.serial.next())
                .unwrap_or(Serial::FIRST);
            batch.insert_octets(
                &self.channels[at],
                serial,
                time,
                "bench.invalid!not-for-mail",
                octets,
            );
            let head = Head {
                serial,
                id: StatementId::from_octets([7; 32]),
            };
            let before = self.marks[at].unwrap_or(Marks {
                low: serial,
                head,
                created: time,
            });
            let low = before
                .low
                .number()
                .max(keep.map_or(0, |keep| (serial.number() + 1).saturating_sub(keep)));
            (before.low.number()..low)
                .filter_map(Serial::new)
                .for_each(|serial| batch.remove(&self.channels[at], serial));
            self.marks[at] = Some(Marks {
                low: Serial::new(low).unwrap_or(serial),
                head,
                ..before
            });
            touched.push(at);
        }
        for at in touched {
            if let Some(marks) = &self.marks[at] {
                batch.set_marks(&self.channels[at], marks);
            }
        }
        self.store.commit(batch)
    }

    /// How many statements there are.
    pub fn count(&self) -> usize {
        self.store
            .index()
            .channels
            .values()
            .map(|channel| channel.statements().count())
            .sum()
    }
}
