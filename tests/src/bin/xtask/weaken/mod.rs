//! `cargo xtask weaken`: weakens each ordering of the core in turn, and sees whether a check notices.
//!
//! Each ordering of each access is weakened in a copy of the repository, where the loom models and then, under Miri, the
//! tests of races run until one fails. What came of it is written as a table into the core's documents. What no check notices
//! has to have a reason in a list beside the table.

mod checks;
#[cfg(test)]
mod declared;
mod sites;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::command::root;
use crate::copy::{Copy, files_below};
use crate::decisions::Decisions;
use checks::Checks;
use sites::Site;

const TABLE: &str = "core/docs/orderings.md";
const DECISIONS: &str = "core/docs/orderings.txt";
const SOURCES: &str = "core/src";

/// What to weaken.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only sites whose name, as the table has it, contains one of these, between commas; what the table says of the others stays.
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Run the loom models alone, which takes seconds for each; the table learns what they notice.
    #[arg(long)]
    models: bool,
    /// List the sites and weaken none.
    #[arg(long)]
    list: bool,
}

/// One ordering, and what it is weakened to.
struct Mutant<'s> {
    site: &'s Site,
    to: &'static str,
}

impl Mutant<'_> {
    fn name(&self) -> String {
        format!("{} -> {}", self.site, self.to)
    }
}

/// Weakens what the options say; whether all of it was noticed or has a reason.
pub(crate) fn run(options: &Options) -> Result<bool> {
    // Of the copy: somebody may work on the repository meanwhile.
    let copy = Copy::make("weaken")?;
    let sites = all_sites(&copy.folder().join(SOURCES))?;
    let is_chosen = |name: &str| {
        options
            .only
            .as_deref()
            .is_none_or(|only| only.split(',').any(|part| name.contains(part)))
    };
    let unpaired: Vec<_> = sites
        .iter()
        .filter(|site| site.partners(&sites).is_empty())
        .collect();
    let mutants: Vec<_> = sites
        .iter()
        .flat_map(|site| site.weaker().iter().map(move |to| Mutant { site, to }))
        .filter(|mutant| is_chosen(&mutant.name()))
        .collect();
    if options.list {
        for site in &sites {
            println!("{site} pairs with {}", site.partners(&sites));
        }
        println!(
            "{} sites, {} ways to weaken one",
            sites.len(),
            mutants.len()
        );
    }
    if !unpaired.is_empty() {
        for site in unpaired {
            println!(
                "{site}: pairs with nothing that is found: say what in a comment `// Pairs: ...` above it"
            );
        }
        return Ok(false);
    }
    if options.list {
        return Ok(true);
    }
    if mutants.is_empty() {
        bail!("nothing to weaken is called so");
    }

    let mut decisions = Decisions::read(&root().join(DECISIONS))?;
    let checks = Checks::new(&copy, options.models);
    println!("the copy without a change ...");
    if let Some(caught) = checks.run()? {
        bail!("{caught} fails without a change");
    }
    let mut results = read_results()?;
    let mut bad = 0;
    for (number, mutant) in mutants.iter().enumerate() {
        let name = mutant.name();
        let start = Instant::now();
        print!("{:3}/{} {name} ... ", number + 1, mutants.len());
        std::io::Write::flush(&mut std::io::stdout())?;
        let site = mutant.site;
        let file = format!("{SOURCES}/{}", site.file);
        let caught = copy.with_replaced((&file, site.at), (site.ordering, mutant.to), || {
            checks.run_for(&site.file)
        })?;
        let decision = decisions.of(&name);
        let seconds = start.elapsed().as_secs_f64();
        let result = match (caught, decision) {
            (Some(caught), None) => {
                println!("{caught} ({seconds:.0} s)");
                caught.to_string()
            }
            (Some(caught), Some(_)) => {
                println!("{caught}, although the list has a reason why nothing notices");
                bad += 1;
                caught.to_string()
            }
            // What no model notices a test under Miri may.
            (None, _) if options.models => {
                println!("no model ({seconds:.0} s)");
                continue;
            }
            (None, Some(why)) => {
                println!("unnoticed, for a reason ({seconds:.0} s)");
                format!("none: {why}")
            }
            (None, None) => {
                println!("UNNOTICED ({seconds:.0} s)");
                bad += 1;
                "**nothing**".to_owned()
            }
        };
        results.insert(name, result);
    }
    if options.only.is_none() && !options.models {
        for name in decisions.unused() {
            println!("{DECISIONS} has a reason for what is not there: {name}");
            bad += 1;
        }
    }
    match table(&sites, &results) {
        Ok(table) => {
            fs::write(root().join(TABLE), table)
                .with_context(|| format!("cannot write {TABLE}"))?;
        }
        Err(never_run) => {
            println!("{never_run} was never run: the table stays as it is");
            bad += usize::from(!options.models);
        }
    }
    println!("{} weakened, {bad} to be looked at", mutants.len());
    Ok(bad == 0)
}

/// The table, or which mutant it lacks.
fn table(sites: &[Site], results: &BTreeMap<String, String>) -> Result<String, String> {
    let (mut rows, mut all, mut counts) = (String::new(), 0, [0; 3]);
    for site in sites {
        for to in site.weaker() {
            let name = Mutant { site, to }.name();
            let result = results.get(&name).ok_or(name)?;
            let by = ["loom: ", "Miri: ", "none: "];
            if let Some(by) = by.iter().position(|by| result.starts_with(by)) {
                counts[by] += 1;
            }
            rows += &row(site, to, sites, result);
            rows += "\n";
            all += 1;
        }
    }
    let [loom, miri, reasons] = counts;
    Ok(format!(
        "# What notices a weaker ordering\n\n\
         Written by `cargo xtask weaken`. Each `Acquire`, `Release`, `AcqRel` and `SeqCst` of the core was weakened, one at a \
         time, and the loom models ran, and then the tests of races under Miri, until one failed. {} orderings, \
         {all} ways to weaken one: {loom} failed a model, {miri} a test under Miri, {reasons} neither, for a reason. The test \
         that is named is the one that was begun last.\n\n\
         Slabs, their lists, the page map's table and entries, the ring and handles are built for loom, where loom's mutex stands for a heap's locks; whole \
         heaps run under Miri. loom takes a `SeqCst` access for one that acquires and releases, so what only `SeqCst` gives is \
         Miri's as well. A lock's own \
         orderings are the lock's.\n\n\
         | where | access | ordering | weakened to | pairs with | noticed by |\n|---|---|---|---|---|---|\n\
         {rows}",
        sites.len()
    ))
}

/// What the table says of each mutant, by its name.
fn read_results() -> Result<BTreeMap<String, String>> {
    let path = root().join(TABLE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {TABLE}"))?;
    let of_row = |line: &str| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let [place, access, ordering, to, _, result] = *line.split(" | ").collect::<Vec<_>>()
        else {
            return None;
        };
        let plain = |cell: &str| cell.replace('`', "");
        let name = format!("{} {} {ordering} -> {to}", plain(place), plain(access));
        Some((name, result.to_owned()))
    };
    Ok(text.lines().filter_map(of_row).collect())
}

/// Every site below a folder.
fn all_sites(sources: &Path) -> Result<Vec<Site>> {
    let texts = sources_in(sources)?;
    Ok(texts
        .iter()
        .flat_map(|(file, text)| sites::of(file, text))
        .collect())
}

/// What the table says of a site that was weakened.
fn row(site: &Site, to: &str, all: &[Site], result: &str) -> String {
    let Site {
        file,
        function,
        access,
        ordering,
        ..
    } = site;
    let partners = site.partners(all);
    format!("| `{file}` `{function}` | `{access}` | {ordering} | {to} | {partners} | {result} |")
}

/// The files below a folder, without models and tests, in order, and what is in them.
fn sources_in(sources: &Path) -> Result<Vec<(String, String)>> {
    let is_test = |path: &Path| {
        let mut parts = path.iter().filter_map(|part| part.to_str());
        parts.any(|part| matches!(part.trim_end_matches(".rs"), "models" | "tests" | "races"))
    };
    let mut files = Vec::new();
    for path in files_below(sources)? {
        let file = path.strip_prefix(sources)?;
        if !is_test(file) {
            let text = fs::read_to_string(&path)?;
            files.push((file.to_string_lossy().into_owned(), text));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{SOURCES, TABLE, all_sites, row};
    use crate::command::root;

    /// Catches an ordering that was changed since, or is new: `cargo xtask weaken --only` says what notices it.
    #[test]
    fn the_table_is_of_the_orderings_that_there_are() {
        let sites = all_sites(&root().join(SOURCES)).unwrap();
        let table = std::fs::read_to_string(root().join(TABLE)).unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let mut found: Vec<_> = rows
            .map(|row| row.trim_end_matches(" |").rsplit_once(" | ").unwrap().0)
            .collect();
        let there: Vec<_> = sites
            .iter()
            .flat_map(|site| site.weaker().iter().map(|to| row(site, to, &sites, "")))
            .collect();
        let mut there: Vec<_> = there
            .iter()
            .map(|row| row.trim_end_matches("  |").trim_end_matches(" |"))
            .collect();
        found.sort_unstable();
        there.sort_unstable();
        assert_eq!(found, there);
    }
}
