//! `tidings-conformance`: does an implementation keep to the specification? See `README.md` beside
//! this file.
#![allow(clippy::print_stdout)]

mod broker;
mod device;
mod namespace;
mod report;
mod wire;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "tidings-conformance",
    about = "Does an implementation keep to the specification?"
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Speak with a broker; it is an origin, empty, and has the anchor that `anchor` prints
    Broker {
        /// Where it listens, without TLS
        address: String,
    },
    /// Drive a device through the lives of the specification
    Device {
        /// Where the lives are
        #[arg(long, default_value = "spec/vectors/sequences")]
        lives: PathBuf,
        /// The driver of the device, and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Print the anchor that the broker has to have
    Anchor,
}

fn main() -> anyhow::Result<ExitCode> {
    let mut report = report::Report::default();
    match Arguments::parse().what {
        What::Broker { address } => broker::run(&address, &mut report)?,
        What::Device { lives, command } => device::run(&lives, &command, &mut report)?,
        What::Anchor => {
            println!("{}", namespace::anchor()?);
            return Ok(ExitCode::SUCCESS);
        }
    }
    Ok(report.end())
}
