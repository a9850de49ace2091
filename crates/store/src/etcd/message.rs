//! What is said to etcd and what it answers, in the JSON of its gateway: keys and values in base64,
//! 64-bit numbers as text, and whatever is zero left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::StoreError;

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

/// A transaction: if all that is compared holds, what is to be done, else what is to be read.
#[derive(Debug, Default)]
pub(super) struct Txn {
    compare: Vec<Value>,
    then: Vec<Value>,
    otherwise: Vec<Value>,
    bytes: usize,
}

impl Txn {
    /// Only if the key has this value.
    pub(super) fn when_value(&mut self, key: &str, value: &str) {
        let value = encode(value);
        self.compare.push(json!({"key": encode(key), "target": "VALUE", "value": value}));
    }

    /// Only if the key was changed last at this revision of etcd; 0 if it is not there.
    pub(super) fn when_modified(&mut self, key: &str, revision: u64) {
        let revision = revision.to_string();
        self.compare.push(json!({"key": encode(key), "target": "MOD", "mod_revision": revision}));
    }

    /// Only if the key is not there.
    pub(super) fn when_absent(&mut self, key: &str) {
        self.compare.push(json!({"key": encode(key), "target": "CREATE", "create_revision": "0"}));
    }

    /// Only if no key is there from one up to, and without, another.
    pub(super) fn when_range_empty(&mut self, from: &str, to: &str) {
        self.compare.push(json!({
            "key": encode(from),
            "range_end": encode(to),
            "target": "CREATE",
            "create_revision": "0",
        }));
    }

    /// Then store this.
    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.bytes += key.len() + value.len();
        self.then.push(json!({"request_put": {"key": encode(key), "value": encode(value)}}));
    }

    /// Then delete this.
    pub(super) fn delete(&mut self, key: &str) {
        self.then.push(json!({"request_delete_range": {"key": encode(key)}}));
    }

    /// Then delete all keys from one up to, and without, another.
    pub(super) fn delete_range(&mut self, from: &str, to: &str) {
        let range = json!({"key": encode(from), "range_end": encode(to)});
        self.then.push(json!({"request_delete_range": range}));
    }

    /// Then read a key.
    pub(super) fn read(&mut self, key: &str) {
        self.then.push(json!({"request_range": {"key": encode(key)}}));
    }

    /// Then read a range.
    pub(super) fn read_range(&mut self, range: &Range) {
        self.then.push(json!({"request_range": range.json()}));
    }

    /// Otherwise read a key.
    pub(super) fn else_read(&mut self, key: &str) {
        self.otherwise.push(json!({"request_range": {"key": encode(key)}}));
    }

    /// Otherwise read a range.
    pub(super) fn else_read_range(&mut self, range: &Range) {
        self.otherwise.push(json!({"request_range": range.json()}));
    }

    /// So many bytes it stores, as it counts for etcd's limit, but for a little.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn json(&self) -> Value {
        json!({"compare": self.compare, "success": self.then, "failure": self.otherwise})
    }
}

/// Which keys to read.
#[derive(Debug, Clone)]
pub(super) struct Range {
    /// From this one.
    pub(super) from: String,
    /// Up to, and without, this one.
    pub(super) to: String,
    /// At most so many.
    pub(super) limit: u32,
    /// Which of them come first.
    pub(super) order: Order,
    /// What of them.
    pub(super) part: Part,
}

/// Which keys of a range come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The lowest; etcd stops reading at the limit.
    Ascending,
    /// The highest; etcd reads all of the range first.
    Descending,
}

/// What is read of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    WithoutValue,
}

impl Range {
    fn json(&self) -> Value {
        let mut json = json!({
            "key": encode(&self.from),
            "range_end": encode(&self.to),
            "limit": self.limit.to_string(),
            "keys_only": self.part == Part::WithoutValue,
        });
        if self.order == Order::Descending {
            json["sort_order"] = json!("DESCEND");
            json["sort_target"] = json!("KEY");
        }
        json
    }
}

/// What etcd answers.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether what was compared held.
    pub(super) held: bool,
    /// The revision of etcd after it.
    pub(super) revision: u64,
    /// All that was read, in the order in which it was asked for.
    pub(super) read: Vec<Stored>,
}

impl Answer {
    /// What was read of a key.
    pub(super) fn of(&self, key: &str) -> Option<&Stored> {
        self.read.iter().find(|stored| stored.key == key)
    }

    /// The revision of etcd at which the key was changed last; 0 if it is not there.
    pub(super) fn modified(&self, key: &str) -> u64 {
        self.of(key).map_or(0, |stored| stored.modified)
    }
}

/// A key as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) key: String,
    pub(super) value: String,
    /// The revision of etcd at which it was made.
    pub(super) created: u64,
    /// The revision of etcd at which it was changed last.
    pub(super) modified: u64,
}

/// An answer as it is sent.
#[derive(Debug, Deserialize)]
pub(super) struct AnswerText {
    header: HeaderText,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<ResponseText>,
}

#[derive(Debug, Deserialize)]
struct HeaderText {
    #[serde(default)]
    revision: String,
}

#[derive(Debug, Deserialize)]
struct ResponseText {
    response_range: Option<RangeText>,
}

#[derive(Debug, Deserialize)]
struct RangeText {
    #[serde(default)]
    kvs: Vec<StoredText>,
}

#[derive(Debug, Deserialize)]
struct StoredText {
    key: String,
    #[serde(default)]
    value: String,
    create_revision: String,
    mod_revision: String,
}

impl AnswerText {
    pub(super) fn decode(self) -> Result<Answer, StoreError> {
        let ranges = self.responses.into_iter().filter_map(|response| response.response_range);
        let read = ranges.flat_map(|range| range.kvs).map(StoredText::decode);
        Ok(Answer {
            held: self.succeeded,
            revision: number(&self.header.revision)?,
            read: read.collect::<Result<_, _>>()?,
        })
    }
}

impl StoredText {
    fn decode(self) -> Result<Stored, StoreError> {
        let key = text(&self.key, "a key")?;
        let value = text(&self.value, &key)?;
        let (created, modified) = (number(&self.create_revision)?, number(&self.mod_revision)?);
        Ok(Stored { key, value, created, modified })
    }
}

fn text(encoded: &str, of: &str) -> Result<String, StoreError> {
    let bytes = STANDARD.decode(encoded).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| StoreError::Damaged { what: format!("{of} in etcd is not text") })
}

fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged {
        what: format!("etcd answered with the revision {text:?}, which is no number"),
    })
}
