//! The figures of one series of measurements. Nothing is interpolated: every figure is a time that
//! was measured.

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
}
