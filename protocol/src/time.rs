//! Signed times: seconds of UTC, written `YYYY-MM-DDTHH:MM:SSZ` (spec part 1).

use alloc::string::String;
use core::{fmt, str::FromStr};

/// Not a time of the one form that statements use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is YYYY-MM-DDTHH:MM:SSZ, from 1970 to 9999; this is {0:?}")]
pub struct TimeError(String);

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds; up to the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// Year, month, day, hour, minute, second and day of the week (0 = Sunday).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// 1970 to 9999.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 (Sunday) to 6.
    pub weekday: u32,
}

const LAST: u64 = 253_402_300_799;
const DAY: u64 = 86_400;

impl Timestamp {
    /// The time so many seconds after 1970 began; the end of 9999 if it would be later.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds.min(LAST))
    }
    /// Seconds since 1970 began.
    pub fn seconds(self) -> u64 {
        self.0
    }
    /// The time so many seconds later.
    pub fn plus(self, seconds: u64) -> Self {
        Self::from_seconds(self.0.saturating_add(seconds))
    }
    /// The time of a calendar date, if there is such a date.
    pub fn from_civil(
        year: u32,
        month: u32,
        day: u32,
        hour: u32,
        minute: u32,
        second: u32,
    ) -> Option<Self> {
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        if !(1970..=9999).contains(&year)
            || !(1..=days).contains(&day)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        // Days since 1 March of the year 0, when leap days come last (Richards' algorithm).
        let (y, m) = if month > 2 {
            (year, month - 3)
        } else {
            (year - 1, month + 9)
        };
        let date =
            u64::from(365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1) - 719_468;
        Some(Self(
            date * DAY + u64::from(hour * 3600 + minute * 60 + second),
        ))
    }
    /// The calendar date of this time.
    #[allow(clippy::cast_possible_truncation)] // LAST bounds every part
    pub fn civil(self) -> Civil {
        let (days, rest) = ((self.0 / DAY) as u32, (self.0 % DAY) as u32);
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z - era * 146_097;
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let m = (5 * doy + 2) / 153;
        let month = if m < 10 { m + 3 } else { m - 9 };
        Civil {
            year: yoe + era * 400 + u32::from(month <= 2),
            month,
            day: doy - (153 * m + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: (days + 4) % 7,
        }
    }
}

/// The numbers of `YYYY-MM-DDTHH:MM:SSZ`.
fn parts(text: &str) -> Option<[u32; 6]> {
    const FORM: &[u8; 20] = b"0000-00-00T00:00:00Z";
    let octets: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let fits = |(octet, form): (&u8, &u8)| match form {
        b'0' => octet.is_ascii_digit(),
        form => octet == form,
    };
    if !octets.iter().zip(FORM).all(fits) {
        return None;
    }
    let number = |at: usize, count: usize| {
        let digits = octets[at..at + count].iter();
        digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    Some([
        number(0, 4),
        number(5, 2),
        number(8, 2),
        number(11, 2),
        number(14, 2),
        number(17, 2),
    ])
}

impl FromStr for Timestamp {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        parts(text)
            .and_then(|[year, month, day, hour, minute, second]| {
                Self::from_civil(year, month, day, hour, minute, second)
            })
            .ok_or_else(|| TimeError(text.into()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.civil();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            c.year, c.month, c.day, c.hour, c.minute, c.second
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_jiff(seconds in 0..=LAST) {
            let ours = Timestamp::from_seconds(seconds);
            let theirs = jiff::Timestamp::from_second(seconds as i64).unwrap();
            prop_assert_eq!(ours.to_string(), theirs.to_string());
            prop_assert_eq!(ours.to_string().parse(), Ok(ours));
            let day = theirs.to_zoned(jiff::tz::TimeZone::UTC).weekday().to_sunday_zero_offset();
            prop_assert_eq!(i64::from(ours.civil().weekday), i64::from(day));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T10:00:60Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22t10:00:00z",
            "2026-11-22 10:00:00Z",
            "2026-11-22T10:00:00+00:00",
            "2026-11-22T10:00:00.0Z",
            "1969-12-31T23:59:59Z",
            "2026-11-22T10:00:00Z ",
            "+026-11-22T10:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
        }
        assert!("2024-02-29T23:59:59Z".parse::<Timestamp>().is_ok());
    }
}
