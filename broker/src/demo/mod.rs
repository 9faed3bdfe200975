//! The demonstration.
/// Options.
#[derive(clap::Args)]
pub struct Options {}
/// Run.
///
/// # Errors
/// x
pub fn run(_o: Options) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("not yet")
}
