//! In place of the benchmark, where the program is built without it.

use anyhow::{Result, bail};
use std::ffi::OsString;

const MISSING: &str = "this program is built without the benchmark and the allocators that it compares with: \
    build it with `--features bench`, as `cargo tslab` does";

#[derive(clap::Args)]
#[command(after_help = MISSING)]
pub(crate) struct Options {
    /// Those of a program that has the benchmark.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _any: Vec<OsString>,
}

/// Fails, and says how to get a program that has it.
pub(crate) fn run(_: &Options) -> Result<bool> {
    bail!(MISSING)
}
