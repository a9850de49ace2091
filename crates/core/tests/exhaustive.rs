//! The exhaustive model: every history within a budget, with the real core deciding. Each budget is
//! walked through whole; `TIER0_LONG` walks through larger ones.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    non_snake_case
)]

mod model;
mod world;

use std::time::{Duration, Instant};

use model::{Budget, walk};

/// A move, and a write at any moment of it.
const CALM: Budget = Budget { moves: 1, writes: 1, ..Budget::NONE };

fn walked(name: &str, budget: Budget, most: Duration) -> usize {
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let walked = walk(budget, threads, most);
    eprintln!(
        "{name}: {} states, {} transitions, {} decisions of the core, {} deep, {:.1} s, reached {:?}",
        walked.states,
        walked.transitions,
        walked.decisions,
        walked.deepest,
        began.elapsed().as_secs_f32(),
        walked.reached
    );
    assert!(walked.wrong.is_none(), "{name}: {}", walked.wrong.unwrap_or_default());
    assert!(walked.whole, "{name}: not everything was walked through within {most:?}");
    assert!(walked.reached.contains(&"a move succeeds"), "{name}: {:?}", walked.reached);
    assert!(walked.reached.contains(&"the old side joins"), "{name}: {:?}", walked.reached);
    walked.states
}

#[test]
fn model__one_move_and_each_thing_that_can_go_wrong() {
    let most = Duration::from_secs(900);
    let states = walked("nothing goes wrong", CALM, most)
        + walked("an agent ends", Budget { agent_ends: 1, ..CALM }, most)
        + walked("an answer of the store is lost", Budget { store_lost: 1, ..CALM }, most)
        + walked("a command or outcome is lost", Budget { lost: 1, ..CALM }, most)
        + walked("a command comes twice", Budget { doubled: 1, ..CALM }, most)
        + walked("the orchestrator ends", Budget { core_ends: 1, ..CALM }, most)
        + walked("an agent seems silent", Budget { misses: 1, writes: 0, ..CALM }, most);
    eprintln!("{states} states in all");
}

#[test]
fn model__two_things_go_wrong_at_once() {
    if std::env::var_os("TIER0_LONG").is_none() {
        eprintln!("walked through with TIER0_LONG only");
        return;
    }
    let most = Duration::from_secs(4 * 3_600);
    walked("a server ends", Budget { server_ends: 1, ..CALM }, most);
    walked("the stream breaks", Budget { cuts: 1, waits: 1, ..CALM }, most);
    let loss = Budget { moves: 0, moves_with_loss: 1, misses: 1, ..CALM };
    walked("loss is accepted", loss, most);
    walked("orchestrator and agent", Budget { core_ends: 1, agent_ends: 1, ..CALM }, most);
    walked("lost and doubled", Budget { lost: 1, doubled: 1, ..CALM }, most);
}
