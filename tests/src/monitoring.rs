//! What monitoring reads: metrics, and what the rules and the dashboard in `docs/monitoring/` and
//! the guide name of them.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// The rules, the dashboard and their tests.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring")
}

/// Names of metrics in a text.
fn names(text: &str) -> impl Iterator<Item = String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    let words = text.split(move |c| !is_name(c));
    let metrics = words.filter(|word| word.starts_with("tidings_") && !word.ends_with('_'));
    metrics.map(str::to_owned)
}

/// All metrics of brokers that rules, dashboard and guide name.
///
/// # Errors
/// If a file is not there.
pub fn named() -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for file in ["alerts.yml", "dashboard.json", "../guide/monitoring.md"] {
        let path = directory().join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        all.extend(names(&text));
    }
    all.retain(|name| !name.starts_with("tidings_check_"));
    Ok(all)
}

/// The names of the samples that a broker exports.
pub fn exported(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect()
}

/// Runs promtool, with something on its standard input; what it has said, if it found nothing
/// wrong.
///
/// # Errors
/// What it found; or that it is not here.
pub fn promtool(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let program = env::var_os("TIDINGS_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let mut child = Command::new(&program)
        .args(arguments)
        .current_dir(directory())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!(
                "cannot run {}: it is in Debian's package prometheus, whose server need not run; \
                 TIDINGS_PROMTOOL names it where it is elsewhere",
                program.display()
            )
        })?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "promtool {arguments:?}: {said}");
    Ok(said)
}
