//! What changes when news are taken note of: heads, links, forks.

use alloc::vec::Vec;

use super::{Fork, Known, Now, View, place::News};
use crate::{Channel, Head, Statement, Verified, limits::CHAIN_LINKS, trust::Trust};

impl View {
    /// Takes note of news: the head moves to the last, and whatever was decided is decided.
    pub fn note(&mut self, news: &News, now: &Now) {
        let in_force = self.trust().map(Trust::serial) == Some(news.trust);
        let known = self.channels.entry(news.channel.clone()).or_default();
        let joins = news.run.first().and_then(|first| first.predecessor());
        if known.newest.is_none() {
            // Where a device begins, what lies below is delivered as far as it is concerned.
            known.delivered = known.delivered.or(joins);
        }
        if news.other_branch {
            known.leave_branch(news, joins);
        }
        known.follow(&news.run);
        if news.settled.is_some() && in_force {
            known.settled = news.settled;
        }
        self.stand(&news.channel);
        self.settle_forks(now);
    }

    /// Takes note that the application has dealt with everything up to a statement of a channel.
    pub fn note_delivered(&mut self, channel: &Channel, head: Head) {
        self.channels.entry(channel.clone()).or_default().delivered = Some(head);
    }

    /// Keeps the evidence of a fork, unless trust or the live beat has decided already (attack 28).
    pub fn note_fork(&mut self, fork: Fork, now: &Now) {
        let channel = fork.ours.channel().clone();
        self.channels
            .entry(channel.clone())
            .or_default()
            .fork
            .get_or_insert(fork);
        self.stand(&channel);
        self.settle_forks(now);
    }

    /// A fork is over when the live beat names a statement of our chain at its place or above.
    pub(super) fn settle_forks(&mut self, now: &Now) {
        let over = |channel: &Channel| {
            let at = self.fork(channel)?.serial();
            let (named, _) = self.live(channel, now)?;
            (named.serial >= at && self.id_at(channel, named.serial) == Some(named.id))
                .then(|| channel.clone())
        };
        let over: Vec<Channel> = self.channels.keys().filter_map(over).collect();
        for channel in over {
            if let Some(known) = self.channels.get_mut(&channel) {
                known.fork = None;
            }
        }
    }
}

impl Known {
    /// Goes over to the branch of the news, which joins ours, or what lies below, at a head.
    fn leave_branch(&mut self, news: &News, joins: Option<Head>) {
        // The chain goes on where the branches part; what was delivered of ours above is no
        // step of the other.
        let chain = self
            .links
            .iter()
            .copied()
            .chain(self.newest.as_ref().and_then(Statement::predecessor));
        let shared =
            |head: &Head| news.run.iter().any(|s| s.head() == *head) || joins == Some(*head);
        let parted = chain.filter(shared).max_by_key(|head| head.serial);
        // The run has the links from its first statement on.
        let first = news.run.first().map(|first| first.serial());
        self.links.retain(|head| {
            Some(head.serial) < first && parted.is_some_and(|parted| head.serial <= parted.serial)
        });
        let stays =
            |delivered: &Head| parted.is_some_and(|parted| delivered.serial <= parted.serial);
        self.delivered = self
            .delivered
            .and_then(|delivered| Some(delivered).filter(stays).or(parted).or(joins));
        self.fork = None;
        self.newest = None;
    }

    /// Moves the head to the last of a run, and keeps the links that lead to it.
    fn follow(&mut self, run: &[Verified<Statement>]) {
        let below = match self
            .newest
            .as_ref()
            .and_then(|newest| run.iter().position(|s| s.head() == newest.head()))
        {
            Some(at) => &run[..at],
            None => &[],
        };
        let lowest = self.links.first().map(|lowest| lowest.serial);
        let lower = below
            .iter()
            .map(|statement| statement.head())
            .filter(|head| lowest.is_none_or(|lowest| head.serial < lowest));
        self.links.splice(0..0, lower);
        for statement in run {
            if self
                .newest
                .as_ref()
                .is_some_and(|newest| statement.serial() <= newest.serial())
            {
                continue;
            }
            if let Some(newest) = self.newest.replace((**statement).clone()) {
                if statement.predecessor() != Some(newest.head()) {
                    self.links.clear();
                } else if self
                    .links
                    .last()
                    .is_none_or(|last| last.serial < newest.serial())
                {
                    self.links.push(newest.head());
                }
            }
        }
        let surplus = self.links.len().saturating_sub(CHAIN_LINKS);
        self.links.drain(..surplus);
    }
}
