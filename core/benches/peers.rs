//! The heap against other allocators.
//!
//! ```text
//! cargo bench -p temporal-slab             # everything
//! cargo bench -p temporal-slab -- pair     # rows whose name contains `pair`
//! ```
//!
//! There are two parts. All contenders of a row are measured in turns, and a table at the end shows
//! the ratios that matter. Criterion measures each contender by itself, for its reports and for
//! comparing one build with another; its filter knows the contenders too (`pair/64/ours`).
//!
//! `PEERS_PART=table` or `=criterion` runs one part; `PEERS_ROUNDS` and `PEERS_SLICE_MS` say how
//! often a contender has its turn for the table and how long that is.

mod support;

use core::time::Duration;
use std::process::ExitCode;

use criterion::{Criterion, SamplingMode, Throughput};

use support::driver::{Entrant, Row, interleaved};
use support::options::Options;
use support::pattern::{Pattern, Scratch};
use support::report::Table;

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("peers: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut table = Table::new();
    let mut entrants = Entrant::all();
    let mut scratch = Scratch::new();
    // Before criterion, for the second thread does not exist until a row needs it, and with it the C
    // library is slower in all rows.
    if options.table {
        for row in Row::all().filter(|row| row.name().contains(&options.filter)) {
            eprintln!("in turns: {}", row.name());
            let figures = interleaved(row, &mut entrants, &mut scratch, &options);
            table.add(row, &figures);
        }
    }
    if options.criterion {
        run_criterion(&mut entrants, &mut scratch);
    }
    // Last, where one finds it.
    print!("{}", table.finish());
    ExitCode::SUCCESS
}

fn run_criterion(entrants: &mut [Entrant], scratch: &mut Scratch) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(150))
        .sample_size(10)
        .nresamples(2_000)
        .without_plots()
        .configure_from_args();
    for row in Row::all() {
        let mut group = criterion.benchmark_group(row.name());
        group.throughput(Throughput::Elements(row.pattern.unit() as u64));
        if row.pattern == Pattern::FreeMillion {
            // A sample takes as long as it takes to prepare a million objects.
            group.sampling_mode(SamplingMode::Flat);
            group.measurement_time(Duration::from_secs(4));
        }
        for entrant in entrants
            .iter_mut()
            .filter(|entrant| entrant.takes_part(row))
        {
            group.bench_function(entrant.name, |bencher| {
                bencher.iter_custom(|units| entrant.run(row, units, scratch));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
