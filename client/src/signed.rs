//! What this machine has signed: no second statement for a place of a log, unless told (S11).

use std::{fs, io, path::PathBuf};

use tidings_protocol::{Channel, Head, Serial, Statement, StatementId};

use crate::{file, limits::SIGNED, outbox::make};

/// Why a statement is not signed here.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// The directory or a file cannot be read or written.
    #[error("cannot {what} {path}, which remembers what was signed: {source}")]
    Io {
        /// Read, write or make.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not as it was written.
    #[error(
        "{path}, which remembers what was signed, is damaged: {line:?} is not SERIAL ID; correct that line, or remove the file on purpose"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line.
        line: String,
    },
    /// Another statement was signed for the same place.
    #[error(
        "this machine has signed another statement for {channel} {serial}: {id}; two signed statements for one place fork the channel"
    )]
    Another {
        /// The channel.
        channel: Channel,
        /// The place.
        serial: Serial,
        /// The statement that was signed first.
        id: StatementId,
    },
}

/// A directory with a file for each channel: what was signed, by serial and id.
#[derive(Clone, Debug)]
pub struct SignedPlaces {
    directory: PathBuf,
}

impl SignedPlaces {
    /// Those in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, SignedError> {
        let directory = directory.into();
        make(&directory).map_err(|source| SignedError::Io {
            what: "make",
            path: directory.clone(),
            source,
        })?;
        Ok(Self { directory })
    }

    fn path(&self, channel: &Channel) -> PathBuf {
        self.directory.join(format!("{channel}.signed"))
    }

    fn read(&self, channel: &Channel) -> Result<Vec<Head>, SignedError> {
        let path = self.path(channel);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(SignedError::Io {
                    what: "read",
                    path,
                    source,
                });
            }
        };
        let head = |line: &str| {
            let (serial, id) = line.split_once(' ')?;
            Some(Head {
                serial: serial.parse().ok()?,
                id: id.parse().ok()?,
            })
        };
        text.lines()
            .map(|line| {
                head(line).ok_or_else(|| SignedError::Damaged {
                    path: path.clone(),
                    line: line.into(),
                })
            })
            .collect()
    }

    /// Whether a statement may be signed here: no other one was signed for its place.
    ///
    /// # Errors
    /// If one was.
    pub fn may_sign(&self, statement: &Statement) -> Result<(), SignedError> {
        let (channel, serial) = (statement.channel().clone(), statement.serial());
        let other = self
            .read(&channel)?
            .into_iter()
            .find(|head| head.serial == serial && head.id != statement.id());
        other.map_or(Ok(()), |Head { id, .. }| {
            Err(SignedError::Another {
                channel,
                serial,
                id,
            })
        })
    }

    /// Remembers that a statement is signed here; before it leaves.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note(&self, statement: &Statement) -> Result<(), SignedError> {
        let mut all = self.read(statement.channel())?;
        all.retain(|head| *head != statement.head());
        all.push(statement.head());
        let text: String = all[all.len().saturating_sub(SIGNED)..]
            .iter()
            .map(|head| format!("{head}\n"))
            .collect();
        let path = self.path(statement.channel());
        file::replace(&path, text.as_bytes(), 0o600).map_err(|source| SignedError::Io {
            what: "write",
            path,
            source,
        })
    }
}
