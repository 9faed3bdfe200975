//! `[cluster]`: brokers that are one origin.

use std::{fmt, time::Duration};

use super::{
    ClusterConfig, Clustering, ConfigError, Mirroring, Wrong,
    written::{default_poll, everything},
};

pub(super) fn clustering(
    cluster: &ClusterConfig,
    wrong: &Wrong,
) -> Result<Clustering, ConfigError> {
    let wrong = |key: &str, reason: &dyn fmt::Display| wrong(format!("cluster.{key}"), reason);
    place(cluster, &wrong)?;
    if !(1..=60).contains(&cluster.session_seconds) {
        let found = cluster.session_seconds;
        return Err(wrong(
            "session_seconds",
            &format!("expected 1 to 60, found {found}"),
        ));
    }
    let user = match (&cluster.user, &cluster.password_file) {
        (Some(user), Some(file)) => Some((user.clone(), file.clone())),
        (None, None) => None,
        _ => return Err(wrong("user", &"user and password_file go together")),
    };
    if cluster
        .tls
        .as_ref()
        .is_some_and(|tls| tls.certificate_file.is_some() != tls.key_file.is_some())
    {
        return Err(wrong("tls", &"certificate_file and key_file go together"));
    }
    Ok(Clustering {
        servers: cluster.servers.join(","),
        root: cluster.root.clone(),
        address: cluster.address.parse().map_err(|e| wrong("address", &e))?,
        session: Duration::from_secs(cluster.session_seconds),
        user,
        tls: cluster.tls.clone(),
        fill: Mirroring {
            upstreams: Vec::new(),
            channels: everything().parse().map_err(|e| wrong("address", &e))?,
            login: cluster.login.clone(),
            poll: Duration::from_secs(default_poll()),
        },
    })
}

/// The servers, and the node there.
fn place(
    cluster: &ClusterConfig,
    wrong: &dyn Fn(&str, &dyn fmt::Display) -> ConfigError,
) -> Result<(), ConfigError> {
    let host_and_port = |server: &&String| {
        server.rsplit_once(':').is_some_and(|(host, port)| {
            port.parse::<u16>().is_ok_and(|port| port > 0)
                && !host.is_empty()
                && host.bytes().all(|b| {
                    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'[' | b']' | b':')
                })
        })
    };
    if cluster.servers.is_empty() {
        return Err(wrong(
            "servers",
            &"expected at least one ZooKeeper server, three for a cluster that survives the loss of one",
        ));
    }
    if let Some(server) = cluster.servers.iter().find(|server| !host_and_port(server)) {
        return Err(wrong(
            "servers",
            &format!("expected HOST:PORT, found {server:?}"),
        ));
    }
    let good_node = |node: &str| {
        !matches!(node, "" | "." | ".." | "zookeeper")
            && node
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    let path = cluster.root.strip_prefix('/');
    if !path.is_some_and(|path| path.split('/').all(good_node)) {
        return Err(wrong(
            "root",
            &format!("expected a node such as /tidings, found {:?}", cluster.root),
        ));
    }
    Ok(())
}
