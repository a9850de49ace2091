//! The newest lines that this process has logged, kept in memory, so that `tier0 logs` can put the
//! lines of all roles side by side wherever each role's own log goes.
//!
//! Left out: keeping them beyond the process; that is the journal's of the system.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tier0_wire::LogLine;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines kept: hours of a quiet role, and every line of the busiest operation.
const LINES_MOST: usize = 5_000;
/// Longest text of a line, in bytes.
const TEXT_MOST: usize = 4_000;

struct Book {
    lines: VecDeque<LogLine>,
    next: u64,
}

static BOOK: Mutex<Book> = Mutex::new(Book { lines: VecDeque::new(), next: 0 });

/// Writes every event into the book.
pub struct Logbook;

impl<S: Subscriber> Layer<S> for Logbook {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let mut line = text.message + &text.fields;
        if line.len() > TEXT_MOST {
            let end = (0..=TEXT_MOST).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            line.truncate(end);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut book = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
        // Numbers of a later run are above those of an earlier one, so that who asks "what came
        // after this" need not know that the role was started anew.
        book.next = book.next.saturating_add(1).max(now.as_micros() as u64);
        let number = book.next;
        book.lines.push_back(LogLine {
            role: String::new(),
            at_ms: now.as_millis() as i64,
            number,
            level: event.metadata().level().to_string(),
            text: line,
        });
        if book.lines.len() > LINES_MOST {
            book.lines.pop_front();
        }
    }
}

/// The lines after this number, oldest first, as those of `role`.
pub fn lines_after(number: u64, role: &str) -> Vec<LogLine> {
    let book = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
    book.lines
        .iter()
        .filter(|line| line.number > number)
        .map(|line| LogLine { role: role.to_owned(), ..line.clone() })
        .collect()
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn add(&mut self, field: &Field, value: &dyn std::fmt::Display) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_are_kept_with_their_fields_and_given_out_once() {
        let subscriber = tracing_subscriber::registry().with(Logbook);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(node = "main.region1", bytes = 7, "the server has ended");
            tracing::warn!("again");
        });
        let lines = lines_after(0, "agent.region1");
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["the server has ended node=\"main.region1\" bytes=7", "again"]);
        assert_eq!((lines[0].level.as_str(), lines[1].level.as_str()), ("INFO", "WARN"));
        assert_eq!(lines[0].role, "agent.region1");
        assert_eq!(lines_after(lines[0].number, "x").len(), 1);
        assert!(lines_after(lines[1].number, "x").is_empty());
    }
}
