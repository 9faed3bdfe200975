//! One slot server: where it is, and one request to it.

use std::{fmt, pin::pin, str::FromStr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{StatusCode, Uri, body::Incoming, client::conn::http1, http, http::request};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    Tls, TlsError,
    limits::{CONNECT, SLOT_ANSWER_OCTETS},
};

/// What keeps a slot server from deciding.
#[derive(Debug, thiserror::Error)]
pub enum SlotServerError {
    /// The address is none.
    #[error("a slot server is `https://HOST[:PORT][/PATH]` or `http://…`; this is {0:?}")]
    Address(String),
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is no TLS with the server.
    #[error("no TLS: {0}; does its certificate belong to the roots that are trusted?")]
    Handshake(std::io::Error),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// It took too long.
    #[error("it did not answer within {0:?}")]
    Silent(Duration),
    /// It does not speak HTTP.
    #[error("it does not speak HTTP/1.1: {0}")]
    Http(#[from] hyper::Error),
    /// A request cannot be written.
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    /// The answer is too large, or was cut off.
    #[error("the answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what was asked for.
    #[error("the answer cannot be used: {0}")]
    Answer(#[from] serde_json::Error),
    /// The token is none.
    #[error("the answer has no token; is it a slot server of Tidings?")]
    Token,
    /// A bearer token is sent over TLS only.
    #[error("a bearer token is sent over TLS only: use https://")]
    ClearText,
    /// It refuses.
    #[error("it answered {status} {kind}: {value}")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// A word for programs.
        kind: String,
        /// A sentence for people.
        value: String,
    },
}

/// Where a slot server is: `https://HOST[:PORT][/PATH]`, or `http://…` in clear text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotServer {
    tls: bool,
    /// A name or an address, without the brackets of IPv6.
    host: String,
    port: u16,
    /// As it stands in `Host`.
    authority: String,
    /// What stands before each path, without a slash at its end.
    base: String,
}

impl FromStr for SlotServer {
    type Err = SlotServerError;
    fn from_str(text: &str) -> Result<Self, SlotServerError> {
        let wrong = || SlotServerError::Address(text.into());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']);
        let has_port = authority.as_str().rsplit(']').next().unwrap_or_default();
        let port = match (authority.port_u16(), has_port.contains(':')) {
            (Some(port), _) if port > 0 => port,
            (None, false) => 80 + 363 * u16::from(tls),
            _ => return Err(wrong()),
        };
        if host.is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            tls,
            host: host.into(),
            port,
            authority: authority.as_str().into(),
            base: uri.path().trim_end_matches('/').into(),
        })
    }
}

impl fmt::Display for SlotServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.base)
    }
}

impl SlotServer {
    pub(super) fn may_have_secrets(&self) -> Result<(), SlotServerError> {
        self.tls.then_some(()).ok_or(SlotServerError::ClearText)
    }

    /// One request by a connection of its own, which ends with what is returned: a server knows by
    /// that who waits no more.
    pub(super) async fn exchange(
        &self,
        tls: &Tls,
        path: &str,
        request: request::Builder,
        body: Full<Bytes>,
    ) -> Result<(StatusCode, Vec<u8>), SlotServerError> {
        let request = request
            .uri(format!("{}{path}", self.base))
            .header("host", &self.authority)
            .header("connection", "close")
            .body(body)?;
        let connect = async {
            let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
            socket.set_nodelay(true)?;
            Ok::<_, SlotServerError>(socket)
        };
        let silent = |_| SlotServerError::Silent(CONNECT);
        let socket = timeout(CONNECT, connect).await.map_err(silent)??;
        if !self.tls {
            return send(socket, request).await;
        }
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| TlsError::Host(self.host.clone()))?;
        let handshake = TlsConnector::from(tls.config()).connect(name, socket);
        let stream = timeout(CONNECT, handshake).await.map_err(silent)?;
        send(stream.map_err(SlotServerError::Handshake)?, request).await
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: hyper::Request<Full<Bytes>>,
) -> Result<(StatusCode, Vec<u8>), SlotServerError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body: Limited<Incoming> = Limited::new(body, SLOT_ANSWER_OCTETS);
        let octets = body.collect().await.map_err(SlotServerError::Body)?;
        Ok((head.status, octets.to_bytes().into()))
    };
    let (mut exchange, connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        answer = &mut exchange => answer,
        // What has come before its end is still to be read.
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, host, port, full) in [
            ("http://a.example", "a.example", 80, "http://a.example"),
            ("https://a.example/", "a.example", 443, "https://a.example"),
            (
                "https://[::1]:8119/base/",
                "::1",
                8119,
                "https://[::1]:8119/base",
            ),
            ("http://127.0.0.1:1", "127.0.0.1", 1, "http://127.0.0.1:1"),
        ] {
            let server: SlotServer = text.parse().unwrap();
            assert_eq!((server.host.as_str(), server.port), (host, port));
            assert_eq!(server.to_string(), full);
        }
        for text in [
            "",
            "a.example",
            "nntp://a",
            "http://",
            "http://a:x",
            "http://a:99999",
            "http://a:0",
            "http://u:p@a",
            "http://a/?x",
            "http://a b",
        ] {
            assert!(text.parse::<SlotServer>().is_err(), "{text}");
        }
    }
}
