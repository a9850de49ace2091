//! One bad day: a stack that is whole, a while in which everything goes wrong, then nothing does,
//! and it must be whole again, with nothing lost.

use std::collections::BTreeMap;

use super::*;

/// How long the stack has to become whole after everything is healed.
const HEALED_WITHIN: u64 = 90 * SECOND;

/// Stacks that have come up by themselves, by what they consist of.
#[derive(Default)]
pub struct Starts {
    whole: BTreeMap<(usize, usize, usize, [bool; 3]), Chaos>,
}

impl Starts {
    fn of(&mut self, wanted: &Parameters) -> Chaos {
        let (postgres, redis, documented) = (wanted.postgres, wanted.redis, wanted.documented);
        let (death_moves, max_protection) = (wanted.death_moves, wanted.max_protection);
        let orchestrators = wanted.orchestrators;
        let make = || {
            let calm = Parameters::calm(postgres, redis, documented);
            let calm = Parameters { death_moves, max_protection, orchestrators, ..calm };
            let mut chaos = Chaos::new(calm);
            assert!(chaos.run(20 * SECOND, Chaos::is_whole), "it did not come up");
            chaos
        };
        let key = (orchestrators, postgres, redis, [documented, death_moves, max_protection]);
        self.whole.entry(key).or_insert_with(make).clone()
    }

    /// Live through the day of a seed. Panics when anything is not as it must be.
    pub fn bad_day(&mut self, seed: u64) -> Counts {
        let mut random = Random::new(seed);
        let parameters = Parameters::drawn(&mut random);
        self.live(parameters, random)
    }

    /// The day of a seed, with three orchestrators over one store.
    pub fn bad_day_of_three(&mut self, seed: u64) -> Counts {
        let mut random = Random::new(seed);
        let parameters = Parameters::drawn(&mut random).of_three();
        let mut counts = self.live(parameters, random);
        counts.days_of_three = 1;
        counts
    }

    fn live(&mut self, parameters: Parameters, random: Random) -> Counts {
        let lasts = parameters.lasts;
        let mut chaos = self.of(&parameters);
        let before = chaos.acknowledged.count;
        chaos.begin(parameters, random);
        chaos.run(lasts, |_| false);
        chaos.heal();
        let until = chaos.now + HEALED_WITHIN;
        while !chaos.run(3 * SECOND, Chaos::is_whole) {
            assert!(chaos.now < until, "not whole {HEALED_WITHIN} µs after everything was healed");
            chaos.help();
        }
        chaos.run(SECOND / 2, |_| false);
        if chaos.is_shared() && (lasts / SECOND).is_multiple_of(4) {
            // While all is calm the seat goes to the first of them, and stays there.
            let first = chaos.run(20 * SECOND, Chaos::first_acts);
            assert!(first, "{} acts, and it is not the first", chaos.stored.driver);
            let (seats, wait) = (chaos.counts.seats.clone(), 3 * SECOND);
            chaos.run(wait, |_| false);
            assert_eq!(chaos.counts.seats, seats, "the seat is taken while all is calm");
        }
        chaos.assert_nothing_lost();
        chaos.counts.acknowledged = (chaos.acknowledged.count - before) as u64;
        chaos.counts
    }
}
