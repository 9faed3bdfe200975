//! What the demonstration needs: a namespace, certificates, an origin, a publisher.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tidings_client::{PublishError, Published, Publisher, Source, Statement, keys, now};
use tidings_protocol::{
    Anchor, Head, PublicKey, SigningKey,
    statement::{
        Body, Draft, Kind, NamedKey, Payload, Release, Role, TrustRules, Urgency, Withdraw,
    },
};

use tidings_broker::{
    Broker, Config, Settings,
    config::{Admin, BeatConfig, Limits, Listen, Log, Login, MirrorConfig, Tls},
};

pub(super) const CHANNEL: &str = "demo.os.stable";
const NAMESPACE: &str = "demo";
const DAYS: u64 = 86_400;

pub(super) struct Stage {
    pub(super) broker: Broker,
    pub(super) publisher: Publisher,
    pub(super) anchor: Anchor,
    pub(super) ca: PathBuf,
    pub(super) key_file: PathBuf,
    key: SigningKey,
}

/// A certificate authority of its own, and a certificate for the loopback addresses.
fn certificates(directory: &Path) -> anyhow::Result<(PathBuf, Tls)> {
    let mut authority = CertificateParams::new(vec![])?;
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Tidings demonstration");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let ca = directory.join("ca.pem");
    let files = Tls {
        certificate_file: directory.join("broker.pem"),
        key_file: directory.join("broker.key"),
        client_ca_file: None,
    };
    fs::write(&ca, authority.pem())?;
    fs::write(&files.certificate_file, certificate.pem())?;
    fs::write(&files.key_file, key.serialize_pem())?;
    Ok((ca, files))
}

fn make_key(path: &Path) -> anyhow::Result<SigningKey> {
    let key = keys::generate()?;
    keys::write_private(path, &key, None)?;
    Ok(key)
}

fn trust(root: &SigningKey, release: &SigningKey, beat: &SigningKey) -> anyhow::Result<Statement> {
    let role = |kind, name: &str| {
        anyhow::Ok(Role {
            kind,
            pattern: "*".parse()?,
            threshold: 1,
            names: vec![name.into()],
        })
    };
    let key = |key, name: &str| NamedKey {
        key: PublicKey::of(key),
        name: name.into(),
    };
    let rules = TrustRules {
        expires: now().plus(365 * DAYS),
        keys: vec![
            key(root, "root"),
            key(release, "release"),
            key(beat, "beat"),
        ],
        roles: vec![
            role(Kind::Trust, "root")?,
            role(Kind::Release, "release")?,
            role(Kind::Withdraw, "release")?,
            role(Kind::Beat, "beat")?,
        ],
        checkpoints: vec![],
        closed: vec![],
    };
    let channel = format!("{NAMESPACE}.trust").parse()?;
    let draft = Draft {
        channel,
        after: None,
        time: now(),
        trust: None,
        body: Body::Trust(rules),
    };
    Ok(draft.write()?.sign(root)?)
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A broker with nothing but what every broker has.
fn plain(name: &str, data_dir: PathBuf, anchor: &Anchor) -> Config {
    Config {
        name: name.into(),
        data_dir,
        anchors: vec![anchor.to_string()],
        posting: true,
        listen: Listen {
            nntp: vec![loopback()],
            nntps: vec![],
        },
        tls: None,
        mirror: None,
        cluster: None,
        restore_from: vec![],
        feed: vec![],
        peer: vec![],
        access: vec![],
        quota: Default::default(),
        slot: vec![],
        fleetlock: None,
        admin: Admin::default(),
        beat: vec![],
        retention: vec![],
        // Everybody comes from one address here.
        limits: Limits {
            connections_per_address: Limits::default().connections,
            ..Limits::default()
        },
        log: Log::default(),
    }
}

impl Stage {
    /// A mirror under the origin; it is provisioned with the anchor alone.
    pub(super) fn mirror(&self, directory: &Path) -> anyhow::Result<Broker> {
        let upstreams = vec![format!("nntp://{}", self.broker.nntp[0])];
        let mirror = MirrorConfig {
            upstreams,
            channels: "*".into(),
            login: Login::default(),
            poll_seconds: 1,
        };
        let config = Config {
            mirror: Some(mirror),
            ..plain("mirror.invalid", directory.join("mirror"), &self.anchor)
        };
        Ok(Broker::bind(Settings::check(
            config,
            Path::new("the demonstration"),
        )?)?)
    }

    pub(super) async fn set_up(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let directory = &directory.canonicalize()?;
        let root = make_key(&directory.join("root.key"))?;
        let key_file = directory.join("release.key");
        let key = make_key(&key_file)?;
        let beat_file = directory.join("beat.key");
        let beat = make_key(&beat_file)?;
        let first = trust(&root, &key, &beat)?;
        fs::write(directory.join("trust"), first.octets())?;
        let anchor = Anchor {
            namespace: NAMESPACE.parse()?,
            head: first.head(),
        };
        fs::write(directory.join("anchor"), format!("{anchor}\n"))?;
        let (ca, tls) = certificates(directory)?;
        let config = Config {
            tls: Some(tls),
            listen: Listen {
                nntp: vec![loopback()],
                nntps: vec![loopback()],
            },
            beat: vec![BeatConfig {
                namespace: NAMESPACE.into(),
                key_file: beat_file,
                every_seconds: 1,
                life_seconds: 30,
            }],
            ..plain("demo.invalid", directory.join("data"), &anchor)
        };
        let broker = Broker::bind(Settings::check(config, Path::new("the demonstration"))?)?;
        let source = Source::new(
            [format!("nntp://{}", broker.nntp[0]).as_str()],
            &anchor.to_string(),
        )?;
        let mut publisher = Publisher::connect(source).await?;
        publisher.publish(&first).await?;
        Ok(Self {
            broker,
            publisher,
            anchor,
            ca,
            key_file,
            key,
        })
    }

    pub(super) fn source(&self) -> anyhow::Result<Source> {
        Ok(Source::new(
            [format!("nntp://{}", self.broker.nntp[0]).as_str()],
            &self.anchor.to_string(),
        )?)
    }

    pub(super) fn tls_source(&self) -> anyhow::Result<Source> {
        let source = Source::new(
            [format!("nntps://{}", self.broker.nntps[0]).as_str()],
            &self.anchor.to_string(),
        )?;
        Ok(source.with_tls(super::tls(&self.ca)?))
    }

    async fn draft(&mut self, body: Body) -> anyhow::Result<Statement> {
        let channel = CHANNEL.parse()?;
        let after = self.publisher.newest(&channel).await?.map(|s| s.head());
        let trust = self.publisher.trust().map(|t| t.serial());
        Ok(Draft {
            channel,
            after,
            time: now(),
            trust,
            body,
        }
        .write()?)
    }

    async fn publish(&mut self, body: Body) -> anyhow::Result<Statement> {
        let statement = self.draft(body).await?.sign(&self.key)?;
        self.publisher.publish(&statement).await?;
        Ok(statement)
    }

    pub(super) async fn release(
        &mut self,
        version: &str,
        summary: &str,
        urgency: Urgency,
        payloads: Vec<Payload>,
    ) -> anyhow::Result<Statement> {
        let release = Release {
            version: version.into(),
            summary: Some(summary.into()),
            urgency,
            payloads,
            ..Release::default()
        };
        self.publish(Body::Release(release)).await
    }

    pub(super) async fn withdraw(
        &mut self,
        withdraws: Head,
        reason: &str,
    ) -> anyhow::Result<Statement> {
        self.publish(Body::Withdraw(Withdraw {
            withdraws,
            reason: reason.into(),
        }))
        .await
    }

    /// Offers a release that a stranger has signed.
    pub(super) async fn forge(&mut self, version: &str) -> Result<Published, PublishError> {
        let body = Body::Release(Release {
            version: version.into(),
            ..Release::default()
        });
        let stranger = SigningKey::from_bytes(&[7; 32]);
        let forged = self
            .draft(body)
            .await
            .and_then(|draft| Ok(draft.sign(&stranger)?));
        match forged {
            Ok(statement) => self.publisher.publish(&statement).await,
            Err(_) => Err(PublishError::LostRace(None)),
        }
    }
}
