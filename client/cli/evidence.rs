//! What proves a fork, in one file.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tidings_client::{Channel, State};

use super::{
    From,
    exit::Exit,
    files::{self, write_new},
    output,
    trust::read_log,
};

#[derive(Args)]
pub(super) struct Evidence {
    /// The forked channel
    channel: Channel,
    /// The state file of the device that has seen the fork
    #[arg(long, value_name = "FILE", env = "TIDINGS_STATE")]
    state: PathBuf,
    /// Where the evidence goes; it must not exist yet
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    from: From,
}

impl Evidence {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let anchor = self.from.must_anchor()?;
        let state = State::look(&self.state, &anchor)?;
        let none = || {
            Exit::Nothing.because(format!(
                "{} is not forked as far as this device knows",
                self.channel
            ))
        };
        let fork = state.view().fork(&self.channel).ok_or_else(none)?;
        let mut octets = Vec::new();
        if self.from.brokers.is_empty() {
            output::note(
                "no broker was given: the evidence has no trust log in it, and whoever verifies it needs that from elsewhere (--trust)",
            );
        } else {
            octets = files::bundle(&read_log(self.from.source()?).await?);
        }
        octets.extend(files::bundle(
            [&fork.ours, &fork.theirs].into_iter().chain(&fork.above),
        ));
        write_new(&self.out, &octets)?;
        let (channel, serial) = (&self.channel, fork.serial());
        let head = state
            .head(channel)
            .map_or(String::new(), |head| head.to_string());
        let text = || {
            format!(
                "evidence that {channel} is forked at {serial}; `tidings verify` proves it\nto settle it, give the checkpoint at the present head of the branch that is right, on which all brokers then have to be; ours is --checkpoint '{channel} {head}'"
            )
        };
        output::answer(
            || json!({"channel": channel.as_str(), "serial": serial.number(), "checkpoint": format!("{channel} {head}")}),
            text,
        );
        Ok(())
    }
}
