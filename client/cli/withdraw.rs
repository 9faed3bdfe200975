//! Withdrawals: a release is called back, by serial and id.

use std::ops::Deref;

use anyhow::ensure;
use clap::Args;
use tidings_client::{Body, Channel, Head, Serial, Statement};
use tidings_protocol::{StatementId, statement::Kind};

use super::{
    exit::Exit,
    publishing::{Desk, Draft, Finish, Place, finish, finish_offline, published},
};

#[derive(Args)]
pub(super) struct Withdraw {
    /// The channel
    channel: Channel,
    /// The serial of the release that is called back
    serial: Serial,
    /// Why, for people
    #[arg(long)]
    reason: String,
    /// The id of the release, where no broker is asked
    #[arg(long, value_name = "ID", requires = "after")]
    id: Option<StatementId>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    finish: Finish,
}

impl Withdraw {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let draft = |release: Head| {
            let fields = vec![
                ("Withdraws".to_owned(), release.to_string()),
                ("Reason".to_owned(), self.reason.clone()),
            ];
            Draft {
                kind: Kind::Withdraw,
                channel: self.channel.clone(),
                fields,
            }
        };
        if self.place.from.brokers.is_empty() || self.place.after.is_some() {
            let which = || {
                Exit::Usage.because("which release is it? give --broker and --anchor, or --id, as `tidings log --json` shows it")
            };
            let id = self.id.ok_or_else(which)?;
            return finish_offline(
                &draft(Head {
                    serial: self.serial,
                    id,
                }),
                &self.place,
                &self.finish,
            );
        }
        let mut desk = Desk::open(&self.place.from, &self.finish.outbox).await?;
        let begun = desk.begin(&self.channel).await?;
        let withdraws = |by: &&Statement| matches!(by.body(), Body::Withdraw(withdraw) if withdraw.withdraws.serial == self.serial);
        if let Some(by) = begun.published.as_ref().filter(withdraws) {
            return published(by, desk.publisher.trust());
        }
        let release = look_up(&mut desk, &self.channel, self.serial).await?;
        finish(&mut desk, begun, draft(release), &self.finish).await
    }
}

async fn look_up(desk: &mut Desk, channel: &Channel, serial: Serial) -> anyhow::Result<Head> {
    let (log, low) = desk.publisher.log(channel, serial).await?;
    let there = log.first().filter(|statement| statement.serial() == serial);
    let none = || match log.first() {
        Some(first) => {
            format!(
                "{channel} {serial} is not kept any more: the log begins at {low}, and devices know {} at the least",
                first.serial()
            )
        }
        None => {
            format!("there is no {channel} {serial}; `tidings log {channel}` shows what there is")
        }
    };
    let there = there.ok_or_else(|| Exit::Refused.because(none()))?;
    let kind = there.kind();
    ensure!(
        kind == Kind::Release,
        Exit::Refused.because(format!(
            "{channel} {serial} is a {kind}, and only a release can be withdrawn"
        ))
    );
    if let Some(by) = withdrawn_by(there, &log) {
        return Err(Exit::Withdrawn.because(format!(
            "{channel} {serial} is withdrawn already, by {}",
            by.serial()
        )));
    }
    Ok(there.head())
}

/// The withdrawal of a release among some statements.
pub(super) fn withdrawn_by<'a, S: Deref<Target = Statement> + 'a>(
    release: &Statement,
    log: impl IntoIterator<Item = &'a S>,
) -> Option<&'a Statement> {
    let withdraws = |by: &&'a Statement| matches!(by.body(), Body::Withdraw(withdraw) if withdraw.withdraws == release.head());
    log.into_iter().map(|by| &**by).find(withdraws)
}
