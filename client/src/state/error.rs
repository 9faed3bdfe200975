//! Why a state file is not read or written.

use std::{io, path::PathBuf};

use tidings_protocol::Anchor;

/// Why a state file cannot be used. It is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read or written.
    #[error("cannot {what} the state file {path}: {source}")]
    Io {
        /// Read, write or replace.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not as it was written.
    #[error(
        "the state file {path} is damaged ({reason}); it is not reset by itself, since it guards against old releases: \
         restore it, or remove it on purpose to start anew from the anchor"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was written by a newer version.
    #[error("the state file {0} was written by a newer version of Tidings; use that one")]
    Newer(PathBuf),
    /// It was written by version 0.1.
    #[error(
        "the state file {0} was written by Tidings 0.1, whose rules were others; move it away and begin anew with today's anchor (`NAMESPACE SERIAL ID`)"
    )]
    Older(PathBuf),
    /// Another program follows channels with it, or applies something.
    #[error("the state file {0} is in use by another program that {1}; each device needs its own")]
    InUse(PathBuf, &'static str),
    /// It belongs to another anchor.
    #[error(
        "the state file {path} belongs to the anchor `{found}`, not to `{expected}`; use another file for another namespace"
    )]
    OtherAnchor {
        /// The file.
        path: PathBuf,
        /// The anchor of the device.
        expected: Anchor,
        /// The anchor in the file.
        found: String,
    },
}
