//! Traffic with a ledger around a scenario.

use std::time::Duration;

use tier0_lab::ledger::{self, Targets, Traffic, TrafficPlan, WritePath};

use super::Stack;

/// Paths on which nothing acknowledged may be lost also when the writer's region dies (D4).
pub const LOSSLESS: [WritePath; 2] = [WritePath::Postgres, WritePath::RedisWait];

/// Writers at work, with their ledger.
pub struct Run {
    traffic: Traffic,
    plan: TrafficPlan,
    targets: Targets,
}

impl Stack {
    /// Start writers to every datastore, and wait until each path acknowledges.
    pub async fn traffic(&mut self) -> Run {
        self.runs += 1;
        let directory = self.directory.join("ledger").join(self.runs.to_string());
        let plan = TrafficPlan {
            postgres_writers: 4,
            redis_writers: 2,
            redis_wait_writers: 2,
            ..TrafficPlan::moderate(directory)
        };
        let targets = Targets::of(&self.state().stack().unwrap()).unwrap();
        let traffic = Traffic::start(&plan, &targets).await.unwrap();
        let run = Run { traffic, plan, targets };
        run.goes_on().await;
        run
    }
}

impl Run {
    /// Wait until further writes of every path are acknowledged.
    pub async fn goes_on(&self) {
        self.traffic.wait_for_more(20, Duration::from_secs(30)).await.unwrap();
    }

    /// The same while there is one copy, where `WAIT` cannot be answered.
    pub async fn goes_on_with_one_copy(&self) {
        let now =
            || [WritePath::Postgres, WritePath::Redis].map(|path| self.traffic.acknowledged(path));
        let before = now();
        super::until(Duration::from_secs(30), async || {
            let counts = now();
            match counts.iter().zip(before).all(|(now, before)| *now >= before + 20) {
                true => Ok(()),
                false => Err(format!("acknowledged {before:?}, then {counts:?}")),
            }
        })
        .await
        .unwrap();
    }

    /// Stop the writers, read everything back, and demand that nothing acknowledged on `paths` is
    /// missing, and nothing is there twice. Returns how many acknowledgements were checked.
    pub async fn lost_nothing(self, paths: &[WritePath]) -> u64 {
        self.traffic.stop().await.unwrap();
        let report = ledger::check(&self.plan.directory, &self.targets).await.unwrap();
        assert!(report.missing(paths).is_empty(), "missing:\n{}", report.text());
        assert!(report.duplicates().is_empty(), "twice:\n{}", report.text());
        assert_eq!(report.evicted(), 0, "evicted:\n{}", report.text());
        print!("{}", report.text());
        report.checked(paths)
    }
}
