//! What happens in a round of a soak, drawn from a seed and the round's number, and from nothing else:
//! the same round of the same seed is the same story on every machine.
//!
//! In one round data servers are killed in one region only: the loss of both copies at once is nobody's
//! to prevent. Frozen, cut off and restarted is anything, at any time. All faults of a round begin in its
//! first half and last into its second, so that they overlap; none is a part of another, which would be
//! gone already or mended with it.

use crate::scenario::{Apart, Break, Ends, Step};

/// How long a round goes on at least and at most before everything is mended, in milliseconds.
const LASTS: (u64, u64) = (2_000, 9_000);

/// How often a fault that fits is looked for.
const TRIES: usize = 200;

/// Where an operator moves the writer: away from where it is then.
const OTHER: &str = "other";

/// xorshift64*.
struct Random(u64);

impl Random {
    fn of(seed: u64, round: u64) -> Random {
        let mixed =
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ round.wrapping_mul(0xD1B5_4A32_D192_ED03);
        let mut random = Random(mixed | 1);
        // Neighbouring seeds begin alike.
        for _ in 0..8 {
            random.below(2);
        }
        random
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

/// What happens at which millisecond of a round, in order; waits are the gaps between.
pub fn round(seed: u64, number: u64, apart: Apart) -> Vec<(u64, Step)> {
    let mut random = Random::of(seed, number);
    let lasts = LASTS.0 + random.below(LASTS.1 - LASTS.0);
    let doomed = random.one(&["region1", "region2"]);
    let faults = 3 + random.below(3) as usize;
    let mut steps = Vec::new();
    let mut broken: Vec<String> = Vec::new();
    for _ in 0..TRIES {
        if broken.len() == faults {
            break;
        }
        let one = fault(&mut random, doomed, apart);
        if broken.iter().any(|other| meet(other, &one.what)) {
            continue;
        }
        broken.push(one.what.clone());
        let at = random.below(lasts / 2);
        // Some last until all is mended.
        let mended = lasts / 2 + random.below(lasts);
        if mended < lasts {
            steps.push((mended, Step::Heal { what: Some(one.what.clone()) }));
        }
        steps.push((at, Step::Break(one)));
    }
    // One operator is early, while the first faults begin; another may come at any time.
    for before in [lasts / 4, lasts].into_iter().take(1 + random.below(2) as usize) {
        let to = OTHER.to_owned();
        steps.push((random.below(before), Step::Failover { to, ends: Ends::Unseen }));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

/// Whether two targets are the same, or one is a part of the other: a process or a link of a region.
fn meet(one: &str, other: &str) -> bool {
    let holds = |site: &str, part: &str| {
        site.starts_with("region")
            && !site.contains('-')
            && part.split(['.', '-']).any(|word| word == site)
    };
    one == other || holds(one, other) || holds(other, one)
}

fn fault(random: &mut Random, doomed: &str, apart: Apart) -> Break {
    let region = random.one(&["region1", "region2"]);
    let kinds = if apart == Apart::Namespaces { 11 } else { 8 };
    let (what, how) = match random.below(kinds) {
        0 => (doomed.to_owned(), "kill"),
        1 => (format!("main.{doomed}"), "kill"),
        2 => (format!("cache.{doomed}"), "kill"),
        3 => (format!("agent.{region}"), random.one(&["kill", "freeze"])),
        4 => ("orchestrator.witness".to_owned(), random.one(&["kill", "freeze"])),
        5 => (format!("main.{region}"), "freeze"),
        6 => (format!("cache.{region}"), "freeze"),
        7 => (region.to_owned(), "freeze"),
        8 => (region.to_owned(), random.one(&["cut", "cut-in", "cut-out"])),
        9 => ("region1-region2".to_owned(), random.one(&["cut", "cut-in", "cut-out"])),
        _ => (format!("{region}-witness"), random.one(&["cut", "cut-in", "cut-out"])),
    };
    Break { what, how: how.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn is_data(one: &Break) -> bool {
        !one.what.starts_with("agent") && !one.what.starts_with("orchestrator")
    }

    #[test]
    fn a_round_is_drawn_again_and_every_fault_of_it_can_be_made() {
        let mut different = BTreeSet::new();
        for number in 1..=300 {
            let drawn = round(7, number, Apart::Namespaces);
            assert_eq!(drawn, round(7, number, Apart::Namespaces));
            let mut killed = BTreeSet::new();
            for (_, step) in &drawn {
                let Step::Break(one) = step else { continue };
                one.parse().unwrap();
                different.insert((one.what.clone(), one.how.clone()));
                if one.how == "kill" && is_data(one) {
                    killed.insert(one.what.rsplit('.').next().unwrap().to_owned());
                }
            }
            assert!(killed.len() <= 1, "round {number} kills data servers in {killed:?}");
        }
        assert!(different.len() >= 25, "only {different:?}");
        assert!(meet("region1", "main.region1") && meet("region1-witness", "region1"));
        assert!(!meet("region1", "main.region2") && !meet("agent.region1", "main.region1"));
        assert_ne!(round(7, 1, Apart::Loopback), round(8, 1, Apart::Loopback));
    }

    #[test]
    fn at_least_three_faults_of_a_round_are_there_at_once() {
        for (number, apart) in
            (1..=300).flat_map(|one| [(one, Apart::Namespaces), (one, Apart::Loopback)])
        {
            let (mut now, mut most) = (BTreeSet::new(), 0);
            for (_, step) in round(11, number, apart) {
                match step {
                    Step::Break(one) => assert!(now.insert(one.what), "broken twice"),
                    Step::Heal { what } => assert!(now.remove(&what.unwrap()), "was not broken"),
                    _ => {}
                }
                most = most.max(now.len());
            }
            assert!(most >= 3, "round {number}: {most} at once");
        }
    }
}
