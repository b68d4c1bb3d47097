//! Pages for people: one file, with pictures of what was measured, which needs nothing else.
//!
//! The benchmark and the soak have them in common. What a series is of is not known here; contenders have colours by their names.

mod plot;

pub use plot::Axes;

use anyhow::Result;
use core::fmt::{self, Display, Formatter, Write};
use serde::{Deserialize, Serialize};

const STYLE: &str = include_str!("style.css");

/// What a page ends with.
pub const END: &str = "</body></html>\n";

/// What a line in a picture is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Series {
    /// What was run.
    pub workload: String,
    /// In which way. Those of one variant are in one picture.
    pub variant: String,
    /// Whose line it is.
    pub contender: String,
    /// What is to the right, with its unit.
    pub x: String,
    /// What is upwards, with its unit.
    pub y: String,
    /// To the right, and upwards.
    pub points: Vec<(f64, f64)>,
}

/// A page of pictures, one for each variant of the series, whose axes are plain.
///
/// # Errors
/// If a picture cannot be drawn.
pub fn of_series(title: &str, about: &str, series: &[Series]) -> Result<String> {
    let mut page = begin(title);
    let _ = writeln!(page, "<p>{}</p>", Escaped(about));
    let all: Vec<&Series> = series.iter().collect();
    pictures(&mut page, &all, Axes::Plain)?;
    page += END;
    Ok(page)
}

/// What a page begins with, its title included.
pub fn begin(title: &str) -> String {
    let title = Escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    )
}

/// A picture for each variant, with a legend.
///
/// # Errors
/// As of [`of_series`].
pub fn pictures(page: &mut String, all: &[&Series], axes: Axes) -> Result<()> {
    *page += "<div class=\"plots\">\n";
    let mut done: Vec<&str> = Vec::new();
    for first in all {
        let variant = first.variant.as_str();
        if done.contains(&variant) {
            continue;
        }
        done.push(variant);
        let same: Vec<&Series> = all
            .iter()
            .copied()
            .filter(|series| series.variant == variant)
            .collect();
        let _ = writeln!(
            page,
            "<figure><figcaption>{}</figcaption><ul class=\"legend\">",
            Escaped(variant)
        );
        for series in &same {
            let colour = plot::colour(&series.contender);
            let _ = writeln!(
                page,
                "<li><i style=\"background:var(--{colour})\"></i>{}</li>",
                Escaped(&series.contender)
            );
        }
        let _ = writeln!(
            page,
            "</ul><div class=\"scroll bare\">{}</div></figure>",
            plot::svg(&same, axes)?
        );
    }
    *page += "</div>\n";
    Ok(())
}

/// A text in a page.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'t>(pub &'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                _ => f.write_char(char)?,
            }
        }
        Ok(())
    }
}
