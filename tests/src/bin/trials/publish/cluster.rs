//! One broker, three that are one origin, and what ZooKeeper itself can do, in turns.

use std::time::{Duration, Instant};

use anyhow::Context;
use tidings_client::{Publisher, Source};
use tidings_tests::{
    Daemon, Fixture, cluster::Site, cpu_seconds, ensemble::Ensemble, realm::Realm, tree::until_head,
};
use zookeeper_client as zk;

use super::{Measured, Options, measure, verifications};

/// Java with both of its compilers, and room for what three brokers keep: the servers of the tests
/// have a small heap and one compiler, so that they start fast.
const SERVERS: [&str; 2] = ["-Xmx768m", "-XX:TieredStopAtLevel=4"];

/// What writers share who go to ZooKeeper without any broker.
struct Bare {
    clients: Vec<zk::Client>,
    root: String,
}

impl Bare {
    /// The multi-operation of an append, without anything around it: check, set, create. Each of
    /// the writers has so many logs, and one statement for each of them in an operation.
    async fn measure(
        &self,
        (writers, logs): (usize, usize),
        tag: &str,
        options: &Options,
    ) -> anyhow::Result<Measured> {
        let until = Instant::now() + Duration::from_secs(options.seconds);
        let mut tasks = Vec::new();
        for (number, client) in (0..writers).zip(self.clients.iter().cycle()) {
            let mut paths = Vec::new();
            for log in 0..logs {
                let path = format!("{}/{tag}/n{number}l{log}", self.root);
                client.mkdir(&path, &anyone()).await?;
                paths.push(path);
            }
            tasks.push((client.clone(), paths));
        }
        let (began, cpu) = (Instant::now(), cpu_seconds(std::process::id())?);
        let octets = options.octets + 200;
        let writes: Vec<_> = tasks
            .iter()
            .cloned()
            .map(|(client, paths)| tokio::spawn(write(client, paths, octets, until)))
            .collect();
        let mut delays = Vec::new();
        for write in writes {
            delays.extend(write.await??);
        }
        let measured = Measured::of(delays, began, cpu)?;
        for (client, log) in tasks
            .iter()
            .flat_map(|(client, logs)| logs.iter().map(move |log| (client, log)))
        {
            remove(client, log).await?;
        }
        Ok(measured)
    }
}

/// Removes a log and its statements, which would fill the servers' memory from one round to the
/// next; the cluster removes its own.
async fn remove(client: &zk::Client, log: &str) -> anyhow::Result<()> {
    let names = client.list_children(log).await?;
    for some in names.chunks(512) {
        let mut writer = client.new_multi_writer();
        for name in some {
            writer.add_delete(&format!("{log}/{name}"), None)?;
        }
        writer.commit().await?;
    }
    client.delete(log, None).await?;
    Ok(())
}

fn anyone() -> zk::CreateOptions<'static> {
    zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all())
}

/// One multi-operation after the other; the milliseconds of each statement.
async fn write(
    client: zk::Client,
    logs: Vec<String>,
    octets: usize,
    until: Instant,
) -> anyhow::Result<Vec<f64>> {
    let (data, mut delays, mut version) = (vec![b'x'; octets], Vec::new(), 0);
    while Instant::now() < until {
        let sent = Instant::now();
        let mut writer = client.new_multi_writer();
        // The trust log's head stands still; here it is the root.
        writer.add_check_version("/", -1)?;
        for log in &logs {
            writer.add_set_data(
                log,
                b"42 sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                Some(version),
            )?;
            writer.add_create(&format!("{log}/{version:010}"), &data, &anyone())?;
        }
        writer.commit().await?;
        version += 1;
        let delay = sent.elapsed().as_secs_f64() * 1000.0;
        delays.extend(logs.iter().map(|_| delay));
    }
    Ok(delays)
}

/// Who uses the processors.
struct Processes {
    single: Daemon,
    members: Vec<Daemon>,
    ensemble: Ensemble,
}

/// Seconds of the processors that brokers and servers have used so far.
struct Used {
    brokers: f64,
    servers: f64,
}

impl Processes {
    fn used(&self) -> anyhow::Result<Used> {
        let brokers = self.members.iter().chain([&self.single]);
        let servers = self.ensemble.servers.iter();
        let brokers: anyhow::Result<f64> = brokers.map(Daemon::cpu_seconds).sum();
        let servers: anyhow::Result<f64> = servers
            .map(|server| cpu_seconds(server.pid().context("no server")?))
            .sum();
        Ok(Used {
            brokers: brokers?,
            servers: servers?,
        })
    }

    /// What was measured as a column, with what it has cost since.
    fn column(&self, before: &Used, of: &Measured) -> anyhow::Result<String> {
        let after = self.used()?;
        let each = |seconds: f64| seconds * 1e6 / of.count as f64;
        Ok(format!(
            "{:.0}, {:.2}, {:.2}; {:.0}, {:.0}, {:.0}",
            of.rate,
            of.p50,
            of.p99,
            each(of.cpu),
            each(after.brokers - before.brokers),
            each(after.servers - before.servers),
        ))
    }
}

/// Who takes statements.
struct Takers<'a> {
    single: &'a Fixture,
    source: Source,
    cluster: Vec<Source>,
    bare: Bare,
    processes: &'a Processes,
}

impl Takers<'_> {
    /// One row of the table.
    #[allow(clippy::print_stdout)]
    async fn row(&self, round: u32, publishers: usize, options: &Options) -> anyhow::Result<()> {
        let (tag, processes) = (format!("r{round}"), self.processes);
        let before = processes.used()?;
        let one = [self.source.clone()];
        let one = measure(&one, publishers, &tag, options, self.single).await?;
        let one = processes.column(&before, &one)?;
        let before = processes.used()?;
        let three = measure(&self.cluster, publishers, &tag, options, self.single).await?;
        let rate = three.rate;
        let three = processes.column(&before, &three)?;
        let before = processes.used()?;
        let alone = self
            .bare
            .measure((publishers, 1), &format!("alone{publishers}"), options)
            .await?;
        let ratio = rate / alone.rate;
        let alone = processes.column(&before, &alone)?;
        // As many at once as wait at each member.
        let (members, before) = (self.cluster.len(), processes.used()?);
        let tag = format!("batches{publishers}");
        let together = publishers.div_ceil(members);
        let batches = self
            .bare
            .measure((publishers.min(members), together), &tag, options)
            .await?;
        let batches = processes.column(&before, &batches)?;
        println!("| {round} | {publishers} | {one} | {three} | {alone} | {batches} | {ratio:.2} |");
        Ok(())
    }
}

#[allow(clippy::print_stdout)]
pub(super) async fn side_by_side(options: &Options) -> anyhow::Result<()> {
    let single = Fixture::new()?;
    let daemon = single.start()?;
    Publisher::connect(single.source()?)
        .await?
        .publish(&single.trust)
        .await?;
    let mut flags = SERVERS.to_vec();
    flags.extend(options.no_sync.then_some("-Dzookeeper.forceSync=no"));
    let ensemble = Ensemble::start_with(3, "", &flags)?;
    let realm = Realm {
        log: vec![single.trust.clone()],
        anchor: single.anchor.clone(),
        time: tidings_client::now(),
        expires: 0,
    };
    let site = Site::new(&ensemble, realm);
    let (members, daemons) = site.found(&["a", "b", "c"], "", "").await?;
    for member in &members {
        until_head(member, &site.realm.anchor.namespace.trust_log(), 1).await;
    }
    let sources = members
        .iter()
        .map(Fixture::source)
        .collect::<Result<Vec<_>, _>>()?;
    let mut clients = Vec::new();
    for server in &ensemble.servers {
        clients.push(zk::Client::connect(&server.address.to_string()).await?);
    }
    let processes = Processes {
        single: daemon,
        members: daemons.into_iter().flatten().collect(),
        ensemble,
    };
    println!(
        "In the same run one core verifies {:.0} statements/s; a column has statements/s, p50 and p99 in ms, and µs of the processors for each statement: of who publishes, of the brokers, of ZooKeeper's servers{}.\n",
        verifications(&single)?,
        if options.no_sync {
            ", which sync nothing"
        } else {
            ""
        }
    );
    println!(
        "| round | publishers | one broker | three, one origin | multi-operations alone | the same in batches | three / alone |"
    );
    println!("| ---: | ---: | --- | --- | --- | --- | ---: |");
    for round in 1..=options.rounds {
        let takers = Takers {
            single: &single,
            source: single.source()?,
            cluster: sources.clone(),
            bare: Bare {
                clients: clients.clone(),
                root: format!("/raw{round}"),
            },
            processes: &processes,
        };
        for publishers in &options.publishers {
            takers.row(round, *publishers, options).await?;
        }
    }
    Ok(())
}
