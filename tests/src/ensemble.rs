//! A ZooKeeper ensemble: real servers as processes, with directories and ports of their own.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::free_address;

/// How long an ensemble may take until it has a leader.
const START: Duration = Duration::from_secs(60);
/// Where Debian's package `zookeeper` has it.
const JAR: &str = "/usr/share/java/zookeeper.jar";

/// One server, running or not.
pub struct Server {
    directory: PathBuf,
    /// Where clients reach it.
    pub address: SocketAddr,
    launcher: Vec<String>,
    flags: Vec<String>,
    child: Option<Child>,
}

/// The servers.
pub struct Ensemble {
    /// All of them.
    pub servers: Vec<Server>,
    _directory: tempfile::TempDir,
}

/// Where a server is, and what stands before it on its command line.
pub struct Place {
    /// For clients.
    pub client: SocketAddr,
    /// For its peers.
    pub peers: (SocketAddr, SocketAddr),
    /// E.g. `ip netns exec NAME`.
    pub launcher: Vec<String>,
}

impl Ensemble {
    /// So many on loopback, started, with more in their configuration.
    ///
    /// # Errors
    /// If ZooKeeper is not installed, or does not start.
    pub fn start(count: usize, more: &str) -> anyhow::Result<Self> {
        Self::start_with(count, more, &[])
    }

    /// The same, with flags of Java's.
    ///
    /// # Errors
    /// If ZooKeeper is not installed, or does not start.
    pub fn start_with(count: usize, more: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let place = |_| {
            Ok(Place {
                client: free_address()?,
                peers: (free_address()?, free_address()?),
                launcher: vec![],
            })
        };
        let places: anyhow::Result<Vec<Place>> = (0..count).map(place).collect();
        Self::begin(places?, more, flags)
    }

    /// The same in given places.
    ///
    /// # Errors
    /// If ZooKeeper is not installed, or does not start.
    pub fn start_at(places: Vec<Place>, more: &str) -> anyhow::Result<Self> {
        Self::begin(places, more, &[])
    }

    fn begin(places: Vec<Place>, more: &str, flags: &[&str]) -> anyhow::Result<Self> {
        ensure!(
            fs::exists(JAR)?,
            "{JAR} is missing: install Debian's packages `zookeeper` and `default-jre-headless`"
        );
        let directory = tempfile::tempdir()?;
        let peers: Vec<String> = (places.iter().enumerate())
            .map(|(n, place)| {
                format!(
                    "server.{}={}:{}:{}\n",
                    n + 1,
                    place.peers.0.ip(),
                    place.peers.0.port(),
                    place.peers.1.port()
                )
            })
            .collect();
        let mut servers = Vec::new();
        for (n, place) in places.into_iter().enumerate() {
            let directory = directory.path().join(format!("zookeeper{}", n + 1));
            fs::create_dir_all(directory.join("data"))?;
            fs::write(directory.join("data/myid"), (n + 1).to_string())?;
            let peers = if peers.len() > 1 {
                peers.concat()
            } else {
                String::new()
            };
            let text = format!(
                "tickTime=400\ninitLimit=20\nsyncLimit=5\nmaxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n\
                 dataDir={}\nclientPort={}\nclientPortAddress={}\n{peers}{more}\n",
                directory.join("data").display(),
                place.client.port(),
                place.client.ip(),
            );
            fs::write(directory.join("zoo.cfg"), text)?;
            servers.push(Server {
                directory,
                address: place.client,
                launcher: place.launcher,
                flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                child: None,
            });
        }
        let mut ensemble = Self {
            servers,
            _directory: directory,
        };
        for server in &mut ensemble.servers {
            server.start()?;
        }
        ensemble.until_serving()?;
        Ok(ensemble)
    }

    /// As the configuration of a broker wants them.
    pub fn servers(&self) -> String {
        let quoted: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("\"{}\"", server.address))
            .collect();
        quoted.join(", ")
    }

    /// Waits until those that run have a leader.
    ///
    /// # Errors
    /// If they never have.
    pub fn until_serving(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let waits = |server: &&Server| server.child.is_some() && !server.serves();
        while let Some(server) = self.servers.iter().find(waits) {
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            ensure!(
                began.elapsed() < START,
                "the server at {} does not serve after {START:?}: {}",
                server.address,
                lines[lines.len().saturating_sub(100)..].join("\n")
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Server {
    /// Starts it, if it does not run.
    ///
    /// # Errors
    /// If there is no Java.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))?;
        let mut words: Vec<String> = self.launcher.clone();
        words.extend(
            [
                "java",
                "-Xmx192m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            ]
            .map(String::from),
        );
        words.extend(self.flags.iter().cloned());
        // What its manifest forgets, and TLS needs.
        let more = [
            "slf4j-simple",
            "netty-codec",
            "netty-resolver",
            "netty-transport-native-unix-common",
        ];
        let more: String = more
            .iter()
            .map(|name| format!(":/usr/share/java/{name}.jar"))
            .collect();
        words.extend(["-cp".into(), format!("{JAR}{more}")]);
        words.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .arg(self.directory.join("zoo.cfg"))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run java; install Debian's package `default-jre-headless`")?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal by name, e.g. `STOP`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(child.id().to_string())
            .status()?;
        ensure!(status.success(), "kill -{name} failed");
        Ok(())
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn serves(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect_timeout(&self.address, Duration::from_millis(300))
        else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut text = String::new();
        stream.write_all(b"srvr").is_ok()
            && stream.read_to_string(&mut text).is_ok()
            && text.contains("Mode: ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}
