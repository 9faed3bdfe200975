//! Bringing statements that others have published to a broker, as a feed does: what an air gap
//! needs at its far side.

use std::collections::BTreeMap;

use tidings_protocol::{
    Channel, Serial, Statement, Verified, View, article,
    nntp::{HERE, Response, code},
    verify::VerifyError,
    view::Now,
};
use tokio::time::timeout;

use crate::{Connection, Error, Source, limits::ASK};

/// Statements under way at once.
const WINDOW: usize = 64;

/// Statements that belong together and are proven: the trust log, and runs of channels.
pub struct Delivery {
    /// Oldest first.
    trust: Vec<Statement>,
    /// Newest first; of beats, of which a later one ends those before it, oldest first.
    runs: BTreeMap<Channel, Vec<Verified<Statement>>>,
}

/// Why statements are not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The trust log does not lead from the anchor to its newest statement.
    #[error("the trust log {0}: {1}")]
    Trust(Channel, VerifyError),
    /// There is no trust log, and without one nothing is proven.
    #[error("there is no trust log {0} in it")]
    NoTrust(Channel),
    /// Two statements for one place.
    #[error("{0} {1} is in it twice, and not the same")]
    Twice(Channel, Serial),
    /// A statement is not proven by what is there.
    #[error("{0} {1} is not accepted: {2}")]
    Verify(Channel, Serial, VerifyError),
    /// The broker cannot be used.
    #[error(transparent)]
    Client(#[from] Error),
    /// The broker does not take statements from us.
    #[error("the broker answered {0}; does its configuration have us as a [[peer]] with `feeds`?")]
    NotAPeer(Response),
    /// The broker refuses a statement.
    #[error("the broker refused {0} {1}: {2}")]
    Refused(Channel, Serial, Response),
}

/// What became of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Statements that were not there before.
    pub new: usize,
    /// Statements that were, and beats that a later one had ended.
    pub known: usize,
    /// Channels whose gap below what was delivered is still open, and the highest serial that the
    /// broker shows.
    pub waiting: Vec<(Channel, u32)>,
}

impl Delivery {
    /// Proves statements, in whatever order they are, with nothing but the anchor: as a mirror
    /// would.
    ///
    /// # Errors
    /// The first that is not proven; then there is nothing to deliver.
    pub fn prove(
        view: &mut View,
        statements: impl IntoIterator<Item = Statement>,
        now: &Now,
    ) -> Result<Self, DeliveryError> {
        let mut channels: BTreeMap<Channel, BTreeMap<Serial, Statement>> = BTreeMap::new();
        for statement in statements {
            let (channel, serial) = (statement.channel().clone(), statement.serial());
            let before = channels
                .entry(channel.clone())
                .or_default()
                .insert(serial, statement.clone());
            if before.is_some_and(|before| before.id() != statement.id()) {
                return Err(DeliveryError::Twice(channel, serial));
            }
        }
        let log = view.anchor().namespace.trust_log();
        let trust: Vec<Statement> = channels
            .remove(&log)
            .unwrap_or_default()
            .into_values()
            .collect();
        let anchored = view.anchor().head.serial;
        let above = trust
            .iter()
            .filter(|statement| statement.serial() >= anchored)
            .cloned();
        view.take_trust(above, now)
            .map_err(|(_, source)| DeliveryError::Trust(log.clone(), source))?;
        let in_force = view.trust().ok_or(DeliveryError::NoTrust(log))?;
        let mut runs = BTreeMap::new();
        for (channel, run) in channels {
            let proven = in_force.verify_run(&channel, run.into_values().collect());
            let proven = proven.map_err(|(serial, source)| {
                DeliveryError::Verify(channel.clone(), serial, source)
            })?;
            let mut run = proven.statements;
            if !channel.is_beat() {
                run.reverse();
            }
            runs.insert(channel, run);
        }
        Ok(Self { trust, runs })
    }

    /// How many statements there are, and in how many channels.
    pub fn count(&self) -> (usize, usize) {
        (
            self.trust.len() + self.runs.values().map(Vec::len).sum::<usize>(),
            self.runs.len() + usize::from(!self.trust.is_empty()),
        )
    }

    /// Brings everything to the broker that is first now: the trust log upwards, all else from the
    /// newest down, so that what its successor vouches for needs no key that is in force; beats
    /// upwards, since a broker takes none below its newest. What is there already is left as it is.
    ///
    /// # Errors
    /// If the broker cannot be used, or refuses one.
    pub async fn deliver(
        &self,
        source: &Source,
        mut progress: impl FnMut(usize),
    ) -> Result<Delivered, DeliveryError> {
        let mut connection = source.connect().await?;
        let mut delivered = Delivered::default();
        let streaming = connection.command("MODE STREAM").await?;
        if streaming.code != code::STREAMING {
            return Err(DeliveryError::NotAPeer(streaming));
        }
        for run in std::iter::once(self.trust.iter().collect()).chain(
            self.runs
                .values()
                .map(|run| run.iter().map(|s| &**s).collect()),
        ) {
            let run: Vec<&Statement> = run;
            let mut refused = None;
            // Each trust statement decides about the next.
            let window = if run.first().is_some_and(|first| first.channel().is_trust()) {
                1
            } else {
                WINDOW
            };
            for some in run.chunks(window) {
                timeout(
                    ASK,
                    offer(&mut connection, some, &mut delivered, &mut refused),
                )
                .await
                .unwrap_or(Err(Error::Silent(ASK).into()))?;
                progress(some.len());
            }
            if let Some(newest) = run.iter().max_by_key(|statement| statement.serial()) {
                let shown = connection
                    .group(newest.channel(), None)
                    .await?
                    .map_or(0, |(group, _)| group.high);
                if shown < newest.serial().number() {
                    if let Some(refusal) = refused {
                        return Err(refusal);
                    }
                    delivered.waiting.push((newest.channel().clone(), shown));
                }
            }
        }
        Ok(delivered)
    }
}

/// Whether a broker does not want a statement because it has it, or had it.
fn is_known(answer: &Response, statement: &Statement) -> bool {
    let id = statement.message_id().to_string();
    answer
        .text
        .strip_prefix(id.as_str())
        .is_some_and(|why| why.trim_start() == HERE)
}

/// A beat that is refused is no error yet: the broker may have a later one, and then it is of no
/// use there.
async fn offer(
    connection: &mut Connection,
    statements: &[&Statement],
    delivered: &mut Delivered,
    refused: &mut Option<DeliveryError>,
) -> Result<(), DeliveryError> {
    let checks: String = statements
        .iter()
        .map(|statement| format!("CHECK {}\r\n", statement.message_id()))
        .collect();
    connection.send_raw(checks.as_bytes()).await?;
    let mut wanted = Vec::new();
    for statement in statements {
        let answer = connection.answer().await?;
        match answer.code {
            code::WANTED => wanted.push(*statement),
            code::CHECK_NOT_WANTED if is_known(&answer, statement) => delivered.known += 1,
            code::WHO_ARE_YOU | code::NOT_PERMITTED | code::UNKNOWN => {
                return Err(DeliveryError::NotAPeer(answer));
            }
            _ => {
                return Err(DeliveryError::Refused(
                    statement.channel().clone(),
                    statement.serial(),
                    answer,
                ));
            }
        }
    }
    let mut octets = Vec::new();
    for statement in &wanted {
        octets.extend_from_slice(format!("TAKETHIS {}\r\n", statement.message_id()).as_bytes());
        octets.extend_from_slice(&article::render(statement, "not-for-mail").octets);
        octets.extend_from_slice(b".\r\n");
    }
    connection.send_raw(&octets).await?;
    for statement in wanted {
        let answer = connection.answer().await?;
        if answer.code == code::TAKEN {
            delivered.new += 1;
            continue;
        }
        let channel = statement.channel().clone();
        let is_beat = channel.is_beat();
        let refusal = DeliveryError::Refused(channel, statement.serial(), answer);
        if !is_beat {
            return Err(refusal);
        }
        delivered.known += 1;
        refused.get_or_insert(refusal);
    }
    Ok(())
}
