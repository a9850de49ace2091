//! The description of a setting: one entry beside each field says what it is, in which unit, what
//! it is when left out, its bounds, what it must agree with, and who has to start anew when it
//! changes. Checks, the reference, the example and reloading all read it; there is no second list.

/// One key of the file.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// The field's documentation, line by line as it stands in the source.
    pub doc: &'static [&'static str],
    /// What the key holds.
    pub about: About,
}

/// What a key holds.
#[derive(Debug, Clone, Copy)]
pub enum About {
    /// A value.
    Setting(Setting),
    /// More keys.
    Table(Table),
}

/// A table or an array of tables.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// How many there may be.
    pub count: Count,
    /// Its keys.
    pub fields: &'static [Field],
}

/// How many tables of one name there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Exactly one.
    One,
    /// One that may be left out.
    Optional {
        /// Which of its parents in the example have it, counted from 0.
        example_of: &'static [usize],
    },
    /// `[[several]]`, told apart by one of their settings.
    Many {
        /// That setting.
        key: &'static str,
        /// How many the example has in each parent.
        examples: usize,
    },
}

/// A value and what may be said about it before seeing it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// What it is.
    pub kind: Kind,
    /// What it is when left out.
    pub fallback: Fallback,
    /// What it must agree with, one sentence each.
    pub relations: &'static [&'static str],
    /// The roles that read it.
    pub readers: &'static [Role],
    /// When a changed value is used.
    pub change: Change,
    /// TOML values for the example, one for each time it occurs; the last one again for the rest,
    /// and an empty one where it is left out.
    pub examples: &'static [&'static str],
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name of this kind of thing, in the one grammar of names.
    Name(&'static str),
    /// Several names.
    Names(&'static str),
    /// An IP address and a port.
    Address,
    /// Several addresses.
    Addresses,
    /// An IP network.
    Network,
    /// Several networks.
    Networks,
    /// A path.
    Path,
    /// Where a secret is.
    Secret,
    /// Text that is not empty.
    Text,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number within bounds.
    Whole {
        /// Of what.
        unit: Unit,
        /// The smallest.
        least: u64,
        /// The greatest.
        most: u64,
    },
    /// Regions with an IP address and a port each.
    AddressByRegion,
    /// Names with one text each.
    TextByName,
    /// Names with several texts each.
    TextsByName,
}

/// Of what a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Megabytes of 1,000,000 bytes.
    Megabytes,
    /// Hours.
    Hours,
}

/// What a setting is when it is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// It must not be left out.
    Required,
    /// This TOML value.
    Value(&'static str),
    /// Nothing, which means this.
    Nothing(&'static str),
}

/// A kind of process that reads the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The orchestrator.
    Orchestrator,
    /// The agent of a region.
    Agent,
    /// The reference backend of a region.
    Backend,
}

/// When a changed value is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// When the file changes, by the role that runs.
    AtOnce,
    /// When the roles that read it are started again.
    Restart,
}

/// Read by every role.
pub(crate) const EVERY_ROLE: &[Role] = &[Role::Orchestrator, Role::Agent, Role::Backend];

impl Setting {
    /// A setting that must be there and is read by every role.
    pub(crate) const fn required(kind: Kind, examples: &'static [&'static str]) -> Setting {
        Setting {
            kind,
            fallback: Fallback::Required,
            relations: &[],
            readers: EVERY_ROLE,
            change: Change::Restart,
            examples,
        }
    }

    /// With a value for when it is left out.
    pub(crate) const fn or(self, fallback: Fallback) -> Setting {
        Setting { fallback, ..self }
    }

    /// With what it must agree with.
    pub(crate) const fn agrees(self, relations: &'static [&'static str]) -> Setting {
        Setting { relations, ..self }
    }

    /// Read by these roles only.
    pub(crate) const fn read_by(self, readers: &'static [Role]) -> Setting {
        Setting { readers, ..self }
    }
}

impl Kind {
    /// Kind, unit and bounds in words.
    pub fn sentence(self) -> String {
        match self {
            Kind::Name(what) => format!("the name of a {what}"),
            Kind::Names(what) => format!("a list of names of {what}s"),
            Kind::Address => "an IP address and a port".to_owned(),
            Kind::Addresses => "a list of IP addresses with ports".to_owned(),
            Kind::Network => "an IP network".to_owned(),
            Kind::Networks => "a list of IP networks".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Secret => "where a secret is: a file, `env:NAME` or `credential:NAME`".to_owned(),
            Kind::Text => "text, not empty".to_owned(),
            Kind::Flag => "`true` or `false`".to_owned(),
            Kind::Choice(words) => format!("one of `{}`", words.join("`, `")),
            Kind::Whole { unit, least, most } => format!("whole {unit}, {least} to {most}"),
            Kind::AddressByRegion => {
                "a table of regions with an IP address and a port each".to_owned()
            }
            Kind::TextByName => "a table of names with a text each".to_owned(),
            Kind::TextsByName => "a table of names with a list of texts each".to_owned(),
        }
    }
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unit::Milliseconds => "milliseconds",
            Unit::Megabytes => "megabytes",
            Unit::Hours => "hours",
        })
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Orchestrator => "the orchestrator",
            Role::Agent => "the agents",
            Role::Backend => "telemetry-api",
        })
    }
}

/// A table's struct together with the description of its fields.
///
/// Each field is followed by its description, so that neither exists without the other; its
/// documentation becomes the reference's. `as "key"` is a key that differs from the field's name.
macro_rules! settings {
    (
        $(#[doc = $of_table:literal])+
        pub struct $table:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)+)])?
                pub $field:ident: $type:ty $(as $key:literal)? => $about:expr,
            )+
        }
    ) => {
        $(#[doc = $of_table])+
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $table {
            $(
                $(#[doc = $doc])+
                $(#[serde($($serde)+)])?
                $(#[serde(rename = $key)])?
                pub $field: $type,
            )+
        }

        impl $table {
            /// The description of every key.
            pub const FIELDS: &'static [$crate::describe::Field] = &[$(
                $crate::describe::Field {
                    name: $crate::describe::key!($field $($key)?),
                    doc: &[$($doc),+],
                    about: $about,
                },
            )+];
        }
    };
}

/// The key of a field.
macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

pub(crate) use {key, settings};
