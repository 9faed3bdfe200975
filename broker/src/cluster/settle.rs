//! The origin that a cluster is: a statement is tried again for as long as it can only have lost a
//! race, or it is not known whether it was settled.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tidings_protocol::{Channel, Head, Statement, trust::Trust};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Cluster,
    append::{Outcome, Waiting},
    batch::Item,
    lock,
};
use crate::{
    clock,
    limits::{
        CLUSTER_ASK, CLUSTER_CHANNELS, CLUSTER_CLOCK, CLUSTER_PATIENCE, CLUSTER_RETRY,
        CLUSTER_ROUND,
    },
    log::{
        append::{Answer, AppendError, Appended},
        namespaces::Provisioned,
    },
    origin::{New, Origin},
};

pub(super) enum Draft {
    New(New),
    Trust(Statement, String),
}

impl Draft {
    pub(super) fn statement(&self) -> &Statement {
        match self {
            Draft::New(new) => &new.statement,
            Draft::Trust(statement, _) => statement,
        }
    }

    pub(super) fn path(&self) -> &str {
        match self {
            Draft::New(new) => &new.path,
            Draft::Trust(_, path) => path,
        }
    }
}

/// What is to be done with a draft.
enum Prepared {
    /// It goes into a batch.
    Fit(Item),
    /// Something is in its place already.
    There,
    /// It does not follow what is in force.
    NotNext,
}

/// What came of one attempt.
enum Attempt {
    Done(Answer),
    /// Something else has happened, which is to be looked at first.
    Again(AppendError),
    /// It may have been settled, or not.
    Unknown,
}

impl Origin for Cluster {
    fn append(&self, new: New) -> BoxFuture<'_, Answer> {
        Box::pin(self.settle(Draft::New(new)))
    }

    fn append_trust(
        &self,
        statement: Statement,
        path: String,
        posted: bool,
    ) -> BoxFuture<'_, Answer> {
        let counted = self
            .namespaces
            .of_trust_log(statement.channel())
            .filter(|_| posted);
        let statement = counted.map_or(statement.clone(), |provisioned| {
            provisioned.with_what_counts(statement)
        });
        Box::pin(self.settle(Draft::Trust(statement, path)))
    }

    fn catch_up(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let Ok(tree) = self.tree() else { return false };
            let caught_up = async {
                tree.sync().await.ok()?;
                // Events of what was set before have come; the round that takes them up may be the
                // one after this one.
                let mut rounds = self.rounds.subscribe();
                for _ in 0..2 {
                    self.wake.notify_one();
                    rounds.changed().await.ok()?;
                }
                (*rounds.borrow() > 2).then_some(())
            };
            let caught_up = timeout(CLUSTER_PATIENCE, caught_up).await;
            caught_up.ok().flatten().is_some()
        })
    }

    fn term(&self) -> Option<i32> {
        let live = self.tree.load().as_ref().is_some_and(|tree| tree.is_live());
        let right = self.standing().clock_ahead.unsigned_abs() <= CLUSTER_CLOCK.as_secs();
        let term = self.term.load(std::sync::atomic::Ordering::Relaxed);
        i32::try_from(term)
            .ok()
            .filter(|term| *term >= 0 && live && right)
    }
}

impl Cluster {
    async fn settle(&self, draft: Draft) -> Answer {
        let draft = Arc::new(draft);
        let (channel, head) = (
            draft.statement().channel().clone(),
            draft.statement().head(),
        );
        let deadline = Instant::now() + CLUSTER_PATIENCE;
        let mut unknown = false;
        loop {
            let mut rounds = self.rounds.subscribe();
            rounds.mark_unchanged();
            let attempt = timeout_at(deadline, self.attempt(&draft));
            let why = match attempt.await.unwrap_or(Attempt::Unknown) {
                // An earlier attempt may have been made all the same: only what is in its place
                // says what became of it.
                Attempt::Done(answer) if !unknown || is_certain(&answer, head) => return answer,
                Attempt::Done(Ok(_)) => AppendError::Unknown,
                Attempt::Done(Err(why)) | Attempt::Again(why) => why,
                Attempt::Unknown => {
                    unknown = true;
                    AppendError::Unknown
                }
            };
            if Instant::now() >= deadline {
                return Err(if unknown { AppendError::Unknown } else { why });
            }
            self.look_at(&channel);
            self.namespaces
                .of(&channel)
                .inspect(|p| self.look_at(&p.anchor.namespace.trust_log()));
            // A round that was under way may have read what was before; the next one is soon there.
            let _ = timeout(CLUSTER_ROUND, rounds.changed()).await;
            // Where rounds alone do not help the servers are not asked without end.
            sleep(CLUSTER_RETRY).await;
        }
    }

    async fn attempt(&self, draft: &Arc<Draft>) -> Attempt {
        let item = match self.prepare(draft) {
            Ok(Prepared::Fit(item)) => item,
            Ok(Prepared::There) => return self.judge(draft).await,
            Ok(Prepared::NotNext) => return self.not_next(draft).await,
            Err(otherwise) => return otherwise,
        };
        // What begins a channel our writer looks at first: whether the quota has room for it.
        if item.after.is_none()
            && !(item.channel.is_trust() || item.channel.is_beat())
            && let Some(answer) = self.local.judge(draft.statement().clone()).await
        {
            return Attempt::Done(answer);
        }
        let (reply, outcome) = oneshot::channel();
        let waiting = Waiting {
            item,
            draft: draft.clone(),
            reply,
        };
        if self.queue.send(waiting).await.is_err() {
            return Attempt::Done(Err(AppendError::Closed));
        }
        match outcome.await {
            Ok(Outcome::Settled) => Attempt::Done(Ok(Appended::New)),
            Ok(Outcome::Behind(channel)) => Attempt::Again(AppendError::Behind(channel)),
            Ok(Outcome::Unknown) => Attempt::Unknown,
            Ok(Outcome::Failed(error)) => Attempt::Done(Err(error)),
            Ok(Outcome::NotNext) => self.not_next(draft).await,
            // The broker is going down.
            Err(_) => Attempt::Done(Err(AppendError::Unknown)),
        }
    }

    /// What a batch has to know of a statement.
    fn prepare(&self, draft: &Draft) -> Result<Prepared, Attempt> {
        let failed = |error| Attempt::Done(Err(error));
        let statement = draft.statement();
        let channel = statement.channel();
        // What is offered again, as everybody can do, is answered without the servers.
        let log = self.logs.get(channel.as_str());
        if log.is_some_and(|log| log.is_settled(statement.serial(), statement.id())) {
            return Ok(Prepared::There);
        }
        self.tree().map_err(failed)?;
        let provisioned = self.namespaces.of(channel);
        let provisioned = provisioned.ok_or_else(|| failed(AppendError::NotFirst))?;
        let trust_log = provisioned.anchor.namespace.trust_log();
        self.check_sound(channel).map_err(failed)?;
        self.check_sound(&trust_log).map_err(failed)?;
        let seen = lock(&self.seen).get(channel).copied();
        if *self.rounds.borrow() == 0 {
            return Err(Attempt::Again(AppendError::Behind(channel.clone())));
        }
        if seen.is_none() && lock(&self.seen).len() >= CLUSTER_CHANNELS {
            return Err(failed(AppendError::Channels));
        }
        let in_force = provisioned.trust.load_full();
        let mut item = Item {
            channel: channel.clone(),
            head: statement.head(),
            after: statement.predecessor(),
            octets: statement.octets().len() + draft.path().len(),
            by: None,
            term: None,
        };
        match draft {
            Draft::Trust(statement, _) => {
                // It is visible a moment before it is in force.
                let head = in_force.as_ref().map(|trust| trust.head());
                if head != seen.map(|seen| seen.head) {
                    return Err(Attempt::Again(AppendError::Behind(trust_log)));
                }
                // A trust log begins with what the anchor names.
                if statement.head() == provisioned.anchor.head {
                    item.after = None;
                }
                // *Trust waits for a batch only if the trust that it follows has verified it.*
                if item.after != head {
                    return Ok(Prepared::NotNext);
                }
                let verified = self.verify_trust(provisioned, in_force.as_deref(), statement);
                verified.map_err(failed)?;
            }
            Draft::New(new) => {
                let in_force =
                    in_force.ok_or_else(|| failed(AppendError::NoTrust(channel.clone())))?;
                if in_force.serial() != new.trust {
                    let checked = in_force.check(&new.statement);
                    checked.map_err(|error| failed(error.into()))?;
                }
                (item.by, item.term) = (Some((trust_log, in_force.serial())), new.term);
            }
        }
        // What every writer refuses is not settled.
        let timely = provisioned.check_time(statement.time(), clock::now());
        timely.map_err(failed)?;
        Ok(Prepared::Fit(item))
    }

    /// Whether a channel can be followed here.
    fn check_sound(&self, channel: &Channel) -> Result<(), AppendError> {
        let standing = self.standing();
        if standing.unsound.contains_key(channel) {
            return Err(AppendError::Unsound(channel.clone()));
        }
        let seen = lock(&self.seen).get(channel).map(|seen| seen.head);
        // It comes from another member, which takes a while.
        match standing.gaps.contains_key(channel) && seen != self.local_head(channel) {
            true => Err(AppendError::Behind(channel.clone())),
            false => Ok(()),
        }
    }

    fn verify_trust(
        &self,
        provisioned: &Provisioned,
        in_force: Option<&Trust>,
        statement: &Statement,
    ) -> Result<(), AppendError> {
        let next = match in_force {
            None => Trust::first(&provisioned.anchor, statement.clone())?,
            Some(trust) => trust.succeed(statement.clone())?,
        };
        in_force.map_or(Ok(()), |in_force| {
            self.logs
                .keep_withdrawals(in_force, &next, &self.namespaces)
        })
    }

    async fn judge(&self, draft: &Draft) -> Attempt {
        let statement = draft.statement().clone();
        let channel = statement.channel().clone();
        match self.local.judge(statement).await {
            Some(answer) => Attempt::Done(answer),
            // It is what comes next by now.
            None => Attempt::Again(AppendError::Behind(channel)),
        }
    }

    /// What follows something that we have not heard of is asked of the servers, but not by
    /// everybody who asks us; of everything else our writer knows why.
    async fn not_next(&self, draft: &Draft) -> Attempt {
        let statement = draft.statement();
        let channel = statement.channel();
        let seen = lock(&self.seen).get(channel).copied();
        if seen.is_some_and(|seen| statement.serial() <= seen.head.serial) {
            return self.judge(draft).await;
        }
        let behind = AppendError::Behind(channel.clone());
        let Some(tree) = self.tree().ok().filter(|_| self.may_ask()) else {
            return Attempt::Again(behind);
        };
        match tree.newest(channel).await {
            Ok(newest) if newest.map(|seen| seen.head) == seen.map(|seen| seen.head) => {
                self.judge(draft).await
            }
            Ok(_) => Attempt::Again(behind),
            Err(_) => Attempt::Done(Err(AppendError::NoQuorum)),
        }
    }

    /// Whether the servers may be asked for the sake of somebody who is ahead of us: now and then.
    fn may_ask(&self) -> bool {
        let mut asked = lock(&self.asked);
        let may = asked.is_none_or(|asked| asked.elapsed() > CLUSTER_ASK);
        if may {
            *asked = Some(Instant::now());
        }
        may
    }
}

/// Whether an answer holds even if an earlier attempt may have been made: it is in its place, or
/// something else is.
fn is_certain(answer: &Answer, head: Head) -> bool {
    match answer {
        Ok(_) => true,
        Err(AppendError::LostRace(there)) => there.serial >= head.serial,
        Err(_) => false,
    }
}
