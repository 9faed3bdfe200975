//! Accepting: count the connection, set up the socket, begin the session.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tidings_protocol::nntp::{Response, code};
use tokio::time::Instant;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    limits::{ACCEPT_COMPLAINT, ACCEPT_PAUSE, KEEPALIVE},
    net::{connections::Permit, stream::Stream, tls::Certificates},
    session::Session,
    shared::Shared,
};

/// The refusal of a connection that is one too many: at once, since it holds a file that others
/// wait for. A socket that is new has room for a line.
fn refuse(socket: &TcpStream, why: &str, tls: bool) {
    // Under TLS a refusal in clear text would only confuse; the connection is closed.
    if !tls {
        let line = format!("{}\r\n", Response::new(code::UNAVAILABLE, why));
        // The peer may be gone already.
        let _ = SockRef::from(socket).send(line.as_bytes());
    }
}

/// What is said once, and then now and then for as long as it lasts.
#[derive(Default)]
pub(crate) struct Complaint(Option<Instant>);

impl Complaint {
    /// Whether it is time to say it.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= ACCEPT_COMPLAINT);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

fn set_up(socket: &TcpStream) -> io::Result<()> {
    let (time, interval, retries) = KEEPALIVE;
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(time)
            .with_interval(interval)
            .with_retries(retries),
    )
}

async fn serve(
    shared: Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    permit: Permit,
    certificates: Option<Arc<Certificates>>,
) {
    let begin = async {
        set_up(&socket)?;
        let tls = certificates
            .as_ref()
            .map(|c| c.accept().map(Box::new))
            .transpose()
            .map_err(io::Error::other)?;
        let mut stream = Stream::new(socket, tls);
        let limit = Duration::from_secs(shared.settings.config.limits.handshake_seconds);
        timeout(limit, stream.handshake())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if certificates
            .zip(stream.tls.as_ref())
            .is_some_and(|(certificates, tls)| {
                !certificates.is_good(tls, rustls_pki_types::UnixTime::now())
            })
        {
            return Err(io::Error::other(
                "the client's certificate has ended, or is not trusted any more",
            ));
        }
        Ok::<_, io::Error>(stream)
    };
    match begin.await {
        Ok(stream) => Session::new(shared, stream, peer, permit).greet().await,
        Err(error) => {
            tracing::debug!(%peer, %error, "no session: the connection failed before its greeting")
        }
    }
}

/// Accepts until the broker shuts down.
pub(crate) async fn run(
    shared: Arc<Shared>,
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
) {
    let mut complaint = Complaint::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, peer)) => match shared.connections.admit(peer.ip()) {
                Ok(permit) => drop(shared.tasks.spawn(serve(
                    shared.clone(),
                    socket,
                    peer,
                    permit,
                    certificates.clone(),
                ))),
                Err(why) => {
                    tracing::debug!(%peer, why, "connection refused");
                    refuse(&socket, why, certificates.is_some());
                }
            },
            Err(error) => {
                if complaint.is_due() {
                    tracing::warn!(%error, "cannot accept a connection; is the limit of open files too low?");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A listening socket for an address, beside all others. `[::]` is for IPv4 too, but where IPv4 has
/// its own on the same port.
pub(crate) fn bind(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_reuse_address(true)?;
    let has_own = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    if address.is_ipv6() && all.iter().any(has_own) {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nginx, INN and dovecot are configured.
    #[tokio::test]
    async fn both_families_may_have_the_same_port() {
        let first = bind("0.0.0.0:0".parse().unwrap(), &[]).unwrap();
        let port = first.local_addr().unwrap().port();
        let (v4, v6) = (
            SocketAddr::from(([0, 0, 0, 0], port)),
            SocketAddr::from(([0; 8], port)),
        );
        assert!(bind(v6, &[v6]).is_err(), "alone it would be for both");
        bind(v6, &[v4, v6]).unwrap();
    }

    #[test]
    fn what_lasts_is_not_said_every_time() {
        let mut complaint = Complaint::default();
        assert!(complaint.is_due() && !complaint.is_due());
    }
}
