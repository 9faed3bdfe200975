//! Settling one statement: a multi-operation, tried again for as long as it can only have lost a
//! race.
//!
//! Whatever becomes of an attempt, the next one checks the version of the head: nothing is ever
//! settled twice.

use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use tidings_protocol::{
    Channel, Serial, Statement,
    log::{self, Place},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Cluster, lock, tree};
use crate::{
    append::{Answer, AppendError, Appended},
    limits::{
        CLUSTER_ASK, CLUSTER_CHANNELS, CLUSTER_CLOCK, CLUSTER_FOLLOW, CLUSTER_PATIENCE,
        CLUSTER_RAISE, CLUSTER_RETRY, CLUSTER_ROUND,
    },
    origin::{New, Origin},
};

enum Draft {
    New(New),
    Trust(Statement, String),
}

impl Draft {
    fn statement(&self) -> &Statement {
        match self {
            Draft::New(new) => &new.statement,
            Draft::Trust(statement, _) => statement,
        }
    }
}

/// What came of one attempt.
enum Attempt {
    Settled,
    /// Something else has happened, which is to be looked at first.
    Again(AppendError),
    /// It may have been settled, or not.
    Unknown,
    /// It is not what comes next: the writer has the answer.
    NotNext,
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
            timeout(CLUSTER_PATIENCE, caught_up)
                .await
                .ok()
                .flatten()
                .is_some()
        })
    }

    fn term(&self) -> Option<i32> {
        let live = self.tree.load().as_ref().is_some_and(|tree| tree.is_live());
        let right = self.standing().clock_ahead.unsigned_abs() <= CLUSTER_CLOCK.as_secs();
        i32::try_from(self.term.load(Ordering::Relaxed))
            .ok()
            .filter(|term| *term >= 0 && live && right)
    }
}

impl Cluster {
    async fn settle(&self, draft: Draft) -> Answer {
        let (channel, serial) = (
            draft.statement().channel().clone(),
            draft.statement().serial(),
        );
        let deadline = Instant::now() + CLUSTER_PATIENCE;
        let mut unknown = false;
        loop {
            let mut rounds = self.rounds.subscribe();
            rounds.mark_unchanged();
            let attempt = timeout_at(deadline, self.attempt(&draft))
                .await
                .unwrap_or(Ok(Attempt::Unknown));
            let why = match attempt {
                Ok(Attempt::Settled) => {
                    self.look_at(&channel);
                    self.until_visible(&channel, serial).await;
                    return Ok(Appended::New);
                }
                Ok(Attempt::NotNext) => {
                    match self.local.judge(draft.statement().clone()).await {
                        Some(answer) => return answer,
                        // It is what comes next by now.
                        None => AppendError::Behind(channel.clone()),
                    }
                }
                Ok(Attempt::Again(why)) => why,
                Ok(Attempt::Unknown) => {
                    unknown = true;
                    AppendError::Unknown
                }
                // An earlier attempt may have been made all the same.
                Err(_) if unknown => AppendError::Unknown,
                Err(why) => return Err(why),
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
            // Where rounds alone do not help, as after a head was set, the servers are not asked
            // without end.
            tokio::time::sleep(CLUSTER_RETRY).await;
        }
    }

    async fn attempt(&self, draft: &Draft) -> Result<Attempt, AppendError> {
        let statement = draft.statement();
        let channel = statement.channel();
        // Whoever offers what is here already, as everybody can, gets the answer without the
        // servers.
        if self
            .logs
            .get(channel.as_str())
            .is_some_and(|log| log.is_settled(statement.serial(), statement.id()))
        {
            return Ok(Attempt::NotNext);
        }
        let tree = self.tree()?;
        let provisioned = self.namespaces.of(channel).ok_or(AppendError::NotFirst)?;
        let trust_log = provisioned.anchor.namespace.trust_log();
        for channel in [channel, &trust_log] {
            if self.standing().unsound.contains_key(channel) {
                return Err(AppendError::Unsound(channel.clone()));
            }
        }
        if *self.rounds.borrow() == 0 {
            return Ok(Attempt::Again(AppendError::Behind(channel.clone())));
        }
        // What decides here is what is verified and stored here; the tree has to say the same.
        let caught_up = |channel: &Channel| {
            let (seen, ours) = (
                lock(&self.seen).get(channel).copied(),
                self.local_head(channel),
            );
            match seen.map(|seen| seen.head) == ours {
                true => Ok(seen),
                // It comes from another member, which takes a while.
                false if self.standing().gaps.contains_key(channel) => {
                    Err(Err(AppendError::Behind(channel.clone())))
                }
                false => Err(Ok(Attempt::Again(AppendError::Behind(channel.clone())))),
            }
        };
        let after = match caught_up(channel) {
            Ok(after) => after,
            Err(otherwise) => return otherwise,
        };
        let (path, trust, term) = match draft {
            Draft::Trust(statement, path) => {
                // It is visible a moment before it is in force.
                if provisioned
                    .trust
                    .load()
                    .as_ref()
                    .map(|trust| trust.serial())
                    != after.map(|seen| seen.head.serial)
                {
                    return Ok(Attempt::Again(AppendError::Behind(trust_log)));
                }
                if log::place(after.map(|seen| seen.head), statement) == Place::Next
                    || after.is_none()
                {
                    let next = provisioned.advance(statement.clone())?;
                    if let Some(in_force) = provisioned.trust.load_full() {
                        self.logs
                            .keep_withdrawals(&in_force, &next, &self.namespaces)?;
                    }
                }
                (path, None, None)
            }
            Draft::New(new) => {
                let in_force = provisioned
                    .trust
                    .load_full()
                    .ok_or_else(|| AppendError::NoTrust(channel.clone()))?;
                if in_force.serial() != new.trust {
                    in_force.check(&new.statement)?;
                }
                let version = match caught_up(&trust_log) {
                    Ok(Some(seen)) if seen.head.serial == in_force.serial() => seen.version,
                    Ok(_) => return Ok(Attempt::Again(AppendError::Behind(trust_log))),
                    Err(otherwise) => return otherwise,
                };
                (&new.path, Some((&trust_log, version)), new.term)
            }
        };
        // A trust log begins with what the anchor names.
        let begins = after.is_none()
            && matches!(draft, Draft::Trust(..))
            && statement.head() == provisioned.anchor.head;
        if !begins && log::place(after.map(|seen| seen.head), statement) != Place::Next {
            // Perhaps it follows what we have not heard of yet; the servers are asked, but not by
            // everybody who asks us.
            let ahead = after.is_none_or(|seen| statement.serial() > seen.head.serial);
            if !ahead {
                return Ok(Attempt::NotNext);
            }
            if !self.may_ask() {
                return Ok(Attempt::Again(AppendError::Behind(channel.clone())));
            }
            let newest = async {
                tree.sync().await?;
                tree.heads(std::slice::from_ref(channel)).await
            };
            let newest = newest.await.ok().and_then(|mut heads| heads.pop()?.ok());
            return Ok(match newest {
                Some(newest) if newest == after => Attempt::NotNext,
                Some(_) => Attempt::Again(AppendError::Behind(channel.clone())),
                None => return Err(AppendError::NoQuorum),
            });
        }
        if lock(&self.raised)
            .get(channel)
            .is_some_and(|at| at.elapsed() < CLUSTER_RAISE)
        {
            return Ok(Attempt::Again(AppendError::Behind(channel.clone())));
        }
        if after.is_none() && lock(&self.seen).len() >= CLUSTER_CHANNELS {
            return Err(AppendError::Channels);
        }
        match tree
            .append(tree::Append {
                statement,
                path,
                after,
                trust,
                term,
            })
            .await
        {
            Ok(()) => Ok(Attempt::Settled),
            Err(tree::NotAppended::Race) => {
                Ok(Attempt::Again(AppendError::Behind(channel.clone())))
            }
            Err(tree::NotAppended::Damaged(node)) => {
                tracing::error!(%channel, node, "the servers hold a node where none can be, or have lost one: somebody has written there; `tidingsd set-head` mends it");
                Err(AppendError::Unsound(channel.clone()))
            }
            Err(tree::NotAppended::Term) => Err(AppendError::OtherSigner),
            Err(tree::NotAppended::Unknown(error)) => {
                tracing::warn!(%channel, serial = %statement.serial(), %error, "it is not known whether a statement was stored; it is looked at");
                Ok(Attempt::Unknown)
            }
            Err(tree::NotAppended::Refused(error)) => {
                tracing::error!(%channel, %error, "the cluster's servers refuse a statement");
                Err(AppendError::Refused(error.to_string()))
            }
        }
    }

    /// Whether the servers may be asked for the sake of somebody who is ahead of us: now and then.
    fn may_ask(&self) -> bool {
        let mut asked = lock(&self.asked);
        let may = asked.is_none_or(|asked| asked.elapsed() > CLUSTER_ASK);
        if may {
            *asked = Some(std::time::Instant::now());
        }
        may
    }

    /// Waits until a settled statement is visible here too; a publisher finds it where it has
    /// published.
    async fn until_visible(&self, channel: &Channel, serial: Serial) {
        let mut news = self.logs.news();
        let visible = || {
            self.local_head(channel)
                .is_some_and(|head| head.serial >= serial)
        };
        let wait = async { while !visible() && news.changed().await.is_ok() {} };
        if timeout(CLUSTER_FOLLOW, wait).await.is_err() {
            tracing::warn!(%channel, %serial, "a statement is settled, and not yet in the store of this broker");
        }
    }
}
