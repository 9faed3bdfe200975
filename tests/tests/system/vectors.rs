//! Every bad vector of the specification is refused by a real broker, and changes nothing (spec
//! part 4).
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use tidings_client::{Source, Statement};
use tidings_protocol::nntp::code;
use tidings_tests::{Fixture, NAMESPACE};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// Offers octets whose lines end with LF as the article after POST; the answer's line.
async fn offer(socket: &mut BufReader<TcpStream>, octets: &[u8]) -> String {
    let mut line = String::new();
    socket.write_all(b"POST\r\n").await.unwrap();
    socket.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("340 "), "{line}");
    let mut wire = Vec::new();
    for line in octets.split_inclusive(|&o| o == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        // What has no line end of its own gets one: an article always ends with one.
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    socket.write_all(&wire).await.unwrap();
    line.clear();
    socket.read_line(&mut line).await.unwrap();
    line.trim_end().to_owned()
}

fn body(path: &Path) -> (String, Vec<u8>) {
    let octets = fs::read(path).unwrap();
    let end = octets.windows(2).position(|w| w == b"\n\n").unwrap();
    (
        String::from_utf8(octets[..end].to_vec()).unwrap(),
        octets[end + 2..].to_vec(),
    )
}

#[tokio::test]
async fn attacks_35_36_every_bad_vector_is_refused_and_leaves_no_trace() {
    let vectors = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors"));
    let good = |name: &str| body(&vectors.join("good").join(name)).1;
    let mut fixture = Fixture::new().unwrap();
    let first = Statement::parse(&good("trust-1")).unwrap();
    assert_ne!(NAMESPACE, "vectors");
    fixture.anchor = tidings_protocol::Anchor {
        namespace: "vectors".parse().unwrap(),
        head: first.head(),
    };
    fixture.configure("").unwrap();
    let daemon = fixture.start().unwrap();
    let mut socket = BufReader::new(TcpStream::connect(fixture.address).await.unwrap());
    let mut greeting = String::new();
    socket.read_line(&mut greeting).await.unwrap();

    let envelope = |octets: Vec<u8>| [b"From: x\n\n".to_vec(), octets].concat();
    assert!(
        offer(&mut socket, &envelope(good("trust-1")))
            .await
            .starts_with("240 ")
    );
    let (mut refused, mut listing) = (0, String::new());
    for known in ["", "release-1-minimal", "release-2-full"] {
        // Against an empty channel, and against one with the history that the log vectors speak of.
        if !known.is_empty() {
            assert!(
                offer(&mut socket, &envelope(good(known)))
                    .await
                    .starts_with("240 "),
                "{known}"
            );
        }
        listing = list(&fixture.source().unwrap()).await;
        for entry in fs::read_dir(vectors.join("bad")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let (head, octets) = body(&path);
            let on_the_wire_the_same = matches!(name.as_str(), "no-final-line-feed" | "crlf");
            let for_the_log = head.contains("layer: log");
            // With two statements stored, the one that ran ahead is simply the next.
            let next_by_now = name == "gap" && known == "release-2-full";
            if on_the_wire_the_same || next_by_now || (for_the_log && known.is_empty()) {
                continue;
            }
            let octets = if head.contains("layer: envelope") {
                octets
            } else {
                envelope(octets)
            };
            let answer = offer(&mut socket, &octets).await;
            match (name.as_str(), for_the_log) {
                ("known" | "old", true) => {
                    assert!(answer.ends_with("stored already"), "{name}: {answer}")
                }
                // In a trust log the place is looked at first: the statement that follows it is the
                // only one that could be meant.
                (_, true) | ("trust-other-previous" | "trust-skips-a-serial", _) => {
                    assert!(answer.starts_with("441 head "), "{name}: {answer}")
                }
                _ => {
                    assert!(
                        answer.starts_with("441 ") && !answer.starts_with("441 head "),
                        "{name}: {answer}"
                    );
                    let line = head
                        .lines()
                        .find_map(|l| l.strip_prefix("line: "))
                        .filter(|l| *l != "0");
                    let field = head
                        .lines()
                        .find_map(|l| l.strip_prefix("field: "))
                        .unwrap_or_default();
                    // CR and NUL are refused by the framing already, which counts the lines of the
                    // article.
                    let framed = answer.contains("has a NUL");
                    let line = line.map(|l| {
                        if framed {
                            (l.parse::<usize>().unwrap() + 2).to_string()
                        } else {
                            l.to_owned()
                        }
                    });
                    let names_it = line.as_ref().is_none_or(|line| {
                        answer.contains(&format!("line {line}: "))
                            || answer.contains(&format!("line {line} "))
                    });
                    assert!(
                        names_it && answer.contains(field),
                        "{name}: {answer} should name line {line:?} and field {field:?}"
                    );
                    refused += 1;
                }
            }
        }
        assert_eq!(
            list(&fixture.source().unwrap()).await,
            listing,
            "after {known}"
        );
    }
    assert!(refused > 300, "{refused}");
    assert!(listing.contains("vectors.os.stable 2 1 y"), "{listing}");
    // Nothing squats on a message-id that a good statement has.
    assert!(
        offer(&mut socket, &envelope(good("release-3-unknown")))
            .await
            .starts_with("240 ")
    );
    drop(daemon);
}

async fn list(source: &Source) -> String {
    source
        .connect()
        .await
        .unwrap()
        .listing("LIST ACTIVE", code::LIST)
        .await
        .unwrap()
}
