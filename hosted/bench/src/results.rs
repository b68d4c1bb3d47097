//! What a run found out, as it is written to a file and compared with an earlier one.

use super::environment::Environment;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;
use temporal_slab_page::Series;

/// The version of the format; `docs/bench.schema.json` describes it.
pub(crate) const SCHEMA: u32 = 2;

/// A spread (the distance of the quartiles, to the median) above which a figure is no fact.
pub(crate) const NOISE: f64 = 0.15;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) schema: u32,
    pub(crate) environment: Environment,
    /// What reading the clock costs, where single calls were timed: it is in each of their figures.
    pub(crate) clock_ns: Option<f64>,
    pub(crate) results: Vec<Figure>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) series: Vec<Series>,
    pub(crate) tails: Vec<Tail>,
    pub(crate) targets: Vec<Verdict>,
}

/// A contender's figure for one variant of a workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) workload: String,
    pub(crate) variant: String,
    pub(crate) contender: String,
    pub(crate) unit: String,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Rounds that it is the median of.
    pub(crate) n: usize,
    /// The distance of the quartiles, to the median.
    pub(crate) spread: f64,
    /// The machine was too restless for this figure.
    pub(crate) noisy: bool,
    /// The lower quartile, by which this run's own bounds are judged.
    #[serde(skip)]
    pub(crate) low: f64,
}

/// Ours to a peer, taken round by round in the same run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) workload: String,
    pub(crate) variant: String,
    /// Which of ours.
    pub(crate) ours: String,
    pub(crate) peer: String,
    pub(crate) ours_over_peer: f64,
    /// The quartiles over the rounds.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// No peer is faster.
    pub(crate) is_fastest: bool,
}

/// Of the calls that took over ten medians, those with one cause.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tail {
    pub(crate) variant: String,
    pub(crate) contender: String,
    pub(crate) cause: String,
    pub(crate) count: u64,
    pub(crate) longest_ns: f64,
}

/// How a ratio stands to its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    Met,
    Missed,
    /// Above the bound, and the lower quartile of the rounds is not: this run does not tell.
    Undecided,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) workload: String,
    pub(crate) variant: String,
    pub(crate) ours: String,
    pub(crate) peer: String,
    pub(crate) at_most: f64,
    pub(crate) ours_over_peer: f64,
    pub(crate) standing: Standing,
}

/// What was measured of one contender, round by round.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) contender: &'static str,
    pub(crate) is_ours: bool,
    pub(crate) rounds: Vec<f64>,
}

impl Measured {
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.rounds, 0.5)
    }
}

/// The value below which a part of the values lies.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * part).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

impl Results {
    pub(crate) fn new(environment: Environment) -> Self {
        Self {
            schema: SCHEMA,
            environment,
            results: Vec::new(),
            clock_ns: None,
            ratios: Vec::new(),
            series: Vec::new(),
            tails: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Takes the rounds of all contenders of a variant in: less is better.
    pub(crate) fn add(&mut self, workload: &str, variant: &str, unit: &str, all: &[Measured]) {
        for measured in all {
            let rounds = &measured.rounds;
            let median = measured.median();
            let spread = (quantile(rounds, 0.75) - quantile(rounds, 0.25)) / median;
            self.results.push(Figure {
                workload: workload.to_owned(),
                variant: variant.to_owned(),
                contender: measured.contender.to_owned(),
                unit: unit.to_owned(),
                median,
                min: quantile(rounds, 0.0),
                max: quantile(rounds, 1.0),
                n: rounds.len(),
                spread,
                noisy: spread > NOISE,
                low: quantile(rounds, 0.25),
            });
        }
        let peers = || all.iter().filter(|measured| !measured.is_ours);
        let fastest = peers().map(Measured::median).fold(f64::INFINITY, f64::min);
        for ours in all.iter().filter(|measured| measured.is_ours) {
            for peer in peers() {
                let pairs = ours.rounds.iter().zip(&peer.rounds);
                let by_round: Vec<f64> = pairs.map(|(ours, peer)| ours / peer).collect();
                self.ratios.push(Ratio {
                    workload: workload.to_owned(),
                    variant: variant.to_owned(),
                    ours: ours.contender.to_owned(),
                    peer: peer.contender.to_owned(),
                    ours_over_peer: quantile(&by_round, 0.5),
                    low: quantile(&by_round, 0.25),
                    high: quantile(&by_round, 0.75),
                    is_fastest: peer.median() <= fastest,
                });
            }
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let results: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a report of tslab bench --json", path.display()))?;
        ensure!(
            results.schema == SCHEMA,
            "{} is of version {}, and this tslab writes {SCHEMA}: take a new baseline",
            path.display(),
            results.schema
        );
        Ok(results)
    }

    pub(crate) fn csv(&self) -> String {
        let mut text = "workload,variant,contender,unit,median,min,max,n,spread,noisy\n".to_owned();
        for figure in &self.results {
            // No name has a comma in it.
            text += &format!(
                "{},{},{},{},{},{},{},{},{:.4},{}\n",
                figure.workload,
                figure.variant,
                figure.contender,
                figure.unit,
                figure.median,
                figure.min,
                figure.max,
                figure.n,
                figure.spread,
                figure.noisy
            );
        }
        text
    }

    /// What became worse than it was in a baseline, by more than the tolerance: ratios to the same peers, each taken
    /// in its own run, so the machines need not be alike. A ratio whose quartiles reach the bound is left out.
    pub(crate) fn regressions(&self, baseline: &Self, tolerance: f64) -> Vec<String> {
        let mut found = Vec::new();
        for now in &self.ratios {
            let is_same = |then: &&Ratio| {
                (&then.workload, &then.variant, &then.ours, &then.peer)
                    == (&now.workload, &now.variant, &now.ours, &now.peer)
            };
            let Some(then) = baseline.ratios.iter().find(is_same) else {
                continue;
            };
            let bound = then.ours_over_peer * (1.0 + tolerance);
            if now.ours_over_peer > bound && now.low > bound {
                found.push(format!(
                    "{}/{}: {} was {:.2} of {}'s and is {:.2} ({:.2} to {:.2})",
                    now.workload,
                    now.variant,
                    now.ours,
                    then.ours_over_peer,
                    now.peer,
                    now.ours_over_peer,
                    now.low,
                    now.high
                ));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(contender: &'static str, is_ours: bool, rounds: &[f64]) -> Measured {
        Measured {
            contender,
            is_ours,
            rounds: rounds.to_vec(),
        }
    }

    fn results(ours: &[f64]) -> Results {
        let mut results = Results::new(Environment::read());
        let all = [
            measured("ours", true, ours),
            measured("fast", false, &[2.0, 2.0, 2.0, 2.1, 1.9]),
            measured("slow", false, &[8.0, 4.0, 8.0, 9.0, 16.0]),
        ];
        results.add("micro", "pair", "ns", &all);
        results
    }

    /// Ratios are of rounds and not of medians; the fastest peer is the one that counts; what is restless says so.
    #[test]
    fn ratios_and_noise() {
        let results = results(&[1.0, 1.0, 1.0, 1.05, 0.95]);
        let ratio = |peer: &str| {
            results
                .ratios
                .iter()
                .find(|ratio| ratio.peer == peer)
                .unwrap()
        };
        assert!((ratio("fast").ours_over_peer - 0.5).abs() < 1e-9 && ratio("fast").is_fastest);
        assert!((ratio("slow").ours_over_peer - 0.125).abs() < 0.01 && !ratio("slow").is_fastest);
        let noisy: Vec<bool> = results.results.iter().map(|figure| figure.noisy).collect();
        // The quartiles of the slow one are 8 and 9.
        assert_eq!(noisy, [false, false, false]);
        let mut restless = results.clone();
        restless.add(
            "micro",
            "x",
            "ns",
            &[measured("ours", true, &[1.0, 2.0, 3.0, 4.0, 5.0])],
        );
        assert!(restless.results.last().unwrap().noisy);
        assert_eq!(results.csv().lines().count(), 4);
    }

    /// A regression beyond the tolerance is found, one that the noise explains is not, and neither is what is new.
    #[test]
    fn regressions_are_found() {
        let baseline = results(&[1.0; 5]);
        assert!(results(&[1.05; 5]).regressions(&baseline, 0.1).is_empty());
        let found = results(&[1.3; 5]).regressions(&baseline, 0.1);
        assert!(
            found.len() == 2 && found[0].contains("was 0.50 of fast's and is 0.65"),
            "{found:?}"
        );
        assert!(
            results(&[0.5, 0.9, 1.3, 1.5, 2.0])
                .regressions(&baseline, 0.1)
                .is_empty(),
            "noise"
        );
        let mut other = baseline.clone();
        other.ratios.clear();
        assert!(results(&[9.0; 5]).regressions(&other, 0.1).is_empty());
        let text = serde_json::to_string(&baseline).unwrap();
        let read: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(read.ratios.len(), 2);
    }
}
