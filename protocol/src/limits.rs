//! Every limit of the protocol, with its name and its unit (spec part 8).
//!
//! The specification prints [`ALL`] as a table, and a test compares the two.

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $value:expr, $unit:literal;)+) => {
        $($(#[doc = $doc])+ #[doc = concat!("\n\nUnit: ", $unit, ".")] pub const $name: $type = $value;)+
        /// Name, value and unit of each limit.
        pub const ALL: &[(&str, u64, &str)] = &[$((stringify!($name), $name as u64, $unit)),+];
    };
}

limits! {
    /// A whole statement, its line ends counted as one octet each.
    STATEMENT_OCTETS: usize = 64 * 1024, "octets";
    /// One line of a statement, without its line end.
    LINE_OCTETS: usize = 900, "octets";
    /// The name of a field.
    FIELD_NAME_OCTETS: usize = 64, "octets";
    /// The name of a channel; a message-id then stays within the 250 octets of RFC 3977 section
    /// 3.6.
    CHANNEL_OCTETS: usize = 128, "octets";
    /// A token: a version, a key's name, a slot group, a cohort, a unit.
    TOKEN_OCTETS: usize = 128, "octets";
    /// Signatures under one statement.
    SIGNATURES: usize = 16, "lines";
    /// The last serial, which is the last article number (RFC 3977 section 6).
    SERIAL_LAST: u32 = 2_147_483_647, "serial";
    /// A command line, its line end included (RFC 3977 section 3.1).
    COMMAND_OCTETS: usize = 512, "octets";
    /// An XWATCH command line, its line end included.
    XWATCH_OCTETS: usize = 4096, "octets";
    /// A response line, its line end included (RFC 3977 section 3.1).
    RESPONSE_OCTETS: usize = 512, "octets";
    /// One line of an article's headers or of any other multi-line block, without its line end.
    BLOCK_LINE_OCTETS: usize = 2048, "octets";
    /// The headers of an article.
    HEADER_OCTETS: usize = 16 * 1024, "octets";
    /// A whole article on the wire: headers, and a statement with two octets at each line end.
    ARTICLE_OCTETS: usize = 128 * 1024, "octets";
    /// Octets of a too large article that are still read, so that it can be answered, before the
    /// connection is closed.
    DISCARD_OCTETS: usize = 1024 * 1024, "octets";
    /// A multi-line answer that a client keeps whole (LIST, OVER).
    LISTING_OCTETS: usize = 16 * 1024 * 1024, "octets";
    /// A wildmat.
    WILDMAT_OCTETS: usize = 497, "octets";
    /// Octets of a beat's `Head` lines: some 600 channels of ordinary names. What does not fit is
    /// not named.
    BEAT_HEADS_OCTETS: usize = 60 * 1024, "octets";
    /// How long a beat is live at most, whatever its `Expires` says.
    BEAT_LIFE_SECONDS: u64 = 24 * 60 * 60, "seconds";
    /// How far ahead of a broker's clock the time of a new statement may be.
    FUTURE_SECONDS: u64 = 24 * 60 * 60, "seconds";
    /// Statements below its head that a device keeps by serial and id, to know what a beat names
    /// below the head.
    CHAIN_LINKS: usize = 64, "statements";
    /// Releases with the highest serials whose withdrawals a device keeps.
    WITHDRAWALS: usize = 16, "releases";
    /// Statements that prove a branch which is not signed at its lower end.
    EVIDENCE: usize = 64, "statements";
    /// The longest silence of a watch: an event or a heartbeat comes at least so often.
    HEARTBEAT_SECONDS: u64 = 300, "seconds";
}
