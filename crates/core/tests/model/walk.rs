//! Walking through everything that can happen within a budget.

use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use super::{Budget, Reached, Stack};

/// What walking through a stack came to.
#[derive(Debug)]
pub struct Walked {
    /// Nothing was left out for lack of time.
    pub whole: bool,
    pub states: usize,
    pub transitions: usize,
    pub decisions: usize,
    pub deepest: usize,
    pub reached: Vec<&'static str>,
    /// What the core did, over all its decisions.
    pub did: Reached,
    /// What is wrong, and the way there.
    pub wrong: Option<String>,
}

/// Walk through everything that can happen within a budget.
pub fn walk(budget: Budget, threads: usize, limit: Duration) -> Walked {
    let began = Instant::now();
    let checker = Stack::new(budget)
        .checker()
        .threads(threads)
        .finish_when(stateright::HasDiscoveries::AnyFailures)
        .timeout(limit)
        .spawn_dfs()
        .join();
    let wrong = checker.discovery("nothing is wrong").map(|path| {
        let what = path.last_state().wrong.clone().unwrap_or_default();
        format!("{what}, after {:?}", path.into_actions())
    });
    Walked {
        whole: began.elapsed() < limit,
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        decisions: checker.model().decided(),
        deepest: checker.max_depth(),
        reached: checker.discoveries().into_keys().collect(),
        did: checker.model().decisions.reached(),
        wrong,
    }
}
