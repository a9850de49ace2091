//! Thousands of bad days: whatever goes wrong, no acknowledged write is lost, nobody acknowledges
//! beside the writer, and once everything works again the stack is whole without help.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    non_snake_case
)]

mod chaos;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use chaos::{Chaos, Counts, Random};

const SECOND: u64 = 1_000_000;

/// How long the stack has to become whole after everything is healed.
const HEALED_WITHIN: u64 = 60 * SECOND;

/// How many bad days there are; `TIER0_SEEDS` asks for more, `TIER0_SEED` for one.
const SEEDS: u64 = 2_000;

fn whole(postgres: usize, redis: usize) -> Chaos {
    let mut chaos = Chaos::new(postgres, redis);
    assert!(chaos.run(20 * SECOND, Chaos::is_whole), "{}", chaos::said());
    chaos
}

fn bad_day(start: &Chaos, seed: u64) -> Counts {
    chaos::forget();
    let mut chaos = start.clone();
    chaos.seed = seed;
    chaos.random = Random::new(seed);
    chaos.wild = true;
    let lasts = chaos.random.between(1_000_000, 6_000_000);
    chaos.run(lasts, |_| false);
    chaos.heal();
    let until = chaos.now + HEALED_WITHIN;
    while !chaos.run(3 * SECOND, Chaos::is_whole) {
        assert!(chaos.now < until, "not whole after a minute: {:#?}", chaos.stored);
        chaos.release_held();
    }
    chaos.run(SECOND / 2, |_| false);
    chaos.assert_nothing_lost();
    chaos.counts
}

fn judged(start: &Chaos, seed: u64) -> Counts {
    match catch_unwind(AssertUnwindSafe(|| bad_day(start, seed))) {
        Ok(counts) => counts,
        Err(why) => {
            eprintln!("{}\nTIER0_SEED={seed} shows this day again", chaos::said());
            resume_unwind(why)
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn bad_days(postgres: usize, redis: usize, seeds: u64) -> Counts {
    let start = whole(postgres, redis);
    if let Some(seed) = number("TIER0_SEED") {
        return judged(&start, seed);
    }
    let mut all = Counts::default();
    for seed in 1..=number("TIER0_SEEDS").unwrap_or(seeds) {
        all.add(&judged(&start, seed));
    }
    eprintln!("{all:#?}");
    all
}

#[test]
fn bad_days__one_of_each__nothing_acknowledged_is_lost_and_it_heals_by_itself() {
    let all = bad_days(1, 1, SEEDS);
    if number("TIER0_SEED").is_none() {
        assert!(
            all.swaps > 500 && all.resumed > 100 && all.moves_aborted > 50,
            "too kind: {all:?}"
        );
    }
}

#[test]
fn bad_days__two_of_each__nothing_acknowledged_is_lost_and_it_heals_by_itself() {
    bad_days(2, 2, SEEDS / 4);
}
