//! Percentiles of many measurements.

use std::time::Duration;

/// Sorted measurements.
#[derive(Clone, Debug, Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// Of durations, in milliseconds.
    pub fn of_milliseconds(durations: impl IntoIterator<Item = Duration>) -> Self {
        durations
            .into_iter()
            .map(|duration| duration.as_secs_f64() * 1000.0)
            .collect()
    }
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
    /// The value below which `part` of them are, from 0 to 1; the nearest rank. 0 if there is none.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn at(&self, part: f64) -> f64 {
        let rank = (self.0.len() as f64 * part.clamp(0.0, 1.0)).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
    /// Half of them are below; between the two in the middle.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => 0.0,
            count if count % 2 == 1 => self.0[middle],
            _ => f64::midpoint(self.0[middle - 1], self.0[middle]),
        }
    }
    /// The least.
    pub fn least(&self) -> f64 {
        self.at(0.0)
    }
    /// The greatest.
    pub fn most(&self) -> f64 {
        self.at(1.0)
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let hundred: Spread = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            (hundred.at(0.5), hundred.at(0.99), hundred.at(0.999)),
            (50.0, 99.0, 100.0)
        );
        assert_eq!(
            (hundred.least(), hundred.most(), hundred.median()),
            (1.0, 100.0, 50.5)
        );
        let none = Spread::default();
        assert_eq!((none.at(0.5), none.median(), none.count()), (0.0, 0.0, 0));
    }
}
