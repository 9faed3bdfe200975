//! A client's socket, or one in memory.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tidings_client::simulated;
use tokio::{io::AsyncWrite, net::TcpStream};

pub(crate) enum Socket {
    Tcp(TcpStream),
    Simulated(simulated::Socket),
}

impl Socket {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.readable().await,
            Socket::Simulated(socket) => {
                socket.readable().await;
                Ok(())
            }
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
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_read(into),
            Socket::Simulated(socket) => socket.try_read(into),
        }
    }
    pub(super) fn try_read_buf(&self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.try_read_buf(into),
            Socket::Simulated(socket) => {
                let mut octets = [0; super::READ];
                let read = socket.try_read(&mut octets)?;
                into.extend_from_slice(&octets[..read]);
                Ok(read)
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
