//! One bad day: a stack that is whole, a while in which everything goes wrong, then nothing does,
//! and it must be whole again, with nothing lost.

use std::collections::BTreeMap;

use super::*;

/// How long the stack has to become whole after everything is healed.
const HEALED_WITHIN: u64 = 90 * SECOND;

/// Stacks that have come up by themselves, by what they consist of.
#[derive(Default)]
pub struct Starts {
    whole: BTreeMap<(usize, usize, bool, bool, bool), Chaos>,
}

impl Starts {
    fn of(&mut self, wanted: &Parameters) -> Chaos {
        let (postgres, redis, documented) = (wanted.postgres, wanted.redis, wanted.documented);
        let (death_moves, max_protection) = (wanted.death_moves, wanted.max_protection);
        let make = || {
            let calm = Parameters::calm(postgres, redis, documented);
            let mut chaos = Chaos::new(Parameters { death_moves, max_protection, ..calm });
            assert!(chaos.run(20 * SECOND, Chaos::is_whole), "it did not come up");
            chaos
        };
        let key = (postgres, redis, documented, death_moves, max_protection);
        self.whole.entry(key).or_insert_with(make).clone()
    }

    /// Live through the day of a seed. Panics when anything is not as it must be.
    pub fn bad_day(&mut self, seed: u64) -> Counts {
        let mut random = Random::new(seed);
        let parameters = Parameters::drawn(&mut random);
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
        chaos.assert_nothing_lost();
        chaos.counts.acknowledged = (chaos.acknowledged.count - before) as u64;
        chaos.counts
    }
}
