//! What the cluster needs of ZooKeeper, and what the real servers answer. The simulation has a
//! model of them in their place.

use std::{fs, path::PathBuf, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use zk::{
    Acls, AddWatchMode, CreateMode, EventType, MultiReadResult, MultiWriteError, MultiWriteResult,
    PersistentWatcher, SessionState, Stat,
};
use zookeeper_client as zk;

use super::tree::TreeError;
use crate::config::Clustering;

/// One change of a multi-operation; where there is a version, the node still has it.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Check(String, i32),
    Create(String, Vec<u8>),
    /// The same, until the session ends.
    CreateEphemeral(String, Vec<u8>),
    Set(String, Vec<u8>, Option<i32>),
    Delete(String),
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A node was made.
    Made(String),
    /// It holds something else.
    Changed(String),
    Gone(String),
    Broken,
    /// Connected again; events may have been lost, and watches.
    Connected,
    Ended,
}

/// What was seen of a node.
pub(super) type Node = Result<(Vec<u8>, Stat), zk::Error>;

type Asked<'a, T> = BoxFuture<'a, Result<T, zk::Error>>;

/// The events of a watch, in their order.
pub(super) trait Events: Send {
    fn next(&mut self) -> BoxFuture<'_, Event>;
}

/// A session at the root of our tree. What is asked in one session is answered in its order, and
/// never from an earlier state than before; but perhaps from an earlier one than another session
/// has seen. A request begins when it is called.
pub(super) trait Session: Send + Sync {
    fn id(&self) -> i64;
    fn is_connected(&self) -> bool;
    /// Whether it can only be begun anew.
    fn has_ended(&self) -> bool;
    /// Nodes, as they are at one time.
    fn read(&self, paths: &[String]) -> Asked<'_, Vec<Node>>;
    fn children(&self, path: &str) -> Asked<'_, Vec<String>>;
    /// All changes, or none; what is there then of what was created or set.
    fn change(
        &self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Vec<Option<Stat>>, MultiWriteError>>;
    /// What has been changed before is seen by the next reads.
    fn sync<'a>(&'a self, path: &'a str) -> Asked<'a, ()>;
    /// Tells of every change of the nodes below one from now on, and how the session stands.
    fn watch<'a>(&'a self, path: &'a str) -> Asked<'a, Box<dyn Events>>;
}

/// The servers, with whom sessions are begun.
pub(super) trait Servers: Send + Sync {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Session>, TreeError>>;
}

impl Servers for Clustering {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Session>, TreeError>> {
        Box::pin(begin(self, false))
    }
}

/// Begins a session; if it is to be, the root is made.
pub(super) async fn begin(
    settings: &Clustering,
    make_root: bool,
) -> Result<Arc<dyn Session>, TreeError> {
    let (client, acls) = connect(settings).await?;
    let root = settings.root.clone();
    if make_root {
        let made = client
            .mkdir(&root, &CreateMode::Persistent.with_acls(acls))
            .await;
        made.map_err(|error| TreeError::of(error, &root))?;
    }
    let client = client
        .chroot(root.clone())
        .map_err(|_| TreeError::Nothing(root))?;
    Ok(Arc::new(Real { client, acls }))
}

struct Real {
    client: zk::Client,
    acls: Acls<'static>,
}

impl Session for Real {
    fn id(&self) -> i64 {
        self.client.session_id().0
    }

    fn is_connected(&self) -> bool {
        self.client.state() == SessionState::SyncConnected
    }

    fn has_ended(&self) -> bool {
        self.client.state().is_terminated()
    }

    fn read(&self, paths: &[String]) -> Asked<'_, Vec<Node>> {
        let mut reader = self.client.new_multi_reader();
        if let Err(error) = paths.iter().try_for_each(|path| reader.add_get_data(path)) {
            return std::future::ready(Err(error)).boxed();
        }
        let answers = reader.commit();
        let node = |answer| match answer {
            MultiReadResult::Data { data, stat } => Ok((data, stat)),
            MultiReadResult::Error { err } => Err(err),
            _ => Err(zk::Error::RuntimeInconsistent),
        };
        Box::pin(async move { Ok(answers.await?.into_iter().map(node).collect()) })
    }

    fn children(&self, path: &str) -> Asked<'_, Vec<String>> {
        Box::pin(self.client.list_children(path))
    }

    fn change(
        &self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Vec<Option<Stat>>, MultiWriteError>> {
        let mut writer = self.client.new_multi_writer();
        let persistent = CreateMode::Persistent.with_acls(self.acls);
        let ephemeral = CreateMode::Ephemeral.with_acls(self.acls);
        let mut add = |change: &Change| match change {
            Change::Check(path, version) => writer.add_check_version(path, *version),
            Change::Create(path, data) => writer.add_create(path, data, &persistent),
            Change::CreateEphemeral(path, data) => writer.add_create(path, data, &ephemeral),
            Change::Set(path, data, version) => writer.add_set_data(path, data, *version),
            Change::Delete(path) => writer.add_delete(path, None),
        };
        if let Err(error) = changes.iter().try_for_each(&mut add) {
            return std::future::ready(Err(error.into())).boxed();
        }
        let made = writer.commit();
        let stat = |made| match made {
            MultiWriteResult::SetData { stat } => Some(stat),
            // Servers before 3.7 do not say.
            MultiWriteResult::Create { stat, .. } => Some(stat),
            _ => None,
        };
        Box::pin(async move { Ok(made.await?.into_iter().map(stat).collect()) })
    }

    fn sync<'a>(&'a self, path: &'a str) -> Asked<'a, ()> {
        Box::pin(self.client.sync(path))
    }

    fn watch<'a>(&'a self, path: &'a str) -> Asked<'a, Box<dyn Events>> {
        let watch = self.client.watch(path, AddWatchMode::PersistentRecursive);
        Box::pin(async move { Ok(Box::new(watch.await?) as Box<dyn Events>) })
    }
}

impl Events for PersistentWatcher {
    fn next(&mut self) -> BoxFuture<'_, Event> {
        let event = self.changed().map(|event| match event.event_type {
            EventType::Session => match event.session_state {
                SessionState::SyncConnected => Event::Connected,
                SessionState::Disconnected | SessionState::ConnectedReadOnly => Event::Broken,
                _ => Event::Ended,
            },
            EventType::NodeCreated => Event::Made(event.path),
            EventType::NodeDeleted => Event::Gone(event.path),
            _ => Event::Changed(event.path),
        });
        Box::pin(event)
    }
}

async fn connect(settings: &Clustering) -> Result<(zk::Client, Acls<'static>), TreeError> {
    let read = |path: &PathBuf| {
        fs::read_to_string(path).map_err(|source| TreeError::File {
            path: path.clone(),
            source,
        })
    };
    let mut connector = zk::Client::connector().with_session_timeout(settings.session);
    let mut acls = Acls::anyone_all();
    if let Some((user, file)) = &settings.user {
        connector = connector.with_auth(
            "digest",
            format!("{user}:{}", read(file)?.trim_end()).as_bytes(),
        );
        acls = Acls::creator_all();
    }
    let connecting = async {
        match &settings.tls {
            None => connector.connect(&settings.servers).await,
            Some(tls) => {
                // The client asks the process for its cryptography; what was chosen before stays.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let mut options = zk::TlsOptions::new()
                    .with_pem_ca(&read(&tls.ca_file)?)
                    .map_err(TreeError::Tls)?;
                if let (Some(certificate), Some(key)) = (&tls.certificate_file, &tls.key_file) {
                    options = options
                        .with_pem_identity(&read(certificate)?, &read(key)?)
                        .map_err(TreeError::Tls)?;
                }
                connector
                    .with_tls(options)
                    .secure_connect(&settings.servers)
                    .await
            }
        }
        .map_err(|source| match source {
            zk::Error::AuthFailed => TreeError::Permission(settings.root.clone()),
            source => TreeError::Connect {
                servers: settings.servers.clone(),
                source,
            },
        })
    };
    let client = tokio::time::timeout(settings.session * 2, connecting).await;
    let client = client.unwrap_or_else(|_| {
        Err(TreeError::Connect {
            servers: settings.servers.clone(),
            source: zk::Error::Timeout,
        })
    })?;
    Ok((client, acls))
}
