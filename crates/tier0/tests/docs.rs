//! The documents against the code: codes, metrics, commands, limits and examples that are named
//! there exist, and what exists is named there.
//!
//! Left out: the tables of steps and decisions (`crates/core/tests/states.rs`), and links and the
//! form of pages (`scripts/tidy`, which is run from here where Python is).
#![allow(clippy::unwrap_used, non_snake_case)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file below a directory with this ending.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The sources of every crate, without tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let source = entry.unwrap().path().join("src");
        for path in files(&source, ".rs") {
            if path.file_name().is_some_and(|name| name == "tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned();
            found.push((path, text));
        }
    }
    found
}

/// Every page that is read by people.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = files(&root().join("docs"), ".md");
    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md") {
            paths.push(path);
        }
    }
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// What stands between the first quotation marks, where the text begins with one.
fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.split('"').next()
}

/// The code in the arguments of a call, if it stands there.
fn code_in(arguments: &str, source: &str) -> Option<String> {
    let mut text = arguments.trim_start();
    for status in ["StatusCode::", "error.status()"] {
        if text.starts_with(status) {
            text = text.split_once(',')?.1.trim_start();
        }
    }
    if let Some(code) = quoted(text) {
        return Some(code.to_owned());
    }
    if text.starts_with("CODE,") {
        let value = source.split_once("const CODE: &str =")?.1.trim_start();
        return quoted(value).map(str::to_owned);
    }
    // The one code that is made of another name: of the step that did not work.
    text.starts_with("&format!(\"{}-failed\"").then(|| "step-failed".to_owned())
}

/// Every code that can be said, with the place of one that says it.
fn codes() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for (path, source) in sources() {
        for call in ["Refusal::new(", "Finding::new(", "Refused::new(", "::refused("] {
            for (place, _) in source.match_indices(call) {
                let arguments = &source[place + call.len()..];
                if let Some(code) = code_in(arguments, &source) {
                    found.insert(code, path.clone());
                }
            }
        }
        for (place, start) in source.match_indices("let finding = |level, sentence| Finding::new(")
        {
            if let Some(code) = code_in(&source[place + start.len()..], &source) {
                found.insert(code, path.clone());
            }
        }
        // How an operation ended is a code as well.
        if path.ends_with("orchestrator/src/report.rs") {
            let ends = source.split_once("fn code(").unwrap().1.split_once("\n}").unwrap().0;
            for part in ends.split("=> Some(\"").skip(1) {
                found.insert(part.split('"').next().unwrap().to_owned(), path.clone());
            }
        }
    }
    found
}

#[test]
fn codes__each_has_a_page_and_each_page_a_code() {
    let codes = codes();
    assert!(codes.len() > 50, "the search for codes finds only {}: it is broken", codes.len());
    let directory = root().join("docs/codes");
    let pages: BTreeSet<String> = files(&directory, ".md")
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "README")
        .collect();
    let list = std::fs::read_to_string(directory.join("README.md")).unwrap();
    let mut wrong = Vec::new();
    for (code, path) in &codes {
        if !pages.contains(code) {
            wrong.push(format!("{}: docs/codes/{code}.md is missing", path.display()));
        }
        if !list.contains(&format!("[`{code}`]({code}.md)")) {
            wrong.push(format!("docs/codes/README.md does not list {code}"));
        }
    }
    for page in pages.iter().filter(|page| !codes.contains_key(*page)) {
        wrong.push(format!("docs/codes/{page}.md: nothing says this code"));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn metrics__each_is_described() {
    let page = std::fs::read_to_string(root().join("docs/monitoring.md")).unwrap();
    let metrics: String = files(&root().join("crates/orchestrator/src/metrics"), ".rs")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let names: Vec<&str> = metrics
        .match_indices(".register(")
        .filter_map(|(place, call)| quoted(metrics[place + call.len()..].trim_start()))
        .collect();
    assert!(names.len() > 30, "the search for metrics is broken: {names:?}");
    let described = |name: &str| {
        ["", "_total", "_seconds"].iter().any(|end| page.contains(&format!("| `{name}{end}` |")))
    };
    let missing: Vec<&&str> = names.iter().filter(|name| !described(name)).collect();
    assert!(missing.is_empty(), "docs/monitoring.md does not describe {missing:?}");
}

/// The help of a command, or `None` where there is no such command.
fn help(path: &[String]) -> Option<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tier0")).args(path).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// What stands after `tier0` in a line of a shell, if that is what it runs.
fn command_in(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("$ ");
    let line = match line.strip_prefix("sudo -u ") {
        Some(rest) => rest.split_once(' ')?.1,
        None => line,
    };
    let line = line.split(" #").next()?;
    line.strip_prefix("tier0 ")
}

/// Every command in a page: in blocks of shell, and in the text.
fn commands_in(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<bool> = None;
    let mut text = String::new();
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            block = match block {
                None => Some(matches!(kind, "sh" | "console")),
                Some(_) => None,
            };
            continue;
        }
        match block {
            Some(true) => found.extend(command_in(line).map(str::to_owned)),
            Some(false) => {}
            None => {
                text.push_str(line);
                text.push(' ');
            }
        }
    }
    found.extend(text.split('`').skip(1).step_by(2).filter_map(command_in).map(str::to_owned));
    found
}

/// What is wrong with a command, if anything is.
fn problem_of(command: &str, known: &mut BTreeMap<Vec<String>, Option<String>>) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().filter(|word| *word != "…").collect();
    let mut look = |path: &[String]| -> Option<String> {
        known.entry(path.to_vec()).or_insert_with(|| help(path)).clone()
    };
    let mut path: Vec<String> = Vec::new();
    let mut said = look(&path).unwrap();
    for word in &words {
        if !said.contains("<COMMAND>") || word.starts_with('-') {
            break;
        }
        path.push((*word).to_owned());
        match look(&path) {
            Some(text) => said = text,
            None => return Some(format!("there is no command `tier0 {}`", path.join(" "))),
        }
    }
    // What follows `lab exec` belongs to psql or redis-cli.
    if path == ["lab", "exec"] {
        return None;
    }
    words
        .iter()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.split('=').next().unwrap())
        .find(|flag| !said.contains(*flag))
        .map(|flag| format!("`tier0 {}` has no {flag}", path.join(" ")))
}

#[test]
fn commands__each_is_known_with_its_flags() {
    let mut known = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (path, page) in pages() {
        for command in commands_in(&page) {
            checked += 1;
            if let Some(problem) = problem_of(&command, &mut known) {
                wrong.push(format!("{}: {problem}", path.display()));
            }
        }
    }
    for path in files(&root().join("deploy/systemd"), ".service") {
        let unit = std::fs::read_to_string(&path).unwrap();
        for line in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/tier0 ")) {
            checked += 1;
            if let Some(problem) = problem_of(line, &mut known) {
                wrong.push(format!("{}: {problem}", path.display()));
            }
        }
    }
    assert!(checked > 100, "the search for commands finds only {checked}: it is broken");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn commands__make_knows_each_target() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let mut wrong = Vec::new();
    for (path, page) in pages() {
        let spans = page.split('`').skip(1).step_by(2);
        let lines = page.lines();
        for text in spans.chain(lines) {
            let text = text.strip_prefix("KEEP=1 ").unwrap_or(text);
            let Some(target) = text.strip_prefix("make ").and_then(|rest| rest.split(' ').next())
            else {
                continue;
            };
            let target = target.trim();
            if !makefile.contains(&format!("\n{target}:")) {
                wrong.push(format!("{}: make {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The blocks of one kind in a page.
fn blocks<'a>(page: &'a str, kind: &str) -> Vec<&'a str> {
    let begin = format!("\n```{kind}\n");
    page.split(&begin).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

#[test]
fn deployment__the_stack_file_can_be_used() {
    let page = std::fs::read_to_string(root().join("docs/deployment.md")).unwrap();
    let examples = blocks(&page, "toml");
    let [example, three] = examples.as_slice() else { panic!("{} examples", examples.len()) };
    let load = |text: &str| {
        let path = std::env::temp_dir().join(format!("tier0-docs-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let loaded = tier0_config::Stack::load(&path);
        std::fs::remove_file(&path).unwrap();
        loaded.unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(load(&format!("{example}\n{three}")).orchestrators.len(), 3);
    let stack = load(example);
    let text = stack.to_toml().unwrap();
    let limits = text.split_once("[limits]\n").unwrap().1;
    for line in limits.lines().take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(" = ").unwrap();
        let row = format!("| `{name}` | {value} |");
        assert!(page.contains(&row), "docs/deployment.md lacks the row {row}");
    }
}

#[test]
fn tidy__finds_nothing() {
    let script = root().join("scripts/tidy");
    let python = Command::new("python3").args(["-c", "import tomllib"]).output();
    if !python.is_ok_and(|output| output.status.success()) {
        eprintln!("python3 with tomllib is not here: the house rules were not checked");
        return;
    }
    let output = Command::new("python3").arg(script).output().unwrap();
    assert!(
        output.status.success(),
        "\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
