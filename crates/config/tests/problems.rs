//! Everything that is wrong with a file is said at once, each at its line, and no secret with it.
#![allow(clippy::unwrap_used)]

use tier0_config::{ConfigError, Problem, Stack};

fn load(text: impl AsRef<[u8]>) -> Result<Stack, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Stack::load(file.path())
}

fn problems(text: impl AsRef<[u8]>) -> Vec<Problem> {
    match load(text) {
        Ok(_) => panic!("the file was accepted"),
        Err(ConfigError::Invalid { problems, .. }) => problems,
        Err(other) => panic!("{other}"),
    }
}

/// Sentences with the line that each points at.
fn said(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    problems(text)
        .into_iter()
        .map(|problem| {
            let place = problem.places.first().unwrap();
            format!("{} @ {}", problem.sentence, lines[place.line - 1])
        })
        .collect()
}

fn example_with(changes: &[(&str, &str)]) -> String {
    let mut text = tier0_config::example();
    for (from, to) in changes {
        assert!(text.contains(from), "the example has no {from}");
        text = text.replacen(from, to, 1);
    }
    text
}

#[test]
fn all_problems_come_at_once_each_at_its_line() {
    let text = example_with(&[
        ("# pause_ms = 1000", "pause_ms = 9000"),
        ("# poll_interval_ms = 200", "pol_interval_ms = 200"),
        ("# stop_ms = 2000", "stop_ms = \"2 s\""),
        ("# join_ms = 300", "join_ms = 3"),
        ("site = \"witness\"", "site = \"Witness\""),
        ("listen = \"10.0.1.10:8004\"", "listen = \"10.0.1.10\""),
        ("address = \"10.0.2.10:5432\"", "address = \"10.0.1.10:5432\""),
        ("policy = \"required\"", "policy = \"requird\""),
        ("admin_user = \"postgres\"\n", ""),
        ("regions = [\"region1\", \"region2\"]", "regions = [\"region1\", 2]"),
    ]);
    let said = said(&text);
    let expected = [
        "stack.regions: the name of a region is wanted, this is a whole number @ regions = [\"region1\", 2]",
        "orchestrator.site: 'Witness' cannot name a site: it must start with a lower-case letter @ site = \"Witness\"",
        "agent.listen: an IP address and a port are wanted, as in \"10.0.1.10:5432\" or \"[fd00::1]:5432\" @ listen = \"10.0.1.10\"",
        "datastore.policy: 'requird' is not one of required, follow; did you mean required? @ policy = \"requird\"",
        "node main.region2 and node main.region1 both have the address 10.0.1.10:5432 @ address = \"10.0.1.10:5432\"",
        "datastore.postgres.admin_user is missing; it is text, not empty @ [datastore.postgres]",
        "limits.pol_interval_ms is not known; did you mean poll_interval_ms? @ pol_interval_ms = 200",
        "limits.stop_ms: whole milliseconds, 10 to 600000 is wanted, this is text @ stop_ms = \"2 s\"",
        "limits.join_ms: 3 milliseconds is outside the bounds 10 to 600000 @ join_ms = 3",
        "limits.pause_ms = 9000 must be at most half of down_after_ms = 5000 of datastore cache: \
         a longer pause looks like a dead master @ pause_ms = 9000",
    ];
    for sentence in expected {
        assert!(said.iter().any(|one| one == sentence), "{sentence}\nnot in\n{}", said.join("\n"));
    }
    // Nothing follows from a stand-in.
    assert_eq!(said.len(), expected.len(), "{}", said.join("\n"));
}

#[test]
fn a_problem_is_printed_as_a_compiler_would() {
    let text = "[stack]\nname = \"shop\"\nregion = []\n\t[[agent]]\nregion = \"é\"\n";
    let error = load(text).unwrap_err().to_string();
    let path = error.split_once(" has ").unwrap().0.to_owned();
    let shown = error.replace(&path, "stack.toml");
    assert!(
        shown.contains(
            "stack.toml:3:1: stack.region is not known; did you mean regions?\n  \
               3 | region = []\n    \
                 | ^^^^^^\n"
        ),
        "{shown}"
    );
    assert!(shown.contains("stack.toml:5:10: agent.region: 'é' cannot name a region"), "{shown}");
}

#[test]
fn relations_point_at_both_settings() {
    let text = example_with(&[
        ("# cooperation_ms = 300", "cooperation_ms = 100"),
        ("# poll_interval_ms = 200", "poll_interval_ms = 150"),
    ]);
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:?}");
    let lines: Vec<&str> = found[0].places.iter().map(|place| place.text.as_str()).collect();
    assert_eq!(lines, ["cooperation_ms = 100", "poll_interval_ms = 150"]);
    assert!(found[0].sentence.contains("100") && found[0].sentence.contains("150"));
}

#[test]
fn a_read_port_is_a_routers_and_has_an_address_of_its_own() {
    let text = example_with(&[
        (
            "address = \"10.0.1.10:6432\"",
            "address = \"10.0.1.10:6432\"\nread_address = \"10.0.1.10:6433\"",
        ),
        ("read_address = \"10.0.2.10:6433\"", "read_address = \"10.0.2.10:6432\""),
    ]);
    let expected = [
        "route pool.region1: only a route of kind proxy has a read port @ read_address = \"10.0.1.10:6433\"",
        "the read port of route pool.region2 and route pool.region2 both have the address \
         10.0.2.10:6432 @ read_address = \"10.0.2.10:6432\"",
    ];
    assert_eq!(said(&text), expected);
}

#[test]
fn the_header_of_the_proxy_protocol_goes_to_nobody_who_does_not_understand_it() {
    let fronts = "fronts = { region1 = \"10.0.1.10:7432\", region2 = \"10.0.2.10:7432\" }";
    let text = example_with(&[(fronts, "fronts = { region1 = \"10.0.1.10:7432\" }")]);
    assert_eq!(
        said(&text),
        ["route pool.region2 would send the header of the PROXY protocol to node main.region2 \
          itself, and neither PostgreSQL nor Redis understands it: fronts must say what stands \
          before it @ proxy_protocol = \"v2\""]
    );
    let own = "fronts = { region1 = \"10.0.1.10:5432\", region2 = \"10.0.2.10:7432\" }";
    let text =
        example_with(&[(fronts, own), ("# proxy_protocol = \"off\"", "proxy_protocol = \"v2\"")]);
    assert_eq!(
        said(&text),
        [
            "route pool.region1: only a route of kind proxy has a setting for the PROXY protocol \
             @ proxy_protocol = \"v2\"",
            &format!(
                "route pool.region2: its front in region1 has the address of node main.region1 \
                 itself, 10.0.1.10:5432 @ {own}"
            ),
        ]
    );
    let loops = "fronts = { region1 = \"10.0.2.10:6433\", region2 = \"10.0.2.10:6433\" }";
    let found = said(&example_with(&[(fronts, loops)])).join("\n");
    assert!(found.contains("region1 and region2 have one front, 10.0.2.10:6433"), "{found}");
    assert!(found.contains("is a port of route pool.region2, 10.0.2.10:6433"), "{found}");
    let text = example_with(&[(fronts, "fronts = { Region1 = \"10.0.1.10:7432\" }")]);
    let found = said(&text).join("\n");
    assert!(found.contains("route.fronts: 'Region1' cannot name a region"), "{found}");
    let text = example_with(&[(fronts, "fronts = { region1 = \"here\" }")]);
    let found = said(&text).join("\n");
    assert!(found.contains("route.fronts: an IP address and a port are wanted"), "{found}");
}

#[test]
fn tables_that_are_missing_doubled_or_of_another_kind_are_named() {
    let empty = said("[limits]\n");
    assert!(empty.iter().any(|one| one.starts_with("the table [stack] is missing")), "{empty:?}");
    let text = example_with(&[
        ("[[orchestrator]]", "[orchestrator]"),
        ("[datastore.redis]", "[datastore.postgres]"),
        ("postgres = \"main\"", "postgres = \"cache\""),
        ("name = \"cache\"\n", "name = \"main\"\n"),
    ]);
    let found = said(&text).join("\n");
    assert!(found.contains("there may be several orchestrator: write [[orchestrator]]"), "{found}");
    assert!(found.contains("datastore main is named twice"), "{found}");
}

#[test]
fn mistakes_of_syntax_are_all_found() {
    let found = problems("[stack]\nname = \n\n[limits]\nstop_ms = 1 2\n[[agent\n");
    let lines: Vec<usize> = found.iter().map(|problem| problem.places[0].line).collect();
    assert!(lines.contains(&2) && lines.contains(&5) && lines.contains(&6), "{found:?}");
    let found = problems(b"[stack]\nname = \"\xff\"\n");
    assert_eq!((found[0].places[0].line, found[0].places[0].column), (2, 9));
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    const CANARY: &str = "tr0ub4dor";
    let stray = [
        ("role_token_file = \"/etc/tier0/role.token\"", format!("role_token = \"{CANARY}\"")),
        ("role_token_file = \"/etc/tier0/role.token\"", format!("role_token_file = {CANARY}")),
        (
            "role_token_file = \"/etc/tier0/role.token\"",
            format!("role_token_file = [\"{CANARY}\"]"),
        ),
        (
            "parameters = { appendonly",
            format!("parameters = {{ requirepass = [\"{CANARY}\"], appendonly"),
        ),
        (
            "parameters = { max_connections",
            format!("parameters = {{ primary_conninfo = \"password={CANARY}\", max_connections"),
        ),
    ];
    for (from, to) in stray {
        let error = load(example_with(&[(from, &to)])).unwrap_err().to_string();
        assert!(!error.contains(CANARY), "{error}");
    }
}

/// The example with so many orchestrators more, at these sites.
fn with_more_orchestrators(sites: &[&str]) -> String {
    let mut text = example_with(&[]);
    for (number, site) in sites.iter().enumerate() {
        text.push_str(&format!(
            "\n[[orchestrator]]\nsite = \"{site}\"\nlisten = \"10.0.{}.11:8003\"\n\
             state_directory = \"/var/lib/tier0/orchestrator\"\n\
             operate_token_file = \"/t1\"\naccept_loss_token_file = \"/t2\"\n",
            number + 1
        ));
    }
    text
}

#[test]
fn several_orchestrators_are_an_odd_number_at_sites_of_their_own_with_a_store_they_share() {
    let stack = load(with_more_orchestrators(&["region1", "region2"])).unwrap();
    assert_eq!(stack.orchestrators.len(), 3);
    let sentences = |text: &str| said(text).join("\n");
    let two = sentences(&with_more_orchestrators(&["region1"]));
    assert!(two.contains("the number of [[orchestrator]] must be odd, the file has 2"), "{two}");
    let twice = sentences(&with_more_orchestrators(&["region1", "region1"]));
    assert!(twice.contains("two orchestrators are at site region1"), "{twice}");
    let three = with_more_orchestrators(&["region1", "region2"]);
    let (before, store) = three.split_once("[store]").unwrap();
    let (_, after) = store.split_once("\n\n").unwrap();
    let alone = sentences(&format!("{before}\n{after}"));
    assert!(alone.contains("3 orchestrators need a store that they share"), "{alone}");
    let members = three.replace("etcd = [", "etcd = [] #");
    let none = sentences(&members);
    assert!(none.contains("store.etcd must name at least one member"), "{none}");
    let user = sentences(&three.replace("user = \"tier0\"\n", ""));
    assert!(user.contains("store.user and store.password_file are only there together"), "{user}");
}
