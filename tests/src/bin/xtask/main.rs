//! The project's tasks: `cargo xtask <task>`.

mod boot;
mod command;
mod contest;
mod copy;
mod counts;
mod decisions;
mod fuzz;
mod install_c;
mod instructions;
mod libraries;
mod mutants;
mod preload;
mod quality;
mod ratios;
mod runner;
mod sanitize;
mod setup;
mod soak;
mod stages;
mod toolchain;
mod weaken;

use std::process::ExitCode;

use clap::Parser;

/// What `test` is asked for.
#[derive(clap::Args)]
struct TestOptions {
    #[command(flatten)]
    options: runner::Options,
    /// Run what takes long as well: the tests for 32 bits, and under Miri.
    #[arg(long)]
    deep: bool,
}

/// The project's tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version)]
enum Task {
    /// Install what this machine lacks for the other tasks; quick when nothing is lacking.
    Setup,
    /// Set up, then run the checks: formatting, lints, builds, tests, models; with --deep those that take long, too.
    Test(TestOptions),
    /// Run tests under ThreadSanitizer, AddressSanitizer, and Miri with many schedules; takes an hour.
    Sanitize(runner::Options),
    /// Have threads do everything that a heap offers for an hour, and look whether memory stays flat.
    Soak(soak::Options),
    /// Check the licences and sources of all that ships, and what is known against it.
    Deny,
    /// Compare the core's public face with that of an earlier commit.
    Semver(quality::SemverOptions),
    /// Measure how much of the core and of the hosted crate the tests run.
    Coverage(quality::CoverageOptions),
    /// Count the instructions of the fast paths and fail if there are more than were recorded.
    Instructions(instructions::Options),
    /// Build the demo kernel, boot it in QEMU and show what it says.
    Boot(boot::Options),
    /// Make a disk image of a kernel. For the task `boot`, which sets the environment that it needs.
    #[command(hide = true)]
    Image(boot::Image),
    /// Run patterns on this allocator and its peers, as global allocators and preloaded, in turns, and compare time and memory.
    Contest(contest::Options),
    /// Run programs of others with this allocator and its peers preloaded, compare, and install what is missing for that.
    Preload(preload::Options),
    /// Run the fuzz targets for a minute each, from the inputs that are kept.
    Fuzz(fuzz::Options),
    /// Build the libraries for C and install them with their headers.
    InstallC(install_c::Options),
    /// Weaken each memory ordering of the core in turn, and see whether a loom model or a test under Miri notices.
    Weaken(weaken::Options),
    /// Break the core in one place at a time, and see whether a test or a model notices; takes hours.
    Mutants(mutants::Options),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Setup => setup::run().map(|()| true),
        Task::Test(TestOptions { options, deep }) => {
            // A stage that is named runs, however long it takes.
            let is_all = deep || options.names_stages();
            runner::run(&options, if is_all { stages::all } else { stages::quick })
        }
        Task::Sanitize(options) => runner::run(&options, sanitize::stages),
        Task::Soak(options) => soak::run(&options),
        Task::Deny => quality::deny(),
        Task::Semver(options) => quality::semver(&options),
        Task::Coverage(options) => quality::coverage(&options),
        Task::Instructions(options) => instructions::run(&options),
        Task::Boot(options) => boot::run(&options),
        Task::Image(image) => boot::image(&image).map(|()| true),
        Task::Contest(options) => contest::run(&options),
        Task::Preload(options) => preload::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::InstallC(options) => install_c::run(&options).map(|()| true),
        Task::Weaken(options) => weaken::run(&options),
        Task::Mutants(options) => mutants::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // `{:#}` gives the causes on one line; a backtrace would only show this program's own
            // calls.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
