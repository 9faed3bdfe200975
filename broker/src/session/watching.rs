//! XWATCH: what is asked for, and the way into the table of a watch loop.

use std::{collections::HashSet, sync::Arc};

use bytes::{Bytes, BytesMut};
use tidings_protocol::{
    Channel, Serial, Wildmat,
    nntp::{WatchTarget, code},
};

use super::{End, Session};
use crate::{
    limits::{WATCH_CHANNELS, WATCH_TARGETS, WILDMAT_PATTERNS},
    log::logs::Log,
    net::stream::leave,
    relay::watch::{Guest, Joining},
};

/// What a client wants to watch.
#[derive(Default)]
pub(super) struct Watch {
    cursors: Vec<(Arc<Log>, u32)>,
    expected: Vec<(Channel, u32)>,
    live: Vec<Wildmat>,
    /// How many logs there were when it was asked for.
    begun: usize,
}

impl Session {
    /// What XWATCH asks for, unless it is answered with a refusal.
    pub(super) async fn watch(&mut self, targets: Vec<WatchTarget>) -> Result<Option<Watch>, End> {
        let mut watch = Watch {
            begun: self.shared().logs.begun(),
            ..Watch::default()
        };
        let many = targets.len() > WATCH_TARGETS;
        for target in targets.into_iter().filter(|_| !many) {
            match target {
                WatchTarget::Live(wildmat) => watch.live.push(wildmat),
                WatchTarget::After(channel, serial) => {
                    let serial = serial.map_or(0, Serial::number);
                    match self.log(channel.as_str()) {
                        Some(log) => watch.cursors.push((log, serial)),
                        None => watch.expected.push((channel, serial)),
                    }
                }
            }
        }
        if many
            || watch
                .live
                .iter()
                .any(|live| live.patterns() > WILDMAT_PATTERNS)
        {
            let limits =
                format_args!("a watch has at most {WATCH_TARGETS} targets, and each of them {WILDMAT_PATTERNS} patterns").to_string();
            self.respond(code::WATCH_REFUSED, limits);
            return Ok(None);
        }
        self.find_live(&mut watch).await?;
        if watch.cursors.len() + watch.expected.len() > WATCH_CHANNELS {
            self.respond(
                code::WATCH_REFUSED,
                format_args!("a watch follows {WATCH_CHANNELS} channels, no more"),
            );
            return Ok(None);
        }
        Ok(Some(watch))
    }

    /// Finds the channels that wildmats mean now, at the cost of this client (attack 102): the loop
    /// looks at those alone that begin later.
    async fn find_live(&mut self, watch: &mut Watch) -> Result<(), End> {
        if watch.live.is_empty() {
            return Ok(());
        }
        let named: HashSet<usize> = watch.cursors.iter().map(|(log, _)| log.index).collect();
        let mut after = None;
        loop {
            let logs = self.shared().logs.page(after.as_ref());
            let Some(last) = logs.last() else {
                return Ok(());
            };
            after = Some(last.channel.clone());
            for log in logs {
                let name = log.channel.as_str();
                self.pay(watch.live.iter().map(|live| live.cost(name)).sum())
                    .await?;
                let wanted = watch.live.iter().any(|live| live.matches(name))
                    && self.place.may_read(&log.channel);
                if wanted && !named.contains(&log.index) && watch.cursors.len() <= WATCH_CHANNELS {
                    let head = log.marks().head.serial.number();
                    watch.cursors.push((log, head));
                }
            }
        }
    }

    /// Gives socket and state to a watch loop; this task ends.
    pub(super) fn leave_to_watch(self, watch: Watch) {
        let Self {
            place,
            stream,
            input,
            ..
        } = self;
        let (watches, peer) = (place.shared.watches.clone(), place.peer);
        let Some(counted) = watches.reserve() else {
            // Rare: the refusal is sent by a task of its own.
            let mut session = Self::resume(place, stream, input);
            session.respond(
                code::WATCH_REFUSED,
                "too many watches, poll instead or try again later",
            );
            session.shared().clone().spawn(session.run_boxed());
            return;
        };
        let greeting = Bytes::from(format!(
            "{} {} watching\r\n",
            code::WATCHING,
            watches.heartbeat_seconds()
        ));
        let input = if input.is_empty() {
            BytesMut::new()
        } else {
            input
        };
        match leave(stream.socket) {
            Ok(socket) => watches.join(Joining {
                socket,
                tls: stream.tls,
                cursors: watch.cursors,
                expected: watch.expected,
                live: watch.live,
                begun: watch.begun,
                greeting,
                input,
                peer,
                guest: place,
                counted,
            }),
            Err(error) => tracing::warn!(%peer, %error, "a connection could not be watched"),
        }
    }
}
