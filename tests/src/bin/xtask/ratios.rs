//! Figures of several turns and several contenders, and how they are shown.

/// The value in the middle; of none, no number.
pub(crate) fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn least(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::MAX, f64::min)
}

/// The geometric mean; of nothing, nothing.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| {
        (sum + value.ln(), count + 1)
    });
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

/// A ratio in so many places, with a mark behind it if it is over its bound.
pub(crate) fn marked(ratio: Option<f64>, bound: f64, width: usize) -> String {
    match ratio {
        Some(ratio) => {
            let mark = if ratio > bound { '!' } else { ' ' };
            format!("{ratio:>width$.2}{mark}")
        }
        None => format!("{:>width$} ", "-"),
    }
}

#[cfg(test)]
mod tests {
    use super::{marked, mean};

    #[test]
    fn a_mean_of_ratios_is_geometric() {
        let ratio = mean([0.5, 2.0].into_iter());
        assert!(ratio.is_some_and(|ratio| (ratio - 1.0).abs() < 1e-9));
        assert_eq!(mean([].into_iter()), None);
    }

    #[test]
    fn what_is_over_its_bound_is_marked() {
        assert_eq!(marked(Some(1.1), 1.0, 5), " 1.10!");
        assert_eq!(marked(Some(1.0), 1.0, 5), " 1.00 ");
        assert_eq!(marked(None, 1.0, 5), "    - ");
    }
}
