//! What a planet needs: the arithmetic of `docs/design/planet.md`, and an hour of simulated time
//! that checks it. The page's tables are what is printed here.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod hour;
mod outage;
mod plan;
mod sizes;
mod table;

use std::{path::Path, time::Duration};

use hour::{Fault, Hour};
use plan::{AWAY, Plan, SERVED, Traffic};
use sizes::{Names, Sizes};
use tidings_protocol::statement::Release;

const SEED: u64 = 1;

fn names(plan: &Plan) -> Names {
    Names::new("acme", 3, plan.channels as usize, plan.group as usize)
}

/// What is counted otherwise than it is calculated, by more than the part that each may.
fn differences(counted: &[Traffic; 4], expected: &[Traffic; 4]) -> Vec<String> {
    let mut found = Vec::new();
    for ((served, counted), expected) in SERVED.iter().zip(counted).zip(expected) {
        for ((what, counted, part), (_, expected, _)) in
            counted.fields().into_iter().zip(expected.fields())
        {
            // Of what is next to nothing, two more or less are no part.
            let least = if part > 0.0 { 2.0 } else { 0.0 };
            if (counted - expected).abs() > part * expected + least {
                found.push(format!(
                    "{what} of {served}: {counted:.0}, not {expected:.0}"
                ));
            }
        }
    }
    found
}

#[test]
fn an_hour_of_a_fifth_of_a_tree_is_what_the_arithmetic_says() {
    // Large beats reach fewer devices, to be quick.
    for (group, devices) in [(20, 100_000), (500, 20_000)] {
        let plan = Plan {
            devices,
            ..plan::fifth(group)
        };
        let sizes = Sizes::of(&names(&plan));
        let expected = plan.expected(&sizes);
        let hour = hour::run(&plan, &sizes, SEED, Fault::None);
        println!("{}", table::compared(&plan, hour.traffic(), &expected));
        let wrong = differences(hour.traffic(), &expected);
        assert!(wrong.is_empty(), "{group} channels of a role: {wrong:#?}");

        restart_is_spread(&plan, &hour);
        rotation_is_spread(&plan, &hour);
    }
}

/// Those of the edge that restarts go to its two neighbours, all at once.
fn restart_is_spread(plan: &Plan, hour: &Hour) {
    let ((moved, peak), of_one) = (hour.storm(), f64::from(plan.devices / plan.mirrors[2]));
    println!("a restart: {moved} devices move, {peak} connections to one edge in that second");
    assert!((moved / of_one - 1.0).abs() < 0.15, "{moved}");
    assert!((0.45..0.6).contains(&(peak / moved)), "{peak}");
}

/// Devices read what a rotation settles as they ask anyway: nobody comes for it alone.
fn rotation_is_spread(plan: &Plan, hour: &Hour) {
    let most = hour.busiest();
    println!("a rotation is read by {most} devices in the busiest second");
    assert!(most < 2.0 * even(plan), "{most}");
}

/// Devices that look at a release in one second, if releases come evenly: two of four looks are a
/// second apart.
fn even(plan: &Plan) -> f64 {
    f64::from(plan.devices) / plan::HOUR * plan::LOOKS
}

#[test]
fn what_is_left_out_is_missed() {
    let plan = Plan {
        devices: 5_000,
        ..plan::fifth(20)
    };
    let sizes = Sizes::of(&names(&plan));
    let expected = plan.expected(&sizes);
    let count = |fault| differences(hour::run(&plan, &sizes, SEED, fault).traffic(), &expected);
    assert_eq!(count(Fault::None), Vec::<String>::new());
    let tiers = (0..4).map(Fault::Tier);
    for fault in tiers.chain([Fault::NotEarly, Fault::NoJitter, Fault::NotSettled]) {
        let found = count(fault);
        println!("{fault:?}: {found:?}");
        assert!(!found.is_empty(), "{fault:?} is not missed");
    }
}

/// `cargo xtask namespace` on 2026-11-29, as in `docs/performance.md` and with `--channels 5000`,
/// also with `--product 20`: octets that a device got, a new one and one that was there when the
/// key was rotated. In the last row, of the same day, it reads the settled beat of its own role
/// alone (debug build), and in those before those of all roles.
#[test]
fn sizes_are_those_that_were_measured() {
    let measured = [
        (10_000, 500, 20, 58_893.0, 1_187_331.0),
        (5_000, 500, 10, 58_593.0, 622_521.0),
        (5_000, 20, 250, 12_733.0, 826_381.0),
        (5_000, 20, 1, 12_733.0, 40_621.0),
    ];
    for (channels, group, roles, new, rotated) in measured {
        let names = Names {
            release: Release {
                version: "1".into(),
                ..Release::default()
            },
            serial: 1,
            beat_serial: 3,
            ..Names::new("test", 2, channels, group)
        };
        let path = "broker.invalid!not-for-mail";
        let calculated = [
            sizes::cold(&names, path),
            sizes::rotated(&names, roles, path),
        ];
        println!("{channels} in {group}, {roles} settled beats: {calculated:?}");
        for (calculated, measured) in calculated.into_iter().zip([new, rotated]) {
            assert!(
                (calculated / measured - 1.0).abs() < 0.01,
                "{calculated} where {measured} were measured"
            );
        }
    }
}

#[test]
fn devices_of_one_broker_come_back_by_their_pauses() {
    let (devices, away) = (100_000, Duration::from_secs(AWAY as u64));
    let outage = outage::run(devices, away, SEED);
    println!(
        "away for {} s: {} to {} attempts of each, the last is back after {:.0} s, at most {:.1} % in one second",
        away.as_secs(),
        outage.tried.0,
        outage.tried.1,
        outage.last.as_secs_f64(),
        f64::from(outage.peak) * 100.0 / f64::from(devices)
    );
    // A pause is drawn from a quarter of a second to half of one, and each next one from twice
    // that. So after 7 or 8 of them a minute is over, and the last one was at least a quarter of
    // it.
    assert_eq!(outage.tried, (14, 16));
    assert!(outage.last > away && outage.last < away * 3);
    let even = f64::from(devices) / (away.as_secs_f64() / 4.0);
    assert!(f64::from(outage.peak) < 1.05 * even, "{}", outage.peak);
}

#[test]
fn the_page_has_these_tables() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/design/planet.md");
    let page = std::fs::read_to_string(page).unwrap();
    let tables = [
        table::octets(),
        table::tiers(),
        table::groups(),
        table::trees(),
    ];
    println!("{}", tables.join("\n"));
    for table in tables {
        assert!(page.contains(&table), "the page has not:\n{table}");
    }
}

#[test]
fn what_is_said_elsewhere_is_still_said_there() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap();
    let (defaults, costs) = (read("tidingsd.toml"), read("performance.md"));
    for default in [
        format!("every_seconds = {}", plan::BEAT_EVERY),
        format!("channels = {}", table::QUOTA),
        "connections_per_address = 1000".into(),
    ] {
        assert!(defaults.contains(&default), "{default}");
    }
    let agent = read("agent.toml");
    assert!(agent.contains(&format!("health_seconds = {}", plan::HEALTH)));
    let looks = read("../tests/tests/system/attacks/next.rs");
    assert!(looks.contains(&format!("(Some(399), Some(400), {}),", sizes::READ)));
    let row = format!("| tidings, TLS | {:.2} (", table::DELIVERY_MICROSECONDS);
    let memory = format!(
        " {} (8,063 to 8,141) |",
        table::grouped(table::CONNECTION_OCTETS)
    );
    let line = costs.lines().find(|line| line.starts_with(&row)).unwrap();
    assert!(line.ends_with(&memory), "{line}");
}
