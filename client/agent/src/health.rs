//! Whether the machine is well: `health.d` of `/etc/tidings`, small executables that look at this
//! machine and at nothing else.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// How long one check may take.
const CHECK: Duration = Duration::from_secs(60);

/// The names of the checks that fail, in their order.
pub(crate) async fn failing(etc: &Path) -> Vec<String> {
    let mut checks: Vec<PathBuf> = std::fs::read_dir(etc.join("health.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    checks.sort();
    let mut failing = Vec::new();
    for check in checks.iter().filter(|path| path.is_file()) {
        let mut command = Command::new(check);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let well = match command.spawn() {
            Ok(mut child) => {
                matches!(timeout(CHECK, child.wait()).await, Ok(Ok(status)) if status.success())
            }
            Err(_) => false,
        };
        if !well {
            failing.push(
                check
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    failing
}
