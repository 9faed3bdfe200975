//! COMPRESS DEFLATE, the same at both ends of a connection (RFC 8054).

use std::io;

use bytes::BytesMut;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Octets that come out of one step: what somebody else has compressed well does not fill memory at once (attack 53).
const STEP: usize = 16 * 1024;

/// The state of both directions: some 300 KiB.
pub struct Deflate {
    compress: Compress,
    decompress: Decompress,
    /// What has come, and is not decompressed yet.
    raw: BytesMut,
    /// The last step has filled its room: there may be more without more coming in.
    more: bool,
}

impl Deflate {
    /// Both directions at their beginning; `raw` has come already.
    pub fn new(raw: BytesMut) -> Self {
        Self { compress: Compress::new(Compression::default(), false), decompress: Decompress::new(false), raw, more: true }
    }

    /// Where what comes in belongs.
    pub fn raw(&mut self) -> &mut BytesMut {
        &mut self.raw
    }

    /// Decompresses one step more; whether anything came of it.
    ///
    /// # Errors
    /// If the other end has not compressed it.
    pub fn inflate(&mut self, plain: &mut BytesMut) -> io::Result<bool> {
        if self.raw.is_empty() && !self.more {
            return Ok(false);
        }
        let mut step = [0; STEP];
        let (before_in, before_out) = (self.decompress.total_in(), self.decompress.total_out());
        let status = self.decompress.decompress(&self.raw, &mut step, FlushDecompress::Sync);
        let count = |total: u64, before: u64| usize::try_from(total - before).unwrap_or(usize::MAX);
        let (taken, made) = (count(self.decompress.total_in(), before_in), count(self.decompress.total_out(), before_out));
        match status {
            Ok(Status::StreamEnd) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Status::Ok | Status::BufError) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        drop(self.raw.split_to(taken.min(self.raw.len())));
        plain.extend_from_slice(&step[..made]);
        self.more = made == STEP;
        Ok(made > 0)
    }

    /// Compresses, so that the other end can read all of it.
    ///
    /// # Errors
    /// Never, unless the library is broken.
    pub fn deflate(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(plain.len() / 2 + 64);
        let mut rest = plain;
        loop {
            let before = self.compress.total_in();
            self.compress.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
            rest = &rest[usize::try_from(self.compress.total_in() - before).unwrap_or(rest.len())..];
            // With room left, everything is out.
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(STEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_whatever_the_pieces() {
        let text = "ARTICLE 1\r\n".repeat(20_000);
        let (mut ours, mut theirs) = (Deflate::new(BytesMut::new()), Deflate::new(BytesMut::new()));
        for piece in [7, 4096, text.len()] {
            let mut plain = BytesMut::new();
            for part in text.as_bytes().chunks(piece) {
                for wire in ours.deflate(part).unwrap().chunks(5) {
                    theirs.raw().extend_from_slice(wire);
                    while theirs.inflate(&mut plain).unwrap() {}
                }
            }
            assert!(plain == text.as_bytes(), "{piece}");
        }
    }

    #[test]
    fn attack_53_a_bomb_goes_off_in_small_steps() {
        let bomb = Deflate::new(BytesMut::new()).deflate(&vec![0; 10_000_000]).unwrap();
        assert!(bomb.len() < 20_000);
        let (mut deflate, mut plain) = (Deflate::new(BytesMut::from(&bomb[..])), BytesMut::new());
        assert!(deflate.inflate(&mut plain).unwrap());
        assert_eq!(plain.len(), STEP);
        let mut noise = Deflate::new(BytesMut::from(&b"GROUP a.b\r\n"[..]));
        assert!(noise.inflate(&mut BytesMut::new()).is_err());
    }
}
