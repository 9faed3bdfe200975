//! Which channels are asked for: `filter`, `state`, `after` and `limit`.

use tidings_protocol::Channel;

use super::board::{Row, State};
use crate::limits::{STATUS_FILTER, STATUS_ROWS, STATUS_ROWS_MOST};

/// What is asked for. Everything is left out by default.
#[derive(Debug, PartialEq)]
pub(in crate::admin::http) struct Query {
    /// A part of the channel's name.
    filter: String,
    /// A word of [`State::WORDS`], or `TROUBLE` for all that an operator should look at.
    state: Option<&'static str>,
    /// The last channel that is known already.
    after: Option<Channel>,
    limit: usize,
}

/// All states that an operator should look at.
const TROUBLE: &str = "TROUBLE";

impl Query {
    /// From what stands behind the question mark.
    ///
    /// # Errors
    /// What is wrong with it, as an answer.
    pub(in crate::admin::http) fn parse(text: Option<&str>) -> Result<Self, String> {
        let mut query = Self {
            filter: String::new(),
            state: None,
            after: None,
            limit: STATUS_ROWS,
        };
        let pairs = text.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| format!("{name} is no text in UTF-8"))?;
            query.take(name, &value)?;
        }
        Ok(query)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let words = || State::WORDS.into_iter().chain([TROUBLE]);
        match name {
            "filter" if value.chars().count() > STATUS_FILTER => {
                return Err(format!("filter has more than {STATUS_FILTER} characters"));
            }
            "filter" => self.filter = value.to_ascii_lowercase(),
            "state" if value.is_empty() => self.state = None,
            "state" => {
                let word = words().find(|word| word.eq_ignore_ascii_case(value));
                let all = || words().collect::<Vec<_>>().join(", ");
                self.state = Some(word.ok_or_else(|| format!("state is one of {}", all()))?);
            }
            "after" if value.is_empty() => self.after = None,
            "after" => {
                let channel = value.parse().map_err(|error| format!("after: {error}"))?;
                self.after = Some(channel);
            }
            "limit" => {
                let limit = value.parse().ok();
                let good = limit.filter(|limit| (1..=STATUS_ROWS_MOST).contains(limit));
                self.limit = good.ok_or_else(|| format!("limit is 1 to {STATUS_ROWS_MOST}"))?;
            }
            _ => return Err("there are filter, state, after and limit here".into()),
        }
        Ok(())
    }

    fn matches(&self, row: &Row) -> bool {
        let is_trouble = || {
            matches!(
                row.state,
                State::Behind { .. } | State::Stale { .. } | State::Forked
            )
        };
        let of_state = match self.state {
            None => true,
            Some(TROUBLE) => is_trouble(),
            Some(word) => row.state.word() == word,
        };
        of_state && row.log.channel.as_str().contains(&self.filter)
    }

    /// How many channels match in all, those that are to be shown, and whether there are more.
    pub(super) fn select<'a>(&self, rows: &'a [Row]) -> (usize, Vec<&'a Row>, bool) {
        let matching = rows.iter().filter(|row| self.matches(row)).count();
        let follows = |row: &&Row| {
            let after = self.after.as_ref();
            after.is_none_or(|after| row.log.channel > *after)
        };
        let following = rows.iter().filter(follows);
        let mut shown: Vec<&Row> = following
            .filter(|row| self.matches(row))
            .take(self.limit + 1)
            .collect();
        let more = shown.len() > self.limit;
        shown.truncate(self.limit);
        (matching, shown, more)
    }
}

/// A value of a query (RFC 3986 section 2.1; a plus is a space, as forms write it).
fn decoded(value: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_understood_or_refused() {
        let parse = |text| Query::parse(Some(text));
        let all = Query::parse(None).unwrap();
        assert_eq!(all.limit, STATUS_ROWS);
        assert_eq!(parse("").unwrap(), all);
        assert_eq!(parse("filter=&state=&after=").unwrap(), all);
        let one = parse("filter=a%2Bb.OS&state=stale&after=a.b&limit=7").unwrap();
        assert_eq!(
            (one.filter.as_str(), one.state, one.limit),
            ("a+b.os", Some("STALE"), 7)
        );
        assert_eq!(one.after, Some("a.b".parse().unwrap()));
        for text in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "state=good",
            "after=A",
            "filter=%ff",
            "filter=%2",
            "fitler=a",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("filter={}", "a".repeat(STATUS_FILTER + 1))).is_err());
    }
}
