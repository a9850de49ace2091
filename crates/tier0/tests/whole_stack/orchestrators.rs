//! Three orchestrators over an etcd cluster, one of each at every site: one acts at a time, another
//! takes its place, the writer moves by a majority of sites, and without a majority of the store
//! nothing moves and writes go on.

use std::time::{Duration, Instant};

use tier0_lab::fault::Fault;
use tier0_lab::network::namespaces;
use tier0_lab::preflight::on_path;
use tier0_lab::skipped::skipped;

use crate::automatic::set;
use crate::killed_roles::known_state;
use crate::network::{break_it, epoch, mend};
use crate::stack::{Api, Ask, LOSSLESS, RECOVERY, Stack, acknowledged, long, postgres, until};

const TEST: &str = "orchestrators: three of them over one store";
const SITES: [&str; 3] = ["witness", "region1", "region2"];

/// One stack for all, since nothing else can use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_orchestrators_act_one_at_a_time_and_take_each_others_place() {
    if on_path("etcd").is_none() {
        return skipped(TEST, "etcd is missing: apt-get install etcd-server");
    }
    let apart = match namespaces::unavailable() {
        None => &["--three-orchestrators", "--netns"][..],
        Some(why) => {
            skipped("orchestrators: sites that are cut off", &why);
            &["--three-orchestrators"][..]
        }
    };
    let mut stack = Stack::up_with(apart);
    whoever_is_asked_the_one_that_acts_answers(&stack).await;
    set(&stack, "armed").await;
    a_switch_goes_on_when_the_one_that_acts_is_killed(&mut stack).await;
    a_frozen_one_wakes_up_and_finds_itself_deposed(&mut stack).await;
    without_a_majority_of_the_store_nothing_moves_and_writes_go_on(&mut stack).await;
    let cuts = apart.contains(&"--netns");
    if cuts && long() {
        one_that_is_cut_off_is_replaced(&mut stack).await;
    }
    if !cuts || long() {
        the_writers_region_dies_with_its_orchestrator_and_member(&mut stack).await;
    }
    if cuts {
        the_writers_region_is_cut_off_with_its_orchestrator_and_member(&mut stack).await;
    }
}

/// The API of the orchestrator of a site.
fn at(stack: &Stack, site: &str) -> Api {
    let settings = stack.state().stack().unwrap();
    let one = settings.orchestrators.iter().find(|one| one.site.as_str() == site).unwrap();
    stack.api().asking(&format!("http://{}", one.listen))
}

/// Wait until this orchestrator says that this site acts.
async fn acts(stack: &Stack, asked: &str, site: &str) {
    let api = at(stack, asked);
    until(RECOVERY, async || match api.status().await? {
        status if status["acting"] == site => Ok(()),
        status => Err(format!("{} acts, says {asked}", status["acting"])),
    })
    .await
    .unwrap();
}

/// Everything runs, the writer is region1's, and the first in the order acts, as it does after a while
/// of calm.
async fn whole(stack: &Stack) {
    home(stack).await;
    for site in SITES {
        acts(stack, site, "witness").await;
    }
    known_state(stack).await;
}

async fn whoever_is_asked_the_one_that_acts_answers(stack: &Stack) {
    whole(stack).await;
    let mut revisions = Vec::new();
    for site in SITES {
        let api = at(stack, site);
        let status = api.status().await.unwrap();
        let heard: Vec<&str> = status["orchestrators"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, silent)| silent.is_null())
            .map(|(site, _)| site.as_str())
            .collect();
        assert_eq!(heard, ["region1", "region2", "witness"], "{status:#}");
        revisions.push(status["epoch"].clone());
    }
    assert!(revisions.windows(2).all(|pair| pair[0] == pair[1]), "{revisions:?}");
    // A key is one operation, whoever is asked.
    let ask = || Ask { key: Some("one-and-the-same".to_owned()), ..Ask::default() };
    let first = at(stack, "region2").post("/failover/region2", ask()).await;
    first.succeeds();
    let again = at(stack, "region1").post("/failover/region2", ask()).await;
    assert_eq!(again.operation(), first.operation());
    at(stack, "region1")
        .post("/failover/region2", Ask::default())
        .await
        .refuses(409, "already-writer");
    known_state(stack).await;
    at(stack, "region1").failover("region1").await.succeeds();
    known_state(stack).await;
}

/// The one that acts ends in the middle of a switch: the next one goes on with it, or undoes it.
async fn a_switch_goes_on_when_the_one_that_acts_is_killed(stack: &mut Stack) {
    let run = stack.traffic().await;
    let moments = if long() { &[20, 90, 150, 220, 300][..] } else { &[20, 150][..] };
    for after in moments {
        whole(stack).await;
        let api = at(stack, "witness");
        let asked =
            tokio::spawn(async move { api.try_post("/failover/region2", Ask::default()).await });
        tokio::time::sleep(Duration::from_millis(*after)).await;
        stack.kill("orchestrator.witness");
        let answered = asked.await.unwrap().map(|answer| answer.body["result"].clone());
        acts(stack, "region2", "region1").await;
        // The way back into a known state is the successor's alone.
        let others = at(stack, "region1");
        until(RECOVERY, async || match others.status().await? {
            status if status["operation"].is_null() => Ok(()),
            status => Err(format!("{}", status["operation"])),
        })
        .await
        .unwrap();
        run.goes_on().await;
        println!("killed after {after} ms: answered {answered:?}");
        stack.start_again("orchestrator.witness");
    }
    whole(stack).await;
    run.lost_nothing(&LOSSLESS).await;
}

/// It still takes itself for the one that acts, and whatever it says is refused or not granted.
async fn a_frozen_one_wakes_up_and_finds_itself_deposed(stack: &mut Stack) {
    whole(stack).await;
    let run = stack.traffic().await;
    let before = epoch(stack).await;
    break_it(stack, "orchestrator.witness", Fault::Freeze).await;
    acts(stack, "region1", "region1").await;
    at(stack, "region2").post("/failover/region2", Ask::default()).await.succeeds();
    mend(stack).await;
    let status = known_state(stack).await;
    assert_eq!(status["current_region"], "region2");
    assert_eq!(status["epoch"], before + 1, "the writer was moved again");
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
}

/// Two members of three are gone: nobody can store anything, and nobody needs to.
async fn without_a_majority_of_the_store_nothing_moves_and_writes_go_on(stack: &mut Stack) {
    whole(stack).await;
    let run = stack.traffic().await;
    let before = epoch(stack).await;
    stack.kill("etcd.witness");
    stack.kill("etcd.region2");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        run.goes_on().await;
    }
    let answer = at(stack, "region1").failover("region2").await;
    answer.refuses(503, "store-unavailable");
    run.goes_on().await;
    stack.start_again("etcd.witness");
    stack.start_again("etcd.region2");
    let status = known_state(stack).await;
    assert_eq!(status["epoch"], before, "the writer was moved");
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
}

/// The witness hears nobody any more: another acts, and the writer stays where it is.
async fn one_that_is_cut_off_is_replaced(stack: &mut Stack) {
    whole(stack).await;
    let run = stack.traffic().await;
    let before = epoch(stack).await;
    break_it(stack, "witness", Fault::Cut).await;
    acts(stack, "region2", "region1").await;
    run.goes_on().await;
    at(stack, "region1").failover("region2").await.succeeds();
    mend(stack).await;
    acts(stack, "witness", "witness").await;
    assert_eq!(epoch(stack).await, before + 1, "the writer was moved by itself");
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
}

async fn the_writers_region_dies_with_its_orchestrator_and_member(stack: &mut Stack) {
    whole(stack).await;
    let run = stack.traffic().await;
    break_it(stack, "region1", Fault::Kill).await;
    left(stack).await;
    run.goes_on_with_one_copy().await;
    mend(stack).await;
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
}

/// Two of three sites say that it is silent, and the third cannot say anything to anybody: its
/// orchestrator moves nothing, and its server acknowledges nothing once the other side takes writes.
async fn the_writers_region_is_cut_off_with_its_orchestrator_and_member(stack: &mut Stack) {
    whole(stack).await;
    let run = stack.traffic().await;
    let old = postgres(stack, "main.region1").await.unwrap();
    acknowledged(&old, "BEFORE-THE-CUT").await.unwrap();
    break_it(stack, "region1", Fault::Cut).await;
    left(stack).await;
    assert!(acknowledged(&old, "AFTER-THE-CUT").await.is_err());
    run.goes_on_with_one_copy().await;
    assert_eq!(mend(stack).await["current_region"], "region2");
    assert!(acknowledged(&old, "ASKED-LATER").await.is_err());
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
}

/// Wait until the writer's region is region2.
async fn left(stack: &Stack) {
    let begun = Instant::now();
    until(RECOVERY, async || match stack.api().status().await? {
        status if status["current_region"] == "region2" => Ok(()),
        status => Err(format!("{status:#}")),
    })
    .await
    .unwrap();
    println!("left after {} ms", begun.elapsed().as_millis());
}

/// The writer is region1's again, and nothing is under way.
async fn home(stack: &Stack) {
    if known_state(stack).await["current_region"] != "region1" {
        stack.api().failover("region1").await.succeeds();
    }
    known_state(stack).await;
}
