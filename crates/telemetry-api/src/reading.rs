//! One reading of one device, and what makes a request body a batch of them. Every rejection names
//! the field, and nothing is mended or dropped on the way in.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most readings in one request.
pub(crate) const MOST_READINGS: usize = 1_000;

/// The longest name, in bytes.
const LONGEST_NAME: usize = 100;

const FIELDS: [&str; 6] =
    ["device_id", "device_type", "site_id", "timestamp_utc", "metrics", "status"];

/// Which device. Not empty, at most 100 bytes, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DeviceId(String);

impl DeviceId {
    /// The device of a request path.
    pub(crate) fn parse(text: &str) -> Result<DeviceId, &'static str> {
        check_name(text)?;
        Ok(DeviceId(text.to_owned()))
    }

    /// The device of a row: whoever stored it may have had other rules.
    pub(crate) fn stored(text: String) -> DeviceId {
        DeviceId(text)
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// One reading. `(device_id, timestamp_utc)` names it: what is sent twice is stored once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// Which device.
    pub(crate) device_id: DeviceId,
    /// What kind of device.
    pub(crate) device_type: String,
    /// Where it stands.
    pub(crate) site_id: String,
    /// When it was measured, in whole microseconds, which is what PostgreSQL keeps.
    pub(crate) timestamp_utc: Timestamp,
    /// What was measured.
    pub(crate) metrics: Map<String, Value>,
    /// How the device is.
    pub(crate) status: Map<String, Value>,
}

/// The readings of one request: at least one, at most [`MOST_READINGS`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batch(Vec<Reading>);

impl Batch {
    /// The readings, ordered by device and time: two batches that overlap then lock the same rows
    /// in the same order.
    pub(crate) fn readings(&self) -> &[Reading] {
        &self.0
    }

    /// The batch in a request body.
    pub(crate) fn parse(body: &[u8]) -> Result<Batch, BatchError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| BatchError::Malformed { problem: error.to_string() })?;
        let mut readings = match value {
            Value::Object(fields) => vec![reading(fields, &Place(None))?],
            Value::Array(items) => {
                if items.is_empty() || items.len() > MOST_READINGS {
                    return Err(BatchError::Malformed {
                        problem: format!(
                            "the array has {} readings, allowed are 1 to {MOST_READINGS}",
                            items.len()
                        ),
                    });
                }
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| match item {
                        Value::Object(fields) => reading(fields, &Place(Some(index))),
                        Value::Null
                        | Value::Bool(_)
                        | Value::Number(_)
                        | Value::String(_)
                        | Value::Array(_) => Err(BatchError::Field {
                            field: format!("[{index}]"),
                            problem: "it must be an object",
                        }),
                    })
                    .collect::<Result<_, _>>()?
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(BatchError::Malformed {
                    problem: "the body must be an object or an array of objects".to_owned(),
                });
            }
        };
        readings.sort_by(|one, other| {
            (&one.device_id, one.timestamp_utc).cmp(&(&other.device_id, other.timestamp_utc))
        });
        Ok(Batch(readings))
    }
}

/// Why a body is not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    /// It is not JSON of the right shape.
    #[error("{problem}")]
    Malformed {
        /// What is wrong.
        problem: String,
    },
    /// One field cannot be accepted.
    #[error("{field}: {problem}")]
    Field {
        /// Which one, as in `[3].timestamp_utc`.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Where in the body a reading stands.
struct Place(Option<usize>);

impl Place {
    fn field(&self, name: impl fmt::Display) -> String {
        match self.0 {
            Some(index) => format!("[{index}].{name}"),
            None => name.to_string(),
        }
    }
}

fn reading(mut fields: Map<String, Value>, place: &Place) -> Result<Reading, BatchError> {
    let wrong = |name: &str, problem| BatchError::Field { field: place.field(name), problem };
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let shown: String = unknown.chars().take(60).collect();
        return Err(wrong(&shown, "there is no such field"));
    }
    let mut take = |name: &'static str| match fields.remove(name) {
        None => Err(wrong(name, "it is missing")),
        Some(value) => Ok(value),
    };
    let text = |name: &'static str, value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(wrong(name, "it must be a string"))
        }
    };
    let name = |name: &'static str, value: Value| {
        let text = text(name, value)?;
        check_name(&text).map_err(|problem| wrong(name, problem))?;
        Ok(text)
    };
    let object = |name: &'static str, value: Value| match value {
        Value::Object(fields) => {
            if fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)) {
                return Err(wrong(name, "it holds the character U+0000, which cannot be stored"));
            }
            Ok(fields)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(wrong(name, "it must be an object"))
        }
    };
    Ok(Reading {
        device_id: DeviceId(name("device_id", take("device_id")?)?),
        device_type: name("device_type", take("device_type")?)?,
        site_id: name("site_id", take("site_id")?)?,
        timestamp_utc: timestamp(&text("timestamp_utc", take("timestamp_utc")?)?)
            .map_err(|problem| wrong("timestamp_utc", problem))?,
        metrics: object("metrics", take("metrics")?)?,
        status: object("status", take("status")?)?,
    })
}

/// What a name of a device, a kind or a site may be.
pub(crate) fn check_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("it is empty")
    } else if text.len() > LONGEST_NAME {
        Err("it is longer than 100 bytes")
    } else if text.chars().any(char::is_control) {
        Err("it holds a control character")
    } else {
        Ok(())
    }
}

/// RFC 3339, which is narrower than what jiff reads. What PostgreSQL would round is refused: two
/// readings would become one without anybody saying so.
pub(crate) fn timestamp(text: &str) -> Result<Timestamp, &'static str> {
    const SHAPE: &str = "it must be an RFC 3339 date and time, as in 2026-11-23T10:00:00.125Z";
    let mark = |place: usize, marks: &[u8]| {
        text.as_bytes().get(place).is_some_and(|byte| marks.contains(byte))
    };
    let shaped = mark(4, b"-")
        && mark(7, b"-")
        && mark(10, b"Tt")
        && mark(13, b":")
        && mark(16, b":")
        && !text.contains('[');
    if !shaped {
        return Err(SHAPE);
    }
    if text.get(17..19) == Some("60") {
        return Err("a leap second cannot be stored");
    }
    let timestamp: Timestamp = text.parse().map_err(|_| SHAPE)?;
    if timestamp.subsec_nanosecond() % 1_000 != 0 {
        return Err("it has more than six digits of fractional seconds");
    }
    Ok(timestamp)
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value))
        }
    }
}
