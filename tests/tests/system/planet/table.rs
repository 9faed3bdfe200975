//! The tables of the page, in Markdown.

use std::fmt::Write as _;

use tidings_broker::limits::{CHANNELS, CLUSTER_CHANNELS, MIRROR_AUDIT, WATCH_CHANNELS};
use tidings_client::limits::PIPELINE;
use tidings_protocol::limits::{LISTING_OCTETS, STATEMENT_OCTETS};

use crate::planet::{
    names,
    plan::{Gap, HOUR, Plan, SERVED, TREES, Traffic, tree},
    sizes::{Names, Sizes},
};

/// CPU of a delivery, and octets of an idle subscriber: 5,000 subscribers over TLS 1.3 in
/// `docs/performance.md`, measured on 2026-12-01.
pub(crate) const DELIVERY_MICROSECONDS: f64 = 7.93;
pub(crate) const CONNECTION_OCTETS: u64 = 8_099;
/// `quota.channels`: the default in `docs/tidingsd.toml`.
pub(crate) const QUOTA: usize = 20_000;
/// Channels of one role for beats, in the tables by tiers.
pub(crate) const GROUP: u32 = 20;

/// A number with commas.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Four digits of a large number that count, three of a small one.
fn rounded(number: f64) -> String {
    match number {
        _ if number >= 1_000.0 => {
            let unit = 10_f64.powf(number.log10().floor() - 3.0);
            grouped(((number / unit).round() * unit).round() as u64)
        }
        _ if number >= 100.0 => format!("{number:.0}"),
        _ if number >= 10.0 && number.fract() < 0.01 => format!("{number:.0}"),
        _ if number >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn mega(octets: f64) -> String {
    rounded(octets / 1e6)
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().collect();
    format!("| {} |\n", cells.join(" | "))
}

/// What one broker of each tier serves, in a planet of trees.
pub(crate) fn tiers() -> String {
    let plan = tree(GROUP);
    let traffic = plan.expected(&Sizes::of(&names(&plan)));
    let [first, second, edges] = plan.mirrors.map(f64::from);
    let mut text = String::from(
        "| one of | tells | connections | their memory, MB | events | MB told | MB asked for | Mbit/s | CPU s |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let who = ["origins", "first tier", "second tier", "edges"];
    for (tier, (who, serving)) in who.into_iter().zip([1.0, first, second, edges]).enumerate() {
        let (of, each) = (traffic[tier], |total: f64| total / serving);
        let told = if tier == 3 { "devices" } else { "lines" };
        text += &line([
            format!("{} {who}", grouped((f64::from(TREES) * serving) as u64)),
            format!("{} {told}", rounded(each(plan.lines()[tier]))),
            rounded(each(of.standing)),
            mega(each(of.standing) * CONNECTION_OCTETS as f64),
            rounded(each(of.events())),
            mega(each(of.told)),
            mega(each(of.asked)),
            rounded(each(of.octets()) * 8.0 / 1e6 / HOUR),
            rounded(each(of.events()) * DELIVERY_MICROSECONDS / 1e6),
        ]);
    }
    text
}

/// What statements have as events at a device, and what asking costs.
pub(crate) fn octets() -> String {
    let sizes = Sizes::of(&names(&tree(GROUP)));
    let [release, beat, trust, ask, install, look] = [
        sizes.release[3],
        sizes.beat[3],
        sizes.trust[3],
        sizes.ask,
        sizes.install,
        sizes.look,
    ]
    .map(|octets| grouped(octets as u64));
    format!(
        "| release | beat | trust | a device asks | it looks at a release | a mirror looks |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |\n\
         | {release} | {beat} | {trust} | {ask} | {install} | {look} |\n"
    )
}

/// What the size of a role for beats does.
pub(crate) fn groups() -> String {
    let mut text = String::from(
        "| channels of a role | roles | beat, octets | beats an hour | MB an hour to a device | Gbit/s to all | trust, octets | KB of all settled beats | of its own role |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for group in [500, 100, 20] {
        let plan = tree(group);
        let sizes = Sizes::of(&names(&plan));
        let beats = HOUR / Gap::of(group).mean;
        let hourly = beats * sizes.beat[3];
        let devices = f64::from(TREES * plan.devices);
        text += &line([
            group.to_string(),
            plan.groups().to_string(),
            grouped(sizes.beat_statement as u64),
            rounded(beats),
            mega(hourly),
            rounded(hourly * devices * 8.0 / HOUR / 1e9),
            grouped(sizes.trust_statement as u64),
            rounded(sizes.settled_all / 1e3),
            rounded(sizes.settled / 1e3),
        ]);
    }
    text
}

/// A tree of everything, and one of twenty.
fn large_and_small() -> [Plan; 2] {
    let small = tree(GROUP);
    // With the same roles: the trust statement has room for twice as many, and no more.
    let large = Plan {
        channels: small.channels * TREES,
        group: small.group * TREES,
        ..tree(GROUP)
    };
    [large, small]
}

/// Where present numbers end: what, the bound, and what each of the two has.
pub(crate) fn trees() -> String {
    let plans = large_and_small();
    let sizes = plans.each_ref().map(|plan| Sizes::of(&names(plan)));
    let logs = plans
        .each_ref()
        .map(|plan| u64::from(plan.channels + plan.groups() + 1));
    let octets = |of: fn(&Sizes) -> u64| sizes.each_ref().map(|sizes| grouped(of(sizes)));
    let trust = octets(|sizes| sizes.trust_statement as u64);
    let listing = octets(|sizes| sizes.listing as u64);
    // One for the list, and one for each so many logs.
    let trips = logs.map(|logs| 1 + logs.div_ceil(PIPELINE as u64));
    let trip = trips.map(|trips| rounded(MIRROR_AUDIT.as_secs_f64() * 1e3 / trips as f64));
    let room = Names::new("acme", 3, 1, 1).room();
    let number = |number: usize| grouped(number as u64);
    let of_logs = [
        ("logs of a broker, `CHANNELS`", CHANNELS),
        ("of a namespace, `quota.channels`", QUOTA),
        ("of a watch, `WATCH_CHANNELS`", WATCH_CHANNELS),
        ("of a cluster, `CLUSTER_CHANNELS`", CLUSTER_CHANNELS),
    ]
    .map(|(what, bound)| (what, number(bound), logs.map(grouped)));
    let others = [
        (
            "channels of a beat, `BEAT_HEADS_OCTETS`",
            number(room),
            plans.map(|p| p.group.to_string()),
        ),
        (
            "octets of a statement, `STATEMENT_OCTETS`: trust",
            number(STATEMENT_OCTETS),
            trust,
        ),
        (
            "octets of a list, `LISTING_OCTETS`",
            number(LISTING_OCTETS),
            listing,
        ),
        (
            "ms a round trip may take, `MIRROR_AUDIT`",
            "60 s in all".into(),
            trip,
        ),
    ];
    let mut text =
        String::from("| what | bound | one tree | of 20 |\n| --- | ---: | ---: | ---: |\n");
    for (what, bound, [large, small]) in of_logs.into_iter().chain(others) {
        text += &line([what.into(), bound, large, small]);
    }
    text
}

/// What was counted beside what was calculated.
pub(crate) fn compared(plan: &Plan, counted: &[Traffic; 4], expected: &[Traffic; 4]) -> String {
    let mut text = format!("{} channels of a role: counted / calculated\n", plan.group);
    for ((served, counted), expected) in SERVED.iter().zip(counted).zip(expected) {
        let _ = write!(text, "| {served} |");
        for ((what, counted, _), (_, expected, _)) in
            counted.fields().into_iter().zip(expected.fields())
        {
            let _ = write!(text, " {what} {counted:.0} / {expected:.0} |");
        }
        text.push('\n');
    }
    text
}
