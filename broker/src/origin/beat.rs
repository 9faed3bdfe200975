//! The origin as the signer of beats: what is newest here, signed every few minutes (spec part 3).
//!
//! One beat channel for each role that lists the key. A beat names what is stored here alone, and
//! never another statement at a serial that an earlier beat has named, unless a checkpoint has
//! settled it. Beats take the path of every other statement.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tidings_client::keys::{self, KeyFileError};
#[cfg(test)]
use tidings_protocol::simulated::{Fault, has};
use tidings_protocol::{
    Channel, Head, PublicKey, SigningKey, Statement,
    beat::{self, Plan, Round},
    statement::{Body, Kind},
    trust::Trust,
    verify::VerifyError,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    clock,
    config::Beat,
    limits::{BEAT_EARLY, BEAT_FULL_PERCENT, BEAT_LOOK, BEAT_RETRY},
    log::{append::AppendError, logs::Log},
    origin::New,
    shared::Shared,
};

/// Why a beat was not signed.
#[derive(Debug, thiserror::Error)]
enum BeatError {
    #[error(transparent)]
    Statement(#[from] tidings_protocol::StatementError),
    #[error("{0} is not accepted: {1}; does the trust in force have a beat role for this key?")]
    Verify(Channel, VerifyError),
    #[error("{0} is not stored: {1}")]
    Append(Channel, AppendError),
    #[error("no beat role of trust {0} lists this key")]
    NoRole(tidings_protocol::Serial),
}

/// What was said last in a beat channel.
struct Said {
    at: Instant,
    heads: Vec<(Channel, Head)>,
}

/// One signer: a key, and what it has said in the channels of its roles.
struct Signer {
    shared: Arc<Shared>,
    beat: Beat,
    key: SigningKey,
    said: HashMap<Channel, Said>,
}

/// Reads the key of a signer.
pub(crate) fn load(beat: &Beat) -> Result<SigningKey, KeyFileError> {
    keys::read_private(&beat.key_file, keys::no_passphrase)
}

/// Signs until the broker shuts down: in its time, and early for a new head.
pub(crate) async fn run(shared: Arc<Shared>, beat: Beat, key: SigningKey) {
    let stop = shared.stop.clone();
    let mut looks = interval(
        BEAT_LOOK
            .min(beat.every / BEAT_EARLY)
            .max(Duration::from_millis(10)),
    );
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut signer = Signer {
        shared,
        beat,
        key,
        said: HashMap::new(),
    };
    let mut rests = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        if Instant::now() < rests {
            continue;
        }
        match signer.look().await {
            Ok(()) | Err(BeatError::Append(_, AppendError::OtherSigner)) => {}
            Err(error) => {
                tracing::error!(namespace = %signer.beat.namespace, %error, "no beat was signed: devices will become STALE");
                rests = Instant::now() + BEAT_RETRY.min(signer.beat.every);
            }
        }
    }
}

impl Signer {
    /// Signs what is due.
    async fn look(&mut self) -> Result<(), BeatError> {
        // Without a trust log there is nobody yet who could be told.
        let Some(trust) = self
            .shared
            .namespaces
            .trust(&self.beat.namespace.trust_log())
        else {
            return Ok(());
        };
        let channels = self.channels(&trust);
        if channels.is_empty() {
            return Err(BeatError::NoRole(trust.serial()));
        }
        if !channels.iter().any(|channel| self.is_due(&trust, channel)) {
            return Ok(());
        }
        // Another member of the cluster signs, or nobody can; and what has been settled elsewhere
        // is here then.
        let Some(term) = self.shared.origin.term() else {
            return Ok(());
        };
        if !self.shared.origin.catch_up().await {
            return Ok(());
        }
        for channel in channels {
            if self.is_due(&trust, &channel) {
                self.sign(&trust, &channel, term).await?;
            }
        }
        Ok(())
    }

    /// The beat channels of the roles that list the key.
    fn channels(&self, trust: &Trust) -> Vec<Channel> {
        let name = trust.name_of(&PublicKey::of(&self.key)).map(str::to_owned);
        let roles = trust
            .rules()
            .roles
            .iter()
            .filter(|role| role.kind == Kind::Beat);
        let ours = roles.filter(|role| name.as_ref().is_some_and(|name| role.names.contains(name)));
        ours.filter_map(|role| role.pattern.beat_channel(&self.beat.namespace))
            .collect()
    }

    /// Whether a beat has to be signed: in its time, or early for something new, at most every
    /// tenth of that (attack 101).
    fn is_due(&self, trust: &Trust, channel: &Channel) -> bool {
        let Some(said) = self.said.get(channel) else {
            return true;
        };
        let (elapsed, every) = (said.at.elapsed(), self.beat.every);
        elapsed >= every
            || elapsed >= every / BEAT_EARLY && self.plan(trust, channel).0.heads != said.heads
    }

    /// What a beat would say now, and what it must not say.
    fn plan(&self, trust: &Trust, channel: &Channel) -> (Plan, Vec<Channel>) {
        let before = newest(&self.shared, channel);
        let named = match before.as_ref().map(Statement::body) {
            Some(Body::Beat(beat)) => beat.heads.clone(),
            _ => Vec::new(),
        };
        let is_older = before
            .as_ref()
            .and_then(Statement::trust)
            .is_some_and(|by| by < trust.serial());
        let (mut heads, mut contradicted) = (Vec::new(), Vec::new());
        for log in self.logs(trust, channel) {
            let word = named
                .iter()
                .find(|(named, _)| *named == log.channel)
                .map(|(_, head)| *head);
            match word.filter(|word| breaks_word(&log, *word, trust, is_older)) {
                Some(_) => contradicted.push(log.channel.clone()),
                #[cfg(test)]
                None if word.is_some() && has(Fault::OldHeads) => {
                    heads.extend(word.map(|word| (log.channel.clone(), word)));
                }
                None => heads.push((log.channel.clone(), log.marks().head)),
            }
        }
        let trust_log = (trust.statement().channel().clone(), trust.head());
        (beat::plan(trust_log, &named, &heads), contradicted)
    }

    /// The logs that the beats of a channel speak for, as they began.
    fn logs(&self, trust: &Trust, beats: &Channel) -> Vec<Arc<Log>> {
        let shared = &self.shared;
        // Of what is being filled, or cannot be followed, it is not known what is newest: better no
        // word than a wrong one.
        let known = |channel: &Channel| {
            shared
                .cluster
                .as_ref()
                .is_none_or(|cluster| cluster.knows(channel))
        };
        let ours = |channel: &Channel| {
            let of_namespace = shared
                .namespaces
                .of(channel)
                .is_some_and(|p| p.anchor.namespace == *trust.namespace());
            of_namespace
                && !channel.is_beat()
                && !channel.is_trust()
                && !trust.rules().is_closed(channel)
        };
        let speaks = |channel: &Channel| {
            ours(channel) && trust.beat_channel(channel).as_ref() == Some(beats) && known(channel)
        };
        let lost = |log: &Log| {
            trust
                .checkpoint(&log.channel)
                .head()
                .is_some_and(|checkpoint| log.contradicts(checkpoint))
        };
        let mut logs = shared.logs.all();
        logs.retain(|log| speaks(&log.channel) && !lost(log));
        logs.sort_by_key(|log| (log.marks().created, log.index));
        logs
    }

    async fn sign(&mut self, trust: &Trust, channel: &Channel, term: i32) -> Result<(), BeatError> {
        let (plan, contradicted) = self.plan(trust, channel);
        for channel in &contradicted {
            tracing::error!(
                %channel,
                "a beat has named another statement of this channel than the one that is stored: it is not named until a checkpoint settles it. Was this origin restored from a backup?"
            );
        }
        self.complain(channel, &plan);
        let after = self
            .shared
            .logs
            .get(channel.as_str())
            .map(|log| log.marks().head);
        let round = Round {
            channel: channel.clone(),
            after,
            time: clock::now(),
            life: self.beat.life_seconds,
            trust: trust.serial(),
        };
        let statement = beat::sign(round, plan.heads.clone(), &self.key)?;
        let statement = trust
            .verify(statement)
            .map_err(|error| BeatError::Verify(channel.clone(), error))?;
        let path = format!("{}!not-for-mail", self.shared.settings.config.name);
        let new = New {
            statement,
            trust: trust.serial(),
            path,
            term: Some(term),
        };
        self.shared
            .origin
            .append(new)
            .await
            .map_err(|error| BeatError::Append(channel.clone(), error))?;
        tracing::debug!(%channel, heads = plan.heads.len(), "a beat is signed");
        self.said.insert(
            channel.clone(),
            Said {
                at: Instant::now(),
                heads: plan.heads,
            },
        );
        Ok(())
    }

    /// Says in time that the room for heads ends.
    fn complain(&self, channel: &Channel, plan: &Plan) {
        let mut rooms = self.shared.counts.beat_rooms();
        let before = rooms.insert(channel.clone(), (plan.percent, plan.left_out.len()));
        let worse = before.is_none_or(|before| before != (plan.percent, plan.left_out.len()));
        if worse && !plan.left_out.is_empty() {
            tracing::error!(
                %channel, left_out = plan.left_out.len(), first = %plan.left_out[0],
                "a beat has no room for all channels: devices of those that are left out become STALE; give them a beat role of their own"
            );
        } else if worse && plan.percent >= BEAT_FULL_PERCENT {
            tracing::warn!(%channel, percent = plan.percent, "the room for heads in the beats of this channel ends; give some channels a beat role of their own");
        }
    }
}

/// The newest beat of a channel that is stored.
fn newest(shared: &Shared, channel: &Channel) -> Option<Statement> {
    let head = shared.logs.get(channel.as_str())?.marks().head;
    Some(shared.store.get(channel, head.serial).ok()??.statement)
}

/// Whether to name the head now would be to name another statement at a serial that was named.
fn breaks_word(log: &Log, named: Head, trust: &Trust, is_older: bool) -> bool {
    let settled = trust
        .checkpoint(&log.channel)
        .head()
        .is_some_and(|checkpoint| checkpoint.serial >= named.serial || is_older);
    !settled && named.serial <= log.marks().head.serial && log.contradicts(named)
}
