//! What the turns came to: a table with verdicts, means, and the same for programs.

use std::fmt::Write as _;

use super::contenders::Contender;
use super::{Mode, Time};
use crate::ratios::{least, marked, mean, middle};

/// A peer that takes so much of our time is one that a user could take instead, so its peak is our bound.
const ABOUT_AS_FAST: f64 = 1.1;
/// What is printed as 1.00.
const SAME: f64 = 1.005;

/// One turn, or all of a contender's at a pattern: milliseconds and MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) units: f64,
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) peak: f64,
}

impl Figures {
    /// The best times, and the peak in the middle.
    pub(crate) fn of(turns: &[Self]) -> Self {
        Self {
            units: turns.first().map_or(0.0, |turn| turn.units),
            wall: least(turns.iter().map(|turn| turn.wall)),
            cpu: least(turns.iter().map(|turn| turn.cpu)),
            peak: middle(turns.iter().map(|turn| turn.peak)),
        }
    }

    pub(crate) fn time(&self, time: Time) -> f64 {
        match time {
            Time::Wall => self.wall,
            Time::Cpu => self.cpu,
        }
    }
}

/// A pattern's figures, one for each contender.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figures: Vec<Figures>,
}

pub(crate) struct Report {
    pub(crate) mode: Mode,
    pub(crate) time: Time,
    pub(crate) rounds: usize,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) rows: Vec<Row>,
}

/// How one of ours compares with its peers at a pattern.
struct Verdict {
    wall: f64,
    cpu: f64,
    /// Our peak, to that of the least peer that is about as fast; nothing if there is none.
    memory: Option<f64>,
}

impl Report {
    /// Whether a contender is a peer, so not one of ours.
    pub(crate) fn is_peer(&self, place: usize) -> bool {
        self.contenders[place].bound.is_none()
    }

    fn ours(&self) -> impl Iterator<Item = (usize, f64)> {
        let bounds = self.contenders.iter().map(|contender| contender.bound);
        let ours = bounds.enumerate();
        ours.filter_map(|(place, bound)| Some((place, bound?)))
    }

    fn verdict(&self, row: &Row, place: usize) -> Verdict {
        let own = &row.figures[place];
        let peers = || {
            let all = row.figures.iter().enumerate();
            all.filter(|(peer, _)| self.is_peer(*peer))
                .map(|(_, figures)| figures)
        };
        let limit = ABOUT_AS_FAST * own.time(self.time);
        let lean = peers()
            .filter(|peer| peer.time(self.time) <= limit)
            .map(|peer| peer.peak)
            .reduce(f64::min);
        Verdict {
            wall: own.wall / least(peers().map(|peer| peer.wall)),
            cpu: own.cpu / least(peers().map(|peer| peer.cpu)),
            memory: lean.map(|lean| own.peak / lean),
        }
    }

    /// Who is on the front: nobody is as good in time and in memory and better in one. Variants of ours are not each
    /// other's rivals.
    pub(crate) fn front(&self, points: &[(f64, f64)]) -> Vec<bool> {
        let is_on = |place: usize| {
            let (time, peak) = points[place];
            let mut rivals = points
                .iter()
                .enumerate()
                .filter(|&(rival, _)| self.is_peer(rival) || self.is_peer(place) && rival != place);
            !rivals.any(|(_, &(t, p))| t <= time && p <= peak && (t < time || p < peak))
        };
        (0..points.len()).map(is_on).collect()
    }

    /// Where each contender is on the plane, at a pattern.
    pub(crate) fn points(&self, row: &Row) -> Vec<(f64, f64)> {
        let point = |figures: &Figures| (figures.time(self.time), figures.peak);
        row.figures.iter().map(point).collect()
    }

    /// Where each contender is in the mean: in time to the fastest, in memory to the least.
    pub(crate) fn means(&self) -> Vec<(f64, f64)> {
        let to_best = |of: fn((f64, f64)) -> f64, place: usize| {
            let ratios = self.rows.iter().map(|row| {
                let points = self.points(row);
                of(points[place]) / least(points.into_iter().map(of))
            });
            mean(ratios).unwrap_or(f64::NAN)
        };
        (0..self.contenders.len())
            .map(|place| (to_best(|p| p.0, place), to_best(|p| p.1, place)))
            .collect()
    }

    pub(crate) fn print(&self) {
        let time = match self.time {
            Time::Wall => "on the clock",
            Time::Cpu => "of processors",
        };
        println!(
            "{}: milliseconds {time} / MiB at the peak; best time and middle peak of {}; * on the front of time and memory",
            self.mode.name(),
            self.rounds
        );
        print!("{:<21}", "");
        for contender in &self.contenders {
            print!("{:>14}", contender.name);
        }
        for (place, _) in self.ours() {
            print!("   {}  wall    cpu   memory ", self.contenders[place].name);
        }
        println!();
        for row in &self.rows {
            self.line(&row.name, &self.points(row), (0, 1));
            for (place, _) in self.ours() {
                let Verdict { wall, cpu, memory } = self.verdict(row, place);
                self.ratios(place, Some(wall), Some(cpu), memory);
            }
            println!();
        }
        self.line("mean, to the best", &self.means(), (2, 2));
        for (place, _) in self.ours() {
            let verdicts = || self.rows.iter().map(|row| self.verdict(row, place));
            let memory = mean(verdicts().filter_map(|verdict| verdict.memory));
            let (wall, cpu) = (verdicts().map(|v| v.wall), verdicts().map(|v| v.cpu));
            self.ratios(place, mean(wall), mean(cpu), memory);
        }
        println!();
        self.print_scaling();
        self.print_counts();
    }

    /// A name and a cell for each contender.
    fn line(&self, name: &str, points: &[(f64, f64)], (places, more): (usize, usize)) {
        print!("{name:<21}");
        for (&(time, peak), is_on) in points.iter().zip(self.front(points)) {
            let star = if is_on { '*' } else { ' ' };
            print!("{:>14}", format!("{time:.places$}/{peak:.more$}{star}"));
        }
    }

    /// The cells of one of ours; the time that is judged has a mark if it is over its bound.
    fn ratios(&self, place: usize, wall: Option<f64>, cpu: Option<f64>, memory: Option<f64>) {
        let contender = &self.contenders[place];
        let bound = contender.bound.unwrap_or(f64::MAX);
        let (of_wall, of_cpu) = match self.time {
            Time::Wall => (bound, f64::MAX),
            Time::Cpu => (f64::MAX, bound),
        };
        print!(
            "   {:width$} {} {}   {}",
            "",
            marked(wall, of_wall, 5),
            marked(cpu, of_cpu, 5),
            marked(memory, SAME, 5),
            width = contender.name.len()
        );
    }

    /// What 16 threads do in a second, to what 2 do.
    fn print_scaling(&self) {
        let row = |name: &str| self.rows.iter().find(|row| row.name == name);
        let (Some(two), Some(sixteen)) = (row("threads-2"), row("threads-16")) else {
            return;
        };
        print!("{:<21}", "16 threads to 2");
        let each_second = |figures: &Figures| figures.units / figures.wall;
        for (two, sixteen) in two.figures.iter().zip(&sixteen.figures) {
            print!("{:>13.2} ", each_second(sixteen) / each_second(two));
        }
        println!();
    }

    fn print_counts(&self) {
        for (place, bound) in self.ours() {
            let verdicts = || self.rows.iter().map(|row| self.verdict(row, place));
            let of_time = |v: &Verdict| match self.time {
                Time::Wall => v.wall,
                Time::Cpu => v.cpu,
            };
            let slow = verdicts().filter(|v| of_time(v) > bound).count();
            let large = verdicts()
                .filter(|v| v.memory.is_some_and(|m| m > SAME))
                .count();
            let rows = self.rows.iter();
            let front = rows
                .filter(|row| self.front(&self.points(row))[place])
                .count();
            println!(
                "{}: on the front of {front} of {} patterns; {slow} times over {bound} of the best peer's time; {large} times \
                 over the peak of the least peer that takes {ABOUT_AS_FAST} of its time at most",
                self.contenders[place].name,
                self.rows.len()
            );
        }
        println!();
    }
}

/// All of it as JSON. No name has anything that would have to be escaped.
pub(crate) fn json(reports: &[Report]) -> String {
    let mut text = String::from("[");
    for (at, report) in reports.iter().enumerate() {
        let comma = |at: usize| if at == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{}\n{{\"mode\": \"{}\", \"rounds\": {}, \"patterns\": {{",
            comma(at),
            report.mode.name(),
            report.rounds
        );
        for (at, row) in report.rows.iter().enumerate() {
            let _ = write!(text, "{}\n  \"{}\": {{", comma(at), row.name);
            let front = report.front(&report.points(row));
            for (place, contender) in report.contenders.iter().enumerate() {
                let figures = &row.figures[place];
                let _ = write!(
                    text,
                    "{}\n    \"{}\": {{\"units\": {}, \"wall_ms\": {:.3}, \"cpu_ms\": {:.3}, \"peak_mib\": {:.3}, \"is_on_front\": {}",
                    comma(place),
                    contender.name,
                    figures.units,
                    figures.wall,
                    figures.cpu,
                    figures.peak,
                    front[place]
                );
                if !report.is_peer(place) {
                    let verdict = report.verdict(row, place);
                    let memory = verdict.memory.map_or("null".into(), |m| format!("{m:.4}"));
                    let _ = write!(
                        text,
                        ", \"wall_to_best\": {:.4}, \"cpu_to_best\": {:.4}, \"peak_to_bound\": {memory}",
                        verdict.wall, verdict.cpu
                    );
                }
                text.push('}');
            }
            text.push('}');
        }
        text.push_str("}}");
    }
    text.push_str("\n]\n");
    text
}
