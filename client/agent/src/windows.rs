//! The operator's own windows. In UTC: no day has 23 or 25 hours there (attack 82).

use serde::{Deserialize, Deserializer, de::Error};
use tidings_client::Timestamp;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY: u64 = 86_400;

/// When the machine may go; at any time if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows(Vec<Window>);

/// On some days, from a second of the day for so many seconds, beyond midnight too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    days: [bool; 7],
    from: u64,
    seconds: u64,
}

impl Windows {
    /// When the next one opens: now, if one is open.
    pub fn next(&self, time: Timestamp) -> Timestamp {
        let now = time.seconds();
        let opens = |window: &Window| {
            let midnight = now - now % DAY;
            // From yesterday on, since a window may have begun then.
            let starts = (0..9).filter_map(move |day| (midnight + day * DAY).checked_sub(DAY));
            let open = starts
                .filter(|start| window.days[weekday(*start)])
                .map(|start| start + window.from);
            open.filter(|open| now < open + window.seconds)
                .map(|open| open.max(now))
                .min()
        };
        self.0
            .iter()
            .filter_map(opens)
            .min()
            .map_or(time, Timestamp::from_seconds)
    }
}

/// 0 is Monday; 1 January 1970 was a Thursday.
fn weekday(seconds: u64) -> usize {
    usize::try_from((seconds / DAY + 3) % 7).unwrap_or(0)
}

impl Window {
    fn read(text: &str) -> Option<Self> {
        let (days, hours) = text.split_once(' ').unwrap_or(("Mon..Sun", text));
        let day = |name: &str| DAYS.iter().position(|day| *day == name);
        let mut open = [false; 7];
        for part in days.split(',') {
            let (first, last) = part.split_once("..").unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            (0..=(last + 7 - first) % 7).for_each(|more| open[(first + more) % 7] = true);
        }
        let (from, to) = hours.split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        let seconds = (to + DAY - from - 1) % DAY + 1;
        Some(Self {
            days: open,
            from,
            seconds,
        })
    }
}

/// `02:30` in seconds.
fn minute(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, most: u64| {
        text.parse::<u64>()
            .ok()
            .filter(|n| text.len() == 2 && *n <= most)
    };
    let seconds = number(hours, 24)? * 3_600 + number(minutes, 59)? * 60;
    (seconds <= DAY).then_some(seconds)
}

impl<'de> Deserialize<'de> for Windows {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wrong = |text: &String| {
            D::Error::custom(format!(
                "{text:?} is no window; one is `[DAY[..DAY][,DAY…] ]HH:MM-HH:MM`, in UTC, with the days Mon to Sun"
            ))
        };
        let texts = Vec::<String>::deserialize(from)?;
        texts
            .iter()
            .map(|text| Window::read(text).ok_or_else(|| wrong(text)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(texts: &[&str]) -> Windows {
        Windows(
            texts
                .iter()
                .map(|text| Window::read(text).unwrap())
                .collect(),
        )
    }

    #[test]
    fn a_window_opens_on_its_days_and_over_midnight() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        // 2026-11-27 is a Friday.
        let table = [
            (
                &["02:00-04:00"][..],
                "2026-11-27T01:00:00Z",
                "2026-11-27T02:00:00Z",
            ),
            (
                &["02:00-04:00"],
                "2026-11-27T03:59:59Z",
                "2026-11-27T03:59:59Z",
            ),
            (
                &["02:00-04:00"],
                "2026-11-27T04:00:00Z",
                "2026-11-28T02:00:00Z",
            ),
            (
                &["Fri 23:00-01:00"],
                "2026-11-28T00:30:00Z",
                "2026-11-28T00:30:00Z",
            ),
            (
                &["Fri 23:00-01:00"],
                "2026-11-28T01:00:00Z",
                "2026-12-04T23:00:00Z",
            ),
            (
                &["Sat..Mon 00:00-24:00"],
                "2026-11-27T12:00:00Z",
                "2026-11-28T00:00:00Z",
            ),
            (
                &["Wed 10:00-11:00", "Mon,Thu 10:00-11:00"],
                "2026-11-27T12:00:00Z",
                "2026-11-30T10:00:00Z",
            ),
            (&[], "2026-11-27T12:00:00Z", "2026-11-27T12:00:00Z"),
        ];
        for (texts, now, opens) in table {
            assert_eq!(windows(texts).next(at(now)), at(opens), "{texts:?} {now}");
        }
    }

    #[test]
    fn attack_82_both_days_on_which_the_clocks_change_have_every_window() {
        let nightly = windows(&["02:30-02:45"]);
        for day in ["2026-03-29", "2026-10-25"] {
            let midnight: Timestamp = format!("{day}T00:00:00Z").parse().unwrap();
            assert_eq!(
                nightly.next(midnight).seconds() - midnight.seconds(),
                9_000,
                "{day}"
            );
        }
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "2:00-4:00",
            "25:00-26:00",
            "Foo 02:00-03:00",
            "Mon 02:00",
            "Mon-Fri 02:00-03:00",
            "02:60-03:00",
        ] {
            assert!(Window::read(text).is_none(), "{text}");
        }
    }
}
