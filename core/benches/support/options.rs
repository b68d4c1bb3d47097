//! What the user asked for.

use core::fmt::Display;
use core::str::FromStr;
use core::time::Duration;
use std::env;

/// Criterion's options that are followed by a value, which is not to be taken for the filter.
const WITH_VALUE: [&str; 19] = [
    "-b",
    "-c",
    "-s",
    "--baseline",
    "--baseline-lenient",
    "--color",
    "--confidence-level",
    "--format",
    "--load-baseline",
    "--measurement-time",
    "--noise-threshold",
    "--nresamples",
    "--output-format",
    "--plotting-backend",
    "--profile-time",
    "--sample-size",
    "--save-baseline",
    "--significance-level",
    "--warm-up-time",
];

/// Criterion's options under which nothing is compared.
const NO_TABLE: [&str; 9] = [
    "--test",
    "--list",
    "--profile-time",
    "--load-baseline",
    "--help",
    "-h",
    "--version",
    "-V",
    "--discard-baseline",
];

/// Which of the two parts run, and how long the first takes.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Rows whose name does not contain this are left out.
    pub(crate) filter: String,
    /// Whether contenders are measured in turns and a table is printed.
    pub(crate) table: bool,
    /// Whether criterion runs.
    pub(crate) criterion: bool,
    /// How often each contender has its turn.
    pub(crate) rounds: usize,
    /// How long a turn takes.
    pub(crate) slice: Duration,
}

impl Options {
    /// From the command line, which criterion reads too, and the environment.
    ///
    /// # Errors
    /// What is wrong with a variable, for the user.
    pub(crate) fn read() -> Result<Self, String> {
        let args: Vec<String> = env::args().skip(1).collect();
        // Without it this is `cargo test --benches`: criterion then runs everything once.
        let is_bench = args.iter().any(|arg| arg == "--bench");
        let is_other = args.iter().any(|arg| NO_TABLE.contains(&arg.as_str()));
        let part: String = variable("PEERS_PART", "all".into())?;
        if !["all", "table", "criterion"].contains(&part.as_str()) {
            return Err(format!(
                "PEERS_PART is `{part}`; it can be all, table or criterion"
            ));
        }
        Ok(Self {
            filter: filter(&args).unwrap_or_default(),
            table: is_bench && !is_other && part != "criterion",
            criterion: part != "table",
            rounds: variable("PEERS_ROUNDS", 15usize)?.max(1),
            slice: Duration::from_millis(variable("PEERS_SLICE_MS", 25u64)?.max(1)),
        })
    }
}

/// The first argument that is neither an option nor an option's value.
fn filter(args: &[String]) -> Option<String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if WITH_VALUE.contains(&arg.as_str()) {
            args.next();
        } else if !arg.starts_with('-') {
            return Some(arg.clone());
        }
    }
    None
}

fn variable<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, String> {
    match env::var(name) {
        Ok(value) => value
            .parse()
            .map_err(|error| format!("{name} is `{value}`: {error}")),
        Err(_) => Ok(default),
    }
}
