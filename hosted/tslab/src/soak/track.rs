//! What a soak sees from turn to turn: lines for people and spreadsheets, pictures, and whether it stays flat.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use temporal_slab_page::{Series, of_series};

/// What is looked at after a turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Row {
    pub(super) seconds: f64,
    pub(super) operations: u64,
    pub(super) objects: usize,
    pub(super) live: usize,
    pub(super) resident: usize,
    pub(super) metadata: usize,
    pub(super) process: usize,
    pub(super) mappings: usize,
}

const MIB: f64 = (1u64 << 20) as f64;

/// Whether a column is to stay flat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flat {
    No,
    Yes,
    /// For each byte that is live: how many objects there are is a matter of how much the threads get done.
    PerLive,
    /// For each byte of the most that were live so far: it does not go back.
    PerMostLive,
}

/// A column: its name, its value, and whether it is to be flat. What begins with a unit has a digit behind the point.
type Column = (&'static str, fn(&Row) -> f64, Flat);

const COLUMNS: [Column; 8] = [
    ("seconds", |row| row.seconds, Flat::No),
    ("M operations", |row| row.operations as f64 / 1e6, Flat::No),
    ("objects", |row| row.objects as f64, Flat::No),
    ("MiB live", |row| row.live as f64 / MIB, Flat::No),
    (
        "MiB resident",
        |row| row.resident as f64 / MIB,
        Flat::PerLive,
    ),
    (
        "MiB metadata",
        |row| row.metadata as f64 / MIB,
        Flat::PerMostLive,
    ),
    ("MiB process", |row| row.process as f64 / MIB, Flat::PerLive),
    ("mappings", |row| row.mappings as f64, Flat::Yes),
];

/// The least time after which it is judged whether something is flat.
const JUDGED_AFTER: f64 = 120.0;

/// A flat column's last quarter is at most so many times its second: the first fills the heap.
const FLAT: f64 = 1.1;

/// All rows so far.
#[derive(Debug)]
pub(super) struct Track {
    rows: Vec<Row>,
    csv: Option<File>,
}

impl Track {
    /// Begins, and writes the columns' names.
    pub(super) fn begin(csv: Option<&Path>) -> Result<Self> {
        let csv = csv.map(|path| {
            File::create(path).with_context(|| format!("{} cannot be written", path.display()))
        });
        let mut track = Self {
            rows: Vec::new(),
            csv: csv.transpose()?,
        };
        let names = COLUMNS.map(|(name, ..)| name);
        println!("{}", names.map(|name| format!("{name:>13}")).concat());
        if let Some(csv) = &mut track.csv {
            writeln!(
                csv,
                "{}",
                names.map(|name| name.replace(' ', "_")).join(",")
            )?;
        }
        Ok(track)
    }

    pub(super) fn add(&mut self, row: Row) -> Result<()> {
        let texts = COLUMNS.map(|(name, of, _)| {
            let digits = usize::from(name.starts_with('M'));
            format!("{:.digits$}", of(&row))
        });
        println!(
            "{}",
            texts.each_ref().map(|text| format!("{text:>13}")).concat()
        );
        if let Some(csv) = &mut self.csv {
            writeln!(csv, "{}", texts.join(","))?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// Fails if something grows that is to be flat. A run that is too short to tell passes, and says so.
    pub(super) fn judge(&self) -> Result<()> {
        if self
            .rows
            .last()
            .is_none_or(|row| row.seconds < JUDGED_AFTER)
        {
            println!("too short to tell whether memory stays flat: that takes {JUDGED_AFTER} s");
            return Ok(());
        }
        for (name, of, flat) in COLUMNS {
            let live = |row: &Row| row.live as f64 / MIB;
            let (unit, per): (&dyn Fn(usize) -> f64, _) = match flat {
                Flat::No => continue,
                Flat::Yes => (&|_| 1.0, ""),
                Flat::PerLive => (
                    &|quarter| self.mean(quarter, live),
                    " for each that is live",
                ),
                Flat::PerMostLive => (
                    &|quarter| self.most(quarter, live),
                    " for each that was live at most",
                ),
            };
            let [early, late] = [1, 3].map(|quarter| self.mean(quarter, of) / unit(quarter));
            let said =
                format!("{name}{per}: {early:.3} in the second quarter, {late:.3} in the last");
            println!("{said}");
            ensure!(late <= early * FLAT, "it grows: {said}");
        }
        Ok(())
    }

    /// The mean over a quarter of the time, from 0.
    fn mean(&self, quarter: usize, of: fn(&Row) -> f64) -> f64 {
        let at = |quarter: usize| self.rows.len() * quarter / 4;
        let rows = &self.rows[at(quarter)..at(quarter + 1)];
        rows.iter().map(of).sum::<f64>() / rows.len().max(1) as f64
    }

    /// The most up to the end of a quarter of the time, from 0.
    fn most(&self, quarter: usize, of: fn(&Row) -> f64) -> f64 {
        let rows = &self.rows[..self.rows.len() * (quarter + 1) / 4];
        rows.iter().map(of).fold(0.0, f64::max)
    }

    /// A page with a picture of each column.
    pub(super) fn page(&self) -> Result<String> {
        let series: Vec<Series> = COLUMNS[1..]
            .iter()
            .map(|(name, of, _)| Series {
                workload: "soak".into(),
                variant: (*name).into(),
                contender: "ours".into(),
                x: "seconds".into(),
                y: (*name).into(),
                points: self.rows.iter().map(|row| (row.seconds, of(row))).collect(),
            })
            .collect();
        of_series(
            "temporal-slab, soaked",
            "Threads that come and go do everything that a heap offers, at random, while another one gives memory back and \
             the system refuses some of what it is asked. Seconds to the right.",
            &series,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(resident: impl Fn(usize) -> usize) -> Track {
        let row = |second: usize| Row {
            seconds: second as f64,
            live: 40 << 20,
            resident: resident(second) << 20,
            ..Row::default()
        };
        Track {
            rows: (0..400).map(row).collect(),
            csv: None,
        }
    }

    /// What fills and then stays is flat, though it goes up and down; what grows a little all the time is not. Catches a
    /// judgement that passes whatever it is shown.
    #[test]
    fn growth_is_told_from_flatness() {
        assert!(
            track(|second| second.min(60) + second * 7 % 20)
                .judge()
                .is_ok()
        );
        assert!(track(|second| 60 + second / 10).judge().is_err());
    }
}
