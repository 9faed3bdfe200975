//! A client's socket, or one in memory.

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll},
};

use mio::{Interest, Registry, Token, event};
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
}

/// A socket that watches.
pub(crate) enum Left {
    Tcp(mio::net::TcpStream),
    Simulated(simulated::Socket),
}

pub(crate) fn leave(socket: Socket) -> io::Result<Left> {
    Ok(match socket {
        Socket::Tcp(socket) => Left::Tcp(mio::net::TcpStream::from_std(socket.into_std()?)),
        Socket::Simulated(socket) => Left::Simulated(socket),
    })
}

pub(crate) fn come_back(left: Left) -> io::Result<Socket> {
    Ok(match left {
        Left::Tcp(socket) => Socket::Tcp(TcpStream::from_std(socket.into())?),
        Left::Simulated(socket) => Socket::Simulated(socket),
    })
}

impl Left {
    /// Whether what is waited for can be done. Of sockets that mio polls nothing is known here.
    pub(crate) fn poll_ready(
        &self,
        context: &mut Context<'_>,
        reads: bool,
        writes: bool,
    ) -> Poll<()> {
        let Left::Simulated(socket) = self else {
            return Poll::Pending;
        };
        // Both share a timer, and something to read comes before the end at the latest.
        let is_writable = writes && socket.poll_writable(context).is_ready();
        let is_readable = reads && socket.poll_readable(context).is_ready();
        match is_writable || is_readable {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Read for Left {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Left::Tcp(socket) => socket.read(into),
            Left::Simulated(socket) => socket.try_read(into),
        }
    }
}

impl Write for Left {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Left::Tcp(socket) => socket.write(octets),
            Left::Simulated(socket) => socket.try_write(octets),
        }
    }
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Left::Tcp(socket) => socket.write_vectored(parts),
            Left::Simulated(socket) => {
                let octets: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
                socket.try_write(&octets)
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl event::Source for Left {
    fn register(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Left::Tcp(socket) => socket.register(to, token, what),
            Left::Simulated(_) => Ok(()),
        }
    }
    fn reregister(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Left::Tcp(socket) => socket.reregister(to, token, what),
            Left::Simulated(_) => Ok(()),
        }
    }
    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        match self {
            Left::Tcp(socket) => socket.deregister(from),
            Left::Simulated(_) => Ok(()),
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
