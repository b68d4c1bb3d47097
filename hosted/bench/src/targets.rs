//! What ratios and figures are to be: `docs/bench.targets.toml`, the one place where bounds are.

use super::results::{Figure, Ratio, Results, Standing, Verdict};
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

const TARGETS: &str = include_str!("../docs/bench.targets.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    target: Vec<Target>,
}

/// A bound of a ratio, or of a figure as it is: that has one of its unit for a peer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    /// The workload and the beginnings of its variants: `micro/pair` is of every size.
    of: String,
    /// What the variant ends with, where only some of its figures have a bound.
    #[serde(default)]
    ends: String,
    ours: String,
    /// A peer, or `fastest`; or `1` and a unit.
    peer: String,
    at_most: f64,
}

/// The targets of the file.
pub(super) fn read() -> Result<Vec<Target>> {
    let file: File =
        toml::from_str(TARGETS).context("bench.targets.toml is not what it should be")?;
    for target in &file.target {
        ensure!(
            target.at_most > 0.0,
            "the bound of {} is nothing",
            target.of
        );
    }
    Ok(file.target)
}

/// Every ratio and every figure that has a bound. Of several that fit, the first one counts.
pub(super) fn judge(targets: &[Target], results: &Results) -> Vec<Verdict> {
    let to_units = results.results.iter().map(to_its_unit);
    let all = results.ratios.iter().cloned().chain(to_units);
    let judged = all.filter_map(|ratio| {
        let target = targets.iter().find(|target| target.fits(&ratio))?;
        Some(Verdict {
            standing: target.standing(&ratio),
            at_most: target.at_most,
            workload: ratio.workload,
            variant: ratio.variant,
            ours: ratio.ours,
            peer: ratio.peer,
            ours_over_peer: ratio.ours_over_peer,
        })
    });
    judged.collect()
}

/// A figure as the ratio to one of its unit.
fn to_its_unit(figure: &Figure) -> Ratio {
    Ratio {
        workload: figure.workload.clone(),
        variant: figure.variant.clone(),
        ours: figure.contender.clone(),
        peer: format!("1 {}", figure.unit),
        ours_over_peer: figure.median,
        low: figure.low,
        high: figure.max,
        is_fastest: false,
    }
}

impl Target {
    fn fits(&self, ratio: &Ratio) -> bool {
        let is_peer = match self.peer.as_str() {
            "fastest" => ratio.is_fastest,
            peer => ratio.peer == peer,
        };
        self.is_of(&format!("{}/{}", ratio.workload, ratio.variant))
            && self.ours == ratio.ours
            && is_peer
    }

    /// Whether it is a bound of a workload with its variant.
    pub(super) fn is_of(&self, name: &str) -> bool {
        name.starts_with(&self.of) && name.ends_with(&self.ends)
    }

    fn standing(&self, ratio: &Ratio) -> Standing {
        if ratio.ours_over_peer <= self.at_most {
            Standing::Met
        } else if ratio.low <= self.at_most {
            Standing::Undecided
        } else {
            Standing::Missed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::results::Measured;

    fn ratio(ours_over_peer: f64, low: f64, high: f64) -> Ratio {
        Ratio {
            workload: "micro".to_owned(),
            variant: "pair/64".to_owned(),
            ours: "ours".to_owned(),
            peer: "mimalloc".to_owned(),
            ours_over_peer,
            low,
            high,
            is_fastest: false,
        }
    }

    /// A ratio stands to its bound with its quartiles.
    #[test]
    fn standings() {
        let target = Target {
            of: "micro/pair".to_owned(),
            ends: String::new(),
            ours: "ours".to_owned(),
            peer: "mimalloc".to_owned(),
            at_most: 1.0,
        };
        assert!(target.fits(&ratio(1.0, 1.0, 1.0)));
        assert_eq!(target.standing(&ratio(0.5, 0.4, 0.6)), Standing::Met);
        assert_eq!(target.standing(&ratio(1.2, 1.1, 1.3)), Standing::Missed);
        assert_eq!(target.standing(&ratio(1.05, 0.9, 1.1)), Standing::Undecided);
        let fastest = Target {
            peer: "fastest".to_owned(),
            ..target
        };
        assert!(!fastest.fits(&ratio(1.0, 1.0, 1.0)));
    }

    /// A figure stands to its bound by its quartiles, too, in its unit alone. Catches a bound that is of no figure.
    #[test]
    fn figures_have_bounds() {
        let target = Target {
            of: "scopes/empty".to_owned(),
            ends: String::new(),
            ours: "ours".to_owned(),
            peer: "1 ns".to_owned(),
            at_most: 100.0,
        };
        let stands = |unit: &str, rounds: [f64; 5]| {
            let mut results = Results::new(Environment::read());
            let ours = Measured {
                contender: "ours",
                is_ours: true,
                rounds: rounds.to_vec(),
            };
            results.add("scopes", "empty", unit, &[ours]);
            let verdicts = judge(core::slice::from_ref(&target), &results);
            verdicts.first().map(|verdict| verdict.standing)
        };
        let usual = [20.0, 30.0, 40.0, 50.0, 900.0];
        assert_eq!(stands("ns", usual), Some(Standing::Met));
        assert_eq!(stands("KiB", usual), None);
        let restless = [80.0, 90.0, 110.0, 200.0, 300.0];
        assert_eq!(stands("ns", restless), Some(Standing::Undecided));
        assert_eq!(stands("ns", [101.0; 5]), Some(Standing::Missed));
    }
}
