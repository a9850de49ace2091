//! The figures of one series of measurements. Nothing is interpolated: every figure is a time that
//! was measured. And, for what is compared in pairs, a mean with its interval.

use serde::{Deserialize, Serialize};

/// The figures of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How many measurements.
    pub count: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one; of two, the greater.
    pub median: f64,
    /// The one that 99 of 100 do not exceed. With fewer than a hundred it is the greatest.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Figures {
    /// The figures of these measurements; `None` where there are none.
    pub fn of(measurements: &[f64]) -> Option<Figures> {
        let mut sorted = measurements.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Figures {
            count: sorted.len(),
            min: *sorted.first()?,
            median: *sorted.get(sorted.len() / 2)?,
            p99: *sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1))?,
            max: *sorted.last()?,
        })
    }
}

/// The middle of some measurements; of two, the greater.
pub fn median(measurements: &[f64]) -> Option<f64> {
    Figures::of(measurements).map(|figures| figures.median)
}

/// Student's t of 0.975 for 1, 2, … degrees of freedom; beyond, that of the last is a little wide.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// A mean, and the interval that holds the true one 95 times in a hundred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

impl Interval {
    /// Of these differences; `None` where there are fewer than two.
    pub fn of(differences: &[f64]) -> Option<Interval> {
        let freedom = differences.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
        let count = differences.len() as f64;
        let mean = differences.iter().sum::<f64>() / count;
        let squares: f64 = differences.iter().map(|one| (one - mean).powi(2)).sum();
        let student = STUDENT[freedom.min(STUDENT.len()) - 1];
        let half = student * (squares / freedom as f64 / count).sqrt();
        Some(Interval { mean, low: mean - half, high: mean + half })
    }

    /// The same on another scale.
    pub fn map(self, scale: fn(f64) -> f64) -> Interval {
        Interval { mean: scale(self.mean), low: scale(self.low), high: scale(self.high) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_one_of_the_measurements() {
        assert_eq!(Figures::of(&[]), None);
        let figures = Figures::of(&[3.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!((figures.count, figures.min, figures.median), (4, 1.0, 3.0));
        assert_eq!((figures.p99, figures.max), (9.0, 9.0));
        let many: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(Figures::of(&many).unwrap().p99, 198.0);
    }

    #[test]
    fn an_interval_is_as_wide_as_the_measurements_differ() {
        assert_eq!(Interval::of(&[1.0]), None);
        // By hand: deviation 1, t of two degrees of freedom 4.303, over the root of three.
        let interval = Interval::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(interval.mean, 2.0);
        assert!((interval.high - 2.0 - 4.303 / 3_f64.sqrt()).abs() < 1e-9, "{interval:?}");
        assert!((interval.mean - interval.low - (interval.high - interval.mean)).abs() < 1e-9);
    }
}
