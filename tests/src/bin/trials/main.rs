//! Trials that are too long, too large or too wild for a test: `cargo xtask` runs them.
//!
//! One program, so that everything below them is linked once.
#![allow(clippy::print_stdout)]

mod cluster;
mod crash;
mod fanout;
mod growth;
mod hostile;
mod inn;
mod mirrors;
mod namespace;
mod page;
mod peers;
mod publish;
mod sleeper;
mod tree;

use clap::Parser;

#[derive(Parser)]
enum Trial {
    /// Three brokers that are one origin, and everything that goes wrong with them
    Cluster(cluster::Arguments),
    /// kill -9 under load
    Crash(crash::Options),
    /// Many subscribers on one broker, and one that stops reading
    Fanout(fanout::Options),
    /// Costs while channels and statements grow
    Growth(growth::Arguments),
    /// What somebody polite waits for while others are not
    Hostile(hostile::Arguments),
    /// INN on both sides
    Inn(inn::Arguments),
    /// What mirrors cost
    Mirrors(mirrors::Arguments),
    /// Ten thousand channels in one namespace
    Namespace(namespace::Arguments),
    /// The status page in a browser
    Page(page::Arguments),
    /// Tidings beside other servers
    Peers(peers::Arguments),
    /// Durable, verified POSTs
    Publish(publish::Options),
    /// A device that slept
    Sleeper(sleeper::Arguments),
    /// A tree of brokers and devices
    Tree(tree::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Trial::parse() {
        Trial::Cluster(arguments) => cluster::run(arguments),
        Trial::Crash(options) => crash::run(options),
        Trial::Fanout(options) => fanout::run(options),
        Trial::Growth(arguments) => growth::run(arguments),
        Trial::Hostile(arguments) => hostile::run(arguments),
        Trial::Inn(arguments) => inn::run(arguments),
        Trial::Mirrors(arguments) => mirrors::run(arguments),
        Trial::Namespace(arguments) => namespace::run(arguments),
        Trial::Page(arguments) => page::run(arguments),
        Trial::Peers(arguments) => peers::run(arguments),
        Trial::Publish(options) => publish::run(options),
        Trial::Sleeper(arguments) => sleeper::run(arguments),
        Trial::Tree(arguments) => tree::run(arguments),
    }
}
