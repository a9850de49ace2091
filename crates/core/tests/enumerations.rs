//! Small spaces walked through whole: what an agent obeys, and how the record may change.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    non_snake_case
)]

mod enumerate;
mod world;

fn judge(name: &str, least: u64, verdict: enumerate::Verdict) {
    match verdict {
        Ok(looked) => {
            eprintln!("{name}: {looked} cases");
            assert!(looked >= least, "{name}: only {looked} cases");
        }
        Err(why) => panic!("{name}: {why}"),
    }
}

#[test]
fn agent__every_command_after_every_other__obeys_nothing_that_is_older() {
    judge("agent", 100_000, enumerate::agent());
}

#[test]
fn record__every_order_of_changes__abort_and_swap_exclude_each_other() {
    judge("record", 1_000, enumerate::record());
}

#[test]
fn leases__everything_an_agent_can_know__who_may_serve_and_who_must_wait() {
    judge("leases", 500, enumerate::leases());
}

#[test]
fn accepted_loss__at_every_moment_after_a_death__moves_nothing_before_it_is_said_to_be_one() {
    judge("accepted loss", 10, enumerate::accepted_loss());
}

#[test]
fn down_without_news__at_every_moment_of_its_lease__nobody_is_promoted_beside_it() {
    judge("servers that are down", 10, enumerate::down_without_news());
}

#[test]
fn silence__everything_that_three_sites_can_see__moves_the_writer_only_by_a_majority() {
    judge("a silence seen by three", 400, enumerate::silence());
}

#[test]
fn grants__of_one_that_was_cut_off__end_before_its_successor_has_waited() {
    judge("grants of one cut off", 1_000, enumerate::grants());
}

#[test]
fn readiness__every_consent__loss_is_accepted_only_with_the_old_side_known() {
    judge("readiness", 12, enumerate::readiness());
}

#[test]
fn guarantees__the_page_lists_every_guard_under_its_rule() {
    use std::collections::BTreeMap;

    use tier0_core::guard::Guard;

    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guarantees.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in page.lines() {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [rule, _, guards, _] = cells.as_slice() else { continue };
        let rule = rule.trim_start_matches("| ");
        let numbered = rule.len() == 2 && rule.ends_with(|last: char| last.is_ascii_digit());
        if numbered {
            let names = guards.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            listed.insert(rule.to_owned(), names);
        }
    }
    let mut guarded: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for guard in Guard::ALL {
        guarded.entry(guard.rule().to_owned()).or_default().push(format!("{guard:?}"));
    }
    assert!(listed.len() >= 20, "only {} rules are listed", listed.len());
    listed.retain(|_, names| !names.is_empty());
    let sorted = |mut of: BTreeMap<String, Vec<String>>| {
        of.values_mut().for_each(|names| names.sort());
        of
    };
    assert_eq!(sorted(listed), sorted(guarded));
}
