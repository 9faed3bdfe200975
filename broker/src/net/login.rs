//! How this broker makes itself known to others: upstreams, and the peers of its feeds.

use std::{fs, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use tidings_client::{Address, Connection, Error, Tls, TlsError, pem::Validity};

use crate::config::Login;

/// Why a `login` of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Certificates or a key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The password.
    #[error("password_file: cannot read {path}: {source}")]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is none.
    #[error("expected one line with a password in {0}, and nothing else")]
    NoPassword(PathBuf),
    /// One without the other.
    #[error("user and password_file, and certificate_file and key_file, go together")]
    Half,
}

/// A login, read; its clones are read again with it.
#[derive(Clone)]
pub(crate) struct Credentials {
    login: Login,
    read: Arc<ArcSwap<Read>>,
}

struct Read {
    tls: Tls,
    account: Option<(String, String)>,
}

impl Credentials {
    pub(crate) fn read(login: &Login) -> Result<Self, LoginError> {
        Ok(Self {
            login: login.clone(),
            read: Arc::new(ArcSwap::from_pointee(read(login)?)),
        })
    }

    /// Reads the files again; if they cannot be used, what was read before stays in use.
    pub(crate) fn reload(&self) -> Result<(), LoginError> {
        self.read.store(Arc::new(read(&self.login)?));
        Ok(())
    }

    /// When the certificates in the files end.
    pub(crate) fn ends(&self) -> Vec<(PathBuf, Validity)> {
        self.read.load().tls.ends().to_vec()
    }

    /// Connects as whom we are.
    pub(crate) async fn connect(&self, address: &Address) -> Result<Connection, Error> {
        let read = self.read.load_full();
        let mut connection = Connection::open(address, &read.tls).await?;
        if let Some((user, password)) = &read.account {
            connection.login(user, password).await?;
        }
        Ok(connection)
    }
}

fn read(login: &Login) -> Result<Read, LoginError> {
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
            let password = password.trim_start_matches('\u{feff}').trim_end();
            if password.is_empty() || password.contains(char::is_control) {
                return Err(LoginError::NoPassword(path.clone()));
            }
            Some((user.clone(), password.to_owned()))
        }
        (None, None) => None,
        _ => return Err(LoginError::Half),
    };
    Ok(Read {
        tls: Tls::new(login.ca_file.as_deref(), own)?,
        account,
    })
}
