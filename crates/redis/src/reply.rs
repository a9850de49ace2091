//! Reading answers: texts, numbers, flat field lists. Anything may be missing; nothing panics.

use std::collections::BTreeMap;

use redis::Value;

/// The answer as text, where it is one.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        Value::Int(number) => Some(number.to_string()),
        other => {
            tracing::trace!(?other, "an answer that is no text");
            None
        }
    }
}

/// The answer as a number, where it is one.
pub(crate) fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

/// The parts of an array; none where it is no array.
pub(crate) fn parts(value: &Value) -> &[Value] {
    match value {
        Value::Array(parts) => parts,
        _ => &[],
    }
}

/// A flat list of names and values, as `SENTINEL MASTER` and `CONFIG GET` answer.
pub(crate) fn fields(value: &Value) -> BTreeMap<String, String> {
    if let Value::Map(pairs) = value {
        return pairs.iter().filter_map(|(k, v)| Some((text(k)?, text(v)?))).collect();
    }
    parts(value)
        .chunks_exact(2)
        .filter_map(|pair| match pair {
            [name, value] => Some((text(name)?, text(value)?)),
            _ => None,
        })
        .collect()
}

/// The words of the first error among the answers, however deep.
pub(crate) fn first_error(values: &[Value]) -> Option<String> {
    values.iter().find_map(|value| match value {
        Value::ServerError(error) => Some(match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        }),
        Value::Array(inner) => first_error(inner),
        _ => None,
    })
}
