//! What the walks of every day cannot reach, and who does: a closed list, compared with what was
//! reached. A row that is reached must be taken off it, so that it says what is so.

/// A row or step that no walk reaches.
pub struct Beyond {
    /// The rows' ids, or steps' names.
    pub what: &'static [&'static str],
    /// Why.
    pub why: &'static str,
    /// The test that reaches them, in this folder.
    pub by: &'static str,
}

/// The batch of bad days reaches every row and step, each ten times at least; where one test shows it
/// plainly, that one is named.
pub const BEYOND: &[Beyond] = &[
    Beyond {
        what: &["P02", "P03", "P13"],
        why: "a server of the model runs or does not: none has lost its disk, starts slowly or is silent",
        by: "bad_days__nothing_acknowledged_is_lost_and_it_heals_by_itself",
    },
    Beyond {
        what: &["P16"],
        why: "its writes are a few bytes: nobody is 16 MB behind",
        by: "bad_days__nothing_acknowledged_is_lost_and_it_heals_by_itself",
    },
    Beyond {
        what: &["P18"],
        why: "nobody accepts loss in the walks of every day; `loss-accepted` of the long ones does",
        by: "accept_loss__the_old_data_is_left_untouched_until_a_rebuild",
    },
    Beyond {
        what: &["P19", "P20"],
        why: "its datastore goes on with one copy; it is not max-protection",
        by: "member_ended__it_follows_and_joins_again_while_commits_wait",
    },
    Beyond {
        what: &["P21"],
        why: "the same",
        by: "names_taken_away_by_hand_while_commits_wait__they_are_put_back",
    },
    Beyond {
        what: &["R01", "R02", "R03", "R04", "R05", "R06", "R07", "R08"],
        why: "it has no Redis",
        by: "bad_days__nothing_acknowledged_is_lost_and_it_heals_by_itself",
    },
    Beyond {
        what: &["A16"],
        why: "it has one orchestrator",
        by: "silence__another_orchestrator_hears_the_region__nothing_moves",
    },
    Beyond {
        what: &["A17"],
        why: "the same",
        by: "silence__only_one_site_says_so__nothing_moves_until_a_second_does",
    },
    Beyond {
        what: &["A18"],
        why: "the same: its store is its own",
        by: "store_away__the_writer_dies__nothing_is_moved_and_the_store_is_named",
    },
    Beyond {
        what: &["A04"],
        why: "the death of its datastore is one that moves the writer",
        by: "redis_exit__is_restarted_unless_its_death_moves_the_stack",
    },
    Beyond {
        what: &["A05"],
        why: "nobody knocks at a server",
        by: "agent_killed__its_server_answers__nothing_moves",
    },
    Beyond {
        what: &["A06"],
        why: "the same",
        by: "link_to_the_orchestrator_cut__the_other_region_sees_it__nothing_moves",
    },
    Beyond {
        what: &["A09"],
        why: "one thing goes wrong at a time: where the writer dies its copy is proven",
        by: "exposed__the_writer_is_not_moved_but_started_again",
    },
    Beyond {
        what: &["A10"],
        why: "the same: where the writer dies its standby runs",
        by: "bad_days__nothing_acknowledged_is_lost_and_it_heals_by_itself",
    },
    Beyond {
        what: &["A12", "A13", "A14"],
        why: "moving by itself is off: it is asked for at every moment instead, whoever is well",
        by: "bad_days__nothing_acknowledged_is_lost_and_it_heals_by_itself",
    },
    Beyond {
        what: &["hold"],
        why: "it has no routes, and clients wait for nothing else",
        by: "switchover__a_route_in_each_region__is_held_then_switched_then_released",
    },
    Beyond {
        what: &["record-abort"],
        why: "with no Redis and no route nothing is undone, and the operation leaves the record at once",
        by: "aborted__target_does_not_receive__old_side_is_released",
    },
    Beyond {
        what: &["record-arm"],
        why: "nobody arms it",
        by: "bad_days__nothing_acknowledged_is_lost_and_it_heals_by_itself",
    },
];
