//! `tidings outbox`: what was signed and is not settled yet.

use anyhow::ensure;
use clap::Args;
use serde_json::json;
use tidings_client::{Channel, Outbox, Statement};
use tidings_protocol::Namespace;

use super::{
    From, ceremony,
    exit::Exit,
    output,
    publishing::{Desk, OutboxArgs},
};

/// Every command that publishes offers first what waits for its channel. Nothing else is signed for
/// a channel before that is settled.
#[derive(Args)]
pub(super) struct ShowOutbox {
    /// The namespace, if no anchor says it
    #[arg(long)]
    namespace: Option<Namespace>,
    /// Remove what waits for a channel. Only what never left this machine may be dropped: what a
    /// broker or a mirror may have got makes a fork of the channel when something else is signed
    /// for its place. The broker is asked, if one is given
    #[arg(long, value_name = "CHANNEL")]
    drop: Option<Channel>,
    /// Drop it without asking
    #[arg(long, requires = "drop")]
    yes: bool,
    #[command(flatten)]
    outbox: OutboxArgs,
    #[command(flatten)]
    from: From,
}

impl ShowOutbox {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let which = || {
            Exit::Usage
                .because("which namespace? give --namespace, --anchor LINE, or set TIDINGS_ANCHOR")
        };
        let anchored = self.from.anchor()?.map(|anchor| anchor.namespace);
        let namespace = self.namespace.clone().or(anchored).ok_or_else(which)?;
        let outbox = self.outbox.open(&namespace)?;
        if let Some(channel) = &self.drop {
            return self.drop(&outbox, channel).await;
        }
        let mut bad = 0;
        for channel in outbox.channels()? {
            match outbox.waiting(&channel) {
                Ok(Some(statement)) => show(&statement),
                Ok(None) => {}
                Err(error) => {
                    bad += 1;
                    output::fail(&error.into());
                }
            }
        }
        ensure!(
            bad == 0,
            Exit::BadFile.because(format!(
                "{bad} file(s) of the outbox cannot be used; nothing was changed"
            ))
        );
        Ok(())
    }

    async fn drop(&self, outbox: &Outbox, channel: &Channel) -> anyhow::Result<()> {
        let _lock = outbox.lock(channel).await?;
        let nothing =
            || Exit::Nothing.because(format!("nothing waits in the outbox for {channel}"));
        let waiting = outbox.waiting(channel)?.ok_or_else(nothing)?;
        if !self.from.brokers.is_empty() {
            let mut desk = Desk::open(&self.from, &self.outbox).await?;
            let (log, _) = desk.publisher.log(channel, waiting.serial()).await?;
            let there = log
                .iter()
                .any(|statement| statement.head() == waiting.head());
            let has = || {
                format!(
                    "the broker has {channel} {}: it is published, and the next command for this channel settles it",
                    waiting.serial()
                )
            };
            ensure!(!there, Exit::Refused.because(has()));
        }
        show(&waiting);
        if !self.yes {
            ceremony::ask(
                "Has it never left this machine? What a broker may have got must be published, not dropped. Drop it?",
                "nothing was dropped",
            )?;
        }
        outbox.remove(channel)?;
        output::note(&format!("{channel} {} is dropped", waiting.serial()));
        Ok(())
    }
}

fn show(statement: &Statement) {
    let row = || {
        let (channel, serial) = (statement.channel(), statement.serial());
        format!(
            "{channel}\t{serial}\t{}\t{}\tsigned at {}",
            statement.kind(),
            statement.id(),
            statement.time()
        )
    };
    output::answer(|| json!({"waiting": output::json(statement, None)}), row);
}
