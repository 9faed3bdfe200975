//! The status page: one file that asks nobody else, what keeps it up to date, and evidence to be
//! taken along.

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{
        HeaderName, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
            REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    admin::Admin,
    status::{self, Query},
};
use crate::limits::{BOARD_PERIOD, HTTP_CONNECTION, STATUS_HEARTBEAT};

const PAGE: &str = include_str!("page.html");

/// What the page may do: nothing but its own script and style, and to ask this broker. Its script
/// can make no markup of text (`trusted-types`).
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let inside = PAGE
            .split_once(&open)
            .and_then(|(_, rest)| rest.split_once(&close));
        let inside = inside.map_or("", |(inside, _)| inside);
        format!(
            "'sha256-{}'",
            Base64::encode_string(&Sha256::digest(inside))
        )
    };
    let (script, style) = (digest("script"), digest("style"));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
});

const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What each answer to a browser says beside its own headers.
const SAFE: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (OPENER, "same-origin"),
    (RESOURCE, "same-origin"),
];

/// The page.
pub(super) async fn show() -> Response {
    let own = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.as_str()),
    ];
    (SAFE, own, PAGE).into_response()
}

/// One page that is kept up to date.
struct Stream {
    admin: Arc<Admin>,
    query: Query,
    news: watch::Receiver<()>,
    next: Instant,
    end: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// The next event, when something has become visible or after a while; none at the end.
    async fn event(&mut self) -> Option<Bytes> {
        let stop = &self.admin.shared.stop;
        let due = async {
            sleep_until(self.next).await;
            let longer = STATUS_HEARTBEAT.saturating_sub(BOARD_PERIOD);
            // What has changed beside the logs comes with the next event.
            timeout(longer, self.news.changed()).await.is_ok()
        };
        let has_news = tokio::select! {
            has_news = due => has_news,
            () = stop.cancelled() => return None,
        };
        let now = Instant::now();
        if now > self.end {
            return None;
        }
        let board = self.admin.board().await;
        if has_news && board.made < now {
            // Another look has made it before the news.
            self.news.mark_changed();
        }
        let status = status::of(&self.admin, &self.query, &board).await;
        self.next = Instant::now() + BOARD_PERIOD;
        Some(format!("data: {status}\n\n").into())
    }
}

/// `/status` again and again, as server-sent events. A page asks anew when they end.
pub(super) async fn events(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let query = match Query::parse(request.uri().query()) {
        Ok(query) => query,
        Err(why) => return (StatusCode::BAD_REQUEST, why + "\n").into_response(),
    };
    let Ok(permit) = admin.streams.clone().try_acquire_owned() else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(RETRY_AFTER, "10")],
            "as many pages are kept up to date as may be; ask for /status\n",
        )
            .into_response();
    };
    let mut news = admin.shared.logs.news();
    news.mark_changed();
    let now = Instant::now();
    let stream = Stream {
        admin,
        query,
        news,
        next: now,
        end: now + HTTP_CONNECTION.saturating_sub(Duration::from_secs(1)),
        _permit: permit,
    };
    let events = futures_util::stream::unfold(stream, async |mut stream| {
        let event = stream.event().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let own = [(CONTENT_TYPE, "text/event-stream")];
    (SAFE, own, Body::from_stream(events)).into_response()
}

/// A file of evidence, to be kept: `tidings verify` proves it.
pub(super) async fn evidence(
    State(admin): State<Arc<Admin>>,
    Path(file): Path<String>,
) -> Response {
    let (directory, name) = (admin.shared.settings.config.data_dir.clone(), file.clone());
    let read = move || status::evidence::read(&directory, &name);
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(Some(octets))) => {
            // The name is digits, dashes and a word of ours, or nothing would have been read.
            let kept = format!("attachment; filename=\"{file}\"");
            let own = [(CONTENT_TYPE, "application/octet-stream")];
            (SAFE, own, [(CONTENT_DISPOSITION, kept)], octets).into_response()
        }
        Ok(Ok(None)) => (
            StatusCode::NOT_FOUND,
            "there is no such file of evidence, or it is too large; look into data_dir/forks\n",
        )
            .into_response(),
        failed => {
            tracing::warn!(?failed, file, "evidence cannot be read");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the file of evidence cannot be read; the log says why\n",
            )
                .into_response()
        }
    }
}
