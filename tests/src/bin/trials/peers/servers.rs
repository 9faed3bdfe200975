//! The servers that are compared, each fresh, with a directory of its own, on loopback.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use tidings_client::{Source, Tls};
use tidings_tests::bench::{Endpoint, Process};
use tidings_tests::{Daemon, Fixture, free_address};

/// How long a server may take to answer after its start.
const START: Duration = Duration::from_secs(30);
/// The core of the server, where it is pinned; the generator has the other one.
const CORE: &str = "1";

/// A certificate of its own for `localhost`, with its key, in PEM.
pub(super) struct Certificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    pub(super) fn make(directory: &Path) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        let made = Self {
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        };
        fs::write(&made.certificate, certificate.pem())?;
        fs::write(&made.key, key.serialize_pem())?;
        fs::set_permissions(&made.key, fs::Permissions::from_mode(0o644))?;
        Ok(made)
    }
}

/// A running server; killed when this is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) endpoint: Endpoint,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A master has children that end with it when it is asked to.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(5) {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn endpoint(port: u16, certificate: Option<&Certificate>) -> anyhow::Result<Endpoint> {
    let url = format!(
        "{}://localhost:{port}",
        if certificate.is_some() {
            "nntps"
        } else {
            "nntp"
        }
    );
    let source = Source::new([url.as_str()], &format!("test 1 sha256:{}", "0".repeat(64)))?;
    let source = match certificate {
        Some(certificate) => source.with_tls(Tls::from_file(&certificate.certificate)?),
        None => source,
    };
    let mut endpoint = Endpoint::of(&source)?;
    endpoint.address = SocketAddr::from(([127, 0, 0, 1], port));
    Ok(endpoint)
}

/// Pinned to its core, or free.
pub(super) fn launcher(pinned: bool) -> Vec<String> {
    if pinned {
        ["taskset", "-c", CORE].map(String::from).to_vec()
    } else {
        vec![]
    }
}

struct Plan<'a> {
    program: &'a str,
    arguments: &'a [&'a str],
    /// `PORT`, `DIR`, `CERTIFICATE` and `KEY` are put in.
    config: &'a str,
    tls: bool,
}

fn start(plan: &Plan<'_>, pinned: bool) -> anyhow::Result<Server> {
    let directory = tempfile::tempdir_in("/tmp")?;
    // Some servers give up root, and have to reach it still.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
    let port = free_address()?.port();
    let certificate = Certificate::make(directory.path())?;
    let fill = |text: &str| {
        text.replace("PORT", &port.to_string())
            .replace("DIR", &directory.path().display().to_string())
            .replace(
                "CERTIFICATE",
                &certificate.certificate.display().to_string(),
            )
            .replace("KEY", &certificate.key.display().to_string())
    };
    fs::write(directory.path().join("conf"), fill(plan.config))?;
    fs::create_dir(directory.path().join("www"))?;
    fs::write(directory.path().join("www/news"), [b'x'; 1024])?;
    let log = fs::File::create(directory.path().join("log"))?;
    let words: Vec<String> = launcher(pinned)
        .into_iter()
        .chain([plan.program.to_owned()])
        .collect();
    let child = Command::new(&words[0])
        .args(&words[1..])
        .args(plan.arguments.iter().map(|argument| fill(argument)))
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}; is it installed?", plan.program))?;
    let tls = plan.tls.then_some(&certificate);
    let mut server = Server {
        child,
        endpoint: endpoint(port, tls)?,
        _directory: directory,
    };
    let began = Instant::now();
    while TcpStream::connect(server.endpoint.address).is_err() {
        let said = || fs::read_to_string(server._directory.path().join("log")).unwrap_or_default();
        if let Some(status) = server.child.try_wait()? {
            bail!("{} ended with {status}: {}", plan.program, said());
        }
        ensure!(
            began.elapsed() < START,
            "{} does not listen after {START:?}: {}",
            plan.program,
            said()
        );
        sleep(Duration::from_millis(20));
    }
    Ok(server)
}

pub(super) fn mosquitto() -> anyhow::Result<Server> {
    // With allow_duplicate_messages off, its default, each delivery compares strings with all
    // earlier ones.
    let config = "listener PORT 127.0.0.1\nallow_anonymous true\nallow_duplicate_messages true\nmax_connections -1\nset_tcp_nodelay true\npersistence false\nlog_type none\nuser root\n";
    start(
        &Plan {
            program: "mosquitto",
            arguments: &["-c", "DIR/conf"],
            config,
            tls: false,
        },
        true,
    )
}

pub(super) fn redis() -> anyhow::Result<Server> {
    let config = "bind 127.0.0.1\nport PORT\nsave \"\"\nappendonly no\nmaxclients 17000\ntcp-backlog 4096\nclient-output-buffer-limit pubsub 0 0 0\ndir DIR\n";
    start(
        &Plan {
            program: "redis-server",
            arguments: &["DIR/conf"],
            config,
            tls: false,
        },
        true,
    )
}

pub(super) fn nats(program: &str, tls: bool) -> anyhow::Result<Server> {
    let plain = "listen: \"127.0.0.1:PORT\"\nmax_connections: 20000\n";
    let encrypted = format!(
        "{plain}tls {{\n  cert_file: \"CERTIFICATE\"\n  key_file: \"KEY\"\n  handshake_first: true\n  timeout: 30\n}}\n"
    );
    let config = if tls { &encrypted } else { plain };
    start(
        &Plan {
            program,
            arguments: &["-c", "DIR/conf"],
            config,
            tls,
        },
        true,
    )
}

/// JetStream that syncs each message before it acknowledges it; on all cores.
pub(super) fn jetstream(program: &str) -> anyhow::Result<Server> {
    let config = "listen: \"127.0.0.1:PORT\"\njetstream {\n  store_dir: \"DIR/js\"\n  sync_interval: always\n}\n";
    start(
        &Plan {
            program,
            arguments: &["-c", "DIR/conf"],
            config,
            tls: false,
        },
        false,
    )
}

/// One worker, which is what is measured.
pub(super) struct Nginx {
    server: Server,
    worker: u32,
    pub(super) etag: String,
}

impl Nginx {
    pub(super) fn start(tls: bool) -> anyhow::Result<Self> {
        let listen = if tls { "ssl " } else { "" };
        let secrets = if tls {
            "ssl_protocols TLSv1.3; ssl_certificate CERTIFICATE; ssl_certificate_key KEY; ssl_session_tickets on;"
        } else {
            ""
        };
        let config = format!(
            "worker_processes 1;\nworker_rlimit_nofile 20000;\ndaemon off;\nuser root;\npid DIR/pid;\nerror_log DIR/error.log;\nevents {{ worker_connections 16000; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; open_file_cache max=100;\n\
             client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;\n\
             server {{ listen 127.0.0.1:PORT {listen}backlog=4096; root DIR/www; {secrets} }} }}\n"
        );
        let arguments = ["-c", "DIR/conf", "-e", "DIR/error.log"];
        let server = start(
            &Plan {
                program: "nginx",
                arguments: &arguments,
                config: &config,
                tls,
            },
            true,
        )?;
        let master = server.child.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        let worker = children
            .split_whitespace()
            .next()
            .context("nginx has no worker")?
            .parse()?;
        // A file's tag is when it was changed, and its size.
        let file = fs::metadata(server._directory.path().join("www/news"))?;
        let changed = file
            .modified()?
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs();
        Ok(Self {
            server,
            worker,
            etag: format!("\"{changed:x}-{:x}\"", file.len()),
        })
    }
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.server.endpoint
    }
    pub(super) fn process(&self) -> Process {
        Process(self.worker)
    }
}

/// A broker with a fresh namespace.
pub(in super::super) struct Broker {
    pub(in super::super) fixture: Fixture,
    daemon: Daemon,
    pub(in super::super) clear: Endpoint,
    pub(super) encrypted: Endpoint,
}

impl Broker {
    pub(in super::super) fn start(pinned: bool) -> anyhow::Result<Self> {
        let mut fixture = Fixture::new()?;
        fixture.launcher = launcher(pinned);
        let certificate = Certificate::make(&fixture.directory)?;
        let nntps = free_address()?;
        // None of the others writes a line for each message.
        fixture.configure(&format!(
            "nntps = [\"{nntps}\"]\n[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n[limits]\nconnections = 20000\nwatches = 20000\nconnections_per_address = 20000\n[quota]\nchannels = 100000\n\
             [log]\nlevel = \"warn\"\n[[peer]]\nname = \"loader\"\nnetworks = [\"127.0.0.0/8\"]\nfeeds = \"test.*\"\n",
            certificate.certificate.display(),
            certificate.key.display()
        ))?;
        let daemon = fixture.start()?;
        let clear = endpoint(fixture.address.port(), None)?;
        let encrypted = endpoint(nntps.port(), Some(&certificate))?;
        Ok(Self {
            fixture,
            daemon,
            clear,
            encrypted,
        })
    }
    pub(in super::super) fn process(&self) -> Process {
        Process(self.daemon.pid())
    }
    /// The same after SIGTERM, when it answers again.
    pub(in super::super) fn restart(self) -> anyhow::Result<Self> {
        self.daemon.signal("TERM")?;
        self.daemon.wait(START)?;
        let daemon = self.fixture.start()?;
        Ok(Self { daemon, ..self })
    }
}

/// The reference: accepts so many subscribers and one publisher, and passes on what that sends by
/// one write each.
pub(in super::super) fn raw_server(count: usize, size: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut publisher, _) = listener.accept()?;
    publisher.write_all(b"\n")?;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.write_all(b"\n")?;
        sockets.push(socket);
    }
    let mut message = vec![0; size];
    while publisher.read_exact(&mut message).is_ok() {
        for socket in &mut sockets {
            socket.write_all(&message)?;
        }
    }
    Ok(())
}

pub(super) fn raw(count: usize, size: usize) -> anyhow::Result<Server> {
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?.display().to_string();
    let words: Vec<String> = launcher(true).into_iter().chain([program]).collect();
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .args(["peers", "raw-server", &count.to_string(), &size.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse().context("the reference did not start")?;
    Ok(Server {
        child,
        endpoint: Endpoint {
            address,
            tls: None::<(Arc<_>, ServerName<'static>)>,
        },
        _directory: directory,
    })
}
