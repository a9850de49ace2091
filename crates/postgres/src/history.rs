//! Timeline history files, and where two servers' histories part.
//!
//! Sources: `timeline.c` (`readTimeLineHistory`, the file's form), `pg_rewind.c`
//! (`findCommonAncestorTimeline`).

use tier0_core::words::{Lsn, Timeline};

/// A timeline and the timelines it came from, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// Earlier timelines, each with the position at which it was left.
    earlier: Vec<(Timeline, Lsn)>,
    /// The timeline itself.
    current: Timeline,
}

/// How two histories stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The same timeline: neither has left the other.
    Same,
    /// They have everything in common up to here, on this timeline.
    At(Timeline, Lsn),
    /// Nothing in common, or one timeline number with two pasts: no rewind can join them.
    Never,
}

/// Why a text is not a history file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("timeline history has an unusable line: {0}")]
pub(crate) struct InvalidHistory(String);

impl History {
    /// The history of `current` as its file has it. Timeline 1 has no file: give an empty text.
    pub(crate) fn parse(current: Timeline, text: &str) -> Result<Self, InvalidHistory> {
        if !text.is_empty() && !text.ends_with('\n') {
            // PostgreSQL ends every line: a cut within a position would be another position.
            return Err(InvalidHistory("the last one is not ended".to_owned()));
        }
        let mut earlier: Vec<(Timeline, Lsn)> = Vec::new();
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = || InvalidHistory(line.chars().take(80).collect());
            let mut fields = line.split_whitespace();
            let timeline = fields.next().and_then(|field| field.parse().ok()).map(Timeline);
            let lsn = fields.next().and_then(|field| field.parse().ok());
            let (Some(timeline), Some(lsn)) = (timeline, lsn) else { return Err(invalid()) };
            let grows = earlier.last().is_none_or(|(last, _)| *last < timeline);
            if !grows || timeline >= current {
                return Err(invalid());
            }
            earlier.push((timeline, lsn));
        }
        Ok(History { earlier, current })
    }

    /// The name of the file of a timeline.
    pub(crate) fn file_name(timeline: Timeline) -> String {
        format!("{:08X}.history", timeline.0)
    }

    /// Where the current timeline begins.
    pub(crate) fn begins_at(&self) -> Lsn {
        self.earlier.last().map_or(Lsn::ZERO, |(_, lsn)| *lsn)
    }

    fn stretches(&self) -> Vec<(Timeline, Lsn, Option<Lsn>)> {
        let mut begin = Lsn::ZERO;
        let mut stretches = Vec::new();
        for (timeline, end) in &self.earlier {
            stretches.push((*timeline, begin, Some(*end)));
            begin = *end;
        }
        stretches.push((self.current, begin, None));
        stretches
    }

    /// Where this history and `other` part.
    pub(crate) fn parting(&self, other: &History) -> Parting {
        let (own, others) = (self.stretches(), other.stretches());
        let common = own.iter().zip(&others).take_while(|(a, b)| a.0 == b.0 && a.1 == b.1).last();
        match common {
            None => Parting::Never,
            Some((a, b)) => match (a.2, b.2) {
                (None, None) => Parting::Same,
                (Some(end), None) | (None, Some(end)) => Parting::At(a.0, end),
                (Some(x), Some(y)) => Parting::At(a.0, x.min(y)),
            },
        }
        .unless_renumbered(self, other)
    }
}

impl Parting {
    /// Two servers promoted to the same number from different places cannot be told apart by
    /// their WAL files' names, hence not be rewound.
    fn unless_renumbered(self, own: &History, other: &History) -> Parting {
        match self {
            Parting::At(..) if own.current == other.current => Parting::Never,
            Parting::At(..) | Parting::Same | Parting::Never => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    fn history(current: u32, text: &str) -> History {
        History::parse(Timeline(current), text).unwrap()
    }

    #[test]
    fn an_old_primary_parts_where_the_new_timeline_begins() {
        let old = history(1, "");
        let new = history(2, "1\t0/3000148\tno recovery target specified\n");
        assert_eq!(old.parting(&new), Parting::At(Timeline(1), lsn("0/3000148")));
        assert_eq!(new.parting(&new), Parting::Same);
        assert_eq!(new.begins_at(), lsn("0/3000148"));
    }

    #[test]
    fn two_promotions_to_one_number_never_meet() {
        let a = history(2, "1\t0/3000148\tx\n");
        let b = history(2, "1\t0/3000200\tx\n");
        assert_eq!(a.parting(&b), Parting::Never);
    }

    #[test]
    fn siblings_part_at_the_earlier_leaving() {
        let a = history(2, "1\t0/3000148\tx\n");
        let b = history(3, "1\t0/3000200\tx\n");
        assert_eq!(a.parting(&b), Parting::At(Timeline(1), lsn("0/3000148")));
    }

    #[test]
    fn a_cut_anywhere_is_refused_unless_it_leaves_whole_lines() {
        let whole = "1\t0/3000148\tno recovery target specified\n2\t16/B374D848\tx\n";
        let one = whole.find('\n').unwrap() + 1;
        for length in 0..=whole.len() {
            let parsed = History::parse(Timeline(3), &whole[..length]);
            let complete = [0, one, whole.len()].contains(&length);
            assert_eq!(parsed.is_ok(), complete, "cut to {length}");
        }
    }

    #[test]
    fn whatever_one_byte_becomes_timelines_still_grow() {
        let whole = "1\t0/3000148\tno recovery target specified\n2\t16/B374D848\tx\n";
        for place in 0..whole.len() {
            for byte in 0..=127_u8 {
                let mut bytes = whole.as_bytes().to_vec();
                bytes[place] = byte;
                let text = String::from_utf8(bytes).unwrap();
                let Ok(parsed) = History::parse(Timeline(3), &text) else { continue };
                assert!(parsed.earlier.windows(2).all(|pair| pair[0].0 < pair[1].0));
                assert!(parsed.earlier.iter().all(|(timeline, _)| *timeline < parsed.current));
                assert_ne!(parsed.parting(&parsed), Parting::Never);
            }
        }
    }

    #[test]
    fn a_torn_file_is_refused() {
        assert!(History::parse(Timeline(2), "1\t").is_err());
        assert!(History::parse(Timeline(2), "2\t0/1\tx").is_err());
        assert!(History::parse(Timeline(4), "2\t0/1\tx\n1\t0/2\tx").is_err());
    }
}
