//! The same loop as a task, on sockets in memory.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use tokio::{sync::Notify, time::sleep_until};

use super::{Engine, key};
use crate::{failure::OnFailure, log::logs::Logs, relay::watch::Mailbox};

impl Engine {
    pub(crate) fn simulated(
        heartbeat: Duration,
        logs: Arc<Logs>,
        on_failure: OnFailure,
    ) -> io::Result<(Arc<Mailbox>, impl Future<Output = ()> + use<>)> {
        let told = Arc::new(Notify::new());
        let tell = told.clone();
        let mailbox = Mailbox::new(move || tell.notify_one());
        let poll = mio::Poll::new()?;
        let mut engine = Self::new(poll, heartbeat, mailbox.clone(), logs, on_failure);
        let run = async move {
            loop {
                let tick = engine.next_tick;
                let ready = tokio::select! {
                    biased;
                    ready = engine.wait() => ready,
                    () = told.notified() => Vec::new(),
                    () = sleep_until(tick) => Vec::new(),
                };
                if engine.turn(ready).is_break() {
                    return;
                }
            }
        };
        Ok((mailbox, run))
    }

    /// Waits until sockets can be read, or take what they did not take before.
    async fn wait(&mut self) -> Vec<(u32, bool)> {
        poll_fn(|context| {
            let mut ready = Vec::new();
            for (at, watcher) in &mut self.watchers {
                // Who has ended its watch is read by its session.
                let (reads, writes) = (watcher.input.is_empty(), watcher.is_blocked());
                if watcher.socket.poll_ready(context, reads, writes).is_ready() {
                    ready.push((key(at), reads));
                }
            }
            match ready.is_empty() && self.turns.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(ready),
            }
        })
        .await
    }
}
