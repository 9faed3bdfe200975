//! Who wants a command to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT from now on.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    pub(super) async fn told(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

/// Runs a command that has nothing to finish. A signal ends such a command by itself, but the first
/// process of a container, which only gets the signals that it asks for.
pub(super) async fn as_any_process<T>(command: impl Future<Output = T>) -> T {
    as_any_process_unless(|| false, command).await
}

/// The same for a command that at times has something to finish, and then listens itself.
pub(super) async fn as_any_process_unless<T>(
    is_busy: impl Fn() -> bool,
    command: impl Future<Output = T>,
) -> T {
    let asked = (std::process::id() == 1).then(Ends::new);
    let Some(Ok(mut ends)) = asked else {
        return command.await;
    };
    let mut command = std::pin::pin!(command);
    loop {
        tokio::select! {
            result = &mut command => return result,
            signal = ends.told() => if !is_busy() {
                std::process::exit(128 + signal.as_raw_value());
            },
        }
    }
}
