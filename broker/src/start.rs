//! What a broker starts with: what it opens, where it listens, and what goes on beside its
//! sessions.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tidings_client::{Address, keys::SigningKey};
use tidings_protocol::{Channel, Wildmat};
use tokio::net::TcpListener;

use crate::{
    admin::{counts::Counts, http},
    broker::StartError,
    cluster::{self, Cluster},
    config::{Beat, Feed, Login, Mirroring, Settings},
    failure::OnFailure,
    log::{
        append::{Appender, Writer},
        forks::{self, Forked, Forks},
        logs::Logs,
        namespaces::Namespaces,
        store::Store,
    },
    net::{
        listener,
        login::{Credentials, LoginError},
        tls::Certificates,
    },
    origin::{
        beat,
        restore::{self, Comparing, Source},
    },
    relay::{
        feed,
        mirror::{self, Mirror},
        repair::{self, Other},
        watch::Watches,
    },
    shared::Shared,
};

/// The store, and what is kept of it in memory.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) logs: Arc<Logs>,
    pub(crate) namespaces: Arc<Namespaces>,
}

/// The writer's thread, and what it tells.
pub(crate) struct Written {
    pub(crate) appender: Appender,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) forked: Forked,
    pub(crate) counts: Arc<Counts>,
}

impl Opened {
    pub(crate) fn open(settings: &Settings) -> Result<Self, StartError> {
        let store = Store::open(&settings.config.data_dir)?;
        let logs = Arc::new(Logs::open(store.clone())?);
        let namespaces = Arc::new(Namespaces::open(&settings.anchors, &store)?);
        logs.take_up_kept(&namespaces)?;
        Ok(Self {
            store,
            logs,
            namespaces,
        })
    }

    /// Starts the one writer, and the loops that tell what it has written.
    pub(crate) fn write(
        &self,
        settings: &Settings,
        on_failure: OnFailure,
    ) -> Result<Written, StartError> {
        let config = &settings.config;
        let limits = &config.limits;
        let watches = Watches::start(
            thread::available_parallelism().map_or(1, usize::from),
            limits.watches,
            Duration::from_secs(limits.heartbeat_seconds),
            &self.logs,
            &on_failure,
        )?;
        let counts = Arc::<Counts>::default();
        let forks = Forks::open(
            config.data_dir.join(forks::DIRECTORY),
            self.store.clone(),
            config.quota.evidence,
        );
        let forked = forks.forked.clone();
        let (appender, thread) = Appender::start(Writer {
            forks,
            store: self.store.clone(),
            logs: self.logs.clone(),
            namespaces: self.namespaces.clone(),
            watches: watches.clone(),
            retention: settings.retention.clone(),
            quota: config.quota,
            gap_patience: Duration::from_secs(limits.gap_seconds),
            closed_kept: Duration::from_secs(limits.closed_days * 86_400),
            mirrored: mirrored(settings),
            clustered: settings.cluster.is_some(),
            counts: counts.clone(),
            on_failure,
            state: Default::default(),
        })?;
        Ok(Written {
            appender,
            thread,
            watches,
            forked,
            counts,
        })
    }

    /// The cluster that this broker is of, if it is of one.
    pub(crate) fn join(&self, settings: &Settings, appender: &Appender) -> Option<Arc<Cluster>> {
        let cluster = Cluster::new(
            settings.cluster.clone()?,
            settings.config.name.clone(),
            appender.clone(),
            self.logs.clone(),
            self.namespaces.clone(),
            mirrored(settings),
            settings.common(),
        );
        Some(Arc::new(cluster.with_quota(settings.config.quota.channels)))
    }
}

fn mirrored(settings: &Settings) -> Option<Wildmat> {
    let mirror = settings.mirror.as_ref();
    mirror.map(|mirror| mirror.channels.clone())
}

/// Where it listens.
pub(crate) struct Listeners {
    nntp: Vec<(SocketAddr, TcpListener)>,
    nntps: Vec<(SocketAddr, TcpListener)>,
    fleetlock: Vec<(SocketAddr, TcpListener)>,
    admin: Vec<(SocketAddr, TcpListener)>,
}

impl Listeners {
    pub(crate) fn bind(settings: &Settings) -> Result<Self, StartError> {
        let (config, every) = (&settings.config, settings.addresses());
        let bind = |address: &SocketAddr| {
            let refused = |source| StartError::Listen {
                address: *address,
                source,
            };
            let listener = listener::bind(*address, &every).map_err(refused)?;
            Ok((listener.local_addr()?, listener))
        };
        let all = |addresses: &[SocketAddr]| addresses.iter().map(bind).collect();
        let fleetlock = config.fleetlock.as_ref().map_or(&[][..], |f| &f.listen);
        let all: [Result<_, StartError>; 4] = [
            &config.listen.nntp[..],
            &config.listen.nntps,
            fleetlock,
            &config.admin.listen,
        ]
        .map(all);
        let [nntp, nntps, fleetlock, admin] = all;
        Ok(Self {
            nntp: nntp?,
            nntps: nntps?,
            fleetlock: fleetlock?,
            admin: admin?,
        })
    }

    /// For NNTP, for NNTP over TLS, for slots.
    pub(crate) fn addresses(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>, Vec<SocketAddr>) {
        let of = |all: &[(SocketAddr, TcpListener)]| all.iter().map(|one| one.0).collect();
        (of(&self.nntp), of(&self.nntps), of(&self.fleetlock))
    }

    pub(crate) fn serve(self, shared: &Arc<Shared>, certificates: Option<&Arc<Certificates>>) {
        for (address, listener) in self.nntp {
            tracing::info!(%address, "listening for NNTP");
            let run = listener::run(shared.clone(), listener, None);
            shared.tasks.spawn(run);
        }
        for (address, listener) in self.nntps {
            tracing::info!(%address, "listening for NNTP over TLS");
            let run = listener::run(shared.clone(), listener, certificates.cloned());
            shared.tasks.spawn(run);
        }
        let fleetlock = shared.settings.config.fleetlock.as_ref();
        let tls = fleetlock.is_some_and(|fleetlock| fleetlock.tls);
        for (address, listener) in self.fleetlock {
            tracing::info!(%address, tls, "listening for FleetLock");
            if !tls && !address.ip().is_loopback() {
                tracing::warn!(%address, "FleetLock is served in clear text: anybody on the way can read tokens and take slots; set fleetlock.tls");
            }
            let certificates = certificates.filter(|_| tls).cloned();
            let run = http::fleetlock(shared.clone(), listener, certificates);
            shared.tasks.spawn(run);
        }
        for (address, listener) in self.admin {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "the admin port is not on loopback: everybody who reaches it sees how this broker stands");
            }
            tracing::info!(%address, "listening for operators");
            shared.tasks.spawn(http::admin(shared.clone(), listener));
        }
    }
}

/// What goes on beside the sessions, and the secrets that it needs.
pub(crate) struct Loops {
    pub(crate) certificates: Option<Arc<Certificates>>,
    pub(crate) mirror: Option<Arc<Mirror>>,
    /// Brokers that may have what this one has lost.
    pub(crate) sources: Vec<Source>,
    feeds: Vec<(Feed, Credentials)>,
    signers: Vec<(Beat, SigningKey)>,
}

impl Loops {
    /// Reads what the configuration points to.
    pub(crate) fn read(settings: &Settings) -> Result<Self, StartError> {
        let tls = settings.config.tls.as_ref();
        let mirror = settings.mirror.as_ref();
        let feeds = settings.feeds.iter();
        let signers = settings.beats.iter();
        Ok(Self {
            certificates: tls.map(Certificates::load).transpose()?.map(Arc::new),
            mirror: mirror
                .map(|mirror| Mirror::new(mirror, None))
                .transpose()?
                .map(Arc::new),
            sources: sources(settings)?,
            feeds: feeds
                .map(|one| Ok((one.clone(), Credentials::read(&one.login)?)))
                .collect::<Result<_, LoginError>>()?,
            signers: signers
                .map(|one| Ok((one.clone(), beat::load(one)?)))
                .collect::<Result<_, StartError>>()?,
        })
    }

    /// How we make ourselves known to others, by the key of the configuration.
    pub(crate) fn logins(&self) -> Vec<(String, Credentials)> {
        let mirror = self.mirror.as_ref();
        let mirror = mirror.and_then(|mirror| mirror.credentials());
        let mirror = mirror.map(|login| ("mirror.login".into(), login.clone()));
        let feeds = self
            .feeds
            .iter()
            .map(|(feed, login)| (format!("feed {}: login", feed.name), login.clone()));
        let sources = self.sources.iter().map(|source| {
            let key = format!("the login for {}", source.other.address);
            (key, source.other.credentials.clone())
        });
        mirror.into_iter().chain(feeds).chain(sources).collect()
    }

    pub(crate) fn start(self, shared: &Arc<Shared>, comparing: Option<Arc<Comparing>>) {
        let tasks = &shared.tasks;
        let others = self.sources.iter().map(|source| source.other.clone());
        tasks.spawn(repair::run(shared.clone(), others.collect()));
        if let Some(comparing) = comparing {
            tasks.spawn(restore::run(shared.clone(), self.sources, comparing));
        }
        if let Some(mirror) = self.mirror {
            for index in 0..mirror.upstreams.len() {
                tasks.spawn(mirror::run(shared.clone(), mirror.clone(), index));
            }
        }
        if let Some(cluster) = &shared.cluster {
            start_cluster(shared, cluster);
        }
        for (one, credentials) in self.feeds {
            tasks.spawn(feed::run(shared.clone(), one, credentials));
        }
        for (one, signer) in self.signers {
            tracing::info!(namespace = %one.namespace, every = ?one.every, "signing beats");
            tasks.spawn(beat::run(shared.clone(), one, signer));
        }
    }
}

/// What the servers have forgotten is filled from other members.
fn start_cluster(shared: &Arc<Shared>, cluster: &Arc<Cluster>) {
    let (filled, template) = (shared.clone(), cluster.settings().fill.clone());
    let lacking = cluster.clone();
    let fill = move |upstreams| {
        let lacking = lacking.clone();
        let only = move |channel: &Channel| lacking.fills(channel);
        let upstreams = Mirroring {
            upstreams,
            ..template.clone()
        };
        mirror::follow_for_a_while(&filled, &upstreams, Box::new(only))
    };
    let run = cluster::run(cluster.clone(), Box::new(fill), shared.stop.clone());
    shared.tasks.spawn(run);
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
