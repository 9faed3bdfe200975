//! A client's octets, in clear text or under TLS.
//!
//! tokio-rustls owns its connection for good; here socket and TLS state can be taken apart again,
//! so that a connection can leave tokio to be watched and come back (see [`crate::relay::watch`]).

#[cfg(test)]
mod simulated;

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    time::timeout,
};

use crate::limits::WRITE;
#[cfg(not(test))]
pub(crate) use mio::net::TcpStream as Left;
#[cfg(test)]
pub(crate) use simulated::{Left, Socket, come_back, leave};
#[cfg(not(test))]
use tokio::net::TcpStream as Socket;

/// Octets read at once.
const READ: usize = 4096;
/// The same from a client that has filled those: it streams.
const STREAMED: usize = 8 * READ;

pub(crate) struct Stream {
    pub(crate) socket: Socket,
    pub(crate) tls: Option<Box<ServerConnection>>,
    /// How many the last read of clear text has brought.
    last: usize,
}

/// rustls reads through this; whoever is told `WouldBlock` is woken later.
struct Polled<'a, 'b>(&'a mut Socket, &'a mut Context<'b>);

impl Read for Polled<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.0).poll_read(self.1, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// rustls writes through this; `WouldBlock` goes back to the caller.
struct NonBlocking<'a>(&'a Socket);

impl Write for NonBlocking<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes a socket out of tokio's poll, for that of a watch loop.
#[cfg(not(test))]
pub(crate) fn leave(socket: Socket) -> io::Result<Left> {
    socket.into_std().map(Left::from_std)
}

/// Finds the way back; within the runtime.
#[cfg(not(test))]
pub(crate) fn come_back(left: Left) -> io::Result<Socket> {
    Socket::from_std(left.into())
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Reads what TLS has decrypted; `None` if there is nothing now, 0 at the end.
pub(crate) fn read_plain(
    tls: &mut ServerConnection,
    buffer: &mut [u8],
) -> io::Result<Option<usize>> {
    match tls.reader().read(buffer) {
        Ok(n) => Ok(Some(n)),
        Err(e) if would_block(&e) => Ok(None),
        // A client that closes without close_notify: nothing it sent is trusted on that account
        // anyway.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(0)),
        Err(e) => Err(e),
    }
}

pub(crate) fn process(tls: &mut ServerConnection) -> io::Result<()> {
    tls.process_new_packets()
        .map(drop)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

impl Stream {
    pub(crate) fn new(socket: impl Into<Socket>, tls: Option<Box<ServerConnection>>) -> Self {
        Self {
            socket: socket.into(),
            tls,
            last: 0,
        }
    }

    /// Completes the TLS handshake.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.flush_tls().await?;
            let Some(tls) = self.tls.as_mut().filter(|tls| tls.is_handshaking()) else {
                break;
            };
            if !receive(&mut self.socket, tls).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.flush_tls().await
    }

    /// Reads some octets; 0 at the end. Cancelling loses none.
    pub(crate) async fn read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        loop {
            match &mut self.tls {
                None => {
                    poll_fn(|context| self.socket.poll_read_ready(context)).await?;
                    input.reserve(if self.last < READ { READ } else { STREAMED });
                    self.last = self.socket.read_buf(input).await?;
                    return Ok(self.last);
                }
                Some(tls) => {
                    if let Some(n) = take_plain(tls, input)? {
                        return Ok(n);
                    }
                    self.flush_tls().await?;
                    let Some(tls) = &mut self.tls else { continue };
                    if !receive(&mut self.socket, tls).await? {
                        return Ok(0);
                    }
                }
            }
        }
    }

    /// Writes all octets.
    pub(crate) async fn write_all(&mut self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            match &mut self.tls {
                None => match self.socket.try_write(octets) {
                    Ok(n) => octets = &octets[n..],
                    Err(e) if would_block(&e) => self.writable().await?,
                    Err(e) => return Err(e),
                },
                Some(tls) => {
                    let n = tls.writer().write(octets)?;
                    octets = &octets[n..];
                    self.flush_tls().await?;
                }
            }
        }
        Ok(())
    }

    /// Waits until the socket takes octets again; a client that takes none for too long is given
    /// up.
    async fn writable(&self) -> io::Result<()> {
        timeout(WRITE, self.socket.writable())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Tells the other end that nothing more will come.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush_tls().await?;
        tokio::io::AsyncWriteExt::shutdown(&mut self.socket).await
    }

    async fn flush_tls(&mut self) -> io::Result<()> {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            match tls.write_tls(&mut NonBlocking(&self.socket)) {
                Ok(_) => {}
                Err(e) if would_block(&e) => self.writable().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Octets that were decrypted already. The buffer is no part of a session that waits.
fn take_plain(tls: &mut ServerConnection, input: &mut BytesMut) -> io::Result<Option<usize>> {
    let mut buffer = [0; READ];
    Ok(read_plain(tls, &mut buffer)?.inspect(|&n| input.extend_from_slice(&buffer[..n])))
}

/// Takes in some encrypted octets; whether there were any before the end.
async fn receive(socket: &mut Socket, tls: &mut ServerConnection) -> io::Result<bool> {
    let read = poll_fn(|context| match tls.read_tls(&mut Polled(socket, context)) {
        Err(e) if would_block(&e) => Poll::Pending,
        read => Poll::Ready(read),
    });
    match read.await? {
        0 => Ok(false),
        _ => process(tls).map(|()| true),
    }
}
