//! What fresh connections from the orchestrator itself come to: its own eyes, apart from what the
//! agents say.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::{Knock, Reach};
use crate::words::{Moment, NodeId};

/// How a server looks from one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It takes connections.
    Sees,
    /// It has taken none for so long; the host refuses them.
    Refused(Duration),
    /// Nothing has come back for so long.
    Nothing(Duration),
    /// Nobody has looked from there.
    Unknown,
}

impl Sight {
    /// As an agent tells of it, `age` after it looked.
    pub fn told(reach: Reach, age: Duration) -> Sight {
        let unanswered = Duration::from_millis(reach.unanswered_ms) + age;
        Sight::of(reach.newest, unanswered)
    }

    fn of(newest: Knock, unanswered: Duration) -> Sight {
        match newest {
            Knock::Answered => Sight::Sees,
            Knock::Refused => Sight::Refused(unanswered),
            Knock::Silent => Sight::Nothing(unanswered),
        }
    }

    /// Whether nothing was seen for long enough to say so. A host that refuses is known to be
    /// there, so that a third of the time is enough.
    pub fn is_blind(self, window: Duration) -> bool {
        match self {
            Sight::Sees | Sight::Unknown => false,
            Sight::Refused(unanswered) => unanswered >= window / 3,
            Sight::Nothing(unanswered) => unanswered >= window,
        }
    }
}

/// One server.
#[derive(Debug, Clone, Copy)]
struct Known {
    newest: Knock,
    answered_at: Moment,
}

/// Every server that was knocked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Reaches {
    known: BTreeMap<NodeId, Known>,
}

impl Reaches {
    /// A knock came to an end. What was never answered counts from its first knock.
    pub(super) fn knocked(&mut self, now: Moment, node: NodeId, knock: Knock) {
        let known = self.known.entry(node).or_insert(Known { newest: knock, answered_at: now });
        known.newest = knock;
        if knock == Knock::Answered {
            known.answered_at = now;
        }
    }

    /// Every server, to be told to others.
    pub(super) fn all(&self, now: Moment) -> BTreeMap<NodeId, Reach> {
        let told = |known: &Known| match known.newest {
            Knock::Answered => 0,
            Knock::Refused | Knock::Silent => {
                u64::try_from(now.since(known.answered_at).as_millis()).unwrap_or(u64::MAX)
            }
        };
        let reach = |known: &Known| Reach { newest: known.newest, unanswered_ms: told(known) };
        self.known.iter().map(|(node, known)| (node.clone(), reach(known))).collect()
    }

    /// How a server looks from here.
    pub(super) fn sight(&self, now: Moment, node: &NodeId) -> Sight {
        match self.known.get(node) {
            None => Sight::Unknown,
            Some(known) => Sight::of(known.newest, now.since(known.answered_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Moment {
        Moment::from_micros(number * 1_000_000)
    }

    #[test]
    fn silence_counts_from_the_last_answer() {
        let mut reaches = Reaches::default();
        let node: NodeId = "main.region1".parse().unwrap();
        let window = Duration::from_secs(1);
        assert_eq!(reaches.sight(second(1), &node), Sight::Unknown);
        reaches.knocked(second(1), node.clone(), Knock::Answered);
        reaches.knocked(second(2), node.clone(), Knock::Silent);
        assert!(!reaches.sight(Moment::from_micros(1_999_999), &node).is_blind(window));
        assert!(reaches.sight(second(2), &node).is_blind(window));
        reaches.knocked(second(3), node.clone(), Knock::Answered);
        assert_eq!(reaches.sight(second(9), &node), Sight::Sees);
    }

    #[test]
    fn a_refusal_is_believed_sooner_and_an_agents_word_ages() {
        let window = Duration::from_secs(1);
        let reach = Reach { newest: Knock::Refused, unanswered_ms: 300 };
        assert!(!Sight::told(reach, Duration::ZERO).is_blind(window));
        assert!(Sight::told(reach, Duration::from_millis(34)).is_blind(window));
        let reach = Reach { newest: Knock::Silent, unanswered_ms: 300 };
        assert!(!Sight::told(reach, Duration::from_millis(34)).is_blind(window));
    }
}
