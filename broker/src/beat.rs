//! The origin as the signer of its namespaces' beats: what is newest here, signed every few minutes (spec section 4.4).
//!
//! Beats take the path of every other statement: verified, appended, then visible.

use std::sync::Arc;

use tidings_client::keys::{self, KeyFileError};
use tidings_protocol::{
    Channel, Head, Namespace, SigningKey, Statement,
    beat::{self, Round},
    statement::Body,
    trust::Settled,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    append::AppendError,
    clock,
    config::Beat,
    limits::{BEAT_LOOK, BEAT_RETRY},
    logs::Log,
    origin::New,
    shared::Shared,
};

/// Why a beat was not signed.
#[derive(Debug, thiserror::Error)]
enum BeatError {
    #[error(transparent)]
    Statement(#[from] tidings_protocol::StatementError),
    #[error("{0} is not accepted: {1}; does the trust in force have a beat role for this key?")]
    Verify(Channel, tidings_protocol::verify::VerifyError),
    #[error("{0} is not stored: {1}")]
    Append(Channel, AppendError),
}

/// Reads the key of a signer.
pub(crate) fn load(beat: &Beat) -> Result<SigningKey, KeyFileError> {
    keys::read_private(&beat.key_file, keys::no_passphrase)
}

/// Signs until the broker shuts down: in its time, and soon after the first trust statement or a new channel has come.
pub(crate) async fn run(shared: Arc<Shared>, beat: Beat, signer: SigningKey) {
    let mut looks = interval(BEAT_LOOK.min(beat.every));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = Instant::now();
    let mut channels = 0;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        // Looked at before the round: a channel that begins meanwhile is not in it, and is told of at the next look.
        let heads = heads(&shared, &beat.namespace);
        if Instant::now() < due && heads.len() == channels {
            continue;
        }
        if !may_sign(&shared, &beat).await {
            continue;
        }
        // Once more: what has been settled elsewhere is here now.
        let heads = self::heads(&shared, &beat.namespace);
        match round(&shared, &beat, &signer, &heads).await {
            Ok(0) => {}
            Ok(signed) => {
                tracing::debug!(namespace = %beat.namespace, signed, "beats signed");
                (due, channels) = (Instant::now() + beat.every, heads.len());
            }
            Err(BeatError::Append(_, AppendError::OtherSigner)) => {}
            Err(error) => {
                tracing::error!(namespace = %beat.namespace, %error, "no beat was signed: devices will become STALE");
                (due, channels) = (Instant::now() + BEAT_RETRY.min(beat.every), heads.len());
            }
        }
    }
}

/// Whether there is trust, and it is this broker's turn, and what it would say is true.
async fn may_sign(shared: &Shared, beat: &Beat) -> bool {
    shared.namespaces.trust(&beat.namespace.trust_log()).is_some() && shared.origin.term().is_some() && shared.origin.catch_up().await
}

async fn round(shared: &Shared, beat: &Beat, signer: &SigningKey, heads: &[(Channel, Head)]) -> Result<usize, BeatError> {
    // Without a trust log there is nobody yet who could be told.
    let Some(trust) = shared.namespaces.trust(&beat.namespace.trust_log()) else { return Ok(0) };
    // Another member of the cluster signs, or nobody can.
    let Some(term) = shared.origin.term() else { return Ok(0) };
    let log = (beat.namespace.trust_log(), trust.head());
    let mut signed: Vec<Statement> = Vec::new();
    for role in trust.rules().roles.iter().filter(|role| role.kind == tidings_protocol::statement::Kind::Beat) {
        let Some(channel) = role.pattern.beat_channel(&beat.namespace) else { continue };
        let mine: Vec<_> = heads.iter().filter(|(named, _)| trust.beat_channel(named).as_ref() == Some(&channel)).cloned().collect();
        let after = shared.logs.get(channel.as_str()).map(|log| log.marks().head);
        let before = after.and_then(|head| shared.store.get(&channel, head.serial).ok()?);
        let before = match before.as_ref().map(|record| record.statement.body()) {
            Some(Body::Beat(beat)) => beat.heads.clone(),
            _ => Vec::new(),
        };
        let plan = beat::plan(log.clone(), &before, &mine);
        let round = Round { channel, after, time: clock::now(), life: beat.life_seconds, trust: trust.serial() };
        signed.push(beat::sign(round, plan.heads, signer)?);
    }
    let count = signed.len();
    for statement in signed {
        let channel = statement.channel().clone();
        let Ok(verified) = trust.verify(statement).map_err(|error| BeatError::Verify(channel.clone(), error)) else { continue };
        let path = format!("{}!not-for-mail", shared.settings.config.name);
        let new = New { statement: verified, trust: trust.serial(), path, term: Some(term) };
        shared.origin.append(new).await.map_err(|error| BeatError::Append(channel, error))?;
    }
    Ok(count)
}

/// The heads of all channels that belong to a namespace, but for beats.
fn heads(shared: &Shared, namespace: &Namespace) -> Vec<(Channel, Head)> {
    let ours = |channel: &Channel| !channel.is_beat() && shared.namespaces.of(channel).is_some_and(|p| p.anchor.namespace == *namespace);
    let trust = shared.namespaces.trust(&namespace.trust_log());
    let lost = |log: &Log| {
        trust
            .as_ref()
            .and_then(|trust| match trust.checkpoint(&log.channel) {
                Settled::At(head) => Some(head),
                _ => None,
            })
            .is_some_and(|checkpoint| log.has_lost(checkpoint))
    };
    // Of what is being filled, or cannot be followed, it is not known what is newest: better no word than a wrong one.
    let known = |channel: &Channel| shared.cluster.as_ref().is_none_or(|cluster| cluster.knows(channel));
    let logs = shared.logs.all();
    logs.iter()
        .filter(|log| ours(&log.channel) && !lost(log) && known(&log.channel))
        .map(|log| (log.channel.clone(), log.marks().head))
        .collect()
}
