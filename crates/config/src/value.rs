//! Whether a value is of its setting's kind and within its bounds.

use std::net::SocketAddr;
use std::ops::Range;

use tier0_core::words::Region;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use crate::describe::Kind;
use crate::nearest::nearest;
use crate::secret::SecretSource;

/// What is wrong with a value.
pub(crate) struct Wrong {
    pub span: Range<usize>,
    pub sentence: String,
}

/// What a value is, in words. Never the value itself: it may be a secret in the wrong place.
pub(crate) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The value as it was read, if it can be one of this kind.
pub(crate) fn check(kind: Kind, value: &Spanned<DeValue<'_>>) -> Result<toml::Value, Wrong> {
    let wrong = |sentence: String| Wrong { span: value.span(), sentence };
    match (kind, value.get_ref()) {
        (Kind::Names(what), DeValue::Array(several)) => {
            list(several, |one| check(Kind::Name(what), one))
        }
        (Kind::Addresses, DeValue::Array(several)) => {
            list(several, |one| check(Kind::Address, one))
        }
        (Kind::Networks, DeValue::Array(several)) => list(several, |one| check(Kind::Network, one)),
        (Kind::AddressByRegion, DeValue::Table(table)) => {
            for key in table.keys() {
                if let Some(sentence) = of_text(Kind::Name("region"), key.get_ref()) {
                    return Err(Wrong { span: key.span(), sentence });
                }
            }
            by_name(table, |one| check(Kind::Address, one))
        }
        (Kind::TextByName, DeValue::Table(table)) => by_name(table, |one| text(one, "text")),
        (Kind::TextsByName, DeValue::Table(table)) => by_name(table, |one| match one.get_ref() {
            DeValue::Array(several) => list(several, |one| text(one, "text")),
            other => Err(Wrong {
                span: one.span(),
                sentence: format!("a list of texts is wanted, this is {}", kind_of(other)),
            }),
        }),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(toml::Value::Boolean(*flag)),
        (Kind::Whole { unit, least, most }, DeValue::Integer(number)) => match whole(number) {
            Some(found) if (least..=most).contains(&found) => {
                i64::try_from(found).map(toml::Value::Integer).map_err(|_| wrong(too_large(most)))
            }
            Some(_) | None => {
                Err(wrong(format!("{number} {unit} is outside the bounds {least} to {most}")))
            }
        },
        (
            Kind::Name(_)
            | Kind::Address
            | Kind::Network
            | Kind::Path
            | Kind::Secret
            | Kind::Text
            | Kind::Choice(_),
            DeValue::String(found),
        ) => match of_text(kind, found) {
            None => Ok(toml::Value::String(found.to_string())),
            Some(sentence) => Err(wrong(sentence)),
        },
        (kind, other) => {
            Err(wrong(format!("{} is wanted, this is {}", kind.sentence(), kind_of(other))))
        }
    }
}

fn too_large(most: u64) -> String {
    format!("it is above {most}")
}

fn whole(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// What is wrong with a text, if anything.
fn of_text(kind: Kind, text: &str) -> Option<String> {
    match kind {
        // One grammar for names of all kinds.
        Kind::Name(what) => text
            .parse::<Region>()
            .err()
            .map(|error| format!("'{}' cannot name a {what}: {}", error.text, error.reason)),
        Kind::Address => text.parse::<SocketAddr>().err().map(|_| {
            "an IP address and a port are wanted, as in \"10.0.1.10:5432\" or \"[fd00::1]:5432\""
                .to_owned()
        }),
        Kind::Network => (!is_network(text)).then(|| {
            "an IP network is wanted, as in \"10.1.0.0/16\" or \"fd00:1::/32\"".to_owned()
        }),
        Kind::Secret => text.parse::<SecretSource>().err().map(|error| error.to_string()),
        Kind::Choice(words) if !words.contains(&text) => {
            let meant = nearest(text, words.iter().copied())
                .map(|word| format!("; did you mean {word}?"))
                .unwrap_or_default();
            let cut: String = text.chars().take(60).collect();
            Some(format!("'{cut}' is not one of {}{meant}", words.join(", ")))
        }
        Kind::Path | Kind::Text if text.is_empty() => Some("it is empty".to_owned()),
        Kind::Path | Kind::Text if text.contains('\0') => {
            Some("it has a NUL character in it".to_owned())
        }
        Kind::Choice(_)
        | Kind::Path
        | Kind::Text
        | Kind::Names(_)
        | Kind::Addresses
        | Kind::Networks
        | Kind::Flag
        | Kind::Whole { .. }
        | Kind::AddressByRegion
        | Kind::TextByName
        | Kind::TextsByName => None,
    }
}

fn is_network(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn text(value: &Spanned<DeValue<'_>>, what: &str) -> Result<toml::Value, Wrong> {
    match value.get_ref() {
        DeValue::String(found) => Ok(toml::Value::String(found.to_string())),
        other => Err(Wrong {
            span: value.span(),
            sentence: format!("{what} in quotes is wanted, this is {}", kind_of(other)),
        }),
    }
}

fn list<'i>(
    several: &DeArray<'i>,
    one: impl Fn(&Spanned<DeValue<'i>>) -> Result<toml::Value, Wrong>,
) -> Result<toml::Value, Wrong> {
    several.iter().map(one).collect::<Result<Vec<_>, _>>().map(toml::Value::Array)
}

fn by_name<'i>(
    table: &DeTable<'i>,
    one: impl Fn(&Spanned<DeValue<'i>>) -> Result<toml::Value, Wrong>,
) -> Result<toml::Value, Wrong> {
    table
        .iter()
        .map(|(key, value)| Ok((key.get_ref().to_string(), one(value)?)))
        .collect::<Result<toml::Table, _>>()
        .map(toml::Value::Table)
}
