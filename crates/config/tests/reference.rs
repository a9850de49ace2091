//! The descriptions against the structs, and the generated documents against the descriptions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tier0_config::{About, Change, Count, Fallback, Field, Kind, Limits, Stack};

fn load(text: &str) -> Stack {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Stack::load(file.path()).unwrap_or_else(|error| panic!("{error}"))
}

/// Every path of a description.
fn described(fields: &[Field], path: &str, out: &mut BTreeSet<String>) {
    for field in fields {
        let below = format!("{path}.{}", field.name);
        if let About::Table(table) = field.about {
            described(table.fields, &below, out);
        }
        out.insert(below);
    }
}

/// Every path of a serialised stack. What stands below a setting is its value.
fn serialised(fields: &[Field], tree: &toml::Table, path: &str, out: &mut BTreeSet<String>) {
    for (key, value) in tree {
        let below = format!("{path}.{key}");
        let table = fields.iter().find(|field| field.name == key).map(|field| field.about);
        if let Some(About::Table(table)) = table {
            let several = match value {
                toml::Value::Array(several) => several.clone(),
                one => vec![one.clone()],
            };
            for one in several {
                serialised(table.fields, one.as_table().unwrap(), &below, out);
            }
        }
        out.insert(below);
    }
}

#[test]
fn every_field_is_described_and_every_description_has_a_field() {
    let stack = load(&tier0_config::example());
    let (mut have, mut want) = (BTreeSet::new(), BTreeSet::new());
    serialised(Stack::FIELDS, &toml::Table::try_from(&stack).unwrap(), "", &mut have);
    described(Stack::FIELDS, "", &mut want);
    assert_eq!(have, want);
}

fn settings(fields: &[Field], check: &mut dyn FnMut(&str, &Field, tier0_config::Setting, bool)) {
    fn walk(
        fields: &[Field],
        path: &str,
        one: bool,
        check: &mut dyn FnMut(&str, &Field, tier0_config::Setting, bool),
    ) {
        for field in fields {
            let below = format!("{path}.{}", field.name);
            match field.about {
                About::Setting(setting) => check(&below, field, setting, one),
                About::Table(table) => {
                    let one = one && !matches!(table.count, Count::Many { .. });
                    walk(table.fields, &below, one, check);
                }
            }
        }
    }
    walk(fields, "", true, check);
}

#[test]
fn descriptions_are_whole() {
    settings(Stack::FIELDS, &mut |path, field, setting, one| {
        assert!(field.doc.join(" ").trim_end().ends_with('.'), "{path}: doc is a sentence");
        assert!(!setting.examples.is_empty(), "{path}: has an example");
        assert!(!setting.readers.is_empty(), "{path}: somebody reads it");
        // Reloading sets values only where there is one table of each name.
        assert!(one || setting.change == Change::Restart, "{path}: cannot change at once");
        if let Kind::Whole { least, most, .. } = setting.kind {
            assert!(least <= most && i64::try_from(most).is_ok(), "{path}: bounds");
        }
    });
}

#[test]
fn what_is_left_out_is_what_the_description_says() {
    let text: String = tier0_config::example()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let left_out = toml::Table::try_from(load(&text)).unwrap();
    assert_eq!(load(&text).limits, Limits::default());
    settings(Stack::FIELDS, &mut |path, _, setting, _| {
        let (Fallback::Value(value), Kind::Whole { .. } | Kind::Flag) =
            (setting.fallback, setting.kind)
        else {
            return;
        };
        let mut at = toml::Value::Table(left_out.clone());
        for key in path.trim_start_matches('.').split('.') {
            at = at.get(key).unwrap().clone();
            if let toml::Value::Array(several) = at {
                at = several[0].clone();
            }
        }
        assert_eq!(at, value.parse().unwrap(), "{path}");
    });
}

fn compare(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("TIER0_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/{name} is old: TIER0_BLESS=1 cargo test -p tier0-config");
}

#[test]
fn the_documents_are_what_is_generated() {
    compare("configuration.md", &tier0_config::reference());
    compare("stack.example.toml", &tier0_config::example());
}
