//! A running broker: `bind`, then `shutdown`. The same in the binary and in tests.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tidings_protocol::{
    Head, Timestamp,
    nntp::{Response, code},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    beforehand, clock,
    cluster::{self, Cluster, TreeError},
    config::Settings,
    failure::OnFailure,
    limits::{CERTIFICATE_WARNING, CLOCK_FLOOR_SECONDS, SPARE_FILES, SWEEP},
    log::{
        append::Appender,
        namespaces::NamespaceError,
        store::{Store, StoreError},
    },
    net::{
        connections::Connections,
        identity::{self, Identity},
        login::LoginError,
        tls::TlsError,
    },
    origin::{Origin, beat, restore::Comparing},
    shared::Shared,
    slots::{SlotStore, Slots},
    start::{Listeners, Loops, Opened},
};

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// How we make ourselves known to others.
    #[error("login: {0}")]
    Login(#[from] LoginError),
    /// The key of a beat.
    #[error(transparent)]
    Key(#[from] tidings_client::keys::KeyFileError),
    /// The cluster's servers.
    #[error(transparent)]
    Cluster(#[from] TreeError),
    /// Not here.
    #[error("the store has nothing of {0}")]
    NoSuchChannel(String),
    /// There is none to be made.
    #[error("the configuration has no [cluster]")]
    NoCluster,
    /// An address.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The clock is not set.
    #[error(
        "the clock says {0}, which is before 2026; set it (is NTP running?) and start again, since times decide what is fresh"
    )]
    Clock(Timestamp),
    /// A thread or a poll could not be made.
    #[error("the operating system refuses what a broker needs: {0}")]
    System(#[from] io::Error),
}

pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there: stop it, or choose another port in [listen]"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

fn clock_that_is_set() -> Result<Timestamp, StartError> {
    let now = clock::now();
    match now.seconds() {
        CLOCK_FLOOR_SECONDS.. => Ok(now),
        _ => Err(StartError::Clock(now)),
    }
}

/// A store that fails stops the broker.
fn stops(stop: &CancellationToken, failed: &Arc<AtomicBool>) -> OnFailure {
    let (stop, failed) = (stop.clone(), failed.clone());
    Arc::new(move || {
        failed.store(true, Ordering::Relaxed);
        stop.cancel();
    })
}

/// Where statements are appended: in the cluster, behind a comparison with others, or here.
fn origin(
    cluster: Option<&Arc<Cluster>>,
    comparing: Option<&Arc<Comparing>>,
    appender: &Appender,
) -> Arc<dyn Origin> {
    match (cluster, comparing) {
        (Some(cluster), _) => cluster.clone(),
        (None, Some(comparing)) => comparing.clone(),
        (None, None) => Arc::new(appender.clone()),
    }
}

/// A running broker.
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
    writer: thread::JoinHandle<()>,
    failed: Arc<AtomicBool>,
    /// Where it listens in clear text.
    pub nntp: Vec<SocketAddr>,
    /// Where it listens under TLS.
    pub nntps: Vec<SocketAddr>,
    /// Where it serves slots.
    pub fleetlock: Vec<SocketAddr>,
}

impl Broker {
    /// Opens the store, listens and serves.
    ///
    /// # Errors
    /// Says what cannot be used, and what to do. Nothing is changed then.
    pub fn bind(settings: Settings) -> Result<Self, StartError> {
        if settings.anchors.is_empty() {
            tracing::warn!("no anchors are configured: every statement will be refused");
        }
        let started = clock_that_is_set()?;
        let limits = &settings.config.limits;
        let most = connections_of(limits.connections)?;
        let connections = Connections::new(most, limits.connections_per_address);
        let loops = Loops::read(&settings)?;
        let opened = Opened::open(&settings)?;
        let listeners = Listeners::bind(&settings)?;
        let (nntp, nntps, fleetlock) = listeners.addresses();

        let stop = CancellationToken::new();
        let failed = Arc::new(AtomicBool::new(false));
        let tasks = TaskTracker::new();
        let written = opened.write(&settings, stops(&stop, &failed))?;
        let cluster = opened.join(&settings, &written.appender);
        let slot_store = SlotStore::of(cluster.as_ref(), &opened.store);
        let slots = Slots::start(settings.slots.clone(), slot_store, &tasks, &stop);
        // Members of a cluster have more in ZooKeeper, and from each other.
        let comparing = (cluster.is_none() && !loops.sources.is_empty())
            .then(|| Arc::new(Comparing::new(Arc::new(written.appender.clone()))));
        let origin = origin(cluster.as_ref(), comparing.as_ref(), &written.appender);
        let identity = Identity::new(loops.certificates.clone(), loops.logins());
        warn_of_ends(&identity);
        let Opened {
            store,
            logs,
            namespaces,
        } = opened;
        let shared = Arc::new(Shared {
            started,
            settings,
            identity,
            store,
            logs,
            namespaces,
            appender: written.appender,
            origin,
            cluster,
            slots: Arc::new(slots),
            mirror: loops.mirror.clone(),
            forked: written.forked,
            watches: written.watches,
            connections,
            counts: written.counts,
            tasks,
            stop,
        });
        listeners.serve(&shared, loops.certificates.as_ref());
        shared.tasks.spawn(sweep(shared.clone()));
        loops.start(&shared, comparing);
        Ok(Self {
            shared,
            writer: written.thread,
            failed,
            nntp,
            nntps,
            fleetlock,
        })
    }

    /// Reads what a configuration points to, and changes nothing; what an operator should know of
    /// it, a line each.
    ///
    /// # Errors
    /// If a certificate, a key or a password cannot be used.
    pub fn check(settings: &Settings) -> Result<Vec<String>, StartError> {
        let mut notes = identity::read(settings)?.trouble(clock::now());
        notes.extend(beforehand::look(settings));
        settings
            .beats
            .iter()
            .try_for_each(|one| beat::load(one).map(drop))?;
        Ok(notes)
    }

    /// Makes an empty tree in ZooKeeper for the cluster of a configuration, or carries over what an
    /// earlier version has made.
    ///
    /// # Errors
    /// If the configuration has no cluster, there is one already, or the servers do not let us.
    pub async fn init_cluster(settings: &Settings) -> Result<(), StartError> {
        let cluster = settings.cluster.as_ref().ok_or(StartError::NoCluster)?;
        Ok(cluster::init(cluster).await?)
    }

    /// Sets the head of a channel in the cluster's tree to what the store of a stopped broker has,
    /// and removes what stands above it there: how an operator settles what the brokers cannot.
    ///
    /// # Errors
    /// If the store or the tree cannot be used, or the store has nothing of the channel.
    pub async fn set_head(settings: &Settings, channel: &str) -> Result<Head, StartError> {
        let cluster = settings.cluster.as_ref().ok_or(StartError::NoCluster)?;
        let store = Store::open(&settings.config.data_dir)?;
        let known = store
            .channels()?
            .into_iter()
            .find(|(known, _)| known.as_str() == channel);
        let (channel, marks) = known.ok_or_else(|| StartError::NoSuchChannel(channel.into()))?;
        cluster::set_head(cluster, &channel, marks.head).await?;
        Ok(marks.head)
    }

    /// Ends when the broker has to stop by itself, because its store failed.
    pub async fn failed(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Reads certificates, keys and passwords again. What cannot be used is named, with its key;
    /// what was read before stays in use there.
    pub fn reload(&self) -> Vec<String> {
        let wrong = self.shared.identity.reload();
        warn_of_ends(&self.shared.identity);
        wrong
    }

    /// The configuration that it was started with.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.shared.connections.count()
    }

    /// Stops accepting, lets sessions finish what they are answering, and closes the store; whether
    /// all went well.
    pub async fn shutdown(self, deadline: Duration) -> bool {
        let Self {
            shared,
            writer,
            failed,
            ..
        } = self;
        shared.stop.cancel();
        shared.watches.stop(&Response::new(
            code::UNAVAILABLE,
            "the broker is shutting down",
        ));
        shared.tasks.close();
        if tokio::time::timeout(deadline, shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = shared.connections.count(),
                "some sessions did not end in time and are cut off"
            );
        }
        // The writer ends when the last queue is gone.
        drop(shared);
        let done = tokio::task::spawn_blocking(move || writer.join().is_ok());
        let drained = tokio::time::timeout(deadline, done)
            .await
            .is_ok_and(|joined| joined.unwrap_or(false));
        drained && !failed.load(Ordering::Relaxed)
    }
}

/// As many connections as the configuration promises, or as many as the system has files for.
fn connections_of(promised: usize) -> Result<usize, StartError> {
    let files = promised as u64 + SPARE_FILES;
    let allowed = rlimit::increase_nofile_limit(files)?;
    if allowed >= files {
        return Ok(promised);
    }
    // The store, upstreams and operators need files too.
    let left = allowed.saturating_sub(SPARE_FILES.min(allowed / 2)).max(1);
    let most = usize::try_from(left).map_or(promised, |left| left.min(promised));
    tracing::warn!(
        allowed,
        wanted = files,
        connections = most,
        "the limit of open files is below limits.connections, of which there will be fewer; raise it (LimitNOFILE)"
    );
    Ok(most)
}

fn warn_of_ends(identity: &Identity) {
    for line in identity.trouble(clock::now()) {
        tracing::warn!("{line}");
    }
}

async fn sweep(shared: Arc<Shared>) {
    let gap = Duration::from_secs(shared.settings.config.limits.gap_seconds);
    let mut ticks = tokio::time::interval(SWEEP.min(gap));
    let mut told = tokio::time::Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                shared.appender.sweep().await;
                if told.elapsed() >= CERTIFICATE_WARNING {
                    told = tokio::time::Instant::now();
                    warn_of_ends(&shared.identity);
                }
            }
            () = shared.stop.cancelled() => return,
        }
    }
}
