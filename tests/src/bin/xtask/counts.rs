//! How many tests passed and failed, as the test harness reports it.

use std::fmt;
use std::ops::AddAssign;

/// Individual tests that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that passed.
    pub(crate) passed: u64,
    /// Those that failed.
    pub(crate) failed: u64,
}

impl Counts {
    /// Reads a line such as `test result: ok. 12 passed; 0 failed; 1 ignored; ...`; any other line
    /// is `None`.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let (_verdict, figures) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let figure = |label| {
            let mut parts = figures.split("; ");
            parts.find_map(|part| part.strip_suffix(label)?.trim_end().parse().ok())
        };
        Some(Self {
            passed: figure("passed")?,
            failed: figure("failed")?,
        })
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    const OK: &str = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
    const FAILED: &str = "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s";

    #[test]
    fn reads_both_verdicts() {
        assert_eq!(
            Counts::of_line(OK),
            Some(Counts {
                passed: 12,
                failed: 0
            })
        );
        assert_eq!(
            Counts::of_line(FAILED),
            Some(Counts {
                passed: 4,
                failed: 2
            })
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        let others = [
            "",
            "running 12 tests",
            "test a_test ... ok",
            "test result: ok.",
            "test result: ok. many passed; 0 failed",
            "test result: ok. 12 passed",
            "  test result: ok. 12 passed; 0 failed",
            "all doctests ran in 0.22s; merged doctests compilation took 0.21s",
        ];
        for line in others {
            assert_eq!(Counts::of_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn sums_and_shows() {
        let mut sum = Counts::default();
        for counts in [OK, FAILED].into_iter().filter_map(Counts::of_line) {
            sum += counts;
        }
        assert_eq!(sum.to_string(), "16 passed, 2 failed");
    }
}
