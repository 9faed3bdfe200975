//! The profile of NNTP as data: commands, responses, and the framing of both (spec part 4).

#[cfg(feature = "codec")]
pub mod codec;
mod command;
mod response;

pub use command::{
    COMMANDS, Command, DateTime, Entry, Field, ListItem, Part, Range, Selector, SyntaxError,
    WatchTarget, parse_command,
};
pub use response::{Code, HERE, LostRace, RESPONSES, Response, code};
