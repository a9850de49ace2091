//! A stack whose sites are network namespaces: a region that falls silent, links that are cut, disks
//! that are full. What this machine cannot have is SKIPPED.

use std::time::Duration;

use serde_json::Value;
use tier0_lab::fault::target::Target;
use tier0_lab::fault::{self, Fault, broken};
use tier0_lab::ledger::Targets;
use tier0_lab::network::namespaces;
use tier0_lab::placement::Place;
use tier0_lab::prober::{Probed, Prober, both_sides, outage};
use tier0_lab::skipped::skipped;

use crate::automatic::set;
use crate::stack::{LOSSLESS, RECOVERY, Stack, acknowledged, admin, long, postgres, until};

const TEST: &str = "network: silent regions, cut links, full disks";

/// One stack for all, since nothing else can use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_that_fall_silent_links_that_are_cut_and_disks_that_are_full() {
    if let Some(why) = namespaces::unavailable() {
        return skipped(TEST, &why);
    }
    let mut stack = Stack::up_with(&["--netns", "--own-disks"]);
    set(&stack, "armed").await;
    a_full_disk_is_full_and_has_room_again(&stack).await;
    a_cut_between_the_regions_moves_nothing(&mut stack).await;
    a_witness_that_is_cut_off_stops_no_write(&mut stack).await;
    a_region_that_falls_silent_is_left_and_comes_back_as_standby(&mut stack).await;
    if long() {
        home(&stack).await;
        a_standby_whose_disk_is_full_is_left_and_joins_again(&mut stack).await;
        a_writer_whose_disk_is_full_is_left(&mut stack).await;
        a_writer_whose_disk_is_stuck_is_left(&mut stack).await;
        a_region_that_is_cut_one_way_is_left(&mut stack).await;
    }
    let instance = stack.instance;
    assert_eq!(namespaces::existing(instance).len(), 3);
    drop(stack);
    assert_eq!(namespaces::existing(instance), Vec::<String>::new());
}

/// Break something.
pub async fn break_it(stack: &Stack, target: &str, fault: Fault) -> Target {
    let target: Target = target.parse().unwrap();
    let done = fault::apply(&stack.state(), &target, fault).await.unwrap();
    println!("{}", done.join("; "));
    target
}

/// Mend everything, and wait until the stack is whole.
pub async fn mend(stack: &Stack) -> Value {
    let done = fault::heal(&mut stack.state(), None).unwrap();
    println!("{}", done.join("; "));
    assert_eq!(broken(&stack.state()).unwrap(), Vec::<String>::new());
    stack.api().protected(RECOVERY).await.unwrap()
}

/// The epoch of the record.
pub async fn epoch(stack: &Stack) -> u64 {
    stack.api().status().await.unwrap()["epoch"].as_u64().unwrap()
}

/// The disk of a Redis replica: nothing else of the stack writes there.
async fn a_full_disk_is_full_and_has_room_again(stack: &Stack) {
    let disk = stack.directory.join("region2/cache");
    let room = || {
        let seen = rustix::fs::statvfs(&disk).unwrap();
        seen.f_bavail * seen.f_frsize
    };
    let before = room();
    assert!((500 << 20..1 << 30).contains(&before), "{before}");
    break_it(stack, "cache.region2", Fault::DiskFull).await;
    assert_eq!(room(), 0);
    assert_eq!(broken(&stack.state()).unwrap(), ["cache.region2: its disk is full"]);
    // Nothing is moved to a region that has no room, and the number is said.
    let api = stack.api();
    let detail = until(RECOVERY, async || {
        let ready = api.read("/readiness?target=region2").await?;
        match ready.body["ready"] == false && ready.text.contains("disk-full") {
            true => Ok(api.failover("region2").await),
            false => Err(ready.text),
        }
    })
    .await
    .map(|answer| {
        answer.refuses(409, "disk-full");
        answer.body["detail"].as_str().unwrap().to_owned()
    })
    .unwrap();
    assert!(detail.contains("cache.region2 has 0 MB free"), "{detail}");
    mend(stack).await;
    assert!(room() > before / 2, "{}", room());
}

/// Both regions see the witness, so that neither is dead: commits go on with one copy.
async fn a_cut_between_the_regions_moves_nothing(stack: &mut Stack) {
    let run = stack.traffic().await;
    let before = epoch(stack).await;
    for (target, fault) in [("region1-region2", Fault::Cut), ("region2-region1", Fault::CutOut)] {
        break_it(stack, target, fault).await;
        until(RECOVERY, async || match stack.api().status().await? {
            status if status["protection"] == "exposed" => Ok(()),
            status => Err(format!("protection is {}", status["protection"])),
        })
        .await
        .unwrap();
        run.goes_on_with_one_copy().await;
        let status = mend(stack).await;
        assert_eq!(status["current_region"], "region1");
        assert_eq!(epoch(stack).await, before, "the writer was moved");
        run.goes_on().await;
    }
    run.lost_nothing(&LOSSLESS).await;
}

/// Nobody who decides is reachable, and nobody needs to be.
async fn a_witness_that_is_cut_off_stops_no_write(stack: &mut Stack) {
    let run = stack.traffic().await;
    let before = epoch(stack).await;
    break_it(stack, "witness", Fault::Cut).await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        run.goes_on().await;
    }
    assert!(stack.api().status().await.is_err(), "the witness is not cut off");
    mend(stack).await;
    assert_eq!(epoch(stack).await, before, "the writer was moved");
    run.lost_nothing(&LOSSLESS).await;
}

/// Packets from and to region1 vanish, nothing is refused, and nobody commands anything. A session
/// that was opened before gets no acknowledgement any more once the other side takes writes.
async fn a_region_that_falls_silent_is_left_and_comes_back_as_standby(stack: &mut Stack) {
    let run = stack.traffic().await;
    let targets = Targets::of(&stack.state().stack().unwrap()).unwrap();
    let prober = Prober::start(&targets).await.unwrap();
    prober.wait_for(Place::Region1, 10, prober.now(), RECOVERY).await.unwrap();
    let old = postgres(stack, "main.region1").await.unwrap();
    acknowledged(&old, "BEFORE-THE-CUT").await.unwrap();
    let cut = prober.now();
    break_it(stack, "region1", Fault::Cut).await;
    let held = tokio::spawn(async move {
        let answer = acknowledged(&old, "ASKED-WHILE-SILENT").await;
        (old, answer)
    });
    prober.wait_for(Place::Region2, 10, cut, RECOVERY).await.unwrap();
    let seen = Probed::ALL.map(|store| outage(&prober.accepted(), store, cut).unwrap());
    for one in &seen {
        println!("{}: nobody was served for {:?}", one.first.store.name(), one.length());
        assert_eq!(one.first.side, Place::Region2, "{one:?}");
    }
    run.goes_on_with_one_copy().await;
    assert_eq!(mend(stack).await["current_region"], "region2");
    let (old, answer) = tokio::time::timeout(RECOVERY, held).await.unwrap().unwrap();
    assert!(answer.is_err(), "the old side acknowledged a write after it was left");
    assert!(acknowledged(&old, "ASKED-LATER").await.is_err());
    let [postgres, redis] = seen.map(|one| both_sides(&prober.accepted(), &one));
    println!("accepted by the old side afterwards: PostgreSQL {postgres}, Redis {redis}");
    assert_eq!(postgres, 0, "both sides of PostgreSQL accepted writes");
    drop(prober);
    run.lost_nothing(&LOSSLESS).await;
}

/// The writer goes back to region1, and nothing is moved for it.
async fn home(stack: &Stack) {
    stack.api().failover("region1").await.succeeds();
    stack.api().protected(RECOVERY).await.unwrap();
    // The next failure is not of the same minute to the cool-down of the lab, which is 1 s.
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// New segments of WAL are asked for until there is something that has no room for them.
async fn until_it_is_felt(stack: &Stack, felt: impl Fn(&Value) -> bool) {
    until(RECOVERY, async || {
        // A primary that ends meanwhile does not answer.
        let _ = admin(stack, "main.region1", "SELECT pg_switch_wal()");
        let status = stack.api().status().await?;
        if felt(&status) { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await
    .unwrap();
}

/// Its WAL has no room: it ends or stops receiving, and commits go on with one copy.
async fn a_standby_whose_disk_is_full_is_left_and_joins_again(stack: &mut Stack) {
    let run = stack.traffic().await;
    let before = epoch(stack).await;
    break_it(stack, "main.region2", Fault::DiskFull).await;
    until_it_is_felt(stack, |status| status["protection"] == "exposed").await;
    run.goes_on_with_one_copy().await;
    mend(stack).await;
    assert_eq!(epoch(stack).await, before, "the writer was moved");
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
}

/// A primary that cannot write WAL ends; the other region goes on.
async fn a_writer_whose_disk_is_full_is_left(stack: &mut Stack) {
    let run = stack.traffic().await;
    break_it(stack, "main.region1", Fault::DiskFull).await;
    until_it_is_felt(stack, |status| status["current_region"] == "region2").await;
    run.goes_on_with_one_copy().await;
    assert_eq!(mend(stack).await["current_region"], "region2");
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
    home(stack).await;
}

/// Nothing is refused and nothing comes back: commits hang, over old sessions and new ones.
async fn a_writer_whose_disk_is_stuck_is_left(stack: &mut Stack) {
    let run = stack.traffic().await;
    break_it(stack, "main.region1", Fault::DiskStuck).await;
    assert_eq!(broken(&stack.state()).unwrap(), ["main.region1: its disk takes nothing"]);
    until_it_is_felt(stack, |status| status["current_region"] == "region2").await;
    run.goes_on_with_one_copy().await;
    assert_eq!(mend(stack).await["current_region"], "region2");
    run.goes_on().await;
    run.lost_nothing(&LOSSLESS).await;
    home(stack).await;
}

/// What region1 sends vanishes, then what is sent to it: either way it can be no writer.
async fn a_region_that_is_cut_one_way_is_left(stack: &mut Stack) {
    for fault in [Fault::CutOut, Fault::CutIn] {
        let run = stack.traffic().await;
        let old = postgres(stack, "main.region1").await.unwrap();
        acknowledged(&old, "BEFORE-THE-CUT").await.unwrap();
        break_it(stack, "region1", fault).await;
        until(RECOVERY, async || match stack.api().status().await? {
            status if status["current_region"] == "region2" => Ok(()),
            status => Err(format!("{status:#}")),
        })
        .await
        .unwrap();
        assert!(acknowledged(&old, "AFTER-THE-CUT").await.is_err());
        run.goes_on_with_one_copy().await;
        assert_eq!(mend(stack).await["current_region"], "region2");
        assert!(acknowledged(&old, "ASKED-LATER").await.is_err());
        run.lost_nothing(&LOSSLESS).await;
        home(stack).await;
    }
}
