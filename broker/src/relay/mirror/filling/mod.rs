//! Filling one log from one upstream: the newest statement first, the rest backwards, each checked
//! against the id that its successor names, in chunks that survive an interruption.

mod numbers;

use std::time::Duration;

use numbers::{Numbers, Range, by_id, chunk, numbers};
use tidings_client::{Connection, Error};
use tidings_protocol::{Channel, Head, MessageId, Serial, log::Begin, trust::Trust};

use super::{Claim, Mirror, Upstream, lock};
use crate::{
    limits::{MIRROR_AGAIN, MIRROR_CHUNK},
    log::append::{AppendError, Appended, Copied, Copy, Run},
    shared::Shared,
};

/// Why a log is not filled from an upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum FillError {
    /// The connection is of no more use.
    #[error(transparent)]
    Connection(Error),
    /// What it sends is no statement, or not the one that was asked for.
    #[error(transparent)]
    Content(Error),
    #[error("it claims to have {0}, and does not send it")]
    Missing(Serial),
    #[error("it sends serial {found} where {expected} was asked for")]
    Other { expected: Serial, found: Serial },
    #[error(transparent)]
    Append(AppendError),
    /// We are going down.
    #[error("the broker is shutting down")]
    Closed,
}

impl From<Error> for FillError {
    fn from(error: Error) -> Self {
        match error {
            Error::Article(_) | Error::Block(_) => FillError::Content(error),
            error => FillError::Connection(error),
        }
    }
}

impl From<AppendError> for FillError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Closed => FillError::Closed,
            error => FillError::Append(error),
        }
    }
}

impl FillError {
    /// Whether answers may still be under way.
    pub(super) fn spoils_connection(&self) -> bool {
        matches!(self, FillError::Content(_))
    }
}

/// What came of filling.
pub(super) enum Filled {
    /// Nothing is left to do for now.
    Whole,
    /// There was progress, and there is more.
    More,
    /// One chunk fills the gap: it is left to the caller, so that many can be stored at once.
    Offer(Run),
}

/// One channel of one upstream.
pub(super) struct Filling<'a> {
    pub(super) shared: &'a Shared,
    pub(super) mirror: &'a Mirror,
    pub(super) upstream: &'a Upstream,
    pub(super) channel: &'a Channel,
    pub(super) claim: Option<&'a Claim<'a>>,
}

impl Filling<'_> {
    /// Reads what an upstream has more of a channel than we do, and stores it chunk by chunk.
    pub(super) async fn fill(
        &self,
        asking: &mut Connection,
        numbers_are_serials: bool,
    ) -> Result<Filled, FillError> {
        let Self {
            shared,
            mirror,
            upstream,
            channel,
            ..
        } = *self;
        let Some(provisioned) = shared
            .namespaces
            .of(channel)
            .filter(|_| mirror.takes(channel))
        else {
            return Ok(Filled::Whole);
        };
        if provisioned
            .trust
            .load()
            .as_ref()
            .is_some_and(|trust| trust.rules().is_closed(channel))
        {
            return Ok(Filled::Whole);
        }
        let Some(numbers) = numbers(asking, channel, numbers_are_serials).await? else {
            return Ok(Filled::Whole);
        };
        if numbers_are_serials {
            lock(&upstream.standing)
                .marks
                .insert(channel.clone(), (numbers.low(1), numbers.high()));
        }
        match () {
            () if *channel == provisioned.anchor.namespace.trust_log() => self
                .walk_trust(asking, &numbers, provisioned.anchor.head.serial.number())
                .await
                .map(|()| Filled::Whole),
            () if channel.is_beat() => self
                .fill_beats(asking, &numbers)
                .await
                .map(|()| Filled::Whole),
            () => {
                let filled = self.fill_above(asking, &numbers).await?;
                if matches!(filled, Filled::Whole) {
                    self.fill_named(asking).await?;
                    self.fill_below(asking, &numbers).await?;
                }
                Ok(filled)
            }
        }
    }

    fn head(&self) -> u32 {
        self.shared
            .logs
            .get(self.channel.as_str())
            .map_or(0, |log| log.marks().head.serial.number())
    }

    fn run(&self, copies: Vec<Copy>, begin: Begin) -> Run {
        Run {
            channel: self.channel.clone(),
            copies,
            begin,
        }
    }

    /// What retention does not keep is not wanted; what upstream does not have has to be missing
    /// everywhere.
    fn range(&self, numbers: &Numbers, from: u32, top: u32) -> Range {
        let Self {
            shared,
            mirror,
            upstream,
            channel,
            ..
        } = *self;
        let high = numbers.high();
        let (own, theirs) = (own_floor(shared, channel, top), numbers.low(high));
        let floor = own.max(theirs);
        let patience = Duration::from_secs(shared.settings.config.limits.gap_seconds);
        if theirs <= from + 1 {
            lock(&mirror.holes).remove(channel);
        }
        // What members of a cluster have removed by age, we would remove too.
        let aged = mirror.only.is_some() && has_age(shared, channel);
        let ends = match from {
            _ if aged => true,
            0 => own >= theirs || mirror.may_begin(channel, theirs),
            _ => {
                floor > from + 1
                    && (own > from + 1 || mirror.accepts_hole(channel, from + 1, patience))
            }
        };
        if !ends && theirs > from + 1 {
            // Others may have what this one lacks, once they are asked.
            upstream.ask_later(channel, MIRROR_AGAIN);
        }
        Range { floor, high, ends }
    }

    /// What lies above our head, the newest first.
    async fn fill_above(
        &self,
        asking: &mut Connection,
        numbers: &Numbers,
    ) -> Result<Filled, FillError> {
        let (high, from) = (numbers.high(), self.head());
        // What is half filled goes on where it was, if this upstream has that.
        let backfill = self.shared.logs.backfill(self.channel);
        let half_filled = backfill
            .map(|(lowest, top)| (lowest.number() - 1, top.number()))
            .filter(|(next, _)| (1..=high).contains(next));
        // A claim of upstream's is not the top that retention counts from.
        let top = half_filled.map_or(high, |(_, top)| high.min(top));
        let range = self.range(numbers, from, top);
        let (wanted, resumed) = match half_filled {
            Some((next, _)) if next >= range.floor => (next, true),
            // Down to the floor it is here: one statement more tells that this is enough.
            Some(_) if range.ends => (range.floor.min(high), true),
            Some(_) => return Ok(Filled::Whole),
            None => (high, false),
        };
        match self.go_down(asking, numbers, &range, wanted, resumed).await {
            // What is half filled vouches for nothing below it: it is begun anew from the top.
            Err(FillError::Append(AppendError::Verify(_))) if resumed => {
                self.shared.appender.give_up(self.channel.clone()).await;
                Ok(Filled::More)
            }
            Ok(Some(run)) => Ok(Filled::Offer(run)),
            // What was half filled is whole now; what came since then is the next gap.
            Ok(None) => Ok(if (from + 1..high).contains(&self.head()) {
                Filled::More
            } else {
                Filled::Whole
            }),
            Err(error) => Err(error),
        }
    }

    /// From a serial down, chunk by chunk; if one chunk is all, it is left to the caller.
    async fn go_down(
        &self,
        asking: &mut Connection,
        numbers: &Numbers,
        range: &Range,
        mut wanted: u32,
        resumed: bool,
    ) -> Result<Option<Run>, FillError> {
        let (from, Range { floor, high, ends }) = (self.head(), *range);
        let begin = |lowest| {
            if ends && lowest == floor {
                Begin::Anew
            } else {
                Begin::Backfill
            }
        };
        let (mut ahead, mut lowest_so_far) = (None, u32::MAX);
        while (floor..=high).contains(&wanted) && wanted < lowest_so_far {
            let lowest = floor.max(wanted.saturating_sub(MIRROR_CHUNK - 1));
            let lowest = if wanted > self.head() {
                lowest.max(self.head() + 1)
            } else {
                wanted
            };
            lowest_so_far = lowest;
            let copies = match ahead.take() {
                Some((from, to, copies)) if (from, to) == (wanted, lowest) => copies,
                _ => chunk(self.shared, asking, self.channel, numbers, wanted, lowest).await?,
            };
            if !resumed && wanted == high && lowest == floor.max(from + 1) {
                return Ok(Some(self.run(copies, begin(lowest))));
            }
            // The next chunk is read while this one is stored.
            let next = lowest.saturating_sub(1);
            let stored = self.shared.appender.copy(self.run(copies, begin(lowest)));
            let copied = if next >= floor && next > from {
                let below = floor
                    .max(next.saturating_sub(MIRROR_CHUNK - 1))
                    .max(from + 1);
                let (copied, read) = tokio::join!(
                    stored,
                    chunk(self.shared, asking, self.channel, numbers, next, below)
                );
                ahead = Some((next, below, read?));
                copied?
            } else {
                stored.await?
            };
            if let Some(claim) = self.claim {
                claim.renew();
            }
            match copied {
                Copied::Wants { next, .. } => wanted = next.number(),
                Copied::New | Copied::Known => break,
            }
        }
        Ok(None)
    }

    /// What lies below our log, if this upstream has it and we would keep it (attack 111).
    async fn fill_below(
        &self,
        asking: &mut Connection,
        numbers: &Numbers,
    ) -> Result<(), FillError> {
        let Self {
            shared, channel, ..
        } = *self;
        while let Some(marks) = shared.logs.get(channel.as_str()).map(|log| log.marks()) {
            let low = marks.low.number();
            let floor = own_floor(shared, channel, marks.head.serial.number())
                .max(numbers.low(low.saturating_sub(1)));
            if has_age(shared, channel) || floor >= low || numbers.high() < low - 1 {
                break;
            }
            let lowest = floor.max(low.saturating_sub(MIRROR_CHUNK));
            let copies = chunk(shared, asking, channel, numbers, low - 1, lowest).await?;
            if shared
                .appender
                .copy(self.run(copies, Begin::Nothing))
                .await?
                == Copied::Known
            {
                break;
            }
            if let Some(claim) = self.claim {
                claim.renew();
            }
        }
        Ok(())
    }

    /// What a checkpoint names, where our log begins above it.
    async fn fill_named(&self, asking: &mut Connection) -> Result<(), FillError> {
        let (shared, channel) = (self.shared, self.channel);
        let trust = shared.namespaces.trust(channel);
        let named = trust
            .and_then(|trust| trust.checkpoint(channel).head())
            .filter(|named| lacks_named(shared, channel, *named));
        let Some(named) = named else {
            return Ok(());
        };
        let id = MessageId {
            channel: channel.clone(),
            serial: named.serial,
            id: named.id,
        };
        match by_id(shared, asking, &id).await {
            Ok(copy) => {
                let run = self.run(vec![copy], Begin::Backfill);
                shared.appender.copy(run).await?;
            }
            Err(FillError::Missing(serial)) => {
                tracing::info!(upstream = %self.upstream.address, %channel, %serial, "this upstream has not the statement that a checkpoint names");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The newest beat, and the one that a checkpoint names: the others are of no use to anybody.
    async fn fill_beats(
        &self,
        asking: &mut Connection,
        numbers: &Numbers,
    ) -> Result<(), FillError> {
        let missing = self
            .shared
            .namespaces
            .trust(self.channel)
            .and_then(|trust| missing_beat(&trust, self.channel));
        let newest = Some(numbers.high()).filter(|high| *high > self.head());
        for serial in missing
            .map(|head| head.serial.number())
            .into_iter()
            .chain(newest)
        {
            match chunk(self.shared, asking, self.channel, numbers, serial, serial).await {
                Ok(copies) => drop(
                    self.shared
                        .appender
                        .copy(self.run(copies, Begin::Nothing))
                        .await?,
                ),
                Err(FillError::Missing(serial)) if Some(serial.number()) != newest => {
                    tracing::info!(upstream = %self.upstream.address, channel = %self.channel, %serial, "this upstream has not the beat that a checkpoint names");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Trust statements, oldest first, each checked by the one before; and what lies below the
    /// anchor.
    async fn walk_trust(
        &self,
        asking: &mut Connection,
        numbers: &Numbers,
        anchor: u32,
    ) -> Result<(), FillError> {
        let (high, lowest) = (numbers.high(), numbers.low(numbers.high()));
        let known = self.head();
        let mut from = if known > 0 {
            known + 1
        } else {
            lowest.max(anchor.saturating_sub(MIRROR_CHUNK - 1))
        };
        while from <= high {
            let until = high.min(from.max(if known > 0 { 0 } else { anchor }) + MIRROR_CHUNK - 1);
            let run = chunk(self.shared, asking, self.channel, numbers, until, from).await?;
            self.take_trust(run).await?;
            from = until + 1;
        }
        if known == high && known > 0 {
            // The same height: it is a fork, or the same.
            let run = chunk(self.shared, asking, self.channel, numbers, known, known).await?;
            self.take_trust(run).await?;
        }
        while let Some(low) = self
            .shared
            .logs
            .get(self.channel.as_str())
            .map(|log| log.marks().low.number())
        {
            if lowest >= low {
                break;
            }
            let run = chunk(
                self.shared,
                asking,
                self.channel,
                numbers,
                low - 1,
                lowest.max(low.saturating_sub(MIRROR_CHUNK)),
            )
            .await?;
            self.take_trust(run).await?;
        }
        Ok(())
    }

    async fn take_trust(&self, run: Vec<Copy>) -> Result<(), FillError> {
        let last = run.last().map(|copy| copy.offered.statement().serial());
        let run = run
            .into_iter()
            .map(|copy| (copy.offered.into_statement(), copy.path))
            .collect();
        match self.shared.appender.copy_trust(run).await {
            Ok(Appended::New) => self.mirror.trust_has_changed(self.shared),
            Ok(Appended::Known) => {}
            // Another upstream was quicker.
            Err(AppendError::LostRace(head)) if last.is_some_and(|last| head.serial > last) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// The beat of a channel that a checkpoint names, and that is not here.
pub(super) fn missing_beat(trust: &Trust, channel: &Channel) -> Option<Head> {
    trust
        .missing_beats()
        .find(|(missing, _)| *missing == channel)
        .map(|(_, head)| head)
}

/// Whether our log begins above what a checkpoint names, and lacks that.
pub(super) fn lacks_named(shared: &Shared, channel: &Channel, named: Head) -> bool {
    let log = shared.logs.get(channel.as_str());
    log.is_some_and(|log| log.marks().low > named.serial && log.kept() != Some(named))
}

/// Whether our retention removes what has become old.
pub(super) fn has_age(shared: &Shared, channel: &Channel) -> bool {
    let retention = shared
        .settings
        .retention
        .iter()
        .find(|r| r.channels.matches(channel.as_str()));
    retention.is_some_and(|retention| retention.age.is_some())
}

/// Below this nothing is wanted: what retention would remove at once.
pub(super) fn own_floor(shared: &Shared, channel: &Channel, high: u32) -> u32 {
    let retention = shared
        .settings
        .retention
        .iter()
        .find(|r| r.channels.matches(channel.as_str()))
        .filter(|_| !channel.is_trust());
    retention
        .and_then(|retention| retention.count)
        .map_or(1, |count| (high + 1).saturating_sub(count).max(1))
}
