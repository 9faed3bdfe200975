//! Batches: articles one after the other in a file, as news servers carry them over a gap (RFC 5537
//! section 4; spec part 5).
//!
//! Before each article stands `#! rnews SIZE`; its lines end with LF, and SIZE counts its octets.

use alloc::{string::String, vec::Vec};

use crate::{
    Statement,
    article::{self, ArticleError},
    limits::ARTICLE_OCTETS,
};

const MARK: &[u8] = b"#! rnews ";

/// Why a file is no batch of statements.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No line `#! rnews SIZE` where one should be.
    #[error("octet {0}: expected a line `#! rnews SIZE`, with at most {ARTICLE_OCTETS} octets")]
    Mark(usize),
    /// The file ends within an article.
    #[error("octet {0}: the article is longer than the file; was it copied whole?")]
    Short(usize),
    /// An article without a statement in it.
    #[error("the article at octet {at}: {source}")]
    Article {
        /// Where it begins.
        at: usize,
        /// What is wrong with it.
        source: ArticleError,
    },
}

/// Appends the article of a statement.
pub fn write(batch: &mut Vec<u8>, statement: &Statement, path: &str) {
    let rendered = article::render(statement, path).octets;
    let article = String::from_utf8_lossy(&rendered).replace("\r\n", "\n");
    batch.extend_from_slice(alloc::format!("#! rnews {}\n{article}", article.len()).as_bytes());
}

/// Reads a batch; its statements are not proven by anything yet.
///
/// # Errors
/// Where the file is no batch, or an article no statement.
pub fn read(octets: &[u8]) -> Result<Vec<Statement>, BatchError> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < octets.len() {
        let rest = &octets[at..];
        let end = memchr::memchr(b'\n', rest).ok_or(BatchError::Mark(at))?;
        let size = rest[..end]
            .strip_prefix(MARK)
            .and_then(|size| core::str::from_utf8(size).ok()?.parse::<usize>().ok());
        let size = size
            .filter(|size| *size <= ARTICLE_OCTETS)
            .ok_or(BatchError::Mark(at))?;
        let article = rest
            .get(end + 1..end + 1 + size)
            .ok_or(BatchError::Short(at))?;
        let incoming =
            article::parse(article).map_err(|source| BatchError::Article { at, source })?;
        found.push(incoming.statement);
        at += end + 1 + size;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let text = "Tidings: 1 beat\nChannel: a.beat\nSerial: 1\nPrevious: -\nTime: 2026-01-01T00:00:00Z\nTrust: 1\nExpires: 2026-01-01T00:05:00Z\n";
        let statement = Statement::parse_draft(text.as_bytes())
            .unwrap()
            .sign(&crate::SigningKey::from_bytes(&[1; 32]))
            .unwrap();
        let mut batch = Vec::new();
        write(&mut batch, &statement, "a!not-for-mail");
        write(&mut batch, &statement, "a!not-for-mail");
        assert_eq!(read(&batch), Ok(alloc::vec![statement.clone(), statement]));
        let half = batch.len() / 2;
        assert_eq!(
            read(&batch[..batch.len() - 1]),
            Err(BatchError::Short(half))
        );
        assert_eq!(
            read(b"#! rnews 99999999999999999999\n"),
            Err(BatchError::Mark(0))
        );
        assert_eq!(read(b"#! rnews -1\n"), Err(BatchError::Mark(0)));
        assert_eq!(read(b"hello"), Err(BatchError::Mark(0)));
        assert!(matches!(
            read(b"#! rnews 6\na: b\n\n"),
            Err(BatchError::Article { at: 0, .. })
        ));
        assert_eq!(read(b""), Ok(alloc::vec![]));
    }
}
