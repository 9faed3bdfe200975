//! What can be found before a start, without changing anything: `tidingsd --check`.

use std::{io, net::SocketAddr, path::Path};

use rustix::fs::{Access, access};

use crate::{
    broker::{StartError, hint},
    clock,
    config::Settings,
    limits::CLOCK_FLOOR_SECONDS,
};

/// What an operator should know, a line each. None of it keeps the configuration from being good:
/// another user may start the broker, or start it later.
pub(crate) fn look(settings: &Settings) -> Vec<String> {
    let config = &settings.config;
    let mut notes = Vec::new();
    if settings.anchors.is_empty() {
        notes.push("anchors is empty: every statement will be refused".into());
    }
    let now = clock::now();
    if now.seconds() < CLOCK_FLOOR_SECONDS {
        notes.push(StartError::Clock(now).to_string());
    }
    notes.extend(directory(&config.data_dir));
    let every = settings.addresses();
    notes.extend(every.iter().filter_map(|address| listens(*address)));
    notes
}

/// An address that is taken may be this very broker's, which runs already.
fn listens(address: SocketAddr) -> Option<String> {
    let domain = socket2::Domain::for_address(address);
    let bound = socket2::Socket::new(domain, socket2::Type::STREAM, None)
        .and_then(|socket| socket.bind(&address.into()));
    let error = bound
        .err()
        .filter(|error| error.kind() != io::ErrorKind::AddrInUse)?;
    Some(format!(
        "cannot listen on {address}: {error}{}",
        hint(&error)
    ))
}

fn directory(path: &Path) -> Option<String> {
    let there = path
        .ancestors()
        .map(|at| match at.as_os_str().is_empty() {
            true => Path::new("."),
            false => at,
        })
        .find(|at| at.exists())?;
    let shown = there.display();
    if !there.is_dir() {
        return Some(format!("data_dir: {shown} is no directory"));
    }
    let error = access(there, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(format!("data_dir: cannot write in {shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_fail_is_found() {
        assert_eq!(listens("127.0.0.1:0".parse().unwrap()), None);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listens(taken.local_addr().unwrap()), None);
        let elsewhere = listens("192.0.2.1:1".parse().unwrap()).unwrap();
        assert!(elsewhere.contains("no such address"), "{elsewhere}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = directory(&file.path().join("data")).unwrap();
        assert!(below.contains("is no directory"), "{below}");
        assert_eq!(directory(&std::env::temp_dir().join("not/there")), None);
    }
}
