//! A client's socket, or one in memory.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tidings_client::simulated;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

pub(crate) enum Socket {
    Tcp(TcpStream),
    Simulated(simulated::Socket),
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Socket::Tcp(socket)
    }
}

impl Socket {
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(socket) => socket.poll_read_ready(context),
            Socket::Simulated(socket) => socket.poll_readable(context).map(Ok),
        }
    }
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.writable().await,
            Socket::Simulated(socket) => {
                socket.writable().await;
                Ok(())
            }
        }
    }
    pub(super) fn try_write(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_write(octets),
            Socket::Simulated(socket) => socket.try_write(octets),
        }
    }
    /// The watch loops wait for real sockets alone.
    pub(crate) fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self {
            Socket::Tcp(socket) => socket.into_std(),
            Socket::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

macro_rules! either {
    ($socket:expr, $poll:ident, $($argument:expr),*) => {
        match $socket.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).$poll($($argument),*),
            Socket::Simulated(socket) => Pin::new(socket).$poll($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read, context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write, context, octets)
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush, context)
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown, context)
    }
}
