//! `tidings beat`: a small daemon with an online key that says every few minutes what is newest.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    time::Duration,
};

use anyhow::ensure;
use clap::Args;
use tidings_client::{
    Body, Channel, Head, Lookout, Outbox, Publisher, Serial, Source, Survey,
    keys::{PublicKey, SigningKey},
};
use tidings_protocol::{
    beat::{self, Round},
    limits::{BEAT_LIFE_SECONDS, CHAIN_LINKS},
    statement::Kind,
    trust::{Settled, Trust},
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    From,
    ends::{Ends, as_any_process},
    exit::Exit,
    key, output,
    publishing::{Desk, OutboxArgs, time},
};

/// A beat comes early for a new head, at most so many times in its period.
const EARLY: u32 = 10;
/// From so many percent of its room on the signer complains.
const FULL_PERCENT: usize = 80;

/// Reads the heads of all channels from all brokers that are given, verifies them, and publishes a
/// beat at the first.
///
/// It names what the first has stored. What another broker has above that, or instead, is said, and
/// the channel is left out, so that devices notice. For a new head a beat comes early, at most
/// every tenth of the period.
#[derive(Args)]
pub(super) struct Beat {
    /// The private key that the trust has a beat role for
    #[arg(long = "key", value_name = "FILE")]
    key: PathBuf,
    /// How often, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    every: u64,
    /// For how long a beat proves that nothing is held back, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    life: u64,
    /// Sign one round, and end: for a timer
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    outbox: OutboxArgs,
    #[command(flatten)]
    from: From,
}

impl Beat {
    fn check_times(&self) -> anyhow::Result<()> {
        let life = || {
            Exit::Usage.because(format!(
                "--life: expected 1 to {BEAT_LIFE_SECONDS}, found {}",
                self.life
            ))
        };
        ensure!((1..=BEAT_LIFE_SECONDS).contains(&self.life), life());
        let every = || {
            Exit::Usage.because(format!(
                "--every: expected less than --life, found {}",
                self.every
            ))
        };
        ensure!(
            self.every >= 1 && (self.once || self.every < self.life),
            every()
        );
        Ok(())
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        self.check_times()?;
        let source = self.from.source()?;
        let (outbox, _temporary) = self.outbox.open_or_temporary(&source.anchor().namespace)?;
        let lookout = Lookout::new(&source);
        let mut signer = Signer {
            lookout,
            key: key::private(&self.key)?,
            named: BTreeMap::new(),
            options: &self,
            source,
            outbox,
        };
        if self.once {
            return as_any_process(Box::pin(signer.round(true))).await.map(drop);
        }
        let mut ends = Ends::new()?;
        let every = Duration::from_secs(self.every);
        let mut ticks = interval(every / EARLY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = ends.told() => return Ok(()),
            }
            let at = Instant::now();
            let round = tokio::select! {
                round = signer.round(at >= due) => round,
                _ = ends.told() => return Ok(()),
            };
            match round {
                Ok(0) => {}
                Ok(count) => {
                    due = at + every;
                    // However long it took: the next one is a tenth away from here.
                    ticks.reset();
                    tracing::info!(count, "beats published");
                }
                // The next round may go better; until then devices see that no beat comes.
                Err(error) => output::note(&format!(
                    "no beat was published: {}",
                    tidings_client::explain(error.as_ref())
                )),
            }
        }
    }
}

struct Signer<'a> {
    options: &'a Beat,
    source: Source,
    outbox: Outbox,
    lookout: Lookout,
    key: SigningKey,
    /// What was named of each channel: another statement at such a serial is never named.
    named: BTreeMap<Channel, VecDeque<Head>>,
}

impl Signer<'_> {
    /// Signs a beat for each role of the key, if it is due or some head is new; how many.
    async fn round(&mut self, due: bool) -> anyhow::Result<usize> {
        let survey = self.lookout.look(&[]).await;
        let mut desk = Desk::with(self.source.clone(), self.outbox.clone()).await?;
        let trust = desk.trust()?.clone();
        let ahead = survey
            .trust()
            .filter(|other| other.serial() > trust.serial());
        let restored = || {
            Exit::Refused.because("another broker has a newer trust statement than the origin; was the origin restored from a backup?")
        };
        ensure!(ahead.is_none(), restored());
        let heads = heads(&survey, &mut desk.publisher, &trust).await?;
        let mut signed = 0;
        let roles = self.channels(&trust);
        let none = || {
            Exit::Refused.because(format!(
                "{} has no beat role in trust {}",
                PublicKey::of(&self.key),
                trust.serial()
            ))
        };
        ensure!(!roles.is_empty(), none());
        for channel in roles {
            let mine: Vec<(Channel, Head)> = heads
                .iter()
                .filter(|(named, _)| trust.beat_channel(named).as_ref() == Some(&channel))
                .cloned()
                .collect();
            let log = (trust.statement().channel().clone(), trust.head());
            let _begun = desk.begin(&channel).await?;
            let before = desk.publisher.beat(&channel).await?;
            let named = match before.as_ref().map(|before| before.body()) {
                Some(Body::Beat(beat)) => &beat.heads[..],
                _ => &[],
            };
            let mine = self.only_consistent(&trust, named, mine);
            let plan = beat::plan(log, named, &mine);
            complain(&channel, &plan);
            if !due && same(&plan.heads, named) {
                continue;
            }
            let after = desk.publisher.beat_head(&channel).await?;
            let round = Round {
                channel: channel.clone(),
                after,
                time: time()?,
                life: self.options.life,
                trust: trust.serial(),
            };
            let statement = beat::sign(round, plan.heads.clone(), &self.key)?;
            let lost =
                || Exit::Refused.because(format!("another signer signs beats in {channel} too"));
            desk.publish(&statement).await?.map_err(|_| lost())?;
            self.note(plan.heads);
            signed += 1;
        }
        Ok(signed)
    }

    /// The beat channels of the roles that the key has.
    fn channels(&self, trust: &Trust) -> Vec<Channel> {
        let name = trust.name_of(&PublicKey::of(&self.key));
        let mine = |names: &[String]| names.iter().any(|known| Some(known.as_str()) == name);
        let roles = trust
            .rules()
            .roles
            .iter()
            .filter(|role| role.kind == Kind::Beat && mine(&role.names));
        roles
            .filter_map(|role| role.pattern.beat_channel(trust.namespace()))
            .collect()
    }

    /// Leaves out what would name another statement at a serial that was named, unless a checkpoint
    /// has settled it.
    fn only_consistent(
        &self,
        trust: &Trust,
        before: &[(Channel, Head)],
        heads: Vec<(Channel, Head)>,
    ) -> Vec<(Channel, Head)> {
        let contradicts = |channel: &Channel, head: Head| {
            let settled = matches!(trust.checkpoint(channel), Settled::At(checkpoint) if checkpoint.serial >= head.serial);
            let earlier = before
                .iter()
                .filter(|(named, _)| named == channel)
                .map(|(_, head)| head);
            let mut named = self.named.get(channel).into_iter().flatten().chain(earlier);
            !settled && named.any(|named| named.serial == head.serial && named.id != head.id)
        };
        let (left_out, kept): (Vec<_>, Vec<_>) = heads
            .into_iter()
            .partition(|(channel, head)| contradicts(channel, *head));
        for (channel, head) in left_out {
            let serial: Serial = head.serial;
            output::note(&format!(
                "{channel} is left out: a beat has named another statement at {serial} than the origin has; settle it with a checkpoint (`tidings trust edit`)"
            ));
        }
        kept
    }

    fn note(&mut self, heads: Vec<(Channel, Head)>) {
        for (channel, head) in heads {
            let named = self.named.entry(channel).or_default();
            if named.back() != Some(&head) {
                named.push_back(head);
            }
            if named.len() > CHAIN_LINKS {
                named.pop_front();
            }
        }
    }
}

fn note_failures(survey: &Survey) {
    for seen in &survey.0 {
        if let Err(error) = &seen.view {
            output::note(&format!("{} could not be asked: {error}", seen.address));
        }
        seen.failed.iter().for_each(|(channel, error)| {
            output::note(&format!("{}: {channel}: {error}", seen.address))
        });
    }
}

/// The heads of all channels as the origin has them. One that is forked is left out, one that
/// another broker has more of, and one that no broker shows any more, so that devices notice.
async fn heads(
    survey: &Survey,
    publisher: &mut Publisher,
    trust: &Trust,
) -> anyhow::Result<Vec<(Channel, Head)>> {
    note_failures(survey);
    let failed: BTreeSet<&Channel> = survey
        .0
        .iter()
        .filter(|seen| seen.address == *publisher.address())
        .flat_map(|seen| seen.failed.iter().map(|f| &f.0))
        .collect();
    let mut heads = Vec::new();
    for channel in survey.channels() {
        if failed.contains(&channel) || trust.rules().is_closed(&channel) {
            continue;
        }
        let newest = match survey.newest(&channel) {
            Ok(Some(newest)) if survey.is_confirmed(&channel) => newest.head(),
            Ok(Some(_)) => {
                output::note(&format!(
                    "{channel} is left out: no broker shows what was seen of it"
                ));
                continue;
            }
            Ok(None) => continue,
            Err(error) => {
                output::note(&format!("{channel} is left out: {error}"));
                continue;
            }
        };
        let stored = |address| {
            survey
                .views()
                .find(|(seen, _)| *seen == address)
                .and_then(|(_, view)| view.head(&channel))
        };
        let mut here = stored(publisher.address());
        if here != Some(newest) {
            // It may have been stored since.
            here = publisher
                .newest(&channel)
                .await?
                .map(|statement| statement.head());
        }
        match here {
            Some(here) if here.serial >= newest.serial => heads.push((channel, here)),
            _ => output::note(&format!(
                "{channel} is left out: another broker has {}, which the origin does not have",
                newest.serial
            )),
        }
    }
    Ok(heads)
}

fn same(one: &[(Channel, Head)], other: &[(Channel, Head)]) -> bool {
    one.len() == other.len() && one.iter().all(|head| other.contains(head))
}

fn complain(channel: &Channel, plan: &beat::Plan) {
    if plan.percent >= FULL_PERCENT {
        output::note(&format!(
            "{channel} is {} % full: give names one part more, and a beat role for each",
            plan.percent
        ));
    }
    if let Some(first) = plan.left_out.first() {
        output::note(&format!(
            "{} channel(s) have no room in {channel}, {first} first: nothing confirms their heads",
            plan.left_out.len()
        ));
    }
}
