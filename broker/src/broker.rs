//! A running broker: `bind`, then `shutdown`. The same in the binary and in tests.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tidings_client::Address;
use tidings_protocol::{
    Channel, Head, Wildmat,
    nntp::{Response, code},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    append::{Appender, Writer},
    beat, beforehand, clock,
    cluster::{self, Cluster, TreeError},
    config::{Login, Mirroring, Settings},
    connections::Connections,
    counts::Counts,
    failure::OnFailure,
    feed,
    forks::{self, Forks},
    http,
    identity::{self, Identity},
    limits::{CERTIFICATE_WARNING, CLOCK_FLOOR_SECONDS, SPARE_FILES, SWEEP},
    listener,
    login::{Credentials, LoginError},
    logs::Logs,
    mirror::{self, Mirror},
    namespaces::{NamespaceError, Namespaces},
    origin::Origin,
    repair::{self, Other},
    restore::{self, Comparing, Source},
    shared::Shared,
    slots::{Local, SlotStore, Slots},
    store::{Store, StoreError},
    tls::{Certificates, TlsError},
    watch::Watches,
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
    Clock(tidings_protocol::Timestamp),
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
        let now = clock::now();
        if now.seconds() < CLOCK_FLOOR_SECONDS {
            return Err(StartError::Clock(now));
        }
        let config = &settings.config;
        let limits = &config.limits;
        let most = connections_of(limits.connections)?;
        let certificates = config
            .tls
            .as_ref()
            .map(Certificates::load)
            .transpose()?
            .map(Arc::new);
        let signers = settings
            .beats
            .iter()
            .map(|one| Ok((one.clone(), beat::load(one)?)))
            .collect::<Result<Vec<_>, StartError>>()?;
        let store = Store::open(&config.data_dir)?;
        let logs = Arc::new(Logs::open(store.clone())?);
        let namespaces = Arc::new(Namespaces::open(&settings.anchors, &store)?);
        logs.take_up_kept(&namespaces)?;

        let fleetlock = config.fleetlock.as_ref().map_or(&[][..], |f| &f.listen);
        let every = settings.addresses();
        let listen = |addresses: &[SocketAddr]| {
            let bind = |address: &SocketAddr| {
                let listener =
                    listener::bind(*address, &every).map_err(|source| StartError::Listen {
                        address: *address,
                        source,
                    })?;
                Ok((listener.local_addr()?, listener))
            };
            addresses
                .iter()
                .map(bind)
                .collect::<Result<Vec<_>, StartError>>()
        };
        let (clear, tls) = (listen(&config.listen.nntp)?, listen(&config.listen.nntps)?);
        let (fleetlock, admin) = (listen(fleetlock)?, listen(&config.admin.listen)?);
        let secure_fleetlock = config
            .fleetlock
            .as_ref()
            .is_some_and(|fleetlock| fleetlock.tls);

        let stop = CancellationToken::new();
        let failed = Arc::new(AtomicBool::new(false));
        let tasks = TaskTracker::new();
        let loops = thread::available_parallelism().map_or(1, usize::from);
        let on_failure: OnFailure = {
            let (stop, failed) = (stop.clone(), failed.clone());
            Arc::new(move || {
                failed.store(true, Ordering::Relaxed);
                stop.cancel();
            })
        };
        let heartbeat = Duration::from_secs(limits.heartbeat_seconds);
        let watches = Watches::start(loops, limits.watches, heartbeat, &logs, &on_failure)?;
        let counts = Arc::<Counts>::default();
        let forks = Forks::open(
            config.data_dir.join(forks::DIRECTORY),
            store.clone(),
            config.quota.evidence,
        );
        let forked = forks.forked.clone();
        let (appender, writer) = Appender::start(Writer {
            forks,
            store: store.clone(),
            logs: logs.clone(),
            namespaces: namespaces.clone(),
            watches: watches.clone(),
            retention: settings.retention.clone(),
            quota: config.quota,
            gap_patience: Duration::from_secs(limits.gap_seconds),
            closed_kept: Duration::from_secs(limits.closed_days * 86_400),
            mirrored: settings
                .mirror
                .as_ref()
                .map(|mirror| mirror.channels.clone()),
            clustered: settings.cluster.is_some(),
            counts: counts.clone(),
            on_failure,
            state: Default::default(),
        })?;
        let mirror = settings
            .mirror
            .as_ref()
            .map(|mirror| Mirror::new(mirror, None))
            .transpose()?
            .map(Arc::new);
        let cluster = settings.cluster.as_ref().map(|cluster| {
            let mirrored = settings
                .mirror
                .as_ref()
                .map(|mirror| mirror.channels.clone());
            let joined = Cluster::new(
                cluster.clone(),
                config.name.clone(),
                appender.clone(),
                logs.clone(),
                namespaces.clone(),
                mirrored,
                settings.common(),
            );
            Arc::new(joined.with_quota(config.quota.channels))
        });
        let slot_store = cluster.clone().map_or_else(
            || SlotStore::Local(Local::new(store.clone())),
            SlotStore::Cluster,
        );
        let slots = Arc::new(Slots::start(
            settings.slots.clone(),
            slot_store,
            &tasks,
            &stop,
        ));
        let sources = sources(&settings)?;
        // Members of a cluster have more in ZooKeeper, and from each other.
        let comparing = (cluster.is_none() && !sources.is_empty())
            .then(|| Arc::new(Comparing::new(Arc::new(appender.clone()))));
        let origin: Arc<dyn Origin> = match (&cluster, &comparing) {
            (Some(cluster), _) => cluster.clone(),
            (None, Some(comparing)) => comparing.clone(),
            (None, None) => Arc::new(appender.clone()),
        };
        let feeds = settings
            .feeds
            .iter()
            .map(|one| Ok((one.clone(), Credentials::read(&one.login)?)));
        let feeds = feeds.collect::<Result<Vec<_>, LoginError>>()?;
        let mut logins: Vec<(String, Credentials)> = Vec::new();
        let of_mirror = mirror.as_ref().and_then(|mirror| mirror.credentials());
        logins.extend(of_mirror.map(|login| ("mirror.login".into(), login.clone())));
        logins.extend(
            feeds
                .iter()
                .map(|(feed, login)| (format!("feed {}: login", feed.name), login.clone())),
        );
        logins.extend(sources.iter().map(|source| {
            let key = format!("the login for {}", source.other.address);
            (key, source.other.credentials.clone())
        }));
        let identity = Identity::new(certificates.clone(), logins);
        warn_of_ends(&identity);
        let connections = Connections::new(most, limits.connections_per_address);
        let shared = Arc::new(Shared {
            started: now,
            settings,
            identity,
            store,
            logs,
            namespaces,
            appender,
            origin,
            cluster: cluster.clone(),
            slots,
            mirror: mirror.clone(),
            forked,
            watches,
            connections,
            counts,
            tasks,
            stop,
        });

        let (nntp, nntps) = (
            clear.iter().map(|l| l.0).collect(),
            tls.iter().map(|l| l.0).collect(),
        );
        let slot_addresses = fleetlock.iter().map(|l| l.0).collect();
        for (address, listener) in clear {
            tracing::info!(%address, "listening for NNTP");
            shared
                .tasks
                .spawn(listener::run(shared.clone(), listener, None));
        }
        for (address, listener) in tls {
            tracing::info!(%address, "listening for NNTP over TLS");
            shared.tasks.spawn(listener::run(
                shared.clone(),
                listener,
                certificates.clone(),
            ));
        }
        for (address, listener) in fleetlock {
            tracing::info!(%address, tls = secure_fleetlock, "listening for FleetLock");
            if !secure_fleetlock && !address.ip().is_loopback() {
                tracing::warn!(%address, "FleetLock is served in clear text: anybody on the way can read tokens and take slots; set fleetlock.tls");
            }
            shared.tasks.spawn(http::fleetlock(
                shared.clone(),
                listener,
                certificates.clone().filter(|_| secure_fleetlock),
            ));
        }
        for (address, listener) in admin {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "the admin port is not on loopback: everybody who reaches it sees how this broker stands");
            }
            tracing::info!(%address, "listening for operators");
            shared.tasks.spawn(http::admin(shared.clone(), listener));
        }
        shared.tasks.spawn(sweep(shared.clone()));
        shared.tasks.spawn(repair::run(
            shared.clone(),
            sources.iter().map(|source| source.other.clone()).collect(),
        ));
        if let Some(comparing) = comparing {
            shared
                .tasks
                .spawn(restore::run(shared.clone(), sources, comparing));
        }
        if let Some(mirror) = &mirror {
            for index in 0..mirror.upstreams.len() {
                shared
                    .tasks
                    .spawn(mirror::run(shared.clone(), mirror.clone(), index));
            }
        }
        if let Some(cluster) = cluster {
            let (filled, template) = (shared.clone(), cluster.settings().fill.clone());
            let lacking = cluster.clone();
            let fill = move |upstreams| {
                let lacking = lacking.clone();
                let only = move |channel: &Channel| lacking.fills(channel);
                mirror::follow_for_a_while(
                    &filled,
                    &Mirroring {
                        upstreams,
                        ..template.clone()
                    },
                    Box::new(only),
                )
            };
            shared
                .tasks
                .spawn(cluster::run(cluster, Box::new(fill), shared.stop.clone()));
        }
        for (one, credentials) in feeds {
            shared
                .tasks
                .spawn(feed::run(shared.clone(), one, credentials));
        }
        for (one, signer) in signers {
            tracing::info!(namespace = %one.namespace, every = ?one.every, "signing beats");
            shared.tasks.spawn(beat::run(shared.clone(), one, signer));
        }
        Ok(Self {
            shared,
            writer,
            failed,
            nntp,
            nntps,
            fleetlock: slot_addresses,
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

/// Brokers that may have what this one has lost: those that it copies from, those that it feeds,
/// and those that are named for it.
fn sources(settings: &Settings) -> Result<Vec<Source>, LoginError> {
    let source = |address: &Address, login: &Login, channels: &Wildmat, is_needed| {
        let other = Other {
            address: address.clone(),
            credentials: Credentials::read(login)?,
        };
        Ok(Source {
            other,
            login: login.clone(),
            channels: channels.clone(),
            is_needed,
        })
    };
    let Mirroring {
        upstreams,
        channels: all,
        login: own,
        ..
    } = &settings.restore_from;
    let named = upstreams
        .iter()
        .map(|address| source(address, own, all, true));
    let mirrors = settings.mirror.iter().flat_map(|mirror| {
        mirror
            .upstreams
            .iter()
            .map(|address| (address, &mirror.login))
    });
    let mirrors = mirrors.map(|(address, login)| source(address, login, all, false));
    let fed = settings
        .feeds
        .iter()
        .map(|feed| source(&feed.to, &feed.login, &feed.channels, false));
    let mut sources = named
        .chain(mirrors)
        .chain(fed)
        .collect::<Result<Vec<Source>, LoginError>>()?;
    let mut known = HashSet::new();
    sources.retain(|source| {
        known.insert((
            source.other.address.to_string(),
            source.channels.to_string(),
        ))
    });
    Ok(sources)
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
