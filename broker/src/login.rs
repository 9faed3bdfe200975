//! How this broker makes itself known to others: upstreams, and the peers of its feeds.

use std::{fs, path::PathBuf};

use tidings_client::{Address, Connection, Error, Tls, TlsError};

use crate::config::Login;

/// Why a `login` of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Certificates or a key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The password.
    #[error("cannot read the password from {path}: {source}")]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One without the other.
    #[error("user and password_file, and certificate_file and key_file, go together")]
    Half,
}

/// A login, read.
#[derive(Clone)]
pub(crate) struct Credentials {
    tls: Tls,
    account: Option<(String, String)>,
}

impl Credentials {
    pub(crate) fn read(login: &Login) -> Result<Self, LoginError> {
        let own = match (&login.certificate_file, &login.key_file) {
            (Some(certificate), Some(key)) => Some((certificate.as_path(), key.as_path())),
            (None, None) => None,
            _ => return Err(LoginError::Half),
        };
        let account = match (&login.user, &login.password_file) {
            (Some(user), Some(path)) => {
                let password = fs::read_to_string(path).map_err(|source| LoginError::Password {
                    path: path.clone(),
                    source,
                })?;
                Some((user.clone(), password.trim_end().to_owned()))
            }
            (None, None) => None,
            _ => return Err(LoginError::Half),
        };
        Ok(Self {
            tls: Tls::new(login.ca_file.as_deref(), own)?,
            account,
        })
    }

    /// Connects as whom we are.
    pub(crate) async fn connect(&self, address: &Address) -> Result<Connection, Error> {
        let mut connection = Connection::open(address, &self.tls).await?;
        if let Some((user, password)) = &self.account {
            connection.login(user, password).await?;
        }
        Ok(connection)
    }
}
