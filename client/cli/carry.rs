//! Over an air gap: channels into a file, and out of it into a broker.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use tidings_client::{Channel, Clock, Delivered, Delivery, Device, Serial, State, View};
use tidings_protocol::batch;

use super::{
    From,
    exit::Exit,
    files::{self, write_new},
    output,
};

#[derive(Args)]
pub(super) struct Export {
    /// The channels; the trust log, without which nothing is proven, comes with them
    #[arg(required = true)]
    channels: Vec<Channel>,
    /// The first serial of each
    #[arg(long, value_name = "SERIAL", default_value = "1")]
    from_serial: Serial,
    /// The last serial of each; without it, up to the head
    #[arg(long, value_name = "SERIAL")]
    to_serial: Option<Serial>,
    /// Where the batch goes; it must not exist yet. News servers take it too: `rnews FILE`
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    from: From,
}

impl Export {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let source = self.from.source()?;
        let anchor = source.anchor().clone();
        let log = anchor.namespace.trust_log();
        let mut device = Device::with_state(source, [], State::ephemeral(&anchor))?;
        let (mut octets, mut count) = (Vec::new(), 0);
        let others = self.channels.iter().filter(|channel| **channel != log);
        for channel in std::iter::once(&log).chain(others) {
            let outside =
                || Exit::Usage.because(format!("{channel} is not in the namespace of the anchor"));
            ensure!(anchor.namespace.contains(channel), outside());
            let from = if *channel == log {
                Serial::FIRST
            } else {
                self.from_serial
            };
            let wanted = |serial: Serial| {
                *channel == log || self.to_serial.is_none_or(|last| serial <= last)
            };
            let statements = device.history(channel, from).await?;
            let nothing =
                || Exit::Nothing.because(format!("there is nothing in {channel} from {from} on"));
            ensure!(!statements.is_empty(), nothing());
            for statement in statements
                .iter()
                .filter(|statement| wanted(statement.serial()))
            {
                batch::write(&mut octets, statement, "not-for-mail");
                count += 1;
            }
        }
        write_new(&self.out, &octets)?;
        let size = octets.len();
        let text = || {
            format!(
                "{count} statements, {size} octets, all of them verified, in {}",
                self.out.display()
            )
        };
        output::answer(|| json!({"statements": count, "octets": size}), text);
        Ok(())
    }
}

#[derive(Args)]
pub(super) struct Import {
    /// Batches, as `tidings export` and news servers write them
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Only say whether they are proven, and offer them to nobody
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    from: From,
}

impl Import {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let anchor = self.from.must_anchor()?;
        let mut statements = Vec::new();
        for path in &self.files {
            let octets = files::read(path)?;
            let read = batch::read(&octets).map_err(|error| {
                let hint = what_it_is(&octets).map_or(String::new(), |what| format!("; {what}"));
                let path = path.display();
                Exit::BadFile.because(format!("{path} is no batch of statements: {error}{hint}"))
            })?;
            if read.is_empty() {
                output::note(&format!("{} is empty", path.display()));
            }
            statements.extend(read);
        }
        let delivery = Delivery::prove(
            &mut View::new(anchor.clone()),
            statements,
            &Clock::system().now(),
        )
        .context("nothing was offered to any broker")?;
        let (count, channels) = delivery.count();
        output::note(&format!(
            "{count} statements of {channels} channels are proven"
        ));
        if self.check {
            if output::is_json() {
                output::object(&json!({"proven": count, "channels": channels}));
            }
            return Ok(());
        }
        let bar = output::progress(count, "statements offered");
        let Delivered {
            new,
            known,
            waiting,
        } = delivery
            .deliver(&self.from.source_of(&anchor)?, |some| bar.inc(some as u64))
            .await?;
        bar.finish_and_clear();
        output::answer(
            || json!({"new": new, "known": known}),
            || format!("{new} new, {known} there already"),
        );
        for (channel, shown) in &waiting {
            output::note(&format!(
                "{channel}: the broker shows it up to {shown}, and keeps the rest until what lies between has come too"
            ));
        }
        ensure!(
            waiting.is_empty(),
            Exit::Failed.because(format!("{} channel(s) have a gap", waiting.len()))
        );
        Ok(())
    }
}

/// What a file is that is no batch, as news servers, mail and hands leave them.
fn what_it_is(octets: &[u8]) -> Option<&'static str> {
    let known: &[(&[u8], &str)] = &[
        (b"\x1f\x8b", "it is compressed: gunzip it first"),
        (b"BZh", "it is compressed: bunzip2 it first"),
        (b"\xfd7zXZ", "it is compressed: unxz it first"),
        (b"\x28\xb5\x2f\xfd", "it is compressed: unzstd it first"),
        (b"\x1f\x9d", "it is compressed: uncompress it first"),
        (
            b"#! cunbatch",
            "it is a compressed batch: decompress what follows the first line (`tail -n +2 FILE | zcat`)",
        ),
        (
            b"#! gunbatch",
            "it is a compressed batch: decompress what follows the first line (`tail -n +2 FILE | zcat`)",
        ),
        (
            b"#! gunzip",
            "it is a compressed batch: decompress what follows the first line (`tail -n +2 FILE | zcat`)",
        ),
        (
            b"#! bunzip",
            "it is a compressed batch: decompress what follows the first line (`tail -n +2 FILE | bzcat`)",
        ),
        (b"\xef\xbb\xbf", "a byte order mark stands before it"),
        (
            b"Tidings: 1 ",
            "it is a statement: `tidings publish` takes it",
        ),
    ];
    let begins = known.iter().find(|(mark, _)| octets.starts_with(mark));
    let has_returns = || {
        let first = octets.split(|octet| *octet == b'\n').next()?;
        let what = "its lines end with CR LF, where a batch has LF alone; was it carried as text?";
        first.ends_with(b"\r").then_some(what)
    };
    begins.map(|(_, what)| *what).or_else(has_returns)
}
