//! Somebody on the way: passes everything on, but changes the text of articles, and mends ids and
//! headers to fit.

use std::{io, net::SocketAddr};

use tidings_protocol::{Statement, article};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy},
    net::{TcpListener, TcpStream},
};

pub(super) async fn start(
    to: SocketAddr,
    old: &'static str,
    new: &'static str,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((device, _)) = listener.accept().await {
            // A connection that breaks is for the device to notice.
            tokio::spawn(async move { drop(pass(device, to, old, new).await) });
        }
    });
    Ok(address)
}

async fn pass(device: TcpStream, to: SocketAddr, old: &str, new: &str) -> io::Result<()> {
    let (mut from_device, mut to_device) = device.into_split();
    let (from_broker, mut to_broker) = TcpStream::connect(to).await?.into_split();
    tokio::spawn(async move { copy(&mut from_device, &mut to_broker).await });
    let mut lines = BufReader::new(from_broker);
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        if line.starts_with("220 ") {
            let mut article = String::new();
            while !article.ends_with("\r\n.\r\n") && lines.read_line(&mut article).await? > 0 {}
            line.push_str(&article);
            line = forge(&line, old, new).unwrap_or(line);
        }
        to_device.write_all(line.as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

/// The same answer with another text in the statement.
fn forge(answer: &str, old: &str, new: &str) -> Option<String> {
    let (first, rest) = answer.split_once("\r\n")?;
    let number = first.split(' ').nth(1)?;
    let body = rest
        .split_once("\r\n\r\n")?
        .1
        .strip_suffix(".\r\n")?
        .replace("\r\n", "\n");
    let forged = Statement::parse(body.replace(old, new).as_bytes()).ok()?;
    let article =
        String::from_utf8(article::render(&forged, "relay.invalid!not-for-mail").octets).ok()?;
    Some(format!(
        "220 {number} {}\r\n{article}.\r\n",
        forged.message_id()
    ))
}
