//! What a prober saw of a fault: between which two accepted writes nobody was served, and whether
//! the old side accepted anything once the new one did.

use std::time::Duration;

use super::{Accepted, Probed};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// The last accepted write before it.
    pub last: Accepted,
    /// The first accepted write after it.
    pub first: Accepted,
}

impl Outage {
    /// How long nobody was served.
    pub fn length(&self) -> Duration {
        self.first.at.saturating_sub(self.last.at)
    }
}

/// The longest stretch without an accepted write of a store, of those that end after a fault at
/// `fault`; `None` where nothing was accepted before it or after it. `accepted` is in the order of
/// the answers.
pub fn outage(accepted: &[Accepted], store: Probed, fault: Duration) -> Option<Outage> {
    let of_store: Vec<&Accepted> = accepted.iter().filter(|one| one.store == store).collect();
    let stretches = of_store.windows(2).filter_map(|pair| match pair {
        [last, first] if first.at > fault => Some((**last, **first)),
        _ => None,
    });
    let (last, first) = stretches.max_by_key(|(last, first)| first.at - last.at)?;
    Some(Outage { last, first })
}

/// How many writes the old side accepted although they were tried after the new side had accepted
/// one. Where the writer was not moved there are no two sides.
pub fn both_sides(accepted: &[Accepted], seen: &Outage) -> usize {
    let late = |one: &&Accepted| {
        one.store == seen.last.store && one.side == seen.last.side && one.tried > seen.first.at
    };
    match seen.first.side == seen.last.side {
        true => 0,
        false => accepted.iter().filter(late).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Place;

    fn accepted(side: Place, milliseconds: &[u64]) -> Vec<Accepted> {
        let one = |at: &u64| Accepted {
            store: Probed::Postgres,
            side,
            tried: Duration::from_millis(at - 1),
            at: Duration::from_millis(*at),
        };
        milliseconds.iter().map(one).collect()
    }

    #[test]
    fn the_gap_is_from_the_last_accepted_before_to_the_first_after() {
        let mut all = accepted(Place::Region1, &[5, 300, 305, 310]);
        all.extend(accepted(Place::Region2, &[560, 565]));
        let found = outage(&all, Probed::Postgres, Duration::from_millis(308)).unwrap();
        assert_eq!(found.length(), Duration::from_millis(250));
        assert_eq!((found.last.side, found.first.side), (Place::Region1, Place::Region2));
        assert_eq!(both_sides(&all, &found), 0);
        assert_eq!(outage(&all, Probed::Redis, Duration::from_millis(308)), None);
        assert_eq!(outage(&all, Probed::Postgres, Duration::from_millis(700)), None);
    }

    #[test]
    fn an_old_side_that_goes_on_accepting_is_counted() {
        let mut all = accepted(Place::Region1, &[300, 310]);
        all.extend(accepted(Place::Region2, &[560, 565, 570]));
        all.extend(accepted(Place::Region1, &[572, 574]));
        let found = outage(&all, Probed::Postgres, Duration::from_millis(308)).unwrap();
        assert_eq!(both_sides(&all, &found), 2);
    }
}
