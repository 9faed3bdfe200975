//! What a connection pays for: how often others have their turn while it is answered.

use std::{future::poll_fn, path::Path, pin::pin};

use tidings_client::{Publisher, Source};
use tidings_protocol::{Anchor, PublicKey, SigningKey, Statement, nntp::codec::Input};
use tokio::{net::TcpListener, task::coop::unconstrained};

use super::*;
use crate::{Broker, Config, Settings};

/// Statements of some 62 kB in one channel: the newest are in memory, the others are read.
const LARGE: usize = 48;
/// Other channels.
const CHANNELS: usize = 150;

fn sign(text: &str, key: &SigningKey) -> Statement {
    Statement::parse_draft(text.as_bytes())
        .unwrap()
        .sign(key)
        .unwrap()
}

fn beginning(kind: &str, channel: &str, after: Option<&Statement>) -> String {
    let serial = after.map_or(1, |after| after.serial().number() + 1);
    let previous = after.map_or_else(|| "-".to_owned(), |after| after.id().to_string());
    let time = crate::clock::now();
    format!(
        "Tidings: 1 {kind}\nChannel: {channel}\nSerial: {serial}\nPrevious: {previous}\nTime: {time}\n"
    )
}

/// A broker with [`LARGE`] and [`CHANNELS`].
async fn broker(directory: &Path) -> Broker {
    let key = SigningKey::from_bytes(&[7; 32]);
    let trust = beginning("trust", "acme.trust", None)
        + &format!(
            "Expires: 2100-01-01T00:00:00Z\nKey: {} ann\nRole: trust * 1 ann\nRole: release * 1 ann\n",
            PublicKey::of(&key)
        );
    let trust = sign(&trust, &key);
    let anchor = Anchor {
        namespace: "acme".parse().unwrap(),
        head: trust.head(),
    };
    let text = format!(
        "name = \"origin.invalid\"\ndata_dir = \"{}/data\"\nanchors = [\"{anchor}\"]\n[listen]\nnntp = [\"127.0.0.1:0\"]\n",
        directory.display()
    );
    let config: Config = toml::from_str(&text).unwrap();
    let broker = Broker::bind(Settings::check(config, Path::new("the test")).unwrap()).unwrap();
    let url = format!("nntp://{}", broker.nntp[0]);
    let source = Source::new([url.as_str()], &anchor.to_string()).unwrap();
    let mut publisher = Publisher::connect(source).await.unwrap();
    publisher.publish(&trust).await.unwrap();
    let details: String = (0..75)
        .map(|line| format!("X-{line}: {}\n", "x".repeat(820)))
        .collect();
    let mut after: Option<Statement> = None;
    for _ in 0..LARGE {
        let text = beginning("release", "acme.large", after.as_ref())
            + &format!("Trust: 1\nVersion: 1\n{details}");
        let large = sign(&text, &key);
        publisher.publish(&large).await.unwrap();
        after = Some(large);
    }
    for number in 0..CHANNELS {
        let text = beginning("release", &format!("acme.channel{number}"), None);
        let small = sign(&(text + "Trust: 1\nVersion: 1\n"), &key);
        publisher.publish(&small).await.unwrap();
    }
    broker
}

/// A session with a broker; the client's end of it.
async fn session(broker: &Broker) -> (Session, tokio::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (socket, peer) = accepted.unwrap();
    let permit = broker.shared.connections.admit(peer.ip()).ok().unwrap();
    let stream = Stream::new(socket, None);
    let session = Session::new(broker.shared.clone(), stream, peer, permit);
    (session, client.unwrap())
}

/// How often others have their turn while commands are answered, beside what tokio itself grants
/// them; the answers.
async fn turns(session: &mut Session, commands: &str) -> (usize, String) {
    let answer = async {
        let mut input = BytesMut::from(commands);
        while let Some(input) = session.codec.decode(&mut input).unwrap() {
            match input {
                Input::Command(Ok(Command::Xwatch(targets))) => {
                    assert!(session.watch(targets).await.ok().unwrap().is_some());
                }
                input => assert!(session.answer(input).await.is_ok()),
            }
        }
    };
    let mut turns = 0;
    {
        let mut answer = pin!(unconstrained(answer));
        poll_fn(|context| {
            let polled = answer.as_mut().poll(context);
            turns += usize::from(polled.is_pending());
            polled
        })
        .await;
    }
    let answers = std::mem::take(&mut session.output);
    (turns, String::from_utf8(answers).unwrap())
}

/// [4-23] Whatever a command looks at, others have their turn after [`TURN_OCTETS`] of it.
#[tokio::test]
async fn attack_102_a_command_pays_for_all_that_is_looked_at_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let broker = broker(directory.path()).await;
    let (mut session, _client) = session(&broker).await;
    let patterns = vec!["*a*b*c*d*e*f*g*h*i*j*k*l*m*n*o"; 16].join(",");
    for (commands, answered) in [
        ("STAT 1\r\n".repeat(40), "223 1 "),
        ("NEXT\r\n".repeat(30), "223 31 "),
        (format!("HDR :bytes 1-{LARGE}\r\n"), "\r\n1 6"),
        (format!("OVER 1-{LARGE}\r\n"), "Xref: "),
        (
            "NEWNEWS acme.large 20200101 000000 GMT\r\n".into(),
            "\r\n<48.",
        ),
        (
            format!("LIST ACTIVE {patterns}\r\n"),
            "215 list follows\r\n.\r\n",
        ),
        (format!("XWATCH {patterns} {patterns} {patterns}\r\n"), ""),
    ] {
        let (_, selected) = turns(&mut session, "GROUP acme.large\r\n").await;
        assert!(selected.starts_with("211 48 1 48 "), "{selected}");
        let (turns, answers) = turns(&mut session, &commands).await;
        assert!(answers.contains(answered), "{commands}: {answers}");
        assert!(turns >= 10, "{commands}: {turns} turns of others");
    }
    let (cheap, _) = turns(&mut session, &"DATE\r\n".repeat(100)).await;
    assert_eq!(cheap, 0, "who asks little keeps its turn");
}
