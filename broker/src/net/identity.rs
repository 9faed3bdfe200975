//! How this broker makes itself known: certificates, keys and passwords in files, which are read
//! again while it runs, and whose ends are told beforehand.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tidings_client::pem::Validity;
use tidings_protocol::Timestamp;

use crate::{
    config::{Login, Settings},
    net::{
        login::{Credentials, LoginError},
        tls::Certificates,
    },
};

/// All of it, by the keys of the configuration.
pub(crate) struct Identity {
    certificates: Option<Arc<Certificates>>,
    logins: Vec<(String, Credentials)>,
}

impl Identity {
    pub(crate) fn new(
        certificates: Option<Arc<Certificates>>,
        logins: Vec<(String, Credentials)>,
    ) -> Self {
        Self {
            certificates,
            logins,
        }
    }

    /// Reads all files again. What cannot be used, each with its key and why; what was read before
    /// stays in use there.
    pub(crate) fn reload(&self) -> Vec<String> {
        let tls = self.certificates.iter().map(|tls| tls.reload().err());
        let tls = tls.flatten().map(|error| error.to_string());
        let logins = self.logins.iter().filter_map(|(key, login)| {
            let error = login.reload().err()?;
            Some(format!("{key}: {error}"))
        });
        tls.chain(logins).collect()
    }

    /// When the certificates end, each file once.
    pub(crate) fn ends(&self) -> BTreeMap<PathBuf, Validity> {
        let tls = self.certificates.iter().flat_map(|tls| tls.ends());
        let logins = self.logins.iter().flat_map(|(_, login)| login.ends());
        tls.chain(logins).collect()
    }

    /// What an operator should know of that, a line each.
    pub(crate) fn trouble(&self, now: Timestamp) -> Vec<String> {
        let line = |(path, end): (PathBuf, Validity)| {
            Some(format!(
                "the certificate {} {}",
                path.display(),
                end.trouble(now)?
            ))
        };
        self.ends().into_iter().filter_map(line).collect()
    }
}

/// The logins of a configuration, by their keys.
pub(crate) fn logins(settings: &Settings) -> impl Iterator<Item = (String, &Login)> {
    let mirror = settings
        .mirror
        .iter()
        .map(|mirror| ("mirror.login".to_owned(), &mirror.login));
    let cluster = settings
        .cluster
        .iter()
        .map(|cluster| ("cluster.login".to_owned(), &cluster.fill.login));
    let feeds = settings
        .feeds
        .iter()
        .map(|feed| (format!("feed {}: login", feed.name), &feed.login));
    mirror.chain(cluster).chain(feeds)
}

/// Reads what a configuration names, and nothing else.
pub(crate) fn read(settings: &Settings) -> Result<Identity, crate::broker::StartError> {
    let tls = settings.config.tls.as_ref();
    let certificates = tls.map(Certificates::load).transpose()?.map(Arc::new);
    let read = |(key, login): (String, &Login)| Ok((key, Credentials::read(login)?));
    let logins = logins(settings)
        .map(read)
        .collect::<Result<Vec<_>, LoginError>>()?;
    Ok(Identity::new(certificates, logins))
}
