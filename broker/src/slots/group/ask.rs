//! What a machine asks of its group, and what it is answered.

use tidings_protocol::Serial;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) node: &'a str,
    /// As whom the broker knows it: what one has taken, another one cannot take again or free
    /// (attack 77).
    pub(crate) by: &'a str,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// A slot; whether the request is held until there is one.
    Take {
        serial: Option<Serial>,
        held: bool,
        /// Whether it was held already, and its turn has come, perhaps.
        again: bool,
        nonce: u32,
    },
    /// Whether a token counts, and for this serial.
    Hold { serial: Option<Serial>, token: u64 },
    /// The node is back.
    Free { token: Option<u64> },
    /// The request with this nonce is gone: the node does not wait for it any more.
    Leave { nonce: u32 },
    /// An operator has looked at the node.
    Clear,
    /// How the group stands.
    Look,
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The token, and for how many seconds.
    Yours {
        token: u64,
        seconds: u64,
        /// Whether the node had none before.
        first: bool,
    },
    Free,
    /// So many are before the node.
    Wait {
        before: usize,
    },
    /// As many have failed as may.
    Stopped {
        failed: usize,
    },
    /// The token does not count.
    Lost(Lost),
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It ran out; the node counts as failed.
    Failed,
    /// The same node has another one by now.
    Replaced,
    /// The node has a slot that was taken by another peer, or for another serial.
    Other,
    /// There is no such thing.
    Unknown,
}
