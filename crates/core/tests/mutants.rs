//! Each guard of the core taken out in turn: the simulator, the model or the enumerations must
//! notice. Needs the feature `mutants`, which no other build has:
//! `cargo test -p tier0-core --features mutants --test mutants -- --nocapture`
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    non_snake_case
)]

mod chaos;
mod enumerate;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chaos::day::Starts;
use tier0_core::guard::{Guard, take_out};

/// How many bad days a mutant is given to be noticed.
const SEEDS: u64 = 2_000;

fn said(why: &(dyn std::any::Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Who notices that a guard is gone, and by what.
fn killer(guard: Guard) -> Option<String> {
    let walks = [
        ("agent", enumerate::agent as fn() -> enumerate::Verdict),
        ("record", enumerate::record),
        ("readiness", enumerate::readiness),
    ];
    take_out(Some(guard));
    for (name, walk) in walks {
        if let Err(why) = walk() {
            let why: String = why.chars().take(110).collect();
            return Some(format!("enumeration of {name}: {why}"));
        }
    }
    let mut starts = Starts::default();
    for seed in 1..=SEEDS {
        let day = catch_unwind(AssertUnwindSafe(|| starts.bad_day(seed)));
        if let Err(why) = day {
            let why: String = said(&*why).chars().take(110).collect();
            return Some(format!("simulator, seed {seed}: {why}"));
        }
    }
    None
}

#[test]
fn mutants__every_guard_taken_out__is_noticed() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(guard) = Guard::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let killer = killer(*guard);
                    take_out(None);
                    let by = killer.as_deref().unwrap_or("NOBODY");
                    eprintln!("{:3} {:<22} {by}", guard.rule(), format!("{guard:?}"));
                    verdicts.lock().unwrap().push((*guard, killer));
                }
            });
        }
    });
    std::panic::set_hook(usual);
    let mut verdicts = verdicts.into_inner().unwrap();
    verdicts.sort_by_key(|(guard, _)| *guard);
    let mut survivors = Vec::new();
    for (guard, killer) in &verdicts {
        if killer.is_none() {
            survivors.push(guard);
        }
    }
    assert!(survivors.is_empty(), "nobody noticed that these are gone: {survivors:?}");
}
