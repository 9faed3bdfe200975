//! A mirror that lies: it holds back, replays, cuts, claims what it does not have, and shows
//! branches and signatures that nobody has made who may.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tidings_client::{
    Connection, Error, Tls,
    simulated::{self, Socket, within},
};
use tidings_protocol::{
    Channel, Head, Serial, Statement, article,
    nntp::{Response, code},
    statement::{Body, Release},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    CHANNELS, FED, HOSTILE, NAMES, Simulation, lock,
    statements::{key, sign, signer},
};
use crate::clock;

/// How long it waits for one who does not answer.
const PATIENCE: Duration = Duration::from_secs(40);

type Copies = BTreeMap<Channel, BTreeMap<u32, Statement>>;

/// What it does with what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Releases stay as they are; beats and trust go on.
    HoldsBack,
    /// Everything stays as it is.
    Replays,
    /// It claims more than it has.
    Claims,
    /// Its log goes on otherwise, by a key that nobody knows.
    Branch,
    /// The same, by the key that was taken away.
    OldKey,
    /// What is right is signed by the wrong key.
    Signature,
    /// Its newest is right, and what lies below is not.
    Below,
    /// The connection ends in the middle.
    Cuts,
    /// It says nothing.
    Silent,
    /// It says anything.
    Nonsense,
}

/// What only links tell from the truth is told more often than the rest.
const LIES: [Lie; 12] = [
    Lie::None,
    Lie::HoldsBack,
    Lie::Replays,
    Lie::Claims,
    Lie::Branch,
    Lie::OldKey,
    Lie::Signature,
    Lie::Below,
    Lie::Below,
    Lie::Cuts,
    Lie::Silent,
    Lie::Nonsense,
];

struct Told {
    lie: Lie,
    logs: Copies,
}

/// Listens, and lies otherwise every now and then.
pub(super) async fn run(sim: Arc<Simulation>) {
    let told = Arc::new(Mutex::new(Told {
        lie: Lie::None,
        logs: Copies::new(),
    }));
    let (lying, changing) = (told.clone(), sim.clone());
    tokio::spawn(within(HOSTILE, async move {
        loop {
            change(&changing, &lying);
            sleep(Duration::from_millis(2_000 + changing.below(25_000) as u64)).await;
        }
    }));
    // What it has right fills gaps of the one who is fed: not always.
    if sim.below(2) == 0 {
        tokio::spawn(within(HOSTILE, feed(sim.clone(), told.clone())));
    }
    let mut listener = simulated::listen(NAMES[HOSTILE]);
    while let Some((socket, _)) = listener.accept().await {
        let (sim, told) = (sim.clone(), told.clone());
        tokio::spawn(within(HOSTILE, async move {
            // Who is lied to may hang up.
            drop(serve(&sim, &told, socket).await);
        }));
    }
}

/// Offers something to the one who is fed, now and then.
async fn feed(sim: Arc<Simulation>, told: Arc<Mutex<Told>>) {
    let tls = Tls::system().unwrap();
    loop {
        sleep(sim.millis(30_000)).await;
        // Who is lied to may hang up.
        drop(timeout(PATIENCE, offer(&sim, &told, &tls)).await);
    }
}

async fn offer(sim: &Simulation, told: &Mutex<Told>, tls: &Tls) -> Result<(), Error> {
    let address = format!("nntp://{}", NAMES[FED]).parse().unwrap();
    let mut connection = Connection::open(&address, tls).await?;
    let logs = lock(told).logs.clone();
    let all: Vec<&Statement> = logs.values().flat_map(BTreeMap::values).collect();
    for _ in 0..sim.below(12) {
        let Some(one) = all.get(sim.below(all.len().max(1))) else {
            break;
        };
        let mut octets = format!("TAKETHIS {}\r\n", one.message_id()).into_bytes();
        octets.extend(article::render(one, "bad!not-for-mail").octets);
        octets.extend(b".\r\n");
        connection.send_raw(&octets).await?;
        if sim.below(2) == 0 {
            connection.answer().await?;
        }
    }
    Ok(())
}

fn change(sim: &Simulation, told: &Mutex<Told>) {
    let lie = LIES[sim.below(LIES.len())];
    let mut told = lock(told);
    let old = std::mem::replace(&mut told.logs, sim.oracle.copy());
    told.lie = lie;
    sim.oracle.note("lie", lie as usize);
    let channel: Channel = CHANNELS[sim.below(CHANNELS.len())].parse().unwrap();
    match lie {
        Lie::Replays if !old.is_empty() => told.logs = old,
        Lie::HoldsBack => {
            let log = told.logs.entry(channel).or_default();
            let keep = sim.below(log.len() + 1);
            while log.len() > keep {
                log.pop_last();
            }
        }
        Lie::Branch => branch(sim, &mut told.logs, &channel, false),
        Lie::OldKey => branch(sim, &mut told.logs, &channel, true),
        Lie::Signature => {
            let log = told.logs.entry(channel).or_default();
            log.values_mut().for_each(sign_wrongly);
        }
        Lie::Below => below(sim, &mut told.logs, &channel),
        _ => {}
    }
}

/// All but the newest are others.
fn below(sim: &Simulation, logs: &mut Copies, channel: &Channel) {
    let Some(log) = logs.get_mut(channel) else {
        return;
    };
    let Some((serial, newest)) = log.pop_last() else {
        return;
    };
    log.clear();
    forge(sim, logs, channel, "mallory", serial as usize - 1);
    logs.entry(channel.clone())
        .or_default()
        .insert(serial, newest);
}

/// The same statement, signed by somebody else.
fn sign_wrongly(statement: &mut Statement) {
    let text = String::from_utf8_lossy(statement.octets()).into_owned();
    let end = text.find("\nSignature: ").map_or(text.len(), |at| at + 1);
    let draft = Statement::parse_draft(&text.as_bytes()[..end]);
    if let Ok(signed) = draft.and_then(|draft| draft.sign(&key("mallory"))) {
        *statement = signed;
    }
}

/// Some of the newest statements are others, and there are some more.
fn branch(sim: &Simulation, logs: &mut Copies, channel: &Channel, old_key: bool) {
    let before = newest_trust(sim, logs).and_then(|trust| Serial::new(trust.number() - 1));
    let by = before.filter(|_| old_key).map_or("mallory", signer);
    let log = logs.entry(channel.clone()).or_default();
    for _ in 0..sim.below(3) {
        log.pop_last();
    }
    forge(sim, logs, channel, by, 1 + sim.below(4));
}

fn newest_trust(sim: &Simulation, logs: &Copies) -> Option<Serial> {
    let log = logs.get(&sim.anchor.namespace.trust_log())?;
    Serial::new(*log.keys().next_back()?)
}

/// A log goes on as nobody has published it.
fn forge(sim: &Simulation, logs: &mut Copies, channel: &Channel, by: &str, many: usize) {
    let Some(trust) = newest_trust(sim, logs) else {
        return;
    };
    let log = logs.entry(channel.clone()).or_default();
    let mut after: Option<Head> = log.values().next_back().map(Statement::head);
    for _ in 0..many {
        let body = Body::Release(Release {
            version: format!("666.{}", sim.next_version()),
            ..Release::default()
        });
        let forged = sign(channel.clone(), after, Some(trust), clock::now(), body, by);
        after = Some(forged.head());
        log.insert(forged.serial().number(), forged);
    }
}

async fn serve(sim: &Simulation, told: &Mutex<Told>, mut socket: Socket) -> io::Result<()> {
    let (mut input, mut selected) = (Vec::new(), None);
    socket.write_all(b"200 welcome\r\n").await?;
    loop {
        while let Some(end) = input.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Some(targets) = line.strip_prefix("XWATCH ").filter(|_| sim.below(3) > 0) {
                watch(sim, told, &mut socket, targets).await?;
                continue;
            }
            let answer = answer(&lock(told), &line, &mut selected);
            send(sim, told, &mut socket, answer).await?;
        }
        if socket.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// Says something, or not, as the lie is.
async fn send(
    sim: &Simulation,
    told: &Mutex<Told>,
    socket: &mut Socket,
    text: String,
) -> io::Result<()> {
    let lie = lock(told).lie;
    sim.oracle
        .count(|counts| counts.lies += usize::from(lie != Lie::None));
    let mut octets = text.into_bytes();
    match lie {
        Lie::Silent => return Ok(()),
        Lie::Cuts if sim.below(3) == 0 => {
            octets.truncate(sim.below(octets.len()));
            socket.write_all(&octets).await?;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Lie::Nonsense if sim.below(3) == 0 => {
            let at = sim.below(octets.len());
            octets[at] = b"0\r\n.9 x\0"[sim.below(8)];
        }
        _ => {}
    }
    socket.write_all(&octets).await
}

/// Tells of what it has, until the other side says anything.
async fn watch(
    sim: &Simulation,
    told: &Mutex<Told>,
    socket: &mut Socket,
    targets: &str,
) -> io::Result<()> {
    let cursor = |target: &str| {
        let (channel, after) = target.split_once(':')?;
        Some((channel.parse().ok()?, after.parse().ok()?))
    };
    let mut sent: BTreeMap<Channel, u32> = targets.split(' ').filter_map(cursor).collect();
    let has_all = sent.is_empty();
    let greeting = format!("{} 60 watching\r\n", code::WATCHING);
    send(sim, told, socket, greeting).await?;
    loop {
        let logs = lock(told).logs.clone();
        let mut events = Vec::new();
        for (channel, log) in logs {
            let newest = log.keys().next_back().copied().unwrap_or(0);
            if has_all {
                sent.entry(channel.clone()).or_insert(newest);
            }
            let Some(sent) = sent.get_mut(&channel) else {
                continue;
            };
            events.extend(log.range(*sent + 1..).map(|(_, one)| event(one)));
            *sent = newest;
        }
        if events.is_empty() {
            events.push("0\r\n".into());
        }
        for event in events {
            send(sim, told, socket, event).await?;
        }
        let pause = sim.millis(20_000);
        let said = std::future::poll_fn(|context| socket.poll_readable(context));
        if timeout(pause, said).await.is_ok() {
            return socket.write_all(b".\r\n").await;
        }
    }
}

/// What a watch sends of a statement.
fn event(statement: &Statement) -> String {
    let (serial, id) = (statement.serial(), statement.message_id());
    let article = article::render(statement, "bad!not-for-mail").octets;
    let article = String::from_utf8_lossy(&article);
    format!("{serial} {id} {}\r\n{article}", article::lines(statement))
}

fn answer(told: &Told, line: &str, selected: &mut Option<Channel>) -> String {
    let refuse = |code, text: &str| format!("{}\r\n", Response::new(code, text));
    let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
    let marks = |log: &BTreeMap<u32, Statement>| {
        let (low, high) = (log.keys().next()?, log.keys().next_back()?);
        Some((*low, high + 3 * u32::from(told.lie == Lie::Claims)))
    };
    match command {
        "CAPABILITIES" => "101 so\r\nVERSION 2\r\nREADER\r\nXWATCH\r\n.\r\n".into(),
        "XWATCH" => refuse(code::WATCH_REFUSED, "no"),
        "GROUP" => {
            let channel = argument.parse().ok();
            let found = channel.as_ref().and_then(|channel| told.logs.get(channel));
            match found.and_then(marks) {
                Some((low, high)) => {
                    *selected = channel;
                    format!("211 {} {low} {high} {argument}\r\n", high - low + 1)
                }
                None => refuse(code::NO_SUCH_GROUP, "no such group"),
            }
        }
        "LIST" => {
            let mut list = String::from("215 so\r\n");
            for (channel, log) in &told.logs {
                if let Some((low, high)) = marks(log) {
                    let _ = write!(list, "{channel} {high} {low} n\r\n");
                }
            }
            list + ".\r\n"
        }
        "STAT" | "ARTICLE" => {
            let log = selected.as_ref().and_then(|one| told.logs.get(one));
            let by_number = || log?.get(&argument.parse().ok()?);
            let by_id = || {
                let mut all = told.logs.values().flat_map(BTreeMap::values);
                all.find(|one| one.message_id().to_string() == argument)
            };
            let Some(found) = by_number().or_else(by_id) else {
                return refuse(code::NO_SUCH_NUMBER, "no such article");
            };
            let (serial, id) = (found.serial(), found.message_id());
            if command == "STAT" {
                return format!("223 {serial} {id}\r\n");
            }
            let article = article::render(found, "bad!not-for-mail").octets;
            let article = String::from_utf8_lossy(&article).into_owned();
            format!("220 {serial} {id}\r\n{article}.\r\n")
        }
        "MODE" => "201 no posting\r\n".into(),
        _ => refuse(code::UNKNOWN, "what?"),
    }
}
