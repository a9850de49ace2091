//! Readiness checks that are not provoked on real servers, each by what an agent would report: the
//! clock of another host, an old backup, a broken way, logical slots, versions.

use std::time::Duration;

use crate::asked::{self, question};
use crate::world::{World, node, region};
use tier0_core::observe::{
    AgentReport, BackupView, ExpiringRole, Knock, NodeView, PostgresView, Reach, RedisPersistence,
    RedisView,
};
use tier0_core::readiness::{Finding, Level, judge, may_move};
use tier0_core::words::WallMillis;

/// What is found about a move to region2 once the report of one region is changed.
fn found(code: &str, place: &str, change: impl Fn(&mut AgentReport)) -> Finding {
    let mut world = World::protected(1, 1);
    world.run(Duration::from_secs(1));
    let mut seen = world.core.seen().clone();
    for (name, of_region) in &mut seen.regions {
        let (report, _) = of_region.report.as_mut().unwrap();
        if name.as_str() == place {
            change(report);
        }
        of_region.clock_ahead_ms = report.host.wall.map(|wall| wall.0);
    }
    let target = region("region2");
    let question = question(&world, &seen, &target);
    let of_redis = |one: &Finding| one.datastore.as_ref().is_some_and(|it| it.as_str() == "redis1");
    let with_code = judge(&question).into_iter().filter(|one| one.code == code);
    // Where both datastores have it, PostgreSQL's is meant.
    let finding = with_code.min_by_key(of_redis).unwrap();
    let refused = may_move(&question).err().map(|refusal| refusal.code);
    assert_eq!(refused.as_deref() == Some(code), finding.level == Level::Fail, "{finding:?}");
    finding
}

fn postgres(report: &mut AgentReport) -> &mut PostgresView {
    let views = report.nodes.values_mut().map(|node| &mut node.view);
    views
        .filter_map(|view| match view {
            NodeView::Postgres(view) => Some(view),
            NodeView::Redis(_) | NodeView::Route(_) => None,
        })
        .next()
        .unwrap()
}

fn redis(report: &mut AgentReport) -> &mut RedisView {
    let views = report.nodes.values_mut().map(|node| &mut node.view);
    views
        .filter_map(|view| match view {
            NodeView::Redis(view) => Some(view),
            NodeView::Postgres(_) | NodeView::Route(_) => None,
        })
        .next()
        .unwrap()
}

#[track_caller]
fn says(finding: &Finding, level: Level, part: &str) {
    assert_eq!(finding.level, level, "{finding:?}");
    assert!(finding.sentence.contains(part), "{finding:?}");
}

#[test]
fn every_finding__says_how_old_its_reports_are() {
    let finding = found("standby-not-running", "region2", |report| {
        for node in report.nodes.values_mut() {
            node.age_ms = 700;
        }
    });
    assert!(finding.age_ms.is_some_and(|age| (700..2_000).contains(&age)), "{finding:?}");
}

#[test]
fn clocks__apart_by_a_second__warn_with_the_side() {
    let both =
        |ahead: i64| move |report: &mut AgentReport| report.host.wall = Some(WallMillis(ahead));
    says(&found("clock-offset", "region2", both(0)), Level::Unknown, "region1 is not known");
    let set = |ahead| {
        let mut world = World::protected(1, 1);
        world.run(Duration::from_secs(1));
        let mut seen = world.core.seen().clone();
        for of_region in seen.regions.values_mut() {
            of_region.clock_ahead_ms = Some(0);
        }
        seen.regions.get_mut(&region("region2")).unwrap().clock_ahead_ms = Some(ahead);
        asked::found(&world, &seen, "clock-offset")
    };
    says(&set(999), Level::Pass, "region2 is 1.0 s ahead of");
    says(&set(1_000), Level::Warn, "region2 is 1.0 s ahead of");
    says(&set(-2_500), Level::Warn, "region2 is 2.5 s behind");
    assert_eq!(set(-2_500).number, Some(2.5));
}

#[test]
fn connectivity__each_way_is_named() {
    let way = |newest| {
        move |report: &mut AgentReport| {
            report.peers.insert(node("pg1.region2"), Reach { newest, unanswered_ms: 2_000 });
        }
    };
    let broken = found("peer-unreachable", "region1", way(Knock::Silent));
    let sentence = "region1 does not reach pg1.region2, and could not follow it: nothing has come";
    says(&broken, Level::Warn, sentence);
    says(&found("peer-unreachable", "region1", way(Knock::Refused)), Level::Warn, "refused or cut");
    let unknown = found("peer-unreachable", "region1", |report| report.peers.clear());
    says(&unknown, Level::Unknown, "whether region1 reaches pg1.region2 is not known");
}

#[test]
fn autostart__refuses_a_commanded_move() {
    let finding = found("autostart", "region1", |report| {
        let sentence = "db.service is enabled".to_owned();
        report.host.autostart.insert(node("pg1.region1"), vec![sentence]);
    });
    says(&finding, Level::Fail, "pg1.region1: db.service is enabled");
}

#[test]
fn backups__the_newest_of_both_sides_counts() {
    let age = |seconds: Option<u64>| {
        move |report: &mut AgentReport| {
            let error = seconds.is_none().then(|| "the job says nothing".to_owned());
            let view = BackupView { age_seconds: seconds, error };
            report.host.backups.insert(node("pg1.region2"), view);
        }
    };
    says(&found("backup-age", "region2", age(Some(26 * 3600))), Level::Pass, "26.0 h old");
    let old = found("backup-age", "region2", age(Some(27 * 3600)));
    says(&old, Level::Warn, "27.0 h old, it should be at most 26 h");
    says(&found("backup-age", "region2", age(None)), Level::Unknown, "the job says nothing");
}

#[test]
fn credentials__warn_two_weeks_before_and_after() {
    let in_days = |days: i64| {
        move |report: &mut AgentReport| {
            let role = "shop".to_owned();
            let seconds = days * 86_400;
            postgres(report).expiring = Some(Box::new(ExpiringRole { role, seconds }));
        }
    };
    says(&found("credential-expires", "region1", in_days(15)), Level::Pass, "in 15.0 days");
    says(&found("credential-expires", "region1", in_days(13)), Level::Warn, "in 13.0 days");
    says(&found("credential-expires", "region1", in_days(-2)), Level::Warn, "expired 2.0 days ago");
}

#[test]
fn slots__logical_ones_stay_behind() {
    let finding = found("slots", "region1", |report| {
        let view = postgres(report);
        view.slots.insert("tier0_pg1_region2".to_owned(), "reserved".to_owned());
        view.logical_slots = vec!["orders_cdc".to_owned()];
    });
    says(&finding, Level::Warn, "logical slots of pg1.region1 stay behind in a move: orders_cdc");
}

#[test]
fn redis__persistence_and_versions_are_compared() {
    let kept = |append_only, append_ok, snapshot_ok| {
        move |report: &mut AgentReport| {
            let view = RedisPersistence { append_only, append_ok, snapshot_ok };
            redis(report).persistence = Some(view);
        }
    };
    let code = "redis-persistence";
    says(&found(code, "region1", kept(false, true, true)), Level::Warn, "appendonly is off");
    says(&found(code, "region1", kept(true, false, true)), Level::Warn, "append-only file of");
    says(&found(code, "region1", kept(true, true, false)), Level::Warn, "the last snapshot of");
    says(&found(code, "region1", kept(true, true, true)), Level::Unknown, "redis1.region2");
    let finding = found("redis-version", "region1", |report| {
        redis(report).version = Some("7.2.4".to_owned());
    });
    says(&finding, Level::Unknown, "the version of one node is not known");
}

#[test]
fn postgres__a_major_version_that_is_not_tested_is_named() {
    let finding = found("server-version", "region1", |report| {
        postgres(report).version = Some(160_014);
    });
    says(&finding, Level::Fail, "PostgreSQL 16.14 and 15.18 cannot replicate");
}
