//! Fetching from servers that are slow, lie, break off, or send elsewhere (attacks 19, 20, 55 to
//! 58).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use common::octets;
use tidings_agent::{config, fetch::Fetcher, world::Fetched};
use tidings_protocol::Digest;

type Requests = Arc<Mutex<Vec<String>>>;

/// A server that answers each request with what a function makes of it: octets, whatever they are.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Requests::default());
    let seen = requests.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let text = request(&stream);
            seen.lock().unwrap().push(text.clone());
            let _ = stream.write_all(&answer(&text));
        }
    });
    (address, requests)
}

fn request(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

fn ok(body: &[u8]) -> Vec<u8> {
    [
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .as_bytes(),
        body,
    ]
    .concat()
}

fn redirect(to: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// As a server that knows ranges answers.
fn ranged(request: &str, body: &[u8]) -> Vec<u8> {
    let from = request.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("range: bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let Some(from) = from else { return ok(body) };
    let rest = &body[from..];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len() - 1,
        body.len(),
        rest.len()
    );
    [head.as_bytes(), rest].concat()
}

fn fetcher(directory: &Path, more: config::Fetch) -> Fetcher {
    Fetcher::new(&more, directory).unwrap()
}

fn fetch(directory: &Path, urls: &[String], image: &[u8]) -> Fetched {
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    fetcher(directory, config::Fetch::default()).fetch(
        &urls,
        image.len() as u64,
        &Digest::of(image),
    )
}

fn why(fetched: &Fetched) -> &str {
    match fetched {
        Fetched::Wrong(why) | Fetched::Later(why) => why,
        Fetched::Whole => "whole",
    }
}

fn nothing_is_left(directory: &Path) -> bool {
    fs::read_dir(directory)
        .unwrap()
        .all(|entry| entry.unwrap().metadata().unwrap().len() == 0)
}

#[test]
fn what_broke_off_goes_on_where_it_was() {
    let (scratch, image) = (tempfile::tempdir().unwrap(), octets("image", 200_000));
    let whole = image.clone();
    let (address, requests) = server(move |request| {
        let mut answer = ranged(request, &whole);
        // The first two break off.
        if !request.contains("bytes=120000-") {
            let head = answer
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .unwrap()
                + 4;
            answer.truncate(head + 60_000);
        }
        answer
    });
    let url = [format!("http://{address}/x")];
    for _ in 0..2 {
        let fetched = fetch(scratch.path(), &url, &image);
        assert!(matches!(fetched, Fetched::Later(_)), "{fetched:?}");
    }
    assert_eq!(fetch(scratch.path(), &url, &image), Fetched::Whole);
    assert_eq!(fetch(scratch.path(), &url, &image), Fetched::Whole);
    let ranges: Vec<bool> = requests
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.to_lowercase().contains("range:"))
        .collect();
    assert_eq!(ranges, [false, true, true]);
    let path = scratch
        .path()
        .join(tidings_agent::apply::hex(&Digest::of(&image)));
    assert!(fs::read(path).unwrap() == image);
}

#[test]
fn attacks_20_and_55_more_or_less_than_was_signed_is_not_kept() {
    let (scratch, image) = (tempfile::tempdir().unwrap(), octets("image", 100_000));
    let endless = image.clone();
    // Without a length, and without an end.
    let (address, _) = server(move |_| {
        [
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            &endless[..],
            &vec![0; 1 << 20],
        ]
        .concat()
    });
    let fetched = fetch(scratch.path(), &[format!("http://{address}/x")], &image);
    assert!(
        matches!(&fetched, Fetched::Wrong(why) if why.contains("more than the 100000 octets")),
        "{fetched:?}"
    );
    assert!(nothing_is_left(scratch.path()));
    for other in [&image[1..], &[&image[..], b"x"].concat()] {
        let body = other.to_vec();
        let (address, _) = server(move |_| ok(&body));
        let fetched = fetch(scratch.path(), &[format!("http://{address}/x")], &image);
        assert!(why(&fetched).contains("100000 were signed"), "{fetched:?}");
        assert!(nothing_is_left(scratch.path()));
    }
    let mut changed = image.clone();
    changed[50_000] ^= 1;
    let (address, _) = server(move |_| ok(&changed));
    let fetched = fetch(scratch.path(), &[format!("http://{address}/x")], &image);
    assert!(
        matches!(&fetched, Fetched::Wrong(why) if why.contains("another digest")),
        "{fetched:?}"
    );
    assert!(nothing_is_left(scratch.path()));
}

#[test]
fn a_captive_portal_a_404_and_a_dead_server_are_said_and_the_next_place_is_tried() {
    let (scratch, image) = (tempfile::tempdir().unwrap(), octets("image", 10_000));
    let (portal, _) = server(|_| ok(b"<html>please log in</html>"));
    let (missing, _) = server(|_| {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    });
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let bad: Vec<String> = [portal, missing, dead]
        .iter()
        .map(|address| format!("http://{address}/x"))
        .collect();
    let fetched = fetch(scratch.path(), &bad, &image);
    assert!(matches!(fetched, Fetched::Later(_)), "{fetched:?}");
    for said in ["captive portal", "it answers 404", "efused"] {
        assert!(why(&fetched).contains(said), "{said}: {fetched:?}");
    }
    let whole = image.clone();
    let (good, _) = server(move |_| ok(&whole));
    let all: Vec<String> = bad
        .into_iter()
        .chain([format!("http://{good}/x")])
        .collect();
    assert_eq!(fetch(scratch.path(), &all, &image), Fetched::Whole);
}

#[test]
fn attack_56_redirects_are_bounded_and_never_lead_to_files_names_or_passwords() {
    let (scratch, image) = (tempfile::tempdir().unwrap(), octets("image", 10_000));
    let whole = image.clone();
    let (good, seen) = server(move |_| ok(&whole));
    let (hop, _) = server(move |request| {
        if request.starts_with("GET /a ") {
            redirect("/b")
        } else {
            redirect(&format!("http://{good}/x"))
        }
    });
    assert_eq!(
        fetch(scratch.path(), &[format!("http://{hop}/a")], &image),
        Fetched::Whole
    );
    assert!(
        !seen.lock().unwrap()[0]
            .to_lowercase()
            .contains("authorization")
    );
    let other = tempfile::tempdir().unwrap();
    for (to, said) in [
        ("/a".to_owned(), "redirects more than 5 times"),
        ("file:///etc/passwd".into(), "file is not allowed here"),
        ("ftp://x/".into(), "ftp is not allowed here"),
        (
            format!("http://user:secret@{good}/x"),
            "a name and a password",
        ),
        ("relative".into(), "no URL"),
    ] {
        let answer = redirect(&to);
        let (address, requests) = server(move |_| answer.clone());
        let fetched = fetch(other.path(), &[format!("http://{address}/a")], &image);
        assert!(why(&fetched).contains(said), "{to}: {fetched:?}");
        assert!(requests.lock().unwrap().len() <= 6);
    }
    // Where files are allowed, a server still cannot name one: only a statement can.
    let allowed = config::Fetch {
        schemes: vec!["http".into(), "file".into()],
        ..config::Fetch::default()
    };
    let (address, _) = server(|_| redirect("file:///etc/passwd"));
    let fetched = fetcher(other.path(), allowed).fetch(
        &[&format!("http://{address}/a")],
        10,
        &Digest::of(b""),
    );
    assert!(
        why(&fetched).contains("redirects from http to file"),
        "{fetched:?}"
    );
}

#[test]
fn attack_19_a_slow_server_is_left_and_a_long_fetch_is_cut_into_slices() {
    let (scratch, image) = (tempfile::tempdir().unwrap(), octets("image", 400_000));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let body = image.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = ranged(&request(&stream), &body);
            for piece in answer.chunks(100_000) {
                let _ = stream.write_all(piece).and_then(|()| stream.flush());
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let sliced =
        fetcher(scratch.path(), config::Fetch::default()).with_slice(Duration::from_millis(5));
    let url = format!("http://{address}/x");
    let mut slices = 0;
    while let Fetched::Later(why) = sliced.fetch(&[&url], image.len() as u64, &Digest::of(&image)) {
        assert!(why.contains("of 400000 octets are fetched"), "{why}");
        slices += 1;
        assert!(slices < 100);
    }
    assert!(slices >= 1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = request(&stream);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\nConnection: close\r\n\r\n",
            );
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let other = tempfile::tempdir().unwrap();
    let left =
        fetcher(other.path(), config::Fetch::default()).with_slice(Duration::from_millis(1_050));
    let fetched = left.fetch(
        &[&format!("http://{slow}/x")],
        image.len() as u64,
        &Digest::of(&image),
    );
    assert!(why(&fetched).contains("too slow: "), "{fetched:?}");
    // What the slow one has sent was no part of it: the honest one is asked from the beginning.
    assert_eq!(fetch(other.path(), &[url], &image), Fetched::Whole);
}

/// A TLS server with a certificate that is valid from and until some years.
fn tls_server(years: (i32, i32), body: Vec<u8>, directory: &Path) -> SocketAddr {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
    };
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (params.not_before, params.not_after) =
        (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let certificate = params.signed_by(&key, &authority).unwrap();
    fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream =
                StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&buffer).into_owned();
                let down = format!("http://{address}/plain");
                let _ = stream.write_all(&if text.starts_with("GET /down ") {
                    redirect(&down)
                } else {
                    ok(&body)
                });
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    address
}

#[test]
fn attack_58_a_certificate_that_has_expired_is_said_and_the_signed_digest_still_does_over_plain_http()
 {
    let (scratch, image) = (tempfile::tempdir().unwrap(), octets("image", 50_000));
    let place = scratch.path().join("payload");
    let with_roots = || {
        fetcher(
            &place,
            config::Fetch {
                roots: Some(scratch.path().join("ca.pem")),
                ..config::Fetch::default()
            },
        )
    };
    let expired = tls_server((2001, 2002), image.clone(), scratch.path());
    let fetched = with_roots().fetch(
        &[&format!("https://{expired}/x")],
        50_000,
        &Digest::of(&image),
    );
    assert!(
        why(&fetched).contains("xpired") && why(&fetched).contains("an http:// place, would do"),
        "{fetched:?}"
    );
    let body = image.clone();
    let (plain, _) = server(move |_| ok(&body));
    let places = [format!("https://{expired}/x"), format!("http://{plain}/x")];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    assert_eq!(
        with_roots().fetch(&places, 50_000, &Digest::of(&image)),
        Fetched::Whole
    );
}

#[test]
fn attack_56_https_does_not_redirect_to_http() {
    let (scratch, image) = (tempfile::tempdir().unwrap(), octets("image", 50_000));
    let address = tls_server((2020, 2090), image.clone(), scratch.path());
    let place = scratch.path().join("payload");
    let fetcher = fetcher(
        &place,
        config::Fetch {
            roots: Some(scratch.path().join("ca.pem")),
            ..config::Fetch::default()
        },
    );
    let fetched = fetcher.fetch(
        &[&format!("https://{address}/down")],
        50_000,
        &Digest::of(&image),
    );
    assert!(
        why(&fetched).contains("redirects from https to http"),
        "{fetched:?}"
    );
    assert_eq!(
        fetcher.fetch(
            &[&format!("https://{address}/x")],
            50_000,
            &Digest::of(&image)
        ),
        Fetched::Whole
    );
}

#[test]
fn no_room_is_said_before_anything_is_fetched() {
    let scratch = tempfile::tempdir().unwrap();
    let (address, requests) = server(|_| ok(b""));
    let size = 1 << 50;
    let fetched = fetcher(scratch.path(), config::Fetch::default()).fetch(
        &[&format!("http://{address}/x")],
        size,
        &Digest::of(b""),
    );
    assert!(
        matches!(&fetched, Fetched::Later(why) if why.contains("no room in")),
        "{fetched:?}"
    );
    assert!(requests.lock().unwrap().is_empty());
}

#[test]
fn a_proxy_is_asked_where_one_is_configured() {
    let (scratch, image) = (tempfile::tempdir().unwrap(), octets("image", 10_000));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (proxy, body) = (listener.local_addr().unwrap(), image.clone());
    let asked = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let tunnel = request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let inner = request(&stream);
        stream.write_all(&ok(&body)).unwrap();
        (tunnel, inner)
    });
    let config = config::Fetch {
        proxy: Some(format!("http://{proxy}")),
        ..config::Fetch::default()
    };
    let fetched = fetcher(scratch.path(), config).fetch(
        &["http://payloads.example/x"],
        10_000,
        &Digest::of(&image),
    );
    assert_eq!(fetched, Fetched::Whole);
    let (tunnel, inner) = asked.join().unwrap();
    assert!(
        tunnel.starts_with("CONNECT payloads.example:80 ") && inner.starts_with("GET /x "),
        "{tunnel}\n{inner}"
    );
}
