//! What brokers answer, and what becomes of it.

use tidings_tests::relay::{self, Act};

use crate::command::desk::{Desk, NO_BEATS, REFUSED};

/// Whatever a broker says is shown as text: neither the cursor nor the line obeys it.
#[tokio::test(flavor = "multi_thread")]
async fn attack_112_what_a_broker_answers_reaches_no_terminal_as_more_than_text() {
    let desk = Desk::new(NO_BEATS).await;
    let hostile = |command: &str, answer: Vec<u8>| match command {
        "POST" if !answer.starts_with(b"340") => Act::Send(
            "441 \u{1b}]0;owned\u{7} \u{9b}31m \u{202e}txt\r\n"
                .as_bytes()
                .to_vec(),
        ),
        _ => Act::Send(answer),
    };
    let liar = relay::start(&[desk.fixture.address], hostile)
        .await
        .unwrap();
    let release = [
        "release",
        "test.os.stable",
        "--key",
        "ann.key",
        "--publish",
        "--version",
        "1",
        "--new-channel",
    ];
    let said = desk.run_at(&[liar], &release);
    said.bad(REFUSED, "\u{fffd}]0;owned\u{fffd} \u{fffd}31m \u{fffd}txt");
    let json = desk.run_at(&[liar], &[&["--json"], &release[..]].concat());
    assert!(json.text.contains("]0;owned"), "{}", json.text);
    for text in [said.text, json.text] {
        let odd = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(odd), "{text:?}");
    }
}
