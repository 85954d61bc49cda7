//! Statistics of a few measurements, and how a value changes from one to the next.

use schemars::JsonSchema;
use serde::Serialize;

/// Below so many values the 95th percentile would be the largest by another name.
const P95_LEAST: usize = 20;

/// Some measurements in five numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SummaryStats {
    pub avg: f64,
    pub max: f64,
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 95th percentile; null of fewer than 20 values, of which it would be the largest.
    pub p95: Option<f64>,
}

impl SummaryStats {
    /// None where there is nothing to summarise.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self {
            avg: thousandths(values.iter().sum::<f64>() / values.len() as f64),
            max,
            min,
            p50: thousandths(median(&values)),
            p95: (values.len() >= P95_LEAST).then(|| values[values.len() * 95 / 100]),
        })
    }
}

/// The middle of sorted values, of which there is one at least.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The middle and the largest of some measurements, which get sorted; not a number where there are none.
pub fn middle_and_most(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    match values.last() {
        Some(most) => (median(values), *most),
        None => (f64::NAN, f64::NAN),
    }
}

/// The least-squares slope of values one step apart: what one more step adds. None of fewer than two.
pub fn slope(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let (middle_x, middle_y) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let (mut up, mut down) = (0.0, 0.0);
    for (x, y) in values.iter().enumerate() {
        up += (x as f64 - middle_x) * (y - middle_y);
        down += (x as f64 - middle_x).powi(2);
    }
    Some(up / down)
}

/// One decimal is all that most of these measurements are worth.
pub fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Three decimals, for slopes.
pub fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_ten_is_no_p95() {
        let of = |count: u32| SummaryStats::of((1..=count).map(f64::from)).unwrap();
        let ten = of(10);
        assert_eq!(
            (ten.avg, ten.max, ten.min, ten.p50, ten.p95),
            (5.5, 10.0, 1.0, 5.5, None)
        );
        assert_eq!(of(40).p95, Some(39.0));
        assert_eq!(of(1).p50, 1.0);
        assert_eq!(SummaryStats::of([]), None);
    }

    #[test]
    fn a_slope_is_of_all_values_not_of_the_first_and_the_last() {
        assert_eq!(slope(&[1.0, 3.0, 5.0]), Some(2.0));
        assert_eq!(slope(&[1.0]), None);
        // A last value that stands out moves it by a part only.
        let outlier = slope(&[10.0, 10.0, 10.0, 10.0, 20.0]).unwrap();
        assert!((outlier - 2.0).abs() < 1e-9, "{outlier}");
        let level = slope(&[10.0, 20.0, 10.0, 20.0, 10.0]).unwrap();
        assert!(level.abs() < 1e-9, "{level}");
    }
}
