//! What is taken over from a changed file, what is refused, and when a change is looked at.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use tier0_config::{Follower, Looked, Reader, Reload, Stack, decide};

fn orchestrator() -> Reader {
    Reader::Orchestrator("witness".parse().unwrap())
}

fn agent() -> Reader {
    Reader::Agent("region1".parse().unwrap())
}

fn example_with(changes: &[(&str, &str)]) -> String {
    let mut text = tier0_config::example();
    for (from, to) in changes {
        assert!(text.contains(from), "the example has no {from}");
        text = text.replacen(from, to, 1);
    }
    text
}

fn stack(changes: &[(&str, &str)]) -> Stack {
    toml::from_str(&example_with(changes)).unwrap()
}

fn decided(changes: &[(&str, &str)], reader: &Reader) -> Reload {
    decide(&stack(&[]), &stack(changes), reader)
}

fn sentences(reload: &Reload) -> Vec<&str> {
    reload.refused.iter().map(|refused| refused.sentence.as_str()).collect()
}

#[test]
fn nothing_changed_is_nothing_done() {
    // The order of agents means nothing.
    let mut turned = stack(&[]);
    turned.agents.reverse();
    let reload = decide(&stack(&[]), &turned, &orchestrator());
    assert_eq!((reload.applied, reload.refused), (vec![], vec![]));
    assert_eq!(reload.stack, stack(&[]));
}

#[test]
fn limits_are_taken_over_and_the_rest_is_refused_by_name() {
    let changes = [
        ("# stop_ms = 2000", "stop_ms = 2500"),
        ("# poll_interval_ms = 200", "poll_interval_ms = 100"),
        ("listen = \"10.0.3.10:8003\"", "listen = \"10.0.3.10:9003\""),
        ("listen = \"10.0.2.10:8004\"", "listen = \"10.0.2.10:9004\""),
        ("max_wal_size = \"4GB\"", "max_wal_size = \"8GB\""),
    ];
    let reload = decided(&changes, &orchestrator());
    assert_eq!(reload.stack, stack(&changes[..1]));
    assert_eq!(reload.applied.len(), 1);
    assert_eq!(reload.applied[0].setting, "limits.stop_ms");
    assert_eq!(
        sentences(&reload),
        [
            "agent[region2].listen stays \"10.0.2.10:8004\", the file has \"10.0.2.10:9004\": \
             start the orchestrator of witness again",
            "limits.poll_interval_ms stays 200, the file has 100: start the orchestrator of \
             witness again",
            "orchestrator[witness].listen stays \"10.0.3.10:8003\", the file has \
             \"10.0.3.10:9003\": start the orchestrator of witness again",
        ]
    );
    // An agent has its own share of it: neither limits nor what is another agent's.
    let reload = decided(&changes, &agent());
    assert_eq!(reload.stack, stack(&[]));
    assert_eq!(reload.refused.len(), 1, "{:?}", reload.refused);
    let sentence = &reload.refused[0].sentence;
    assert!(sentence.starts_with("datastore[main].postgres.parameters stays {"), "{sentence}");
    assert!(sentence.ends_with("start the agent of region1 again"), "{sentence}");
}

#[test]
fn what_comes_and_goes_is_one_sentence() {
    let reload = decided(&[("name = \"cache\"", "name = \"other\"")], &agent());
    assert_eq!(
        sentences(&reload),
        [
            "datastore[cache] is gone from the file: start the agent of region1 again",
            "datastore[other] is new in the file: start the agent of region1 again",
        ]
    );
    let reload = decided(&[("policy = \"required\"\n", "")], &orchestrator());
    assert_eq!(
        sentences(&reload),
        [
            "datastore[main].policy stays \"required\", the file has nothing: start the orchestrator \
          of witness again"
        ]
    );
}

#[test]
fn a_limit_that_needs_a_refused_setting_is_refused_with_it() {
    let changes = [
        ("# pause_ms = 1000", "pause_ms = 4000"),
        ("down_after_ms = 5000", "down_after_ms = 9000"),
    ];
    let reload = decided(&changes, &orchestrator());
    assert_eq!(reload.stack, stack(&[]));
    assert_eq!(reload.applied, vec![]);
    assert_eq!(reload.refused.len(), 2);
    assert!(sentences(&reload)[1].contains("it would not agree"), "{:?}", sentences(&reload));
}

fn write(path: &Path, text: &str) {
    // As an editor does: another file in the place of the first.
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[test]
fn a_change_is_taken_up_once_it_has_settled_and_a_broken_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stack.toml");
    write(&path, &example_with(&[]));
    let mut follower = Follower::new(path.clone(), orchestrator(), stack(&[]));
    let stop_ms = |follower: &mut Follower| match follower.look() {
        Looked::Decided(reload) => Some(reload.stack.limits.stop_ms),
        Looked::Unchanged => None,
        Looked::Broken(error) => panic!("{error}"),
    };
    assert_eq!(stop_ms(&mut follower), None);
    assert_eq!(stop_ms(&mut follower), Some(2000));
    assert_eq!(stop_ms(&mut follower), None);

    write(&path, &example_with(&[("# stop_ms = 2000", "stop_ms = 2500")]));
    assert_eq!(stop_ms(&mut follower), None);
    write(&path, &example_with(&[("# stop_ms = 2000", "stop_ms = 2600")]));
    assert_eq!(stop_ms(&mut follower), None);
    assert_eq!(stop_ms(&mut follower), Some(2600));

    write(&path, "[limits]\nstop_ms = 1\n");
    assert!(matches!(follower.look(), Looked::Unchanged));
    assert!(matches!(follower.look(), Looked::Broken(_)));
    assert!(matches!(follower.look(), Looked::Unchanged), "said once");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(follower.load(), Looked::Broken(_)));

    // What is in force is the last that was taken over.
    write(&path, &example_with(&[]));
    let Looked::Decided(reload) = follower.load() else { panic!("not decided") };
    assert_eq!((reload.applied[0].was.as_str(), reload.applied[0].is.as_str()), ("2600", "2000"));
}
