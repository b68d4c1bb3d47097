//! Churn: requests whose objects are freed some requests later, under a load that changes; what is resident over time.
//!
//! Each contender has a process of its own. Ours is there without epochs, with those that `--epochs` asks for, and with
//! these and a policy that keeps some of what they leave for the next.

mod program;
mod shape;

use super::child::{self, Work};
use super::context::Context;
use super::results::Measured;
use anyhow::Result;
use program::{Account, Look};
use shape::{Pattern, Shape};
use temporal_slab_page::Series;

/// A program that churns, whose resident memory is its own.
pub(super) const WORK: Work = Work {
    name: "churn",
    run: |contender, parameters| {
        child::answer(parameters, |shape| program::part(contender, &shape))
    },
};

const WITH_EPOCHS: &str = "ours-epoch";
const WITH_WARM_EPOCHS: &str = "ours-epoch-warm";
const MIB: f64 = 1_048_576.0;

/// What is told of each.
const FIGURES: [&str; 4] = ["peak", "mean", "end", "time"];

pub(super) fn variants() -> Vec<String> {
    let of = |pattern: Pattern| FIGURES.map(|figure| format!("{}/{figure}", pattern.name()));
    Pattern::ALL.into_iter().flat_map(of).collect()
}

pub(super) fn run(context: &mut Context<'_>) -> Result<()> {
    for pattern in Pattern::ALL {
        let name = |figure: &str| format!("{}/{figure}", pattern.name());
        if FIGURES
            .iter()
            .any(|figure| context.wants("churn", &name(figure)))
        {
            context.begin("churn", pattern.name());
            measure(context, pattern)?;
        }
    }
    Ok(())
}

fn measure(context: &mut Context<'_>, pattern: Pattern) -> Result<()> {
    let rounds = if context.options.quick { 1 } else { 3 };
    let shape = Shape::of(pattern, context.options);
    let mut names = vec!["ours", WITH_EPOCHS, WITH_WARM_EPOCHS];
    names.extend(context.peers.iter().map(|peer| peer.name()));
    let mut found: Vec<Vec<Account>> = vec![Vec::new(); names.len()];
    for round in 0..rounds {
        for step in 0..names.len() {
            let place = (round + step) % names.len();
            found[place].push(child::run(&WORK, names[place], &shape)?);
        }
    }
    let figures: [fn(&Account) -> f64; 4] = [
        |account| resident(account).fold(0.0, f64::max),
        |account| resident(account).sum::<f64>() / account.looks.len().max(1) as f64,
        |account| resident(account).last().unwrap_or(0.0),
        |account| account.ns,
    ];
    for ((figure, of), unit) in FIGURES.iter().zip(figures).zip(["MiB", "MiB", "MiB", "ns"]) {
        let variant = format!("{}/{figure}", pattern.name());
        let all: Vec<Measured> = names
            .iter()
            .zip(&found)
            .map(|(name, accounts)| Measured {
                contender: name,
                is_ours: name.starts_with("ours"),
                rounds: accounts.iter().map(of).collect(),
            })
            .collect();
        if context.wants("churn", &variant) {
            context.results.add("churn", &variant, unit, &all);
        }
    }
    plot(context, pattern, &names, &found);
    Ok(())
}

fn resident(account: &Account) -> impl Iterator<Item = f64> {
    account.looks.iter().map(|look| look.resident as f64 / MIB)
}

/// Takes in the first round of each.
fn plot(context: &mut Context<'_>, pattern: Pattern, names: &[&str], found: &[Vec<Account>]) {
    let mut add = |contender: &str, looks: &[Look], of: fn(&Look) -> u64| {
        let points = looks.iter().enumerate();
        let points = points.map(|(at, look)| {
            let done = (at + 1) as f64 / looks.len() as f64 * 100.0;
            (done, of(look) as f64 / MIB)
        });
        context.results.series.push(Series {
            workload: "churn".to_owned(),
            variant: pattern.name().to_owned(),
            contender: contender.to_owned(),
            x: "% of the run".to_owned(),
            y: "MiB resident".to_owned(),
            points: points.collect(),
        });
    };
    for (name, accounts) in names.iter().zip(found) {
        let Some(account) = accounts.first() else {
            continue;
        };
        if *name == "ours" {
            add("live", &account.looks, |look| look.live);
        }
        add(name, &account.looks, |look| look.resident);
        if *name == WITH_EPOCHS {
            add("ours-epoch, committed", &account.looks, |look| {
                look.committed
            });
        }
    }
}
