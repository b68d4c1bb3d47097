//! The live view: a look, a picture, a key.

use crate::report::Report;
use crate::source::Source;
use crate::view::View;
use anyhow::{Result, ensure};
use core::time::Duration;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::time::Instant;

/// Shows the view until somebody quits.
pub(crate) fn run(source: &Source, every: Duration) -> Result<()> {
    ensure!(
        std::io::stdout().is_terminal(),
        "this is no terminal: use --once, or tslab stats"
    );
    let mut view = View::new(source.name());
    // Restores the terminal when it is dropped, also by a panic.
    let mut terminal = ratatui::try_init()?;
    let done = show(&mut terminal, &mut view, source, every);
    ratatui::restore();
    done
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    view: &mut View,
    source: &Source,
    every: Duration,
) -> Result<()> {
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            next = Instant::now() + every;
            if !view.is_paused {
                // A program that is gone may come back: the last picture stays until then.
                match Report::read(source) {
                    Ok(report) => {
                        view.trouble = None;
                        view.add(report);
                    }
                    Err(error) => view.trouble = Some(format!("{error:#}")),
                }
            }
            terminal.draw(|frame| view.draw(frame))?;
        }
        if !event::poll(next.saturating_duration_since(Instant::now()))? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(());
                }
                KeyCode::Char(' ') => {
                    view.is_paused = !view.is_paused;
                    terminal.draw(|frame| view.draw(frame))?;
                }
                _ => {}
            },
            Event::Resize(..) => {
                terminal.draw(|frame| view.draw(frame))?;
            }
            _ => {}
        }
    }
}

/// One picture, as text.
pub(crate) fn picture(source: &Source) -> Result<String> {
    let mut view = View::new(source.name());
    for _ in 0..2 {
        view.add(Report::read(source)?);
        std::thread::sleep(Duration::from_millis(200));
    }
    view.add(Report::read(source)?);
    draw(&view, 120, 40)
}

fn draw(view: &View, width: u16, height: u16) -> Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| view.draw(frame))?;
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width)
            .filter_map(|x| buffer.cell((x, y)))
            .map(|cell| cell.symbol())
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use temporal_slab_hosted::TemporalSlab;
    use temporal_slab_hosted::export;

    fn report() -> Report {
        let (mut stats, mut process) = (String::new(), String::new());
        let heap = TemporalSlab::heap();
        temporal_slab_report::Report::new(heap)
            .json(&mut stats)
            .unwrap();
        export::process_json(&mut process).unwrap();
        Report::parse(&stats, &process).unwrap()
    }

    /// The picture at any size: no panic where there is no room, and at a common size all parts are there.
    #[test]
    fn it_fits_every_terminal() {
        let mut view = View::new("a test".to_owned());
        assert!(draw(&view, 80, 24).unwrap().contains("waiting"));
        for _ in 0..600 {
            view.add(report());
        }
        for (width, height) in [(1, 1), (10, 3), (20, 50), (80, 24), (200, 60), (300, 10)] {
            draw(&view, width, height).unwrap();
        }
        let picture = draw(&view, 120, 40).unwrap();
        for word in [
            "process RSS",
            "live objects",
            "epochs: 1 open",
            "root",
            "per second",
            "findings",
        ] {
            assert!(picture.contains(word), "{word} in\n{picture}");
        }
        view.is_paused = true;
        view.trouble = Some("nobody serves there".to_owned());
        let picture = draw(&view, 120, 40).unwrap();
        assert!(picture.contains("paused") && picture.contains("nobody serves there"));
    }

    /// Another version of the format is not taken for this one.
    #[test]
    fn another_version_is_refused() {
        let refused = Report::parse("{\"schema\":99}", "{}").err().unwrap();
        assert!(refused.to_string().contains("version 99"), "{refused}");
        assert!(Report::parse("no JSON", "{}").is_err());
    }
}
