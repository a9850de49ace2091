//! From the file's bytes to a stack, or to everything that is wrong with them.
//!
//! The parsed file is walked along the description of the settings. Where something is wrong, a
//! stand-in takes its place, so that relations between the other settings are checked as well. A
//! stack without problems is read by serde from the text itself: the walk only ever adds refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::describe::{About, Count, Fallback, Field, Setting};
use crate::nearest::nearest;
use crate::problem::{Place, Problem};
use crate::relations;
use crate::settings::Stack;
use crate::value;

/// Read and check a file's content.
pub(crate) fn check(bytes: &[u8]) -> Result<Stack, Vec<Problem>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(vec![not_text(bytes, error.valid_up_to())]),
    };
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What was meant around a mistake of syntax is a guess: nothing else is judged.
        return Err(sorted(errors.iter().map(|error| syntax(text, error)).collect()));
    }
    let mut walk =
        Walk { text, problems: Vec::new(), spans: BTreeMap::new(), failed: BTreeSet::new() };
    let patched = walk.table(Stack::FIELDS, tree.get_ref(), "", 0..0);
    let stack = if walk.problems.is_empty() {
        match toml::from_str::<Stack>(text) {
            Ok(stack) => Some(stack),
            Err(error) => {
                walk.problems.push(syntax(text, &error));
                None
            }
        }
    } else {
        toml::Value::Table(patched).try_into::<Stack>().ok()
    };
    if let Some(stack) = &stack {
        for broken in relations::broken(stack) {
            walk.relation(broken);
        }
    }
    match stack {
        Some(stack) if walk.problems.is_empty() => Ok(stack),
        Some(_) | None => Err(sorted(walk.problems)),
    }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| (&a.places, &a.sentence).cmp(&(&b.places, &b.sentence)));
    problems
}

fn not_text(bytes: &[u8], valid: usize) -> Problem {
    let text = String::from_utf8_lossy(bytes);
    // What is valid stands in the lossy text as it is.
    Problem {
        sentence: "this byte is not UTF-8, which TOML must be".to_owned(),
        places: vec![Place::new(&text, valid..valid)],
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let places = error.span().map(|span| Place::new(text, span)).into_iter().collect();
    Problem { sentence: error.message().to_owned(), places }
}

struct Walk<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    /// Where each setting's value and each table's header is, by indexed path.
    spans: BTreeMap<String, Range<usize>>,
    /// What has a stand-in, by indexed path.
    failed: BTreeSet<String>,
}

impl Walk<'_> {
    fn problem(&mut self, span: Range<usize>, sentence: String) {
        self.problems.push(Problem { sentence, places: vec![Place::new(self.text, span)] });
    }

    fn table(
        &mut self,
        fields: &[Field],
        tree: &DeTable<'_>,
        path: &str,
        header: Range<usize>,
    ) -> toml::Table {
        self.spans.insert(path.to_owned(), header.clone());
        let mut patched = toml::Table::new();
        for (key, value) in tree.iter() {
            let Some(field) = fields.iter().find(|field| field.name == key.get_ref().as_ref())
            else {
                self.unknown(fields, key.get_ref(), key.span(), path);
                continue;
            };
            let below = join(path, field.name);
            let found = match field.about {
                About::Setting(setting) => self.setting(&setting, value, &below),
                About::Table(table) => match (table.count, value.get_ref()) {
                    (Count::One | Count::Optional { .. }, DeValue::Table(tree)) => {
                        Some(self.table(table.fields, tree, &below, value.span()).into())
                    }
                    (Count::Many { .. }, DeValue::Array(several)) => {
                        Some(self.several(table.fields, several, &below))
                    }
                    (count, other) => {
                        let name = plain(&below);
                        let form = match count {
                            Count::One | Count::Optional { .. } => {
                                format!("{name} is one table: write [{name}]")
                            }
                            Count::Many { .. } => {
                                format!("there may be several {name}: write [[{name}]]")
                            }
                        };
                        let found = value::kind_of(other);
                        self.problem(value.span(), format!("{form}, this is {found}"));
                        self.failed.insert(below);
                        stand_in(field)
                    }
                },
            };
            if let Some(found) = found {
                patched.insert(field.name.to_owned(), found);
            }
        }
        for field in fields {
            if !tree.keys().any(|key| key.get_ref().as_ref() == field.name) {
                self.missing(field, path, header.clone(), &mut patched);
            }
        }
        patched
    }

    fn several(
        &mut self,
        fields: &[Field],
        several: &[Spanned<DeValue<'_>>],
        path: &str,
    ) -> toml::Value {
        let mut patched = Vec::new();
        for (index, one) in several.iter().enumerate() {
            let below = format!("{path}[{index}]");
            match one.get_ref() {
                DeValue::Table(tree) => {
                    patched.push(self.table(fields, tree, &below, one.span()).into());
                }
                other => {
                    let (name, found) = (plain(path), value::kind_of(other));
                    self.problem(one.span(), format!("each {name} is a table, this is {found}"));
                    self.failed.insert(path.to_owned());
                }
            }
        }
        toml::Value::Array(patched)
    }

    fn setting(
        &mut self,
        setting: &Setting,
        value: &Spanned<DeValue<'_>>,
        path: &str,
    ) -> Option<toml::Value> {
        self.spans.insert(path.to_owned(), value.span());
        match value::check(setting.kind, value) {
            Ok(found) => Some(found),
            Err(wrong) => {
                self.problem(wrong.span, format!("{}: {}", plain(path), wrong.sentence));
                self.failed.insert(path.to_owned());
                stand_in_for(setting)
            }
        }
    }

    fn unknown(&mut self, fields: &[Field], key: &str, span: Range<usize>, path: &str) {
        let whole = plain(&join(path, &key.chars().take(60).collect::<String>()));
        let names = || fields.iter().map(|field| field.name);
        let hint = match nearest(key, names()) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("here may stand {}", names().collect::<Vec<_>>().join(", ")),
        };
        self.problem(span, format!("{whole} is not known; {hint}"));
    }

    fn missing(
        &mut self,
        field: &Field,
        path: &str,
        header: Range<usize>,
        patched: &mut toml::Table,
    ) {
        let below = join(path, field.name);
        let name = plain(&below);
        let sentence = match field.about {
            About::Setting(Setting { fallback: Fallback::Required, kind, .. }) => {
                format!("{name} is missing; it is {}", kind.sentence())
            }
            About::Table(table) if table.count == Count::One => {
                format!("the table [{name}] is missing")
            }
            About::Setting(_) => return,
            About::Table(table) => {
                if matches!(table.count, Count::Many { .. }) {
                    patched.insert(field.name.to_owned(), toml::Value::Array(Vec::new()));
                }
                return;
            }
        };
        self.problem(header, sentence);
        self.failed.insert(below);
        if let Some(found) = stand_in(field) {
            patched.insert(field.name.to_owned(), found);
        }
    }

    /// A relation is only judged on what was read, not on stand-ins.
    fn relation(&mut self, broken: relations::Broken) {
        let is_below = |path: &str, above: &str| {
            path.strip_prefix(above)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let on_stand_in = broken.depends.iter().any(|path| {
            self.failed.iter().any(|failed| is_below(path, failed) || is_below(failed, path))
        });
        if on_stand_in {
            return;
        }
        let mut places = Vec::new();
        for path in &broken.at {
            let place = Place::new(self.text, self.span_of(path));
            if !places.contains(&place) {
                places.push(place);
            }
        }
        self.problems.push(Problem { sentence: broken.sentence, places });
    }

    /// Where a path is, or else the nearest table around it.
    fn span_of(&self, path: &str) -> Range<usize> {
        let mut path = path;
        loop {
            if let Some(span) = self.spans.get(path) {
                return span.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return 0..0,
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A path without its indices, as the reference names it.
fn plain(path: &str) -> String {
    let mut out = String::new();
    let mut inside = 0;
    for c in path.chars() {
        match c {
            '[' => inside += 1,
            ']' => inside -= 1,
            c if inside == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

/// What takes the place of something that must be there.
fn stand_in(field: &Field) -> Option<toml::Value> {
    match field.about {
        About::Setting(setting) => stand_in_for(&setting),
        About::Table(table) => match table.count {
            Count::One => {
                let keys = table.fields.iter();
                let below = keys
                    .filter_map(|field| Some((field.name.to_owned(), stand_in(field)?)))
                    .collect();
                Some(toml::Value::Table(below))
            }
            Count::Optional { .. } => None,
            Count::Many { .. } => Some(toml::Value::Array(Vec::new())),
        },
    }
}

fn stand_in_for(setting: &Setting) -> Option<toml::Value> {
    match setting.fallback {
        Fallback::Required => setting.examples.first()?.parse().ok(),
        Fallback::Value(_) | Fallback::Nothing(_) => None,
    }
}
