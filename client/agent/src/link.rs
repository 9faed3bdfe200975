//! The way to the applier: its socket, or its program, which is then started for each request.

use std::{os::unix::fs::FileTypeExt, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::Command,
    time::timeout,
};

use crate::{
    apply::Request,
    handler::{Answer, LATER},
};

/// How long the applier may take: longer than a handler may.
const PATIENCE: Duration = Duration::from_secs(3_900);
const ANSWER_OCTETS: u64 = 4_096;

/// Asks; one that cannot be reached answers "later".
pub(crate) async fn ask(apply: &Path, config: &Path, request: &Request) -> Answer {
    let asked = timeout(PATIENCE, asked(apply, config, request))
        .await
        .unwrap_or_else(|_| bail!("it does not answer"));
    asked.unwrap_or_else(|error| {
        Answer::new(LATER, format!("the applier {}: {error:#}", apply.display()))
    })
}

async fn asked(apply: &Path, config: &Path, request: &Request) -> anyhow::Result<Answer> {
    let about = tokio::fs::metadata(apply)
        .await
        .context("it is not there")?;
    if about.file_type().is_socket() {
        let (from, to) = UnixStream::connect(apply)
            .await
            .context("it cannot be reached")?
            .into_split();
        return talk(from, to, request).await;
    }
    let mut command = Command::new(apply);
    command
        .arg("--config")
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("it cannot be run")?;
    let (from, to) = child
        .stdout
        .take()
        .zip(child.stdin.take())
        .context("it has no pipes")?;
    let answer = talk(from, to, request).await;
    child.wait().await?;
    answer
}

async fn talk(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    request: &Request,
) -> anyhow::Result<Answer> {
    to.write_all(request.write().as_bytes()).await?;
    to.flush().await?;
    let mut line = String::new();
    BufReader::new(from.take(ANSWER_OCTETS))
        .read_line(&mut line)
        .await?;
    Answer::read(&line).context("it answers what is no answer")
}
