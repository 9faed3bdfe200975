//! One statement, rendered: an event, an article.

use bytes::Bytes;
use tidings_protocol::{Head, Statement, article};

/// A statement as it goes over the wire, rendered once for everybody.
pub(crate) struct Entry {
    pub(crate) head: Head,
    /// The line that announces it to watches, then the article.
    pub(super) event: Bytes,
    article: usize,
    blank: usize,
    body_lines: usize,
}

impl Entry {
    pub(super) fn new(statement: &Statement, path: &str) -> Self {
        let lines = article::lines(statement);
        let line = format!(
            "{} {} {lines}\r\n",
            statement.serial(),
            statement.message_id()
        );
        let article = line.len();
        let rendered = article::render_after(line, statement, path);
        let body_lines = lines - article::HEADERS.len() - 1;
        Self {
            head: statement.head(),
            event: rendered.octets.into(),
            article,
            blank: rendered.headers,
            body_lines,
        }
    }
    /// What a watch sends.
    pub(crate) fn event(&self) -> &Bytes {
        &self.event
    }
    /// Headers, an empty line, the statement.
    pub(crate) fn article(&self) -> &[u8] {
        &self.event[self.article..]
    }
    /// The headers.
    pub(crate) fn headers(&self) -> &[u8] {
        &self.event[self.article..self.blank]
    }
    /// The statement.
    pub(crate) fn body(&self) -> &[u8] {
        &self.event[self.blank + 2..]
    }
    /// Lines of the statement.
    pub(crate) fn body_lines(&self) -> usize {
        self.body_lines
    }
    /// Whether `Path` says that it has passed a broker of this name; a hint, no more (attack 37).
    pub(crate) fn has_passed(&self, name: &str) -> bool {
        self.header("Path")
            .is_some_and(|path| path.split('!').any(|hop| hop == name))
    }
    /// The value of one header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = std::str::from_utf8(self.headers()).ok()?;
        let mut lines = headers
            .split_terminator("\r\n")
            .filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}
