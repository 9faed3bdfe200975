use crate::{Head, Serial, Statement};

/// Where a statement belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It follows the head: append it.
    Next,
    /// It is the head, or lies below: ignore it.
    Known,
    /// The statements between are missing: fetch them first.
    Gap {
        /// The first missing serial.
        from: Serial,
    },
    /// It has the head's serial or follows it, but contradicts it: once verified, it proves that
    /// two statements were signed for one place (attack 28).
    Fork,
}

/// Spec part 2, `place`: where a statement belongs in a log with this head; `None` is the empty
/// log.
pub fn place(head: Option<Head>, statement: &Statement) -> Place {
    let Some(head) = head else {
        let first = statement.serial() == Serial::FIRST;
        return if first {
            Place::Next
        } else {
            Place::Gap {
                from: Serial::FIRST,
            }
        };
    };
    if statement.serial() < head.serial {
        return Place::Known;
    }
    if statement.serial() == head.serial {
        return if statement.id() == head.id {
            Place::Known
        } else {
            Place::Fork
        };
    }
    match statement.predecessor() {
        Some(before) if before == head => Place::Next,
        Some(before) if before.serial == head.serial => Place::Fork,
        _ => Place::Gap {
            from: head.serial.next().unwrap_or(head.serial),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StatementId;
    use alloc::format;

    fn beat(serial: u32, previous: &str) -> Statement {
        let text = format!(
            "Tidings: 1 beat\nChannel: a.beat\nSerial: {serial}\nPrevious: {previous}\nTime: 2026-01-01T00:00:00Z\nTrust: 1\nExpires: 2026-01-01T00:05:00Z\n"
        );
        Statement::parse_draft(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_place() {
        let first = beat(1, "-");
        let other = StatementId::of(b"other");
        let head = first.head();
        let next = beat(2, &format!("{}", head.id));
        assert_eq!(place(None, &first), Place::Next);
        assert_eq!(
            place(None, &next),
            Place::Gap {
                from: Serial::FIRST
            }
        );
        assert_eq!(place(Some(head), &first), Place::Known);
        assert_eq!(place(Some(Head { id: other, ..head }), &first), Place::Fork);
        assert_eq!(place(Some(head), &next), Place::Next);
        assert_eq!(place(Some(Head { id: other, ..head }), &next), Place::Fork);
        assert_eq!(place(Some(next.head()), &first), Place::Known);
        assert_eq!(
            place(Some(head), &beat(9, &format!("{other}"))),
            Place::Gap {
                from: Serial::new(2).unwrap()
            }
        );
    }
}
