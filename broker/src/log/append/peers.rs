//! What peers send: it is taken at once, or waits in the window until it hangs together with the
//! log.

use tidings_protocol::{
    Channel, Serial, Timestamp,
    log::{Backfill, Begin, Refused},
    trust::Settled,
    verify::VerifyError,
};

use super::{
    AppendError, Appended, Copy, Peer, Reply,
    pending::Pending,
    window::{Waiting, is_named},
    writer::{Refusal, Writer, explain},
};

impl Writer {
    /// What a peer has sent: it is taken, or refused, or waits for what lies below it.
    pub(super) fn take_from_peer(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        copy: Copy,
        peer: Peer,
        reply: Reply<Appended>,
    ) {
        let (channel, head) = (copy.statement().channel().clone(), copy.statement().head());
        let trust = self.namespaces.trust(&channel);
        let own = trust.as_deref().is_some_and(|trust| {
            copy.by == Some(trust.serial()) || is_named(trust, &channel, head)
        });
        let again = Copy {
            offered: copy.offered.clone(),
            by: copy.by,
            path: copy.path.clone(),
        };
        let answer = match self.offer(pending, now, &channel, vec![copy], Begin::Nothing) {
            Ok(true) => Ok(Appended::New),
            Ok(false) => Ok(Appended::Known),
            Err(Refusal::Append(error)) => Err(error),
            Err(Refusal::Log(refused, now)) => {
                let waits = match &refused {
                    Refused::Gap { .. } => own || self.state.window.vouches_for(&channel, head),
                    Refused::Verify(
                        _,
                        VerifyError::Threshold { .. } | VerifyError::NoRole { .. },
                    ) => self.state.window.vouches_for(&channel, head),
                    _ => false,
                };
                if waits {
                    if let Err(reply) = self.state.window.put(again, own, peer, reply) {
                        pending.answers.push((reply, Err(AppendError::WindowFull)));
                    }
                    return self.drain(pending, now, &channel);
                }
                // Above a gap nobody vouches for it: why it is not proven says more than that there
                // is a gap.
                let refused = match refused {
                    Refused::Gap { from } => self.unproven(again, from),
                    refused => refused,
                };
                let waits_for_beat = trust
                    .is_some_and(|trust| matches!(trust.checkpoint(&channel), Settled::Missing(_)));
                if let Refused::Fork(pair) = &refused {
                    self.forks
                        .remember(self.namespaces.of(&channel), &pair.0, &pair.1);
                }
                match &refused {
                    Refused::Verify(
                        _,
                        VerifyError::Threshold { .. } | VerifyError::NoRole { .. },
                    ) if waits_for_beat => Err(AppendError::BeatFirst(channel.clone())),
                    _ => Err(explain(&channel, refused, now)),
                }
            }
        };
        pending.answers.push((reply, answer));
        self.drain(pending, now, &channel);
    }

    fn unproven(&self, copy: Copy, from: Serial) -> Refused {
        let (channel, serial) = (
            copy.statement().channel().clone(),
            copy.statement().serial(),
        );
        let trust = self.namespaces.trust(&channel);
        let error = trust.and_then(|trust| trust.check(copy.statement()).err());
        error.map_or(Refused::Gap { from }, |error| {
            Refused::Verify(serial, error)
        })
    }

    /// Takes what has waited and hangs together with the log now.
    pub(super) fn drain(&mut self, pending: &mut Pending, now: Timestamp, channel: &Channel) {
        while self.state.window.has(channel) {
            let log = self.draft(pending, channel).log.clone();
            let overtaken = log
                .head()
                .map_or_else(Vec::new, |head| self.state.window.overtaken(channel, head));
            for waiting in overtaken {
                self.take_run(pending, now, channel, vec![waiting], Begin::Nothing);
            }
            let mut run = self.state.window.above(channel, log.head());
            if run.is_empty() {
                run = self
                    .state
                    .window
                    .below(channel, log.backfill().and_then(|backfill| backfill.below));
            }
            if run.is_empty() {
                return;
            }
            self.take_run(pending, now, channel, run, Begin::Nothing);
        }
    }

    fn take_run(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        channel: &Channel,
        run: Vec<Waiting>,
        begin: Begin,
    ) {
        let (mut copies, mut replies) = (Vec::new(), Vec::new());
        for waiting in run {
            let (copy, waits) = waiting.split();
            copies.push(copy);
            replies.extend(waits);
        }
        let answer = match self.offer(pending, now, channel, copies, begin) {
            Ok(true) => Ok(Appended::New),
            Ok(false) => Ok(Appended::Known),
            Err(Refusal::Append(error)) => Err(error),
            Err(Refusal::Log(refused, now)) => {
                if let Refused::Fork(pair) = &refused {
                    self.forks
                        .remember(self.namespaces.of(channel), &pair.0, &pair.1);
                }
                Err(explain(channel, refused, now))
            }
        };
        pending
            .answers
            .extend(replies.into_iter().map(|reply| (reply, answer.clone())));
    }

    /// Whether there is a backfill that the trust in force proves.
    pub(super) fn has_backfill(
        &mut self,
        pending: &mut Pending,
        now: Timestamp,
        channel: &Channel,
    ) -> bool {
        // It is judged when something is offered.
        let _ = self.offer(pending, now, channel, Vec::new(), Begin::Nothing);
        let log = &self.draft(pending, channel).log;
        log.backfill().is_some_and(Backfill::is_proven)
    }

    /// A peer sends no more before it has answers: the highest of what it has sent begins a
    /// backfill, if there is none that the trust in force proves.
    pub(super) fn resolve_stalled(&mut self, pending: &mut Pending, now: Timestamp, peer: Peer) {
        for channel in self.state.window.channels(Some(peer)) {
            if !channel.is_trust() && !self.has_backfill(pending, now, &channel) {
                let run = self.state.window.top(&channel);
                if !run.is_empty() {
                    self.take_run(pending, now, &channel, run, Begin::Backfill);
                    self.drain(pending, now, &channel);
                }
            }
            let from = self
                .draft(pending, &channel)
                .log
                .head()
                .and_then(|head| head.serial.next())
                .unwrap_or(Serial::FIRST);
            for waiting in self.state.window.of_peer(&channel, peer) {
                let (_, replies) = waiting.split();
                pending.answers.extend(
                    replies
                        .into_iter()
                        .map(|reply| (reply, Err(AppendError::Gap(from)))),
                );
            }
        }
    }
}
