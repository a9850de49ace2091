//! What becomes of a changed file: what the running role takes over, and what it refuses.
//!
//! Only settings whose description says so are taken over; addresses, directories and the shape of
//! the stack belong to a process from its start to its end. Left out: the contents of secrets,
//! which are read at the start.

use std::collections::BTreeMap;

use tier0_core::words::{Region, Site};

use crate::describe::{About, Change, Count, Field, Role, Setting};
use crate::relations;
use crate::settings::Stack;

/// The process that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// The orchestrator of a site.
    Orchestrator(Site),
    /// The agent of a region.
    Agent(Region),
    /// The reference backend of a region.
    Backend(Region),
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// What to run with.
    pub stack: Stack,
    /// What is taken over.
    pub applied: Vec<Applied>,
    /// What is not.
    pub refused: Vec<Refused>,
}

/// A setting that is taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its path.
    pub setting: String,
    /// Its value so far.
    pub was: String,
    /// Its value from now on.
    pub is: String,
}

/// A setting that keeps its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its path, with the name of the agent, datastore or node it belongs to.
    pub setting: String,
    /// What differs, and what to start again.
    pub sentence: String,
}

impl Reader {
    fn role(&self) -> Role {
        match self {
            Reader::Orchestrator(_) => Role::Orchestrator,
            Reader::Agent(_) => Role::Agent,
            Reader::Backend(_) => Role::Backend,
        }
    }

    /// What to start again, by name.
    fn named(&self) -> String {
        match self {
            Reader::Orchestrator(site) => format!("the orchestrator of {site}"),
            Reader::Agent(region) => format!("the agent of {region}"),
            Reader::Backend(region) => format!("telemetry-api of {region}"),
        }
    }

    /// Whether a path concerns another process of the same role only.
    fn leaves_to_another(&self, path: &str) -> bool {
        let (table, own) = match self {
            Reader::Orchestrator(site) => ("orchestrator[", site.as_str()),
            Reader::Agent(region) => ("agent[", region.as_str()),
            Reader::Backend(region) => ("telemetry[", region.as_str()),
        };
        path.strip_prefix(table)
            .is_some_and(|rest| rest.split(']').next().is_some_and(|name| name != own))
    }
}

/// What a path holds.
#[derive(Debug, Clone)]
enum Held {
    /// An entry of an array of tables; the roles that read something in it.
    Entry(Vec<Role>),
    /// A setting's value.
    Value(Setting, toml::Value),
}

impl Held {
    fn value(&self) -> Option<&toml::Value> {
        match self {
            Held::Entry(_) => None,
            Held::Value(_, value) => Some(value),
        }
    }

    fn is_read_by(&self, role: Role) -> bool {
        match self {
            Held::Entry(readers) => readers.contains(&role),
            Held::Value(setting, _) => setting.readers.contains(&role),
        }
    }
}

/// Compare a file, which is valid by itself, with what is running.
pub fn decide(running: &Stack, file: &Stack, reader: &Reader) -> Reload {
    match weigh(running, file, reader) {
        Ok(reload) => reload,
        Err(error) => Reload {
            stack: running.clone(),
            applied: Vec::new(),
            refused: vec![Refused {
                setting: String::new(),
                sentence: format!("the settings cannot be compared: {error}"),
            }],
        },
    }
}

fn weigh(
    running: &Stack,
    file: &Stack,
    reader: &Reader,
) -> Result<Reload, Box<dyn std::error::Error>> {
    let mut next = toml::Table::try_from(running)?;
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten(Stack::FIELDS, &next, "", &mut old);
    flatten(Stack::FIELDS, &toml::Table::try_from(file)?, "", &mut new);
    let (mut applied, mut refused) = (Vec::new(), Vec::new());
    for (path, held) in old.iter().chain(new.iter().filter(|(path, _)| !old.contains_key(*path))) {
        let (was, is) = (old.get(path), new.get(path));
        let lost_with_its_table = |other: &BTreeMap<String, Held>| {
            entries_around(path).any(|entry| !other.contains_key(entry))
        };
        let same = was.is_some() == is.is_some() && was.map(Held::value) == is.map(Held::value);
        if same
            || !held.is_read_by(reader.role())
            || reader.leaves_to_another(path)
            || lost_with_its_table(&old)
            || lost_with_its_table(&new)
        {
            continue;
        }
        match (held, is) {
            (
                Held::Value(Setting { change: Change::AtOnce, .. }, _),
                Some(Held::Value(_, value)),
            ) => {
                let shown = |held: Option<&Held>| held.map_or_else(|| "nothing".to_owned(), show);
                applied.push(Applied { setting: path.clone(), was: shown(was), is: shown(is) });
                set(&mut next, path, value.clone());
            }
            _ => {
                let sentence =
                    format!("{}: start {} again", differs(path, was, is), reader.named());
                refused.push(Refused { setting: path.clone(), sentence });
            }
        }
    }
    let stack: Stack = toml::Value::Table(next).try_into()?;
    // What is taken over must agree with what is kept, too.
    let broken = relations::broken(&stack);
    if broken.is_empty() {
        return Ok(Reload { stack, applied, refused });
    }
    for Applied { setting, was, is } in applied {
        let why: Vec<&str> = broken.iter().map(|broken| broken.sentence.as_str()).collect();
        let sentence = format!(
            "{setting} stays {was}, the file has {is}: with what keeps running it would not agree \
             ({}); start {} again",
            why.join("; "),
            reader.named()
        );
        refused.push(Refused { setting, sentence });
    }
    Ok(Reload { stack: running.clone(), applied: Vec::new(), refused })
}

fn differs(path: &str, was: Option<&Held>, is: Option<&Held>) -> String {
    match (was, is) {
        (Some(Held::Entry(_)), None) => format!("{path} is gone from the file"),
        (None, Some(Held::Entry(_))) => format!("{path} is new in the file"),
        (was, is) => {
            let shown = |held: Option<&Held>| held.map_or_else(|| "nothing".to_owned(), show);
            format!("{path} stays {}, the file has {}", shown(was), shown(is))
        }
    }
}

fn show(held: &Held) -> String {
    match held {
        Held::Entry(_) => "there".to_owned(),
        Held::Value(_, value) => value.to_string(),
    }
}

/// Every entry of an array of tables that a path lies in, itself left out.
fn entries_around(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices("].").map(|(at, _)| &path[..=at])
}

/// Every setting by its path; entries are named by what tells them apart, not by their order.
fn flatten(fields: &[Field], tree: &toml::Table, path: &str, out: &mut BTreeMap<String, Held>) {
    for field in fields {
        let Some(value) = tree.get(field.name) else { continue };
        let below =
            if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        match (field.about, value) {
            (About::Setting(setting), value) => {
                out.insert(below, Held::Value(setting, value.clone()));
            }
            (About::Table(table), toml::Value::Table(tree)) => {
                flatten(table.fields, tree, &below, out);
            }
            (About::Table(table), toml::Value::Array(several)) => {
                for one in several.iter().filter_map(toml::Value::as_table) {
                    let Count::Many { key, .. } = table.count else { continue };
                    let name = one.get(key).and_then(toml::Value::as_str).unwrap_or_default();
                    let entry = format!("{below}[{name}]");
                    out.insert(entry.clone(), Held::Entry(readers(table.fields)));
                    flatten(table.fields, one, &entry, out);
                }
            }
            (About::Table(_), _) => {}
        }
    }
}

fn readers(fields: &[Field]) -> Vec<Role> {
    let mut all = Vec::new();
    for field in fields {
        match field.about {
            About::Setting(setting) => all.extend(setting.readers),
            About::Table(table) => all.extend(readers(table.fields)),
        }
    }
    all
}

/// Set a value in tables of which there is one each; others hold nothing that is taken over.
fn set(tree: &mut toml::Table, path: &str, value: toml::Value) {
    match path.split_once('.') {
        None => {
            tree.insert(path.to_owned(), value);
        }
        Some((table, rest)) => {
            if let Some(toml::Value::Table(below)) = tree.get_mut(table) {
                set(below, rest, value);
            }
        }
    }
}
