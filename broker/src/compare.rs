//! An origin that starts compares its heads with those who copy from it, before it takes or signs anything (attack 116): one that was
//! restored from a backup would sign again what it has signed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidings_client::{Address, Error};
use tidings_protocol::{Channel, nntp::code};
use tokio::time::{sleep, timeout};

use crate::{
    limits::{COMPARE_AGAIN, COMPARE_PATIENCE},
    logging::Safe,
    login::Credentials,
    shared::Shared,
};

/// Whether this broker may take and sign what is new.
#[derive(Default)]
pub(crate) struct Comparison(Mutex<Standing>);

#[derive(Clone, Default)]
enum Standing {
    /// There is nobody to compare with, or nobody has more.
    #[default]
    Open,
    /// Not everybody has answered yet.
    Comparing,
    /// Somebody has more: the answer to publishers.
    Behind(String),
}

impl Comparison {
    /// One for an origin that has somebody to compare with, or not.
    pub(crate) fn new(with: &[(Address, Credentials)]) -> Self {
        Self(Mutex::new(if with.is_empty() { Standing::Open } else { Standing::Comparing }))
    }

    /// Why nothing new is taken or signed, if it is not.
    pub(crate) fn closed(&self) -> Option<String> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Standing::Open => None,
            Standing::Comparing => Some("this origin has just started and compares its heads with its mirrors; try again in a moment".into()),
            Standing::Behind(why) => Some(why.clone()),
        }
    }

    fn set(&self, standing: Standing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

/// Compares until nobody has more than this broker.
pub(crate) async fn run(shared: Arc<Shared>, with: Vec<(Address, Credentials)>) {
    let mut said = String::new();
    while !shared.stop.is_cancelled() {
        let mut more = None;
        for (address, credentials) in &with {
            match timeout(COMPARE_PATIENCE, ahead(&shared, address, credentials)).await {
                Ok(Ok(None)) => tracing::info!(%address, "this broker has nothing of ours that is not here"),
                Ok(Ok(Some((channel, theirs)))) => more = more.or(Some((address, channel, theirs))),
                Ok(Err(error)) => {
                    let error = tidings_client::explain(&error);
                    tracing::warn!(%address, error = %Safe(&error), "the heads cannot be compared with this broker's; it is passed over");
                }
                Err(_) => tracing::warn!(%address, "the heads cannot be compared with this broker's: it does not answer; it is passed over"),
            }
        }
        let Some((address, channel, theirs)) = more else {
            return shared.comparison.set(Standing::Open);
        };
        let ours = head(&shared, &channel);
        let why = format!(
            "{address} has {channel} up to {theirs}, this origin up to {ours}: it was restored from a backup? Nothing is taken or signed before it has the rest; bring it with `tidings export` there and `tidings import` here"
        );
        if said != why {
            tracing::error!(why, "this origin is behind those who copy from it");
            said.clone_from(&why);
        }
        shared.comparison.set(Standing::Behind(why));
        tokio::select! {
            () = sleep(COMPARE_AGAIN) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

fn head(shared: &Shared, channel: &Channel) -> u32 {
    shared.logs.get(channel.as_str()).map_or(0, |log| log.marks().head.serial.number())
}

/// The first channel that begins here, and of which another broker has more.
async fn ahead(shared: &Shared, address: &Address, credentials: &Credentials) -> Result<Option<(Channel, u32)>, Error> {
    let mut connection = credentials.connect(address).await?;
    // Servers that number articles by themselves cannot be compared with.
    if !connection.is_capable("XWATCH").await? {
        return Ok(None);
    }
    for provisioned in shared.namespaces.all() {
        let namespace = &provisioned.anchor.namespace;
        let listing = connection.listing(&format!("LIST ACTIVE {namespace}.*"), code::LIST).await?;
        for line in listing.lines() {
            let mut words = line.split(' ');
            let read = words.next().and_then(|name| name.parse::<Channel>().ok()).zip(words.next().and_then(|high| high.parse::<u32>().ok()));
            let Some((channel, high)) = read.filter(|(channel, _)| begins_here(shared, channel)) else { continue };
            if high > head(shared, &channel) {
                return Ok(Some((channel, high)));
            }
        }
    }
    // The peer may close at once; nothing is owed to it.
    let _ = timeout(Duration::from_secs(1), connection.command("QUIT")).await;
    Ok(None)
}

fn begins_here(shared: &Shared, channel: &Channel) -> bool {
    let mirrored = shared.settings.mirror.as_ref().is_some_and(|mirror| mirror.channels.matches(channel.as_str()));
    !mirrored && shared.namespaces.of(channel).is_some()
}
