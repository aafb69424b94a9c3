//! One figure and how it is printed.

use std::fmt;

/// A figure of the bench: `bench LETTER NAME VALUE UNIT ratio R`.
#[derive(Clone, PartialEq, Debug)]
pub struct Figure {
    /// The letter of the aim, or `limit`.
    pub letter: &'static str,
    /// What was measured, without spaces.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// In relation to what the aim is stated against; 1 for the limit itself.
    pub ratio: f64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bench {} {} {} {} ratio {}", self.letter, self.name, short(self.value), self.unit, short(self.ratio))
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        middle if middle >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle one; of an even number the mean of the two in the middle; of none 0.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values {
        [] => 0.0,
        values if values.len() % 2 == 1 => values[values.len() / 2],
        values => (values[values.len() / 2 - 1] + values[values.len() / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_one_line_with_value_unit_and_ratio() {
        let figure = Figure { letter: "a", name: "steps", value: 81_234.5, unit: "per_s", ratio: 0.2345 };
        assert_eq!(figure.to_string(), "bench a steps 81234 per_s ratio 0.234");
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }
}
