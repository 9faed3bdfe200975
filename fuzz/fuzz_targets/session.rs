//! Octets as what a client or a broker sends: no panic, and the same whether they come at once or
//! one by one.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tidings_protocol::nntp::{
    Command,
    codec::{ClientCodec, Input, ServerCodec},
};
use tokio_util::codec::Decoder;

/// Decodes pieces as a broker does; what was seen, as text.
fn serve<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut codec = ServerCodec::default();
    let mut input = BytesMut::new();
    let mut seen = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match codec.decode(&mut input) {
                Ok(Some(item)) => {
                    if matches!(item, Input::Command(Ok(Command::Post | Command::Ihave(_)))) {
                        codec.expect_article();
                    }
                    seen.push(format!("{item:?}"));
                }
                Ok(None) => break,
                Err(_) => return seen,
            }
        }
    }
    seen
}

fuzz_target!(|octets: &[u8]| {
    let whole = serve(std::iter::once(octets));
    if octets.len() < 2048 {
        assert_eq!(whole, serve(octets.chunks(1)));
    }
    let mut client = ClientCodec::default();
    match octets.first() {
        Some(b'b') => client.expect_block(4096),
        Some(b'w') => client.expect_events(),
        _ => {}
    }
    let mut input = BytesMut::from(octets);
    while let Ok(Some(_)) = client.decode(&mut input) {}
});
