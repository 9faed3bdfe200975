//! Accepting: count the connection, set up the socket, begin the session.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tidings_protocol::nntp::{Response, code};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    connections::Permit,
    limits::{ACCEPT_PAUSE, KEEPALIVE},
    session::Session,
    shared::Shared,
    stream::Stream,
    tls::Certificates,
};

/// The refusal of a connection that is one too many.
async fn refuse(socket: TcpStream, why: &str, tls: bool) {
    // Under TLS a refusal in clear text would only confuse; the connection is closed.
    if !tls {
        let mut stream = Stream { socket, tls: None };
        let line = format!("{}\r\n", Response::new(code::UNAVAILABLE, why));
        // The peer may be gone already.
        let _ = timeout(Duration::from_secs(1), stream.write_all(line.as_bytes())).await;
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
        let mut stream = Stream { socket, tls };
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
                    let tls = certificates.is_some();
                    drop(
                        shared
                            .tasks
                            .spawn(async move { refuse(socket, why, tls).await }),
                    );
                }
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; is the limit of open files too low?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A listening socket for an address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}
