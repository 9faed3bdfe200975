//! One request over HTTP/1.1, by hand: what an operator's `curl` would see.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context;

/// Sends a request as it stands; status and body of the answer.
///
/// # Errors
/// If there is none.
pub fn request(address: SocketAddr, request: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("no end of the headers")?;
    Ok((
        head.split(' ').nth(1).context("no status")?.parse()?,
        body.into(),
    ))
}

/// GET.
///
/// # Errors
/// If there is no answer.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    )
}
