//! The picture that `tslab watch` shows.

use crate::report::Report;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, Wrap};
use std::collections::VecDeque;

/// Looks that are kept for the curves.
const KEPT: usize = 400;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct View {
    name: String,
    reports: VecDeque<Report>,
    resident: VecDeque<u64>,
    live: VecDeque<u64>,
    pub(crate) is_paused: bool,
    pub(crate) trouble: Option<String>,
}

const LIVE: Color = Color::Green;
const HELD: Color = Color::Yellow;
const DIM: Style = Style::new().fg(Color::DarkGray);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

impl View {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Takes another look in.
    pub(crate) fn add(&mut self, report: Report) {
        push(&mut self.resident, report.process("resident_bytes"), KEPT);
        push(&mut self.live, report.heap("live_bytes"), KEPT);
        push(&mut self.reports, report, 2);
    }

    pub(crate) fn draw(&self, frame: &mut Frame<'_>) {
        let Some(now) = self.reports.back() else {
            let text = self
                .trouble
                .as_deref()
                .unwrap_or("waiting for the first report");
            frame.render_widget(Paragraph::new(text), frame.area());
            return;
        };
        let findings = now.findings();
        let rows = 2 + (findings.len().clamp(1, 4) * 2) as u16;
        let [title, memory, middle, bottom] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(10),
            Constraint::Min(6),
            Constraint::Length(rows),
        ])
        .areas(frame.area());
        self.title(frame, title, now);
        let [bars, curves] =
            Layout::horizontal([Constraint::Percentage(62), Constraint::Min(20)]).areas(memory);
        memory_bars(frame, bars, now);
        self.curves(frame, curves);
        let [epochs, rates] =
            Layout::horizontal([Constraint::Percentage(62), Constraint::Min(20)]).areas(middle);
        epoch_bars(frame, epochs, now);
        self.rates(frame, rates, now);
        let lines: Vec<Line<'_>> = if findings.is_empty() {
            vec![Line::styled(
                "nothing that needs a remedy",
                Style::new().fg(LIVE),
            )]
        } else {
            let lines = findings.iter().take(4).flat_map(|finding| {
                let color = match finding.severity {
                    "error" => Color::Red,
                    "warning" => HELD,
                    _ => Color::Cyan,
                };
                let name = Span::styled(format!("{} ", finding.kind), STRONG.fg(color));
                [
                    Line::from(vec![name, Span::raw(finding.evidence)]),
                    Line::styled(format!("  {}", finding.action), DIM),
                ]
            });
            lines.collect()
        };
        let more = findings.len().saturating_sub(4);
        let title = if more > 0 {
            format!(" findings, and {more} more ")
        } else {
            " findings ".to_owned()
        };
        let block = Block::bordered().title(title);
        frame.render_widget(
            Paragraph::new(lines)
                .wrap(Wrap { trim: false })
                .block(block),
            bottom,
        );
    }

    fn title(&self, frame: &mut Frame<'_>, area: Rect, now: &Report) {
        let mut line = vec![
            Span::styled(" tslab ", STRONG.fg(Color::Black).bg(LIVE)),
            Span::raw(format!(" {}  process {}  ", self.name, now.process("id"))),
        ];
        if self.is_paused {
            line.push(Span::styled("paused ", STRONG.fg(HELD)));
        }
        match &self.trouble {
            Some(trouble) => line.push(Span::styled(trouble.clone(), STRONG.fg(Color::Red))),
            None => line.push(Span::styled("q quits, space pauses", DIM)),
        }
        frame.render_widget(Paragraph::new(Line::from(line)), area);
    }

    fn curves(&self, frame: &mut Frame<'_>, area: Rect) {
        let [above, below] =
            Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
        let most = self
            .resident
            .iter()
            .chain(&self.live)
            .copied()
            .max()
            .unwrap_or(1);
        for (area, title, data, color) in [
            (above, " RSS ", &self.resident, HELD),
            (below, " live ", &self.live, LIVE),
        ] {
            let block = Block::bordered().title(title);
            let width = usize::from(block.inner(area).width);
            let newest: Vec<u64> = data
                .iter()
                .skip(data.len().saturating_sub(width))
                .copied()
                .collect();
            let curve = Sparkline::default()
                .data(newest)
                .max(most)
                .style(Style::new().fg(color));
            frame.render_widget(curve.block(block), area);
        }
    }

    fn rates(&self, frame: &mut Frame<'_>, area: Rect, now: &Report) {
        let before = self.reports.front().unwrap_or(now);
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let rate = |figure: fn(&Report) -> u64| {
            let change = figure(now).saturating_sub(figure(before));
            if seconds > 0.0 {
                change as f64 / seconds
            } else {
                0.0
            }
        };
        let slow = rate(|r| r.heap("slow_path_hits"));
        let mut rows = vec![
            ("slow paths", slow),
            ("  from stash", rate(|r| r.heap("slow_path.stash"))),
            ("  from depot", rate(|r| r.heap("slow_path.depot"))),
            ("  new slabs", rate(|r| r.heap("slow_path.new_slab"))),
            ("spills", rate(|r| r.heap("slow_path.spill"))),
            ("slabs recycled", rate(|r| r.heap("slabs_recycled"))),
            ("epochs closed", rate(|r| r.heap("closes"))),
            (
                "pages given back",
                rate(|r| r.heap("decommitted_bytes") / 4096),
            ),
            ("locks taken", rate(|r| r.sum("lock_taken"))),
            ("  waited for", rate(|r| r.sum("lock_contended"))),
            ("refused", rate(|r| r.sum("allocs_refused"))),
        ]
        .into_iter()
        .map(|(name, rate)| {
            Row::new(vec![
                Cell::from(name),
                Cell::from(format!("{:>12}", short(rate))),
            ])
        })
        .collect::<Vec<_>>();
        for (cause, count, p50, p99) in now.latencies() {
            let times = format!("{p50} / {p99} ns");
            let name = format!("{cause} ({})", short(count as f64));
            rows.push(
                Row::new(vec![Cell::from(name), Cell::from(format!("{times:>18}"))]).style(DIM),
            );
        }
        let widths = [Constraint::Min(16), Constraint::Length(18)];
        let table = Table::new(rows, widths)
            .block(Block::bordered().title(" per second; times: p50 / p99 "));
        frame.render_widget(table, area);
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    queue.push_back(item);
    if queue.len() > most {
        queue.pop_front();
    }
}

/// Where the process's memory is, as bars of one scale.
fn memory_bars(frame: &mut Frame<'_>, area: Rect, now: &Report) {
    let block = Block::bordered().title(" memory ");
    let inner = block.inner(area);
    let (rss, committed, live) = (
        now.process("resident_bytes"),
        now.heap("committed_bytes"),
        now.heap("live_bytes"),
    );
    let most = rss.max(committed).max(1);
    let width = usize::from(inner.width).saturating_sub(30);
    let bar = |name: &str, bytes: u64, color: Color| {
        let cells = (bytes as f64 / most as f64 * width as f64).round() as usize;
        Line::from(vec![
            Span::raw(format!("{name:<16}{:>11}  ", bytes_text(bytes))),
            Span::styled("█".repeat(cells), Style::new().fg(color)),
        ])
    };
    let mut lines = vec![
        bar("process RSS", rss, Color::Blue),
        bar("heap committed", committed, Color::DarkGray),
        bar("heap resident", now.heap("resident_bytes"), HELD),
        bar("live objects", live, LIVE),
    ];
    let mut parts = now.parts("resident_part_bytes");
    parts.retain(|(name, bytes)| *name != "live" && *bytes > 0);
    parts.sort_by_key(|(_, bytes)| core::cmp::Reverse(*bytes));
    for (name, bytes) in parts.into_iter().take(4) {
        lines.push(bar(&format!("  {name}"), bytes, HELD));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// What each epoch holds, and how much of that is live.
fn epoch_bars(frame: &mut Frame<'_>, area: Rect, now: &Report) {
    let epochs = now.epochs();
    let open = epochs.iter().filter(|epoch| epoch.is_open).count();
    let title = format!(" epochs: {open} open, {} closing ", epochs.len() - open);
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    let most = epochs.first().map_or(1, |epoch| epoch.bytes.max(1));
    let width = usize::from(inner.width).saturating_sub(50);
    let lines: Vec<Line<'_>> = epochs
        .iter()
        .take(usize::from(inner.height))
        .map(|epoch| {
            let cells = |bytes: u64| (bytes as f64 / most as f64 * width as f64).round() as usize;
            let live = cells(epoch.live_bytes.min(epoch.bytes));
            let rest = cells(epoch.bytes).saturating_sub(live);
            let mark = match (epoch.is_current, epoch.is_open) {
                (true, _) => '*',
                (false, true) => ' ',
                (false, false) => '-',
            };
            let label = if epoch.name.is_empty() {
                "(none)"
            } else {
                epoch.name
            };
            let label: String = label
                .chars()
                .map(|c| if c.is_control() { '.' } else { c })
                .take(22)
                .collect();
            let (bytes, objects) = (bytes_text(epoch.bytes), short(epoch.live_objects as f64));
            Line::from(vec![
                Span::raw(format!(
                    "{:>3}{mark} {label:<22}{objects:>9} {bytes:>10}  ",
                    epoch.position
                )),
                Span::styled("█".repeat(live), Style::new().fg(LIVE)),
                Span::styled("░".repeat(rest), Style::new().fg(HELD)),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn bytes_text(bytes: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1073741824.0, "GiB"), (1048576.0, "MiB"), (1024.0, "KiB")];
    let found = UNITS.iter().find(|(unit, _)| bytes as f64 >= *unit);
    found.map_or_else(
        || format!("{bytes} B"),
        |(unit, name)| format!("{:.1} {name}", bytes as f64 / unit),
    )
}

fn short(number: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e9, "G"), (1e6, "M"), (1e4, "k")];
    match UNITS.iter().find(|(unit, _)| number >= *unit) {
        Some((_, "k")) => format!("{:.1} k", number / 1e3),
        Some((unit, name)) => format!("{:.1} {name}", number / unit),
        None => format!("{number:.0}"),
    }
}
