//! What is served over HTTP: FleetLock for machines; health, metrics and a page for operators.

mod admin;
mod fleetlock;
mod host;
mod metrics;
mod page;
mod status;

use std::{collections::VecDeque, io, net::SocketAddr, pin::pin, sync::Arc};

use axum::{Extension, Router, extract::DefaultBodyLimit};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use fleetlock::FleetLock;

use crate::{
    limits::{
        ACCEPT_PAUSE, ADMIN_CONNECTIONS, HTTP_BODY_OCTETS, HTTP_CONNECTION, HTTP_HEADERS, SLOT_WAIT,
    },
    net::{listener::Complaint, tls::Certificates},
    shared::Shared,
};

/// Who asks.
#[derive(Clone)]
struct Client {
    address: SocketAddr,
    /// The address of ours that is asked.
    local: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
}

/// FleetLock, until the broker shuts down.
pub(crate) async fn fleetlock(
    shared: Arc<Shared>,
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
) {
    let router = fleetlock::router(FleetLock {
        slots: shared.slots.clone(),
        access: Arc::new(shared.settings.access.clone()),
        connections: shared.connections.clone(),
    });
    serve(shared, listener, certificates, router, None).await;
}

/// Health, metrics and the status page, until the broker shuts down.
pub(crate) async fn admin(shared: Arc<Shared>, listener: TcpListener) {
    let router = admin::router(shared.clone());
    // Operators look when everything is full, too; but they are few.
    serve(shared, listener, None, router, Some(VecDeque::new())).await;
}

async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    router: Router,
    mut few: Option<VecDeque<CancellationToken>>,
) {
    let router = router.layer(DefaultBodyLimit::max(HTTP_BODY_OCTETS));
    let mut complaint = Complaint::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if complaint.is_due() {
                    tracing::warn!(%error, "cannot accept an HTTP connection; is the limit of open files too low?");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (permit, stop) = match &mut few {
            None => match shared.connections.admit(address.ip()) {
                Ok(permit) => (Some(permit), shared.stop.clone()),
                Err(why) => {
                    tracing::debug!(%address, why, "an HTTP connection is refused");
                    continue;
                }
            },
            // Whoever holds all of them idle keeps no operator out: the oldest gives way (attack
            // 115).
            Some(few) => {
                few.retain(|stop| !stop.is_cancelled());
                if few.len() >= ADMIN_CONNECTIONS {
                    few.pop_front()
                        .into_iter()
                        .for_each(|oldest| oldest.cancel());
                }
                few.push_back(shared.stop.child_token());
                (None, few.back().cloned().unwrap_or_default())
            }
        };
        let (router, certificates) = (router.clone(), certificates.clone());
        shared.tasks.spawn(async move {
            let connection = connection(socket, address, certificates, router);
            let served = tokio::select! {
                served = connection => served,
                () = stop.cancelled() => Ok(()),
            };
            if let Err(error) = served {
                tracing::debug!(%address, %error, "an HTTP connection has failed");
            }
            if permit.is_none() {
                stop.cancel();
            }
            drop(permit);
        });
    }
}

async fn connection(
    socket: TcpStream,
    address: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    router: Router,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let local = socket.local_addr()?;
    match certificates {
        None => {
            http(
                socket,
                Client {
                    address,
                    local,
                    certificate: None,
                },
                router,
            )
            .await
        }
        Some(certificates) => {
            let stream = timeout(
                HTTP_HEADERS,
                TlsAcceptor::from(certificates.for_http()).accept(socket),
            )
            .await??;
            if !certificates.is_good(stream.get_ref().1, rustls_pki_types::UnixTime::now()) {
                return Err(io::Error::other(
                    "the client's certificate has ended, or is not trusted any more",
                ));
            }
            let chain = stream.get_ref().1.peer_certificates();
            let certificate = chain
                .and_then(|chain| chain.first())
                .map(|der| der.clone().into_owned());
            http(
                stream,
                Client {
                    address,
                    local,
                    certificate,
                },
                router,
            )
            .await
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: Client,
    router: Router,
) -> io::Result<()> {
    let service = TowerToHyperService::new(router.layer(Extension(client)));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEADERS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    if let Ok(served) = timeout(HTTP_CONNECTION, connection.as_mut()).await {
        return served.map_err(io::Error::other);
    }
    // What is asked now is answered; a request may be held for long.
    connection.as_mut().graceful_shutdown();
    match timeout(SLOT_WAIT + HTTP_HEADERS, connection).await {
        Ok(served) => served.map_err(io::Error::other),
        Err(_) => Ok(()),
    }
}
