//! The account of availability on timelines that were recorded, with sums that were added up by hand.

use tier0_core::availability::{
    Access, Account, Cause, Done, Expected, Probed, SLOT_MS, Way, WayAccount, YEAR_MS,
    available_in_a_year, billionths, expected_down_ms, percent,
};

fn way(access: Access) -> Way {
    Way { datastore: "main".parse().unwrap(), route: None, access }
}

/// A timeline as it was seen from both regions: a letter for each slot. `.` served at once, digits
/// served after that many tenths, `x` refused, `?` unanswered, and a space where nothing was probed.
fn play(account: &mut Account, way: &Way, from_ms: i64, line: &str) {
    for (slot, letter) in line.chars().enumerate() {
        let due = from_ms + slot as i64 * SLOT_MS + 37;
        let probed = match letter {
            '.' => Probed::Served { held_ms: 2 },
            'x' => Probed::Refused,
            '?' => Probed::Unanswered,
            ' ' => continue,
            digit => Probed::Served { held_ms: digit.to_digit(10).unwrap() * 100 + 50 },
        };
        account.take(way, due, probed);
    }
}

fn settled(account: &mut Account, from_ms: i64, line: &str) {
    account.advance(from_ms + line.chars().count() as i64 * SLOT_MS + 3_000);
}

fn only(account: &Account) -> &WayAccount {
    assert_eq!(account.ways().len(), 1);
    &account.ways()[0]
}

#[test]
fn a_switch_that_holds_clients_is_latency_and_no_downtime() {
    let mut account = Account::begin(0);
    let line = "..........7654321..........";
    play(&mut account, &way(Access::Write), 10_000, line);
    settled(&mut account, 10_000, line);
    let seen = only(&account);
    assert_eq!((seen.served, seen.failed, seen.unknown), (27, 0, 0));
    assert_eq!((seen.held, seen.longest_held_ms), (7, 750));
    assert_eq!((seen.windows.len(), seen.down_ms), (0, 0));
    assert_eq!(seen.available_billionths(), Some(1_000_000_000));
}

#[test]
fn a_lost_region_is_a_window_from_the_first_failed_slot_to_the_first_of_three_served() {
    let mut account = Account::begin(0);
    // What region1 saw, which then was gone; and what region2 saw, one served slot among the failed.
    let one = "..........xx";
    let two = "..........??xxx.xx????........";
    play(&mut account, &way(Access::Write), 50_000, one);
    play(&mut account, &way(Access::Write), 50_000, two);
    settled(&mut account, 50_000, two);
    let seen = only(&account);
    assert_eq!((seen.served, seen.failed, seen.unknown), (19, 11, 0));
    assert_eq!(seen.errors, 2 + 11);
    assert_eq!(seen.windows.len(), 1);
    assert_eq!((seen.windows[0].from_ms, seen.windows[0].to_ms), (51_000, 52_200));
    assert_eq!(seen.down_ms, 1_200);
    assert_eq!(account.down_in_a_year_ms(60_000), 1_200);
}

#[test]
fn one_prober_that_is_served_is_enough_and_its_wait_counts() {
    let mut account = Account::begin(0);
    play(&mut account, &way(Access::Write), 0, "xxxxx");
    play(&mut account, &way(Access::Write), 0, ".3.9.");
    settled(&mut account, 0, ".....");
    let seen = only(&account);
    assert_eq!((seen.served, seen.failed, seen.held, seen.longest_held_ms), (5, 0, 2, 950));
    assert_eq!(seen.errors, 5);
}

#[test]
fn what_nobody_probed_is_unknown_and_never_available() {
    let mut account = Account::begin(0);
    let line = format!("....{}....", " ".repeat(100));
    play(&mut account, &way(Access::Read), 0, &line);
    settled(&mut account, 0, &line);
    let seen = only(&account);
    // A single slot without a probe is where clocks meet: the one before speaks for it.
    assert_eq!((seen.served, seen.failed, seen.unknown), (9, 0, 99));
    assert_eq!(seen.available_billionths(), Some(1_000_000_000));
}

#[test]
fn a_window_goes_on_over_slots_that_nobody_probed_but_not_for_ever() {
    let mut account = Account::begin(0);
    let short = format!("...x{}xx...", " ".repeat(40));
    play(&mut account, &way(Access::Write), 0, &short);
    settled(&mut account, 0, &short);
    assert_eq!(only(&account).down_ms, 4_300);
    let mut account = Account::begin(0);
    let long = format!("...x{}...", " ".repeat(80));
    play(&mut account, &way(Access::Write), 0, &long);
    settled(&mut account, 0, &long);
    // The failed slot, and the one that it also speaks for.
    assert_eq!(only(&account).down_ms, 200);
    assert_eq!(only(&account).unknown, 79);
}

#[test]
fn a_window_that_has_not_ended_counts_until_now() {
    let mut account = Account::begin(0);
    let line = "....xxxxxxxxxx";
    play(&mut account, &way(Access::Write), 0, line);
    settled(&mut account, 0, line);
    assert_eq!(only(&account).down_since_ms(), Some(400));
    assert_eq!(account.down_in_a_year_ms(1_400), 1_000);
    assert_eq!(account.down_in_a_year_ms(400 + YEAR_MS as i64 + 5_000), YEAR_MS);
}

#[test]
fn an_operation_is_the_cause_of_what_overlaps_it_and_nothing_else() {
    let mut account = Account::begin(0);
    let line = "..xx....................................xxxx.....";
    play(&mut account, &way(Access::Write), 0, line);
    settled(&mut account, 0, line);
    assert!(account.wants_causes(10_000));
    let id = || "01a2b3c4-0000-7000-8000-000000000001".parse().unwrap();
    account.explain(&Done { id: id(), kind: "failover".into(), from_ms: 4_200, to_ms: 4_350 });
    let causes: Vec<&Cause> = only(&account).windows.iter().map(|one| &one.cause).collect();
    let failover = Cause::Operation { id: id(), kind: "failover".to_owned() };
    assert_eq!(causes, [&Cause::Unexplained, &failover]);
    assert!(!account.wants_causes(10_000_000));
}

#[test]
fn windows_of_two_datastores_that_overlap_count_once() {
    let mut account = Account::begin(0);
    let cache = Way { datastore: "cache".parse().unwrap(), ..way(Access::Write) };
    play(&mut account, &way(Access::Write), 0, "...xxxx.......");
    play(&mut account, &cache, 0, ".....xxxx.....");
    play(&mut account, &way(Access::Read), 0, "xxxxxxxxxxxxxx");
    settled(&mut account, 0, "..............");
    assert_eq!(account.down_in_a_year_ms(20_000), 600);
}

#[test]
fn it_comes_back_from_its_file_as_it_was_and_the_time_between_is_unknown() {
    let mut account = Account::begin(0);
    let line = "..x...1.";
    play(&mut account, &way(Access::Write), 0, line);
    settled(&mut account, 0, line);
    let text = serde_json::to_string(&account).unwrap();
    let mut back: Account = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
    play(&mut back, &way(Access::Write), 100_000, "...");
    settled(&mut back, 100_000, "...");
    let seen = only(&back);
    assert_eq!((seen.served, seen.failed, seen.down_ms), (7 + 3, 1, 100));
    assert_eq!(seen.unknown, 1_000 - 8);
}

#[test]
fn a_probe_that_comes_too_late_changes_no_sum() {
    let mut account = Account::begin(0);
    play(&mut account, &way(Access::Write), 0, ".....");
    account.advance(60_000);
    let before = only(&account).clone();
    play(&mut account, &way(Access::Write), 0, ".....");
    account.advance(60_000);
    assert_eq!(*only(&account), before);
}

#[test]
fn the_arithmetic_of_a_year_is_exact() {
    // The specification's figure leaves 3.156 s of a year, to a millisecond.
    assert_eq!(percent(available_in_a_year(3_155)), "99.9999900");
    assert_eq!(percent(available_in_a_year(3_156)), "99.9999899");
    assert_eq!(percent(available_in_a_year(0)), "100.0000000");
    assert_eq!(percent(billionths(1, 3)), "33.3333333");
    let event = |name: &str, in_a_thousand_years, lasts_ms| Expected {
        name: name.to_owned(),
        in_a_thousand_years,
        lasts_ms,
    };
    // One primary a year for 2 s, a false alarm every second year for 2 s, four standbys for 5 s and
    // a planned switch a month for 0.3 s: 2 + 1 + 20 + 3.6 s.
    let all = [
        event("primary lost", 1_000, 2_000),
        event("false alarm", 500, 2_000),
        event("standby lost", 4_000, 5_000),
        event("planned", 12_000, 300),
    ];
    assert_eq!(expected_down_ms(&all), 26_600);
    assert_eq!(percent(available_in_a_year(26_600)), "99.9999157");
    assert_eq!(expected_down_ms(&[event("rare", 1, 1)]), 1);
}
