//! From a name to a connection: a deadline for the name server, and several addresses that are
//! tried at once, each a moment after the one before (RFC 8305).

use std::{io, net::SocketAddr};

use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::limits::{ATTEMPT_DELAY, RESOLVE};

/// Connects to the first address of a host that answers. The caller says how long all of it may
/// take.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let found = timeout(RESOLVE, lookup_host((host, port)))
        .await
        .unwrap_or_else(|_| {
            let text = format!("the name server has not said within {RESOLVE:?} where it is");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
        .map_err(|error| io::Error::new(error.kind(), format!("{host} is not found: {error}")))?;
    race(alternating(found.collect())).await
}

/// The resolver's order, with the families in turn: if one of the two is broken, the other one
/// comes soon.
fn alternating(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut under_way = JoinSet::new();
    let mut failed: Vec<(SocketAddr, io::Error)> = Vec::new();
    loop {
        let next = waiting.next();
        let more = next.is_some();
        if let Some(address) = next {
            under_way.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        loop {
            let ended = tokio::select! {
                ended = under_way.join_next() => ended,
                () = sleep(ATTEMPT_DELAY), if more => break,
            };
            match ended {
                None if more => break,
                None => return Err(all_of(failed)),
                Some(Ok((_, Ok(socket)))) => return Ok(socket),
                Some(Ok((address, Err(error)))) => {
                    failed.push((address, error));
                    if more {
                        break;
                    }
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
    }
}

/// Why none of them could be reached; each is named if there were several.
fn all_of(mut failed: Vec<(SocketAddr, io::Error)>) -> io::Error {
    if failed.len() <= 1 {
        return failed.pop().map_or_else(
            || io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
            |(_, error)| error,
        );
    }
    let kind = failed[0].1.kind();
    let each: Vec<String> = failed
        .iter()
        .map(|(address, error)| format!("{address}: {error}"))
        .collect();
    io::Error::new(kind, each.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn families_take_turns() {
        let all = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(
            alternating(all(&[
                "[::1]:1",
                "[::2]:1",
                "1.1.1.1:1",
                "2.2.2.2:1",
                "3.3.3.3:1"
            ])),
            all(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "3.3.3.3:1"])
        );
    }

    /// A listener whose queue is full takes nothing, and refuses nothing: as an address behind a
    /// firewall.
    #[tokio::test]
    async fn an_address_that_is_silent_keeps_nobody_from_the_next() {
        let full = socket2_full();
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let began = Instant::now();
        let socket = race(vec![full.address, good.local_addr().unwrap()])
            .await
            .unwrap();
        assert_eq!(socket.peer_addr().unwrap(), good.local_addr().unwrap());
        // The kernel gives a silent address up after minutes.
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn every_address_that_was_tried_is_named() {
        let one = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let two = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = vec![one.local_addr().unwrap(), two.local_addr().unwrap()];
        drop((one, two));
        let error = race(addresses.clone()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        for address in addresses {
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
    }

    struct Full {
        address: SocketAddr,
        _listener: std::os::fd::OwnedFd,
        _queue: Vec<std::net::TcpStream>,
    }

    fn socket2_full() -> Full {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&listener, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        let address: SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
        let mut queue = Vec::new();
        while let Ok(socket) =
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
        {
            queue.push(socket);
        }
        Full {
            address,
            _listener: listener,
            _queue: queue,
        }
    }
}
