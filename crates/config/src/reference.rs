//! The reference and the example, from the descriptions of the settings.

use std::collections::BTreeMap;

use crate::describe::{About, Change, Count, Fallback, Field, Kind, Setting, Table};
use crate::settings::Stack;

/// What stands above the settings of the reference.
const HEAD: &str = "\
# Configuration

Generated from the descriptions beside the settings (`crates/config/src/settings.rs`, \
`limits.rs`); `TIER0_BLESS=1 cargo test -p tier0-config` writes it anew. \
[`stack.example.toml`](stack.example.toml) is a whole file.

One TOML file describes the whole stack; every role reads the same one.

```sh
tier0 config check /etc/tier0/stack.toml   # every problem at once, each at its line; exit 2
tier0 config reference                     # this page
tier0 config example                       # a whole file
```

## Secrets

No secret stands in the file, only where it is kept. Each setting whose name ends in `_file` takes

| written | is read from |
| --- | --- |
| `\"/etc/tier0/role.token\"` | a file; refused if its group or others may read it (`chmod 600`) |
| `\"env:NAME\"` | an environment variable; the servers that an agent starts inherit it, so prefer a file or a credential there |
| `\"credential:NAME\"` | a systemd credential, `LoadCredential=NAME:/path` in the unit |

White space around it is cut, and an empty one is refused. Secrets are read when a role starts. A \
file whose name begins with `env:` is written `./env:…`.

## Changing it while roles run

Each role looks at the file every 2 seconds and takes a change up once it has stayed the same for \
one more look; `SIGHUP` (`systemctl reload`) makes it look at once. The whole file is checked \
first: one with a problem changes nothing, and the log says so. Of a valid one, settings marked \
*at once* are in force from then on. Every other change is refused with a line in the log that \
names the process to start again, and the old value stays in force until then.
";

/// What stands below them.
const TAIL: &str = "
Where to go next: [setting a stack up](deployment.md), [a whole file](stack.example.toml), \
[what can go wrong](troubleshooting.md).
";

/// The reference, in Markdown.
pub fn reference() -> String {
    let mut out = HEAD.to_owned();
    section(Stack::FIELDS, "", &mut out);
    out.push_str(TAIL);
    out
}

fn section(fields: &[Field], path: &str, out: &mut String) {
    for field in fields {
        let below = join(path, field.name);
        if let About::Setting(setting) = field.about {
            out.push_str(&format!("\n### `{below}`\n\n{}\n\n", prose(field.doc)));
            for fact in facts(&setting) {
                out.push_str(&format!("- {fact}\n"));
            }
        }
    }
    for field in fields {
        let below = join(path, field.name);
        if let About::Table(table) = field.about {
            let (header, count) = match table.count {
                Count::One => (format!("[{below}]"), ""),
                Count::Optional { .. } => (format!("[{below}]"), " It may be left out."),
                Count::Many { .. } => (format!("[[{below}]]"), ""),
            };
            out.push_str(&format!("\n## `{header}`\n\n{}{count}\n", prose(field.doc)));
            section(table.fields, &below, out);
        }
    }
}

/// What is known of a setting, one line each.
fn facts(setting: &Setting) -> Vec<String> {
    let mut facts = vec![format!("{}.", capital(&setting.kind.sentence()))];
    facts.push(match setting.fallback {
        Fallback::Required => "Required.".to_owned(),
        Fallback::Value(value) => format!("Left out: `{}`.", number(setting.kind, value)),
        Fallback::Nothing(meaning) => format!("Left out: {meaning}."),
    });
    if !setting.relations.is_empty() {
        facts.push(format!("Must agree: {}.", setting.relations.join("; ")));
    }
    let readers: Vec<String> = setting.readers.iter().map(ToString::to_string).collect();
    facts.push(match setting.change {
        Change::AtOnce => format!("Read by {}; a change is in force at once.", readers.join(", ")),
        Change::Restart => {
            format!("Read by {}; a change needs a new start.", readers.join(", "))
        }
    });
    facts
}

/// Numbers as the file has them, without separators.
fn number(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Whole { .. } => value.replace('_', ""),
        _ => value.to_owned(),
    }
}

fn prose(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A whole file, with every setting in it; those that may be left out stand in comments.
pub fn example() -> String {
    let mut writer = Example {
        out: "\
# A stack of one PostgreSQL cluster and one Redis group in two regions, with every setting there is.
# A setting in a comment has the value it has when it is left out.
# Generated; docs/configuration.md explains each setting.
"
        .to_owned(),
        seen: BTreeMap::new(),
    };
    writer.tables(Stack::FIELDS, "", 0);
    writer.out
}

struct Example {
    out: String,
    /// How often each path was written.
    seen: BTreeMap<String, usize>,
}

impl Example {
    fn count(&mut self, path: &str) -> usize {
        let seen = self.seen.entry(path.to_owned()).or_default();
        *seen += 1;
        *seen - 1
    }

    fn tables(&mut self, fields: &[Field], path: &str, parent: usize) {
        for field in fields {
            let About::Table(table) = field.about else { continue };
            let below = join(path, field.name);
            match table.count {
                Count::One => self.table(&table, field, &below, &format!("[{below}]")),
                Count::Optional { example_of } => {
                    if example_of.contains(&parent) {
                        self.table(&table, field, &below, &format!("[{below}]"));
                    }
                }
                Count::Many { examples, .. } => {
                    for _ in 0..examples {
                        self.table(&table, field, &below, &format!("[[{below}]]"));
                    }
                }
            }
        }
    }

    fn table(&mut self, table: &Table, field: &Field, path: &str, header: &str) {
        let which = self.count(path);
        self.out.push('\n');
        if which == 0 {
            self.comment(&prose(field.doc));
        }
        self.out.push_str(&format!("{header}\n"));
        for field in table.fields {
            if let About::Setting(setting) = field.about {
                self.setting(&setting, field, &join(path, field.name));
            }
        }
        self.tables(table.fields, path, which);
    }

    fn setting(&mut self, setting: &Setting, field: &Field, path: &str) {
        let which = self.count(path);
        if which == 0 {
            self.comment(&prose(field.doc));
            let bounds = match setting.kind {
                Kind::Whole { .. } => format!("{}.", capital(&setting.kind.sentence())),
                _ => String::new(),
            };
            let agree = match setting.relations {
                [] => String::new(),
                relations => format!("Must agree: {}.", relations.join("; ")),
            };
            self.comment(format!("{bounds} {agree}").trim());
        }
        let example = setting.examples.get(which).or(setting.examples.last()).copied();
        let shown = number(setting.kind, example.unwrap_or_default());
        if shown.is_empty() {
            return;
        }
        let same = matches!(setting.fallback, Fallback::Value(value) if number(setting.kind, value) == shown);
        let off = if same { "# " } else { "" };
        self.out.push_str(&format!("{off}{} = {shown}\n", field.name));
    }

    /// A comment, wrapped.
    fn comment(&mut self, text: &str) {
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.len() + word.len() > 96 {
                self.out.push_str(&format!("# {line}\n"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.out.push_str(&format!("# {line}\n"));
        }
    }
}
