//! Which broker is measured, and as who.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tidings_client::{Source, Tls};

#[derive(Args)]
pub(super) struct Target {
    /// The broker, nntps://HOST[:PORT] or nntp://HOST[:PORT]; the first, if there are several
    #[arg(
        long = "broker",
        value_name = "URL",
        env = "TIDINGS_BROKERS",
        value_delimiter = ',',
        required = true
    )]
    brokers: Vec<String>,
    /// The anchor of the namespace: `NAMESPACE SERIAL sha256:HEX`
    #[arg(long, value_name = "LINE", env = "TIDINGS_ANCHOR")]
    anchor: String,
    /// Certificates that TLS trusts instead of the system's, PEM
    #[arg(long, value_name = "FILE", env = "TIDINGS_CA")]
    ca: Option<PathBuf>,
    /// A certificate of our own, PEM, for brokers that ask for one
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDINGS_CERTIFICATE",
        requires = "certificate_key"
    )]
    certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", env = "TIDINGS_CERTIFICATE_KEY")]
    certificate_key: Option<PathBuf>,
    /// The name under which the broker knows us; sent over TLS only
    #[arg(
        long,
        value_name = "NAME",
        env = "TIDINGS_USER",
        requires = "password_file"
    )]
    user: Option<String>,
    /// A file with the password, and nothing else
    #[arg(long, value_name = "FILE", env = "TIDINGS_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
}

impl Target {
    pub(super) fn source(&self) -> anyhow::Result<Source> {
        let brokers = self.brokers.iter().map(|url| url.trim());
        let mut source = Source::new(brokers.filter(|url| !url.is_empty()), &self.anchor)?;
        let own = self
            .certificate
            .as_deref()
            .zip(self.certificate_key.as_deref());
        if self.ca.is_some() || own.is_some() {
            source = source.with_tls(Tls::new(self.ca.as_deref(), own)?);
        }
        let Some((user, file)) = self.user.as_deref().zip(self.password_file.as_deref()) else {
            return Ok(source);
        };
        let password = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the password from {}", file.display()))?;
        Ok(source.with_account(user, password.trim_end()))
    }
}
