//! The whole path from an HTTP client to both regions' disks: devices send to the reference backends
//! while the writer moves on command, and while the region that they send to dies.

use std::time::Duration;

use tier0_lab::ledger::{Targets, WritePath, check};
use tier0_lab::load::{HttpErrors, HttpPlan, HttpTraffic, summary_text};

use crate::stack::{RECOVERY, Stack, shared};

async fn devices(stack: &Stack, name: &str) -> (HttpTraffic, HttpPlan) {
    let plan = HttpPlan {
        patience: Duration::from_secs(60),
        ..HttpPlan::moderate(stack.directory.join("ledger").join(name))
    };
    let traffic = HttpTraffic::start(&plan, &stack.state().stack().unwrap()).unwrap();
    served(&traffic).await;
    (traffic, plan)
}

async fn served(traffic: &HttpTraffic) {
    traffic.wait_for_more(100, Duration::from_secs(30)).await.unwrap();
}

/// Everything that was answered 201 is there, and there once.
async fn ends_clean(traffic: HttpTraffic, plan: &HttpPlan, stack: &Stack) {
    let summary = traffic.stop().await.unwrap();
    print!("{}", summary_text(&summary));
    assert_eq!(summary.given_up, 0);
    assert_eq!(summary.not_sent, 0);
    assert_eq!(summary.first_unexpected, None);
    let targets = Targets::of(&stack.state().stack().unwrap()).unwrap();
    let report = check(&plan.directory, &targets).await.unwrap();
    print!("{}", report.text());
    assert_eq!(report.checked(&[WritePath::Http]), summary.acknowledged);
    assert!(report.missing(&[WritePath::Http]).is_empty(), "missing:\n{}", report.text());
    assert!(report.duplicates().is_empty(), "twice:\n{}", report.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_meet_no_error_while_the_writer_moves_there_and_back() {
    let stack = shared().await;
    let (traffic, plan) = devices(&stack, "http-planned").await;
    for target in ["region2", "region1"] {
        stack.api().failover(target).await.succeeds();
        served(&traffic).await;
        assert_eq!(traffic.errors(), HttpErrors::default(), "on the way to {target}");
        stack.api().protected(RECOVERY).await.unwrap();
    }
    ends_clean(traffic, &plan, &stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_a_region_that_dies_are_served_by_the_other_and_nothing_acknowledged_is_lost() {
    let stack = shared().await;
    let (traffic, plan) = devices(&stack, "http-lost-region").await;
    let names = stack.started_in("region1");
    stack.kill_region("region1");
    stack.api().failover("region2").await.succeeds();
    served(&traffic).await;
    let errors = traffic.errors();
    println!("while region1 died: {}", errors.text());
    assert!(errors.unanswered > 0, "no device sent to the region that died");
    assert_eq!(errors.unexpected, 0);
    names.iter().for_each(|name| stack.start_again(name));
    stack.api().protected(RECOVERY).await.unwrap();
    served(&traffic).await;
    ends_clean(traffic, &plan, &stack).await;
}
