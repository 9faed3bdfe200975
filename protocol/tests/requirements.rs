//! Every numbered requirement of the specification has a vector or a test, and every number that a
//! vector or a test names is one of the specification's.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Requirements that no vector is about, and the tests that are.
#[rustfmt::skip]
const TESTED: &[(&str, &[&str])] = &[
    ("1-30", &["attack_27_events_that_come_late_twice_or_in_another_order_are_put_right"]),
    ("2-4", &["attack_87_a_damaged_state_file_is_refused_and_left_alone", "attack_87_news_that_were_not_saved_come_again_although_beats_and_trust_were"]),
    ("2-22", &["attack_18_it_asks_although_it_is_told", "attack_18_a_watch_that_only_looks_alive_is_left_when_the_beat_ends"]),
    ("2-23", &["attack_81_a_withdrawal_that_comes_after_staging_stops_it_before_the_reboot"]),
    ("2-34", &["the_command_takes_turns"]),
    ("3-1", &["attack_30_an_origin_that_was_restored_from_a_backup_gets_no_second_statement_for_a_serial", "a_lost_race_names_the_head"]),
    ("3-2", &["attack_092_one_statement_waits_for_a_channel"]),
    ("3-3", &["story_10_an_outbox_is_emptied_by_the_log_a_rival_or_trust_and_by_nothing_else", "story_10_an_outbox_is_emptied_when_what_it_stands_on_is_filed_away"]),
    ("3-4", &["s05_what_is_published_meanwhile_makes_a_ceremony_begin_anew"]),
    ("3-5", &["s11_with_credentials_or_a_ca_nothing_is_posted_in_clear_text", "attack_106_no_answer_makes_a_client_send_a_password_in_clear_text"]),
    ("3-6", &["attack_100_a_channel_is_begun_on_purpose_only"]),
    ("3-8", &["attack_123_the_newest_release_of_a_set_of_targets_is_named_before_it_falls_out"]),
    ("3-9", &["attack_17_a_signer_of_beats_that_starts_above_a_checkpoint_goes_on_and_leaves_out_what_nobody_shows"]),
    ("3-10", &["story_17_a_restored_signer_of_beats_is_not_listened_to_until_it_is_beyond_what_it_signed"]),
    ("3-11", &["attack_098_nobody_displaces_anybody", "a_full_beat_is_a_statement"]),
    ("3-12", &["attack_101_new_heads_bring_beats_early_and_at_most_every_tenth_of_a_period", "the_origin_signs_and_a_device_is_current_until_it_stops"]),
    ("3-13", &["attack_118_each_signer_verifies_the_head_of_a_checkpoint_from_the_statements"]),
    ("3-14", &["attack_118_each_signer_verifies_the_head_of_a_checkpoint_from_the_statements", "attack_13_a_survey_takes_up_nothing_that_a_broker_with_an_old_trust_log_shows"]),
    ("3-15", &["s05_what_is_published_meanwhile_makes_a_ceremony_begin_anew"]),
    ("3-18", &["s13_what_is_closed_stays_closed"]),
    ("4-3", &["attacks_35_36_67_what_is_not_proven_leaves_no_trace_and_only_peers_may_offer"]),
    ("4-11", &["attack_116_a_restored_origin_takes_what_others_have_more_before_it_takes_anything", "attack_116_a_restored_origin_signs_no_beat_before_it_has_compared_itself"]),
    ("4-13", &["attack_100_one_namespace_uses_up_its_own_channels_alone", "attack_114_evidence_is_kept_of_races_too_and_each_namespace_has_its_own_quota"]),
    ("4-14", &["what_one_member_takes_all_have", "of_publishers_at_several_members_one_wins"]),
    ("4-19", &["attack_33_retention_keeps_what_a_checkpoint_names", "a_beat_that_a_checkpoint_names_is_kept_below_the_others", "retention_raises_the_low_water_mark_and_spares_head_and_trust"]),
    ("4-21", &["a_silent_watch_is_told_that_the_broker_is_still_there"]),
    ("4-23", &["attack_102_a_command_pays_for_all_that_is_looked_at_for_it", "attack_65_a_costly_wildmat_is_cheap"]),
    ("5-1", &["a_mirror_of_a_mirror_has_everything_and_tells_of_what_is_new"]),
    ("5-2", &["attack_110_what_is_of_the_future_is_put_off_unless_it_is_vouched_for"]),
    ("5-3", &["a_trust_log_begins_at_the_anchor_and_is_filled_below"]),
    ("5-4", &["a_log_begins_anew_above_a_gap_that_nobody_fills", "a_gap_waits_and_one_backfill_grows_down_until_it_meets_the_head", "a_change_of_trust_judges_the_backfill_anew"]),
    ("5-5", &["a_beat_channel_has_the_highest_proven_serial_whatever_comes"]),
    ("5-6", &["attacks_35_36_67_what_is_not_proven_leaves_no_trace_and_only_peers_may_offer"]),
    ("5-7", &["what_a_beat_may_vouch_for_is_put_off_until_the_beat_is_there", "attacks_44_67_who_offers_too_much_that_is_refused_is_cut_off", "a_statement_that_a_peer_puts_off_keeps_no_other_back"]),
    ("5-8", &["a_feed_goes_on_where_it_was_when_the_peer_was_away", "what_a_checkpoint_names_vouches_for_what_lies_below_whoever_signed_it", "history_by_retired_keys_is_taken_from_the_top_down"]),
    ("5-10", &["attacks_26_27_48_a_lying_upstream_is_named_and_avoided_and_the_honest_one_wins"]),
    ("5-11", &["the_live_beat_decides_at_a_mirror_down_to_where_the_branches_part"]),
    ("5-12", &["no_upstream_shortens_a_log_that_another_has", "a_log_begins_where_nothing_below_is_to_be_had_and_is_filled_below_later", "what_a_checkpoint_names_is_kept_below_a_gap"]),
    ("5-14", &["an_air_gap_is_crossed_with_a_file"]),
    ("5-15", &["what_stands_one_after_the_other_is_a_bundle"]),
    ("6-1", &["requests_that_other_projects_publish", "bad_input_is_refused_by_name"]),
    ("6-2", &["machines_that_speak_plain_fleetlock_take_turns", "attack_75_a_node_that_comes_back_has_its_slot_and_another_token"]),
    ("6-3", &["bad_input_is_refused_by_name"]),
    ("6-4", &["those_who_wait_are_told_in_their_order_at_whichever_broker", "one_who_is_gone_blocks_nobody"]),
    ("6-5", &["the_command_takes_turns"]),
    ("6-6", &["a_token_counts_for_its_serial_only"]),
    ("6-7", &["attacks_73_74_79_a_lease_that_runs_out_is_a_failure_and_enough_of_them_stop_the_group"]),
    ("6-8", &["operators_see_how_it_stands"]),
    ("6-9", &["attack_76_the_present_configuration_counts"]),
    ("6-10", &["attacks_73_to_79_slots_on_one_machine", "attacks_73_to_79_slots_in_a_cluster"]),
    ("6-11", &["attacks_77_80_a_node_is_who_its_certificate_says", "attacks_80_115_bearer_tokens"]),
];

/// Requirements that nothing here tests, and why.
const UNTESTED: &[(&str, &str)] = &[
    ("1-1", "it says what a program is"),
    ("2-1", "what a handler fetches is the agent's"),
    ("2-2", "nothing is executed: there is no code that could"),
    (
        "3-7",
        "what publishers do; the demonstration goes back by a new release",
    ),
    ("3-16", "the ceremony; no test yet"),
    ("5-9", "mirrors; no test of its own"),
    ("5-13", "interop/inn.sh, where a news server is"),
];

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).to_owned()
}

fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    word.split_once('-')
        .is_some_and(|(part, number)| part.len() == 1 && digits(part) && digits(number))
}

/// What the specification states.
fn stated() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root().join("spec")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(path).unwrap();
            let numbers = text
                .split("**[")
                .skip(1)
                .filter_map(|rest| rest.split_once("]**"))
                .map(|(number, _)| number.to_owned());
            found.extend(numbers.filter(|number| is_number(number)));
        }
    }
    assert!(found.len() > 100, "{found:?}");
    found
}

/// What vectors are about, and the name of one.
fn vectors() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in ["good", "bad", "rollout", "sequences"] {
        for entry in fs::read_dir(root().join("spec/vectors").join(kind)).unwrap() {
            let path = entry.unwrap().path();
            let octets = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&octets);
            let name = format!("{kind}/{}", path.file_name().unwrap().to_string_lossy());
            let mut numbers: Vec<&str> = text
                .lines()
                .find_map(|line| line.strip_prefix("requirement: "))
                .unwrap_or_default()
                .split(' ')
                .collect();
            assert!(
                numbers.iter().all(|number| is_number(number)),
                "{name} does not say which requirement it is about"
            );
            let outcomes = text
                .lines()
                .filter_map(|line| line.split_once(" => "))
                .flat_map(|(_, outcome)| outcome.split(' '));
            numbers.extend(outcomes.filter(|word| kind == "sequences" && is_number(word)));
            found.extend(
                numbers
                    .into_iter()
                    .map(|number| (number.to_owned(), name.clone())),
            );
        }
    }
    found
}

fn sources(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// What the conformance runner checks at a broker.
fn checks() -> BTreeSet<String> {
    let mut runner = Vec::new();
    sources(
        &root().join("tests/src/bin/conformance/broker"),
        &mut runner,
    );
    let quoted = runner.iter().flat_map(|text| text.split('"'));
    quoted
        .filter(|text| is_number(text))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_requirement_has_a_vector_or_a_test() {
    let mut files = Vec::new();
    for member in ["protocol", "client", "broker", "tests"] {
        sources(&root().join(member), &mut files);
    }
    let (stated, vectors, checks) = (stated(), vectors(), checks());
    for (number, name) in &vectors {
        assert!(
            stated.contains(number),
            "{name} is about {number}, which the specification does not have"
        );
    }
    assert!(checks.len() > 20, "{checks:?}");
    for number in &checks {
        assert!(
            stated.contains(number),
            "the conformance runner names {number}, which the specification does not have"
        );
    }
    for (number, tests) in TESTED {
        assert!(
            stated.contains(*number),
            "{number} is none of the specification's"
        );
        for test in *tests {
            let there = files.iter().any(|text| {
                text.contains(&format!("fn {test}()")) || text.contains(&format!("fn {test}("))
            });
            assert!(
                there,
                "{number} is said to be tested by {test}, which is not there"
            );
        }
    }
    let tested = |number: &str| TESTED.iter().any(|(tested, _)| *tested == number);
    for (number, _) in UNTESTED {
        assert!(
            stated.contains(*number),
            "{number} is none of the specification's"
        );
        assert!(
            !vectors.contains_key(*number) && !tested(number) && !checks.contains(*number),
            "{number} is tested: take it off the list"
        );
    }
    let untested = |number: &str| UNTESTED.iter().any(|(untested, _)| *untested == number);
    let covered = |number: &&String| {
        vectors.contains_key(*number)
            || checks.contains(*number)
            || tested(number)
            || untested(number)
    };
    let missing: Vec<&String> = stated.iter().filter(|number| !covered(number)).collect();
    assert!(
        missing.is_empty(),
        "no vector and no test is about {missing:?}"
    );
}
