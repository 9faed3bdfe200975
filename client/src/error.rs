use tidings_protocol::{
    Channel, NameError, Serial,
    article::ArticleError,
    nntp::{
        Response,
        codec::{BlockError, CodecError},
    },
    verify::VerifyError,
    view::{Fork, clearance::NotNow},
};

use crate::{Address, AddressError, StateError, TlsError, tls::io_words};

/// What keeps a device from learning what is new. Nothing that was not verified has had any effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No broker could be used; the last one failed so.
    #[error("no broker could be used; {address}: {source}")]
    Unreachable {
        /// The broker that was tried last.
        address: Address,
        /// Why it failed.
        source: Box<Error>,
    },
    /// Credentials or a CA were given, and the broker's address is one of clear text.
    #[error(
        "credentials or a CA were given, so that statements are posted over TLS only; use nntps:// instead of {0}"
    )]
    ClearText(Address),
    /// No broker is configured.
    #[error("no broker is configured")]
    NoBroker,
    /// A broker's address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A channel or anchor is none, or a channel is not in the anchor's namespace.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The channel is outside the anchor's namespace.
    #[error("{channel} is not in the namespace of the anchor, {namespace}")]
    Namespace {
        /// The channel.
        channel: Channel,
        /// The namespace.
        namespace: tidings_protocol::Namespace,
    },
    /// Trust and beats are no news for an application.
    #[error("{0} is followed by every device by itself; `tidings log` shows what stands in it")]
    Own(Channel),
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The state file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The connection failed.
    #[error("the connection failed: {}", io_words(.0))]
    Io(std::io::Error),
    /// The broker took too long.
    #[error("the broker did not answer within {0:?}")]
    Silent(std::time::Duration),
    /// Something took the connection, and did not greet.
    #[error(
        "it took the connection and said nothing within {0:?}; does this port want TLS (nntps://), or is it a proxy without a broker?"
    )]
    NoGreeting(std::time::Duration),
    /// The broker does not speak the protocol.
    #[error("the broker does not speak the protocol: {0}")]
    Protocol(#[from] CodecError),
    /// The broker refused.
    #[error("the broker answered: {0}")]
    Refused(Response),
    /// An answer is too large or malformed.
    #[error("the broker's answer cannot be used: {0}")]
    Block(#[from] BlockError),
    /// What the broker sent is no statement.
    #[error("the broker sent what is no statement: {0}")]
    Article(#[from] ArticleError),
    /// The broker does not have what it claims to have.
    #[error("the broker claims to have {channel} {serial}, and does not send it")]
    Missing {
        /// The channel.
        channel: Channel,
        /// The serial.
        serial: u32,
    },
    /// A statement is not accepted; the broker, or somebody behind it, lies or lags.
    #[error("{channel} {serial} is not accepted: {source}")]
    Verify {
        /// The channel.
        channel: Channel,
        /// The serial.
        serial: Serial,
        /// Why.
        source: VerifyError,
    },
    /// Two statements were signed for one place. A live beat decides, or a checkpoint.
    #[error("{} {} is forked: {} and {} are both signed; the evidence is kept, and a beat or a checkpoint of the namespace has to decide", .0.ours.channel(), .0.serial(), .0.ours.id(), .0.theirs.id())]
    Fork(Box<Fork>),
    /// A release may not be applied now.
    #[error("nothing of {channel} may be applied now: {reason} ({})", reason.requirement())]
    NotNow {
        /// The channel.
        channel: Channel,
        /// Why.
        reason: Box<NotNow>,
    },
    /// Too few brokers could confirm.
    #[error("{agreed} broker(s) could confirm it, {wanted} are wanted")]
    Quorum {
        /// How many could.
        agreed: usize,
        /// How many must.
        wanted: usize,
    },
    /// Brokers contradict each other, or one of them is ahead of what is about to be signed.
    #[error("{0}")]
    Survey(String),
    /// There is no trust log where there must be one.
    #[error("the broker has no trust log {0}; is it provisioned for this namespace?")]
    NoTrustLog(Channel),
    /// The trust log does not reach the anchor.
    #[error(
        "the anchor names trust {anchor}, and the broker has {log} up to {high} only: it is behind, or the anchor is of another log; ask another broker, or take the line that `tidings anchor` prints"
    )]
    AnchorAhead {
        /// The trust log.
        log: Channel,
        /// The serial of the anchor.
        anchor: Serial,
        /// The last that the broker has.
        high: u32,
    },
    /// More is missing than is read at once.
    #[error("{0} is behind by more than can be read at once; start anew from its head")]
    Backlog(Channel),
}

// Without a source: what a library says of it is in the text already, in words of ours.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl Error {
    /// The same as the error of one broker; what is wrong on this side stays what it is.
    pub(crate) fn at(self, address: &Address) -> Self {
        match self {
            Self::State(_) | Self::ClearText(_) | Self::Unreachable { .. } => self,
            source => Self::Unreachable {
                address: address.clone(),
                source: Box::new(source),
            },
        }
    }
}

/// An error and its causes in one line; what a cause adds nothing to is said once.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
