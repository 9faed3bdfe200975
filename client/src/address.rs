use std::{fmt, str::FromStr};

/// Why a broker's address was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is another thing.
    #[error("a broker is `nntp://HOST[:PORT]` or `nntps://HOST[:PORT]`; this is {0:?}")]
    Form(String),
    /// A name, and perhaps a password, stands in it. It is not quoted.
    #[error(
        "a broker is `nntp://HOST[:PORT]` or `nntps://HOST[:PORT]`, without a name and a password in it (`--user` and `--password-file`; `[….login]` of a configuration)"
    )]
    Credentials,
}

/// Where a broker is: `nntps://HOST[:PORT]` (563) under TLS, `nntp://HOST[:PORT]` (119) in clear
/// text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether TLS is used.
    pub tls: bool,
    /// A name or an address, without the brackets of IPv6.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || match text.contains('@') {
            true => AddressError::Credentials,
            false => AddressError::Form(text.into()),
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "nntps" | "snews" => true,
            "nntp" | "news" => false,
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (
                    host,
                    if port.is_empty() {
                        None
                    } else {
                        Some(port.strip_prefix(':').ok_or_else(wrong)?)
                    },
                )
            }
            None => rest
                .split_once(':')
                .map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        // Of an address of IPv6 a zone may be part: `fe80::1%eth0`.
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(good) {
            return Err(wrong());
        }
        let port = port.map_or(Ok(if tls { 563 } else { 119 }), |port| {
            port.parse().map_err(|_| wrong())
        })?;
        Ok(Self {
            tls,
            host: host.into(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "nntps" } else { "nntp" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, full) in [
            ("nntps://a.example", "nntps://a.example:563"),
            ("nntp://127.0.0.1:1119/", "nntp://127.0.0.1:1119"),
            ("nntps://[::1]", "nntps://[::1]:563"),
            ("nntp://[::1]:5", "nntp://[::1]:5"),
            ("NNTP://a.example", "nntp://a.example:119"),
            ("nntp://[fe80::1%eth0]", "nntp://[fe80::1%eth0]:119"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), full);
            assert_eq!(full.parse(), Ok(address));
        }
        for text in [
            "",
            "a.example",
            "http://a",
            "nntp://",
            "nntp://a:x",
            "nntp://a:99999",
            "nntp://a b",
            "nntp://[::1",
            "nntp://u@h",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_never_quoted() {
        let error = "nntps://ann:secret@a.example"
            .parse::<Address>()
            .unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("--password-file") && !text.contains("secret"));
    }
}
