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

use chaos::Early;
use chaos::day::Starts;
use tier0_core::guard::{Guard, take_out};

/// How many bad days a mutant is given to be noticed.
const SEEDS: u64 = 2_000;

fn said(why: &(dyn std::any::Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// By what a guard that stands behind another is noticed, once that one is gone as well.
fn noticed_by(guard: Guard) -> &'static str {
    match guard {
        Guard::RecordBeforeLeave => "is sent and the record has a member",
        Guard::RecordBeforeUnfence => "is sent and no abort is stored",
        _ => "",
    }
}

/// Days that are lived through before all others: those that are known to notice what few do.
fn known_days(guard: Guard) -> &'static [u64] {
    match guard {
        Guard::MasterIsAsked => &[1298],
        _ => &[],
    }
}

/// Who notices that a guard is gone, and by what.
fn killer(guard: Guard) -> Option<String> {
    let walks = [
        ("agent", enumerate::agent as fn() -> enumerate::Verdict),
        ("record", enumerate::record),
        ("readiness", enumerate::readiness),
        ("leases", enumerate::leases),
        ("accepted loss", enumerate::accepted_loss),
        ("servers that are down", enumerate::down_without_news),
        ("a silence seen by three", enumerate::silence),
        ("grants of one cut off", enumerate::grants),
    ];
    take_out([Some(guard), guard.behind()]);
    chaos::early_commands(match guard.behind() {
        Some(_) => Early::LetPass,
        None => Early::Wrong,
    });
    for (name, walk) in walks {
        // A panic is of the small world itself, and shows nothing.
        let verdict = catch_unwind(walk).unwrap_or(Ok(0));
        if let (Err(why), None) = (verdict, guard.behind()) {
            let why: String = why.chars().take(110).collect();
            return Some(format!("enumeration of {name}: {why}"));
        }
    }
    let mut starts = Starts::default();
    for seed in known_days(guard).iter().copied().chain(1..=SEEDS) {
        let day = catch_unwind(AssertUnwindSafe(|| starts.bad_day(seed)));
        let why = day.err().map(|why| said(&*why));
        if let Some(why) = why.filter(|why| why.contains(noticed_by(guard))) {
            let why: String = why.chars().take(110).collect();
            return Some(format!("simulator, seed {seed}: {why}"));
        }
    }
    None
}

/// `TIER0_GUARDS=OldEpoch,OldStamp` looks at these only.
fn asked_for(guard: Guard) -> bool {
    let asked = std::env::var("TIER0_GUARDS").unwrap_or_default();
    asked.is_empty() || asked.split(',').any(|name| name == format!("{guard:?}"))
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
                    if !asked_for(*guard) {
                        continue;
                    }
                    let killer = killer(*guard);
                    take_out([None; 2]);
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
